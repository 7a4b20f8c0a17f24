//! How much clients may register in a day: so many bytes in all, and of them one network an eighth, so that nobody takes
//! all of it. What is not used is saved up to a quarter of a day. Not here: what is registered.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use moka::sync::Cache;

/// What a registration takes besides its text, where it is kept: names, hashes, pointers.
const OVERHEAD: f64 = 256.0;
const DAY: Duration = Duration::from_hours(24);
/// The share of a day that may be registered at once.
const SAVED: f64 = 0.25;
/// The share of all that one network may register.
const NETWORK: f64 = 0.125;
/// Networks that are remembered.
const MOST_NETWORKS: u64 = 10_000;

/// What may still be registered.
pub(super) struct Budget {
    daily: f64,
    all: Mutex<Bucket>,
    networks: Cache<Option<IpAddr>, Arc<Mutex<Bucket>>>,
}

struct Bucket {
    left: f64,
    filled_at: Instant,
}

impl Bucket {
    fn full(daily: f64, now: Instant) -> Self {
        Self { left: daily * SAVED, filled_at: now }
    }

    /// What is left now.
    fn fill(&mut self, daily: f64, now: Instant) -> f64 {
        let days = now.saturating_duration_since(self.filled_at).as_secs_f64() / DAY.as_secs_f64();
        self.left = (self.left + days * daily).min(daily * SAVED);
        self.filled_at = self.filled_at.max(now);
        self.left
    }
}

impl Budget {
    pub(super) fn new(daily_bytes: usize, now: Instant) -> Self {
        let daily = daily_bytes as f64;
        let networks = Cache::builder().max_capacity(MOST_NETWORKS).time_to_idle(DAY).build();
        Self { daily, all: Mutex::new(Bucket::full(daily, now)), networks }
    }

    /// Takes what a text of this length costs, if there is so much left for this network.
    pub(super) fn take(&self, network: Option<IpAddr>, bytes: usize, now: Instant) -> bool {
        let (cost, share) = (bytes as f64 + OVERHEAD, self.daily * NETWORK);
        let own = self.networks.get_with(network, || Arc::new(Mutex::new(Bucket::full(share, now))));
        // Always in this order.
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = own.fill(share, now) >= cost && all.fill(self.daily, now) >= cost;
        if fits {
            own.left -= cost;
            all.left -= cost;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_share_and_all_have_a_bound() {
        let start = Instant::now();
        let budget = Budget::new(8 << 20, start);
        let taken = |network: u8, at: Duration| {
            let network = Some(IpAddr::from([10, 0, network, 0]));
            (0..10_000).filter(|_| budget.take(network, 1024 - 256, start + at)).count()
        };
        // A quarter of a day's 8,192 for all, an eighth of that for each.
        assert_eq!(taken(1, Duration::ZERO), 256);
        let others: usize = (2..=20).map(|network| taken(network, Duration::ZERO)).sum();
        assert_eq!(others, 2_048 - 256);
        assert_eq!(taken(21, Duration::ZERO), 0, "nothing is left for anybody");
        assert_eq!(taken(1, DAY / 24), 42, "an hour later: 1,024 a day for one");
        assert_eq!(taken(1, DAY * 9), 256, "no more is saved up");
    }
}
