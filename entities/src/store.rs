//! The store: the database, the cache in front of it, the events of writes, and what is revoked, in one handle;
//! a clone may read as one request does (`ReadContext`). Not here: connections and statements (`database`), what is
//! read and written (the domains).

use std::{fmt, hash::Hash, sync::Arc};

use prometheus_client::registry::Registry;
use rustc_hash::FxHashMap;
use sea_orm::{DatabaseConnection, EntityTrait, QueryTrait, Select};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    auth::revocation::Revocations,
    cache::{
        AnswerName, Cache, CacheOptions, Cached, ReadContext, Recorder, Retention, Tag, Version,
        instance::{self, Instance, InstanceCounts},
        outbox::{self, PublishedIds},
    },
    database::{
        Database, DatabaseOptions,
        sql::{Cells, Record, Sql},
    },
    error::Error,
    events::{ChangeEvent, Changes, EventBus, EventLog, EventWatch, ResumeToken, Sources, relay},
    redis::{Redis, shared_kv::SharedKv},
};

pub mod list;
pub mod row;
pub(crate) mod transaction;

/// The handle. Cheap to clone; a clone may carry a request's recorder.
#[derive(Clone)]
pub struct Store {
    parts: Arc<StoreParts>,
    context: ReadContext,
}

/// What all clones have in common, beside the database.
#[derive(Clone)]
struct StoreParts {
    cache: Cache,
    /// Where others have to hear of what is written.
    published: Option<Arc<PublishedIds>>,
    instance: Arc<Instance>,
    events: EventBus,
    event_log: EventLog,
    revocations: Arc<Revocations>,
    shared_kv: SharedKv,
}

impl Store {
    /// Connects to the database; nothing is cached, and nobody else is told what is written.
    ///
    /// # Errors
    /// `Unavailable` when the URL is no database that can be reached within `acquire_timeout`; the message never
    /// contains the password.
    pub async fn connect(config: &DatabaseOptions, registry: &mut Registry) -> Result<Self, Error> {
        let database = Database::connect(config, registry).await?;
        let instance = Arc::<Instance>::default();
        instance.register(registry);
        let parts = StoreParts {
            cache: Cache::off(),
            published: None,
            instance,
            events: EventBus::default(),
            event_log: EventLog::register(registry),
            revocations: Arc::default(),
            shared_kv: SharedKv::default(),
        };
        Ok(Self { parts: Arc::new(parts), context: ReadContext::new(database) })
    }

    /// This store, reading through a cache; with a Redis it is one cache for all instances. Metrics go into `registry`.
    #[must_use]
    pub fn with_cache(
        mut self,
        config: &CacheOptions,
        redis: Option<Redis>,
        registry: &mut Registry,
    ) -> Self {
        let cache = Cache::new(self.database(), config, redis, registry);
        cache.follow_replicas(self.database(), &self.parts.instance);
        let published = cache.is_shared().then(Arc::default);
        let parts = Arc::make_mut(&mut self.parts);
        (parts.cache, parts.published) = (cache.clone(), published);
        let instance = Arc::clone(&parts.instance);
        let (database, events) = (self.database().clone(), self.events().clone());
        // Whoever left invalidations behind has told nobody what it changed, either.
        let missed = move || events.publish([ChangeEvent::Lagged].into());
        tokio::spawn(outbox::run(database, cache, instance, self.published(), missed));
        self
    }

    /// This store, whose writes the servers of this database will hear of: for a process that cannot tell them, such
    /// as a command.
    #[must_use]
    pub fn with_outbox(mut self) -> Self {
        Arc::make_mut(&mut self.parts).published = Some(Arc::default());
        self
    }

    /// This store, telling other instances what it writes, hearing what they write, and sharing texts with
    /// them. Stores of one database share a namespace.
    #[must_use]
    pub fn with_relay(mut self, redis: &Redis, namespace: &str) -> Self {
        let parts = Arc::make_mut(&mut self.parts);
        relay::begin(&parts.events, redis, namespace);
        parts.shared_kv = SharedKv::new(redis, namespace);
        self
    }

    /// This store for a reader who must see what was written up to a version, on whatever instance.
    #[must_use]
    pub fn not_before(&self, version: Version) -> Self {
        self.reading_with(self.context.not_before(version))
    }

    /// This store, reporting its statements to `recorder` too.
    #[must_use]
    pub fn recorded_by(&self, recorder: Arc<Recorder>) -> Self {
        self.reading_with(self.context.recorded_by(recorder))
    }

    fn reading_with(&self, context: ReadContext) -> Self {
        Self { parts: Arc::clone(&self.parts), context }
    }

    /// How old reads may be.
    pub fn min_version(&self) -> Option<Version> {
        self.context.min_version()
    }

    /// What it reads with.
    pub(crate) fn context(&self) -> &ReadContext {
        &self.context
    }

    /// The database without the cache.
    pub fn database(&self) -> &Database {
        self.context.database()
    }

    /// What migrations and demo data run on. On PostgreSQL it is opened for them; serving has a pool of its own.
    pub fn connection(&self) -> &DatabaseConnection {
        self.database().connection()
    }

    /// Closes all connections; statements under way finish first, if they do so soon.
    pub async fn close(self) {
        self.database().clone().close().await;
    }

    /// What is cached.
    pub fn cache(&self) -> &Cache {
        &self.parts.cache
    }

    /// What the instances share beside the database.
    pub fn shared_kv(&self) -> &SharedKv {
        &self.parts.shared_kv
    }

    /// Publishes what is written to subscribers.
    pub fn events(&self) -> &EventBus {
        &self.parts.events
    }

    /// Watches what is written, by any process, from now on; with a token, what was written after it. Nothing
    /// is missed, and nothing comes twice. To be begun (`EventWatch::begin`).
    pub fn watch(&self, after: Option<ResumeToken>) -> EventWatch {
        let (database, cache, events) =
            (self.database().clone(), self.cache().clone(), self.events().clone());
        self.parts.event_log.watch(Sources { database, cache, events }, after)
    }

    /// What stands for the end of the log of events, and this store, which reads all that was written before
    /// it. None where the log cannot be read now.
    pub async fn at_resume_token(&self) -> Option<(ResumeToken, Self)> {
        let mut watch = self.watch(None);
        watch.begin().await.ok()?;
        let store = watch.floor().map_or_else(|| self.clone(), |floor| self.not_before(floor));
        watch.token().map(|token| (token, store))
    }

    /// What is known to be revoked.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.parts.revocations
    }

    /// Where invalidations are noted that were published; none, where nobody else needs to be.
    fn published(&self) -> Option<Arc<PublishedIds>> {
        // Without Redis others are told by whoever has one.
        let StoreParts { published, instance, .. } = &*self.parts;
        published.clone().or_else(|| instance.has_sharing_others().then(Arc::default))
    }

    /// Others share a cache, and have to hear of what is written.
    fn has_sharing_others(&self) -> bool {
        self.parts.instance.has_sharing_others()
    }

    /// Whether others have to publish what is written here: a command has nobody else, and a server where its
    /// Redis does not answer and theirs may.
    fn leaves_invalidations(&self) -> bool {
        let cache = self.cache();
        !cache.can_publish() && (!cache.is_on() || self.has_sharing_others())
    }
}

/// Reads.
impl Store {
    pub(crate) fn sql(&self) -> Sql {
        self.database().sql()
    }

    /// Runs a statement and reads each row with `read`.
    pub(crate) async fn fetch<T>(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
        read: impl Fn(&mut Cells<'_>) -> Result<T, sea_orm::sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        self.database().fetch(name, table, sql, read).await
    }

    /// Rows by key in one statement (`Database::by_keys`).
    pub(crate) async fn by_keys<R: Record, K: Eq + Hash>(
        &self,
        name: &'static str,
        matching: impl FnOnce(&mut Sql),
        key: impl Fn(&R) -> K,
    ) -> Result<FxHashMap<K, Arc<R>>, Error> {
        self.database().by_keys(name, matching, key).await
    }

    /// The row that a select finds, if there is one; of it only what `R` has.
    pub(crate) async fn one<R: Record>(
        &self,
        name: &'static str,
        select: Select<R::Entity>,
    ) -> Result<Option<R>, Error> {
        self.database().one(name, select).await
    }

    /// Runs a select about an entity, and reads each row with `read`.
    pub(crate) async fn rows<E: EntityTrait, T>(
        &self,
        name: &'static str,
        entity: E,
        query: &impl QueryTrait,
        read: impl Fn(&mut Cells<'_>) -> Result<T, sea_orm::sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        self.database().rows(name, entity, query, read).await
    }

    /// Reads through the cache.
    pub(crate) async fn cached<C: Cached>(
        &self,
        read: C,
        keys: &[C::Key],
    ) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
        self.cache().read(&self.context, read, keys).await
    }

    /// The value of this name, made by `load` where there is none that is valid. One call makes it for all that wait.
    /// `load` gets the store that it is to read with. Names are of a type: a value of another one is another value;
    /// a type that changes what it consists of needs other names, as deploys may share a Redis.
    ///
    /// # Errors
    /// What `load` returns.
    pub async fn get_or_set<V, F, L>(
        &self,
        name: &str,
        retention: Retention,
        tags: Vec<Tag>,
        load: L,
    ) -> Result<Arc<V>, Error>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<V, Error>> + Send,
        L: Fn(Self) -> F + Clone + Send + Sync + 'static,
    {
        let store = self.clone();
        let load = move |context| load(store.reading_with(context));
        self.cache().get_or_set(&self.context, name, retention, tags, load).await
    }

    /// The values of these names that are there and valid, in the order of the names; one round trip for all that are
    /// not held in this process. `tags` are those that the value was stored with.
    pub async fn get_many<V, T>(&self, names: &[String], tags: T) -> Vec<Option<Arc<V>>>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        T: Fn(&V) -> Vec<Tag> + Clone + Send + Sync + 'static,
    {
        self.cache().get_many(&self.context, names, tags).await
    }

    /// The first of these answers that is held here and still true; decided without reading anything it was made of.
    pub async fn answer<V: Send + Sync + 'static>(&self, names: &[AnswerName]) -> Option<Arc<V>> {
        self.cache().answer(&self.context, names).await
    }
}

/// Upkeep, for as long as a server runs.
impl Store {
    /// Says that this server is there and looks for others, for as long as it is polled (`cache::instance`).
    pub async fn stay_registered(self) {
        let StoreParts { cache, instance, .. } = &*self.parts;
        instance::run(self.database(), cache, instance).await;
    }

    /// This server ends.
    pub async fn deregister(&self) {
        instance::leave(self.database(), &self.parts.instance).await;
    }

    /// How many servers of this database have given a sign of late, as far as clocks agree.
    ///
    /// # Errors
    /// The database's.
    pub async fn count_instances(&self) -> Result<InstanceCounts, Error> {
        instance::count(self.database()).await
    }

    /// Reads what was revoked since the last time, anywhere; says whether the keys have to be read again. Where the
    /// database went back in time, nothing that was cached before is used any more.
    ///
    /// # Errors
    /// The database's.
    pub async fn catch_up_revocations(&self) -> Result<bool, Error> {
        let caught_up = self.revocations().catch_up(self.database()).await?;
        if caught_up.has_gone_back {
            tracing::warn!("the database went back in time; what was cached before is not used any more");
            if self.cache().purge().await.is_err() {
                self.cache().doubt();
                tracing::warn!("Redis could not be told of it; it is not used until it is");
            }
            self.parts.event_log.interrupt();
            // Only here: every other server finds it by itself, and tells its own listeners once.
            self.events().publish_locally(Changes::new(vec![ChangeEvent::Lagged], None));
        }
        if let Some(place) = self.database().place() {
            // Where that cannot be told now, it is the next time.
            let _ = self.cache().note_place(self.database(), &place).await;
        }
        Ok(caught_up.has_keys)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("database", self.database()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
