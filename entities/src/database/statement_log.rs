//! The statements that ran for one request: how many, and which. Not here: what the request read from the cache
//! (`cache::recorder`).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::Value;

/// The statements of one request.
#[derive(Debug, Default)]
pub(crate) struct StatementLog {
    keeps_texts: bool,
    count: AtomicU32,
    statements: Mutex<Vec<Executed>>,
    /// The tables of statements whose results no tag of the cache covers, each once; only where somebody has
    /// asked for them.
    untracked: Option<Mutex<Vec<&'static str>>>,
}

/// One statement that ran.
#[derive(Clone, Debug)]
pub struct Executed {
    /// Its name, `domain.verb`.
    pub name: &'static str,
    /// The table it is about.
    pub(super) table: &'static str,
    /// Its text with placeholders; only when texts were asked for.
    pub sql: Option<String>,
    /// The values of its placeholders; kept with the text.
    pub(super) values: Vec<Value>,
    /// Rows returned; none: it was stopped before its end.
    pub rows: Option<usize>,
    /// When it was to be sent: before it had a connection.
    pub began: Instant,
    /// Time from sending to the last row, or until it was stopped.
    pub elapsed: Duration,
    /// The standby that it ran on; none: it ran on the database that is written to.
    pub server: Option<Arc<str>>,
}

impl StatementLog {
    /// Counts statements and, with `keeps_texts`, keeps each of them.
    pub(crate) fn new(keeps_texts: bool) -> Self {
        Self { keeps_texts, ..Self::default() }
    }

    /// This log, empty, which also keeps what `untracked` tells.
    pub(crate) fn noting_untracked(&self) -> Self {
        Self { untracked: Some(Mutex::default()), ..Self::new(self.keeps_texts) }
    }

    /// Whether the statements themselves are kept.
    pub(crate) fn keeps_texts(&self) -> bool {
        self.keeps_texts
    }

    /// How many statements ran.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// The statements, in the order in which they finished or were stopped.
    pub(crate) fn statements(&self) -> Vec<Executed> {
        self.statements.lock().expect("no panic happens under this lock").clone()
    }

    /// The tables of the statements whose results no tag of the cache covers.
    pub(crate) fn untracked(&self) -> Vec<&'static str> {
        let untracked = self.untracked.as_ref();
        untracked
            .map(|tables| tables.lock().expect("no panic happens under this lock").clone())
            .unwrap_or_default()
    }

    /// Adds the statements that ran elsewhere on this request's behalf.
    pub(crate) fn absorb(&self, other: &Self) {
        self.count.fetch_add(other.count(), Ordering::Relaxed);
        if self.keeps_texts {
            let executed = other.statements();
            self.statements.lock().expect("no panic happens under this lock").extend(executed);
        }
    }

    /// Counts a statement, and keeps what `executed` says of it where texts are kept.
    pub(super) fn add(&self, executed: impl FnOnce() -> Executed) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.keeps_texts {
            let executed = executed();
            self.statements.lock().expect("no panic happens under this lock").push(executed);
        }
    }

    pub(super) fn note_untracked(&self, table: &'static str) {
        let Some(untracked) = &self.untracked else { return };
        let mut untracked = untracked.lock().expect("no panic happens under this lock");
        if !untracked.contains(&table) {
            untracked.push(table);
        }
    }
}
