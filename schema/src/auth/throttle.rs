//! How often somebody may try to get in: so many sign-ins a minute from one address and from one network,
//! after some failures for one account from one network ever more slowly, and so many exchanges of one
//! session's refresh tokens. The owner elsewhere is not locked out by that. Counted before anything is
//! hashed, for accounts that do not exist as for those that do. Each instance counts for itself.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use entities::id::SessionId;
use ipnet::IpNet;
use moka::sync::Cache;

use crate::auth::rate::{Buckets, Rate, SharedBucket};

/// Sign-ins and sign-ups from one address (of IPv6: a /64).
const ADDRESS: Rate = Rate { burst: 20.0, per_second: 20.0 / 60.0 };
/// Sign-ins and sign-ups from one network (IPv4 /24, IPv6 /48), which has many addresses of its own to come from.
const NETWORK: Rate = Rate { burst: 100.0, per_second: 100.0 / 60.0 };
/// Exchanges of one session's refresh tokens. More at once than a browser has tabs that wake up together.
const SESSION: Rate = Rate { burst: 40.0, per_second: 1.0 };
/// What an exchange counts that gave the successor which there was already: nothing is written for it.
const REPEATED: f64 = 0.1;
/// Failures that cost nothing.
const FREE_FAILURES: u32 = 5;
/// The delay after the first failure that costs.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay, and how long failures are remembered.
const LONGEST_DELAY: Duration = Duration::from_mins(15);
/// Addresses, networks, sessions, and pairs of account and network, that are remembered.
const REMEMBERED: u64 = 100_000;
/// How long they are remembered: longer than any delay, which must not be forgotten before it is over.
const REMEMBERED_FOR: Duration = Duration::from_secs(2 * LONGEST_DELAY.as_secs());
/// Between two log lines about refused sign-ins: whoever is refused once is refused thousands of times.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// Not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimited {
    /// How long to wait.
    pub(crate) retry_after: Duration,
}

impl From<Duration> for RateLimited {
    fn from(retry_after: Duration) -> Self {
        Self { retry_after }
    }
}

/// The counters.
#[derive(Debug)]
pub(crate) struct Throttle {
    addresses: Buckets<Option<IpAddr>>,
    networks: Buckets<IpAddr>,
    sessions: Buckets<SessionId>,
    failures: Cache<[u8; 32], Arc<Mutex<Failures>>>,
    told: Mutex<Option<Instant>>,
    has_told_of_gateway: AtomicBool,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    /// Nothing is tried before.
    until: Instant,
}

/// One try of a password. It counts as a failure while it is under way, so that many at once do not slip through, and
/// once it has failed. Whatever ended without a verdict (nothing was hashed, nobody is there any more) does not count.
#[derive(Debug)]
#[must_use]
pub(crate) struct Attempt {
    failures: Arc<Mutex<Failures>>,
    /// When the next try was allowed, before this one and since.
    until: (Instant, Instant),
    has_verdict: bool,
}

impl Attempt {
    /// The password was wrong.
    pub(crate) fn failed(mut self) {
        self.has_verdict = true;
    }

    /// The password was right: what failed before is forgotten.
    pub(crate) fn succeeded(mut self) {
        self.has_verdict = true;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        (failures.count, failures.until) = (0, self.until.0);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.has_verdict {
            return;
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count = failures.count.saturating_sub(1);
        if failures.until == self.until.1 {
            failures.until = self.until.0;
        }
    }
}

/// One exchange of a refresh token, which counts in full unless it says otherwise.
#[derive(Debug)]
pub(crate) struct Exchange(SharedBucket);

impl Exchange {
    /// The token was none of this session: who made it up must not slow its owner down.
    pub(crate) fn was_forged(self) {
        self.0.lock().give_back(1.0);
    }

    /// It gave the successor that there was already.
    pub(crate) fn was_repeated(self) {
        self.0.lock().give_back(1.0 - REPEATED);
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            addresses: Buckets::new(ADDRESS, REMEMBERED, REMEMBERED_FOR),
            networks: Buckets::new(NETWORK, REMEMBERED, REMEMBERED_FOR),
            sessions: Buckets::new(SESSION, REMEMBERED, REMEMBERED_FOR),
            failures: Cache::builder().max_capacity(REMEMBERED).time_to_idle(REMEMBERED_FOR).build(),
            told: Mutex::default(),
            has_told_of_gateway: AtomicBool::default(),
        }
    }
}

impl Throttle {
    /// One more try from this address.
    ///
    /// # Errors
    /// `RateLimited` when it, or its network, has none left.
    pub(crate) fn try_from(&self, address: Option<IpAddr>, now: Instant) -> Result<(), RateLimited> {
        let own = self.addresses.of(address.map(block_of_one), now);
        let shared = address.map(|address| self.networks.of(network_of(address), now));
        // Always in this order. A try that one of them refuses costs nothing in the other.
        let mut own = own.lock();
        own.fill(1.0, now)?;
        if let Some(shared) = shared {
            let mut shared = shared.lock();
            shared.fill(1.0, now)?;
            shared.take(1.0);
        }
        own.take(1.0);
        Ok(())
    }

    /// One more try for this account from this address.
    ///
    /// # Errors
    /// `RateLimited` while the delay of the last failure runs.
    pub(crate) fn try_account(
        &self,
        email: &str,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<Attempt, RateLimited> {
        let none = || Arc::new(Mutex::new(Failures { count: 0, until: now }));
        let counted = self.failures.get_with(key(email, address), none);
        let mut failures = counted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failures.until;
        let retry_after = before.saturating_duration_since(now);
        if !retry_after.is_zero() {
            return Err(RateLimited { retry_after });
        }
        failures.count += 1;
        if let Some(doublings) = failures.count.checked_sub(FREE_FAILURES) {
            let delay = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY);
            failures.until = now + delay;
        }
        let until = (before, failures.until);
        drop(failures);
        Ok(Attempt { failures: counted, until, has_verdict: false })
    }

    /// One more exchange of a refresh token that says it is of this session.
    ///
    /// # Errors
    /// `RateLimited` when the session has none left.
    pub(crate) fn try_refresh(&self, session: SessionId, now: Instant) -> Result<Exchange, RateLimited> {
        let bucket = self.sessions.of(session, now);
        {
            let mut bucket = bucket.lock();
            bucket.fill(1.0, now)?;
            bucket.take(1.0);
        }
        Ok(Exchange(bucket))
    }

    /// Whether it is time for another log line about refused sign-ins.
    pub(crate) fn may_tell(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let may = told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY);
        if may {
            *told = Some(now);
        }
        may
    }

    /// Whether it is still to be logged that a gateway brings sign-ins of nobody's address: said once.
    pub(crate) fn may_tell_of_gateway(&self) -> bool {
        !self.has_told_of_gateway.swap(true, Ordering::Relaxed)
    }
}

fn key(email: &str, address: Option<IpAddr>) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    match address.map(network_of) {
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

/// The network that one attacker is likely to have to himself: IPv4 /24, IPv6 /48.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    cut(address, 24, 48)
}

fn cut(address: IpAddr, v4_bits: u8, v6_bits: u8) -> IpAddr {
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { v4_bits } else { v6_bits };
    IpNet::new_assert(address, bits).network()
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
    fn failed_sign_ins_slow_down_one_network_only() {
        let (throttle, mut now) = (Throttle::default(), Instant::now());
        let (attacker, owner) = (address("192.0.2.1"), address("198.51.100.1"));
        let fail = |email, from, now| throttle.try_account(email, from, now).expect("not too often").failed();
        for _ in 0..FREE_FAILURES {
            fail("a@example.com", attacker, now);
        }
        let mut delays = Vec::new();
        for _ in 0..12 {
            let neighbour = address("192.0.2.200");
            let refused = throttle.try_account("a@example.com", neighbour, now).expect_err("too often");
            delays.push(refused.retry_after.as_secs());
            now += refused.retry_after;
            fail("a@example.com", attacker, now);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        fail("a@example.com", owner, now);
        fail("b@example.com", attacker, now);
        now += LONGEST_DELAY;
        throttle.try_account("a@example.com", attacker, now).expect("the delay is over").succeeded();
        for _ in 0..FREE_FAILURES {
            fail("a@example.com", attacker, now);
        }
    }

    #[test]
    fn a_network_has_a_burst_and_a_rate_too() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let tries = |from: &dyn Fn(u32) -> String, at| {
            (0..1_000).filter(|index| throttle.try_from(address(&from(*index)), at).is_ok()).count()
        };
        // One customer of IPv6 has 65,536 blocks of /64.
        let customer = |index| format!("2001:db8:7:{index:x}::1");
        assert_eq!(tries(&customer, start), 100);
        assert_eq!(tries(&customer, start + Duration::from_mins(1)), 100);
        assert_eq!(tries(&|index| format!("2001:db8:8:{index:x}::1"), start), 100, "another network");
        assert_eq!(tries(&|index| format!("192.0.2.{}", index % 250), start), 100);
        // Who is refused for his own sake takes nothing from his network.
        assert_eq!(tries(&|_| "198.51.100.1".to_owned(), start), 20);
        assert_eq!(tries(&|index| format!("198.51.100.{}", 2 + index % 200), start), 80);
    }

    #[test]
    fn a_try_without_a_verdict_does_not_count() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let (email, from) = ("a@example.com", address("192.0.2.1"));
        let attempt = || throttle.try_account(email, from, now);
        for _ in 0..100 {
            drop(attempt().expect("nothing was hashed"));
        }
        // While they are under way they do.
        let under_way: Vec<_> = std::iter::from_fn(|| attempt().ok()).collect();
        assert_eq!(under_way.len(), 5);
        drop(under_way);
        for _ in 0..FREE_FAILURES {
            attempt().expect("nothing has failed yet").failed();
        }
        let refused = attempt().expect_err("too often");
        assert_eq!(refused.retry_after, FIRST_DELAY);
        let later = now + FIRST_DELAY;
        drop(throttle.try_account(email, from, later).expect("the delay is over"));
        throttle.try_account(email, from, later).expect("and was not made longer").failed();
        let refused = throttle.try_account(email, from, later).expect_err("now it is");
        assert_eq!(refused.retry_after, 2 * FIRST_DELAY);
    }

    #[test]
    fn a_session_is_refreshed_in_a_burst_and_then_once_a_second() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let (one, other) = (SessionId::new(), SessionId::new());
        let exchanges = |session, at| (0..500).filter(|_| throttle.try_refresh(session, at).is_ok()).count();
        for _ in 0..1_000 {
            throttle.try_refresh(one, start).expect("made-up tokens cost its owner nothing").was_forged();
        }
        assert_eq!(exchanges(one, start), 40);
        let refused = throttle.try_refresh(one, start).expect_err("nothing is left");
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        assert_eq!(exchanges(one, start + Duration::from_secs(3)), 3);
        let repeated = |at| {
            let tries = 0..500;
            tries.filter_map(|_| throttle.try_refresh(other, at).ok()).map(Exchange::was_repeated).count()
        };
        assert!(repeated(start) > 300, "tabs that ask for the same successor");
    }

    #[test]
    fn a_throttle_is_logged_once_a_minute() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let told = [0, 1, 59, 60, 61].map(|at| throttle.may_tell(start + Duration::from_secs(at)));
        assert_eq!(told, [true, false, false, true, false]);
    }
}
