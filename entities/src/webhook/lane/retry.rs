//! When a delivery that failed is tried again. Not here: what else follows from a failure.

use std::time::Duration;

/// How long a delivery is tried, and a webhook may fail.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(3 * 24);
/// After the first attempt; each further pause is three times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(8);
/// The longest pause that a receiver may ask for.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// How long to wait after so many attempts, from 1, the first of them so long ago: longer each time, up to a
/// fifth more or less, so that what failed at the same moment does not come again at one moment; and not
/// shorter than the receiver has asked for. Attempts count on when a delivery begins anew, the time does not.
pub fn pause_after(attempts: u32, since_first: Duration, asked: Option<Duration>) -> Duration {
    let factor = 3_u32.saturating_pow(attempts.saturating_sub(1).min(12));
    // The pauses before one that is three times the last make half of it, but for half of the first.
    let by_time = since_first.saturating_mul(2).saturating_add(FIRST_PAUSE);
    let pause = FIRST_PAUSE.saturating_mul(factor).min(by_time).min(LONGEST_PAUSE);
    let pause = pause.mul_f64(0.8 + 0.4 * fastrand::f64());
    pause.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_AGO: Duration = Duration::from_hours(24);

    fn near(pause: Duration, seconds: u32) -> bool {
        (0.79..1.21).contains(&(pause.as_secs_f64() / f64::from(seconds)))
    }

    #[test]
    fn pauses_grow_up_to_eight_hours() {
        let mut since = Duration::ZERO;
        for (attempts, seconds) in
            [(1, 5), (2, 15), (3, 45), (4, 135), (5, 405), (6, 1_215), (7, 3_645), (8, 10_935), (9, 28_800)]
        {
            let pause = pause_after(attempts, since, None);
            assert!(near(pause, seconds), "{attempts}: {pause:?}");
            since += Duration::from_secs(u64::from(seconds));
        }
        assert!(near(pause_after(1_000, LONG_AGO, None), 28_800));
        let (hour, year) = (Duration::from_hours(1), Duration::from_hours(365 * 24));
        assert_eq!(pause_after(1, Duration::ZERO, Some(hour)), hour, "the receiver's wish");
        assert_eq!(pause_after(1, Duration::ZERO, Some(year)), LONGEST_ASKED, "within bounds");
        assert!(pause_after(9, LONG_AGO, Some(Duration::ZERO)) > hour, "not sooner than without it");
    }

    #[test]
    fn what_begins_anew_begins_with_short_pauses() {
        assert!(near(pause_after(12, Duration::ZERO, None), 5), "attempts before do not count");
        assert!(near(pause_after(2, LONG_AGO, None), 15), "nor does time in which nothing was tried");
    }
}
