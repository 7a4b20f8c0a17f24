//! Writing webhooks: `createWebhook`, `updateWebhook`, `deleteWebhook`, `rotateWebhookSecret`,
//! `redeliverWebhook`. Here inputs are checked and refusals are put into words. Not here: what a change does
//! (`entities::webhook::write`).

use std::sync::LazyLock;

use async_graphql::{ID, InputObject, MaybeUndefined};
use entities::{
    Role,
    database::scope::Scope,
    id::{FormId, UserId, WebhookDeliveryId, WebhookId},
    idempotency::Stored,
    webhook::{
        WebhookEvent as Event,
        secret::WebhookSecret,
        write::{self, MOST_FORMS, MOST_WEBHOOKS, NewWebhook, WebhookError, WebhookUpdate},
    },
};
use futures_util::FutureExt as _;

use super::WebhookEvent;
use crate::{
    auth::viewer::Grant,
    context::{ContextExt as _, Database},
    graph::{
        edges::Edges as _,
        input::{id, set},
        mutation::{Again, Input, MutationField, MutationResult, Needs, Payload, Written},
        subgraph::Domain,
        user_error::{UserError, UserErrorCode, UserErrors},
    },
};
use engine::{
    batch::Source as _,
    context::Context,
    error::FieldError,
    object::{Entity, Object},
};

/// The mutations of this file.
pub(crate) fn fields() -> Vec<MutationField> {
    vec![
        MutationField::new(
            "createWebhook",
            "Makes a webhook of the account that asks: from now on its address is told of these \
             events. For administrators, of any form; for those who make forms, of their own. The \
             answer has its secret, which is told once.",
            Needs::Granted(Grant::WriteForms),
            |input, ctx| create(input, ctx).boxed(),
        )
        .telling_a_secret(),
        MutationField::new(
            "updateWebhook",
            "Changes a webhook, enables or disables it. For its owner and administrators.",
            Needs::Account,
            |input, ctx| update(input, ctx).boxed(),
        )
        .again(Again::Once),
        MutationField::new(
            "deleteWebhook",
            "Removes a webhook, and what waits for it. For its owner and administrators.",
            Needs::Account,
            |input, ctx| delete(input, ctx).boxed(),
        )
        .again(Again::Once),
        MutationField::new(
            "rotateWebhookSecret",
            "Gives a webhook another secret, which the answer tells once. For 24 hours the one before \
             signs as well. For its owner and administrators.",
            Needs::Account,
            |input, ctx| rotate(input, ctx).boxed(),
        )
        .telling_a_secret(),
        MutationField::new(
            "redeliverWebhook",
            "Delivers something once more, behind what waits for the same form; what waits itself is \
             tried at once. For the owner of the webhook and administrators.",
            Needs::Account,
            |input, ctx| redeliver(input, ctx).boxed(),
        ),
    ]
}

/// A new webhook.
#[derive(InputObject)]
pub(crate) struct CreateWebhookInput {
    /// Where it is told: an `https` address of at most 2048 bytes, in a public network.
    url: String,
    /// Of what: at least one.
    events: Vec<WebhookEvent>,
    /// Of which forms, at most 100. Left out or null: of all that the account has made, now and later; for
    /// administrators, of all forms.
    form_ids: Option<Vec<ID>>,
    /// `whsec_` and 24 to 64 bytes in base64. Made by the server where it is left out.
    secret: Option<String>,
}

/// New values for a webhook; what is left out stays as it is.
#[derive(InputObject)]
pub(crate) struct UpdateWebhookInput {
    /// The webhook.
    id: ID,
    /// Where it is told: an `https` address of at most 2048 bytes, in a public network.
    url: Option<String>,
    /// Of what: at least one.
    events: Option<Vec<WebhookEvent>>,
    /// Of which forms, at most 100. Null: of all that its owner has made, now and later; where that is an
    /// administrator, of all forms.
    form_ids: MaybeUndefined<Vec<ID>>,
    /// Enables or disables it. While it is disabled, what happens is not noted for it; what has waited before
    /// goes on waiting.
    is_enabled: Option<bool>,
}

/// A webhook to remove.
#[derive(InputObject)]
pub(crate) struct DeleteWebhookInput {
    /// The webhook.
    id: ID,
}

/// Another secret for a webhook.
#[derive(InputObject)]
pub(crate) struct RotateWebhookSecretInput {
    /// The webhook.
    id: ID,
    /// `whsec_` and 24 to 64 bytes in base64. Made by the server where it is left out.
    secret: Option<String>,
}

/// What to deliver once more.
#[derive(InputObject)]
pub(crate) struct RedeliverWebhookInput {
    /// The delivery.
    delivery_id: ID,
}

/// A payload of one webhook, with its secret.
macro_rules! secret_payload {
    ($payload:ident, $name:literal, $mutation:literal, $errors:literal) => {
        #[doc = concat!("The answer of `", $mutation, "`.")]
        #[derive(Clone)]
        pub(crate) struct $payload {
            webhook: Option<WebhookId>,
            secret: Option<String>,
            errors: Vec<UserError>,
        }

        impl $payload {
            fn done(webhook: WebhookId, secret: &WebhookSecret) -> Written<Self> {
                Self { webhook: Some(webhook), secret: Some(secret.expose()), errors: Vec::new() }.into()
            }

            fn refused(error: UserError) -> Written<Self> {
                Self { webhook: None, secret: None, errors: vec![error] }.into()
            }
        }

        /// The secret is told once.
        impl Payload for $payload {}

        impl Entity for $payload {
            fn object() -> &'static Object<Self> {
                static OBJECT: LazyLock<Object<$payload>> = LazyLock::new(|| {
                    Object::<$payload>::new($name, concat!("The answer of `", $mutation, "`."))
                        .of(Domain::Forms)
                        .written("webhook", "The webhook. Null where nothing was done.", |payload| {
                            payload.webhook
                        })
                        .column(
                            "secret",
                            "What deliveries are signed with. It cannot be read again. Null where \
                             nothing was done.",
                            |payload| &payload.secret,
                        )
                        .edge("userErrors", $errors, UserErrors::new(|payload: &$payload| &payload.errors))
                });
                &OBJECT
            }
        }
    };
}

secret_payload!(CreateWebhookPayload, "CreateWebhookPayload", "createWebhook", "Why it was not made.");
secret_payload!(
    RotateWebhookSecretPayload,
    "RotateWebhookSecretPayload",
    "rotateWebhookSecret",
    "Why it has the secret that it had."
);

/// The answer of `updateWebhook`.
#[derive(Clone)]
pub(crate) struct UpdateWebhookPayload {
    webhook: Option<WebhookId>,
    errors: Vec<UserError>,
}

impl UpdateWebhookPayload {
    fn refused(error: UserError) -> Written<Self> {
        Self { webhook: None, errors: vec![error] }.into()
    }
}

impl Payload for UpdateWebhookPayload {
    fn of_stored(stored: &Stored) -> Option<Self> {
        Some(Self { webhook: Some(WebhookId(stored.subject?)), errors: Vec::new() })
    }
}

impl Entity for UpdateWebhookPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<UpdateWebhookPayload>> = LazyLock::new(|| {
            Object::<UpdateWebhookPayload>::new("UpdateWebhookPayload", "The answer of `updateWebhook`.")
                .of(Domain::Forms)
                .written("webhook", "The webhook. Null where it was not changed.", |payload| payload.webhook)
                .edge(
                    "userErrors",
                    "Why it was not changed.",
                    UserErrors::new(|payload: &UpdateWebhookPayload| &payload.errors),
                )
        });
        &OBJECT
    }
}

/// The answer of `deleteWebhook`.
#[derive(Clone)]
pub(crate) struct DeleteWebhookPayload {
    deleted: Option<WebhookId>,
    errors: Vec<UserError>,
}

impl Payload for DeleteWebhookPayload {
    fn of_stored(stored: &Stored) -> Option<Self> {
        Some(Self { deleted: Some(WebhookId(stored.subject?)), errors: Vec::new() })
    }
}

impl Entity for DeleteWebhookPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<DeleteWebhookPayload>> = LazyLock::new(|| {
            Object::<DeleteWebhookPayload>::new("DeleteWebhookPayload", "The answer of `deleteWebhook`.")
                .of(Domain::Forms)
                .column(
                    "deletedWebhookId",
                    "The id that the webhook had. Null where it was not removed.",
                    |payload| &payload.deleted,
                )
                .edge(
                    "userErrors",
                    "Why it was not removed.",
                    UserErrors::new(|payload: &DeleteWebhookPayload| &payload.errors),
                )
        });
        &OBJECT
    }
}

/// The answer of `redeliverWebhook`.
#[derive(Clone)]
pub(crate) struct RedeliverWebhookPayload {
    delivery: Option<WebhookDeliveryId>,
    errors: Vec<UserError>,
}

impl Payload for RedeliverWebhookPayload {
    fn of_stored(stored: &Stored) -> Option<Self> {
        Some(Self { delivery: Some(WebhookDeliveryId(stored.subject?)), errors: Vec::new() })
    }
}

impl Entity for RedeliverWebhookPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<RedeliverWebhookPayload>> = LazyLock::new(|| {
            Object::<RedeliverWebhookPayload>::new(
                "RedeliverWebhookPayload",
                "The answer of `redeliverWebhook`.",
            )
            .of(Domain::Forms)
            .written("delivery", "The delivery. Null where nothing was done.", |payload| payload.delivery)
            .edge(
                "userErrors",
                "Why it is not delivered once more.",
                UserErrors::new(|payload: &RedeliverWebhookPayload| &payload.errors),
            )
        });
        &OBJECT
    }
}

/// `Mutation.createWebhook`
async fn create(
    Input(input): Input<CreateWebhookInput>,
    ctx: &Context,
) -> MutationResult<CreateWebhookPayload> {
    let account = account(ctx)?;
    let checked = async {
        let forms = form_ids(input.form_ids.as_deref())?;
        let secret = secret_of(input.secret.as_deref());
        Ok::<_, FieldError>((events_of(&input.events), forms, secret, check_url(ctx, &input.url).await))
    };
    let (events, forms, secret, url) = match checked.await? {
        (Ok(events), Ok(forms), Ok(secret), Ok(url)) => (events, forms, secret, url),
        (Err(error), ..) | (_, Err(error), ..) | (_, _, Err(error), _) | (.., Err(error)) => {
            return Ok(CreateWebhookPayload::refused(error));
        }
    };
    let new = NewWebhook { url, events, forms, secret: secret.clone() };
    let sealing = &ctx.access().options().secret;
    let created = write::create(ctx.store(), sealing, account, new).await;
    Ok(match created.map_err(|error| failed(&error))? {
        Ok(webhook) => CreateWebhookPayload::done(webhook, &secret),
        Err(refusal) => CreateWebhookPayload::refused(in_words(refusal)),
    })
}

/// `Mutation.updateWebhook`
async fn update(
    Input(input): Input<UpdateWebhookInput>,
    ctx: &Context,
) -> MutationResult<UpdateWebhookPayload> {
    let (user, webhook) = (ctx.user()?, id("input.id", &input.id, WebhookId::parse)?);
    let mut update = WebhookUpdate { is_enabled: input.is_enabled, ..WebhookUpdate::default() };
    if let Some(url) = &input.url {
        // First whether they may: looking a name up tells something of the network of the server.
        if let Some(refusal) = may_set_url(ctx, webhook).await? {
            return Ok(UpdateWebhookPayload::refused(refusal));
        }
        match check_url(ctx, url).await {
            Ok(url) => update.url = Some(url),
            Err(error) => return Ok(UpdateWebhookPayload::refused(error)),
        }
    }
    if let Some(events) = &input.events {
        match events_of(events) {
            Ok(events) => update.events = Some(events),
            Err(error) => return Ok(UpdateWebhookPayload::refused(error)),
        }
    }
    if let Some(forms) = input.form_ids.as_opt_deref() {
        match form_ids(forms)? {
            Ok(forms) => update.forms = Some(forms),
            Err(error) => return Ok(UpdateWebhookPayload::refused(error)),
        }
    }
    let updated = write::update(ctx.store(), &ctx.scope(), user, webhook, update).await;
    Ok(match updated.map_err(|error| failed(&error))? {
        Ok(webhook) => UpdateWebhookPayload { webhook: Some(webhook), errors: Vec::new() }.into(),
        Err(refusal) => UpdateWebhookPayload::refused(in_words(refusal)),
    })
}

/// `Mutation.deleteWebhook`
async fn delete(
    Input(input): Input<DeleteWebhookInput>,
    ctx: &Context,
) -> MutationResult<DeleteWebhookPayload> {
    let (user, webhook) = (ctx.user()?, id("input.id", &input.id, WebhookId::parse)?);
    let deleted = write::delete(ctx.store(), &ctx.scope(), user, webhook).await;
    Ok(match deleted.map_err(|error| failed(&error))? {
        Ok(webhook) => DeleteWebhookPayload { deleted: Some(webhook), errors: Vec::new() }.into(),
        Err(refusal) => DeleteWebhookPayload { deleted: None, errors: vec![in_words(refusal)] }.into(),
    })
}

/// `Mutation.rotateWebhookSecret`
async fn rotate(
    Input(input): Input<RotateWebhookSecretInput>,
    ctx: &Context,
) -> MutationResult<RotateWebhookSecretPayload> {
    let (user, webhook) = (ctx.user()?, id("input.id", &input.id, WebhookId::parse)?);
    let secret = match secret_of(input.secret.as_deref()) {
        Ok(secret) => secret,
        Err(error) => return Ok(RotateWebhookSecretPayload::refused(error)),
    };
    let (sealing, scope) = (&ctx.access().options().secret, ctx.scope());
    let rotated = write::rotate_secret(ctx.store(), sealing, &scope, user, (webhook, &secret)).await;
    Ok(match rotated.map_err(|error| failed(&error))? {
        Ok(webhook) => RotateWebhookSecretPayload::done(webhook, &secret),
        Err(refusal) => RotateWebhookSecretPayload::refused(in_words(refusal)),
    })
}

/// `Mutation.redeliverWebhook`
async fn redeliver(
    Input(input): Input<RedeliverWebhookInput>,
    ctx: &Context,
) -> MutationResult<RedeliverWebhookPayload> {
    let (user, delivery) =
        (ctx.user()?, id("input.deliveryId", &input.delivery_id, WebhookDeliveryId::parse)?);
    let redelivered = write::redeliver(ctx.store(), &ctx.scope(), user, delivery).await;
    let (delivery, errors) = match redelivered.map_err(|error| failed(&error))? {
        Ok(delivery) => (Some(delivery), Vec::new()),
        Err(WebhookError::NotFound) => {
            let path = ["input", "deliveryId"];
            (None, vec![UserError::new(UserErrorCode::NotFound, &path, "Delivery not found.")])
        }
        Err(refusal) => (None, vec![in_words(refusal)]),
    };
    Ok(RedeliverWebhookPayload { delivery, errors }.into())
}

/// The account that asks, and its role.
fn account(ctx: &Context) -> Result<(UserId, Role), FieldError> {
    match ctx.scope() {
        Scope::Of { user, role } => Ok((user, role)),
        Scope::All | Scope::Nothing => Err(FieldError::unauthenticated()),
    }
}

/// Why the caller may not have this webhook sent elsewhere, if so.
async fn may_set_url(ctx: &Context, webhook: WebhookId) -> Result<Option<UserError>, FieldError> {
    let found = entities::webhook::by_ids(ctx.store(), &[webhook]).await.map_err(|error| failed(&error))?;
    if !found.get(&webhook).is_some_and(|found| found.is_visible_to(&ctx.scope())) {
        return Ok(Some(in_words(WebhookError::NotFound)));
    }
    let refusal =
        || UserError::new(UserErrorCode::NotAllowed, &["input", "url"], Grant::WriteForms.refusal());
    Ok((!ctx.viewer().holds(Grant::WriteForms)).then(refusal))
}

async fn check_url(ctx: &Context, url: &str) -> Result<String, UserError> {
    ctx.webhook_targets().check(url).await.map_err(|refused| {
        let message = format!("Invalid address: {refused}.");
        UserError::new(UserErrorCode::Invalid, &["input", "url"], message)
    })
}

fn events_of(given: &[WebhookEvent]) -> Result<Vec<Event>, UserError> {
    let events = set(given.iter().map(|event| Event::from(*event)));
    if events.is_empty() {
        let message = "A webhook is told of at least one event.";
        return Err(UserError::new(UserErrorCode::TooSmall, &["input", "events"], message));
    }
    Ok(events)
}

/// The forms of an input; the outer failure is of an id that cannot be read.
fn form_ids(given: Option<&[ID]>) -> Result<Result<Option<Vec<FormId>>, UserError>, FieldError> {
    let Some(given) = given else { return Ok(Ok(None)) };
    let refused = |code, message: String| Ok(Err(UserError::new(code, &["input", "formIds"], message)));
    if given.is_empty() {
        return refused(UserErrorCode::TooSmall, "Name at least one form, or leave them out.".to_owned());
    }
    if given.len() > MOST_FORMS {
        return refused(UserErrorCode::TooLarge, format!("A webhook names at most {MOST_FORMS} forms."));
    }
    let mut ids: Vec<FormId> = Vec::new();
    for form in given {
        let form = id("input.formIds", form, FormId::parse)?;
        if !ids.contains(&form) {
            ids.push(form);
        }
    }
    Ok(Ok(Some(ids)))
}

fn secret_of(given: Option<&str>) -> Result<WebhookSecret, UserError> {
    let Some(given) = given else { return Ok(WebhookSecret::generate()) };
    WebhookSecret::parse(given).ok_or_else(|| {
        let message = "Invalid secret: expected whsec_ and 24 to 64 bytes in base64.";
        UserError::new(UserErrorCode::Invalid, &["input", "secret"], message)
    })
}

fn in_words(refusal: WebhookError) -> UserError {
    let one = |code, path: &[&'static str], message: String| UserError::new(code, path, message);
    match refusal {
        WebhookError::NotFound => {
            one(UserErrorCode::NotFound, &["input", "id"], "Webhook not found.".to_owned())
        }
        WebhookError::NoForm(_) => {
            one(UserErrorCode::NotFound, &["input", "formIds"], "Form not found.".to_owned())
        }
        WebhookError::NotOwned(_) => one(
            UserErrorCode::NotAllowed,
            &["input", "formIds"],
            "The owner of the webhook has not made this form.".to_owned(),
        ),
        WebhookError::TooMany => one(
            UserErrorCode::TooLarge,
            &["input"],
            format!("An account has at most {MOST_WEBHOOKS} webhooks."),
        ),
        WebhookError::Disabled => one(
            UserErrorCode::Conflict,
            &["input", "deliveryId"],
            "The webhook is disabled: enable it first.".to_owned(),
        ),
    }
}

fn failed(error: &entities::Error) -> FieldError {
    Database::field_error(error, "webhook.write")
}
