//! How often passwords may be tried: so many a minute from one address, and after some failures for one account from
//! one network ever more slowly. The owner elsewhere is not locked out by that. Counted before anything is hashed, for
//! accounts that do not exist as for those that do. Each node counts for itself.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use moka::sync::Cache;

/// Sign-ins and sign-ups that an address may send at once.
const BURST: f64 = 20.0;
/// How many more it may send each second.
const PER_SECOND: f64 = 20.0 / 60.0;
/// Failures that cost nothing.
const FREE_FAILURES: u32 = 5;
/// The delay after the first failure that costs.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay, and how long failures are remembered.
const LONGEST_DELAY: Duration = Duration::from_mins(15);
/// Addresses, and pairs of account and network, that are remembered.
const REMEMBERED: u64 = 100_000;

/// Not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOften {
    /// How long to wait.
    pub(crate) retry_after: Duration,
}

/// The counters.
#[derive(Debug)]
pub(crate) struct Throttle {
    addresses: Cache<Option<IpAddr>, Arc<Mutex<Bucket>>>,
    failures: Cache<[u8; 32], Arc<Mutex<Failures>>>,
}

/// What an address has left.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    /// Nothing is tried before.
    until: Instant,
}

impl Default for Throttle {
    fn default() -> Self {
        // Longer than any delay, which must not be forgotten before it is over.
        let idle = 2 * LONGEST_DELAY;
        Self {
            addresses: Cache::builder().max_capacity(REMEMBERED).time_to_idle(idle).build(),
            failures: Cache::builder().max_capacity(REMEMBERED).time_to_idle(idle).build(),
        }
    }
}

impl Throttle {
    /// One more try from this address.
    ///
    /// # Errors
    /// `TooOften` when it has none left.
    pub(crate) fn try_from(&self, address: Option<IpAddr>, now: Instant) -> Result<(), TooOften> {
        let full = || Arc::new(Mutex::new(Bucket { tokens: BURST, filled_at: now }));
        let bucket = self.addresses.get_with(address.map(block_of_one), full);
        let mut bucket = bucket.lock().expect("no panic happens under this lock");
        let since = now.saturating_duration_since(bucket.filled_at).as_secs_f64();
        bucket.tokens = (bucket.tokens + since * PER_SECOND).min(BURST);
        bucket.filled_at = now;
        if bucket.tokens < 1.0 {
            return Err(TooOften {
                retry_after: Duration::from_secs_f64((1.0 - bucket.tokens) / PER_SECOND),
            });
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// One more try for this account from this address. Counts as a failure until `succeeded` says otherwise, so that
    /// many at once do not slip through.
    ///
    /// # Errors
    /// `TooOften` while the delay of the last failure runs.
    pub(crate) fn try_account(
        &self,
        email: &str,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), TooOften> {
        let none = || Arc::new(Mutex::new(Failures { count: 0, until: now }));
        let failures = self.failures.get_with(key(email, address), none);
        let mut failures = failures.lock().expect("no panic happens under this lock");
        let retry_after = failures.until.saturating_duration_since(now);
        if !retry_after.is_zero() {
            return Err(TooOften { retry_after });
        }
        failures.count += 1;
        if let Some(doublings) = failures.count.checked_sub(FREE_FAILURES) {
            let delay = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY);
            failures.until = now + delay;
        }
        Ok(())
    }

    /// The password was right: what failed before is forgotten.
    pub(crate) fn succeeded(&self, email: &str, address: Option<IpAddr>) {
        self.failures.invalidate(&key(email, address));
    }
}

fn key(email: &str, address: Option<IpAddr>) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    match address.map(network) {
        Some(IpAddr::V4(address)) => hash.update(&address.octets()),
        Some(IpAddr::V6(address)) => hash.update(&address.octets()),
        None => &mut hash,
    };
    hash.update(b"@").update(email.as_bytes());
    *hash.finalize().as_bytes()
}

/// The address; of IPv6 the /64, which is what one customer is given at least.
pub(crate) fn block_of_one(address: IpAddr) -> IpAddr {
    cut(address, 32, 64)
}

/// The network that one attacker is likely to have to himself.
fn network(address: IpAddr) -> IpAddr {
    cut(address, 24, 48)
}

fn cut(address: IpAddr, v4_bits: u32, v6_bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - v4_bits))).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - v6_bits))).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the throttle takes it")]
    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_has_a_burst_and_then_twenty_a_minute() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let tries = |at, from| (0..100).filter(|_| throttle.try_from(from, at).is_ok()).count();
        assert_eq!(tries(start, one), 20);
        let refused = throttle.try_from(one, start).expect_err("nothing is left");
        assert_eq!(refused.retry_after, Duration::from_secs(3));
        assert_eq!(tries(start, other), 20, "another address has its own");
        assert_eq!(tries(start + Duration::from_secs(31), one), 10);
        assert_eq!(tries(start + Duration::from_hours(1), one), 20, "what is not used is not saved up");
        // One customer of IPv6 has a whole /64.
        assert_eq!(tries(start, address("2001:db8::1")), 20);
        assert_eq!(tries(start, address("2001:db8::2")), 0);
        assert_eq!(tries(start, address("2001:db8:0:1::2")), 20);
        assert_eq!(tries(start, address("::ffff:192.0.2.2")), 0, "an IPv4 address has one form");
        assert_eq!(tries(start, None), 20);
    }

    #[test]
    fn failures_for_an_account_get_slower_and_slower_from_one_network_only() {
        let (throttle, mut now) = (Throttle::default(), Instant::now());
        let (attacker, owner) = (address("192.0.2.1"), address("198.51.100.1"));
        for _ in 0..FREE_FAILURES {
            assert!(throttle.try_account("a@example.com", attacker, now).is_ok());
        }
        let mut delays = Vec::new();
        for _ in 0..12 {
            let neighbour = address("192.0.2.200");
            let refused = throttle.try_account("a@example.com", neighbour, now).expect_err("too often");
            delays.push(refused.retry_after.as_secs());
            now += refused.retry_after;
            assert!(throttle.try_account("a@example.com", attacker, now).is_ok());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        assert!(throttle.try_account("a@example.com", owner, now).is_ok(), "the owner is elsewhere");
        assert!(throttle.try_account("b@example.com", attacker, now).is_ok());
        throttle.succeeded("a@example.com", attacker);
        assert!(throttle.try_account("a@example.com", attacker, now).is_ok());
    }
}
