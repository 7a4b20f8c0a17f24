//! Loads of what is missing: each key is loaded once for all who wait for it. Who joins a load checks what it brings
//! against its own stamps, like any cached entry, unless the load began after the reader did: a reader that starts
//! after a write never accepts a load from before it. Not here: what is cached already (`read`).

use std::{
    sync::{Arc, MutexGuard},
    time::Instant,
};

use rustc_hash::FxHashMap;
use tokio::sync::watch;

use super::{
    ABSENT_TTL, Cached, Inner,
    entry::{self, Entry, Header, Key},
    metrics::{Found, Tier},
    read::Reading,
    table::{Position, Slot},
    tag::Tag,
    tally::Tally,
};
use crate::error::Error;

/// The loads under way, by key.
pub(super) type Flights = FxHashMap<Key, Arc<Flight>>;

/// A load under way.
pub(super) struct Flight {
    /// When it began, on this process's clock.
    departed: Instant,
    /// The moment of the table before it began; none is the epoch 0.
    loaded: Position,
    /// Becomes `Some` when it has landed; closed without that when it failed or was given up.
    landed: watch::Receiver<Option<Arc<FxHashMap<Key, Entry>>>>,
}

impl<'a, C: Cached> Reading<'a, C> {
    /// Loads busy keys again before they expire, beside the request.
    pub(super) fn refresh(&self, keys: Vec<C::Key>) {
        let keys = self.not_under_way(keys, &self.flights());
        if keys.is_empty() {
            return;
        }
        let (cache, context, read) = (Arc::clone(self.cache), self.context.unrecorded(), self.read.clone());
        tokio::spawn(async move {
            let reading = Reading::new(&cache, &context, read, 0);
            let departure = {
                let mut flights = reading.flights();
                // Again: many readers may have come here before the first of them has departed.
                let keys = reading.not_under_way(keys, &flights);
                reading.depart(keys, &mut flights)
            };
            // A failure leaves the old value in use until it expires.
            let _ = reading.fly(departure).await;
        });
    }

    fn not_under_way(&self, keys: Vec<C::Key>, flights: &Flights) -> Vec<C::Key> {
        keys.into_iter().filter(|key| !flights.contains_key(&self.key(*key))).collect()
    }

    /// Loads the missing keys: joins loads under way, and starts one for the rest.
    pub(super) async fn load(&mut self, missing: Vec<C::Key>) -> Result<(), Error> {
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
        let now = Instant::now();
        // They stay: what others were to load may fail after what was loaded here.
        let usable = |key: &C::Key| {
            let (_, entry) = self.expired.iter().find(|(of, _)| of == key)?;
            (entry.age(now) < entry.header.ttl + stale).then(|| (*key, entry.clone()))
        };
        let usable = keys.iter().map(usable).collect::<Option<Vec<_>>>()?;
        let mut tally = Tally::default();
        for (key, entry) in usable {
            tally.add(Found::Stale, entry.age(now));
            self.take(key, &entry);
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
        let (mut own, mut joined, now) = (Vec::new(), Vec::new(), Instant::now());
        for key in missing {
            let full = self.key(key);
            // Not worth waiting for, if what it reads has been written to since it began.
            let is_current = |flight: &&Arc<Flight>| {
                let slots = || -> Vec<Slot> { self.read.tags(key, None).iter().map(Tag::slot).collect() };
                self.is_new_enough(flight, flight.loaded, slots)
            };
            if let Some(flight) = flights.get(&full).filter(is_current) {
                joined.push((key, Arc::clone(flight)));
                continue;
            }
            match cache.entries.get(&full).filter(|entry| self.judge(entry, now) == Found::Hit) {
                Some(entry) => self.take(key, &entry),
                None => own.push(key),
            }
        }
        (self.depart(own, &mut flights), joined)
    }

    /// Does a load bring what this reader must see? It does if it began after the reader did, whatever is known of
    /// the stamps; otherwise only if nothing was written since.
    fn is_new_enough<S: AsRef<[Slot]>>(
        &self,
        flight: &Flight,
        loaded: Position,
        slots: impl FnOnce() -> S,
    ) -> bool {
        flight.departed >= self.began || self.view.is_valid(&self.cache.table, loaded, slots().as_ref())
    }

    /// Announces a load, so that others may join it. The moment is taken here: before the database is asked.
    fn depart(&self, keys: Vec<C::Key>, flights: &mut Flights) -> Departure<'a, C> {
        let loaded = self.view.position(&self.cache.table);
        let (sender, landed) = watch::channel(None);
        let departed = Instant::now();
        let flight = Arc::new(Flight { departed, loaded: loaded.unwrap_or_default(), landed });
        for key in &keys {
            flights.insert(self.key(*key), Arc::clone(&flight));
        }
        Departure { reading_of: self.of, cache: self.cache, keys: keys.into(), loaded, flight, sender }
    }

    /// Asks the database, and keeps what it says.
    async fn fly(&self, departure: Departure<'_, C>) -> Result<Landed<C>, Error> {
        if departure.keys.is_empty() {
            return Ok(Vec::new());
        }
        let at = Instant::now();
        let values = self.read.clone().load(self.context.clone(), Arc::clone(&departure.keys)).await?;
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
    async fn join(&self, joined: Joined<C>) -> Arrived<C> {
        let mut arrived = Vec::with_capacity(joined.len());
        for (key, flight) in joined {
            let mut landing = flight.landed.clone();
            let landed = landing.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone());
            let entry = landed.and_then(|entries| entries.get(&self.key(key)).cloned());
            arrived.push((key, entry.map(|entry| (flight, entry))));
        }
        arrived
    }

    /// Takes what others loaded, if it is new enough for this reader; returns the keys where it is not.
    fn arrive(&mut self, arrived: Arrived<C>) -> Vec<C::Key> {
        let mut again = Vec::new();
        for (key, arrived) in arrived {
            let is_new_enough = |(flight, entry): &(Arc<Flight>, Entry)| {
                self.is_new_enough(flight, entry.header.loaded, || &entry.header.slots)
            };
            match arrived.filter(is_new_enough) {
                Some((_, entry)) => self.take(key, &entry),
                None => again.push(key),
            }
        }
        again
    }
}

/// Keys with the loads that will bring them.
type Joined<C> = Vec<(<C as Cached>::Key, Arc<Flight>)>;
/// Keys with what the loads of others brought.
type Arrived<C> = Vec<(<C as Cached>::Key, Option<(Arc<Flight>, Entry)>)>;
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

/// A tenth more or less, so that what was loaded together does not expire together.
fn jitter() -> f64 {
    0.9 + 0.2 * fastrand::f64()
}
