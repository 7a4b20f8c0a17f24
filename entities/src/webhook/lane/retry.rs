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

/// How long to wait after so many attempts, from 1: longer each time, up to a fifth more or less, so that what failed at the same moment
/// does not come again at one moment; and not shorter than the receiver has asked for.
pub fn pause_after(attempts: u32, asked: Option<Duration>) -> Duration {
    let factor = 3_u32.saturating_pow(attempts.saturating_sub(1).min(12));
    let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
    let pause = pause.mul_f64(0.8 + 0.4 * fastrand::f64());
    pause.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_eight_hours() {
        for (attempts, seconds) in
            [(1, 5), (2, 15), (3, 45), (5, 405), (8, 10_935), (9, 28_800), (1_000, 28_800)]
        {
            let pause = pause_after(attempts, None).as_secs_f64() / f64::from(seconds);
            assert!((0.79..1.21).contains(&pause), "{attempts}: {pause}");
        }
        let (hour, year) = (Duration::from_hours(1), Duration::from_hours(365 * 24));
        assert_eq!(pause_after(1, Some(hour)), hour, "the receiver's wish");
        assert_eq!(pause_after(1, Some(year)), LONGEST_ASKED, "within bounds");
        assert!(pause_after(9, Some(Duration::ZERO)) > hour, "not sooner than without it");
    }
}
