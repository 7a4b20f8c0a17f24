//! SQL figures, named by OpenTelemetry's conventions: statements by name and table, how long they waited for
//! a connection, and whether PostgreSQL is there. Not here: how many connections there are (`connections`).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatementLabels {
    db_operation_name: &'static str,
    db_collection_name: &'static str,
}

/// How long others that use the connections made everybody wait for one, since the start: also those who wait
/// still. Clones count together.
#[derive(Clone, Debug)]
pub struct ConnectionWaits(Arc<WaitCounts>);

#[derive(Debug)]
struct WaitCounts {
    start: Instant,
    /// Those who had one at once; most do.
    at_once: AtomicU64,
    waits: Mutex<Waits>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    ended: u64,
    ended_after: Duration,
    waiting: u32,
    /// The sum of the times after `start` at which those began who wait now.
    began: Duration,
}

/// How many have waited, and how many do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitSum {
    /// Those who have a connection, or gave up.
    pub ended: u64,
    /// How long they have waited, all together.
    pub ended_after: Duration,
    /// Those who wait now.
    pub waiting: u64,
    /// How long they have waited so far, all together.
    pub waiting_for: Duration,
}

/// Somebody who waits for a connection, until this is dropped.
#[derive(Debug)]
pub struct ConnectionWait {
    counts: Arc<WaitCounts>,
    /// After the start.
    began: Duration,
}

impl Default for ConnectionWaits {
    fn default() -> Self {
        let (at_once, waits) = Default::default();
        Self(Arc::new(WaitCounts { start: Instant::now(), at_once, waits }))
    }
}

impl ConnectionWaits {
    /// Somebody has a connection at once.
    pub(super) fn none(&self) {
        self.0.at_once.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody begins to wait.
    pub fn begin(&self) -> ConnectionWait {
        let counts = Arc::clone(&self.0);
        let mut waits = counts.waits();
        let began = counts.start.elapsed();
        waits.waiting += 1;
        waits.began += began;
        drop(waits);
        ConnectionWait { counts, began }
    }

    /// All of them, until now.
    pub fn sum(&self) -> WaitSum {
        let at_once = self.0.at_once.load(Ordering::Relaxed);
        let waits = self.0.waits();
        let Waits { ended, ended_after, waiting, began } = *waits;
        let waiting_for = (self.0.start.elapsed() * waiting).saturating_sub(began);
        WaitSum { ended: at_once + ended, ended_after, waiting: waiting.into(), waiting_for }
    }
}

impl WaitSum {
    /// How long those have waited on average who did after that earlier moment, or do now.
    pub fn average_since(&self, earlier: &Self) -> Duration {
        let count = self.ended.saturating_sub(earlier.ended) + self.waiting;
        let elapsed = self.ended_after.saturating_sub(earlier.ended_after) + self.waiting_for;
        elapsed.checked_div(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

impl WaitCounts {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionWait {
    fn drop(&mut self) {
        let mut waits = self.counts.waits();
        waits.ended += 1;
        waits.ended_after += self.counts.start.elapsed().saturating_sub(self.began);
        waits.waiting -= 1;
        waits.began -= self.began;
    }
}

/// The figures.
#[derive(Clone)]
pub(crate) struct DatabaseMetrics {
    durations: Family<StatementLabels, Histogram>,
    errors: Family<StatementLabels, Counter>,
    waits: Histogram,
    breaker: Gauge,
    /// Of the waits those for others, without connecting and asking.
    pub(super) turns: ConnectionWaits,
}

impl DatabaseMetrics {
    /// Figures that nobody sees: those of a server beside the one that is written to, which has its own.
    pub(super) fn unregistered() -> Self {
        let durations = Family::<StatementLabels, Histogram>::new_with_constructor(|| {
            Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5])
        });
        let waits = Histogram::new([0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5]);
        let (errors, breaker, turns) = Default::default();
        Self { durations, errors, waits, breaker, turns }
    }

    /// Those of a server beside this one, whose connections are waited for as these are.
    pub(super) fn beside(&self) -> Self {
        Self { turns: self.turns.clone(), ..Self::unregistered() }
    }

    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        registry.register(
            "db_client_operation_duration_seconds",
            "Time from sending a statement to its last row",
            metrics.durations.clone(),
        );
        registry.register("db_client_operation_errors", "Statements that failed", metrics.errors.clone());
        registry.register(
            "db_client_connection_wait_time_seconds",
            "Time until a read of PostgreSQL, or a transaction, had its connection",
            metrics.waits.clone(),
        );
        registry.register(
            "database_breaker_state",
            "PostgreSQL: 0 it answers, 1 it is away and not waited for",
            metrics.breaker.clone(),
        );
        metrics
    }

    pub(super) fn observe(&self, name: &'static str, table: &'static str, elapsed: Duration, failed: bool) {
        let labels = StatementLabels { db_operation_name: name, db_collection_name: table };
        self.durations.get_or_create(&labels).observe(elapsed.as_secs_f64());
        if failed {
            self.errors.get_or_create(&labels).inc();
        }
    }

    /// Where the breaker shows its state.
    pub(super) fn breaker_state(&self) -> Gauge {
        self.breaker.clone()
    }

    /// Somebody has a connection after this time.
    pub(crate) fn waited(&self, elapsed: Duration) {
        self.waits.observe(elapsed.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_still_counts_as_long_as_they_have_waited() {
        let (waits, nobody) = (ConnectionWaits::default(), WaitSum::default());
        assert_eq!(waits.sum(), nobody);
        waits.none();
        let all: Vec<_> = (0..3).map(|_| waits.begin()).collect();
        std::thread::sleep(Duration::from_millis(40));
        let before = waits.sum();
        assert_eq!((before.ended, before.ended_after, before.waiting), (1, Duration::ZERO, 3));
        assert!(before.waiting_for >= Duration::from_millis(120), "{before:?}");
        assert!(before.average_since(&nobody) >= Duration::from_millis(30), "one of four did not wait");
        assert!(before.average_since(&before) >= Duration::from_millis(40), "it is not over");
        drop(all);
        let after = waits.sum();
        assert_eq!((after.ended, after.waiting, after.waiting_for), (4, 0, Duration::ZERO));
        assert!(after.ended_after >= before.waiting_for, "{after:?}");
        assert_eq!(after.average_since(&after), Duration::ZERO);
    }
}
