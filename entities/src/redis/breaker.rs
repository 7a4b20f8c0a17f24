//! The breaker: after some failures in a row Redis is left alone for a while, then tried with one command at a time.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// The first rest; each one that did not help is followed by one twice as long.
const FIRST_REST: Duration = Duration::from_millis(250);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Decides whether a command is worth sending.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Open: when the next command may try, and how long the present rest is.
    rest: Option<(Instant, Duration)>,
}

impl Breaker {
    pub(super) fn is_closed(&mut self) -> bool {
        self.rest.is_none()
    }

    /// May a command go now? While open, one may each time the rest is over.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        match &mut self.rest {
            None => true,
            Some((until, _)) if now < *until => false,
            Some((until, rest)) => {
                // This one is the probe; nobody follows before it is back, or was given up.
                *until = now + *rest;
                true
            }
        }
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Notes a failure; true when this one opened it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let was_open = self.rest.is_some();
        if self.failures < FAILURES && !was_open {
            return false;
        }
        let rest = self.rest.map_or(FIRST_REST, |(_, rest)| (rest * 2).min(LONGEST_REST));
        // A little more or less, so that instances do not try at the same moment.
        self.rest = Some((now + rest.mul_f64(0.8 + 0.4 * fastrand::f64()), rest));
        !was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_opens_after_five_failures() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..4 {
            assert!(!breaker.failed(now));
            assert!(breaker.admit(now));
        }
        assert!(breaker.failed(now), "the fifth opens it");
        assert!(!breaker.admit(now));
        now += Duration::from_millis(301);
        assert!(breaker.admit(now), "one probe");
        assert!(!breaker.admit(now), "and only one");
        assert!(!breaker.failed(now), "it was open before");
        now += Duration::from_millis(301);
        assert!(!breaker.admit(now), "the second rest is longer");
        now += Duration::from_millis(301);
        assert!(breaker.admit(now));
        breaker.succeeded();
        assert!(breaker.is_closed() && breaker.admit(now) && breaker.admit(now));
    }

    #[test]
    fn a_success_in_between_keeps_it_closed() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..3 {
            for _ in 0..4 {
                breaker.failed(now);
            }
            breaker.succeeded();
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn rests_grow_to_five_seconds() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..30 {
            breaker.failed(now);
        }
        assert!(!breaker.admit(now + Duration::from_secs(3)));
        assert!(breaker.admit(now + Duration::from_secs(7)));
    }
}
