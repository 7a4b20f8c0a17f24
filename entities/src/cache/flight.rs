//! Loads of what is missing: each key is loaded once for all who wait for it. Who joins a load checks what it brings
//! against its own stamps, like any cached entry, unless the load began after the reader did: a reader that starts
//! after a write never accepts a load from before it. Not here: what is cached already (`read`).

use std::{
    sync::{Arc, MutexGuard},
    time::Instant,
};

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::watch;

use super::{
    ABSENT_TTL, CacheInner, Cached,
    entry::{self, CacheEntry, CacheKey, Header},
    metrics::{LookupResult, Tier},
    read::Reading,
    replicas::ReplicaChoice,
    stats::CacheStats,
    table::{Slot, Version},
    tag::Tag,
};
use crate::{database::replica::Fallback, error::Error};

/// The loads under way, by key.
pub(super) type Flights = FxHashMap<CacheKey, Arc<Flight>>;

/// A load under way.
pub(super) struct Flight {
    /// When it began, on this process's clock, if it reads from the primary; a standby may show what was before.
    started: Option<Instant>,
    /// The version of the table before it began, or the one that a standby covers; epoch 0 is none.
    version: Version,
    /// Becomes `Some` when the load is done; closed without that when it failed or was given up.
    entries: watch::Receiver<Option<Arc<FxHashMap<CacheKey, CacheEntry>>>>,
}

impl<'a, C: Cached> Reading<'a, C> {
    /// Loads busy keys again before they expire, beside the request.
    pub(super) fn refresh(&self, keys: Vec<C::Key>) {
        let keys = self.not_in_flight(keys, &self.flights());
        if keys.is_empty() {
            return;
        }
        let (cache, context, read) = (Arc::clone(self.cache), self.context.unrecorded(), self.read.clone());
        tokio::spawn(async move {
            let reading = Reading::new(&cache, &context, read, 0);
            let replica = reading.replica_for(&keys).await;
            let load = {
                let mut flights = reading.flights();
                // Again: many readers may have come here before the first of them has started its load.
                let keys = reading.not_in_flight(keys, &flights);
                reading.start(keys, replica, &mut flights)
            };
            // A failure leaves the old value in use until it expires.
            let _ = reading.run(load).await;
        });
    }

    fn not_in_flight(&self, keys: Vec<C::Key>, flights: &Flights) -> Vec<C::Key> {
        keys.into_iter().filter(|key| !flights.contains_key(&self.key(*key))).collect()
    }

    /// Loads the missing keys: joins loads under way, and starts one for the rest.
    pub(super) async fn load(&mut self, missing: Vec<C::Key>) -> Result<(), Error> {
        let replica = self.replica_for(&missing).await;
        let (load, joined) = self.join_or_start(missing, replica);
        let own = Arc::clone(&load.keys);
        let (loaded, joined) = tokio::join!(self.run(load), self.join(joined));
        let mut failed = self.finish(loaded, &own).err();
        let again = self.take_joined(joined);
        if !again.is_empty() {
            // What the other load brought was too old for this reader, or it failed: now on its own.
            let load = self.start(again, None, &mut self.flights());
            let own = Arc::clone(&load.keys);
            let loaded = self.run(load).await;
            failed = self.finish(loaded, &own).err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes what a load brought. Where it failed: old values that nobody wrote to, if there is one for every key.
    fn finish(&mut self, loaded: Result<Loaded<C>, Error>, keys: &[C::Key]) -> Result<(), Error> {
        match loaded {
            Ok(loaded) => {
                for (key, entry) in &loaded {
                    self.use_entry(*key, entry);
                }
                Ok(())
            }
            Err(error) => self.use_stale(keys).ok_or(error),
        }
    }

    fn use_stale(&mut self, keys: &[C::Key]) -> Option<()> {
        let stale = self.read.retention().stale_if_error;
        let now = Instant::now();
        // They stay: what others were to load may fail after what was loaded here.
        let usable = |key: &C::Key| {
            let (_, entry) = self.expired.iter().find(|(of, _)| of == key)?;
            (entry.age(now) < entry.header.ttl + stale).then(|| (*key, entry.clone()))
        };
        let usable = keys.iter().map(usable).collect::<Option<Vec<_>>>()?;
        let mut stats = CacheStats::default();
        for (key, entry) in usable {
            stats.add(LookupResult::Stale, entry.age(now));
            self.use_entry(key, &entry);
        }
        self.report(&stats, Tier::Local, keys);
        Some(())
    }

    fn flights(&self) -> MutexGuard<'a, Flights> {
        self.cache.flights()
    }

    /// Joins loads under way, takes what was loaded meanwhile, and registers a load of the rest: all at once, so that
    /// nobody else starts the same.
    fn join_or_start(
        &mut self,
        missing: Vec<C::Key>,
        replica: Option<ReplicaChoice>,
    ) -> (Load<'a, C>, Joined<C>) {
        let cache = self.cache;
        let mut flights = cache.flights();
        let (mut own, mut joined, now) = (Vec::new(), Vec::new(), Instant::now());
        for key in missing {
            let full = self.key(key);
            // Not worth waiting for, if what it reads has been written to since it began.
            let is_current = |flight: &&Arc<Flight>| {
                let slots = || -> Vec<Slot> { self.read.tags(key, None).iter().map(Tag::slot).collect() };
                self.is_new_enough(flight, flight.version, slots)
            };
            if let Some(flight) = flights.get(&full).filter(is_current) {
                joined.push((key, Arc::clone(flight)));
                continue;
            }
            match cache.entries.get(&full).filter(|entry| self.check(entry, now) == LookupResult::Hit) {
                Some(entry) => self.use_entry(key, &entry),
                None => own.push(key),
            }
        }
        (self.start(own, replica, &mut flights), joined)
    }

    /// Does a load bring what this reader must see? It does if it began after the reader did, whatever is known of
    /// the stamps; otherwise only if nothing was written since.
    fn is_new_enough<S: AsRef<[Slot]>>(
        &self,
        flight: &Flight,
        version: Version,
        slots: impl FnOnce() -> S,
    ) -> bool {
        flight.started.is_some_and(|started| started >= self.began)
            || self.staleness.is_valid(&self.cache.table, version, slots().as_ref())
    }

    /// Registers a load, so that others may join it. The version is taken here: before the database is asked.
    fn start(&self, keys: Vec<C::Key>, replica: Option<ReplicaChoice>, flights: &mut Flights) -> Load<'a, C> {
        let version = self.staleness.version(&self.cache.table);
        let (sender, entries) = watch::channel(None);
        let flight = match &replica {
            Some(choice) => Flight { started: None, version: choice.version, entries },
            None => Flight { started: Some(Instant::now()), version: version.unwrap_or_default(), entries },
        };
        let flight = Arc::new(flight);
        for key in &keys {
            flights.insert(self.key(*key), Arc::clone(&flight));
        }
        Load { reading_of: self.of, cache: self.cache, keys: keys.into(), version, replica, flight, sender }
    }

    /// The values of all keys, and those of them that are from when the load began: the others are as of the
    /// version that the standby covers.
    async fn values(&self, load: &Load<'_, C>) -> Result<(LoadedValues<C>, FxHashSet<C::Key>), Error> {
        let keys = Arc::clone(&load.keys);
        let Some(ReplicaChoice { on, version }) = load.replica.clone() else {
            let values = self.read.clone().load(self.context.on_primary(), keys).await?;
            return Ok((values, FxHashSet::default()));
        };
        let replica = on.replica.clone();
        let mut values = self.read.clone().load(self.context.reading_on(on), keys).await?;
        let outdated = self.outdated(version, &load.keys, &values);
        if !outdated.is_empty() {
            replica.note(Fallback::Outdated);
            let newer = self.read.clone().load(self.context.on_primary(), Arc::clone(&outdated)).await?;
            for key in &*outdated {
                values.remove(key);
            }
            values.extend(newer);
        }
        Ok((values, outdated.iter().copied().collect()))
    }

    /// Asks the database, and keeps what it says.
    async fn run(&self, load: Load<'_, C>) -> Result<Loaded<C>, Error> {
        if load.keys.is_empty() {
            return Ok(Vec::new());
        }
        let at = Instant::now();
        let (values, from_primary) = self.values(&load).await?;
        let covered = load.replica.as_ref().map(|choice| choice.version);
        let (took, retention) = (at.elapsed(), self.read.retention());
        let (mut loaded, mut fills) = (Vec::with_capacity(load.keys.len()), Vec::new());
        for key in &*load.keys {
            let value = values.get(key);
            let ttl = if value.is_some() { retention.ttl } else { retention.ttl.min(ABSENT_TTL) };
            let covered = covered.filter(|_| !from_primary.contains(key));
            let header = Header {
                version: covered.or(load.version).unwrap_or_default(),
                slots: self.read.tags(*key, value.map(AsRef::as_ref)).iter().map(Tag::slot).collect(),
                at: Instant::now(),
                took,
                ttl: ttl.mul_f64(jitter()),
                is_strong: self.read.is_strong(),
            };
            let key_in_cache = self.key(*key);
            let is_kept = load.version.is_some() && (value.is_some() || self.read.caches_absence());
            if self.cache.shared.is_some() && is_kept {
                let bytes = entry::encode(key_in_cache, &header, value.map(AsRef::as_ref));
                fills.extend(bytes.map(|bytes| (key_in_cache, bytes, header.ttl)));
            }
            let entry = CacheEntry::new(header, value.cloned());
            if is_kept {
                self.cache.insert(key_in_cache, &entry);
            }
            loaded.push((*key, entry));
        }
        if let (Some(shared), false) = (&self.cache.shared, fills.is_empty()) {
            shared.fill(&fills);
        }
        let entries = loaded.iter().map(|(key, entry)| (self.key(*key), entry.clone())).collect();
        load.sender.send_replace(Some(Arc::new(entries)));
        Ok(loaded)
    }

    /// Waits for the loads of others.
    async fn join(&self, joined: Joined<C>) -> JoinedEntries<C> {
        let mut received = Vec::with_capacity(joined.len());
        for (key, flight) in joined {
            let mut entries = flight.entries.clone();
            let loaded = entries.wait_for(Option::is_some).await.ok().and_then(|loaded| loaded.clone());
            let entry = loaded.and_then(|entries| entries.get(&self.key(key)).cloned());
            received.push((key, entry.map(|entry| (flight, entry))));
        }
        received
    }

    /// Takes what others loaded, if it is new enough for this reader; returns the keys where it is not.
    fn take_joined(&mut self, received: JoinedEntries<C>) -> Vec<C::Key> {
        let mut again = Vec::new();
        for (key, received) in received {
            let is_new_enough = |(flight, entry): &(Arc<Flight>, CacheEntry)| {
                self.is_new_enough(flight, entry.header.version, || &entry.header.slots)
            };
            match received.filter(is_new_enough) {
                Some((_, entry)) => self.use_entry(key, &entry),
                None => again.push(key),
            }
        }
        again
    }
}

/// Keys with the loads that will bring them.
type Joined<C> = Vec<(<C as Cached>::Key, Arc<Flight>)>;
/// Keys with what the loads of others brought.
type JoinedEntries<C> = Vec<(<C as Cached>::Key, Option<(Arc<Flight>, CacheEntry)>)>;
/// The values that there are.
type LoadedValues<C> = FxHashMap<<C as Cached>::Key, Arc<<C as Cached>::Value>>;
/// What a load brought.
type Loaded<C> = Vec<(<C as Cached>::Key, CacheEntry)>;

/// A load that others may join. Dropped, it can no longer be joined, whether it succeeded or not.
struct Load<'a, C: Cached> {
    cache: &'a Arc<CacheInner>,
    reading_of: u128,
    keys: Arc<[C::Key]>,
    version: Option<Version>,
    /// Where it is loaded from; none: the primary.
    replica: Option<ReplicaChoice>,
    flight: Arc<Flight>,
    sender: watch::Sender<Option<Arc<FxHashMap<CacheKey, CacheEntry>>>>,
}

impl<C: Cached> Drop for Load<'_, C> {
    fn drop(&mut self) {
        let mut flights = self.cache.flights();
        for key in &*self.keys {
            let key = CacheKey { of: self.reading_of, id: (*key).into() };
            if flights.get(&key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(&key);
            }
        }
    }
}

/// A tenth more or less, so that what was loaded together does not expire together.
fn jitter() -> f64 {
    0.9 + 0.2 * fastrand::f64()
}
