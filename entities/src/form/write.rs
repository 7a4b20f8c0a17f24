//! Changing forms: made, renamed, drafted, published, opened and closed. Each function is one transaction with its
//! entry in the activity log. Not here: what a definition may say (`definition`), reading (`form`).

use rustc_hash::FxHashMap;
use sea_orm::{ActiveValue::Unchanged, QueryOrder as _, QuerySelect as _, Set, entity::prelude::*};
use serde_json::{Value, json};

use crate::{
    activity::{Action, ActivityEntry},
    clock,
    database::{scope::Scope, sql::Json},
    error::Error,
    events::{ChangeEvent, FormChange},
    id::{FormId, FormVersionId, NodeKind, UserId},
    store::{Store, transaction::Transaction},
    unicode,
};
use {
    super::{ActiveModel, Column, Entity, Row, Status, version},
    crate::forms::{
        compiled::{self, CompiledForm, Draft},
        definition::Definition,
        problem::Problem,
    },
};

/// Why a form was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormError {
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
pub type Changed = Result<Result<FormId, FormError>, Error>;

/// What a new form is made of.
#[derive(Debug)]
pub struct NewForm<'a> {
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
pub async fn create(store: &Store, owner: UserId, new: NewForm<'_>) -> Result<FormId, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let (id, now) = (FormId::new(), clock::now());
    let revision = i32::from(new.draft.is_some());
    let form = ActiveModel {
        id: Set(id),
        owner_id: Set(owner),
        title: Set(new.title.to_owned()),
        search_title: Set(unicode::searched(new.title)),
        description: Set(new.description.map(str::to_owned)),
        status: Set(Status::Draft),
        version: Set(0),
        draft: Set(new.draft.as_ref().map(Json::from)),
        draft_revision: Set(revision),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    };
    transaction.insert("form.insert", form).await?;
    transaction.changed(ChangeEvent::Form { id, owner, change: FormChange::Created });
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
    change(store, scope, id, Action::FormUpdate, |_, form| {
        let mut fields = Vec::new();
        if let Some(title) = update.title {
            fields.push("title");
            form.title = Set(title.to_owned());
            form.search_title = Set(unicode::searched(title));
        }
        if let Some(description) = update.description {
            fields.push("description");
            form.description = Set(description.map(str::to_owned));
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
    change(store, scope, id, Action::FormSaveDraft, |before, form| {
        let revision = next_revision(before, base)?;
        form.draft = Set(Some(Json::from(&draft)));
        form.draft_revision = Set(revision);
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
) -> Result<Result<Published, FormError>, Error> {
    // Read and compiled before the transaction: that takes a while, and nobody should have to wait for it.
    let draft = draft_of(store, id, base).await?;
    let compiled = tokio::task::spawn_blocking(move || {
        let draft = Draft::examine(&draft?);
        Some((NewVersion::of(draft.form, draft.document), draft.types, draft.hints))
    });
    let compiled = compiled.await.expect("compiling does not panic and is not aborted");

    let mut transaction = Transaction::begin(store).await?;
    let (form, user) = match editable(&transaction, scope, id).await? {
        Ok(editable) => editable,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (version, types, hints) = match (next_revision(&form, base), compiled) {
        (Err(conflict), _) => return Ok(Err(conflict)),
        (Ok(_), None) => return Ok(Err(FormError::NoDraft)),
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
        Ok(_) => return Ok(Err(FormError::Wrong(changed))),
        Err(problems) => return Ok(Err(FormError::Wrong([problems, changed].concat()))),
    };
    let (number, now) = (form.version + 1, clock::now());
    let metadata = json!({ "version": number, "hash": version.hash });
    let published = version::ActiveModel {
        id: Set(FormVersionId::new()),
        form_id: Set(id),
        number: Set(number),
        definition: Set(Json::from(&version.document)),
        json_schema: Set(Json::from(&version.json_schema)),
        hash: Set(version.hash),
        published_at: Set(now),
        published_by: Set(Some(user)),
    };
    transaction.insert("form_version.insert", published).await?;
    let status = if form.status == Status::Draft { Status::Open } else { form.status };
    let changed = ActiveModel {
        id: Unchanged(id),
        draft: Set(None),
        version: Set(number),
        status: Set(status),
        published_at: Set(Some(now)),
        updated_at: Set(now),
        ..Default::default()
    };
    transaction.update("form.update", changed).await?;
    let change = FormChange::Published;
    transaction.changed(ChangeEvent::Form { id, owner: form.owner_id, change });
    let told = |hint: &Problem| json!([hint.pointer, hint.rule, hint.message]);
    transaction.results_in(|| hints.iter().map(told).collect());
    transaction.commit(entry(user, Action::FormPublish, id, metadata)).await?;
    Ok(Ok(Published { form: id, hints }))
}

/// The draft, if it is of this revision.
async fn draft_of(store: &Store, id: FormId, revision: i32) -> Result<Option<Value>, Error> {
    let find = Entity::find_by_id(id)
        .select_only()
        .column(Column::Draft)
        .filter(Column::Draft.is_not_null())
        .filter(Column::DraftRevision.eq(revision));
    let drafts =
        store.rows("form.draft", Entity, &find, |cells| Ok(cells.next::<Json>()?.to_value())).await?;
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
struct NewVersion {
    document: Value,
    json_schema: Value,
    hash: String,
}

impl NewVersion {
    fn of(form: Result<CompiledForm, Vec<Problem>>, document: Value) -> Result<Self, Vec<Problem>> {
        Ok(Self { json_schema: form?.json_schema(), hash: compiled::hash(&document), document })
    }
}

/// The type that each field had in the published versions, by its keys.
async fn types_so_far(
    transaction: &Transaction,
    id: FormId,
) -> Result<FxHashMap<String, &'static str>, Error> {
    let find = version::Entity::find()
        .select_only()
        .column(version::Column::Definition)
        .filter(version::Column::FormId.eq(id))
        .order_by_asc(version::Column::Number);
    let fetched = transaction
        .rows("form_version.types", version::Entity, &find, |cells| Ok(cells.next::<Json>()?.to_value()));
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
    change(store, scope, id, Action::FormSetStatus, |before, form| {
        match status {
            Status::Open if before.version == 0 => return Err(FormError::Unpublished),
            Status::Draft if before.version > 0 => return Err(FormError::Published),
            _ => {}
        }
        form.status = Set(status);
        Ok(json!({ "from": before.status.as_str(), "to": status.as_str() }))
    })
    .await
}

/// The revision after `base`, if `base` is the current one.
fn next_revision(form: &Row, base: i32) -> Result<i32, FormError> {
    let current = form.draft_revision;
    (base == current).then(|| current.saturating_add(1)).ok_or(FormError::Conflict { revision: current })
}

/// Changes columns of one form: `set` sees the form before, sets them, and says what the log remembers.
async fn change(
    store: &Store,
    scope: &Scope,
    id: FormId,
    action: Action,
    set: impl FnOnce(&Row, &mut ActiveModel) -> Result<Value, FormError>,
) -> Changed {
    let mut transaction = Transaction::begin(store).await?;
    let (form, user) = match editable(&transaction, scope, id).await? {
        Ok(editable) => editable,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut changed = ActiveModel { id: Unchanged(id), updated_at: Set(clock::now()), ..Default::default() };
    let metadata = match set(&form, &mut changed) {
        Ok(metadata) => metadata,
        Err(refusal) => return Ok(Err(refusal)),
    };
    transaction.update("form.update", changed).await?;
    transaction.changed(ChangeEvent::Form { id, owner: form.owner_id, change: change_of(action) });
    transaction.commit(entry(user, action, id, metadata)).await?;
    Ok(Ok(id))
}

fn change_of(action: Action) -> FormChange {
    match action {
        Action::FormUpdate => FormChange::Updated,
        Action::FormSaveDraft => FormChange::Drafted,
        Action::FormSetStatus => FormChange::StatusChanged,
        _ => FormChange::Other,
    }
}

/// The form and who edits it. Nobody else changes the form before this transaction ends.
async fn editable(
    transaction: &Transaction,
    scope: &Scope,
    id: FormId,
) -> Result<Result<(Row, UserId), FormError>, Error> {
    let found: Option<Row> = transaction.one("form.lock", Entity::find_by_id(id).lock_exclusive()).await?;
    let Some(form) = found.filter(|form| form.is_visible_to(scope)) else {
        return Ok(Err(FormError::NotFound));
    };
    let user = scope.user().filter(|_| form.is_edited_by(scope));
    Ok(user.map(|user| (form, user)).ok_or(FormError::NotAllowed))
}

fn entry(user: UserId, action: Action, form: FormId, metadata: Value) -> ActivityEntry {
    ActivityEntry { user: Some(user), action, subject: Some((NodeKind::Form, form.0)), metadata }
}
