//! The mutations of the schema, one entry each: an input that works, who may run it, what the others are
//! told; and below, what happens on what belongs to somebody else. Not here: the tests that run them
//! (`catalogue`, `foreign`).

use entities::{
    Role::{self, Admin, Collector, Editor, Manager, Viewer},
    clock,
    id::UserId,
};
use serde_json::{Value, json};

pub(super) const EVERYBODY: &[Role] = &[Admin, Manager, Editor, Collector, Viewer];

/// What those who may not are told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Otherwise {
    /// Nobody is told anything: it is open to all, signed in or not.
    Open,
    /// All may who are signed in.
    Unauthenticated,
    /// `errors` with this code, whatever the input: the role may not do it at all.
    Forbidden,
}

/// A mutation of the schema.
pub(super) struct Mutation {
    pub(super) name: &'static str,
    /// The verb of its entry in the activity log.
    pub(super) action: &'static str,
    pub(super) allowed: &'static [Role],
    pub(super) otherwise: Otherwise,
    /// An input that works, for this caller.
    pub(super) input: fn(&Caller) -> Option<Value>,
}

/// One who is about to run a mutation.
pub(super) struct Caller {
    /// The account that is called upon, which belongs to the caller.
    pub(super) own: UserId,
    /// The caller's session.
    pub(super) session: String,
    /// Another session of the caller's.
    pub(super) other_session: String,
    /// The refresh token of `session`.
    pub(super) refresh_token: String,
    /// An account of somebody else.
    pub(super) stranger: UserId,
    /// A form of the caller's that was never published; its draft has revision 1.
    pub(super) drafted: String,
    /// A form of the caller's that is open.
    pub(super) open: String,
    pub(super) email: String,
    /// A webhook of the caller's.
    pub(super) webhook: String,
    /// What it was told once.
    pub(super) delivery: String,
}

const EDITORS: &[Role] = &[Admin, Manager, Editor];

pub(super) const PASSWORD: &str = "correct horse battery staple";

/// A mutation of the schema that is not here fails the tests.
pub(super) const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "signUp",
        action: "user.sign_up",
        allowed: EVERYBODY,
        otherwise: Otherwise::Open,
        input: |caller| {
            let email = format!("new-{}", caller.email);
            Some(json!({ "email": email, "password": PASSWORD, "displayName": "New" }))
        },
    },
    Mutation {
        name: "signIn",
        action: "session.create",
        allowed: EVERYBODY,
        otherwise: Otherwise::Open,
        input: |caller| Some(json!({ "email": caller.email, "password": PASSWORD })),
    },
    Mutation {
        name: "refreshSession",
        action: "session.refresh",
        allowed: EVERYBODY,
        otherwise: Otherwise::Open,
        input: |caller| Some(json!({ "refreshToken": caller.refresh_token })),
    },
    Mutation {
        name: "signOut",
        action: "session.sign_out",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |_| None,
    },
    Mutation {
        name: "revokeSession",
        action: "session.revoke",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |caller| Some(json!({ "id": caller.other_session })),
    },
    Mutation {
        name: "revokeAllSessions",
        action: "session.revoke",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |caller| Some(json!({ "userId": caller.own.to_string() })),
    },
    Mutation {
        name: "renameSession",
        action: "session.rename",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |caller| Some(json!({ "id": caller.session, "name": "Phone" })),
    },
    Mutation {
        name: "updateProfile",
        action: "user.update",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |_| Some(json!({ "displayName": "Another" })),
    },
    Mutation {
        name: "changePassword",
        action: "user.change_password",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |_| Some(json!({ "currentPassword": PASSWORD, "newPassword": "another good password" })),
    },
    Mutation {
        name: "createUser",
        action: "user.create",
        allowed: &[Admin],
        otherwise: Otherwise::Forbidden,
        input: |caller| {
            let email = format!("made-{}", caller.email);
            Some(json!({ "email": email, "displayName": "Made", "role": "VIEWER" }))
        },
    },
    Mutation {
        name: "updateUser",
        action: "user.update",
        allowed: &[Admin],
        otherwise: Otherwise::Forbidden,
        input: |caller| Some(json!({ "id": caller.stranger.to_string(), "displayName": "Changed" })),
    },
    Mutation {
        name: "recordLocations",
        action: "location.record",
        allowed: &[Admin, Manager, Editor, Collector],
        otherwise: Otherwise::Forbidden,
        input: |_| {
            let point = json!({ "timestamp": clock::now(), "latitude": 52.5, "longitude": 13.4 });
            Some(json!({ "points": [point] }))
        },
    },
    Mutation {
        name: "createForm",
        action: "form.create",
        allowed: EDITORS,
        otherwise: Otherwise::Forbidden,
        input: |_| Some(json!({ "title": "New" })),
    },
    Mutation {
        name: "updateForm",
        action: "form.update",
        allowed: EDITORS,
        otherwise: Otherwise::Forbidden,
        input: |caller| Some(json!({ "id": caller.drafted, "title": "Renamed" })),
    },
    Mutation {
        name: "saveFormDraft",
        action: "form.save_draft",
        allowed: EDITORS,
        otherwise: Otherwise::Forbidden,
        input: |caller| Some(json!({ "id": caller.drafted, "definition": definition(), "baseRevision": 1 })),
    },
    Mutation {
        name: "publishForm",
        action: "form.publish",
        allowed: EDITORS,
        otherwise: Otherwise::Forbidden,
        input: |caller| Some(json!({ "id": caller.drafted, "baseRevision": 1 })),
    },
    Mutation {
        name: "setFormStatus",
        action: "form.set_status",
        allowed: EDITORS,
        otherwise: Otherwise::Forbidden,
        input: |caller| Some(json!({ "id": caller.open, "status": "CLOSED" })),
    },
    Mutation {
        name: "createSubmission",
        action: "submission.create",
        allowed: &[Admin, Manager, Editor, Collector],
        otherwise: Otherwise::Forbidden,
        input: |caller| Some(answers(caller)),
    },
    Mutation {
        name: "createSubmissions",
        action: "submission.create",
        allowed: &[Admin, Manager, Editor, Collector],
        otherwise: Otherwise::Forbidden,
        input: |caller| Some(json!({ "submissions": [answers(caller)] })),
    },
    Mutation {
        name: "createWebhook",
        action: "webhook.create",
        allowed: EDITORS,
        otherwise: Otherwise::Forbidden,
        input: |caller| {
            let events = ["SUBMISSION_CREATED"];
            Some(json!({ "url": "https://192.0.1.1/hooks", "events": events, "formIds": [caller.open] }))
        },
    },
    Mutation {
        name: "updateWebhook",
        action: "webhook.update",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |caller| Some(json!({ "id": caller.webhook, "events": ["FORM_UPDATED"], "formIds": null })),
    },
    Mutation {
        name: "rotateWebhookSecret",
        action: "webhook.rotate_secret",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |caller| Some(json!({ "id": caller.webhook })),
    },
    Mutation {
        name: "redeliverWebhook",
        action: "webhook.redeliver",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |caller| Some(json!({ "deliveryId": caller.delivery })),
    },
    Mutation {
        name: "deleteWebhook",
        action: "webhook.delete",
        allowed: EVERYBODY,
        otherwise: Otherwise::Unauthenticated,
        input: |caller| Some(json!({ "id": caller.webhook })),
    },
];

/// What a form asks.
pub(super) fn definition() -> Value {
    json!({ "schema": 1, "fields": [{ "key": "name", "type": "TEXT", "label": "Name" }] })
}

/// The caller's open form, filled in.
fn answers(caller: &Caller) -> Value {
    json!({ "formId": caller.open, "data": { "name": "Ann" } })
}

/// What is named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// A session, hidden from all but administrators.
    Session,
    /// An account.
    Account,
    /// A form that was never published, hidden from all but those who manage forms.
    Draft,
    /// A form that everybody sees.
    Open,
    /// A webhook, hidden from all but administrators.
    Webhook,
    /// What it was told.
    Delivery,
}

/// A mutation of something of somebody else's.
pub(super) struct Foreign {
    pub(super) name: &'static str,
    pub(super) target: Target,
    pub(super) allowed: &'static [Role],
    pub(super) input: fn(&str) -> Value,
}

pub(super) const MANAGERS: &[Role] = &[Admin, Manager];

pub(super) const FOREIGN: &[Foreign] = {
    const fn of(
        name: &'static str,
        target: Target,
        allowed: &'static [Role],
        input: fn(&str) -> Value,
    ) -> Foreign {
        Foreign { name, target, allowed, input }
    }
    &[
        of("revokeSession", Target::Session, &[Admin], |id| json!({ "id": id })),
        of("renameSession", Target::Session, &[], |id| json!({ "id": id, "name": "Mine" })),
        of(
            "revokeAllSessions",
            Target::Account,
            &[Admin],
            |id| json!({ "userId": id, "exceptCurrent": false }),
        ),
        of("updateUser", Target::Account, &[Admin], |id| json!({ "id": id, "role": "EDITOR" })),
        of("updateForm", Target::Draft, MANAGERS, |id| json!({ "id": id, "title": "Mine" })),
        of("updateForm", Target::Open, MANAGERS, |id| json!({ "id": id, "title": "Mine" })),
        of(
            "saveFormDraft",
            Target::Draft,
            MANAGERS,
            |id| json!({ "id": id, "definition": definition(), "baseRevision": 1 }),
        ),
        of(
            "saveFormDraft",
            Target::Open,
            MANAGERS,
            |id| json!({ "id": id, "definition": definition(), "baseRevision": 1 }),
        ),
        of("publishForm", Target::Draft, MANAGERS, |id| json!({ "id": id, "baseRevision": 1 })),
        of("setFormStatus", Target::Draft, MANAGERS, |id| json!({ "id": id, "status": "CLOSED" })),
        of("setFormStatus", Target::Open, MANAGERS, |id| json!({ "id": id, "status": "CLOSED" })),
        of("createWebhook", Target::Draft, &[Admin], new_webhook),
        of("createWebhook", Target::Open, &[Admin], new_webhook),
        of("updateWebhook", Target::Webhook, &[Admin], |id| json!({ "id": id, "isEnabled": false })),
        of("rotateWebhookSecret", Target::Webhook, &[Admin], |id| json!({ "id": id })),
        of("deleteWebhook", Target::Webhook, &[Admin], |id| json!({ "id": id })),
        of("redeliverWebhook", Target::Delivery, &[Admin], |id| json!({ "deliveryId": id })),
        of("createSubmission", Target::Draft, &[], |id| json!({ "formId": id, "data": { "name": "Ann" } })),
        of(
            "createSubmission",
            Target::Open,
            &[Admin, Manager, Editor, Collector],
            |id| json!({ "formId": id, "data": { "name": "Ann" } }),
        ),
        of(
            "createSubmissions",
            Target::Draft,
            &[],
            |id| json!({ "submissions": [{ "formId": id, "data": { "name": "Ann" } }] }),
        ),
    ]
};

fn new_webhook(form: &str) -> Value {
    json!({ "url": "https://192.0.1.1/", "events": ["SUBMISSION_CREATED"], "formIds": [form] })
}
