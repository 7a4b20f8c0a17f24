//! Handing in a filled-in form: checked against its version, stored once however often and by however many connections
//! it is sent, refused where the form takes nothing. Not here: what answers go through (`pipeline`), who may submit at
//! all (the crate `schema` asks that).

use std::sync::{Arc, LazyLock};

use sea_orm::{
    QuerySelect as _, QueryTrait,
    entity::prelude::*,
    sea_query::{ExprTrait as _, LockType, OnConflict, Query},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Column, Entity, Model};
use crate::{
    activity::{Action, ActivityEntry},
    clock,
    database::sql::{Json, Record as _, Sql},
    error::Error,
    events::ChangeEvent,
    form::{self, Status},
    forms::{compiled::CompiledForm, pipeline, problem::Problem, work::Work},
    id::{FormId, LocationId, NodeKind, SubmissionId},
    location::record::{self, NewPosition, RecordedBy},
    store::{Store, transaction::Transaction},
};

/// Why a submission was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmissionError {
    /// The form takes no submissions: it is a draft, closed, archived or hidden, or there is no such form.
    NotAccepting,
    /// The form does not have this version.
    NoVersion,
    /// Something else was sent under this client id before.
    Conflict,
    /// The answers are too large.
    TooLarge,
    /// The answers are not right.
    Wrong(Vec<Problem>),
}

/// A filled-in form.
#[derive(Debug)]
pub struct NewSubmission {
    /// The form.
    pub form: FormId,
    /// The version that was filled in; none: the published one.
    pub version: Option<i32>,
    /// The answers.
    pub data: Value,
    /// The device's own name for this submission: whoever sends it again gets the stored one.
    pub client_id: Option<Uuid>,
    /// Where it was filled in; free of faults.
    pub location: Option<NewPosition>,
}

/// What handing in answers: the submission, or why it was not stored.
pub type Created = Result<Result<SubmissionId, SubmissionError>, Error>;

/// Stores a submission, or answers the one that is stored already.
///
/// # Errors
/// The database's.
pub async fn create(store: &Store, author: RecordedBy, new: NewSubmission) -> Created {
    match attempt(store, author, &new).await? {
        // Sent again? What was true then need not be true now: the form may be closed, or ask something else.
        Err(refusal) => again(store, author, new, refusal).await,
        stored => Ok(stored),
    }
}

async fn attempt(store: &Store, author: RecordedBy, new: &NewSubmission) -> Created {
    let Some(target) = SubmissionTarget::of(store, new.form, new.version).await? else {
        return Ok(Err(SubmissionError::NotAccepting));
    };
    if target.status != Status::Open {
        return Ok(Err(SubmissionError::NotAccepting));
    }
    let Some((number, form)) = target.version(store, new.form).await? else {
        return Ok(Err(SubmissionError::NoVersion));
    };
    match check(form, &new.data).await {
        Ok(data) => insert(store, author, new, number, data).await,
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Bytes of answers that are checked at once; more of them would keep other requests waiting.
const MAX_INLINE_BYTES: usize = 16 * 1024;

/// Long checks that run at once, so that they leave half of the cores to all the rest.
static LONG_CHECKS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Arc::new(Semaphore::new((cores / 2).max(1)))
});

/// Runs the answers through the pipeline: at once where that is soon done, and otherwise on a thread of its
/// own. How long it takes shows only on the way, so that what turns out to be long begins anew there. It ends
/// when this future is dropped, as it is at the deadline of the request.
async fn check(form: Arc<CompiledForm>, data: &Value) -> Result<Value, SubmissionError> {
    let bytes = data.to_string().len();
    if bytes > pipeline::MAX_BYTES {
        return Err(SubmissionError::TooLarge);
    }
    if bytes <= MAX_INLINE_BYTES {
        match pipeline::run_within(&form, data.clone(), &Work::short()) {
            Err(refused) if refused.is_spent => {}
            judged => return judged.map_err(|refused| SubmissionError::Wrong(refused.problems)),
        }
    }
    let (work, data) = (Work::full(), data.clone());
    let _stop = work.stop.on_drop();
    let turn = Arc::clone(&LONG_CHECKS).acquire_owned().await.expect("it is never closed");
    let run = move || {
        let judged = pipeline::run_within(&form, data, &work);
        drop(turn);
        judged.map_err(|refused| SubmissionError::Wrong(refused.problems))
    };
    tokio::task::spawn_blocking(run).await.expect("checking does not panic and is not aborted")
}

/// What answers are sent to.
struct SubmissionTarget {
    status: Status,
    /// Number and hash.
    version: Option<(i32, String)>,
}

impl SubmissionTarget {
    async fn of(store: &Store, form: FormId, version: Option<i32>) -> Result<Option<Self>, Error> {
        use form::{Column as Form, version::Column as Version};

        let number = Expr::col((form::version::Entity, Version::Number));
        let wanted = match version {
            Some(version) => number.eq(version),
            None => number.equals((form::Entity, Form::Version)),
        };
        let of_form = Expr::col((form::version::Entity, Version::FormId)).equals((form::Entity, Form::Id));
        let mut find = Query::select();
        find.column((form::Entity, Form::Status));
        find.columns([Version::Number, Version::Hash].map(|column| (form::version::Entity, column)));
        find.from(form::Entity).left_join(form::version::Entity, of_form.and(wanted));
        find.and_where(Form::Id.eq(form));
        let sql = Sql::built(store.database().backend(), &find);
        let rows = store.fetch("submission.target", form::Row::table(), sql, |cells| {
            let (status, number, hash) =
                (cells.next()?, cells.next::<Option<i32>>()?, cells.next::<Option<String>>()?);
            Ok(Self { status, version: number.zip(hash) })
        });
        Ok(rows.await?.into_iter().next())
    }

    async fn version(self, store: &Store, form: FormId) -> Result<Option<(i32, Arc<CompiledForm>)>, Error> {
        let Some((number, hash)) = self.version else { return Ok(None) };
        if let Some(form) = CompiledForm::known(&hash) {
            return Ok(Some((number, form)));
        }
        let find = form::version::Entity::find()
            .select_only()
            .column(form::version::Column::Definition)
            .filter(form::version::Column::FormId.eq(form))
            .filter(form::version::Column::Number.eq(number));
        let definitions = store
            .rows("form_version.definition", form::version::Entity, &find, |cells| {
                Ok(cells.next::<Json>()?.to_value())
            })
            .await?;
        let Some(definition) = definitions.into_iter().next() else { return Ok(None) };
        Ok(Some((number, CompiledForm::of_version(hash, definition).await?)))
    }
}

async fn insert(
    store: &Store,
    author: RecordedBy,
    new: &NewSubmission,
    version: i32,
    data: Value,
) -> Created {
    let mut transaction = Transaction::begin(store).await?;
    let location: Option<LocationId> = match &new.location {
        Some(point) => {
            let recorded = record::store(&mut transaction, author, std::slice::from_ref(point)).await?;
            recorded.first().map(|point| point.id)
        }
        None => None,
    };
    let (id, form) = (SubmissionId::new(), new.form);
    let row = SubmissionRow { id, author, new, version, data, location };
    let mut stored = row.insert(&mut transaction, Column::ClientId).await?;
    if stored == 0 && is_taken(&transaction, author, new).await? {
        stored = row.insert(&mut transaction, Column::OwnClientId).await?;
    }
    if stored == 0 {
        let target = SubmissionTarget::of(store, form, None).await?;
        let is_open = target.is_some_and(|target| target.status == Status::Open);
        return Ok(Err(if is_open { SubmissionError::Conflict } else { SubmissionError::NotAccepting }));
    }
    transaction.changed(ChangeEvent::Submission { id, form, user: Some(author.user) });
    let metadata = json!({ "form": form.0, "version": version });
    let subject = Some((NodeKind::Submission, id.0));
    let entry =
        ActivityEntry { user: Some(author.user), action: Action::SubmissionCreate, subject, metadata };
    transaction.commit(entry).await?;
    Ok(Ok(id))
}

/// What is stored.
struct SubmissionRow<'a> {
    id: SubmissionId,
    author: RecordedBy,
    new: &'a NewSubmission,
    version: i32,
    data: Value,
    location: Option<LocationId>,
}

impl SubmissionRow<'_> {
    /// Stores it with the client id in this column, unless the form is not open, the id is in use, or the account has
    /// handed in something under it. Answers how many rows that makes.
    async fn insert(&self, transaction: &mut Transaction, client_id: Column) -> Result<u64, Error> {
        let Self { id, author, new, version, data, location } = self;
        let (form, user) = (new.form, author.user);
        let values: [(Column, sea_orm::Value); 9] = [
            (Column::Id, (*id).into()),
            (Column::FormId, form.into()),
            (Column::FormVersion, (*version).into()),
            (Column::UserId, user.into()),
            (Column::SessionId, author.session.into()),
            (Column::Data, data.clone().into()),
            (Column::LocationId, (*location).into()),
            (Column::CreatedAt, clock::now().into()),
            (client_id, new.client_id.into()),
        ];
        let columns = values.iter().map(|(column, _)| *column).collect::<Vec<_>>();
        // The form stays open until this is stored.
        let mut open = form::Entity::find_by_id(form)
            .select_only()
            .filter(form::Column::Status.eq(Status::Open))
            .lock(LockType::Share);
        for (_, value) in values {
            QueryTrait::query(&mut open).expr(Expr::val(value));
        }
        if let Some(client) = new.client_id {
            let own =
                Column::FormId.eq(form).and(Column::UserId.eq(user)).and(Column::OwnClientId.eq(client));
            let own = Entity::find().select_only().column(Column::Id).filter(own).into_query();
            QueryTrait::query(&mut open).and_where(Expr::exists(own).not());
        }
        let mut insert = Query::insert();
        insert.into_table(Entity).columns(columns).on_conflict(OnConflict::new().do_nothing().to_owned());
        insert.select_from(open.into_query()).map_err(|error| Error::Statement {
            statement: "submission.insert",
            source: sea_orm::DbErr::Custom(error.to_string()),
        })?;
        let sql = Sql::built(transaction.backend(), &insert);
        transaction.execute("submission.insert", Model::table(), sql).await
    }
}

/// Does the client id stand in the way because another account has used it on this form?
async fn is_taken(transaction: &Transaction, author: RecordedBy, new: &NewSubmission) -> Result<bool, Error> {
    let Some(client) = new.client_id else { return Ok(false) };
    let find = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::FormId.eq(new.form))
        .filter(Column::ClientId.eq(client))
        .filter(Column::UserId.is_null().or(Column::UserId.ne(author.user)));
    let others: Vec<SubmissionId> =
        transaction.column("submission.client_id_of_others", Entity, &find).await?;
    Ok(!others.is_empty())
}

/// The submission that is stored under the client id, if it is this one; otherwise the refusal.
async fn again(store: &Store, author: RecordedBy, new: NewSubmission, refusal: SubmissionError) -> Created {
    let Some(client) = new.client_id else { return Ok(Err(refusal)) };
    let find = Entity::find()
        .filter(Column::FormId.eq(new.form))
        .filter(Column::UserId.eq(author.user))
        .filter(Column::ClientId.eq(client).or(Column::OwnClientId.eq(client)));
    // Of what others sent nothing is told, not even that it is there.
    let found: Option<Model> = store.one("submission.by_client", find).await?;
    let Some(stored) = found else { return Ok(Err(refusal)) };
    if new.version.is_some_and(|version| version != stored.form_version) {
        return Ok(Err(SubmissionError::Conflict));
    }
    let target = SubmissionTarget::of(store, new.form, Some(stored.form_version)).await?;
    let Some(target) = target else { return Ok(Err(refusal)) };
    let Some((_, form)) = target.version(store, new.form).await? else { return Ok(Err(refusal)) };
    let is_equal = check(form, &new.data).await.is_ok_and(|data| is_same(&data, &stored.data.to_value()));
    Ok(if is_equal { Ok(stored.id) } else { Err(SubmissionError::Conflict) })
}

/// Are two documents equal? PostgreSQL keeps the value of a number, not the way in which it was written.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let has = |key: &String, one| other.get(key).is_some_and(|other| is_same(one, other));
            one.len() == other.len() && one.iter().all(|(key, one)| has(key, one))
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    /// A form whose second list reads the whole of the first in each of its entries, and answers with this many entries
    /// in each.
    fn squared(entries: usize) -> (Arc<CompiledForm>, Value) {
        let sum = json!({ "reduce": [{ "var": "list" }, { "+": [{ "var": "accumulator" }, { "var": "current.n" }] }, 0] });
        let form = json!({ "schema": 1, "fields": [
            { "key": "list", "type": "REPEAT", "fields": [{ "key": "n", "type": "INTEGER", "label": "n" }] },
            { "key": "again", "type": "REPEAT", "fields": [{ "key": "c", "type": "CALCULATED", "calculate": sum }] },
        ] });
        let list: Value = (0..entries).map(|n| json!({ "n": n })).collect();
        let again: Value = (0..entries).map(|_| json!({})).collect();
        let form = CompiledForm::compile(&form).expect("the definition is right");
        (Arc::new(form), json!({ "list": list, "again": again }))
    }

    #[tokio::test]
    async fn costly_answers_do_not_hold_the_thread_that_serves_others() {
        let (form, few) = squared(3);
        assert!(poll!(Box::pin(check(Arc::clone(&form), &few))).is_ready(), "it is soon done");
        let (_, many) = squared(120);
        assert!(many.to_string().len() < MAX_INLINE_BYTES, "few bytes");
        let mut checking = Box::pin(check(form, &many));
        assert!(poll!(&mut checking).is_pending(), "it runs elsewhere");
        let stored = checking.await.expect("the answers are right");
        assert_eq!(stored["again"][119]["c"], 119 * 120 / 2);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_ends_and_gives_its_turn_back() {
        let (form, many) = squared(150);
        let all = LONG_CHECKS.available_permits();
        let mut checking = Box::pin(check(form.clone(), &many));
        assert!(poll!(&mut checking).is_pending());
        drop(checking);
        let turns = u32::try_from(all).expect("few");
        drop(LONG_CHECKS.acquire_many(turns).await.expect("it is never closed"));
        let work = Work::full();
        drop(work.stop.on_drop());
        assert!(pipeline::run_within(&form, many, &work).is_err_and(|refused| refused.is_spent));
    }
}
