//! Whether PostgreSQL is there: after some failures in a row nobody waits for it any more, and it is asked in the
//! background until it answers. Not here: how it is asked, and what is lent meanwhile (`pool`).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use prometheus_client::metrics::gauge::Gauge;

/// Failures in a row, with no answer to anybody in between, after which it is away.
const FAILURES: u32 = 3;

/// Decides whether the server is worth asking.
#[derive(Debug)]
pub(super) struct PostgresBreaker {
    failures: AtomicU32,
    is_away: AtomicBool,
    state: Gauge,
    /// The log has a line for each change.
    is_logged: bool,
}

impl PostgresBreaker {
    /// Closed; `state` shows whether it is (0) or not (1), and, for the primary, the log.
    pub(super) fn new(state: Gauge, is_logged: bool) -> Self {
        Self { failures: AtomicU32::new(0), is_away: AtomicBool::new(false), state, is_logged }
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }

    /// The server has answered somebody.
    pub(super) fn succeeded(&self) {
        // Every statement comes by here, and hardly any has something to write.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::AcqRel) {
            self.state.set(0);
            if self.is_logged {
                tracing::info!("PostgreSQL answers again");
            }
        }
    }

    /// The server did not answer, or could not be reached; true when from now on it is away.
    pub(super) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < FAILURES || self.is_away.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.state.set(1);
        if self.is_logged {
            tracing::warn!("PostgreSQL is away; what needs it fails at once until it answers again");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_closes_with_the_first_answer() {
        let breaker = PostgresBreaker::new(Gauge::default(), false);
        for _ in 0..3 {
            assert!(!breaker.failed() && !breaker.failed());
            breaker.succeeded();
        }
        assert!(!breaker.is_away());
        assert!(!breaker.failed() && !breaker.failed() && breaker.failed(), "the third opens it");
        assert!(!breaker.failed(), "told once");
        assert!(breaker.is_away());
        breaker.succeeded();
        assert!(!breaker.is_away() && !breaker.failed());
    }
}
