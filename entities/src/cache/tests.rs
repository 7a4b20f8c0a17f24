//! The promise, against a database of versions that can be held up: reads, writes, races, failures. The same race
//! run over a design that is common elsewhere must show stale reads, or the test could not see any.

mod race;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::registry::Registry;
use rustc_hash::FxHashMap;
use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinHandle};
use uuid::Uuid;

use super::{
    AnswerName, Cache, CacheEntry, CacheOptions, Cached, DependencySet, Header, ReadContext, Retention, Tag,
};
use crate::{database::DatabaseOptions, error::Error, store::Store};

/// Rows that are nothing but a version, and a gate in front of the answer.
struct Versions {
    rows: Mutex<HashMap<Uuid, u64>>,
    loads: AtomicU64,
    /// Loads wait here between reading the row and returning it.
    gate: Semaphore,
    waiting: Semaphore,
    is_gated: AtomicBool,
    is_down: AtomicBool,
    /// Loads take a moment of random length.
    is_slow: bool,
}

impl Versions {
    fn new(is_slow: bool) -> Arc<Self> {
        Arc::new(Self {
            rows: Mutex::default(),
            loads: AtomicU64::new(0),
            gate: Semaphore::new(0),
            waiting: Semaphore::new(0),
            is_gated: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            is_slow,
        })
    }

    fn commit(&self, key: Uuid, version: u64) {
        self.rows.lock().unwrap().insert(key, version);
    }

    fn version(&self, key: Uuid) -> Option<u64> {
        self.rows.lock().unwrap().get(&key).copied()
    }

    fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    async fn load(&self, keys: &[Uuid]) -> Result<FxHashMap<Uuid, Arc<u64>>, Error> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Error::Refused("the database is down".to_owned()));
        }
        let found = keys.iter().filter_map(|key| Some((*key, Arc::new(self.version(*key)?)))).collect();
        if self.is_gated.load(Ordering::SeqCst) {
            self.waiting.add_permits(1);
            self.gate.acquire().await.expect("it stays open").forget();
        }
        if self.is_slow {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..3_000))).await;
        }
        Ok(found)
    }
}

#[derive(Clone)]
struct Read {
    of: Arc<Versions>,
    retention: Retention,
}

impl Cached for Read {
    type Key = Uuid;
    type Value = u64;

    fn name(&self) -> &'static str {
        "version"
    }

    fn shape(&self) -> &'static str {
        "u64"
    }

    fn retention(&self) -> Retention {
        self.retention
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, key: Uuid, _: Option<&u64>) -> Vec<Tag> {
        vec![Tag::Row("Version", key)]
    }

    async fn load(self, _: ReadContext, keys: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<u64>>, Error> {
        self.of.load(&keys).await
    }
}

/// A cache over versions.
#[derive(Clone)]
struct Node {
    store: Store,
    versions: Arc<Versions>,
    retention: Retention,
}

impl Node {
    async fn over(versions: &Arc<Versions>) -> Self {
        let config = DatabaseOptions::at("sqlite::memory:");
        let mut registry = Registry::default();
        let store = Store::connect(&config, &mut registry).await.expect("memory is there");
        let store = store.with_cache(&CacheOptions::default(), None, &mut registry);
        Self { store, versions: Arc::clone(versions), retention: Retention::for_seconds(600) }
    }

    fn cache(&self) -> &Cache {
        self.store.cache()
    }

    async fn try_read(&self, key: Uuid) -> Result<Option<u64>, Error> {
        let read = Read { of: Arc::clone(&self.versions), retention: self.retention };
        let found = self.store.cached(read, &[key]).await?;
        Ok(found.get(&key).map(|version| **version))
    }

    async fn read(&self, key: Uuid) -> Option<u64> {
        self.try_read(key).await.expect("the database is up")
    }

    /// A read in a task of its own.
    fn reader(&self, key: Uuid) -> JoinHandle<Option<u64>> {
        let instance = self.clone();
        tokio::spawn(async move { instance.read(key).await })
    }

    /// A read in a task of its own that has read the row and is held up before it returns it; so are all
    /// loads from now on.
    async fn held_up(&self, key: Uuid) -> JoinHandle<Option<u64>> {
        self.versions.is_gated.store(true, Ordering::SeqCst);
        let reader = self.reader(key);
        self.versions.waiting.acquire().await.expect("it stays open").forget();
        reader
    }

    /// Commits, and returns when the write would be answered.
    async fn write(&self, key: Uuid, version: u64) {
        self.versions.commit(key, version);
        self.cache().invalidate_by_tag(&[Tag::Row("Version", key)]).await;
    }
}

const KEY: Uuid = Uuid::from_u128(1);

/// A read whose tags are known only from what it has read: a version, and the tag of its tens.
#[derive(Clone)]
struct ByTens(Arc<Versions>);

impl Cached for ByTens {
    type Key = Uuid;
    type Value = u64;

    fn name(&self) -> &'static str {
        "tens"
    }

    fn shape(&self) -> &'static str {
        "u64"
    }

    fn retention(&self) -> Retention {
        Retention::for_seconds(600)
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, _: Uuid, version: Option<&u64>) -> Vec<Tag> {
        version.map(|version| tens(*version)).into_iter().collect()
    }

    async fn load(self, _: ReadContext, keys: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<u64>>, Error> {
        self.0.load(&keys).await
    }
}

fn tens(version: u64) -> Tag {
    Tag::Named(format!("tens {}", version / 10))
}

#[tokio::test]
async fn a_value_is_loaded_once_until_it_is_written() {
    let versions = Versions::new(false);
    let instance = Node::over(&versions).await;
    instance.write(KEY, 1).await;
    assert_eq!((instance.read(KEY).await, instance.read(KEY).await, versions.loads()), (Some(1), Some(1), 1));
    instance.write(KEY, 2).await;
    assert_eq!((instance.read(KEY).await, instance.read(KEY).await, versions.loads()), (Some(2), Some(2), 2));
    instance.write(Uuid::from_u128(2), 1).await;
    assert_eq!(
        (instance.read(KEY).await, versions.loads()),
        (Some(2), 2),
        "another row's write costs nothing"
    );
}

#[tokio::test]
async fn a_cached_absence_ends_with_an_insert() {
    let versions = Versions::new(false);
    let instance = Node::over(&versions).await;
    assert_eq!((instance.read(KEY).await, instance.read(KEY).await, versions.loads()), (None, None, 1));
    instance.write(KEY, 1).await;
    assert_eq!(instance.read(KEY).await, Some(1));
}

#[tokio::test]
async fn a_load_started_before_a_write_is_discarded() {
    let versions = Versions::new(false);
    let instance = Node::over(&versions).await;
    versions.commit(KEY, 1);
    let slow = instance.held_up(KEY).await;
    // The slow reader holds version 1 in its hands; now it is overwritten.
    instance.write(KEY, 2).await;
    versions.is_gated.store(false, Ordering::SeqCst);
    assert_eq!(instance.read(KEY).await, Some(2), "who comes later does not join the old load");
    versions.gate.add_permits(1);
    assert_eq!(slow.await.expect("it ends"), Some(1), "who came before may see what was then");
    assert_eq!(instance.read(KEY).await, Some(2), "and leaves nothing behind");
}

#[tokio::test]
async fn readers_of_the_same_key_share_one_load() {
    let versions = Versions::new(false);
    let instance = Node::over(&versions).await;
    versions.commit(KEY, 1);
    versions.is_gated.store(true, Ordering::SeqCst);
    let readers: Vec<_> = (0..50).map(|_| instance.reader(KEY)).collect();
    versions.waiting.acquire().await.expect("it stays open").forget();
    tokio::task::yield_now().await;
    versions.gate.add_permits(50);
    for reader in readers {
        assert_eq!(reader.await.expect("it ends"), Some(1));
    }
    assert_eq!(versions.loads(), 1);
}

#[tokio::test]
async fn a_reader_who_goes_away_takes_nobody_along() {
    let versions = Versions::new(false);
    let instance = Node::over(&versions).await;
    versions.commit(KEY, 1);
    let first = instance.held_up(KEY).await;
    let second = instance.reader(KEY);
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.is_err());
    versions.gate.add_permits(10);
    assert_eq!(second.await.expect("it ends"), Some(1));
    assert_eq!(instance.read(KEY).await, Some(1));
}

#[tokio::test]
async fn without_the_database_only_what_nobody_wrote_to_is_used() {
    let versions = Versions::new(false);
    let mut instance = Node::over(&versions).await;
    instance.retention = Retention { ttl: Duration::ZERO, stale_if_error: Duration::from_mins(1) };
    instance.write(KEY, 1).await;
    assert_eq!(instance.read(KEY).await, Some(1));
    versions.is_down.store(true, Ordering::SeqCst);
    assert_eq!(instance.read(KEY).await, Some(1), "too old, but still true");
    instance.write(KEY, 2).await;
    assert!(instance.try_read(KEY).await.is_err(), "written to since: never");
}

#[tokio::test]
async fn stale_values_are_used_only_for_complete_batches() {
    let versions = Versions::new(false);
    let mut instance = Node::over(&versions).await;
    instance.retention = Retention { ttl: Duration::ZERO, stale_if_error: Duration::from_mins(1) };
    versions.commit(KEY, 1);
    assert_eq!(instance.read(KEY).await, Some(1));
    versions.is_down.store(true, Ordering::SeqCst);
    let read = Read { of: Arc::clone(&versions), retention: instance.retention };
    let both = instance.store.cached(read, &[KEY, Uuid::from_u128(2)]).await;
    assert!(both.is_err(), "that there is no second one is not known");
}

#[tokio::test]
async fn dependencies_may_be_known_only_from_the_value() {
    let versions = Versions::new(false);
    let instance = Node::over(&versions).await;
    versions.commit(KEY, 17);
    let read = async || {
        let found = instance.store.cached(ByTens(Arc::clone(&versions)), &[KEY]).await;
        found.expect("the database is up").get(&KEY).map(|version| **version)
    };
    assert_eq!((read().await, read().await, versions.loads()), (Some(17), Some(17), 1));
    instance.cache().invalidate_by_tag(&[tens(20)]).await;
    assert_eq!((read().await, versions.loads()), (Some(17), 1), "another tag");
    // Invalidated while it is loaded: the load had seen the row before.
    instance.cache().invalidate_by_tag(&[tens(17)]).await;
    versions.is_gated.store(true, Ordering::SeqCst);
    let slow = async {
        versions.waiting.acquire().await.expect("it stays open").forget();
        versions.commit(KEY, 18);
        instance.cache().invalidate_by_tag(&[tens(17)]).await;
        versions.is_gated.store(false, Ordering::SeqCst);
        versions.gate.add_permits(1);
    };
    let (old, ()) = tokio::join!(read(), slow);
    assert_eq!(old, Some(17), "who came before may see what was then");
    assert_eq!(read().await, Some(18));
}

#[tokio::test]
async fn refreshes_and_absences_from_before_a_write_are_discarded() {
    let versions = Versions::new(false);
    let mut instance = Node::over(&versions).await;
    instance.retention = Retention { ttl: Duration::from_secs(3), ..instance.retention };
    versions.commit(KEY, 1);
    let gated = |is_gated| versions.is_gated.store(is_gated, Ordering::SeqCst);
    let begun = async || versions.waiting.acquire().await.expect("it stays open").forget();
    // The load takes a second, so busy readers load again seconds before the value expires.
    gated(true);
    let long = async {
        begun().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        versions.gate.add_permits(1);
    };
    let (first, ()) = tokio::join!(instance.read(KEY), long);
    assert_eq!(first, Some(1));
    for _ in 0..10_000 {
        assert_eq!(instance.read(KEY).await, Some(1));
        tokio::task::yield_now().await;
        if versions.loads() == 2 {
            break;
        }
    }
    assert_eq!(versions.loads(), 2, "it is loaded again beside its readers");
    begun().await;
    instance.write(KEY, 2).await;
    gated(false);
    versions.gate.add_permits(1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(instance.read(KEY).await, Some(2), "the refresh had seen the row before");

    let absent = Uuid::from_u128(2);
    gated(true);
    let insert = async {
        begun().await;
        instance.write(absent, 1).await;
        gated(false);
        versions.gate.add_permits(1);
    };
    let (nothing, ()) = tokio::join!(instance.read(absent), insert);
    assert_eq!((nothing, instance.read(absent).await), (None, Some(1)));
}

#[tokio::test]
async fn a_resolver_keeps_something_of_its_own() {
    let versions = Versions::new(false);
    let instance = Node::over(&versions).await;
    let (cache, retention) = (instance.cache(), Retention::for_seconds(60));
    let made = Arc::new(AtomicU64::new(0));
    let tag = Tag::Named("summaries".to_owned());
    let get = || {
        let made = Arc::clone(&made);
        let load = move |_| {
            let number = made.fetch_add(1, Ordering::SeqCst);
            async move { Ok(format!("summary {number}")) }
        };
        instance.store.get_or_set("summary", retention, vec![tag.clone()], load)
    };
    assert_eq!(*get().await.expect("it is made"), "summary 0");
    assert_eq!(*get().await.expect("it is kept"), "summary 0");
    cache.invalidate_by_tag(std::slice::from_ref(&tag)).await;
    assert_eq!(*get().await.expect("it is made again"), "summary 1");

    let version = cache.version();
    cache.set_with_tags(
        "summary",
        Arc::new("set".to_owned()),
        retention,
        std::slice::from_ref(&tag),
        version,
    );
    assert_eq!(*get().await.expect("it is kept"), "set");
    cache.invalidate_by_tag(std::slice::from_ref(&tag)).await;
    cache.set_with_tags(
        "summary",
        Arc::new("late".to_owned()),
        retention,
        std::slice::from_ref(&tag),
        version,
    );
    assert_eq!(
        *get().await.expect("it is made again"),
        "summary 2",
        "what was read before the write is not used"
    );
}

#[tokio::test]
async fn a_resolver_reads_many_named_values_at_once() {
    let instance = Node::over(&Versions::new(false)).await;
    let (cache, retention) = (instance.cache(), Retention::for_seconds(60));
    let tag = |value: &u64| Tag::Named(format!("square {value}"));
    let names: Vec<String> = (0..4).map(|number| format!("square of {number}")).collect();
    let get = async || -> Vec<Option<u64>> {
        let known = instance.store.get_many(&names, move |value: &u64| vec![tag(value)]).await;
        known.into_iter().map(|value| value.map(|value| *value)).collect()
    };
    assert_eq!(get().await, [None; 4]);
    let version = cache.version();
    for number in [1, 3_u64] {
        let name = &names[number as usize];
        cache.set_with_tags(name, Arc::new(number * number), retention, &[tag(&(number * number))], version);
    }
    assert_eq!(get().await, [None, Some(1), None, Some(9)], "in the order of the names");
    cache.invalidate_by_tag(&[tag(&9)]).await;
    assert_eq!(get().await, [None, Some(1), None, None]);
    // Names are of a type.
    let texts = instance.store.get_many(&names, |_: &String| Vec::new()).await;
    assert_eq!(texts, [const { None }; 4]);
}

/// Some keys are loaded for this reader, some for another: where both fail, each has its old value.
#[tokio::test]
async fn stale_values_replace_own_and_joined_failed_loads() {
    let versions = Versions::new(false);
    let mut instance = Node::over(&versions).await;
    instance.retention = Retention { ttl: Duration::ZERO, stale_if_error: Duration::from_mins(1) };
    let keys = [KEY, Uuid::from_u128(2)];
    for key in keys {
        versions.commit(key, 1);
        assert_eq!(instance.read(key).await, Some(1));
    }
    let other = instance.held_up(KEY).await;
    versions.is_down.store(true, Ordering::SeqCst);
    let read = Read { of: Arc::clone(&versions), retention: instance.retention };
    let both = tokio::spawn({
        let instance = instance.clone();
        async move { instance.store.cached(read, &keys).await }
    });
    tokio::task::yield_now().await;
    other.abort();
    let both = both.await.expect("it ends").expect("there is an old value for each key");
    assert_eq!(both.len(), 2);
}

/// What changed in the database behind everybody's back is what a purge is for.
#[tokio::test]
async fn a_load_started_before_a_purge_is_discarded() {
    let versions = Versions::new(false);
    let instance = Node::over(&versions).await;
    versions.commit(KEY, 1);
    let slow = instance.held_up(KEY).await;
    versions.commit(KEY, 2);
    instance.cache().purge().await.expect("a purge without Redis succeeds");
    versions.is_gated.store(false, Ordering::SeqCst);
    versions.gate.add_permits(1);
    assert_eq!(slow.await.expect("it ends"), Some(1), "who came before may see what was then");
    assert_eq!(instance.read(KEY).await, Some(2));
}

/// Redis may hold anything, also that there is no value where there always is one.
#[tokio::test]
async fn a_value_that_is_said_to_be_absent_is_made() {
    let instance = Node::over(&Versions::new(false)).await;
    let cache = instance.cache();
    let inner = cache.inner.as_ref().expect("it is on");
    let header = Header {
        version: inner.table.current(),
        slots: Box::default(),
        at: std::time::Instant::now(),
        took: Duration::ZERO,
        ttl: Duration::from_mins(1),
        is_strong: false,
    };
    inner.insert(super::named::key::<String>("it"), &CacheEntry::new::<String>(header, None));
    let load = |_| async { Ok("made".to_owned()) };
    let got = instance.store.get_or_set("it", Retention::for_seconds(60), Vec::new(), load).await;
    assert_eq!(*got.expect("it is made"), "made");
}

/// An answer keeps its tags, and a short one may have many.
#[tokio::test]
async fn the_tags_of_an_answer_weigh_something() {
    let instance = Node::over(&Versions::new(false)).await;
    let (cache, mut dependencies) = (instance.cache(), DependencySet::default());
    dependencies.add((0..1_000).map(|number| Tag::Row("Form", Uuid::from_u128(number))).collect(), false);
    let name = AnswerName::of(&"short");
    cache.insert_answer(name, Arc::new(()), 20, Retention::for_seconds(60), &dependencies, cache.version());
    let (values, bytes) = cache.local_size();
    assert_eq!(values, 1);
    assert!(bytes > 1_000 * size_of::<Tag>() as u64, "{bytes}");
}

/// A reader of whom it is not known what was written before it may still join what began after it.
#[tokio::test]
async fn without_versions_a_load_serves_earlier_readers_only() {
    let versions = Versions::new(false);
    let mut instance = Node::over(&versions).await;
    // Nothing answers there: every stamp is unknown.
    let silent = "redis://127.0.0.1:1".parse().expect("a URL");
    let mut registry = Registry::default();
    let redis = crate::redis::Redis::new(&silent, &mut registry);
    instance.store = instance.store.with_cache(&CacheOptions::default(), Some(redis), &mut registry);
    versions.commit(KEY, 1);
    versions.is_gated.store(true, Ordering::SeqCst);
    let readers: Vec<_> = (0..50).map(|_| instance.reader(KEY)).collect();
    versions.waiting.acquire().await.expect("it stays open").forget();
    instance.write(KEY, 2).await;
    let late = instance.reader(KEY);
    versions.waiting.acquire().await.expect("it stays open").forget();
    versions.gate.add_permits(50);
    for reader in readers {
        assert!(reader.await.expect("it ends").is_some());
    }
    assert_eq!(late.await.expect("it ends"), Some(2), "who comes later does not join the old load");
    assert!(versions.loads() < 10, "{} loads for 51 readers", versions.loads());
}
