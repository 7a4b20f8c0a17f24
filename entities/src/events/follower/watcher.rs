//! One watcher of the log: where it begins, what it hears from the reader of this process, and what it reads
//! from the log itself, where it comes back or has fallen behind. Not here: the reader.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;
use rustc_hash::FxHashSet;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::timeout,
};

use super::{Heard, PAGE, ReadTurns, SharedReader, WatchEnd, Watched};
use crate::{
    cache::Version,
    clock,
    database::Database,
    error::Error,
    events::log::{self, EventPosition, LoggedChanges, ResumeToken},
};

/// How long a new watcher waits for the log.
const BEGIN_WITHIN: Duration = Duration::from_secs(2);
/// Between two tries of a watcher to read the log.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
enum Begin {
    /// With what is written from now on.
    Now,
    /// After this change.
    After(ResumeToken),
    /// After this row, which was told.
    Behind(EventPosition),
}

/// Watches the log.
#[derive(Debug)]
pub struct EventWatch {
    follower: Arc<SharedReader>,
    live: broadcast::Receiver<Heard>,
    database: Database,
    reading: Arc<ReadTurns>,
    replayed: Counter,
    /// Not begun yet.
    begins: Option<Begin>,
    /// What was told last.
    last: Option<EventPosition>,
    /// Rows that were there before it began, but are told to others later.
    ahead: Arc<FxHashSet<i64>>,
    /// What is read at this version of the cache or later has all that was written before it began.
    floor: Option<Version>,
    /// What the reader tells comes after this; until there it is read from the log.
    replay_until: Option<EventPosition>,
    page: VecDeque<Watched>,
}

impl EventWatch {
    /// Of what this reader tells from now on; with a token, of what was written after it.
    pub(super) fn new(
        follower: Arc<SharedReader>,
        database: Database,
        (reading, replayed): (Arc<ReadTurns>, Counter),
        after: Option<ResumeToken>,
    ) -> Self {
        Self {
            live: follower.live.subscribe(),
            follower,
            database,
            reading,
            floor: None,
            replayed,
            begins: Some(after.map_or(Begin::Now, Begin::After)),
            last: None,
            ahead: Arc::default(),
            replay_until: None,
            page: VecDeque::new(),
        }
    }

    /// Begins, so that nothing is missed from here on. After a token that happens with the first `next`,
    /// where the log cannot be read now.
    ///
    /// # Errors
    /// `Expired`, and without a token `Unavailable`.
    pub async fn begin(&mut self) -> Result<(), WatchEnd> {
        match timeout(BEGIN_WITHIN, self.try_begin()).await {
            Ok(begun) => begun,
            Err(_) if matches!(self.begins, Some(Begin::Now)) => Err(WatchEnd::Unavailable),
            Err(_) => Ok(()),
        }
    }

    async fn try_begin(&mut self) -> Result<(), WatchEnd> {
        let Some(begins) = self.begins else { return Ok(()) };
        loop {
            // What the reader tells from now on, and what it has told until then, meet.
            self.live = self.follower.live.subscribe();
            let Some(seen) = self.follower.look().await else { return Err(WatchEnd::Interrupted) };
            self.floor = seen.floor;
            let (after, index) = match begins {
                Begin::Now => {
                    (self.last, self.ahead, self.begins) = (Some(seen.position), seen.ahead, None);
                    return Ok(());
                }
                Begin::After(ResumeToken { position, index }) => (position, Some(index)),
                Begin::Behind(position) => (position, None),
            };
            match self.at(after).await {
                Ok(None) => return Err(WatchEnd::Expired),
                Ok(Some(row)) => {
                    if let Some(index) = index {
                        let first = (index as usize).saturating_add(1);
                        self.page.push_back(Watched { first, ..Watched::logged(&row, self.floor) });
                    }
                    (self.last, self.replay_until, self.begins) = (Some(after), Some(seen.position), None);
                    return Ok(());
                }
                Err(_) => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }

    async fn at(&self, position: EventPosition) -> Result<Option<LoggedChanges>, Error> {
        if position == EventPosition::ORIGIN {
            let (changes, created_at) = ([].into(), clock::now());
            return Ok(Some(LoggedChanges { position, changes, created_at }));
        }
        let _turn = self.reading.0.acquire().await;
        log::at(&self.database, position).await
    }

    /// What stands for all that was told so far; none before it has begun.
    pub(crate) fn token(&self) -> Option<ResumeToken> {
        self.last.map(|position| ResumeToken { position, index: u32::MAX })
    }

    /// From when on what is read has all that was written before it began.
    pub fn floor(&self) -> Option<Version> {
        self.floor
    }

    /// Up to where it has told everything; none where it has not begun, or is behind.
    pub fn position(&self) -> Option<EventPosition> {
        let is_behind = self.begins.is_some() || self.replay_until.is_some() || !self.page.is_empty();
        self.last.filter(|_| !is_behind)
    }

    /// Tells also what was written before it began and is told to others later, which it else leaves out;
    /// whether there is any.
    pub fn tell_unsettled(&mut self) -> bool {
        !std::mem::take(&mut self.ahead).is_empty()
    }

    /// The changes of the next transaction.
    ///
    /// # Errors
    /// Why there are no more.
    pub async fn next(&mut self) -> Result<Watched, WatchEnd> {
        loop {
            self.try_begin().await?;
            if let Some(watched) = self.page.pop_front() {
                self.last = watched.position.or(self.last);
                return Ok(watched);
            }
            if let Some(until) = self.replay_until {
                self.read_page(until).await?;
                continue;
            }
            match self.live.recv().await {
                Ok(Heard::Interrupted) | Err(RecvError::Closed) => return Err(WatchEnd::Interrupted),
                Ok(Heard::Changes(watched)) => match watched.position {
                    Some(position) if self.is_known(position) => {}
                    position => {
                        self.last = position.or(self.last);
                        return Ok(watched);
                    }
                },
                Err(RecvError::Lagged(_)) => self.begins = self.last.map(Begin::Behind),
            }
        }
    }

    /// Reads what comes next from the log.
    async fn read_page(&mut self, until: EventPosition) -> Result<(), WatchEnd> {
        let Some(last) = self.last.filter(|last| *last < until) else {
            self.replay_until = None;
            return Ok(());
        };
        let reading = Arc::clone(&self.reading);
        let turn = reading.0.acquire().await;
        let read = log::after(&self.database, last, PAGE.1).await;
        drop(turn);
        let rows = match read {
            Ok(Some(rows)) => rows,
            Ok(None) => return Err(WatchEnd::Expired),
            Err(_) => {
                tokio::time::sleep(TRY_AGAIN).await;
                return Ok(());
            }
        };
        let rows: Vec<_> = rows.into_iter().filter(|row| row.position <= until).collect();
        match rows.last() {
            None => self.replay_until = None,
            Some(end) => self.last = Some(end.position),
        }
        self.replayed.inc_by(rows.len() as u64);
        for row in rows {
            if !row.changes.is_empty() && !self.ahead.contains(&row.position.number) {
                self.page.push_back(Watched::logged(&row, self.floor));
            }
        }
        Ok(())
    }

    fn is_known(&self, position: EventPosition) -> bool {
        self.last.is_some_and(|last| position <= last) || self.ahead.contains(&position.number)
    }
}
