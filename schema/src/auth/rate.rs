//! So many at once and then so many a second: token buckets, one for each caller, address, network or
//! session, in a table of bounded size. The server's requests (`http.rate_per_second`), sign-ins, exchanges
//! of refresh tokens and registered documents are counted with them. Not here: what is counted and how much
//! of it is allowed.
//!
//! Not the crate governor: some of what is taken here is given back (an exchange with a forged token), some
//! is taken from two buckets or from none, an array of requests may leave a debt, and the table must not grow
//! with the callers.

use std::{
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moka::sync::Cache;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens that may be taken at once.
    pub burst: f64,
    /// Tokens that come back in a second.
    pub per_second: f64,
}

/// What is left of a rate.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    /// Negative: a debt.
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A bucket from which nothing was taken yet.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: rate.burst, filled_at: now }
    }

    /// Puts in what has come back since the last time.
    ///
    /// # Errors
    /// How long to wait, if there are fewer tokens than this now.
    pub fn fill(&mut self, tokens: f64, now: Instant) -> Result<(), Duration> {
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate.per_second).min(self.rate.burst);
        self.filled_at = self.filled_at.max(now);
        if self.tokens >= tokens {
            return Ok(());
        }
        let wait = (tokens - self.tokens) / self.rate.per_second;
        Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }

    /// Takes tokens, also those that are not there.
    pub fn take(&mut self, tokens: f64) {
        self.tokens -= tokens;
    }

    /// Gives back tokens that were taken.
    pub fn give_back(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.rate.burst);
    }
}

/// A bucket that several may hold.
#[derive(Clone, Debug)]
pub struct SharedBucket(Arc<Mutex<Bucket>>);

impl SharedBucket {
    /// A bucket from which nothing was taken yet.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Bucket::full(rate, now))))
    }

    /// The bucket, for this thread alone while it is held.
    pub fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The buckets of many. Those that are forgotten, because they are too many or nobody asked for them, begin full again.
#[derive(Debug)]
pub struct Buckets<K: Hash + Eq + Send + Sync + 'static> {
    rate: Rate,
    buckets: Cache<K, SharedBucket>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    /// Buckets of this rate for so many at most, each remembered for so long after it was last asked for.
    pub fn new(rate: Rate, most: u64, idle: Duration) -> Self {
        Self { rate, buckets: Cache::builder().max_capacity(most).time_to_idle(idle).build() }
    }

    /// The bucket of one of them.
    pub fn of(&self, key: K, now: Instant) -> SharedBucket {
        self.buckets.get_with(key, || SharedBucket::full(self.rate, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3.0, per_second: 10.0 };
    const TENTH: Duration = Duration::from_millis(100);

    #[test]
    fn a_bucket_has_a_burst_and_then_its_rate() {
        let (buckets, start) = (Buckets::new(RATE, 10, TENTH * 100), Instant::now());
        let take = |key: u32, at: u32, tokens: f64| {
            let bucket = buckets.of(key, start);
            let mut bucket = bucket.lock();
            bucket.fill(1.0, start + TENTH * at).map(|()| bucket.take(tokens))
        };
        assert_eq!([0; 4].map(|at| take(1, at, 1.0)), [Ok(()), Ok(()), Ok(()), Err(TENTH)]);
        assert_eq!(take(2, 0, 1.0), Ok(()), "another key");
        assert_eq!([1, 1, 2, 2].map(|at| take(1, at, 1.0).is_ok()), [true, false, true, false]);
        assert_eq!([100; 4].map(|at| take(1, at, 1.0).is_ok()), [true, true, true, false], "not saved up");
        assert_eq!(take(3, 0, 5.0), Ok(()), "what is not there makes a debt");
        assert_eq!([take(3, 2, 1.0), take(3, 3, 1.0)], [Err(TENTH), Ok(())]);
        assert!(take(3, 0, 1.0).is_err(), "a clock that went back brings nothing");
    }

    #[test]
    fn returned_tokens_never_exceed_the_burst() {
        let now = Instant::now();
        let mut bucket = Bucket::full(RATE, now);
        bucket.take(1.0);
        bucket.give_back(0.5);
        assert_eq!((bucket.fill(2.5, now), bucket.fill(2.75, now)), (Ok(()), Err(TENTH / 4)));
        bucket.give_back(9.0);
        assert_eq!((bucket.fill(3.0, now), bucket.fill(4.0, now)), (Ok(()), Err(TENTH)));
    }
}
