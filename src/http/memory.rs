//! Memory that requests hold while they are received, and answers until they are sent: a bound for all
//! together, and within it shares, so that one address or one account cannot keep everybody else out. Whoever
//! holds memory has a `MemoryReservation`, which gives it back when it is dropped. Not here: who must be
//! counted (`graphql`, `server`), how shares are counted (`shares`).
//!
//! The bound is divided as follows. `share` is `http.address_share` of it.
//!
//! | who holds it | of all | of one address | of one account |
//! |---|---|---|---|
//! | a caller without a token | 5/8 | 1 share | – |
//! | a signed-in caller, or a gateway | 7/8 | 1 1/2 shares | 1 share |
//! | what is small, of a caller without a token | 8/8, and 6/8 of all such callers | a quarter of a share more | – |
//! | what is small, of another | 8/8 | half a share more | half a share more |
//! | the answer of a mutation, which has run | twice what is small | twice | twice |
//!
//! An address has 2 shares in all, and half a share more for what is small: its signed-in callers leave half
//! a share for the others there, who leave a share for them.
//!
//! Small is a request or an answer of `SMALL_BYTES` at most. What an encoder holds besides an answer, and
//! what a request takes beside its body, are no part of how large it is.
//!
//! An answer comes here when it is finished and its size is known. While it is being written, its buffer
//! counts in the pool of the crate `schema` (`graph.max_writing_memory`, `schema/engine/src/bounds.rs`, which
//! says why there are two).

use std::sync::{Arc, Mutex, PoisonError};

use super::shares::{Owner, ShareLimits, Shares};

/// What is small enough for the reserve that only small requests and answers may use, bytes.
const SMALL_BYTES: usize = 16 << 10;
/// How often what others may hold an answer of what was done may hold.
const OWED_FACTOR: usize = 2;

/// There is no memory left for this caller now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

/// A bound on memory that many share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct MemoryPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: usize,
    share: usize,
    held: Shares,
}

/// Memory that is held for one owner; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryReservation {
    pool: Arc<Pool>,
    owner: Owner,
    /// Of the request or answer itself; what is asked whether it is small.
    bytes: usize,
    /// Held besides.
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
        Self(Arc::new(Pool { limit, share, held: Shares::default() }))
    }

    /// A reservation of nothing yet.
    pub(crate) fn reserve(&self, owner: Owner) -> MemoryReservation {
        MemoryReservation { pool: Arc::clone(&self.0), owner, bytes: 0, beside: 0, is_owed: false }
    }

    /// Whether so much is held that not even something small fits for this owner now: whatever is begun for
    /// them would be worked for in vain.
    pub(crate) fn is_exhausted(&self, owner: &Owner) -> bool {
        !self.0.held.fits(owner, 1, self.0.limits(owner, true))
    }

    /// What is held in all, bytes.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.0.held.total()
    }
}

impl Pool {
    /// How much may be held for this owner, when `is_small` asks.
    fn limits(&self, owner: &Owner, is_small: bool) -> ShareLimits {
        let is_known = owner.is_known();
        let total = match (is_small, is_known) {
            (true, _) => self.limit,
            (false, true) => self.limit - self.limit / 8,
            (false, false) => self.limit - self.limit / 8 * 3,
        };
        let extra = match (is_small, is_known) {
            (false, _) => 0,
            (true, true) => self.share / 2,
            (true, false) => self.share / 4,
        };
        let kind = if is_known { self.share * 2 - self.share / 2 } else { self.share };
        let address = self.share * 2 + if is_small { self.share / 2 } else { 0 };
        // Many small ones of strangers leave something for those who are known, of every size.
        let strangers = self.limit - self.limit / 4;
        ShareLimits::new(total, (address, kind + extra), self.share + extra).for_strangers(strangers)
    }
}

impl MemoryReservation {
    /// Holds so many bytes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        let wanted = self.bytes.checked_add(bytes).ok_or(OutOfMemory)?;
        self.take(bytes, self.pool.limits(&self.owner, wanted <= SMALL_BYTES))?;
        self.bytes = wanted;
        Ok(())
    }

    /// Holds so many bytes more besides, whose number does not count when it is asked whether it is small.
    pub(super) fn grow_beside(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.take(bytes, self.pool.limits(&self.owner, self.bytes <= SMALL_BYTES))?;
        self.beside += bytes;
        Ok(())
    }

    /// Holds so many bytes more of an answer that must be told, since something was done: it may take what
    /// twice as much memory would leave for small answers, and where it is small itself it always fits. Who
    /// cannot hold the answer tells something small in its place, so that no client does again what was done.
    pub(crate) fn grow_owed(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.is_owed = true;
        let limits = if bytes <= SMALL_BYTES {
            ShareLimits::NONE
        } else {
            self.pool.limits(&self.owner, true).times(OWED_FACTOR)
        };
        self.take(bytes, limits)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Holds so many bytes in all from now on, beside what is held besides.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        if bytes >= self.bytes {
            return self.grow(bytes - self.bytes);
        }
        self.pool.held.give_back(&self.owner, self.bytes - bytes);
        self.bytes = bytes;
        Ok(())
    }

    fn take(&self, bytes: usize, limits: ShareLimits) -> Result<(), OutOfMemory> {
        if self.pool.held.take(&self.owner, bytes, limits) { Ok(()) } else { Err(OutOfMemory) }
    }
}

impl From<MemoryReservation> for AnswerMemory {
    fn from(held: MemoryReservation) -> Self {
        Self(Arc::new(Mutex::new(held)))
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.pool.held.give_back(&self.owner, self.bytes + self.beside);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use entities::id::UserId;

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

    /// How many reservations of `SMALL_BYTES` this owner gets.
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
        assert_eq!(pool.0.held.owners(), 0, "nobody is remembered");
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

    /// Behind one address (NAT), with and without a token.
    #[test]
    fn accounts_and_strangers_of_one_address_keep_each_other_memory() {
        let pool = MemoryPool::new(256 * MIB, 25);
        let accounts: Vec<_> = (0..8).flat_map(|_| take_all(&pool, &account(1))).collect();
        let strangers = take_all(&pool, &address(1));
        assert_eq!((accounts.len(), strangers.len()), (96, 32), "of two shares of 64 MiB");
        assert!(!pool.is_exhausted(&address(1)));
        drop((accounts, strangers));
        let strangers = take_all(&pool, &address(1));
        let accounts: Vec<_> = (0..8).flat_map(|_| take_all(&pool, &account(1))).collect();
        assert_eq!((strangers.len(), accounts.len()), (64, 64));
        drop((accounts, strangers));
        assert_eq!(pool.0.held.owners(), 0);
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
    fn memory_is_reserved_for_signed_in_and_small_requests() {
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
        assert_eq!(exhausted(), [false, false, false]);
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
    fn owed_answers_fit_into_a_full_pool() {
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
        assert_eq!(small.len() * SMALL_BYTES, 4 * MIB);
        assert_eq!(pool.reserve(address(2)).grow(SMALL_BYTES), Ok(()));
    }

    /// However many addresses send however many small requests.
    #[test]
    fn small_requests_of_strangers_leave_memory_for_known_callers() {
        let pool = MemoryPool::new(64 * MIB, 25);
        let two: Vec<_> = (0..2).flat_map(|last| take_all_small(&pool, &address(last))).collect();
        assert_eq!(two.len() * SMALL_BYTES, 40 * MIB, "a share and a quarter each");
        assert!(!pool.is_exhausted(&address(9)), "two addresses shut nobody out");
        let more: Vec<_> = (2..10).flat_map(|last| take_all_small(&pool, &address(last))).collect();
        assert_eq!(more.len() * SMALL_BYTES, 8 * MIB, "three quarters together");
        let large = take_all(&pool, &account(1));
        assert_eq!(large.len(), 8, "up to seven eighths");
        assert_eq!(take_all_small(&pool, &account(2)).len() * SMALL_BYTES, 8 * MIB, "and the rest");
        drop((two, more, large));
        assert_eq!(pool.held(), 0);
    }
}
