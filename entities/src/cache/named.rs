//! Values of a resolver's own, under a name: `get_or_set`, `get` and `set_with_tags` of `Cache` are made of it. Not here:
//! rows, pages and counts, which their domains cache.

use std::{any::type_name, marker::PhantomData, sync::Arc};

use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{Cached, Kept, Tag, entry::Key, read::hash};
use crate::{error::Error, store::Store};

/// A value of a resolver's own.
pub(crate) struct Named<V, L> {
    name: Arc<str>,
    kept: Kept,
    tags: Vec<Tag>,
    load: L,
    value: PhantomData<fn() -> V>,
}

impl<V, L> Named<V, L> {
    pub(crate) fn new(name: &str, kept: Kept, tags: Vec<Tag>, load: L) -> Self {
        Self { name: name.into(), kept, tags, load, value: PhantomData }
    }
}

impl<V> Named<V, ()> {
    /// Where the value of this name is kept.
    pub(crate) fn key(name: &str) -> Key {
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
    L: Fn(Store) -> F + Clone + Send + Sync + 'static,
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

    async fn load(self, store: Store, keys: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<V>>, Error> {
        let value = Arc::new((self.load)(store).await?);
        Ok(keys.iter().map(|key| (*key, Arc::clone(&value))).collect())
    }
}
