//! Follows the log of events for everybody in this process who watches it: one reader a process, for as long
//! as somebody does. It looks at once when somebody tells of a change (this process after a commit, another
//! one over Redis), and now and then anyway, so nothing depends on being told. A watcher who comes back, or
//! has fallen behind, reads what it has missed from the log itself. Not here: the log (`log`), who may see a
//! change (the reader decides that when it reads the row).

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::{
    sync::{
        Notify, Semaphore,
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
        watch,
    },
    time::Instant,
};

mod watcher;
pub use watcher::EventWatch;

use super::{
    ChangeEvent, Changes, EventBus,
    log::{self, EventPosition, LoggedChanges, ResumeToken},
    tags_of,
};
use crate::{
    cache::{Cache, Version},
    clock,
    database::Database,
    error::Error,
};

/// Between two looks where nobody tells of a change.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks in any case: what is told meanwhile is read at once.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
/// Between two looks while transactions are running that may yet write before what is there: at first, and at most.
const SETTLING: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Rows read by one statement at most: by the reader, and by a watcher who catches up.
const PAGE: (u64, u64) = (500, 100);
/// Watchers of this process that read from the log at a time.
const READING: usize = 4;
/// Rows that are known to wait for older transactions at most; a watcher who comes then may be told of
/// further ones though they were there before.
const MOST_UNSETTLED: u64 = 10_000;
/// Transactions that a slow watcher may be behind before it reads them from the log.
const BACKLOG: usize = 4_096;
/// How long it is waited for the writer's message that caches do not give out older values any more.
const INVALIDATED_WITHIN: Duration = Duration::from_millis(30);
/// Such messages that are kept for rows that are not read yet.
const MOST_INVALIDATED: usize = 16_384;
/// What was written longer ago is in no cache as it was before.
const CACHES_LAG: TimeDelta = TimeDelta::seconds(10);
/// Rows of that time that are looked at.
const MOST_RECENT: u64 = 10_000;
/// After a change that was told by a program from before the log, further ones may come; so long it counts
/// that such a message may have been lost.
const UNLOGGED_FOR: Duration = Duration::from_mins(10);

/// What a watcher hears: the changes of one transaction.
#[derive(Clone, Debug)]
pub struct Watched {
    /// None: told by a program from before the log.
    position: Option<EventPosition>,
    changes: Arc<[ChangeEvent]>,
    /// Changes before this one were told already.
    first: usize,
    /// The version of the cache from which on a changed row is read as it is after the change.
    pub written: Option<Version>,
    number: u64,
}

impl Watched {
    /// The changes, and what stands for each when a client comes back.
    pub fn changes(&self) -> impl Iterator<Item = (ChangeEvent, Option<ResumeToken>)> + '_ {
        self.changes.iter().enumerate().skip(self.first).map(|(index, change)| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            (*change, self.position.map(|position| ResumeToken { position, index }))
        })
    }

    /// Whether it has a place in the order of the log.
    pub fn is_logged(&self) -> bool {
        self.position.is_some()
    }

    /// Which transaction this is: all watchers of this process get the same number for it.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn logged(row: &LoggedChanges, written: Option<Version>) -> Self {
        let number = row.position.number.unsigned_abs();
        Self { position: Some(row.position), changes: Arc::clone(&row.changes), first: 0, written, number }
    }

    fn unlogged(changes: &Changes) -> Self {
        // Apart from the numbers of the log.
        let number = changes.number() | (1 << 63);
        Self { position: None, changes: Arc::clone(&changes.all), first: 0, written: changes.written, number }
    }
}

/// Why a watch is over, or cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The log cannot be read now, so nobody knows what is new. Only where it begins.
    #[error("the log of events cannot be read now")]
    Unavailable,
    /// What came after the token is not in the log any more.
    #[error("what happened after the resume token is not kept any more")]
    Expired,
    /// Another database server took over, or a backup was restored: what was told may not be true any more.
    #[error("the database is not the one that it was")]
    Interrupted,
}

/// The log and its reader. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventLog {
    follower: Arc<Mutex<Weak<SharedReader>>>,
    /// Watchers that catch up take turns.
    reading: Arc<ReadTurns>,
    metrics: LogMetrics,
}

#[derive(Debug)]
struct ReadTurns(Semaphore);

impl Default for ReadTurns {
    fn default() -> Self {
        Self(Semaphore::new(READING))
    }
}

#[derive(Clone, Debug, Default)]
struct LogMetrics {
    settling: Gauge,
    replayed: Counter,
}

/// What the reader reads with.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) database: Database,
    pub(crate) cache: Cache,
    pub(crate) events: EventBus,
}

impl EventLog {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let log = Self::default();
        registry.register(
            "event_log_settling_milliseconds",
            "How long the oldest event waits for transactions that were begun before it; 0 where none does",
            log.metrics.settling.clone(),
        );
        registry.register(
            "event_log_replayed_transactions",
            "Transactions read from the log for subscribers who came back or had fallen behind",
            log.metrics.replayed.clone(),
        );
        log
    }

    /// Watches what is written from now on; with a token, what was written after it.
    pub(crate) fn watch(&self, sources: Sources, after: Option<ResumeToken>) -> EventWatch {
        let follower = self.follower(&sources);
        let replayed = self.metrics.replayed.clone();
        EventWatch::new(follower, sources.database, (Arc::clone(&self.reading), replayed), after)
    }

    /// The database is another one than it was: whoever watches has to begin anew.
    pub(crate) fn interrupt(&self) {
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(follower) = follower {
            follower.is_interrupted.store(true, Ordering::Release);
            follower.wake.notify_one();
        }
    }

    fn follower(&self, sources: &Sources) -> Arc<SharedReader> {
        let mut known = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = known.upgrade() {
            return follower;
        }
        let follower = Arc::new(SharedReader {
            live: broadcast::Sender::new(BACKLOG),
            seen: watch::Sender::new(None),
            asked: AtomicU64::new(0),
            wake: Arc::default(),
            is_interrupted: AtomicBool::new(false),
        });
        *known = Arc::downgrade(&follower);
        let reader = Reader {
            wake: Arc::clone(&follower.wake),
            heard: sources.events.subscribe(),
            sources: sources.clone(),
            position: None,
            invalidated: FxHashMap::default(),
            floor: None,
            unlogged_at: None,
            has_failed: false,
            settling: self.metrics.settling.clone(),
        };
        tokio::spawn(reader.run(Arc::downgrade(&follower)));
        follower
    }
}

/// What the reader shares with those who watch; it ends when the last of them is gone.
#[derive(Debug)]
struct SharedReader {
    live: broadcast::Sender<Heard>,
    seen: watch::Sender<Option<Look>>,
    /// How many requests for a look there were.
    asked: AtomicU64,
    wake: Arc<Notify>,
    is_interrupted: AtomicBool,
}

#[derive(Clone, Debug)]
enum Heard {
    Changes(Watched),
    Interrupted,
}

/// What a look has found.
#[derive(Clone, Debug)]
struct Look {
    /// How many requests for a look were made before it began.
    answers: u64,
    /// The last row that was told.
    position: EventPosition,
    /// The numbers of rows that were there, and not settled.
    ahead: Arc<FxHashSet<i64>>,
    /// What is read at this version of the cache or later has all that was told.
    floor: Option<Version>,
}

impl SharedReader {
    /// What a look finds that begins now or later.
    async fn look(&self) -> Option<Look> {
        let mut seen = self.seen.subscribe();
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake.notify_one();
        let answered = seen.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.answers >= asked)).await;
        answered.ok()?.clone()
    }
}

/// Reads the log for all.
struct Reader {
    wake: Arc<Notify>,
    heard: broadcast::Receiver<Changes>,
    sources: Sources,
    position: Option<EventPosition>,
    /// What writers have told of rows that are not read yet: that caches were invalidated, and the version of it.
    invalidated: FxHashMap<i64, Option<Version>>,
    /// The newest version of what was told.
    floor: Option<Version>,
    /// When a program from before the log told of a change last.
    unlogged_at: Option<Instant>,
    has_failed: bool,
    settling: Gauge,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.settling.set(0);
    }
}

impl Reader {
    async fn run(mut self, follower: Weak<SharedReader>) {
        let mut settling = SETTLING.0;
        loop {
            let Some(shared) = follower.upgrade() else { return };
            while let Some(told) = next_told(&mut self.heard) {
                self.take_in(&shared, told);
            }
            let looked = self.look(&shared).await;
            self.report(&looked);
            drop(shared);
            match looked {
                Ok(true) => {
                    settling = SETTLING.0;
                    tokio::time::sleep(LEAST_PAUSE).await;
                    self.wait(&follower, LOOK, true).await;
                }
                // Messages about further changes do not end the wait for an older transaction.
                Ok(false) => {
                    self.wait(&follower, settling, false).await;
                    settling = (settling * 2).min(SETTLING.1);
                }
                Err(_) => self.wait(&follower, LOOK, false).await,
            }
        }
    }

    /// Waits, taking in what is told; where `ends`, only until something is.
    async fn wait(&mut self, follower: &Weak<SharedReader>, pause: Duration, ends: bool) {
        let until = Instant::now() + pause;
        loop {
            let told = tokio::select! {
                () = self.wake.notified(), if ends => return,
                () = tokio::time::sleep_until(until) => return,
                told = self.heard.recv() => told,
            };
            let Some(shared) = follower.upgrade() else { return };
            match told {
                Ok(changes) => self.take_in(&shared, Told::Changes(changes)),
                Err(RecvError::Lagged(_)) => self.take_in(&shared, Told::Gap),
                Err(RecvError::Closed) => return tokio::time::sleep_until(until).await,
            }
            if ends {
                return;
            }
        }
    }

    /// Logs that the log cannot be read, once each time that it begins.
    fn report(&mut self, looked: &Result<bool, Error>) {
        match looked {
            Err(error) if !self.has_failed => tracing::warn!(
                error = error as &dyn std::error::Error,
                "the log of events cannot be read; subscriptions hear nothing until it can"
            ),
            _ => {}
        }
        self.has_failed = looked.is_err();
    }

    fn take_in(&mut self, shared: &SharedReader, told: Told) {
        let changes = match told {
            Told::Gap => return self.note_gap(shared),
            Told::Changes(changes) => changes,
        };
        if let Some(number) = changes.event {
            if self.invalidated.len() >= MOST_INVALIDATED {
                self.invalidated.clear();
            }
            self.invalidated.insert(number, changes.written);
            return;
        }
        if changes.contains(&ChangeEvent::Lagged) {
            self.note_gap(shared);
        }
        if changes.iter().any(|change| *change != ChangeEvent::Lagged) {
            self.unlogged_at = Some(Instant::now());
            // Fails only where nobody watches.
            let _ = shared.live.send(Heard::Changes(Watched::unlogged(&changes)));
        }
    }

    /// Messages may have been lost. Only those of programs from before the log matter.
    fn note_gap(&mut self, shared: &SharedReader) {
        if self.unlogged_at.is_some_and(|at| at.elapsed() < UNLOGGED_FOR) {
            let _ = shared.live.send(Heard::Interrupted);
        }
    }

    /// Tells what is new; false where something waits for older transactions.
    async fn look(&mut self, shared: &SharedReader) -> Result<bool, Error> {
        let answers = shared.asked.load(Ordering::Acquire);
        let is_asked = shared.seen.borrow().as_ref().is_none_or(|seen| seen.answers < answers);
        let database = self.sources.database.clone();
        if shared.is_interrupted.swap(false, Ordering::AcqRel) {
            self.interrupt(shared);
        }
        let mut position = if let Some(position) = self.position {
            position
        } else {
            let end = log::end(&database).await?;
            // Nobody here has heard what writers have told of it.
            let recent = log::since(&database, clock::now() - CACHES_LAG, MOST_RECENT).await?;
            let written = self.sources.cache.invalidate_by_tag(&tags_of(&recent)).await;
            self.raise_floor(written);
            *self.position.insert(end)
        };
        loop {
            let Some(rows) = log::after(&database, position, PAGE.0).await? else {
                self.interrupt(shared);
                return Ok(false);
            };
            let Some(last) = rows.last() else { break };
            position = last.position;
            self.tell(shared, &rows).await;
            self.position = Some(position);
            if rows.len() < PAGE.0 as usize {
                break;
            }
        }
        // After the settled rows: what is in neither was not there yet.
        let unsettled = log::unsettled(&database, if is_asked { MOST_UNSETTLED } else { 1 }).await?;
        let oldest = unsettled.first().map(|(_, created_at)| (clock::now() - created_at).num_milliseconds());
        self.settling.set(oldest.map_or(0, |age| age.max(1)));
        if is_asked {
            let ahead = unsettled.iter().map(|(number, _)| *number).collect();
            let seen = Look { answers, position, ahead: Arc::new(ahead), floor: self.floor };
            shared.seen.send_replace(Some(seen));
        }
        Ok(unsettled.is_empty())
    }

    /// The log is not the one that was read so far.
    fn interrupt(&mut self, shared: &SharedReader) {
        self.position = None;
        // A restored database gives out the numbers of rows again.
        self.invalidated.clear();
        let _ = shared.live.send(Heard::Interrupted);
    }

    /// Tells rows, once no cache gives out what was there before.
    async fn tell(&mut self, shared: &SharedReader, rows: &[LoggedChanges]) {
        let cache = self.sources.cache.clone();
        if cache.is_on() {
            let until = Instant::now() + INVALIDATED_WITHIN;
            while rows.iter().any(|row| !self.invalidated.contains_key(&row.position.number)) {
                match tokio::time::timeout_at(until, self.heard.recv()).await {
                    Ok(Ok(changes)) => self.take_in(shared, Told::Changes(changes)),
                    Ok(Err(RecvError::Lagged(_))) => self.take_in(shared, Told::Gap),
                    Ok(Err(RecvError::Closed)) | Err(_) => break,
                }
            }
        }
        let mut forgotten = Vec::new();
        for row in rows {
            match self.invalidated.remove(&row.position.number) {
                Some(Some(written)) => self.raise_floor(Some(written)),
                // A cache of this process alone is told by its writer.
                Some(None) if !cache.is_shared() => {}
                // The writer is gone, or cannot reach Redis.
                Some(None) | None => forgotten.extend(row.changes.iter().copied()),
            }
        }
        let written = cache.invalidate_by_tag(&tags_of(&forgotten)).await;
        self.raise_floor(written);
        for row in rows.iter().filter(|row| !row.changes.is_empty()) {
            // Fails only where nobody watches.
            let _ = shared.live.send(Heard::Changes(Watched::logged(row, self.floor)));
        }
    }

    fn raise_floor(&mut self, written: Option<Version>) {
        if let Some(written) = written {
            self.floor = Some(self.floor.map_or(written, |floor| written.latest(floor)));
        }
    }
}

/// What the bus of events has told.
enum Told {
    Changes(Changes),
    /// Too fast to be heard.
    Gap,
}

fn next_told(heard: &mut broadcast::Receiver<Changes>) -> Option<Told> {
    match heard.try_recv() {
        Ok(changes) => Some(Told::Changes(changes)),
        Err(TryRecvError::Lagged(_)) => Some(Told::Gap),
        Err(TryRecvError::Empty | TryRecvError::Closed) => None,
    }
}
