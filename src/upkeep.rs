//! What a running server does for its database beside the requests, once a day and each time a month begins:
//! it makes the partitions of the months to come, and removes what is older than it may be. Several servers
//! do it one at a time; each looks at how the tables stand, for its metrics. Not here: how a partition is
//! made (`migration`), what is removed and how (`entities::retention`).

mod figures;

use std::time::{Duration, Instant};

use chrono::{Datelike as _, TimeDelta};
use entities::{
    Store,
    clock::{self, Time},
    retention::{RetentionTimes, remove_old},
};

use figures::RunOutcome;
pub use figures::TableFigures;

/// Between two looks at the clock, which may have been set.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at the tables.
const MEASURE: Duration = Duration::from_mins(10);
/// From one time to the next.
const DAY: TimeDelta = TimeDelta::days(1);
/// Where another process is at it, or changes the schema now.
const BUSY: TimeDelta = TimeDelta::seconds(10);
/// After a failure.
const FAILED: TimeDelta = TimeDelta::minutes(5);

/// What is kept up, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Upkeep {
    /// Months after this one whose partitions are there.
    pub months_ahead: u32,
    /// How long things are kept.
    pub retention: RetentionTimes,
}

impl Upkeep {
    /// Keeps it up for as long as it is polled.
    pub async fn run(self, store: Store, figures: TableFigures) {
        let (mut schedule, mut measured) = (Schedule::default(), None::<Instant>);
        loop {
            tokio::time::sleep(LOOK).await;
            let now = clock::now();
            if schedule.is_due(now) {
                let made = self.make_partitions(&store, now).await;
                figures.ran("partitions", made);
                let removed = self.remove_old(&store, now, &figures).await;
                figures.ran("retention", removed);
                schedule.again_after(now, pause_after(made).min(pause_after(removed)));
                measured = None;
            }
            if measured.is_none_or(|at| at.elapsed() >= MEASURE) && !store.database().is_away() {
                figures.measure(&store, now).await;
                measured = Some(Instant::now());
            }
        }
    }

    /// Makes what is missing.
    async fn make_partitions(self, store: &Store, now: Time) -> RunOutcome {
        match migration::try_ensure_partitions(store.connection(), now, self.months_ahead).await {
            Ok(Some(made)) => {
                if made > 0 {
                    tracing::info!(made, "partitions of further months were made");
                }
                RunOutcome::Done
            }
            Ok(None) => RunOutcome::Busy,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "partitions of further months could not be made; it is tried again. Where this \
                     account may not, `xp migrate up` by the tables' owner makes them"
                );
                RunOutcome::Failed
            }
        }
    }

    /// Removes what is too old.
    async fn remove_old(self, store: &Store, now: Time, figures: &TableFigures) -> RunOutcome {
        match remove_old(store, &self.retention, now, migration::LOCK).await {
            Ok(Some(removed)) => {
                figures.removed(removed.rows);
                if !removed.is_empty() {
                    tracing::info!(
                        months = removed.months,
                        rows = removed.rows,
                        "what was too old was removed"
                    );
                }
                RunOutcome::Done
            }
            Ok(None) => RunOutcome::Busy,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what is too old could not be removed; it is tried again"
                );
                RunOutcome::Failed
            }
        }
    }
}

/// When to look again.
fn pause_after(outcome: RunOutcome) -> TimeDelta {
    match outcome {
        RunOutcome::Done => DAY,
        RunOutcome::Busy => BUSY,
        RunOutcome::Failed => FAILED,
    }
}

/// When it is time, by a clock that may jump.
#[derive(Debug, Default)]
struct Schedule(Option<(Time, Time)>);

impl Schedule {
    /// The time has come, a month has begun, or the clock was set back.
    fn is_due(&self, now: Time) -> bool {
        self.0.is_none_or(|(last, next)| now >= next || now < last || now.month0() != last.month0())
    }

    fn again_after(&mut self, now: Time, pause: TimeDelta) {
        self.0 = Some((now, now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_once_a_day_and_when_a_month_begins() {
        let at = |text: &str| text.parse::<Time>().expect("a time");
        let mut schedule = Schedule::default();
        let noon = at("2026-11-29T12:00:00Z");
        assert!(schedule.is_due(noon), "soon after the start");
        schedule.again_after(noon, DAY);
        assert!(!schedule.is_due(at("2026-11-30T11:59:59Z")));
        assert!(schedule.is_due(at("2026-11-30T12:00:00Z")));
        schedule.again_after(at("2026-11-30T12:00:00Z"), DAY);
        assert!(!schedule.is_due(at("2026-11-30T23:59:59Z")));
        assert!(schedule.is_due(at("2026-12-01T00:00:00Z")), "a month begins");
        assert!(schedule.is_due(at("2026-11-30T11:00:00Z")), "the clock was set back");
        schedule.again_after(noon, BUSY);
        assert!(schedule.is_due(noon + BUSY), "it was another one's turn");
    }
}
