//! Requests that carry an idempotency key: each runs once, and the same again gets what the first one was
//! told. A row is claimed before anything of the request runs; each transaction of the request notes in that
//! row, within the same commit, what it has stored; the answer is added when it is there. Whoever comes again
//! finds the answer, or what is stored so far.
//!
//! A claim runs out, so that the request of a process that was killed can be sent again. If its holder is
//! alive after all, it stores nothing more: each note is written only under the claim that holds. So clocks
//! decide when a request may be sent again, never whether something is done twice.
//!
//! Not here: which requests have a key, and what is the same request (`schema`).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use sea_orm::{
    QueryOrder as _, QuerySelect as _, Set, UpdateMany,
    entity::prelude::*,
    sea_query::{BinOper, ExprTrait as _, OnConflict},
};
use serde::{Deserialize, Serialize};

use crate::{
    clock::{self, Time},
    database::{Database, sql::record, transaction::SqlTransaction},
    error::{Error, pause_before},
    id::{self, UserId},
};

/// Rows that are removed at once at most.
const CHUNK: u64 = 1_000;
/// Between two chunks, for others to write.
const BREATH: Duration = Duration::from_millis(20);
/// Between two tries to end a claim.
const RELEASE_AGAIN: Duration = Duration::from_millis(200);
/// Between two looks for old rows, at least and at most.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));

record! {
    /// A row of `idempotency_keys`: a request.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "idempotency_keys")]
    pub struct Model {
        /// Primary key: made of the account and its key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        /// Made of what is asked for.
        pub fingerprint: String,
        /// The claim of the process that runs the request, or has run it last.
        pub claim: Uuid,
        /// Until then nobody else may run it.
        pub claimed_until: Time,
        /// What is stored of it: a `Stored` a line, as JSON.
        pub stored: String,
        /// The body of the answer; null until there is one.
        pub answer: Option<String>,
        /// The codes of the answer's errors, with commas between them.
        pub codes: Option<String>,
        /// The answer's cache token.
        pub cache_token: Option<String>,
        /// When it came first.
        pub created_at: Time,
        /// The account that asks; null in rows from before this was noted.
        pub user_id: Option<UserId>,
    }
}

/// A request belongs to nothing: it may outlive its account. Its account is noted to find what is kept of a person.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// A request with a key.
#[derive(Clone, Debug)]
pub struct KeyedRequest {
    /// The account.
    pub account: UserId,
    /// Made of the account and its key.
    pub id: Uuid,
    /// Made of what is asked for.
    pub fingerprint: String,
}

/// How long what is noted here is good for.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of a request, from when it came first.
    pub request: Duration,
    /// Of a claim that nobody has ended.
    pub claim: Duration,
}

/// What becomes of a request with a key.
#[derive(Debug)]
pub enum Claimed {
    /// It is to be run, but for what is stored of it already.
    ToRun(Arc<Claim>),
    /// It was answered.
    Answered(KeptAnswer),
    /// Somebody else runs it.
    Running,
    /// Something else was asked for with this key.
    Mismatch,
}

/// An answer that is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The body of the answer, as JSON.
    pub body: String,
    /// The codes of its errors.
    pub codes: Vec<String>,
    /// The cache token of the answer, if its request has written.
    pub cache_token: Option<String>,
}

/// What one transaction of a request has stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Which part of the request has stored it.
    place: (u32, u32),
    /// The id of the object that the transaction was about, as its entry in the activity log says.
    pub subject: Option<Uuid>,
    /// What else its result consists of; null where that is all.
    pub result: serde_json::Value,
}

/// The right to run a request. Ended when it is dropped, at the latest.
pub struct Claim {
    database: Database,
    request: Uuid,
    id: Uuid,
    began: Time,
    /// When it runs out, at the latest.
    ends: Instant,
    before: Vec<Stored>,
    place: (AtomicU32, AtomicU32),
    is_ended: AtomicBool,
}

/// Claims a request; nobody else runs it from then on, until the claim is ended or runs out.
///
/// # Errors
/// The database's: nothing was run.
pub async fn claim(
    database: &Database,
    request: &KeyedRequest,
    lifetimes: Lifetimes,
) -> Result<Claimed, Error> {
    let mut number = 1;
    loop {
        match claim_once(database, request, lifetimes).await {
            Err(error) if error.repeats() >= number => tokio::time::sleep(pause_before(number)).await,
            claimed => return claimed,
        }
        number += 1;
    }
}

async fn claim_once(
    database: &Database,
    request: &KeyedRequest,
    lifetimes: Lifetimes,
) -> Result<Claimed, Error> {
    let (now, id) = (clock::now(), id::new());
    let first = ActiveModel {
        id: Set(request.id),
        fingerprint: Set(request.fingerprint.clone()),
        claim: Set(id),
        claimed_until: Set(after(now, lifetimes.claim)),
        stored: Set(String::new()),
        answer: Set(None),
        codes: Set(None),
        cache_token: Set(None),
        created_at: Set(now),
        user_id: Set(Some(request.account)),
    };
    let transaction = SqlTransaction::begin(database).await?;
    let nobody = OnConflict::column(Column::Id).do_nothing().to_owned();
    let insert = Entity::insert(first.clone()).on_conflict(nobody);
    let claim = |began, stored| Claim::of(database, (request.id, id), (began, lifetimes.claim), stored);
    if transaction.write("idempotency.claim", Entity, &insert).await? > 0 {
        // Dropped, and so ended, where it cannot be known whether it is stored.
        let claim = claim(now, Vec::new());
        transaction.commit().await?;
        return Ok(Claimed::ToRun(Arc::new(claim)));
    }
    let find = Entity::find_by_id(request.id);
    // It was removed between the two: who sends it again finds it gone.
    let Some(row) = transaction.one::<Model>("idempotency.find", find).await? else {
        return Ok(Claimed::Running);
    };
    let (holder, until) = (row.claim, row.claimed_until);
    let is_forgotten = after(row.created_at, lifetimes.request) <= now;
    let taken = if is_forgotten {
        first
    } else if row.fingerprint != request.fingerprint {
        return Ok(Claimed::Mismatch);
    } else if let Some(body) = row.answer {
        let codes = row.codes.unwrap_or_default();
        let codes = codes.split(',').filter(|code| !code.is_empty()).map(str::to_owned).collect();
        return Ok(Claimed::Answered(KeptAnswer { body, codes, cache_token: row.cache_token }));
    } else if until > now {
        return Ok(Claimed::Running);
    } else {
        ActiveModel { claim: first.claim, claimed_until: first.claimed_until, ..Default::default() }
    };
    // Waits for a transaction of who had it before, whose COMMIT is under way.
    let mut take = Entity::update_many()
        .set(taken)
        .filter(Column::Id.eq(request.id))
        .filter(Column::Claim.eq(holder))
        .filter(Column::ClaimedUntil.eq(until));
    if !is_forgotten {
        // Who had it before may have answered since the row was read.
        take = take.filter(Column::Answer.is_null());
    }
    if transaction.write("idempotency.take", Entity, &take).await? == 0 {
        return Ok(Claimed::Running);
    }
    let find = Entity::find_by_id(request.id).select_only().column(Column::Stored);
    let stored: Vec<String> = transaction.column("idempotency.stored", Entity, &find).await?;
    let stored = stored.iter().flat_map(|lines| lines.lines());
    let stored = stored.filter_map(|line| serde_json::from_str(line).ok()).collect();
    let began = if is_forgotten { now } else { row.created_at };
    let claim = claim(began, stored);
    transaction.commit().await?;
    Ok(Claimed::ToRun(Arc::new(claim)))
}

fn after(time: Time, duration: Duration) -> Time {
    let latest = Time::MAX_UTC;
    TimeDelta::from_std(duration).ok().and_then(|delta| time.checked_add_signed(delta)).unwrap_or(latest)
}

impl Claim {
    fn of(
        database: &Database,
        (request, id): (Uuid, Uuid),
        (began, lifetime): (Time, Duration),
        before: Vec<Stored>,
    ) -> Self {
        let (place, is_ended) = ((AtomicU32::new(0), AtomicU32::new(0)), AtomicBool::new(false));
        let ends = Instant::now() + lifetime;
        Self { database: database.clone(), request, id, began, ends, before, place, is_ended }
    }

    /// When the request came first. What depends on the clock is judged as of then, each time it comes.
    pub fn began(&self) -> Time {
        self.began
    }

    /// What is stored from now on is the result of this field of the request.
    pub fn begin_field(&self, field: u32) {
        self.place.0.store(field, Ordering::Release);
        self.begin_item(0);
    }

    /// And within the field, of this item of a list.
    pub fn begin_item(&self, item: u32) {
        self.place.1.store(item, Ordering::Release);
    }

    fn place(&self) -> (u32, u32) {
        (self.place.0.load(Ordering::Acquire), self.place.1.load(Ordering::Acquire))
    }

    /// What this part of the request had stored when it was claimed.
    pub fn stored(&self) -> Option<&Stored> {
        let place = self.place();
        self.before.iter().find(|stored| stored.place == place)
    }

    /// Notes, within a transaction of the request, what it stores.
    ///
    /// # Errors
    /// The database's; `Unavailable` where the claim has run out and somebody else has taken it. The
    /// transaction must not be committed then.
    pub(crate) async fn note(
        &self,
        transaction: &SqlTransaction,
        subject: Option<Uuid>,
        result: serde_json::Value,
    ) -> Result<(), Error> {
        let stored = Stored { place: self.place(), subject, result };
        let line = serde_json::json!(stored).to_string() + "\n";
        let lines = Expr::col(Column::Stored).binary(BinOper::Custom("||"), line);
        let note = self.of_claim(Entity::update_many().col_expr(Column::Stored, lines));
        if transaction.write("idempotency.note", Entity, &note).await? == 0 {
            return Err(Error::Unavailable(DbErr::Custom("somebody else runs this request now".to_owned())));
        }
        Ok(())
    }

    /// Ends it with an answer, which the same request gets from now on.
    ///
    /// # Errors
    /// The database's: the same request is run again, but for what it has stored.
    pub async fn keep(&self, answer: KeptAnswer) -> Result<(), Error> {
        let KeptAnswer { body, codes, cache_token } = answer;
        let kept = ActiveModel {
            answer: Set(Some(body)),
            codes: Set(Some(codes.join(","))),
            cache_token: Set(cache_token),
            ..Default::default()
        };
        let transaction = SqlTransaction::begin(&self.database).await?;
        let keep = self.of_claim(Entity::update_many().set(kept));
        transaction.write("idempotency.keep", Entity, &keep).await?;
        transaction.commit().await?;
        self.is_ended.store(true, Ordering::Release);
        Ok(())
    }

    fn of_claim(&self, update: UpdateMany<Entity>) -> UpdateMany<Entity> {
        update.filter(Column::Id.eq(self.request)).filter(Column::Claim.eq(self.id))
    }
}

/// Ends a claim without an answer: the same request may be run again at once.
async fn release(database: Database, request: Uuid, claim: Uuid) -> Result<(), Error> {
    let ended = ActiveModel { claimed_until: Set(clock::now()), ..Default::default() };
    let release =
        Entity::update_many().set(ended).filter(Column::Id.eq(request)).filter(Column::Claim.eq(claim));
    let transaction = SqlTransaction::begin(&database).await?;
    transaction.write("idempotency.release", Entity, &release).await?;
    transaction.commit().await
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_ended.load(Ordering::Acquire) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (database, request, id, ends) = (self.database.clone(), self.request, self.id, self.ends);
            drop(runtime.spawn(async move {
                // Most likely the database is away. Then it is ended when that is back, or runs out.
                while release(database.clone(), request, id).await.is_err() && Instant::now() < ends {
                    tokio::time::sleep(RELEASE_AGAIN).await;
                }
            }));
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Removes what is older than `keep`, for as long as it is polled.
pub async fn forget_old(database: Database, keep: Duration) {
    let (shortest, longest) = LOOK;
    loop {
        tokio::time::sleep((keep / 10).clamp(shortest, longest)).await;
        while forget(&database, keep).await.is_ok_and(|removed| removed == CHUNK) {
            tokio::time::sleep(BREATH).await;
        }
    }
}

/// Removes one chunk of what is older than `keep`; says how many.
async fn forget(database: &Database, keep: Duration) -> Result<u64, Error> {
    let oldest = TimeDelta::from_std(keep).ok().and_then(|keep| clock::now().checked_sub_signed(keep));
    let Some(oldest) = oldest else { return Ok(0) };
    let find = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::CreatedAt.lt(oldest))
        .order_by_asc(Column::CreatedAt)
        .limit(CHUNK);
    let ids: Vec<Uuid> = database.column("idempotency.old", Entity, &find).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    let transaction = SqlTransaction::begin(database).await?;
    let delete = Entity::delete_many()
        .filter(transaction.is_any(Column::Id, &ids))
        // One whose key was used anew meanwhile stays.
        .filter(Column::CreatedAt.lt(oldest));
    transaction.write("idempotency.forget", Entity, &delete).await?;
    transaction.commit().await?;
    Ok(ids.len() as u64)
}
