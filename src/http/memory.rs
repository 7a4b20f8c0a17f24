//! Memory that requests hold while they are received, and answers until they are sent: a bound for all together, and
//! within it shares, so that one address or one account cannot keep everybody else out. Whoever holds memory has a
//! `MemoryReservation`, which gives it back when it is dropped. Not here: who must be counted (`graphql`, `server`).
//!
//! The bound is divided as follows. `share` is `http.address_share` of it.
//!
//! | who holds it | of all | of one address | of one account |
//! |---|---|---|---|
//! | a caller without a token | 5/8 | 1 share | – |
//! | a signed-in caller, or a gateway | 7/8 | 2 shares | 1 share |
//! | a request or answer of `SMALL_BYTES` at most | 8/8 | half a share more | half a share more |
//! | the answer of a mutation, which has run | twice what is small | twice | twice |
//!
//! What holds an encoder besides an answer is no part of how large the answer is.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use entities::id::UserId;

/// What is small enough for the reserve that only small requests and answers may use, bytes.
const SMALL_BYTES: usize = 16 << 10;

/// There is no memory left for this caller now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

/// On whose account memory is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Where the request comes from: one address, or the network of one customer of IPv6. `None` for gateways and trusted
    /// proxies, who ask for many.
    pub(crate) address: Option<IpAddr>,
    /// Who is signed in.
    pub(crate) account: Option<UserId>,
    /// Whether it is a gateway's request.
    pub(crate) is_gateway: bool,
}

/// A bound on memory that many share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct MemoryPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: usize,
    share: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    by_account: HashMap<UserId, usize>,
}

/// Memory that is held for one owner; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryReservation {
    pool: Arc<Pool>,
    owner: Owner,
    bytes: usize,
    /// How many of them do not count when it is asked whether it is small.
    beside: usize,
    /// It is of what must be told: something was done.
    is_owed: bool,
}

/// Memory that an answer holds until it is sent; travels among the extensions of a response.
#[derive(Clone, Debug)]
pub(super) struct AnswerMemory(Arc<Mutex<MemoryReservation>>);

impl AnswerMemory {
    /// Holds so many bytes more that are no part of the answer: an encoder's.
    pub(super) fn grow_beside(&self, bytes: usize) -> Result<(), OutOfMemory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).grow_beside(bytes)
    }

    /// Whether it is the answer of a mutation that has run.
    pub(super) fn is_owed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_owed
    }
}

impl MemoryPool {
    /// A bound of so many bytes, of which one address may hold so many percent.
    pub(crate) fn new(limit: usize, share_percent: u8) -> Self {
        let share = (limit as u128 * u128::from(share_percent.min(100)) / 100) as usize;
        Self(Arc::new(Pool { limit, share, used: Mutex::default() }))
    }

    /// A reservation of nothing yet.
    pub(crate) fn reserve(&self, owner: Owner) -> MemoryReservation {
        MemoryReservation { pool: Arc::clone(&self.0), owner, bytes: 0, beside: 0, is_owed: false }
    }

    /// Whether so much is held that not even something small fits for this owner now: whatever is begun for them would be
    /// worked for in vain.
    pub(crate) fn is_exhausted(&self, owner: &Owner) -> bool {
        let [total, address, account] = self.0.limits(owner, true);
        let used = self.0.used();
        used.total >= total
            || owner.address.is_some_and(|key| held_by(&used.by_address, &key) >= address)
            || owner.account.is_some_and(|key| held_by(&used.by_account, &key) >= account)
    }

    /// What is held in all, bytes.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.0.used().total
    }
}

impl Pool {
    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much may be held in all, at the owner's address, and for the owner's account, when `is_small` asks.
    fn limits(&self, owner: &Owner, is_small: bool) -> [usize; 3] {
        let is_known = owner.account.is_some() || owner.is_gateway;
        let total = match (is_small, is_known) {
            (true, _) => self.limit,
            (false, true) => self.limit - self.limit / 8,
            (false, false) => self.limit - self.limit / 8 * 3,
        };
        let extra = if is_small { self.share / 2 } else { 0 };
        let address = if is_known { self.share * 2 } else { self.share };
        [total, address + extra, self.share + extra].map(|limit| limit.min(total))
    }
}

impl MemoryReservation {
    /// Holds so many bytes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        let wanted = (self.bytes - self.beside).checked_add(bytes).ok_or(OutOfMemory)?;
        self.take(bytes, self.pool.limits(&self.owner, wanted <= SMALL_BYTES))
    }

    /// Holds so many bytes more, whose number does not count when it is asked whether it is small.
    fn grow_beside(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        let is_small = self.bytes - self.beside <= SMALL_BYTES;
        self.take(bytes, self.pool.limits(&self.owner, is_small))?;
        self.beside += bytes;
        Ok(())
    }

    /// Holds so many bytes more for what must be told since something was done: up to twice of what others may hold, and
    /// without any bound where it is small.
    pub(crate) fn grow_owed(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.is_owed = true;
        let twice = self.pool.limits(&self.owner, true).map(|limit| limit.saturating_mul(2));
        self.take(bytes, if bytes <= SMALL_BYTES { [usize::MAX; 3] } else { twice })
    }

    /// Holds so many bytes more, if there are so many in all, at the owner's address, and for the owner's account.
    fn take(&mut self, bytes: usize, [total, address, account]: [usize; 3]) -> Result<(), OutOfMemory> {
        let mut used = self.pool.used();
        let fits = |held: usize, limit: usize| held.checked_add(bytes).is_some_and(|held| held <= limit);
        let all_fit = fits(used.total, total)
            && self.owner.address.is_none_or(|key| fits(held_by(&used.by_address, &key), address))
            && self.owner.account.is_none_or(|key| fits(held_by(&used.by_account, &key), account));
        if !all_fit {
            return Err(OutOfMemory);
        }
        used.total += bytes;
        if let Some(key) = self.owner.address {
            *used.by_address.entry(key).or_default() += bytes;
        }
        if let Some(key) = self.owner.account {
            *used.by_account.entry(key).or_default() += bytes;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Holds so many bytes in all from now on.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        if bytes >= self.bytes {
            return self.grow(bytes - self.bytes);
        }
        self.shrink(self.bytes - bytes);
        Ok(())
    }

    /// Gives so many bytes back.
    fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.beside = self.beside.min(self.bytes);
        let mut used = self.pool.used();
        used.total -= bytes;
        if let Some(key) = self.owner.address {
            give_back(&mut used.by_address, &key, bytes);
        }
        if let Some(key) = self.owner.account {
            give_back(&mut used.by_account, &key, bytes);
        }
    }

    /// Holds so many bytes more, also where they do not fit: for what must be told. Others find less then.
    pub(super) fn grow_beyond_limit(&mut self, bytes: usize) {
        self.bytes += bytes;
        let mut used = self.pool.used();
        used.total += bytes;
        if let Some(key) = self.owner.address {
            *used.by_address.entry(key).or_default() += bytes;
        }
        if let Some(key) = self.owner.account {
            *used.by_account.entry(key).or_default() += bytes;
        }
    }
}

impl From<MemoryReservation> for AnswerMemory {
    fn from(held: MemoryReservation) -> Self {
        Self(Arc::new(Mutex::new(held)))
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shrink(self.bytes);
        }
    }
}

fn held_by<K: Hash + Eq>(held: &HashMap<K, usize>, key: &K) -> usize {
    held.get(key).copied().unwrap_or_default()
}

/// Who holds nothing is not remembered.
fn give_back<K: Hash + Eq>(held: &mut HashMap<K, usize>, key: &K, bytes: usize) {
    if let Some(now) = held.get_mut(key) {
        *now -= bytes;
        if *now == 0 {
            held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn address(last: u8) -> Owner {
        Owner { address: Some(IpAddr::from([192, 0, 2, last])), ..Owner::default() }
    }

    fn account(last: u8) -> Owner {
        Owner { account: Some(UserId::from(entities::id::new())), ..address(last) }
    }

    /// How many MiB this owner gets, one reservation each.
    fn take_all(pool: &MemoryPool, owner: &Owner) -> Vec<MemoryReservation> {
        let mut held = Vec::new();
        loop {
            let mut reservation = pool.reserve(owner.clone());
            if reservation.grow(MIB).is_err() {
                return held;
            }
            held.push(reservation);
        }
    }

    /// The same of what is small.
    fn take_all_small(pool: &MemoryPool, owner: &Owner) -> Vec<MemoryReservation> {
        let mut held = Vec::new();
        loop {
            let mut reservation = pool.reserve(owner.clone());
            if reservation.grow(SMALL_BYTES).is_err() {
                return held;
            }
            held.push(reservation);
        }
    }

    #[test]
    fn memory_is_shared_and_given_back() {
        let pool = MemoryPool::new(100, 100);
        let (mut one, mut other) = (pool.reserve(Owner::default()), pool.reserve(Owner::default()));
        assert_eq!((one.grow(60), other.grow(40)), (Ok(()), Ok(())));
        assert_eq!(one.grow(1), Err(OutOfMemory));
        drop(other);
        assert_eq!((one.grow(40), one.grow(usize::MAX)), (Ok(()), Err(OutOfMemory)));
        assert_eq!((one.resize(30), pool.held()), (Ok(()), 30));
        assert_eq!((one.resize(90), one.resize(101)), (Ok(()), Err(OutOfMemory)));
        drop(one);
        assert_eq!(pool.held(), 0);
        let used = pool.0.used();
        assert!(used.by_address.is_empty() && used.by_account.is_empty(), "nobody is remembered");
    }

    #[test]
    fn one_address_gets_its_share() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let attacker = take_all(&pool, &address(1));
        assert_eq!(attacker.len(), 16, "a quarter");
        assert_eq!(take_all(&pool, &address(2)).len(), 16, "another address has its own");
        assert_eq!(take_all(&pool, &account(1)).len(), 16, "signed-in callers of the same address have more");
        let known = [take_all(&pool, &account(1)), take_all(&pool, &account(1))];
        assert_eq!(known.map(|held| held.len()), [16, 0], "but not without end");
    }

    #[test]
    fn one_account_gets_its_share_wherever_it_is() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let ann = account(1);
        let elsewhere = Owner { account: ann.account, ..address(2) };
        let held = [take_all(&pool, &ann), take_all(&pool, &elsewhere)];
        assert_eq!(held.each_ref().map(Vec::len), [16, 0]);
    }

    #[test]
    fn there_is_a_reserve_for_signed_in_callers_and_one_for_what_is_small() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let attackers: Vec<_> = (0..10).flat_map(|last| take_all(&pool, &address(last))).collect();
        assert_eq!(attackers.len(), 40, "callers without a token");
        let mut small = pool.reserve(address(0));
        assert_eq!((small.grow(SMALL_BYTES), small.grow(1)), (Ok(()), Err(OutOfMemory)));
        let known: Vec<_> = (100..200).flat_map(|last| take_all(&pool, &account(last))).collect();
        assert_eq!(known.len(), 15, "up to seven eighths, with what is small");
        let gateway = Owner { is_gateway: true, ..Owner::default() };
        assert_eq!(take_all(&pool, &gateway).len(), 0);
        assert_eq!(pool.reserve(address(77)).grow(8 << 10), Ok(()), "small ones still fit");
    }

    #[test]
    fn who_may_hold_nothing_small_either_begins_nothing_new() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let (attacker, ann) = (address(1), account(1));
        let _large = take_all(&pool, &attacker);
        let exhausted = || [&attacker, &address(2), &ann].map(|owner| pool.is_exhausted(owner));
        assert_eq!(exhausted(), [false; 3], "what is small still fits");
        let small = take_all_small(&pool, &attacker);
        assert_eq!(exhausted(), [true, false, false]);
        let _of_ann = (take_all(&pool, &ann), take_all_small(&pool, &ann));
        assert_eq!(exhausted(), [true, false, true], "of the address everything counts");
        drop(small);
        assert_eq!(exhausted(), [true, false, false]);
    }

    /// What others hold shuts nobody out of what is small.
    #[test]
    fn a_full_pool_is_open_for_what_is_small() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let _held: Vec<_> = (0..100).flat_map(|last| take_all(&pool, &account(last))).collect();
        assert_eq!(pool.held(), 56 * MIB);
        assert!(!pool.is_exhausted(&address(200)) && !pool.is_exhausted(&account(201)));
        assert_eq!(pool.reserve(address(200)).grow(SMALL_BYTES), Ok(()));
    }

    #[test]
    fn what_is_owed_fits_where_others_do_not() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let ann = account(1);
        let held = (take_all(&pool, &ann), take_all_small(&pool, &ann));
        let mut owed: Vec<_> = (0..25).map(|_| pool.reserve(ann.clone())).collect();
        assert_eq!(owed[0].grow(1), Err(OutOfMemory));
        let told = owed.iter_mut().filter_map(|owed| owed.grow_owed(MIB).ok()).count();
        assert_eq!(told, 24, "twice of a share and a half");
        assert_eq!(owed[24].grow_owed(SMALL_BYTES), Ok(()), "what is small always");
        drop((owed, held));
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn an_encoder_does_not_make_an_answer_large() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let _large = take_all(&pool, &address(1));
        let mut answer = pool.reserve(address(1));
        assert_eq!((answer.grow(SMALL_BYTES), answer.grow_beside(2 * SMALL_BYTES)), (Ok(()), Ok(())));
        assert_eq!(answer.grow(1), Err(OutOfMemory), "now it is large");
        drop(answer);
        assert_eq!(pool.held(), 16 * MIB);
    }

    #[test]
    fn small_requests_of_one_address_have_a_bound_too() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let _large = take_all(&pool, &address(1));
        let small = take_all_small(&pool, &address(1));
        assert_eq!(small.len() * SMALL_BYTES, 8 * MIB);
        assert_eq!(pool.reserve(address(2)).grow(SMALL_BYTES), Ok(()));
    }
}
