//! What is no longer good before its time: sessions that were ended, rights that were taken away. Written in the
//! transaction that does it, kept in memory by every node until the last token it concerns has ended. Who revokes
//! knows at once; other nodes hear of it as a change, and in any case by asking the primary twice a second. Not
//! here: tokens, and why something was revoked.

use std::{sync::RwLock, time::Duration};

use chrono::TimeDelta;
use rustc_hash::FxHashMap;
use tokio::sync::watch;

use crate::{
    clock::{self, Time},
    error::Error,
    id::{SessionId, UserId},
    store::Store,
    transaction::Transaction,
};

/// How long an access token of a session is good.
pub const ACCESS_TOKEN_SECONDS: u32 = 300;
/// How long any access token is good at most: those that are minted by hand.
pub const LONGEST_TOKEN_SECONDS: u32 = 86_400;
/// Beyond the end of the last token: clocks differ.
const MARGIN_SECONDS: u32 = 60;
/// How often the primary is asked for what others have revoked: often enough that every node refuses within a second
/// what was revoked, also without Redis. It is one look at the end of a primary key, mostly at nothing.
pub const POLL: Duration = Duration::from_millis(500);
const _: () = assert!(POLL.as_millis() <= 500, "a revocation is known everywhere within a second");

const TABLE: &str = "revocations";

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

/// What this node knows to be revoked.
#[derive(Debug)]
pub struct Revocations {
    known: RwLock<Known>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    sessions: FxHashMap<SessionId, Time>,
    rights: FxHashMap<UserId, (i64, Time)>,
    /// Up to where the table was read.
    seq: i64,
}

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

    fn forget_before(&self, now: Time) {
        let mut known = self.known.write().expect("no panic happens under this lock");
        known.sessions.retain(|_, until| *until > now);
        known.rights.retain(|_, (_, until)| *until > now);
    }

    fn seq(&self) -> i64 {
        self.known.read().expect("no panic happens under this lock").seq
    }
}

/// Writes them into the transaction that revokes, as its last words: from here to the commit nobody else revokes, so
/// their numbers are in the order of the commits.
pub(crate) async fn write(transaction: &Transaction, revoked: &[Revocation]) -> Result<(), Error> {
    let (now, count) = (clock::now(), revoked.len() as i64);
    let mut sql = transaction.sql();
    sql.push("UPDATE revocation_counter SET seq = seq + ").bind(count).push(" RETURNING seq");
    let last = transaction.column::<i64>("revocation.number", TABLE, sql).await?;
    let last = last.first().copied().unwrap_or_default();
    let mut sql = transaction.sql();
    sql.push("INSERT INTO revocations (seq, session_id, user_id, epoch, created_at, expires_at) VALUES ");
    for (index, revocation) in revoked.iter().enumerate() {
        let (session, user, epoch) = match *revocation {
            Revocation::Session(session) => (Some(session), None, None),
            Revocation::Rights { user, epoch } => (None, Some(user), Some(epoch)),
            Revocation::Keys => (None, None, None),
        };
        sql.push(if index == 0 { "(" } else { ", (" }).bind(last - count + 1 + index as i64).push(", ");
        sql.bind(session.map(|id| id.0))
            .push(", ")
            .bind(user.map(|id| id.0))
            .push(", ")
            .bind(epoch)
            .push(", ");
        sql.bind(now).push(", ").bind(revocation.expires_at(now)).push(")");
    }
    transaction.execute("revocation.insert", TABLE, sql).await.map(drop)
}

/// Takes in what this process has just committed.
pub(crate) fn announce(store: &Store, revoked: &[Revocation]) {
    let now = clock::now();
    store.revocations().add(revoked.iter().map(|revocation| (*revocation, revocation.expires_at(now))));
}

/// Reads what was revoked since the last time, anywhere; says whether the keys have to be read again.
///
/// # Errors
/// The database's.
pub async fn catch_up(store: &Store) -> Result<bool, Error> {
    let (revocations, now) = (store.revocations(), clock::now());
    let mut sql = store.sql();
    sql.push(
        "SELECT t.seq, t.session_id, t.user_id, t.epoch, t.expires_at FROM revocations t WHERE t.seq > ",
    );
    sql.bind(revocations.seq()).push(" AND t.expires_at > ").bind(now).push(" ORDER BY t.seq");
    let rows = store
        .fetch("revocation.since", TABLE, sql, |cells| {
            let (seq, session, user, epoch) = (
                cells.next::<i64>()?,
                cells.next::<Option<SessionId>>()?,
                cells.next::<Option<UserId>>()?,
                cells.next::<Option<i64>>()?,
            );
            let revocation = match (session, user) {
                (Some(session), _) => Revocation::Session(session),
                (None, Some(user)) => Revocation::Rights { user, epoch: epoch.unwrap_or_default() },
                (None, None) => Revocation::Keys,
            };
            Ok((seq, revocation, cells.next::<Time>()?))
        })
        .await?;
    revocations.forget_before(now);
    let Some(last) = rows.last().map(|(seq, ..)| *seq) else { return Ok(false) };
    let keys = revocations.add(rows.into_iter().map(|(_, revocation, until)| (revocation, until)));
    let mut known = revocations.known.write().expect("no panic happens under this lock");
    known.seq = known.seq.max(last);
    Ok(keys)
}

/// Deletes what concerns nothing any more.
///
/// # Errors
/// The database's.
pub async fn purge(store: &Store) -> Result<(), Error> {
    let transaction = Transaction::begin(store).await?;
    let mut sql = transaction.sql();
    sql.push("DELETE FROM revocations WHERE expires_at < ").bind(clock::now());
    transaction.execute("revocation.purge", TABLE, sql).await?;
    transaction.commit_unlogged().await
}
