//! The activity log: who did what, told about rows that are there. Not every row has its entry; the number of
//! entries is given.

use entities::Error;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Counts, Micros,
    forms::Forms,
    people::People,
    random::Random,
    sink::{Cell, Loader, Target},
    submissions::Submissions,
};

struct Entry {
    id: Uuid,
    at: Micros,
    /// Index of the account; none for the system and for removed accounts.
    user: Option<usize>,
    action: &'static str,
    subject: (&'static str, Uuid),
    metadata: Value,
}

/// What happened, before it has an id.
type Event = (Micros, Option<usize>, &'static str, (&'static str, Uuid), Value);

pub(crate) async fn load(
    loader: &mut Loader<'_>,
    counts: Counts,
    people: &People,
    forms: &Forms,
    submissions: &Submissions,
) -> Result<(), Error> {
    const ENTRIES: Target = Target {
        table: "user_activity_logs",
        columns: &["id", "user_id", "action_type", "subject_id", "subject_type", "metadata", "created_at"],
    };
    let mut random = Random::of("activity");
    let mut entries: Vec<Entry> = (0..counts.activity)
        .map(|_| {
            let (at, user, action, subject, metadata) = match random.below(100) {
                0..40 => of_submission(people, forms, submissions, &mut random),
                40..75 => of_session(people, &mut random),
                75..95 => of_form(people, forms, &mut random),
                _ => of_user(people, &mut random),
            };
            Entry { id: random.id(at), at, user, action, subject, metadata }
        })
        .collect();
    entries.sort_by_key(|entry| (entry.at, entry.id));
    let rows = entries.iter().map(|entry| row(entry, people));
    loader.load(&ENTRIES, entries.len(), rows).await
}

fn row(entry: &Entry, people: &People) -> [Cell; 7] {
    [
        entry.id.into(),
        entry.user.map(|index| people.users[index].id).into(),
        entry.action.into(),
        entry.subject.1.into(),
        entry.subject.0.into(),
        Cell::Json(entry.metadata.to_string()),
        Cell::Time(entry.at),
    ]
}

fn of_submission(people: &People, forms: &Forms, submissions: &Submissions, random: &mut Random) -> Event {
    let submission = random.pick(&submissions.0);
    let form = &forms.forms[submission.form];
    let user = (!submission.orphaned).then_some(people.sessions[submission.session].user);
    let metadata = json!({ "formId": form.id, "version": form.version_at(submission.at).max(1) });
    (submission.at, user, "submission.create", ("Submission", submission.id), metadata)
}

fn of_session(people: &People, random: &mut Random) -> Event {
    let session = random.pick(&people.sessions);
    let subject = ("Session", session.id);
    match session.end {
        Some((at, reason)) if random.chance(0.4) => {
            use entities::session::EndReason as Why;
            let (action, by) = match reason {
                Why::SignedOut => ("session.sign_out", Some(session.user)),
                Why::RevokedByUser | Why::CredentialsChanged => ("session.revoke", Some(session.user)),
                Why::RevokedByAdmin => ("session.revoke", Some(0)),
                Why::Expired | Why::TokenReuse => ("session.end", None),
            };
            (at, by, action, subject, json!({ "endReason": reason.as_str() }))
        }
        _ => (session.created, Some(session.user), "session.create", subject, json!({})),
    }
}

fn of_form(people: &People, forms: &Forms, random: &mut Random) -> Event {
    let form = random.pick(&forms.forms);
    let (owner, subject) = (Some(form.owner), ("Form", form.id));
    match random.below(10) {
        0..2 => (form.created, owner, "form.create", subject, json!({})),
        2..5 if !form.versions.is_empty() => {
            let number = 1 + random.below(form.versions.len());
            let version = &form.versions[number - 1];
            let metadata = json!({ "formId": form.id, "version": number });
            (version.published, owner, "form.publish", ("FormVersion", version.id), metadata)
        }
        5 => (form.updated, owner, "form.set_status", subject, json!({ "status": form.status.as_str() })),
        6 => (form.updated, owner, "form.update", subject, json!({ "fields": ["title"] })),
        _ => (
            random.between(form.created, form.updated.min(people.now)),
            owner,
            "form.save_draft",
            subject,
            json!({}),
        ),
    }
}

fn of_user(people: &People, random: &mut Random) -> Event {
    let index = random.below(people.users.len());
    let user = &people.users[index];
    let subject = ("User", user.id);
    let at = random.between(user.created, people.now);
    match random.below(4) {
        0 => (user.created, Some(index), "user.sign_up", subject, json!({})),
        1 if !user.is_active => (at, Some(0), "user.update", subject, json!({ "fields": ["isActive"] })),
        2 => (at, Some(index), "user.change_password", subject, json!({})),
        _ => (at, Some(index), "user.update", subject, json!({ "fields": ["displayName"] })),
    }
}
