//! What is no longer good before its time: sessions that were ended, rights that were taken away. Written in
//! the transaction that does it, kept in memory by every instance until the last token it concerns has ended.
//! Who revokes knows at once; other instances hear of it as a change, and in any case by asking the primary
//! twice a second. They ask for what has come since; a database that went back in time (a restore, a failover
//! that lost the last transactions) gives the same numbers out again, so they look whether the last one is
//! still what it was, and otherwise read everything anew. Not here: tokens, and why something was revoked.

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use rustc_hash::FxHashMap;
use sea_orm::{
    EntityName as _, QueryTrait, Set,
    entity::prelude::*,
    sea_query::{Condition, Order, Query},
};
use tokio::sync::watch;

pub mod counter;

use crate::{
    clock::{self, Time},
    database::{Database, sql::Sql, transaction::SqlTransaction},
    error::Error,
    id::{SessionId, UserId},
};

/// How long an access token of a session is good.
pub const ACCESS_TOKEN_SECONDS: u32 = 300;
/// How long any access token is good at most: those that are minted by hand.
pub const LONGEST_TOKEN_SECONDS: u32 = 86_400;
/// Beyond the end of the last token: clocks differ.
const MARGIN_SECONDS: u32 = 60;
/// How long an expired row is kept: by the clock of every other server it must have expired, too, before it
/// goes. One whose clock is further behind takes a row that was deleted in its time for a database that went
/// back in time.
const KEPT_SECONDS: i64 = 600;
/// How often the primary is asked for what others have revoked: often enough that every instance refuses
/// within a second what was revoked, also without Redis. It is one look at the end of a primary key, mostly
/// at nothing.
pub const POLL: Duration = Duration::from_millis(500);
const _: () = assert!(POLL.as_millis() <= 500, "a revocation is known everywhere within a second");

/// A row of `revocations`: a session that ended, an account whose rights changed, or, without either, keys
/// that changed.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "revocations")]
pub struct Model {
    /// Primary key: numbers in the order of the commits.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    /// The session.
    pub session_id: Option<SessionId>,
    /// The account.
    pub user_id: Option<UserId>,
    /// The account's first epoch that is good.
    pub epoch: Option<i64>,
    /// When it was written.
    pub created_at: Time,
    /// When nothing is left that it concerns.
    pub expires_at: Time,
}

/// A revocation belongs to nothing: it may outlive what it concerns.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// One thing that is no longer good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// All tokens of this session.
    Session(SessionId),
    /// All tokens of this account from before this epoch.
    Rights {
        /// The account.
        user: UserId,
        /// The first epoch that is good.
        epoch: i64,
    },
    /// A key of access tokens came or went: the keys have to be read again.
    Keys,
}

impl Revocation {
    /// When nothing is left that it concerns.
    fn expires_at(self, now: Time) -> Time {
        let seconds = match self {
            Self::Session(_) => ACCESS_TOKEN_SECONDS,
            Self::Rights { .. } | Self::Keys => LONGEST_TOKEN_SECONDS,
        };
        now + TimeDelta::seconds(i64::from(seconds + MARGIN_SECONDS))
    }
}

/// What this instance knows to be revoked.
#[derive(Debug)]
pub struct Revocations {
    known: RwLock<KnownRevocations>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct KnownRevocations {
    sessions: FxHashMap<SessionId, Time>,
    rights: FxHashMap<UserId, (i64, Time)>,
    /// Up to where the table was read.
    seq: i64,
    /// What stood there, if it had not expired.
    last: Option<RevocationRow>,
    /// When it was read.
    read: Option<Instant>,
}

/// A row of the table, as far as it can be told from another one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RevocationRow {
    revocation: Revocation,
    created_at: Time,
    expires_at: Time,
}

/// After so long without an answer much may have happened: everything is read anew.
const OUT_OF_TOUCH: Duration = Duration::from_secs(10);

impl Default for Revocations {
    fn default() -> Self {
        Self { known: RwLock::default(), changed: watch::Sender::new(0) }
    }
}

impl Revocations {
    /// Is a token of this account, epoch and session no longer good?
    pub fn concerns(&self, user: UserId, epoch: i64, session: Option<SessionId>) -> bool {
        let known = self.known.read().expect("no panic happens under this lock");
        session.is_some_and(|session| known.sessions.contains_key(&session))
            || known.rights.get(&user).is_some_and(|(first, _)| epoch < *first)
    }

    /// Tells each time something was revoked, here or elsewhere: what lives longer than a request checks again then.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes them in; says whether keys are among them.
    pub(crate) fn add(&self, revoked: impl IntoIterator<Item = (Revocation, Time)>) -> bool {
        let (mut count, mut keys) = (0, false);
        {
            let mut known = self.known.write().expect("no panic happens under this lock");
            for (revocation, until) in revoked {
                count += 1;
                match revocation {
                    Revocation::Session(session) => {
                        known.sessions.insert(session, until);
                    }
                    Revocation::Rights { user, epoch } => {
                        let entry = known.rights.entry(user).or_insert((epoch, until));
                        *entry = (entry.0.max(epoch), entry.1.max(until));
                    }
                    Revocation::Keys => keys = true,
                }
            }
        }
        if count > 0 {
            self.changed.send_modify(|changes| *changes += 1);
        }
        keys
    }

    /// Takes in what this process has just committed.
    pub(crate) fn take_in(&self, revoked: &[Revocation]) {
        let now = clock::now();
        self.add(revoked.iter().map(|revocation| (*revocation, revocation.expires_at(now))));
    }

    /// Reads what was revoked since the last time, anywhere.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn catch_up(&self, database: &Database) -> Result<CaughtUp, Error> {
        let now = clock::now();
        let has_gone_back = database.has_gone_back().await;
        let (seq, last, is_in_touch) = self.mark();
        let from = if has_gone_back || !is_in_touch { 0 } else { seq };
        let mut table = read_from(database, from, now).await?;
        let is_another = has_gone_back || table.is_not_after(seq, last, now);
        if is_another {
            table = read_from(database, 0, now).await?;
        }
        self.forget_before(now);
        let stood = table.rows.iter().find(|(number, _)| *number == table.seq).map(|(_, written)| *written);
        let unchanged = if table.seq == seq && !is_another { last } else { None };
        let since = table.rows.into_iter().filter(|(number, _)| is_another || !is_in_touch || *number > seq);
        let keys = self.add(since.map(|(_, written)| (written.revocation, written.expires_at)));
        self.set_mark(table.seq, stood.or(unchanged));
        database.acknowledge_going_back();
        Ok(CaughtUp { has_keys: keys || is_another, has_gone_back: is_another })
    }

    fn forget_before(&self, now: Time) {
        let mut known = self.known.write().expect("no panic happens under this lock");
        known.sessions.retain(|_, until| *until > now);
        known.rights.retain(|_, (_, until)| *until > now);
    }

    /// Up to where the table is known.
    fn mark(&self) -> (i64, Option<RevocationRow>, bool) {
        let known = self.known.read().expect("no panic happens under this lock");
        (known.seq, known.last, known.read.is_some_and(|at| at.elapsed() < OUT_OF_TOUCH))
    }

    fn set_mark(&self, seq: i64, last: Option<RevocationRow>) {
        let mut known = self.known.write().expect("no panic happens under this lock");
        (known.seq, known.last, known.read) = (seq, last, Some(Instant::now()));
    }
}

/// What was found when the table was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CaughtUp {
    /// The keys of access tokens have to be read again.
    pub(crate) has_keys: bool,
    /// The database went back in time: what was read before may never have happened.
    pub(crate) has_gone_back: bool,
}

/// Writes them into the transaction that revokes, as its last words: from here to the commit nobody else revokes, so
/// their numbers are in the order of the commits.
pub(crate) async fn write(transaction: &SqlTransaction, revoked: &[Revocation]) -> Result<(), Error> {
    let (now, count) = (clock::now(), revoked.len() as i64);
    let mut next = counter::Entity::update_many().col_expr(
        counter::Column::Seq,
        sea_orm::sea_query::ExprTrait::add(counter::Column::Seq.into_expr(), count),
    );
    QueryTrait::query(&mut next).returning_col(counter::Column::Seq);
    let last: Vec<i64> = transaction.column("revocation.number", counter::Entity, &next).await?;
    let last = last.first().copied().unwrap_or_default();
    let rows = (last - count + 1..).zip(revoked).map(|(seq, revocation)| {
        let (session_id, user_id, epoch) = match *revocation {
            Revocation::Session(session) => (Some(session), None, None),
            Revocation::Rights { user, epoch } => (None, Some(user), Some(epoch)),
            Revocation::Keys => (None, None, None),
        };
        ActiveModel {
            seq: Set(seq),
            session_id: Set(session_id),
            user_id: Set(user_id),
            epoch: Set(epoch),
            created_at: Set(now),
            expires_at: Set(revocation.expires_at(now)),
        }
    });
    transaction.write("revocation.insert", Entity, &Entity::insert_many(rows)).await.map(drop)
}

/// Revokes these as the last words of the transaction, commits, and takes them in.
///
/// # Errors
/// The database's; after an error of the commit itself it is unknown whether the write happened.
pub(crate) async fn commit(
    transaction: SqlTransaction,
    revocations: &Arc<Revocations>,
    revoked: Vec<Revocation>,
) -> Result<(), Error> {
    write(&transaction, &revoked).await?;
    let revocations = Arc::clone(revocations);
    // In a task of its own: a caller who goes away now must not keep this process from knowing what is committed.
    let committing = tokio::spawn(async move {
        let result = transaction.commit().await;
        if result.is_ok() {
            revocations.take_in(&revoked);
        }
        result
    });
    committing.await.expect("committing does not panic and is not aborted")
}

/// The table from one number on.
struct Read {
    /// The last number that was given out.
    seq: i64,
    /// What has not expired, in order.
    rows: Vec<(i64, RevocationRow)>,
}

impl Read {
    /// Is this not what comes after a table that ended with this number and this row?
    fn is_not_after(&self, seq: i64, last: Option<RevocationRow>, now: Time) -> bool {
        let stands = self.rows.iter().find(|(number, _)| *number == seq).map(|(_, written)| *written);
        let has_been = match (stands, last) {
            (Some(stands), last) => last == Some(stands),
            // What has expired is deleted.
            (None, Some(last)) => last.expires_at <= now,
            (None, None) => true,
        };
        self.seq < seq || !has_been
    }
}

async fn read_from(database: &Database, seq: i64, now: Time) -> Result<Read, Error> {
    let since = Condition::all().add(Column::Seq.gte(seq)).add(Column::ExpiresAt.gt(now));
    let mut find = Query::select();
    find.column((counter::Entity, counter::Column::Seq));
    find.columns([Column::Seq, Column::SessionId, Column::UserId].map(|column| (Entity, column)));
    find.columns([Column::Epoch, Column::CreatedAt, Column::ExpiresAt].map(|column| (Entity, column)));
    find.from(counter::Entity).left_join(Entity, since).order_by((Entity, Column::Seq), Order::Asc);
    let sql = Sql::built(database.backend(), &find);
    let rows = database
        .fetch("revocation.since", Entity.table_name(), sql, |cells| {
            let last = cells.next::<i64>()?;
            let Some(seq) = cells.next::<Option<i64>>()? else { return Ok((last, None)) };
            let (session, user, epoch) = (
                cells.next::<Option<SessionId>>()?,
                cells.next::<Option<UserId>>()?,
                cells.next::<Option<i64>>()?,
            );
            let revocation = match (session, user) {
                (Some(session), _) => Revocation::Session(session),
                (None, Some(user)) => Revocation::Rights { user, epoch: epoch.unwrap_or_default() },
                (None, None) => Revocation::Keys,
            };
            let (created_at, expires_at) = (cells.next::<Time>()?, cells.next::<Time>()?);
            Ok((last, Some((seq, RevocationRow { revocation, created_at, expires_at }))))
        })
        .await?;
    let seq = rows.last().map_or(0, |(last, _)| *last);
    Ok(Read { seq, rows: rows.into_iter().filter_map(|(_, row)| row).collect() })
}

/// Deletes what concerns nothing any more, by any server's clock.
///
/// # Errors
/// The database's.
pub async fn purge(database: &Database) -> Result<(), Error> {
    let transaction = SqlTransaction::begin(database).await?;
    let before = clock::now() - TimeDelta::seconds(KEPT_SECONDS);
    let delete = Entity::delete_many().filter(Column::ExpiresAt.lt(before));
    transaction.write("revocation.purge", Entity, &delete).await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use sea_orm::ActiveValue::Unchanged;

    use super::*;
    use crate::database::DatabaseOptions;

    async fn database() -> Database {
        let config = DatabaseOptions::at("sqlite::memory:");
        let mut registry = prometheus_client::registry::Registry::default();
        let database = Database::connect(&config, &mut registry).await.expect("a database in memory opens");
        migration::up(database.connection()).await.expect("the steps run");
        database
    }

    /// Revokes something at this time, the first thing of all.
    async fn revoke_at(database: &Database, created_at: Time) -> (i64, RevocationRow) {
        let revocation = Revocation::Session(SessionId::new());
        let transaction = SqlTransaction::begin(database).await.expect("a turn");
        write(&transaction, &[revocation]).await.expect("written");
        let written = RevocationRow { revocation, created_at, expires_at: revocation.expires_at(created_at) };
        let aged = ActiveModel {
            seq: Unchanged(1),
            created_at: Set(created_at),
            expires_at: Set(written.expires_at),
            ..Default::default()
        };
        assert_eq!(transaction.update("revocation.age", aged).await.expect("aged"), 1);
        transaction.commit().await.expect("committed");
        (1, written)
    }

    #[tokio::test]
    async fn a_server_with_a_slow_clock_sees_purged_revocations() {
        let database = database().await;
        let now = clock::now();
        let good_for = i64::from(ACCESS_TOKEN_SECONDS + MARGIN_SECONDS);
        let (seq, written) =
            revoke_at(&database, now - TimeDelta::seconds(good_for + KEPT_SECONDS / 2)).await;
        purge(&database).await.expect("purged");
        let behind = now - TimeDelta::seconds(KEPT_SECONDS - 60);
        let table = read_from(&database, seq, behind).await.expect("read");
        assert!(!table.is_not_after(seq, Some(written), behind), "it has not expired there yet");
        let expires_at = Set(now - TimeDelta::seconds(KEPT_SECONDS + 60));
        let aged = Entity::update_many().set(ActiveModel { expires_at, ..Default::default() });
        database.rows("revocation.age", Entity, &aged, |_| Ok(())).await.expect("aged");
        purge(&database).await.expect("purged");
        let long_ago = now - TimeDelta::days(1);
        assert_eq!(
            read_from(&database, 0, long_ago).await.expect("read").rows.len(),
            0,
            "it goes in the end"
        );
    }

    #[test]
    fn a_continued_table_is_distinguished_from_a_restarted_one() {
        let now = clock::now();
        let row = |ago: i64| {
            let created_at = now - TimeDelta::seconds(ago);
            let revocation = Revocation::Session(SessionId::new());
            RevocationRow { revocation, created_at, expires_at: revocation.expires_at(created_at) }
        };
        let (known, other, expired) = (row(10), row(2), row(1_000));
        let read = |seq, rows: &[(i64, RevocationRow)]| Read { seq, rows: rows.to_vec() };
        assert!(!read(7, &[(7, known)]).is_not_after(7, Some(known), now));
        assert!(!read(8, &[(7, known), (8, other)]).is_not_after(7, Some(known), now));
        assert!(!read(8, &[(8, other)]).is_not_after(7, Some(expired), now), "it was deleted in its time");
        assert!(!read(0, &[]).is_not_after(0, None, now), "nothing was ever revoked");
        assert!(read(3, &[]).is_not_after(7, Some(known), now), "a smaller number");
        assert!(read(7, &[(7, other)]).is_not_after(7, Some(known), now), "the same number, given out again");
        assert!(read(9, &[(7, other)]).is_not_after(7, Some(known), now), "and a greater one");
        assert!(read(9, &[]).is_not_after(7, Some(known), now), "it is gone before its time");
        assert!(read(7, &[(7, other)]).is_not_after(7, None, now), "it had expired");
    }
}
