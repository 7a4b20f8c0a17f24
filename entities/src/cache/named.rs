//! Values of a resolver's own, under a name: `get_or_set`, `get_many` and `set_with_tags` are made of it. All
//! names of one type are one read, so many are looked for in one round trip. Not here: rows, pages and counts, which
//! their domains cache.

use std::{any::type_name, marker::PhantomData, sync::Arc};

use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    Cached, ReadContext, Retention, Tag,
    entry::CacheKey,
    read::{hash, name_of_read},
};
use crate::error::Error;

const NAMED: &str = "named";

/// Where a name is among the names of its type.
pub(super) fn id_of(name: &str) -> Uuid {
    Uuid::from_u128(hash(&name))
}

/// Where the value of a name is kept.
pub(super) fn key<V>(name: &str) -> CacheKey {
    CacheKey { of: name_of_read(NAMED, type_name::<V>()), id: id_of(name) }
}

/// A value of a resolver's own, made where there is none.
pub(super) struct NamedValue<V, L> {
    retention: Retention,
    tags: Vec<Tag>,
    load: L,
    value: PhantomData<fn() -> V>,
}

impl<V, L> NamedValue<V, L> {
    pub(super) fn new(retention: Retention, tags: Vec<Tag>, load: L) -> Self {
        Self { retention, tags, load, value: PhantomData }
    }
}

impl<V, L: Clone> Clone for NamedValue<V, L> {
    fn clone(&self) -> Self {
        Self { tags: self.tags.clone(), load: self.load.clone(), ..*self }
    }
}

impl<V, F, L> Cached for NamedValue<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<V, Error>> + Send,
    L: Fn(ReadContext) -> F + Clone + Send + Sync + 'static,
{
    type Key = Uuid;
    type Value = V;

    fn name(&self) -> &'static str {
        NAMED
    }

    fn shape(&self) -> &'static str {
        type_name::<V>()
    }

    fn retention(&self) -> Retention {
        self.retention
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, _: Uuid, _: Option<&V>) -> Vec<Tag> {
        self.tags.clone()
    }

    /// There always is one.
    fn caches_absence(&self) -> bool {
        false
    }

    /// It is a resolver's own, which may read anything.
    fn may_be_on_replica(&self) -> bool {
        false
    }

    async fn load(self, context: ReadContext, keys: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<V>>, Error> {
        let value = Arc::new((self.load)(context).await?);
        Ok(keys.iter().map(|key| (*key, Arc::clone(&value))).collect())
    }
}

/// Values of a resolver's own, as far as there are any.
pub(super) struct NamedLookup<V, T> {
    tags: T,
    value: PhantomData<fn() -> V>,
}

impl<V, T> NamedLookup<V, T> {
    pub(super) fn new(tags: T) -> Self {
        Self { tags, value: PhantomData }
    }
}

impl<V, T: Clone> Clone for NamedLookup<V, T> {
    fn clone(&self) -> Self {
        Self::new(self.tags.clone())
    }
}

impl<V, T> Cached for NamedLookup<V, T>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    T: Fn(&V) -> Vec<Tag> + Clone + Send + Sync + 'static,
{
    type Key = Uuid;
    type Value = V;

    fn name(&self) -> &'static str {
        NAMED
    }

    fn shape(&self) -> &'static str {
        type_name::<V>()
    }

    /// What is in the cache has its own.
    fn retention(&self) -> Retention {
        Retention::for_seconds(0)
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, _: Uuid, value: Option<&V>) -> Vec<Tag> {
        value.map(&self.tags).unwrap_or_default()
    }

    fn caches_absence(&self) -> bool {
        false
    }

    /// Nothing is made.
    async fn load(self, _: ReadContext, _: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<V>>, Error> {
        Ok(FxHashMap::default())
    }
}
