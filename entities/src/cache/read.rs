//! A batch of keys through the tiers: the copies of this process, those of Redis, and what is known of their stamps.
//! Not here: the load of what is missing (`flight`).

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::{FxBuildHasher, FxHashMap};
use serde::Serialize;

use super::{
    CacheInner, Cached, ReadContext, Recorder,
    entry::{self, CacheEntry, CacheKey, Header},
    metrics::{LookupResult, Tier},
    shared::{SharedCache, Stamps},
    stats::CacheStats,
    table::{Slot, Version, VersionTable},
    tag::Tag,
};
use crate::{error::Error, redis::Unavailable};

/// Reads `keys`; absent ones are left out.
pub(super) async fn batch<C: Cached>(
    cache: &Arc<CacheInner>,
    context: &ReadContext,
    read: C,
    keys: &[C::Key],
) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
    let mut reading = Reading::new(cache, context, read, keys.len());
    let missing = reading.is_local_fresh().then(|| reading.local_entries(keys));
    if missing.as_ref().is_some_and(Vec::is_empty) {
        return Ok(reading.found);
    }
    // Boxed: the way to the database and to Redis would be a part of every reader's future.
    Box::pin(reading.read_remote(keys, missing)).await
}

/// What is cached of `keys`; nothing is loaded.
pub(super) async fn peek<C: Cached>(
    cache: &Arc<CacheInner>,
    context: &ReadContext,
    read: C,
    keys: &[C::Key],
) -> FxHashMap<C::Key, Arc<C::Value>> {
    let mut reading = Reading::new(cache, context, read, keys.len());
    let missing = reading.is_local_fresh().then(|| reading.local_entries(keys));
    if missing.as_ref().is_none_or(|missing| !missing.is_empty()) {
        reading.read_redis(keys, missing).await;
    }
    reading.found
}

/// Against which stamps a reader checks.
pub(super) enum Staleness {
    /// This process's: the truth without Redis, and with it for bounded types while the lease lasts.
    Local,
    /// As Redis had them when this reader asked.
    Remote(Stamps),
    /// Redis does not answer: nothing is known to be valid.
    Unknown,
}

impl Staleness {
    pub(super) fn is_valid(&self, table: &VersionTable, version: Version, slots: &[Slot]) -> bool {
        match self {
            Self::Local => table.is_valid(version, slots),
            Self::Remote(Stamps { version: current, slots: stamps }) => {
                let is_older = |slot: &Slot| stamps.get(slot).is_some_and(|stamp| *stamp <= version.sequence);
                version.epoch != 0 && version.epoch == current.epoch && slots.iter().all(is_older)
            }
            Self::Unknown => false,
        }
    }

    /// The version of what is loaded from now on; `None`: it cannot be cached.
    pub(super) fn version(&self, table: &VersionTable) -> Option<Version> {
        match self {
            Self::Local => Some(table.current()),
            Self::Remote(stamps) => Some(stamps.version),
            Self::Unknown => None,
        }
    }
}

/// A batch read in progress.
pub(super) struct Reading<'a, C: Cached> {
    pub(super) cache: &'a Arc<CacheInner>,
    pub(super) context: &'a ReadContext,
    pub(super) read: C,
    pub(super) of: u128,
    /// When it began: what is loaded from then on is new enough in any case.
    pub(super) began: Instant,
    pub(super) staleness: Staleness,
    pub(super) found: FxHashMap<C::Key, Arc<C::Value>>,
    /// Valid but too old: for the case that the database fails.
    pub(super) expired: Vec<(C::Key, CacheEntry)>,
}

impl<'a, C: Cached> Reading<'a, C> {
    pub(super) fn new(cache: &'a Arc<CacheInner>, context: &'a ReadContext, read: C, keys: usize) -> Self {
        let found = FxHashMap::with_capacity_and_hasher(keys, FxBuildHasher);
        let (of, staleness, began) = (name_of(&read), Staleness::Local, Instant::now());
        Self { cache, context, read, of, began, staleness, found, expired: Vec::new() }
    }

    pub(super) fn key(&self, key: C::Key) -> CacheKey {
        CacheKey { of: self.of, id: key.into() }
    }

    /// Are this process's stamps enough for this reader, as they are now?
    fn is_local_fresh(&self) -> bool {
        let Some(shared) = &self.cache.shared else { return true };
        let table = &self.cache.table;
        !self.read.is_strong()
            && shared.has_lease()
            && table.current().epoch != 0
            && has_applied(table, self.context) == Some(true)
    }

    /// Takes what is not held here, and if need be anything, from Redis and from the database. `missing` is what was
    /// looked for here and not found.
    async fn read_remote(
        mut self,
        keys: &[C::Key],
        missing: Option<Vec<C::Key>>,
    ) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
        let missing = self.read_redis(keys, missing).await;
        if !missing.is_empty() {
            self.load(missing).await?;
        }
        Ok(self.found)
    }

    /// Takes what Redis has; returns the rest.
    async fn read_redis(&mut self, keys: &[C::Key], missing: Option<Vec<C::Key>>) -> Vec<C::Key> {
        match (missing, self.cache.shared.clone()) {
            (Some(missing), None) => missing,
            (Some(missing), Some(shared)) => self.fetch(&shared, missing).await,
            (None, Some(shared)) => self.wait_or_validate(&shared, keys).await,
            (None, None) => unreachable!("without Redis the stamps of this process are all there are"),
        }
    }

    /// Waits a little for an instance that is behind; otherwise Redis is asked for everything.
    async fn wait_or_validate(&mut self, shared: &SharedCache, keys: &[C::Key]) -> Vec<C::Key> {
        let may_wait = !self.read.is_strong() && shared.has_lease() && self.context.min_version().is_some();
        if may_wait && has_caught_up(&self.cache.table, self.context).await && self.is_local_fresh() {
            let missing = self.local_entries(keys);
            return self.fetch(shared, missing).await;
        }
        self.validate_remotely(shared, keys).await
    }

    /// Takes from Redis what is not held here; returns the rest.
    async fn fetch(&mut self, shared: &SharedCache, missing: Vec<C::Key>) -> Vec<C::Key> {
        if missing.is_empty() {
            return missing;
        }
        let asked: Vec<CacheKey> = missing.iter().map(|key| self.key(*key)).collect();
        match with_redis_budget(self.context, shared.values(&asked)).await {
            Ok(values) => {
                let entries = self.decoded(&missing, &values);
                self.fetched(&missing, entries)
            }
            Err(Unavailable) => missing,
        }
    }

    /// Asks Redis for the stamps of everything that the keys may depend on, and for the values not held here.
    async fn validate_remotely(&mut self, shared: &SharedCache, keys: &[C::Key]) -> Vec<C::Key> {
        let (mut slots, mut held, mut absent) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            slots.extend(self.read.tags(*key, None).iter().map(Tag::slot));
            match self.cache.entries.get(&self.key(*key)) {
                Some(entry) => {
                    slots.extend(&entry.header.slots);
                    held.push(*key);
                }
                None => absent.push(*key),
            }
        }
        slots.sort_unstable();
        slots.dedup();
        let asked: Vec<CacheKey> = absent.iter().map(|key| self.key(*key)).collect();
        let Ok((mut stamps, values)) = with_redis_budget(self.context, shared.stamps(&slots, &asked)).await
        else {
            self.staleness = Staleness::Unknown;
            let mut stats = CacheStats::default();
            for _ in keys {
                stats.add(LookupResult::Unchecked, Duration::ZERO);
            }
            self.report(&stats, Tier::Redis, keys);
            return keys.to_vec();
        };
        let entries = self.decoded(&absent, &values);
        // What a value depends on may be known only from the value.
        let more = stamps.without(entries.iter().flatten().flat_map(|entry| &entry.header.slots));
        if !more.is_empty()
            && let Ok((more, _)) = with_redis_budget(self.context, shared.stamps(&more, &[])).await
        {
            stamps.add(more);
        }
        self.staleness = Staleness::Remote(stamps);
        let mut missing = self.fetched(&absent, entries);
        missing.extend(self.local_entries(&held));
        missing
    }

    /// What Redis had, as entries; or why it is none.
    fn decoded(&self, keys: &[C::Key], values: &[Option<Vec<u8>>]) -> Vec<Result<CacheEntry, LookupResult>> {
        // That there is none is stored only where that is worth knowing.
        let may_be = |entry: &CacheEntry| self.read.caches_absence() || entry.has_value();
        let decode = |(key, value): (&C::Key, &Option<Vec<u8>>)| match value {
            None => Err(LookupResult::Absent),
            Some(bytes) => {
                entry::decode::<C::Value>(self.key(*key), bytes).filter(may_be).ok_or(LookupResult::Corrupt)
            }
        };
        keys.iter().zip(values).map(decode).collect()
    }

    /// Takes what Redis had and is valid; returns the rest.
    fn fetched(&mut self, keys: &[C::Key], entries: Vec<Result<CacheEntry, LookupResult>>) -> Vec<C::Key> {
        let (mut stats, now) = (CacheStats::default(), Instant::now());
        let mut missing = Vec::new();
        for (key, entry) in keys.iter().zip(entries) {
            let entry = entry.and_then(|entry| match self.check(&entry, now) {
                LookupResult::Hit => Ok(entry),
                other => Err(other),
            });
            match entry {
                Ok(entry) => {
                    stats.add(LookupResult::Hit, entry.age(now));
                    self.use_entry(*key, &entry);
                    self.cache.insert(self.key(*key), &entry);
                }
                Err(why) => {
                    stats.add(why, Duration::ZERO);
                    missing.push(*key);
                }
            }
        }
        self.report(&stats, Tier::Redis, keys);
        missing
    }

    pub(super) fn report(&self, stats: &CacheStats, tier: Tier, keys: &[C::Key]) {
        let Some(first) = keys.first() else { return };
        let tags = || self.read.tags(*first, None);
        stats.report(&self.cache.metrics, self.context.recorder(), (tier, self.read.name()), tags);
    }

    pub(super) fn check(&self, entry: &CacheEntry, now: Instant) -> LookupResult {
        check(&self.staleness, &self.cache.table, entry, now)
    }

    /// Takes what this process holds; returns the rest.
    fn local_entries(&mut self, keys: &[C::Key]) -> Vec<C::Key> {
        // Ages are seconds: one look at the clock does for the batch.
        let (mut stats, now) = (CacheStats::default(), self.began);
        let (mut missing, mut early) = (Vec::new(), Vec::new());
        for key in keys {
            let Some(entry) = self.cache.entries.get(&self.key(*key)) else {
                stats.add(LookupResult::Absent, Duration::ZERO);
                missing.push(*key);
                continue;
            };
            let result = self.check(&entry, now);
            stats.add(result, entry.age(now));
            match result {
                LookupResult::Hit => {
                    if is_due_early(&entry.header, entry.age(now)) {
                        early.push(*key);
                    }
                    self.use_entry(*key, &entry);
                }
                LookupResult::Expired => {
                    missing.push(*key);
                    self.expired.push((*key, entry));
                }
                _ => missing.push(*key),
            }
        }
        self.report(&stats, Tier::Local, keys);
        if let Some(kind) = self.read.rows_of() {
            self.cache.popular_keys.record(kind, || fastrand::choice(keys).map(|key| (*key).into()));
        }
        if !early.is_empty() {
            self.refresh(early);
        }
        missing
    }

    pub(super) fn use_entry(&mut self, key: C::Key, entry: &CacheEntry) {
        if let Some(value) = entry.value::<C::Value>() {
            self.found.insert(key, value);
        }
    }
}

/// A value that was made of values with tags and is held in this process, if it is still valid; or why not.
pub(super) async fn find_valid(
    cache: &CacheInner,
    context: &ReadContext,
    key: CacheKey,
) -> Result<CacheEntry, LookupResult> {
    let entry = cache.entries.get(&key).ok_or(LookupResult::Absent)?;
    let staleness = match &cache.shared {
        None => Staleness::Local,
        Some(shared)
            if !entry.header.is_strong
                && shared.has_lease()
                && has_caught_up(&cache.table, context).await =>
        {
            Staleness::Local
        }
        // Boxed: who is not asked to come here has a smaller future.
        Some(shared) => {
            match Box::pin(with_redis_budget(context, shared.stamps(&entry.header.slots, &[]))).await {
                Ok((stamps, _)) => Staleness::Remote(stamps),
                Err(Unavailable) => return Err(LookupResult::Unchecked),
            }
        }
    };
    match check(&staleness, &cache.table, &entry, Instant::now()) {
        LookupResult::Hit => Ok(entry),
        why => Err(why),
    }
}

fn check(staleness: &Staleness, table: &VersionTable, entry: &CacheEntry, now: Instant) -> LookupResult {
    let Header { version, slots, ttl, .. } = &entry.header;
    if !staleness.is_valid(table, *version, slots) {
        LookupResult::Invalidated
    } else if entry.age(now) >= *ttl {
        LookupResult::Expired
    } else {
        LookupResult::Hit
    }
}

/// How long an instance that is behind is waited for before Redis is asked.
const CATCH_UP: Duration = Duration::from_millis(20);

/// Has this instance applied what the reader must see? `None`: what it has applied is another table.
fn has_applied(table: &VersionTable, context: &ReadContext) -> Option<bool> {
    let Some(floor) = context.min_version() else { return Some(true) };
    let version = table.current();
    (version.epoch == floor.epoch).then_some(version.sequence >= floor.sequence)
}

/// Has this process applied what the reader must see? Waits a little until it has.
async fn has_caught_up(table: &VersionTable, context: &ReadContext) -> bool {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        match has_applied(table, context) {
            Some(false) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(1)).await,
            has_applied => return has_applied == Some(true),
        }
    }
}

/// Waits for Redis, unless this request has waited in vain too often: a request has several levels, and each
/// would wait.
async fn with_redis_budget<T>(
    context: &ReadContext,
    answer: impl Future<Output = Result<T, Unavailable>>,
) -> Result<T, Unavailable> {
    if context.recorder().is_some_and(Recorder::redis_budget_exhausted) {
        return Err(Unavailable);
    }
    let answer = answer.await;
    if let (Err(Unavailable), Some(recorder)) = (&answer, context.recorder()) {
        recorder.count_redis_timeout();
    }
    answer
}

/// Is it time to load again although the value is still good? The busier the key and the more expensive the load, the
/// earlier (`XFetch`: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", 2015).
fn is_due_early(header: &Header, age: Duration) -> bool {
    // Minus the logarithm of a random number above 0 is hardly ever more; most reads need no number, then.
    const FARTHEST: u32 = 37;
    let left = header.ttl.saturating_sub(age);
    if left > header.took * FARTHEST {
        return false;
    }
    let ahead = header.took.as_secs_f64() * -fastrand::f64().max(f64::MIN_POSITIVE).ln();
    left.as_secs_f64() <= ahead
}

/// A name for a read and its arguments, which no others have.
fn name_of<C: Cached>(read: &C) -> u128 {
    let (name, shape, arguments) = (read.name(), read.shape(), read.arguments());
    let read = name_of_read(name, shape);
    if size_of_val(&arguments) == 0 { read } else { hash(&(read, arguments)) }
}

/// A name for a read. Shapes are long, and always the same few.
pub(super) fn name_of_read(name: &'static str, shape: &'static str) -> u128 {
    thread_local! {
        static KNOWN: RefCell<FxHashMap<[(usize, usize); 2], u128>> = RefCell::default();
    }
    // Where a text lies for ever, and how long it is, says which one it is.
    let place = [name, shape].map(|text| (text.as_ptr().addr(), text.len()));
    KNOWN.with_borrow_mut(|known| *known.entry(place).or_insert_with(|| hash(&(name, shape))))
}

/// A name for arguments that no other arguments have.
pub(super) fn hash(arguments: &impl Serialize) -> u128 {
    let bytes = postcard::to_allocvec(arguments).expect("arguments are plain data");
    let mut start = [0; 16];
    start.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    u128::from_le_bytes(start)
}
