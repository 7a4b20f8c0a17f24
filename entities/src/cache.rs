//! The cache. Promise: a read that starts after a write was answered never returns older data; on this
//! instance always, on every instance for strong types; an instance that wrote and cannot reach Redis waits a
//! moment until another one has told it (`outbox`). Entries are stamped with a number that was read before
//! they were loaded, and are valid as long as nothing they depend on was invalidated since (`table`): a slow
//! load that began before a write is invalid from the start, so there are no locks and no clocks. Values are
//! rows, never permissions: what a viewer may see is decided after reading, and where SQL depends on the
//! viewer, the viewer's scope is part of the key.
//!
//! In reading order: `tag` (what a value depends on), `table` (stamps), `entry` (a value and its header), `read` (a
//! batch of keys through the tiers), `flight` (loads of what is missing), `shared` (Redis), `metrics`; `context` and
//! `recorder` (what one request reads with, and what it has read). Not here: what is cached (the domains, each one
//! `impl Cached`).
//!
//! Resolvers that cache something of their own name what it depends on. Writes invalidate the tags of rows
//! and lists; what nothing writes to has tags of its own, or none:
//!
//! ```no_run
//! use std::sync::Arc;
//! use entities::{Error, Store, Tag, cache::Retention, form, id::FormId};
//!
//! async fn headline(store: &Store, id: FormId) -> Result<Arc<String>, Error> {
//!     let tags = vec![Tag::Row("Form", id.0), Tag::Named("headlines".to_owned())];
//!     let load = move |store: Store| async move {
//!         let found = form::by_ids(&store, &[id]).await?;
//!         Ok::<_, Error>(found.get(&id).map(|form| form.title.to_uppercase()).unwrap_or_default())
//!     };
//!     store.get_or_set(&format!("headline:{id}"), Retention::for_seconds(60), tags, load).await
//! }
//!
//! async fn forget_headlines(store: &Store) {
//!     store.cache().invalidate_by_tag(&[Tag::Named("headlines".to_owned())]).await;
//! }
//! ```
//!
//! Where many are wanted at once, one look finds those that are there, one statement reads the others, and each is
//! stored with its tags. The version is taken first: what is written meanwhile invalidates what was read before.
//!
//! ```no_run
//! use std::sync::Arc;
//! use entities::{Error, Store, Tag, cache::Retention, form, id::FormId};
//!
//! async fn headlines(store: &Store, ids: &[FormId]) -> Result<Vec<Arc<String>>, Error> {
//!     let (cache, version) = (store.cache(), store.cache().version());
//!     let names: Vec<String> = ids.iter().map(|id| format!("headline:{id}")).collect();
//!     let tags = |_: &String| vec![Tag::Named("headlines".to_owned())];
//!     let known = store.get_many(&names, tags).await;
//!     let unknown: Vec<FormId> =
//!         ids.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(id, _)| *id).collect();
//!     let forms = form::by_ids(store, &unknown).await?;
//!     let made = |(id, known): (&FormId, Option<Arc<String>>)| {
//!         known.unwrap_or_else(|| {
//!             let made = Arc::new(forms.get(id).map(|form| form.title.to_uppercase()).unwrap_or_default());
//!             let name = format!("headline:{id}");
//!             cache.set_with_tags(&name, Arc::clone(&made), Retention::for_seconds(60), &tags(&made), version);
//!             made
//!         })
//!     };
//!     Ok(ids.iter().zip(known).map(made).collect())
//! }
//! ```

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use quick_cache::{Weighter, sync::Cache as Map};
use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    database::{Database, history::Place},
    error::Error,
    id::NodeKind,
    redis::{Redis, Unavailable},
};

mod answers;
mod context;
mod dependencies;
mod entry;
mod flight;
pub mod instance;
mod metrics;
mod named;
pub mod outbox;
mod popular_keys;
mod read;
mod recorder;
mod replicas;
mod shared;
mod stats;
mod table;
pub mod tag;

pub use answers::AnswerName;
pub use context::ReadContext;
pub use dependencies::DependencySet;
pub use recorder::{CacheRead, Commits, Recorder};
pub use shared::{SharedCacheStats, missing_rights, purge, stats};
pub use tag::Tag;

use entry::{CacheEntry, CacheKey, Header};
use flight::Flights;
use instance::Instance;
use metrics::CacheMetrics;
use named::{NamedLookup, NamedValue};
use outbox::HandoverPause;
use popular_keys::PopularKeys;
use replicas::Replicas;
use shared::SharedCache;
pub use table::Version;
use table::{Slot, VersionTable};

/// A read that is cached: like a loader, it is a value that carries its arguments, and equal ones share entries.
pub(crate) trait Cached: Clone + Send + Sync + 'static {
    /// Whose value.
    type Key: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync + 'static;
    /// The value.
    type Value: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Its name in keys, metrics and `extensions.explain`.
    fn name(&self) -> &'static str;
    /// The columns behind the value: a deploy that changes them never reads what the old one wrote.
    fn shape(&self) -> &'static str;
    /// How long a value is used.
    fn retention(&self) -> Retention;
    /// Names the arguments: what decides the value besides the key. Includes the scope where SQL has it.
    fn arguments(&self) -> impl Serialize;
    /// What the value of this key depends on; `None` while it is not known, and for keys without one.
    fn tags(&self, key: Self::Key, value: Option<&Self::Value>) -> Vec<Tag>;
    /// Is it worth knowing that there is no value? Only where the write that brings one invalidates the tags above.
    fn caches_absence(&self) -> bool {
        true
    }
    /// Is it checked against Redis at each read, where there is one? What access depends on is.
    fn is_strong(&self) -> bool {
        false
    }
    /// May it be loaded from a standby? Not where its load reads more than its tags cover.
    fn may_be_on_replica(&self) -> bool {
        true
    }
    /// The type of the rows, where this reads whole rows by their ids: what an instance that starts can read
    /// beforehand.
    fn rows_of(&self) -> Option<NodeKind> {
        None
    }
    /// Reads the values of all keys from the database.
    fn load(
        self,
        context: ReadContext,
        keys: Arc<[Self::Key]>,
    ) -> impl Future<Output = Result<FxHashMap<Self::Key, Arc<Self::Value>>, Error>> + Send;
}

/// How long values are used.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// After this a value is loaded again; a little earlier for busy keys, in the background.
    pub ttl: Duration,
    /// For so much longer, a value that nobody wrote to is used if the database fails.
    pub stale_if_error: Duration,
}

impl Retention {
    /// For this long, and ten times as long where the database fails.
    pub const fn for_seconds(seconds: u64) -> Self {
        Self { ttl: Duration::from_secs(seconds), stale_if_error: Duration::from_secs(seconds * 10) }
    }
}

/// Knowledge that there is no such row is used for this long.
const ABSENT_TTL: Duration = Duration::from_secs(30);

/// What a value weighs usually, with its header: the room that is made at once.
const USUAL_BYTES: usize = 1_024;

/// Entries weigh their bytes.
#[derive(Clone)]
struct Weights;

impl Weighter<CacheKey, CacheEntry> for Weights {
    fn weight(&self, _: &CacheKey, entry: &CacheEntry) -> u64 {
        u64::from(entry.weight)
    }
}

/// How the cache is set up.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Weight of the values held in this process at most.
    pub max_bytes: u64,
    /// Keeps apart what shares a Redis but no database.
    pub namespace: String,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { max_bytes: 128 << 20, namespace: "xp".to_owned() }
    }
}

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    /// None: everything is read from the database.
    inner: Option<Arc<CacheInner>>,
}

struct CacheInner {
    table: VersionTable,
    // Of quick_cache, where a hit takes 33 ns; in moka, which is used where what is kept expires by time, it takes 200.
    entries: Map<CacheKey, CacheEntry, Weights>,
    flights: Mutex<Flights>,
    popular_keys: PopularKeys,
    metrics: CacheMetrics,
    /// The cache between instances; none: this process is the only one that writes.
    shared: Option<Arc<SharedCache>>,
    /// Where values may be loaded from beside the primary; none: nowhere.
    replicas: Option<Replicas>,
    /// Where the database was when Redis was last told.
    place: Mutex<Option<Place>>,
    handover_pause: HandoverPause,
}

impl Cache {
    /// No cache.
    pub(crate) const fn off() -> Self {
        Self { inner: None }
    }

    /// A cache in this process, and between instances where there is a Redis. Its values are loaded from the
    /// standbys of the database too, once those are followed.
    pub(crate) fn new(
        database: &Database,
        config: &CacheOptions,
        redis: Option<Redis>,
        registry: &mut Registry,
    ) -> Self {
        let shared = redis.map(|redis| Arc::new(SharedCache::join(redis, &config.namespace)));
        let inner = CacheInner {
            // Between instances the mirror has to be read first.
            table: VersionTable::new(u64::from(shared.is_none())),
            entries: Map::with_weighter(config.max_bytes as usize / USUAL_BYTES, config.max_bytes, Weights),
            flights: Mutex::default(),
            popular_keys: PopularKeys::default(),
            metrics: CacheMetrics::register(registry),
            shared,
            replicas: Replicas::of(database),
            place: Mutex::default(),
            handover_pause: HandoverPause::default(),
        };
        let inner = Arc::new(inner);
        if inner.shared.is_some() {
            tokio::spawn(shared::follow(Arc::downgrade(&inner)));
            tokio::spawn(shared::publish_pending(Arc::downgrade(&inner)));
            tokio::spawn(popular_keys::publish(Arc::downgrade(&inner)));
        }
        Self { inner: Some(inner) }
    }

    /// Follows the standbys that values may be loaded from, until this cache is dropped.
    pub(crate) fn follow_replicas(&self, database: &Database, instance: &Arc<Instance>) {
        if let Some(inner) = &self.inner {
            replicas::follow(inner, database, instance);
        }
    }

    /// Everything that depends on these tags is loaded again from now on. Returns once that is true here, and on
    /// every instance that this one can tell.
    ///
    /// The version of it, where other instances have to be waited for: a reader who sends it sees the write there.
    pub async fn invalidate_by_tag(&self, tags: &[Tag]) -> Option<Version> {
        let inner = self.inner.as_ref().filter(|_| !tags.is_empty())?;
        let slots: Vec<Slot> = tags.iter().map(Tag::slot).collect();
        inner.invalidate(&slots).await
    }

    /// Publishes an invalidation that another process has left; false if that is not possible now.
    pub(crate) async fn publish(&self, slots: &[Slot]) -> bool {
        match &self.inner {
            Some(inner) => inner.invalidate(slots).await.is_some() || inner.shared.is_none(),
            None => false,
        }
    }

    /// Reads `keys`; absent ones are left out.
    pub(crate) async fn read<C: Cached>(
        &self,
        context: &ReadContext,
        read: C,
        keys: &[C::Key],
    ) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
        let Some(recorder) = context.recorder().filter(|recorder| recorder.collects()) else {
            return self.find(context, read, keys).await;
        };
        let found = self.find(&context.tracked(), read.clone(), keys).await?;
        record_dependencies(recorder, &read, keys, &found);
        Ok(found)
    }

    async fn find<C: Cached>(
        &self,
        context: &ReadContext,
        read: C,
        keys: &[C::Key],
    ) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
        match &self.inner {
            _ if keys.is_empty() => Ok(FxHashMap::default()),
            Some(inner) => read::batch(inner, context, read, keys).await,
            None => read.load(context.clone(), Arc::from(keys)).await,
        }
    }

    /// The value of this name, made by `load` where there is none that is valid. One call makes it for all that wait.
    /// `load` gets what it is to read with. Names are of a type: a value of another one is another value;
    /// a type that changes what it consists of needs other names, as deploys may share a Redis.
    ///
    /// # Errors
    /// What `load` returns.
    pub(crate) async fn get_or_set<V, F, L>(
        &self,
        context: &ReadContext,
        name: &str,
        retention: Retention,
        tags: Vec<Tag>,
        load: L,
    ) -> Result<Arc<V>, Error>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<V, Error>> + Send,
        L: Fn(ReadContext) -> F + Clone + Send + Sync + 'static,
    {
        let id = named::id_of(name);
        let mut found = self.read(context, NamedValue::new(retention, tags, load.clone()), &[id]).await?;
        match found.remove(&id) {
            Some(value) => Ok(value),
            // A load that succeeds has one; who says that there is none says anything.
            None => load(context.clone()).await.map(Arc::new),
        }
    }

    /// The values of these names that are there and valid, in the order of the names; one round trip for all that are
    /// not held in this process. `tags` are those that the value was stored with.
    pub(crate) async fn get_many<V, T>(
        &self,
        context: &ReadContext,
        names: &[String],
        tags: T,
    ) -> Vec<Option<Arc<V>>>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        T: Fn(&V) -> Vec<Tag> + Clone + Send + Sync + 'static,
    {
        let Some(inner) = self.inner.as_ref().filter(|_| !names.is_empty()) else {
            return vec![None; names.len()];
        };
        let (read, ids) = (NamedLookup::new(tags), names.iter().map(|name| named::id_of(name)));
        let ids: Vec<Uuid> = ids.collect();
        let found = read::peek(inner, context, read.clone(), &ids).await;
        if let Some(recorder) = context.recorder().filter(|recorder| recorder.collects()) {
            record_dependencies(recorder, &read, &ids, &found);
        }
        ids.iter().map(|id| found.get(id).cloned()).collect()
    }

    /// Stores a value under a name until one of its tags is invalidated or `retention` is over. `version`
    /// must have been taken before the value was read: a value made from older data is then never used.
    pub fn set_with_tags<V>(
        &self,
        name: &str,
        value: Arc<V>,
        retention: Retention,
        tags: &[Tag],
        version: Version,
    ) where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let Some(inner) = &self.inner else { return };
        let slots = tags.iter().map(Tag::slot).collect();
        let (at, took, ttl) = (Instant::now(), Duration::ZERO, retention.ttl);
        let header = Header { version, slots, at, took, ttl, is_strong: false };
        let key = named::key::<V>(name);
        if let Some(shared) = &inner.shared
            && let Some(bytes) = entry::encode(key, &header, Some(&*value))
        {
            shared.fill(&[(key, bytes, ttl)]);
        }
        inner.insert(key, &CacheEntry::new(header, Some(value)));
    }

    /// The version to be taken before a value is read that will be stored by `set_with_tags`.
    pub fn version(&self) -> Version {
        self.inner.as_ref().map_or_else(Version::default, |inner| inner.table.current())
    }

    /// Values held in this process, and their weight in bytes.
    pub fn local_size(&self) -> (u64, u64) {
        let Some(inner) = &self.inner else { return (0, 0) };
        let size = (inner.entries.len() as u64, inner.entries.weight());
        inner.metrics.set_size(size.0, size.1);
        size
    }

    /// Nothing that is cached now is used any more, here and on every instance.
    ///
    /// # Errors
    /// `Unavailable` when the other instances could not be told.
    pub async fn purge(&self) -> Result<(), Unavailable> {
        let Some(inner) = &self.inner else { return Ok(()) };
        inner.entries.clear();
        if let Some(shared) = &inner.shared {
            return shared.purge(&inner.table).await;
        }
        // What is being loaded now is not in the map yet.
        inner.table.renew();
        Ok(())
    }

    /// What other servers have cached in Redis is of this database, as it is here: looked at once, before
    /// anything is read from Redis. From then on it is noted there how far the database is. What may be of a
    /// later time, or of another database, is not used.
    ///
    /// # Errors
    /// `Unavailable` when Redis does not answer, or the database: then Redis is not used yet.
    pub(crate) async fn note_place(&self, database: &Database, place: &Place) -> Result<(), Unavailable> {
        let Some((inner, shared)) =
            self.inner.as_ref().and_then(|inner| Some((inner, inner.shared.as_ref()?)))
        else {
            return Ok(());
        };
        let known = inner.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.as_ref() == Some(place) {
            return Ok(());
        }
        if known.is_none() {
            shared.set_unplaced(true);
            let kept = shared.kept_place().await?;
            // Looked at after that: servers that run note later points all the time.
            let now = database.look_at_place().await.ok().flatten().ok_or(Unavailable)?;
            let is_same =
                |kept: &str| kept.parse().is_ok_and(|kept: Place| !now.may_be_restored_since(&kept));
            // Where none is noted it may have been evicted.
            if !kept.as_deref().is_some_and(is_same) {
                if kept.is_some() {
                    tracing::warn!(
                        "what is cached in Redis may be of another database, or of a time before this one \
                         was restored or restarted; it is not used any more"
                    );
                }
                self.purge().await?;
            }
        }
        *inner.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        shared.set_unplaced(false);
        shared.keep_place(place).await
    }

    /// Nothing is read from Redis until what it holds could be thrown away.
    pub(crate) fn doubt(&self) {
        if let Some(shared) = self.inner.as_ref().and_then(|inner| inner.shared.as_ref()) {
            shared.doubt();
        }
    }

    /// For a cache of this process alone: while others write whom it does not hear, nothing in it is used. What is
    /// held from before is not used afterwards either.
    pub(crate) fn suspend(&self, is_suspended: bool) {
        let Some(inner) = self.inner.as_ref().filter(|inner| inner.shared.is_none()) else { return };
        if is_suspended {
            inner.table.forget();
            inner.entries.clear();
        } else {
            let anew = Version { epoch: fastrand::u64(2..1 << 53), sequence: 1 };
            inner.table.replace(anew, std::iter::empty());
        }
    }

    /// For a cache between instances: as long as servers of the same database use another one, nothing in it is used.
    pub(crate) async fn set_split(&self, is_split: bool) {
        if let Some(inner) = &self.inner
            && let Some(shared) = &inner.shared
        {
            shared.set_split(&inner.table, is_split).await;
        }
    }

    /// Which cache between instances this is, if it is one and could be read once; all who use the same Redis and
    /// namespace have the same id.
    pub(crate) async fn id(&self) -> Option<Uuid> {
        self.inner.as_ref()?.shared.as_ref()?.id().await
    }

    /// Whether there is a cache.
    pub fn is_on(&self) -> bool {
        self.inner.is_some()
    }

    /// Where it is one between instances: whether this instance hears what the others write.
    pub fn follows_others(&self) -> Option<bool> {
        self.is_shared().then(|| self.has_lease())
    }

    /// Whether there is one between instances.
    pub(crate) fn is_shared(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.shared.is_some())
    }

    /// Whether this instance follows the log: what it holds in memory counts then.
    pub fn has_lease(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.shared.as_ref().is_none_or(|shared| shared.has_lease()))
    }
}

/// Records what these values depend on.
fn record_dependencies<C: Cached>(
    recorder: &Recorder,
    read: &C,
    keys: &[C::Key],
    found: &FxHashMap<C::Key, Arc<C::Value>>,
) {
    let dependencies = keys.iter().map(|key| {
        let value = found.get(key);
        (read.tags(*key, value.map(AsRef::as_ref)), value.is_some() || read.caches_absence())
    });
    recorder.record_dependencies(read.is_strong(), dependencies);
}

impl CacheInner {
    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().expect("no panic happens under this lock")
    }

    async fn invalidate(&self, slots: &[Slot]) -> Option<Version> {
        if let Some(shared) = &self.shared {
            return shared.invalidate(&self.table, slots).await;
        }
        self.table.invalidate(slots);
        None
    }

    /// Holds a value in this process.
    fn insert(&self, key: CacheKey, entry: &CacheEntry) {
        if (entry.weight as usize) < entry::MAX_VALUE_BYTES {
            self.entries.insert(key, entry.clone());
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("is_on", &self.inner.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
