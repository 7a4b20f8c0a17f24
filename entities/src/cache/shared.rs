//! The cache between instances. Redis holds the table of stamps (`g:`, one string of 2^20 words), the log of
//! invalidations (`l:`, a stream with one entry for each number) and the values (`c1:`). An invalidation is
//! one script, so numbers have no gaps; each instance follows the log into its mirror of the table. What this
//! process holds counts for bounded types only while that log was read to its end a moment ago (the lease);
//! strong types ask Redis for their stamps at each read, in the same round trip as for the values. Every
//! failure is a miss. Not here: how a batch is read (`read`).

use std::{
    collections::hash_map::Entry,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Value, pipe};
use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    CacheInner,
    entry::CacheKey,
    table::{Slot, Version, VersionTable, WORDS},
};
use crate::{
    id,
    redis::{READ_TIMEOUT, Redis, Unavailable, WRITE_TIMEOUT},
};

mod inspect;
mod mirror;
mod place;
mod scripts;

pub use inspect::{SharedCacheStats, missing_rights, purge, stats};
pub(super) use mirror::follow;

use scripts::{CONNECTION_HOOK, INVALIDATE_SCRIPT};

/// How long after the log was last read to its end the copies of this process count.
const LEASE: Duration = Duration::from_millis(250);
/// Fills under way at most; further ones are left out, since the next reader can fill as well.
const FILLS: usize = 64;
/// Invalidations that could not be published have numbers from here on: no table ever comes to them.
const PENDING_BASE: u64 = 1 << 60;
/// Between attempts to publish invalidations that could not be published.
const RETRY: Duration = Duration::from_millis(50);

/// Slots of one invalidation at most: Lua's `unpack` has a bound.
const MAX_SLOTS_PER_SCRIPT: usize = 1_000;

/// This instance's part in the cache between instances.
pub(super) struct SharedCache {
    pub(super) redis: Redis,
    namespace: String,
    table_key: String,
    log_key: String,
    id_key: String,
    /// Where in the history of the database the values were read.
    place_key: String,
    /// The id of this cache, as it was read last.
    id: Mutex<Option<Uuid>>,
    /// The one that this server gives it where it has none.
    own_id: Uuid,
    split: SplitState,
    /// It is not known yet whether what Redis holds is of this database (`place`).
    is_unplaced: AtomicBool,
    started: Instant,
    /// When the last completed read of the log began, microseconds after `started`, plus one; 0 is never.
    log_read_at: AtomicU64,
    /// Of the connection on which it was read.
    log_term: AtomicU64,
    /// Invalidated here and not yet published.
    pending: Mutex<FxHashMap<Slot, Pending>>,
    next_pending: AtomicU64,
    fills: Arc<Semaphore>,
}

/// What is known of a slot that was invalidated here, which could not be published.
#[derive(Clone, Copy)]
struct Pending {
    /// What it is raised to here until then.
    number: u64,
    /// The version of the slot's last published invalidation, and of which table: `number` hides it here.
    hidden: Version,
}

/// Whether servers of this database use another cache: nobody hears then what those write.
#[derive(Default)]
struct SplitState {
    is_split: AtomicBool,
    /// What was cached before is still to be thrown away.
    must_purge: AtomicBool,
}

/// The stamps of some slots as Redis had them, and their version.
pub(super) struct Stamps {
    pub(super) version: Version,
    pub(super) slots: FxHashMap<Slot, u64>,
}

impl Stamps {
    /// Which of these slots are not among them.
    pub(super) fn without<'s>(&self, slots: impl Iterator<Item = &'s Slot>) -> Vec<Slot> {
        let mut unknown: Vec<Slot> = slots.filter(|slot| !self.slots.contains_key(slot)).copied().collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Takes in stamps that were asked for later. Of another table they say nothing.
    pub(super) fn add(&mut self, later: Self) {
        if later.version.epoch == self.version.epoch {
            self.slots.extend(later.slots);
        }
    }
}

/// The bytes found for each key, in their order.
type Values = Vec<Option<Vec<u8>>>;

impl SharedCache {
    /// Takes part: from now on every connection begins with the hook.
    pub(super) fn join(redis: Redis, namespace: &str) -> Self {
        let shared = Self::new(redis, namespace);
        let mut hook = redis::cmd("EVAL");
        hook.arg(CONNECTION_HOOK).arg(2).arg(&shared.table_key).arg(&shared.log_key);
        shared.redis.set_connection_hook(hook);
        shared
    }

    fn new(redis: Redis, namespace: &str) -> Self {
        Self {
            redis,
            namespace: namespace.to_owned(),
            table_key: format!("g:{{{namespace}}}"),
            log_key: format!("l:{{{namespace}}}"),
            id_key: format!("id:{{{namespace}}}"),
            place_key: format!("db:{{{namespace}}}"),
            id: Mutex::default(),
            own_id: id::new(),
            split: SplitState::default(),
            is_unplaced: AtomicBool::new(false),
            next_pending: AtomicU64::new(0),
            started: Instant::now(),
            log_read_at: AtomicU64::new(0),
            log_term: AtomicU64::new(0),
            pending: Mutex::default(),
            fills: Arc::new(Semaphore::new(FILLS)),
        }
    }

    /// Was the log read to its end a moment ago?
    pub(super) fn has_lease(&self) -> bool {
        if self.is_split() || !self.redis.confirms_term(self.log_term.load(Ordering::Acquire)) {
            return false;
        }
        match self.log_read_at.load(Ordering::Acquire) {
            0 => false,
            at => self.started.elapsed().saturating_sub(Duration::from_micros(at - 1)) <= LEASE,
        }
    }

    /// Publishes an invalidation to all instances; returns its version. Invalidations that could not be
    /// published before go along. Here it counts in any case: as something that is yet to come, until it
    /// could be published. Where the master is being replaced, others may use the old one still, or the new
    /// one already; whoever invalidates waits until all use the new one, and tells that.
    pub(super) async fn invalidate(&self, table: &VersionTable, slots: &[Slot]) -> Option<Version> {
        let version = self.try_invalidate(table, slots).await;
        if version.is_none() && !self.pending().is_empty() && self.redis.until_settled().await {
            return self.try_invalidate(table, &[]).await;
        }
        version
    }

    async fn try_invalidate(&self, table: &VersionTable, slots: &[Slot]) -> Option<Version> {
        let pending: Vec<(Slot, u64)> =
            self.pending().iter().map(|(slot, pending)| (*slot, pending.number)).collect();
        let mut all: Vec<Slot> = pending.iter().map(|(slot, _)| *slot).chain(slots.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            return None;
        }
        if let Ok(version) = self.publish(&all).await {
            if table.current().epoch != version.epoch {
                // The table that the mirror shows is gone, and numbers have begun anew: it cannot show this
                // invalidation. Before anything is lowered to such a number.
                table.forget();
            }
            self.resolve_pending(table, &pending, version.sequence);
            self.mark_published(table, slots, version.sequence);
            return Some(version);
        }
        self.add_pending(table, slots);
        // A Redis that is full refuses to note anything, but still deletes: then nothing counts any more.
        if self.redis.is_up() {
            let _ = self.purge(table).await;
        }
        None
    }

    /// Notes an invalidation that was published.
    fn mark_published(&self, table: &VersionTable, slots: &[Slot], sequence: u64) {
        let mut pending = self.pending();
        table.mark(slots, sequence);
        observe(&mut pending, slots, sequence);
    }

    /// Notes an invalidation that came with the log.
    fn apply_logged(&self, table: &VersionTable, slots: &[Slot], sequence: u64) {
        let mut pending = self.pending();
        table.apply_logged(slots, sequence);
        observe(&mut pending, slots, sequence);
    }

    /// Takes over another table. What could not be published counts here, whatever Redis says: from the
    /// moment on at which the new table does.
    fn replace_table(&self, table: &VersionTable, at: Version, stamps: &[(Slot, u64)]) {
        let mut pending = self.pending();
        for pending in pending.values_mut().filter(|pending| pending.hidden.epoch != at.epoch) {
            pending.hidden = Version { sequence: 0, ..at };
        }
        for (slot, sequence) in stamps {
            observe(&mut pending, &[*slot], *sequence);
        }
        let numbers = pending.iter().map(|(slot, pending)| (*slot, pending.number));
        table.replace(at, stamps.iter().copied().chain(numbers));
    }

    /// The table as it is now, made if there is none.
    async fn table(&self) -> Result<Version, Unavailable> {
        self.invalidate_chunk(&[]).await
    }

    async fn publish(&self, slots: &[Slot]) -> Result<Version, Unavailable> {
        let mut last = Version::default();
        for part in slots.chunks(MAX_SLOTS_PER_SCRIPT) {
            last = self.invalidate_chunk(part).await?;
        }
        Ok(last)
    }

    /// Notes what could not be published. What is loaded from now on is not kept here until it is: nobody
    /// knows its number.
    fn add_pending(&self, table: &VersionTable, slots: &[Slot]) {
        let mut pending = self.pending();
        let number = PENDING_BASE + self.next_pending.fetch_add(1, Ordering::Relaxed);
        for slot in slots {
            let hidden = || Version { sequence: table.last_invalidation(*slot), ..table.current() };
            pending.entry(*slot).or_insert_with(|| Pending { number, hidden: hidden() }).number = number;
        }
        table.mark(slots, number);
    }

    /// What was pending has a number now. What was noted anew meanwhile has not. Others may have invalidated
    /// the same slot later, and been applied before.
    fn resolve_pending(&self, table: &VersionTable, published: &[(Slot, u64)], sequence: u64) {
        let mut pending = self.pending();
        for (slot, number) in published {
            if let Entry::Occupied(known) = pending.entry(*slot)
                && known.get().number == *number
            {
                table.restore(*slot, *number, known.remove().hidden.sequence.max(sequence));
            }
        }
    }

    async fn invalidate_chunk(&self, slots: &[Slot]) -> Result<Version, Unavailable> {
        let mut command = redis::cmd("EVAL");
        command
            .arg(INVALIDATE_SCRIPT)
            .arg(2)
            .arg(&self.table_key)
            .arg(&self.log_key)
            .arg(random_epoch())
            .arg(slots);
        let (epoch, sequence): (u64, u64) = self.redis.insist("bump", WRITE_TIMEOUT, &command).await?;
        Ok(Version { epoch, sequence })
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, FxHashMap<Slot, Pending>> {
        self.pending.lock().expect("no panic happens under this lock")
    }

    /// Which cache this is: an id that all have in common who use this Redis and namespace, kept there. If it
    /// is gone, each of them would put the same one back. None until it could be read once.
    pub(super) async fn id(&self) -> Option<Uuid> {
        let known = *self.id.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pipeline = pipe();
        pipeline
            .cmd("SET")
            .arg(&self.id_key)
            .arg(known.unwrap_or(self.own_id).to_string())
            .arg("NX")
            .ignore();
        pipeline.cmd("GET").arg(&self.id_key);
        let read: Result<(String,), Unavailable> = self.redis.pipeline("id", WRITE_TIMEOUT, &pipeline).await;
        let read = read.ok().and_then(|(text,)| Uuid::parse_str(&text).ok());
        let mut id = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        *id = read.or(*id);
        *id
    }

    fn is_split(&self) -> bool {
        self.split.is_split.load(Ordering::Acquire) || self.is_unplaced.load(Ordering::Acquire)
    }

    /// It is not read and not filled until what it holds could be thrown away, which is tried again at each look.
    pub(super) fn doubt(&self) {
        self.split.must_purge.store(true, Ordering::Release);
        self.split.is_split.store(true, Ordering::Release);
    }

    /// As long as servers of this database use another cache, this one is not read and not filled. What was
    /// cached before is thrown away when that begins, for who uses this cache later, and when it ends; it
    /// does not end before.
    pub(super) async fn set_split(&self, table: &VersionTable, is_split: bool) {
        let SplitState { is_split: flag, must_purge } = &self.split;
        let was = flag.load(Ordering::Acquire);
        if is_split != was {
            must_purge.store(true, Ordering::Release);
        }
        if is_split {
            flag.store(true, Ordering::Release);
        }
        if must_purge.load(Ordering::Acquire) {
            if self.purge(table).await.is_err() {
                return;
            }
            must_purge.store(false, Ordering::Release);
        }
        flag.store(is_split, Ordering::Release);
    }

    /// The values of these keys.
    pub(super) async fn values(&self, keys: &[CacheKey]) -> Result<Values, Unavailable> {
        if self.is_split() {
            return Err(Unavailable);
        }
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.key(*key));
        }
        self.redis.command("values", READ_TIMEOUT, &command).await
    }

    /// The stamps of these slots and the values of these keys, in one round trip.
    pub(super) async fn stamps(
        &self,
        slots: &[Slot],
        keys: &[CacheKey],
    ) -> Result<(Stamps, Values), Unavailable> {
        if self.is_split() {
            return Err(Unavailable);
        }
        let mut pipeline = pipe();
        // Not the form that only reads: a server that takes no writes (a replica, a master without the
        // replicas that it has to have) tells nothing that can be relied on.
        let field = pipeline.cmd("BITFIELD").arg(&self.table_key);
        for word in [0, 1] {
            field.arg("GET").arg("i64").arg(format!("#{word}"));
        }
        for slot in slots {
            field.arg("GET").arg("i64").arg(format!("#{slot}"));
        }
        if !keys.is_empty() {
            let values = pipeline.cmd("MGET");
            for key in keys {
                values.arg(self.key(*key));
            }
        }
        // Before Redis is asked: what is published while the answer is on its way, the answer does not know.
        let pending = self.pending_among(slots);
        let answers: Vec<Value> = self.redis.pipeline("stamps", READ_TIMEOUT, &pipeline).await?;
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or(Unavailable);
        let words: Vec<u64> = redis::from_redis_value(next()?).map_err(|_| Unavailable)?;
        let [epoch, sequence, stamps @ ..] = &*words else { return Err(Unavailable) };
        let slots = stamped(slots, stamps, &pending);
        let mut stamps = Stamps { version: Version { epoch: *epoch, sequence: *sequence }, slots };
        if stamps.version.epoch == 0 {
            // Otherwise nobody could tell what is loaded now from what is loaded later, and all would load for
            // themselves. What is written meanwhile, this reader need not see.
            stamps.version = self.table().await?;
        }
        let values = if keys.is_empty() {
            Vec::new()
        } else {
            redis::from_redis_value(next()?).map_err(|_| Unavailable)?
        };
        Ok((stamps, values))
    }

    /// Those of these slots that this instance has written to and could not publish: Redis does not know.
    fn pending_among(&self, slots: &[Slot]) -> Vec<Slot> {
        let pending = self.pending();
        if pending.is_empty() {
            return Vec::new();
        }
        slots.iter().filter(|slot| pending.contains_key(slot)).copied().collect()
    }

    /// Whether any of these is still to be published.
    pub(super) fn has_pending(&self, slots: &[Slot]) -> bool {
        !self.pending_among(slots).is_empty()
    }

    /// Stores values beside the request.
    pub(super) fn fill(&self, entries: &[(CacheKey, Vec<u8>, Duration)]) {
        if self.is_split() {
            return;
        }
        let Ok(turn) = Arc::clone(&self.fills).try_acquire_owned() else { return };
        let mut pipeline = pipe();
        for (key, bytes, ttl) in entries {
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            pipeline.cmd("SET").arg(self.key(*key)).arg(&bytes[..]).arg("PX").arg(ttl).ignore();
        }
        let redis = self.redis.clone();
        tokio::spawn(async move {
            let _turn = turn;
            let _ = redis.pipeline::<()>("fill", WRITE_TIMEOUT, &pipeline).await;
        });
    }

    /// Throws the table away: nothing that any instance has cached is valid any more.
    pub(super) async fn purge(&self, table: &VersionTable) -> Result<(), Unavailable> {
        table.forget();
        let deleted = self.delete().await;
        // Again: meanwhile the mirror may have taken over what was being deleted.
        table.forget();
        deleted
    }

    async fn delete(&self) -> Result<(), Unavailable> {
        let mut command = redis::cmd("DEL");
        command.arg(&self.table_key).arg(&self.log_key);
        self.redis.command("purge", WRITE_TIMEOUT, &command).await
    }

    /// Where the rows are counted that are read most.
    pub(super) fn popular_keys_key(&self) -> String {
        format!("hot:{{{}}}", self.namespace)
    }

    fn key(&self, key: CacheKey) -> String {
        format!("c1:{}:{:032x}:{}", self.namespace, key.of, key.id.simple())
    }
}

/// Tries to publish what could not be published, from time to time, for as long as the cache lives.
pub(super) async fn publish_pending(cache: Weak<CacheInner>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(cache) = cache.upgrade() else { return };
        if let Some(shared) = &cache.shared
            && !shared.pending().is_empty()
        {
            // What fails again stays pending.
            shared.invalidate(&cache.table, &[]).await;
        }
    }
}

/// Slots with their stamps; those that could not be published have been invalidated just now.
fn stamped(slots: &[Slot], stamps: &[u64], pending: &[Slot]) -> FxHashMap<Slot, u64> {
    let mut stamped: FxHashMap<Slot, u64> = slots.iter().copied().zip(stamps.iter().copied()).collect();
    stamped.extend(pending.iter().map(|slot| (*slot, u64::MAX)));
    stamped
}

/// Notes an invalidation of slots that may be hidden behind one that could not be published.
fn observe(pending: &mut FxHashMap<Slot, Pending>, slots: &[Slot], sequence: u64) {
    if pending.is_empty() {
        return;
    }
    for slot in slots {
        if let Some(pending) = pending.get_mut(slot) {
            pending.hidden.sequence = pending.hidden.sequence.max(sequence);
        }
    }
}

/// Below 2^53, and never 0.
fn random_epoch() -> u64 {
    fastrand::u64(1..1 << 53)
}

/// The words of the table as Redis stores them: 64 bits, the most significant first.
fn words(bytes: &[u8]) -> impl Iterator<Item = (Slot, u64)> {
    let words = bytes.chunks_exact(8).take(WORDS).enumerate();
    words.map(|(index, word)| (index as Slot, u64::from_be_bytes(word.try_into().expect("eight bytes"))))
}

#[cfg(test)]
mod tests;
