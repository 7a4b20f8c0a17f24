//! Changing forms: made, renamed, drafted, published, opened and closed. Each function is one transaction with its
//! entry in the activity log. Not here: what a definition may say (`definition`), reading (`form`).

use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use crate::{
    activity::{Action, Entry},
    clock,
    database::{
        kind::Kind,
        scope::Scope,
        sql::{Json, Record as _, Sql},
        transaction::Transaction,
    },
    error::Error,
    events::Change,
    id::{FormId, FormVersionId, UserId},
    store::Store,
    unicode,
};
use {
    super::{Model, Status},
    crate::forms::{
        compiled::{self, CompiledForm, Draft},
        definition::Definition,
        problem::Problem,
    },
};

/// Why a form was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such form, or the caller may not see it.
    NotFound,
    /// The caller may see it, but not edit it.
    NotAllowed,
    /// The draft was saved in between; this is its revision now.
    Conflict {
        /// The current `draft_revision`.
        revision: i32,
    },
    /// The form was never published, so it cannot take answers.
    Unpublished,
    /// The form was published once, so it is no draft any more.
    Published,
    /// There is no draft: nothing was saved since the last publication.
    NoDraft,
    /// The draft cannot be published.
    Wrong(Vec<Problem>),
}

/// What a change answers: the form, or why not.
pub type Changed = Result<Result<FormId, Refusal>, Error>;

/// What a new form is made of.
#[derive(Debug)]
pub struct New<'a> {
    /// Shown to those who fill it in.
    pub title: &'a str,
    /// What it is for.
    pub description: Option<&'a str>,
    /// The first draft.
    pub draft: Option<Value>,
}

/// Makes a form. Who may make one, the caller has asked.
///
/// # Errors
/// The database's.
pub async fn create(store: &Store, owner: UserId, new: New<'_>) -> Result<FormId, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let (id, now) = (FormId::new(), clock::now());
    let revision = i32::from(new.draft.is_some());
    let mut sql = transaction.sql();
    sql.push("INSERT INTO forms (id, owner_id, title, search_title, description, status, version, draft, draft_revision, created_at, updated_at) VALUES (");
    sql.bind(id).push(", ").bind(owner).push(", ").bind(new.title).push(", ");
    sql.bind(unicode::searched(new.title)).push(", ").bind(new.description).push(", ");
    sql.bind(Status::Draft.as_str()).push(", 0, ").bind(new.draft).push(", ").bind(revision);
    sql.push(", ").bind(now).push(", ").bind(now).push(")");
    transaction.execute("form.insert", Model::TABLE, sql).await?;
    transaction.changed(Change::Form { id, owner });
    transaction.commit(entry(owner, Action::FormCreate, id, json!({}))).await?;
    Ok(id)
}

/// New values for what is given.
#[derive(Debug, Default)]
pub struct Update<'a> {
    /// Another title.
    pub title: Option<&'a str>,
    /// Another description; `Some(None)` takes it away.
    pub description: Option<Option<&'a str>>,
}

/// Changes title and description.
///
/// # Errors
/// The database's.
pub async fn update(store: &Store, scope: &Scope, id: FormId, update: Update<'_>) -> Changed {
    change(store, scope, id, Action::FormUpdate, |_, sql| {
        let mut fields = Vec::new();
        if let Some(title) = update.title {
            fields.push("title");
            sql.push(", title = ").bind(title).push(", search_title = ").bind(unicode::searched(title));
        }
        if let Some(description) = update.description {
            fields.push("description");
            sql.push(", description = ").bind(description);
        }
        Ok(json!({ "fields": fields }))
    })
    .await
}

/// Saves the draft over the one of revision `base`.
///
/// # Errors
/// The database's.
pub async fn save_draft(store: &Store, scope: &Scope, id: FormId, base: i32, draft: Value) -> Changed {
    change(store, scope, id, Action::FormSaveDraft, |form, sql| {
        let revision = next_revision(form, base)?;
        sql.push(", draft = ").bind(draft).push(", draft_revision = ").bind(revision);
        Ok(json!({ "revision": revision }))
    })
    .await
}

/// Makes the draft of revision `base` the next version. The first one opens the form.
///
/// # Errors
/// The database's.
pub async fn publish(
    store: &Store,
    scope: &Scope,
    id: FormId,
    base: i32,
) -> Result<Result<Published, Refusal>, Error> {
    // Read and compiled before the transaction: that takes a while, and nobody should have to wait for it.
    let draft = draft_of(store, id, base).await?;
    let compiled = tokio::task::spawn_blocking(move || {
        let draft = Draft::examine(&draft?);
        Some((Version::of(draft.form, draft.document), draft.types, draft.hints))
    });
    let compiled = compiled.await.expect("compiling does not panic and is not aborted");

    let mut transaction = Transaction::begin(store).await?;
    let (form, user) = match editable(&transaction, scope, id).await? {
        Ok(editable) => editable,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (version, types, hints) = match (next_revision(&form, base), compiled) {
        (Err(conflict), _) => return Ok(Err(conflict)),
        (Ok(_), None) => return Ok(Err(Refusal::NoDraft)),
        (Ok(_), Some(draft)) => draft,
    };
    let before = types_so_far(&transaction, id).await?;
    let changed = types.iter().filter_map(|field| {
        let before = before.get(&field.path).filter(|before| **before != field.type_name)?;
        let message = format!(
            "`{}` was {before} in a version before: answers would not fit. Take another key.",
            field.path
        );
        Some(Problem::new(format!("{}/type", field.pointer), "typeChanged", message))
    });
    let changed: Vec<Problem> = changed.collect();
    let version = match version {
        Ok(version) if changed.is_empty() => version,
        Ok(_) => return Ok(Err(Refusal::Wrong(changed))),
        Err(problems) => return Ok(Err(Refusal::Wrong([problems, changed].concat()))),
    };
    let (number, now) = (form.version + 1, clock::now());
    let metadata = json!({ "version": number, "hash": version.hash });
    let mut sql = transaction.sql();
    sql.push("INSERT INTO form_versions (id, form_id, number, definition, json_schema, hash, published_at, published_by) VALUES (");
    sql.bind(FormVersionId::new()).push(", ").bind(id).push(", ").bind(number).push(", ");
    sql.bind(version.document).push(", ").bind(version.json_schema).push(", ").bind(version.hash);
    sql.push(", ").bind(now).push(", ").bind(user).push(")");
    transaction.execute("form_version.insert", super::version::Model::TABLE, sql).await?;
    let status = if form.status == Status::Draft { Status::Open } else { form.status };
    let mut sql = transaction.sql();
    sql.push("UPDATE forms SET draft = NULL, version = ")
        .bind(number)
        .push(", status = ")
        .bind(status.as_str());
    sql.push(", published_at = ").bind(now).push(", updated_at = ").bind(now).push(" WHERE id = ").bind(id);
    transaction.execute("form.update", Model::TABLE, sql).await?;
    transaction.changed(Change::Form { id, owner: form.owner_id });
    transaction.commit(entry(user, Action::FormPublish, id, metadata)).await?;
    Ok(Ok(Published { form: id, hints }))
}

/// The draft, if it is of this revision.
async fn draft_of(store: &Store, id: FormId, revision: i32) -> Result<Option<Value>, Error> {
    let mut sql = store.sql();
    sql.push("SELECT t.draft FROM forms t WHERE t.draft IS NOT NULL AND t.id = ").bind(id);
    sql.push(" AND t.draft_revision = ").bind(revision);
    let drafts =
        store.fetch("form.draft", Model::TABLE, sql, |cells| Ok(cells.next::<Json>()?.to_value())).await?;
    Ok(drafts.into_iter().next())
}

/// A form that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The form.
    pub form: FormId,
    /// What means something else than most who write it think.
    pub hints: Vec<Problem>,
}

/// A version about to be stored.
struct Version {
    document: Value,
    json_schema: Value,
    hash: String,
}

impl Version {
    fn of(form: Result<CompiledForm, Vec<Problem>>, document: Value) -> Result<Self, Vec<Problem>> {
        Ok(Self { json_schema: form?.json_schema(), hash: compiled::hash(&document), document })
    }
}

/// The type that each field had in the published versions, by its keys.
async fn types_so_far(
    transaction: &Transaction,
    id: FormId,
) -> Result<FxHashMap<String, &'static str>, Error> {
    let mut sql = transaction.sql();
    sql.push("SELECT t.definition FROM form_versions t WHERE t.form_id = ")
        .bind(id)
        .push(" ORDER BY t.number");
    let fetched = transaction.fetch("form_version.types", super::version::Model::TABLE, sql, |cells| {
        Ok(cells.next::<Json>()?.to_value())
    });
    let mut types = FxHashMap::default();
    for document in fetched.await? {
        // What was published under older rules keeps only what it can.
        if let Ok(definition) = Definition::parse(&document) {
            types.extend(definition.types().into_iter().map(|field| (field.path, field.type_name)));
        }
    }
    Ok(types)
}

/// Opens, closes or archives a form.
///
/// # Errors
/// The database's.
pub async fn set_status(store: &Store, scope: &Scope, id: FormId, status: Status) -> Changed {
    change(store, scope, id, Action::FormSetStatus, |form, sql| {
        match status {
            Status::Open if form.version == 0 => return Err(Refusal::Unpublished),
            Status::Draft if form.version > 0 => return Err(Refusal::Published),
            _ => {}
        }
        sql.push(", status = ").bind(status.as_str());
        Ok(json!({ "from": form.status.as_str(), "to": status.as_str() }))
    })
    .await
}

/// The revision after `base`, if `base` is the current one.
fn next_revision(form: &Model, base: i32) -> Result<i32, Refusal> {
    let current = form.draft_revision;
    (base == current).then(|| current.saturating_add(1)).ok_or(Refusal::Conflict { revision: current })
}

/// Changes columns of one form: `set` appends them and says what the log remembers.
async fn change(
    store: &Store,
    scope: &Scope,
    id: FormId,
    action: Action,
    set: impl FnOnce(&Model, &mut Sql) -> Result<Value, Refusal>,
) -> Changed {
    let mut transaction = Transaction::begin(store).await?;
    let (form, user) = match editable(&transaction, scope, id).await? {
        Ok(editable) => editable,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut sql = transaction.sql();
    sql.push("UPDATE forms SET updated_at = ").bind(clock::now());
    let metadata = match set(&form, &mut sql) {
        Ok(metadata) => metadata,
        Err(refusal) => return Ok(Err(refusal)),
    };
    sql.push(" WHERE id = ").bind(id);
    transaction.execute("form.update", Model::TABLE, sql).await?;
    transaction.changed(Change::Form { id, owner: form.owner_id });
    transaction.commit(entry(user, action, id, metadata)).await?;
    Ok(Ok(id))
}

/// The form and who edits it. Nobody else changes the form before this transaction ends.
async fn editable(
    transaction: &Transaction,
    scope: &Scope,
    id: FormId,
) -> Result<Result<(Model, UserId), Refusal>, Error> {
    let mut sql = transaction.sql();
    sql.push("SELECT ").push(Model::COLUMNS).push(" FROM forms t WHERE t.id = ").bind(id).for_update("t");
    let rows = transaction.fetch("form.lock", Model::TABLE, sql, Model::read).await?;
    let Some(form) = rows.into_iter().next().filter(|form| form.is_visible_to(scope)) else {
        return Ok(Err(Refusal::NotFound));
    };
    let user = scope.user().filter(|_| form.is_edited_by(scope));
    Ok(user.map(|user| (form, user)).ok_or(Refusal::NotAllowed))
}

fn entry(user: UserId, action: Action, form: FormId, metadata: Value) -> Entry {
    Entry { user: Some(user), action, subject: Some((Kind::Form, form.0)), metadata }
}
