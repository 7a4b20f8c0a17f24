//! The one place where the clock is read. Times are UTC and cut to microseconds, the precision that PostgreSQL
//! stores, so that a value is equal to itself after a round trip through the database.

use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;

/// A point in time, UTC, microseconds.
pub type Time = DateTime<Utc>;

/// The current version.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Time {
    Utc::now().trunc_subsecs(6)
}

/// A stretch of time: `from <= t < to`; an absent end is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct TimeRange {
    /// First moment inside.
    pub from: Option<Time>,
    /// First moment after.
    pub to: Option<Time>,
}
