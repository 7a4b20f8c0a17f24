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
    Cached, Inner, Moment, ReadContext, Recorder,
    entry::{self, Entry, Header, Key},
    metrics::{Found, Tier},
    shared::{Shared, Stamps},
    table::{Position, Slot, Table},
    tag::Tag,
    tally::Tally,
};
use crate::{error::Error, redis::Unavailable};

/// Reads `keys`; absent ones are left out.
pub(super) async fn batch<C: Cached>(
    cache: &Arc<Inner>,
    context: &ReadContext,
    read: C,
    keys: &[C::Key],
) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
    let mut reading = Reading::new(cache, context, read, keys.len());
    let missing = reading.mirror_counts().then(|| reading.held(keys));
    if missing.as_ref().is_some_and(Vec::is_empty) {
        return Ok(reading.found);
    }
    // Boxed: the way to the database and to Redis would be a part of every reader's future.
    Box::pin(reading.elsewhere(keys, missing)).await
}

/// What is cached of `keys`; nothing is loaded.
pub(super) async fn peek<C: Cached>(
    cache: &Arc<Inner>,
    context: &ReadContext,
    read: C,
    keys: &[C::Key],
) -> FxHashMap<C::Key, Arc<C::Value>> {
    let mut reading = Reading::new(cache, context, read, keys.len());
    let missing = reading.mirror_counts().then(|| reading.held(keys));
    if missing.as_ref().is_none_or(|missing| !missing.is_empty()) {
        reading.shared(keys, missing).await;
    }
    reading.found
}

/// Against which stamps a reader checks.
pub(super) enum View {
    /// This process's: the truth without Redis, and with it for bounded types while the lease lasts.
    Mirror,
    /// As Redis had them when this reader asked.
    Asked(Stamps),
    /// Redis does not answer: nothing is known to be valid.
    Blind,
}

impl View {
    pub(super) fn is_valid(&self, table: &Table, loaded: Position, slots: &[Slot]) -> bool {
        match self {
            Self::Mirror => table.is_valid(loaded, slots),
            Self::Asked(Stamps { position, slots: stamps }) => {
                let is_older = |slot: &Slot| stamps.get(slot).is_some_and(|stamp| *stamp <= loaded.sequence);
                loaded.epoch != 0 && loaded.epoch == position.epoch && slots.iter().all(is_older)
            }
            Self::Blind => false,
        }
    }

    /// The moment that stamps what is loaded from now on; `None`: it cannot be kept.
    pub(super) fn position(&self, table: &Table) -> Option<Position> {
        match self {
            Self::Mirror => Some(table.position()),
            Self::Asked(stamps) => Some(stamps.position),
            Self::Blind => None,
        }
    }
}

/// One batch on its way.
pub(super) struct Reading<'a, C: Cached> {
    pub(super) cache: &'a Arc<Inner>,
    pub(super) context: &'a ReadContext,
    pub(super) read: C,
    pub(super) of: u128,
    /// When it began: what is loaded from then on is new enough in any case.
    pub(super) began: Instant,
    pub(super) view: View,
    pub(super) found: FxHashMap<C::Key, Arc<C::Value>>,
    /// Valid but too old: for the case that the database fails.
    pub(super) expired: Vec<(C::Key, Entry)>,
}

impl<'a, C: Cached> Reading<'a, C> {
    pub(super) fn new(cache: &'a Arc<Inner>, context: &'a ReadContext, read: C, keys: usize) -> Self {
        let found = FxHashMap::with_capacity_and_hasher(keys, FxBuildHasher);
        let (of, view, began) = (name_of(&read), View::Mirror, Instant::now());
        Self { cache, context, read, of, began, view, found, expired: Vec::new() }
    }

    pub(super) fn key(&self, key: C::Key) -> Key {
        Key { of: self.of, id: key.into() }
    }

    /// Are this process's stamps enough for this reader, as they are now?
    fn mirror_counts(&self) -> bool {
        let Some(shared) = &self.cache.shared else { return true };
        let table = &self.cache.table;
        !self.read.is_strong()
            && shared.has_lease()
            && table.position().epoch != 0
            && has_heard(table, self.context) == Some(true)
    }

    /// Takes what is not held here, and if need be anything, from Redis and from the database. `missing` is what was
    /// looked for here and not found.
    async fn elsewhere(
        mut self,
        keys: &[C::Key],
        missing: Option<Vec<C::Key>>,
    ) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
        let missing = self.shared(keys, missing).await;
        if !missing.is_empty() {
            self.load(missing).await?;
        }
        Ok(self.found)
    }

    /// Takes what Redis has; returns the rest.
    async fn shared(&mut self, keys: &[C::Key], missing: Option<Vec<C::Key>>) -> Vec<C::Key> {
        match (missing, self.cache.shared.clone()) {
            (Some(missing), None) => missing,
            (Some(missing), Some(shared)) => self.fetch(&shared, missing).await,
            (None, Some(shared)) => self.ask_or_wait(&shared, keys).await,
            (None, None) => unreachable!("without Redis the stamps of this process are all there are"),
        }
    }

    /// Waits a little for a node that is behind; otherwise Redis is asked for everything.
    async fn ask_or_wait(&mut self, shared: &Shared, keys: &[C::Key]) -> Vec<C::Key> {
        let may_wait = !self.read.is_strong() && shared.has_lease() && self.context.floor().is_some();
        if may_wait && has_caught_up(&self.cache.table, self.context).await && self.mirror_counts() {
            let missing = self.held(keys);
            return self.fetch(shared, missing).await;
        }
        self.ask(shared, keys).await
    }

    /// Takes from Redis what is not held here; returns the rest.
    async fn fetch(&mut self, shared: &Shared, missing: Vec<C::Key>) -> Vec<C::Key> {
        if missing.is_empty() {
            return missing;
        }
        let asked: Vec<Key> = missing.iter().map(|key| self.key(*key)).collect();
        match patiently(self.context, shared.values(&asked)).await {
            Ok(values) => {
                let entries = self.decoded(&missing, &values);
                self.fetched(&missing, entries)
            }
            Err(Unavailable) => missing,
        }
    }

    /// Asks Redis for the stamps of everything that the keys may depend on, and for the values not held here.
    async fn ask(&mut self, shared: &Shared, keys: &[C::Key]) -> Vec<C::Key> {
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
        let asked: Vec<Key> = absent.iter().map(|key| self.key(*key)).collect();
        let Ok((mut stamps, values)) = patiently(self.context, shared.stamps(&slots, &asked)).await else {
            self.view = View::Blind;
            let mut tally = Tally::default();
            for _ in keys {
                tally.add(Found::Unchecked, Duration::ZERO);
            }
            self.report(&tally, Tier::Redis, keys);
            return keys.to_vec();
        };
        let entries = self.decoded(&absent, &values);
        // What a value depends on may be known only from the value.
        let more = stamps.without(entries.iter().flatten().flat_map(|entry| &entry.header.slots));
        if !more.is_empty()
            && let Ok((more, _)) = patiently(self.context, shared.stamps(&more, &[])).await
        {
            stamps.add(more);
        }
        self.view = View::Asked(stamps);
        let mut missing = self.fetched(&absent, entries);
        missing.extend(self.held(&held));
        missing
    }

    /// What Redis had, as entries; or why it is none.
    fn decoded(&self, keys: &[C::Key], values: &[Option<Vec<u8>>]) -> Vec<Result<Entry, Found>> {
        // That there is none is stored only where that is worth knowing.
        let may_be = |entry: &Entry| self.read.keeps_absent() || entry.has_value();
        let decode = |(key, value): (&C::Key, &Option<Vec<u8>>)| match value {
            None => Err(Found::Absent),
            Some(bytes) => {
                entry::decode::<C::Value>(self.key(*key), bytes).filter(may_be).ok_or(Found::Corrupt)
            }
        };
        keys.iter().zip(values).map(decode).collect()
    }

    /// Takes what Redis had and is valid; returns the rest.
    fn fetched(&mut self, keys: &[C::Key], entries: Vec<Result<Entry, Found>>) -> Vec<C::Key> {
        let (mut tally, now) = (Tally::default(), Instant::now());
        let mut missing = Vec::new();
        for (key, entry) in keys.iter().zip(entries) {
            let entry = entry.and_then(|entry| match self.judge(&entry, now) {
                Found::Hit => Ok(entry),
                other => Err(other),
            });
            match entry {
                Ok(entry) => {
                    tally.add(Found::Hit, entry.age(now));
                    self.take(*key, &entry);
                    self.cache.keep(self.key(*key), &entry);
                }
                Err(why) => {
                    tally.add(why, Duration::ZERO);
                    missing.push(*key);
                }
            }
        }
        self.report(&tally, Tier::Redis, keys);
        missing
    }

    pub(super) fn report(&self, tally: &Tally, tier: Tier, keys: &[C::Key]) {
        let Some(first) = keys.first() else { return };
        let tags = || self.read.tags(*first, None);
        tally.report(&self.cache.metrics, self.context.recorder(), (tier, self.read.name()), tags);
    }

    pub(super) fn judge(&self, entry: &Entry, now: Instant) -> Found {
        judge(&self.view, &self.cache.table, entry, now)
    }

    /// Takes what this process holds; returns the rest.
    fn held(&mut self, keys: &[C::Key]) -> Vec<C::Key> {
        // Ages are seconds: one look at the clock does for the batch.
        let (mut tally, now) = (Tally::default(), self.began);
        let (mut missing, mut early) = (Vec::new(), Vec::new());
        for key in keys {
            let Some(entry) = self.cache.entries.get(&self.key(*key)) else {
                tally.add(Found::Absent, Duration::ZERO);
                missing.push(*key);
                continue;
            };
            let result = self.judge(&entry, now);
            tally.add(result, entry.age(now));
            match result {
                Found::Hit => {
                    if is_due_early(&entry.header, entry.age(now)) {
                        early.push(*key);
                    }
                    self.take(*key, &entry);
                }
                Found::Expired => {
                    missing.push(*key);
                    self.expired.push((*key, entry));
                }
                _ => missing.push(*key),
            }
        }
        self.report(&tally, Tier::Local, keys);
        if let Some(kind) = self.read.rows_of() {
            self.cache.hot.note(kind, || fastrand::choice(keys).map(|key| (*key).into()));
        }
        if !early.is_empty() {
            self.refresh(early);
        }
        missing
    }

    pub(super) fn take(&mut self, key: C::Key, entry: &Entry) {
        if let Some(value) = entry.value::<C::Value>() {
            self.found.insert(key, value);
        }
    }
}

/// A value that was made of values with tags and is held in this process, if it is still valid; or why not.
pub(super) async fn made(cache: &Inner, context: &ReadContext, key: Key) -> Result<Entry, Found> {
    let entry = cache.entries.get(&key).ok_or(Found::Absent)?;
    let view = match &cache.shared {
        None => View::Mirror,
        Some(shared)
            if !entry.header.is_strong
                && shared.has_lease()
                && has_caught_up(&cache.table, context).await =>
        {
            View::Mirror
        }
        // Boxed: who is not asked to come here has a smaller future.
        Some(shared) => match Box::pin(patiently(context, shared.stamps(&entry.header.slots, &[]))).await {
            Ok((stamps, _)) => View::Asked(stamps),
            Err(Unavailable) => return Err(Found::Unchecked),
        },
    };
    match judge(&view, &cache.table, &entry, Instant::now()) {
        Found::Hit => Ok(entry),
        why => Err(why),
    }
}

fn judge(view: &View, table: &Table, entry: &Entry, now: Instant) -> Found {
    let Header { loaded, slots, ttl, .. } = &entry.header;
    if !view.is_valid(table, *loaded, slots) {
        Found::Invalidated
    } else if entry.age(now) >= *ttl {
        Found::Expired
    } else {
        Found::Hit
    }
}

/// How long a node that is behind is waited for before Redis is asked.
const CATCH_UP: Duration = Duration::from_millis(20);

/// Has this node heard of what the reader must see? `None`: what it has heard of is another table.
fn has_heard(table: &Table, context: &ReadContext) -> Option<bool> {
    let Some(Moment(floor)) = context.floor() else { return Some(true) };
    let position = table.position();
    (position.epoch == floor.epoch).then_some(position.sequence >= floor.sequence)
}

/// Has this process heard of what the reader must see? Waits a little until it has.
async fn has_caught_up(table: &Table, context: &ReadContext) -> bool {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        match has_heard(table, context) {
            Some(false) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(1)).await,
            has_heard => return has_heard == Some(true),
        }
    }
}

/// Waits for Redis, unless this request has waited in vain too often: a request has several levels, and each would wait.
async fn patiently<T>(
    context: &ReadContext,
    answer: impl Future<Output = Result<T, Unavailable>>,
) -> Result<T, Unavailable> {
    if context.recorder().is_some_and(Recorder::has_lost_patience) {
        return Err(Unavailable);
    }
    let answer = answer.await;
    if let (Err(Unavailable), Some(recorder)) = (&answer, context.recorder()) {
        recorder.waited_in_vain();
    }
    answer
}

/// Is it time to load again although the value is still good? The busier the key and the dearer the load, the
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
