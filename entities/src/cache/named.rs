//! Values of a resolver's own, under a name: `get_or_set`, `get_many` and `set_with_tags` are made of it. All
//! names of one type are one read, so many are looked for in one round trip. Not here: rows, pages and counts, which
//! their domains cache.

use std::{any::type_name, marker::PhantomData, sync::Arc};

use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    Cached, Kept, ReadContext, Tag,
    entry::Key,
    read::{hash, name_of_read},
};
use crate::error::Error;

const NAMED: &str = "named";

/// Where a name is among the names of its type.
pub(super) fn place(name: &str) -> Uuid {
    Uuid::from_u128(hash(&name))
}

/// Where the value of a name is kept.
pub(super) fn key<V>(name: &str) -> Key {
    Key { of: name_of_read(NAMED, type_name::<V>()), id: place(name) }
}

/// A value of a resolver's own, made where there is none.
pub(super) struct Named<V, L> {
    kept: Kept,
    tags: Vec<Tag>,
    load: L,
    value: PhantomData<fn() -> V>,
}

impl<V, L> Named<V, L> {
    pub(super) fn new(kept: Kept, tags: Vec<Tag>, load: L) -> Self {
        Self { kept, tags, load, value: PhantomData }
    }
}

impl<V, L: Clone> Clone for Named<V, L> {
    fn clone(&self) -> Self {
        Self { tags: self.tags.clone(), load: self.load.clone(), ..*self }
    }
}

impl<V, F, L> Cached for Named<V, L>
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

    fn kept(&self) -> Kept {
        self.kept
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, _: Uuid, _: Option<&V>) -> Vec<Tag> {
        self.tags.clone()
    }

    /// There always is one.
    fn keeps_absent(&self) -> bool {
        false
    }

    async fn load(self, context: ReadContext, keys: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<V>>, Error> {
        let value = Arc::new((self.load)(context).await?);
        Ok(keys.iter().map(|key| (*key, Arc::clone(&value))).collect())
    }
}

/// Values of a resolver's own, as far as there are any.
pub(super) struct Known<V, T> {
    tags: T,
    value: PhantomData<fn() -> V>,
}

impl<V, T> Known<V, T> {
    pub(super) fn new(tags: T) -> Self {
        Self { tags, value: PhantomData }
    }
}

impl<V, T: Clone> Clone for Known<V, T> {
    fn clone(&self) -> Self {
        Self::new(self.tags.clone())
    }
}

impl<V, T> Cached for Known<V, T>
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
    fn kept(&self) -> Kept {
        Kept::for_seconds(0)
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, _: Uuid, value: Option<&V>) -> Vec<Tag> {
        value.map(&self.tags).unwrap_or_default()
    }

    fn keeps_absent(&self) -> bool {
        false
    }

    /// Nothing is made.
    async fn load(self, _: ReadContext, _: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<V>>, Error> {
        Ok(FxHashMap::default())
    }
}
