//! A batch of keys through the tiers: the copies of this process, then one load of all that is missing, which other
//! readers may join. A joiner checks what the flight brings against its own stamps, like any cached entry: a reader
//! that starts after a write never accepts a load from before it.

use std::{
    any::type_name,
    marker::PhantomData,
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    ABSENT_TTL, Cached, Inner, Kept, Moment,
    entry::{self, Entry, Header, Key},
    metrics::{Found, Tier},
    shared::{Shared, Stamps},
    table::{Position, Table},
    tag::{Slot, Tag},
};
use crate::{
    error::Error,
    redis::Unavailable,
    store::{CacheRead, Store},
};

/// A load under way.
pub(super) struct Flight {
    /// The moment before it began.
    loaded: Position,
    /// Becomes `Some` when it has landed; closed without that when it failed or was given up.
    landed: watch::Receiver<Option<Arc<FxHashMap<Key, Entry>>>>,
}

/// Reads `keys`; absent ones are left out.
pub(crate) async fn batch<C: Cached>(
    cache: &Arc<Inner>,
    store: &Store,
    read: C,
    keys: &[C::Key],
) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
    let of = hash(&(read.name(), read.shape(), read.arguments()));
    let view = View::Mirror;
    let mut reading =
        Reading { cache, store, read, of, view, found: FxHashMap::default(), expired: Vec::new() };
    let missing = reading.cached(keys).await;
    if !missing.is_empty() {
        reading.load(missing).await?;
    }
    Ok(reading.found)
}

/// Against which stamps a reader checks.
enum View {
    /// This process's: the truth without Redis, and with it for bounded types while the lease lasts.
    Mirror,
    /// As Redis had them when this reader asked.
    Asked(Stamps),
    /// Redis does not answer: nothing is known to be valid.
    Blind,
}

impl View {
    fn is_valid(&self, table: &Table, loaded: Position, slots: &[Slot]) -> bool {
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
    fn position(&self, table: &Table) -> Option<Position> {
        match self {
            Self::Mirror => Some(table.position()),
            Self::Asked(stamps) => Some(stamps.position),
            Self::Blind => None,
        }
    }
}

/// One batch on its way.
struct Reading<'a, C: Cached> {
    cache: &'a Arc<Inner>,
    store: &'a Store,
    read: C,
    of: u128,
    view: View,
    found: FxHashMap<C::Key, Arc<C::Value>>,
    /// Valid but too old: for the case that the database fails.
    expired: Vec<(C::Key, Entry)>,
}

impl<C: Cached> Reading<'_, C> {
    fn key(&self, key: C::Key) -> Key {
        Key { of: self.of, id: key.into() }
    }

    /// Takes what is cached, here or in Redis; returns the rest.
    async fn cached(&mut self, keys: &[C::Key]) -> Vec<C::Key> {
        let Some(shared) = self.cache.shared.clone() else { return self.held(keys) };
        if !C::STRONG && shared.has_lease() && self.has_caught_up().await {
            let missing = self.held(keys);
            if missing.is_empty() {
                return missing;
            }
            let asked: Vec<Key> = missing.iter().map(|key| self.key(*key)).collect();
            return match shared.values(&asked).await {
                Ok(values) => self.fetched(&missing, &values),
                Err(Unavailable) => missing,
            };
        }
        self.ask(&shared, keys).await
    }

    /// Has this node heard of what the reader must see? Waits a little for it.
    async fn has_caught_up(&self) -> bool {
        let Some(Moment(floor)) = self.store.floor() else { return true };
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let position = self.cache.table.position();
            if position.epoch != floor.epoch {
                return false;
            }
            if position.sequence >= floor.sequence {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Asks Redis for the stamps of everything that the keys may depend on, and for the values not held here.
    async fn ask(&mut self, shared: &Shared, keys: &[C::Key]) -> Vec<C::Key> {
        let (mut slots, mut absent) = (Vec::new(), Vec::new());
        for key in keys {
            slots.extend(self.read.tags(*key, None).iter().map(Tag::slot));
            match self.cache.entries.get(&self.key(*key)) {
                Some(entry) => slots.extend(&entry.header.slots),
                None => absent.push(*key),
            }
        }
        slots.sort_unstable();
        slots.dedup();
        let asked: Vec<Key> = absent.iter().map(|key| self.key(*key)).collect();
        let Ok((stamps, values)) = shared.stamps(&slots, &asked).await else {
            self.view = View::Blind;
            return keys.to_vec();
        };
        self.view = View::Asked(stamps);
        let mut missing = self.fetched(&absent, &values);
        let held: Vec<C::Key> = keys.iter().filter(|key| !absent.contains(key)).copied().collect();
        missing.extend(self.held(&held));
        missing
    }

    /// Takes what Redis had; returns the rest.
    fn fetched(&mut self, keys: &[C::Key], values: &[Option<Vec<u8>>]) -> Vec<C::Key> {
        let mut tally = Tally::default();
        let mut missing = Vec::new();
        for (key, value) in keys.iter().zip(values) {
            let full = self.key(*key);
            let entry = match value {
                None => Err(Found::Absent),
                Some(bytes) => entry::decode::<C::Value>(full, bytes).ok_or(Found::Corrupt),
            };
            let entry = entry.and_then(|entry| match self.judge(&entry) {
                Found::Hit => Ok(entry),
                other => Err(other),
            });
            match entry {
                Ok(entry) => {
                    tally.add(Found::Hit, Some(&entry));
                    self.take(*key, &entry);
                    self.cache.entries.insert(full, entry);
                }
                Err(why) => {
                    tally.add(why, None);
                    missing.push(*key);
                }
            }
        }
        tally.report(self, Tier::Redis, keys);
        missing
    }

    fn judge(&self, entry: &Entry) -> Found {
        let Header { loaded, slots, ttl, .. } = &*entry.header;
        if !self.view.is_valid(&self.cache.table, *loaded, slots) {
            Found::Invalidated
        } else if entry.age() >= *ttl {
            Found::Expired
        } else {
            Found::Hit
        }
    }

    /// Takes what this process holds; returns the rest.
    fn held(&mut self, keys: &[C::Key]) -> Vec<C::Key> {
        let mut tally = Tally::default();
        let (mut missing, mut early) = (Vec::new(), Vec::new());
        for key in keys {
            let entry = self.cache.entries.get(&self.key(*key));
            let result = entry.as_ref().map_or(Found::Absent, |entry| self.judge(entry));
            tally.add(result, entry.as_ref());
            match (result, entry) {
                (Found::Hit, Some(entry)) => {
                    if is_due_early(&entry.header) {
                        early.push(*key);
                    }
                    self.take(*key, &entry);
                }
                (Found::Expired, Some(entry)) => {
                    missing.push(*key);
                    self.expired.push((*key, entry));
                }
                _ => missing.push(*key),
            }
        }
        tally.report(self, Tier::Local, keys);
        self.refresh(early);
        missing
    }

    fn take(&mut self, key: C::Key, entry: &Entry) {
        if let Some(value) = entry.value::<C::Value>() {
            self.found.insert(key, value);
        }
    }

    /// Loads busy keys again before they expire, beside the request.
    fn refresh(&self, keys: Vec<C::Key>) {
        let keys: Vec<C::Key> = {
            let flights = self.flights();
            keys.into_iter().filter(|key| !flights.contains_key(&self.key(*key))).collect()
        };
        if keys.is_empty() {
            return;
        }
        let (cache, store, read, of) =
            (Arc::clone(self.cache), self.store.unrecorded(), self.read.clone(), self.of);
        tokio::spawn(async move {
            let (found, expired) = (FxHashMap::default(), Vec::new());
            let reading =
                Reading { cache: &cache, store: &store, read, of, view: View::Mirror, found, expired };
            let departure = reading.depart(keys);
            // A failure leaves the old value in use until it expires.
            let _ = reading.fly(departure).await;
        });
    }

    /// Loads the missing keys: joins loads under way, and starts one for the rest.
    async fn load(&mut self, missing: Vec<C::Key>) -> Result<(), Error> {
        let (own, joined) = self.split(missing);
        let departure = self.depart(own);
        let (own, joined) = tokio::join!(self.fly(departure), self.join(joined));
        let mut failed = own.map(|landed| self.land(&landed)).err();
        let again = self.arrive(joined);
        if !again.is_empty() {
            // What the other load brought was too old for this reader, or it failed: now on its own.
            let departure = self.depart(again);
            match self.fly(departure).await {
                Ok(landed) => self.land(&landed),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if !self.fall_back() => Err(error),
            _ => Ok(()),
        }
    }

    /// After a failed load: old values that nobody wrote to, if there is one for every key.
    fn fall_back(&mut self) -> bool {
        let stale = self.read.kept().stale_if_error;
        let usable = |entry: &Entry| entry.age() < entry.header.ttl + stale;
        let expired = std::mem::take(&mut self.expired);
        let all = !expired.is_empty() && expired.iter().all(|(_, entry)| usable(entry));
        if all {
            self.cache.metrics.read(Tier::Local, self.read.name(), Found::Stale, expired.len() as u64);
            for (key, entry) in expired {
                self.take(key, &entry);
            }
        }
        all
    }

    fn flights(&self) -> MutexGuard<'_, FxHashMap<Key, Arc<Flight>>> {
        self.cache.flights.lock().expect("no panic happens under this lock")
    }

    fn split(&self, missing: Vec<C::Key>) -> (Vec<C::Key>, Joined<C>) {
        let flights = self.flights();
        let (mut own, mut joined) = (Vec::new(), Vec::new());
        for key in missing {
            // Not worth waiting for, if what it reads has been written to since it began.
            let is_current = |flight: &&Arc<Flight>| {
                let slots: Vec<Slot> = self.read.tags(key, None).iter().map(Tag::slot).collect();
                self.view.is_valid(&self.cache.table, flight.loaded, &slots)
            };
            match flights.get(&self.key(key)).filter(is_current) {
                Some(flight) => joined.push((key, Arc::clone(flight))),
                None => own.push(key),
            }
        }
        (own, joined)
    }

    /// Announces a load, so that others may join it. The position is taken here: before the database is asked.
    fn depart(&self, keys: Vec<C::Key>) -> Departure<'_, C> {
        let loaded = self.view.position(&self.cache.table);
        let (sender, landed) = watch::channel(None);
        // Without a position nobody could tell whether it is new enough to be joined.
        let flight = Arc::new(Flight { loaded: loaded.unwrap_or_default(), landed });
        if loaded.is_some() {
            let mut flights = self.flights();
            for key in &keys {
                flights.insert(self.key(*key), Arc::clone(&flight));
            }
        }
        Departure { reading_of: self.of, cache: self.cache, keys: keys.into(), loaded, flight, sender }
    }

    /// Asks the database, and keeps what it says.
    async fn fly(&self, departure: Departure<'_, C>) -> Result<Landed<C>, Error> {
        if departure.keys.is_empty() {
            return Ok(Vec::new());
        }
        let at = Instant::now();
        let values = self.read.clone().load(self.store.clone(), Arc::clone(&departure.keys)).await?;
        let (took, kept) = (at.elapsed(), self.read.kept());
        let (mut landed, mut fills) = (Vec::with_capacity(departure.keys.len()), Vec::new());
        for key in &*departure.keys {
            let value = values.get(key);
            let ttl = if value.is_some() { kept.ttl } else { kept.ttl.min(ABSENT_TTL) };
            let header = Header {
                loaded: departure.loaded.unwrap_or_default(),
                slots: self.read.tags(*key, value.map(AsRef::as_ref)).iter().map(Tag::slot).collect(),
                at: Instant::now(),
                took,
                ttl: ttl.mul_f64(jitter()),
            };
            let key_in_cache = self.key(*key);
            let is_kept = departure.loaded.is_some() && (value.is_some() || self.read.keeps_absent());
            if self.cache.shared.is_some() && is_kept {
                let bytes = entry::encode(key_in_cache, &header, value.map(AsRef::as_ref));
                fills.extend(bytes.map(|bytes| (key_in_cache, bytes, header.ttl)));
            }
            let entry = Entry::new(header, value.cloned());
            if is_kept {
                self.cache.keep(key_in_cache, &entry);
            }
            landed.push((*key, entry));
        }
        if let (Some(shared), false) = (&self.cache.shared, fills.is_empty()) {
            shared.fill(&fills);
        }
        let entries = landed.iter().map(|(key, entry)| (self.key(*key), entry.clone())).collect();
        departure.sender.send_replace(Some(Arc::new(entries)));
        Ok(landed)
    }

    fn land(&mut self, landed: &[(C::Key, Entry)]) {
        for (key, entry) in landed {
            self.take(*key, entry);
        }
    }

    /// Waits for the loads of others.
    async fn join(&self, joined: Joined<C>) -> Vec<(C::Key, Option<Entry>)> {
        let mut arrived = Vec::with_capacity(joined.len());
        for (key, flight) in joined {
            let mut landing = flight.landed.clone();
            let landed = landing.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone());
            arrived.push((key, landed.and_then(|entries| entries.get(&self.key(key)).cloned())));
        }
        arrived
    }

    /// Takes what others loaded, if it is new enough for this reader; returns the keys where it is not.
    fn arrive(&mut self, arrived: Vec<(C::Key, Option<Entry>)>) -> Vec<C::Key> {
        let mut again = Vec::new();
        for (key, entry) in arrived {
            let is_new_enough = |entry: &Entry| {
                self.view.is_valid(&self.cache.table, entry.header.loaded, &entry.header.slots)
            };
            match entry.filter(is_new_enough) {
                Some(entry) => self.take(key, &entry),
                None => again.push(key),
            }
        }
        again
    }
}

/// Keys with the loads that will bring them.
type Joined<C> = Vec<(<C as Cached>::Key, Arc<Flight>)>;
/// What a load brought.
type Landed<C> = Vec<(<C as Cached>::Key, Entry)>;

/// A load that others may join. Dropped, it is off the board, whether it landed or not.
struct Departure<'a, C: Cached> {
    cache: &'a Arc<Inner>,
    reading_of: u128,
    keys: Arc<[C::Key]>,
    loaded: Option<Position>,
    flight: Arc<Flight>,
    sender: watch::Sender<Option<Arc<FxHashMap<Key, Entry>>>>,
}

impl<C: Cached> Drop for Departure<'_, C> {
    fn drop(&mut self) {
        let mut flights = self.cache.flights.lock().expect("no panic happens under this lock");
        for key in &*self.keys {
            let key = Key { of: self.reading_of, id: (*key).into() };
            if flights.get(&key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(&key);
            }
        }
    }
}

/// How long a node that is behind is waited for before Redis is asked.
const CATCH_UP: Duration = Duration::from_millis(20);

/// How a batch went in one tier, for the metrics and for `extensions.explain`.
#[derive(Default)]
struct Tally {
    keys: [u64; Found::ALL.len()],
    oldest: Duration,
}

impl Tally {
    fn add(&mut self, found: Found, entry: Option<&Entry>) {
        self.keys[found as usize] += 1;
        if let (Found::Hit, Some(entry)) = (found, entry) {
            self.oldest = self.oldest.max(entry.age());
        }
    }

    fn report<C: Cached>(&self, reading: &Reading<'_, C>, tier: Tier, keys: &[C::Key]) {
        let of = reading.read.name();
        let counted = Found::ALL.into_iter().map(|found| (found, self.keys[found as usize]));
        for (found, keys) in counted.clone() {
            reading.cache.metrics.read(tier, of, found, keys);
        }
        let Some(recorder) = reading.store.recorder().filter(|recorder| recorder.keeps_texts()) else {
            return;
        };
        let Some(first) = keys.first() else { return };
        let tags = reading.read.tags(*first, None);
        recorder.add_cache_read(CacheRead {
            of,
            tier: tier.as_str(),
            keys: counted.filter(|(_, keys)| *keys > 0).map(|(found, keys)| (found.as_str(), keys)).collect(),
            age_seconds: (self.oldest.as_secs_f64() * 1e3).round() / 1e3,
            tags: tags.iter().map(ToString::to_string).collect(),
        });
    }
}

/// Is it time to load again although the value is still good? The busier the key and the dearer the load, the
/// earlier (`XFetch`: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", 2015).
fn is_due_early(header: &Header) -> bool {
    let ahead = header.took.as_secs_f64() * -fastrand::f64().max(f64::MIN_POSITIVE).ln();
    header.at.elapsed() + Duration::from_secs_f64(ahead) >= header.ttl
}

/// A tenth more or less, so that what was loaded together does not expire together.
fn jitter() -> f64 {
    0.9 + 0.2 * fastrand::f64()
}

/// A name for arguments that no other arguments have.
fn hash(arguments: &impl Serialize) -> u128 {
    let bytes = postcard::to_allocvec(arguments).expect("arguments are plain data");
    let mut start = [0; 16];
    start.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    u128::from_le_bytes(start)
}

/// A value of a resolver's own.
pub(super) struct Named<V, L> {
    name: Arc<str>,
    kept: Kept,
    tags: Vec<Tag>,
    load: L,
    value: PhantomData<fn() -> V>,
}

impl<V, L> Named<V, L> {
    pub(super) fn new(name: &str, kept: Kept, tags: Vec<Tag>, load: L) -> Self {
        Self { name: name.into(), kept, tags, load, value: PhantomData }
    }
}

impl<V> Named<V, ()> {
    /// Where the value of this name is kept.
    pub(super) fn key(name: &str) -> Key {
        Key { of: hash(&(NAMED, type_name::<V>(), name)), id: Uuid::nil() }
    }
}

const NAMED: &str = "named";

impl<V, L: Clone> Clone for Named<V, L> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), tags: self.tags.clone(), load: self.load.clone(), ..*self }
    }
}

impl<V, F, L> Cached for Named<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<V, Error>> + Send,
    L: Fn() -> F + Clone + Send + Sync + 'static,
{
    type Key = Uuid;
    type Value = V;

    fn name(&self) -> &'static str {
        NAMED
    }

    fn shape(&self) -> &'static str {
        type_name::<V>()
    }

    fn kept(&self) -> Kept {
        self.kept
    }

    fn arguments(&self) -> impl Serialize {
        &*self.name
    }

    fn tags(&self, _: Uuid, _: Option<&V>) -> Vec<Tag> {
        self.tags.clone()
    }

    async fn load(self, _: Store, keys: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<V>>, Error> {
        let value = Arc::new((self.load)().await?);
        Ok(keys.iter().map(|key| (*key, Arc::clone(&value))).collect())
    }
}
