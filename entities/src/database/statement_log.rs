//! The statements that ran for one request: how many, and which. Not here: what the request read from the cache
//! (`cache::recorder`).

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

/// The statements of one request.
#[derive(Debug, Default)]
pub(crate) struct StatementLog {
    keeps_texts: bool,
    count: AtomicU32,
    statements: Mutex<Vec<Executed>>,
    has_untracked: AtomicBool,
}

/// One statement that ran.
#[derive(Clone, Debug)]
pub struct Executed {
    /// Its name, `domain.verb`.
    pub name: &'static str,
    /// Its text with placeholders; only when texts were asked for.
    pub sql: Option<String>,
    /// Rows returned.
    pub rows: usize,
    /// Time from sending to the last row.
    pub elapsed: Duration,
}

impl StatementLog {
    /// Counts statements and, with `keeps_texts`, keeps each of them.
    pub(crate) fn new(keeps_texts: bool) -> Self {
        Self { keeps_texts, ..Self::default() }
    }

    /// Whether the statements themselves are kept.
    pub(crate) fn keeps_texts(&self) -> bool {
        self.keeps_texts
    }

    /// How many statements ran.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// The statements, in the order in which they finished.
    pub(crate) fn statements(&self) -> Vec<Executed> {
        self.statements.lock().expect("no panic happens under this lock").clone()
    }

    /// Did a statement run whose results no tag of the cache covers?
    pub(crate) fn has_untracked(&self) -> bool {
        self.has_untracked.load(Ordering::Acquire)
    }

    /// Adds the statements that ran elsewhere on this request's behalf.
    pub(crate) fn absorb(&self, other: &Self) {
        self.count.fetch_add(other.count(), Ordering::Relaxed);
        if self.keeps_texts {
            let executed = other.statements();
            self.statements.lock().expect("no panic happens under this lock").extend(executed);
        }
    }

    pub(super) fn add(&self, name: &'static str, sql: Option<String>, rows: usize, elapsed: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.keeps_texts {
            let executed = Executed { name, sql, rows, elapsed };
            self.statements.lock().expect("no panic happens under this lock").push(executed);
        }
    }

    pub(super) fn note_untracked(&self) {
        self.has_untracked.store(true, Ordering::Release);
    }
}
