//! How much clients may register in a day: so many bytes in all, and of them one network an eighth, so that
//! nobody takes all of it. What is not used is saved up to a quarter of a day. Not here: what is registered.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use schema::auth::rate::{Buckets, Rate, SharedBucket};

/// What a registration takes besides its text, where it is kept: names, hashes, pointers.
const OVERHEAD: f64 = 256.0;
const DAY: Duration = Duration::from_hours(24);
/// The share of a day that may be registered at once.
const SAVED: f64 = 0.25;
/// The share of all that one network may register.
const NETWORK: f64 = 0.125;
/// Networks that are remembered.
const MOST_NETWORKS: u64 = 10_000;

/// What may still be registered, in bytes.
pub(super) struct Budget {
    all: SharedBucket,
    networks: Buckets<Option<IpAddr>>,
}

fn daily(bytes: f64) -> Rate {
    Rate { burst: bytes * SAVED, per_second: bytes / DAY.as_secs_f64() }
}

impl Budget {
    pub(super) fn new(daily_bytes: usize, now: Instant) -> Self {
        let bytes = daily_bytes as f64;
        Self {
            all: SharedBucket::full(daily(bytes), now),
            networks: Buckets::new(daily(bytes * NETWORK), MOST_NETWORKS, DAY),
        }
    }

    /// Takes what a text of this length costs, if there is so much left for this network.
    pub(super) fn take(&self, network: Option<IpAddr>, bytes: usize, now: Instant) -> bool {
        let cost = bytes as f64 + OVERHEAD;
        let own = self.networks.of(network, now);
        // Always in this order.
        let mut own = own.lock();
        let mut all = self.all.lock();
        let fits = own.fill(cost, now).is_ok() && all.fill(cost, now).is_ok();
        if fits {
            own.take(cost);
            all.take(cost);
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
