//! A batch of keys through the tiers: the copies of this process, then one load of all that is missing, which other
//! readers may join. A joiner checks what the flight brings against its own stamps, like any cached entry: a reader
//! that starts after a write never accepts a load from before it.

use std::{
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use serde::Serialize;
use tokio::sync::watch;

use super::{
    ABSENT_TTL, Cached, Inner, Moment,
    entry::{self, Entry, Header, Key},
    metrics::{Found, Tier},
    shared::{Shared, Stamps},
    table::{Position, Table},
    tag::{Slot, Tag},
    tally::Tally,
};
use crate::{
    error::Error,
    redis::Unavailable,
    store::{Recorder, Store},
};

/// The loads under way, by key.
pub(super) type Flights = FxHashMap<Key, Arc<Flight>>;

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
    let mut reading = Reading::new(cache, store, read, of);
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

impl<'a, C: Cached> Reading<'a, C> {
    fn new(cache: &'a Arc<Inner>, store: &'a Store, read: C, of: u128) -> Self {
        let (view, found, expired) = (View::Mirror, FxHashMap::default(), Vec::new());
        Self { cache, store, read, of, view, found, expired }
    }

    fn key(&self, key: C::Key) -> Key {
        Key { of: self.of, id: key.into() }
    }

    /// Takes what is cached, here or in Redis; returns the rest.
    async fn cached(&mut self, keys: &[C::Key]) -> Vec<C::Key> {
        let Some(shared) = self.cache.shared.clone() else { return self.held(keys) };
        if !self.read.is_strong() && shared.has_lease() && has_caught_up(&self.cache.table, self.store).await
        {
            let missing = self.held(keys);
            if missing.is_empty() {
                return missing;
            }
            let asked: Vec<Key> = missing.iter().map(|key| self.key(*key)).collect();
            return match patiently(self.store, shared.values(&asked)).await {
                Ok(values) => {
                    let entries = self.decoded(&missing, &values);
                    self.fetched(&missing, entries)
                }
                Err(Unavailable) => missing,
            };
        }
        self.ask(&shared, keys).await
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
        let Ok((mut stamps, values)) = patiently(self.store, shared.stamps(&slots, &asked)).await else {
            self.view = View::Blind;
            let mut tally = Tally::default();
            for _ in keys {
                tally.add(Found::Unchecked, None);
            }
            self.report(&tally, Tier::Redis, keys);
            return keys.to_vec();
        };
        let entries = self.decoded(&absent, &values);
        // What a value depends on may be known only from the value.
        let more = stamps.without(entries.iter().flatten().flat_map(|entry| &entry.header.slots));
        if !more.is_empty()
            && let Ok((more, _)) = patiently(self.store, shared.stamps(&more, &[])).await
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
        let decode = |(key, value): (&C::Key, &Option<Vec<u8>>)| match value {
            None => Err(Found::Absent),
            Some(bytes) => entry::decode::<C::Value>(self.key(*key), bytes).ok_or(Found::Corrupt),
        };
        keys.iter().zip(values).map(decode).collect()
    }

    /// Takes what Redis had and is valid; returns the rest.
    fn fetched(&mut self, keys: &[C::Key], entries: Vec<Result<Entry, Found>>) -> Vec<C::Key> {
        let mut tally = Tally::default();
        let mut missing = Vec::new();
        for (key, entry) in keys.iter().zip(entries) {
            let entry = entry.and_then(|entry| match self.judge(&entry) {
                Found::Hit => Ok(entry),
                other => Err(other),
            });
            match entry {
                Ok(entry) => {
                    tally.add(Found::Hit, Some(&entry));
                    self.take(*key, &entry);
                    self.cache.entries.insert(self.key(*key), entry);
                }
                Err(why) => {
                    tally.add(why, None);
                    missing.push(*key);
                }
            }
        }
        self.report(&tally, Tier::Redis, keys);
        missing
    }

    fn report(&self, tally: &Tally, tier: Tier, keys: &[C::Key]) {
        let Some(first) = keys.first() else { return };
        let tags = || self.read.tags(*first, None);
        tally.report(&self.cache.metrics, self.store.recorder(), (tier, self.read.name()), tags);
    }

    fn judge(&self, entry: &Entry) -> Found {
        judge(&self.view, &self.cache.table, entry)
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
        self.report(&tally, Tier::Local, keys);
        if let Some(kind) = self.read.rows_of() {
            self.cache.hot.note(kind, || fastrand::choice(keys).map(|key| (*key).into()));
        }
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
            let reading = Reading::new(&cache, &store, read, of);
            let departure = reading.depart(keys, &mut reading.flights());
            // A failure leaves the old value in use until it expires.
            let _ = reading.fly(departure).await;
        });
    }

    /// Loads the missing keys: joins loads under way, and starts one for the rest.
    async fn load(&mut self, missing: Vec<C::Key>) -> Result<(), Error> {
        let (departure, joined) = self.board(missing);
        let own = Arc::clone(&departure.keys);
        let (landed, joined) = tokio::join!(self.fly(departure), self.join(joined));
        let mut failed = self.land(landed, &own).err();
        let again = self.arrive(joined);
        if !again.is_empty() {
            // What the other load brought was too old for this reader, or it failed: now on its own.
            let departure = self.depart(again, &mut self.flights());
            let own = Arc::clone(&departure.keys);
            let landed = self.fly(departure).await;
            failed = self.land(landed, &own).err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes what a load brought. Where it failed: old values that nobody wrote to, if there is one for every key.
    fn land(&mut self, landed: Result<Landed<C>, Error>, keys: &[C::Key]) -> Result<(), Error> {
        match landed {
            Ok(landed) => {
                for (key, entry) in &landed {
                    self.take(*key, entry);
                }
                Ok(())
            }
            Err(error) => self.fall_back(keys).ok_or(error),
        }
    }

    fn fall_back(&mut self, keys: &[C::Key]) -> Option<()> {
        let stale = self.read.kept().stale_if_error;
        let expired = std::mem::take(&mut self.expired);
        let usable = |key: &C::Key| {
            let (_, entry) = expired.iter().find(|(of, _)| of == key)?;
            (entry.age() < entry.header.ttl + stale).then_some((*key, entry))
        };
        let usable = keys.iter().map(usable).collect::<Option<Vec<_>>>()?;
        let mut tally = Tally::default();
        for (key, entry) in usable {
            tally.add(Found::Stale, Some(entry));
            self.take(key, entry);
        }
        self.report(&tally, Tier::Local, keys);
        Some(())
    }

    fn flights(&self) -> MutexGuard<'a, Flights> {
        self.cache.flights()
    }

    /// Joins loads under way, takes what has landed meanwhile, and announces a load of the rest: all at once, so that
    /// nobody else announces the same.
    fn board(&mut self, missing: Vec<C::Key>) -> (Departure<'a, C>, Joined<C>) {
        let cache = self.cache;
        let mut flights = cache.flights();
        let (mut own, mut joined) = (Vec::new(), Vec::new());
        for key in missing {
            let full = self.key(key);
            // Not worth waiting for, if what it reads has been written to since it began.
            let is_current = |flight: &&Arc<Flight>| {
                let slots: Vec<Slot> = self.read.tags(key, None).iter().map(Tag::slot).collect();
                self.view.is_valid(&cache.table, flight.loaded, &slots)
            };
            if let Some(flight) = flights.get(&full).filter(is_current) {
                joined.push((key, Arc::clone(flight)));
                continue;
            }
            match cache.entries.get(&full).filter(|entry| self.judge(entry) == Found::Hit) {
                Some(entry) => self.take(key, &entry),
                None => own.push(key),
            }
        }
        (self.depart(own, &mut flights), joined)
    }

    /// Announces a load, so that others may join it. The position is taken here: before the database is asked.
    fn depart(&self, keys: Vec<C::Key>, flights: &mut Flights) -> Departure<'a, C> {
        let loaded = self.view.position(&self.cache.table);
        let (sender, landed) = watch::channel(None);
        // Without a position nobody could tell whether it is new enough to be joined.
        let flight = Arc::new(Flight { loaded: loaded.unwrap_or_default(), landed });
        if loaded.is_some() {
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
                is_strong: self.read.is_strong(),
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
        let mut flights = self.cache.flights();
        for key in &*self.keys {
            let key = Key { of: self.reading_of, id: (*key).into() };
            if flights.get(&key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(&key);
            }
        }
    }
}

/// A value that was made of values with tags and is held in this process, if it is still valid; or why not.
pub(super) async fn made(cache: &Inner, store: &Store, key: Key) -> Result<Entry, Found> {
    let entry = cache.entries.get(&key).ok_or(Found::Absent)?;
    let view = match &cache.shared {
        None => View::Mirror,
        Some(shared)
            if !entry.header.is_strong && shared.has_lease() && has_caught_up(&cache.table, store).await =>
        {
            View::Mirror
        }
        // Boxed: who is not asked to come here has a smaller future.
        Some(shared) => match Box::pin(patiently(store, shared.stamps(&entry.header.slots, &[]))).await {
            Ok((stamps, _)) => View::Asked(stamps),
            Err(Unavailable) => return Err(Found::Unchecked),
        },
    };
    match judge(&view, &cache.table, &entry) {
        Found::Hit => Ok(entry),
        why => Err(why),
    }
}

fn judge(view: &View, table: &Table, entry: &Entry) -> Found {
    let Header { loaded, slots, ttl, .. } = &*entry.header;
    if !view.is_valid(table, *loaded, slots) {
        Found::Invalidated
    } else if entry.age() >= *ttl {
        Found::Expired
    } else {
        Found::Hit
    }
}

/// How long a node that is behind is waited for before Redis is asked.
const CATCH_UP: Duration = Duration::from_millis(20);

/// Has this node heard of what the reader must see? Waits a little for it.
async fn has_caught_up(table: &Table, store: &Store) -> bool {
    let Some(Moment(floor)) = store.floor() else { return true };
    let deadline = Instant::now() + CATCH_UP;
    loop {
        let position = table.position();
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

/// Waits for Redis, unless this request has waited in vain too often: a request has several levels, and each would wait.
async fn patiently<T>(
    store: &Store,
    answer: impl Future<Output = Result<T, Unavailable>>,
) -> Result<T, Unavailable> {
    if store.recorder().is_some_and(Recorder::has_lost_patience) {
        return Err(Unavailable);
    }
    let answer = answer.await;
    if let (Err(Unavailable), Some(recorder)) = (&answer, store.recorder()) {
        recorder.waited_in_vain();
    }
    answer
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
pub(super) fn hash(arguments: &impl Serialize) -> u128 {
    let bytes = postcard::to_allocvec(arguments).expect("arguments are plain data");
    let mut start = [0; 16];
    start.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    u128::from_le_bytes(start)
}
