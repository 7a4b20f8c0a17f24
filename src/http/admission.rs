//! Who may come in now: so many requests at once in all, with so much memory for what they say and for their
//! answers, and so many a second from each account or address. Decided before a request is read further than
//! its headers and bytes. Not here: how memory is shared (`memory`), how large a request may be.
//!
//! Permits are shared as follows, so that a caller who takes all they can get keeps nobody else out. `share` is
//! `http.address_share` of `http.max_concurrent_requests`, one at least.
//!
//! | who is worked for | of all | of one address | of one account |
//! |---|---|---|---|
//! | a caller without a token | 3/4 | 1 share | – |
//! | a signed-in caller, or a gateway | 4/4 | 1 1/2 shares | 1 share |
//!
//! An address has 2 shares in all: its signed-in callers, however many there are, leave half a share for the
//! others there, who leave a share for them.
//!
//! Under load there are fewer permits (`adaptive`). Then they are divided equally among the accounts, or the
//! addresses, that have some, and who has none may have the first one beyond the limit, up to a quarter more:
//! who asks little is served however much others ask. Operations with priority, such as refreshing a session,
//! have the configured number for themselves.

mod adaptive;

use std::{
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use entities::{database::ConnectionWaits, id::UserId};
use prometheus_client::registry::Registry;
use schema::{
    Viewer,
    auth::rate::{Buckets, Rate},
};

use super::{
    memory::{MemoryPool, MemoryReservation, OutOfMemory},
    shares::{Owner, ShareLimits, Shares},
};
use adaptive::AdaptiveLimit;

use crate::{
    config::{HttpConfig, setting::Bytes},
    rejection::Rejection,
};

pub(super) const OVERLOADED: Rejection = Rejection::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "OVERLOADED",
    "The server has too much to do; try again in a moment.",
);
const RATE_LIMITED: Rejection = Rejection::new(
    StatusCode::TOO_MANY_REQUESTS,
    "RATE_LIMITED",
    "Too many requests; try again in a moment.",
);
/// What a request takes about, beside its body, while it is received: its head, and the tasks of the layers
/// around it. A test holds that these are no larger.
pub(super) const REQUEST_BYTES: usize = 8 << 10;
/// Callers whose rate is remembered; whoever is forgotten may begin anew.
const MAX_CALLERS: u64 = 100_000;
/// After a refusal, others are looked at early for so long.
const A_MOMENT: Duration = Duration::from_millis(200);

/// Decides who may come in.
pub(crate) struct Admission {
    requests: Arc<ConcurrencyLimit>,
    bodies: MemoryPool,
    answers: MemoryPool,
    rates: RwLock<Option<Buckets<RateKey>>>,
}

/// The requests that may be worked on at once.
struct ConcurrencyLimit {
    most: usize,
    share: usize,
    limit: AdaptiveLimit,
    taken: Shares,
    with_priority: Shares,
    /// How many hold a permit, and how many did at once at most since somebody asked.
    held: AtomicUsize,
    busiest: AtomicUsize,
    /// When somebody was refused last, in milliseconds after `began`, plus one; 0: never.
    refused: AtomicU64,
    began: Instant,
}

/// Leave to be one of the requests that are worked on, until it is dropped.
pub(super) struct Permit {
    requests: Arc<ConcurrencyLimit>,
    owner: Owner,
    has_priority: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum RateKey {
    Account(UserId),
    Address(Option<IpAddr>),
}

impl Admission {
    pub(crate) fn new(http: &HttpConfig) -> Self {
        let requests = Arc::new(ConcurrencyLimit::new(http));
        let pool = |limit: Bytes| MemoryPool::new(limit.0, http.address_share.0);
        let (bodies, answers) = (pool(http.max_body_memory), pool(http.max_answer_memory));
        Self { requests, bodies, answers, rates: RwLock::new(rates(http)) }
    }

    /// Other rates from now on; everybody begins anew.
    pub(crate) fn set_rates(&self, http: &HttpConfig) {
        *self.rates.write().unwrap_or_else(PoisonError::into_inner) = rates(http);
    }

    /// Memory for the body of a request (`http.max_body_memory`), of which what every request takes is held already.
    pub(super) fn request_memory(&self, owner: Owner) -> Result<MemoryReservation, OutOfMemory> {
        let mut memory = self.bodies.reserve(owner);
        memory.grow_beside(REQUEST_BYTES)?;
        Ok(memory)
    }

    /// Memory for what a caller sends (`http.max_body_memory`), nothing of it held yet.
    pub(super) fn body_memory(&self, owner: Owner) -> MemoryReservation {
        self.bodies.reserve(owner)
    }

    /// Refuses a caller who leaves so many answers to be sent that there is hardly memory for another one.
    pub(super) fn check_answers(&self, owner: &Owner) -> Result<(), Rejection> {
        if self.answers.is_exhausted(owner) { Err(OVERLOADED) } else { Ok(()) }
    }

    /// Memory for what a caller is sent (`http.max_answer_memory`), nothing of it held yet.
    pub(super) fn answer_memory(&self, owner: Owner) -> MemoryReservation {
        self.answers.reserve(owner)
    }

    /// Memory that is held for what is received, and for what is sent; bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> [usize; 2] {
        [self.bodies.held(), self.answers.held()]
    }

    /// Counts `requests` of a caller against their rate.
    pub(super) fn check_rate(
        &self,
        viewer: &Viewer,
        sent: &schema::Caller,
        requests: u32,
    ) -> Result<(), Rejection> {
        let asking = match viewer {
            Viewer::Service => return Ok(()),
            Viewer::User { id, .. } => RateKey::Account(*id),
            // Gateways ask for everybody.
            Viewer::Anonymous if sent.is_gateway => return Ok(()),
            Viewer::Anonymous => RateKey::Address(sent.customer()),
        };
        if self.takes(asking, Instant::now(), requests) { Ok(()) } else { Err(RATE_LIMITED) }
    }

    /// Counts requests of a caller, of whom one must fit: an array may leave a debt.
    fn takes(&self, caller: RateKey, now: Instant, requests: u32) -> bool {
        let rates = self.rates.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rates) = &*rates else { return true };
        let bucket = rates.of(caller, now);
        let mut bucket = bucket.lock();
        let fits = bucket.fill(1.0, now).is_ok();
        if fits {
            bucket.take(requests.into());
        }
        fits
    }

    /// Leave to be worked on, if not too many are, in all and of this owner's.
    pub(super) fn acquire(&self, owner: Owner) -> Result<Permit, Rejection> {
        self.acquire_from(owner, false)
    }

    /// Leave for an operation with priority.
    pub(super) fn acquire_with_priority(&self, owner: Owner) -> Result<Permit, Rejection> {
        self.acquire_from(owner, true)
    }

    fn acquire_from(&self, owner: Owner, has_priority: bool) -> Result<Permit, Rejection> {
        let requests = Arc::clone(&self.requests);
        if requests.take(&owner, has_priority) {
            Ok(Permit { requests, owner, has_priority })
        } else {
            requests.note_refusal();
            Err(OVERLOADED)
        }
    }

    /// Whether some are refused, now or a moment ago: all of them, or those who ask too much. Costs next to nothing.
    pub(super) fn is_under_load(&self) -> bool {
        let requests = &self.requests;
        requests.limit.get() < requests.most || requests.has_refused()
    }

    /// How many may be worked on at once now.
    pub(super) fn limit(&self) -> usize {
        self.requests.limit.get()
    }

    /// As under load, with so many permits.
    #[cfg(test)]
    pub(super) fn lower_to(&self, limit: usize) {
        self.requests.limit.lower_to(limit);
    }

    /// Whether this owner would be refused now.
    pub(super) fn refuses(&self, owner: &Owner) -> bool {
        let refuses = !self.requests.fits(owner);
        if refuses {
            self.requests.note_refusal();
        }
        refuses
    }

    /// Lets the number of those that are worked on at once follow the load, for ever.
    pub(super) async fn follow_load(&self, connections: &ConnectionWaits) {
        let requests = &self.requests;
        let busiest = || {
            let held = requests.held.load(Ordering::Relaxed);
            requests.busiest.swap(held, Ordering::Relaxed).max(held)
        };
        requests.limit.run(connections, busiest).await;
    }

    /// Shows how many may be worked on at once.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.requests.limit.register(registry);
    }
}

/// What each caller has a second, where that is limited.
fn rates(http: &HttpConfig) -> Option<Buckets<RateKey>> {
    http.rate_per_second.map(|per_second| {
        let rate = Rate { burst: http.rate_burst.into(), per_second: per_second.into() };
        let until_full = Duration::from_secs(1) / per_second * http.rate_burst;
        Buckets::new(rate, MAX_CALLERS, until_full + Duration::from_secs(1))
    })
}

impl ConcurrencyLimit {
    fn new(http: &HttpConfig) -> Self {
        let most = http.max_concurrent_requests;
        let share = (most as u128 * u128::from(http.address_share.0.min(100)) / 100) as usize;
        Self {
            most,
            share: share.max(1),
            limit: AdaptiveLimit::new(most, http.target_wait),
            taken: Shares::default(),
            with_priority: Shares::default(),
            held: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    fn note_refusal(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.refused.store(now.saturating_add(1), Ordering::Relaxed);
    }

    fn has_refused(&self) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        refused > 0 && self.began.elapsed() < Duration::from_millis(refused) + A_MOMENT
    }

    fn take(&self, owner: &Owner, has_priority: bool) -> bool {
        let is_taken = if has_priority {
            // Half of it, for one who asks alone: others always find some.
            self.with_priority.take_fairly(owner, self.most.div_ceil(2), self.limits(owner))
        } else {
            match self.limit_under_load() {
                Some(all) => self.taken.take_fairly(owner, all, self.limits(owner)),
                None => self.taken.take(owner, 1, self.limits(owner)),
            }
        };
        if is_taken {
            let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
            self.busiest.fetch_max(held, Ordering::Relaxed);
        }
        is_taken
    }

    fn fits(&self, owner: &Owner) -> bool {
        match self.limit_under_load() {
            Some(all) => self.taken.fits_fairly(owner, all, self.limits(owner)),
            None => self.taken.fits(owner, 1, self.limits(owner)),
        }
    }

    /// How many there are for everybody, where that is fewer than is configured.
    fn limit_under_load(&self) -> Option<usize> {
        Some(self.limit.get()).filter(|limit| *limit < self.most)
    }

    /// Of all permits that are configured.
    fn limits(&self, owner: &Owner) -> ShareLimits {
        let address = self.share.saturating_mul(2);
        if owner.is_known() {
            ShareLimits::new(self.most, (address, address - self.share / 2), self.share)
        } else {
            ShareLimits::new(self.most - self.most / 4, (address, self.share), self.share)
        }
    }

    fn give_back(&self, owner: &Owner, has_priority: bool) {
        let shares = if has_priority { &self.with_priority } else { &self.taken };
        shares.give_back(owner, 1);
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permit {
    /// Whether it was given for priority.
    pub(super) fn has_priority(&self) -> bool {
        self.has_priority
    }

    /// Gives the priority up for an ordinary permit, if there is one.
    pub(super) fn without_priority(self) -> Result<Self, Rejection> {
        if !self.requests.take(&self.owner, false) {
            return Err(OVERLOADED);
        }
        let (requests, owner) = (Arc::clone(&self.requests), self.owner.clone());
        Ok(Self { requests, owner, has_priority: false })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.requests.give_back(&self.owner, self.has_priority);
    }
}

impl From<OutOfMemory> for Rejection {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        OVERLOADED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Owner {
        Owner { address: Some(IpAddr::from([192, 0, 2, last])), ..Owner::default() }
    }

    fn account(last: u8) -> Owner {
        Owner { account: Some(UserId::from(entities::id::new())), ..address(last) }
    }

    /// Leave for as many requests as this owner gets.
    fn enter_all(admission: &Admission, owner: &Owner) -> Vec<Permit> {
        std::iter::from_fn(|| admission.acquire(owner.clone()).ok()).collect()
    }

    #[test]
    fn one_caller_cannot_take_all_permits() {
        let mut http = crate::config::Config::default().http;
        http.max_concurrent_requests = 16;
        let admission = Admission::new(&http);
        let (ann, bob) = (account(1), account(1));
        let of_ann = enter_all(&admission, &ann);
        let elsewhere = Owner { account: ann.account, ..address(9) };
        assert_eq!((of_ann.len(), enter_all(&admission, &elsewhere).len()), (4, 0), "one share of a quarter");
        let of_bob = enter_all(&admission, &bob);
        assert_eq!(of_bob.len(), 2, "another account");
        assert_eq!(enter_all(&admission, &account(1)).len(), 0, "a share and a half for all accounts there");
        let beside_them = enter_all(&admission, &address(1));
        assert_eq!(beside_them.len(), 2, "their address has two shares");
        let anonymous: Vec<_> = (2..9).map(|last| enter_all(&admission, &address(last))).collect();
        assert_eq!(
            anonymous.iter().map(Vec::len).collect::<Vec<_>>(),
            [4, 0, 0, 0, 0, 0, 0],
            "three quarters"
        );
        let of_another = enter_all(&admission, &account(10));
        assert_eq!(of_another.len(), 4, "the last quarter");
        let gateway = Owner { is_gateway: true, ..Owner::default() };
        assert_eq!(enter_all(&admission, &gateway).len(), 0);
        drop((of_ann, of_bob, beside_them, anonymous, of_another));
        assert_eq!(enter_all(&admission, &gateway).len(), 16, "given back");
        assert_eq!((admission.requests.taken.total(), admission.requests.taken.owners()), (0, 0));
    }

    /// Behind one address (NAT), with and without a token.
    #[test]
    fn accounts_and_strangers_of_one_address_keep_each_other_a_place() {
        let mut http = crate::config::Config::default().http;
        (http.max_concurrent_requests, http.address_share.0) = (64, 25);
        for limit in [64, 32] {
            let admission = Admission::new(&http);
            admission.lower_to(limit);
            let accounts: Vec<_> = (0..8).flat_map(|_| enter_all(&admission, &account(1))).collect();
            let strangers = enter_all(&admission, &address(1));
            let got = (accounts.len(), strangers.len());
            assert_eq!(got, (24, 8), "the strangers come last, of {limit}");
            drop((accounts, strangers));
            let strangers = enter_all(&admission, &address(1));
            let accounts: Vec<_> = (0..8).flat_map(|_| enter_all(&admission, &account(1))).collect();
            let got = (strangers.len(), accounts.len());
            assert_eq!(got, (16, 16), "the accounts come last, of {limit}");
            drop((accounts, strangers));
            assert_eq!(admission.requests.taken.owners(), 0);
        }
    }

    #[test]
    fn there_is_a_place_where_there_are_few() {
        let mut http = crate::config::Config::default().http;
        http.max_concurrent_requests = 1;
        let admission = Admission::new(&http);
        for owner in [address(1), account(1), Owner::default()] {
            assert_eq!(enter_all(&admission, &owner).len(), 1);
        }
    }

    #[test]
    fn under_load_all_get_the_same_and_priority_is_apart() {
        let mut http = crate::config::Config::default().http;
        (http.max_concurrent_requests, http.address_share.0) = (16, 50);
        let admission = Admission::new(&http);
        admission.lower_to(8);
        let (ann, bob) = (account(1), account(2));
        let mut busy = [enter_all(&admission, &ann), enter_all(&admission, &bob)];
        assert_eq!(busy.each_ref().map(Vec::len), [8, 1], "all eight, and the first one of another");
        assert!(admission.is_under_load() && admission.refuses(&ann));
        busy[0].truncate(3);
        busy[1].extend(enter_all(&admission, &bob));
        busy[0].extend(enter_all(&admission, &ann));
        assert_eq!(busy.each_ref().map(Vec::len), [4, 4], "half each");
        let others = [account(3), account(4), account(5), address(6)];
        let first = others.map(|owner| (admission.refuses(&owner), enter_all(&admission, &owner)));
        let got = first.each_ref().map(|(refused, got)| (*refused, got.len()));
        assert_eq!(got, [(false, 1), (false, 1), (true, 0), (true, 0)], "one each, a quarter more in all");
        let refreshing: Vec<_> =
            std::iter::from_fn(|| admission.acquire_with_priority(ann.clone()).ok()).collect();
        assert_eq!(refreshing.len(), 8, "half of sixteen");
        let converted = refreshing.into_iter().map(Permit::without_priority);
        assert!(converted.into_iter().all(|permit| permit.is_err()), "no way around the limit");
        drop((busy, first));
        let held = [&admission.requests.taken, &admission.requests.with_priority].map(Shares::total);
        assert_eq!((held, admission.requests.held.load(Ordering::Relaxed)), ([0, 0], 0));
        let permit = admission.acquire_with_priority(ann).and_then(Permit::without_priority);
        assert!(permit.is_ok_and(|permit| !permit.has_priority()));
        assert_eq!(admission.requests.with_priority.total(), 0);
    }

    #[test]
    fn a_caller_has_a_burst_and_then_the_rate() {
        let mut http = crate::config::Config::default().http;
        http.rate_per_second = Some(10);
        http.rate_burst = 3;
        let admission = Admission::new(&http);
        let (start, ann, bob) = (Instant::now(), address(1), account(1));
        let takes = |of: &Owner, at: u32, requests: u32| {
            let caller = of.account.map_or(RateKey::Address(of.address), RateKey::Account);
            admission.takes(caller, start + Duration::from_millis(100) * at, requests)
        };
        assert_eq!([0; 4].map(|at| takes(&ann, at, 1)), [true, true, true, false]);
        assert!(takes(&bob, 0, 5), "another caller; of an array one request must fit, what is more is owed");
        assert_eq!([1, 1, 2, 2].map(|at| takes(&ann, at, 1)), [true, false, true, false]);
        assert_eq!([1, 2, 3, 3].map(|at| takes(&bob, at, 1)), [false, false, true, false]);
        assert_eq!([100; 4].map(|at| takes(&ann, at, 1)), [true, true, true, false], "not saved up");
    }
}
