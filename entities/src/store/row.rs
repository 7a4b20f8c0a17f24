//! Batch reads of at most one value for each key (`Finder`): rows by id, through the cache, and the same where only the
//! database can say who may see a row (`Find`). Not here: lists (`list`).

use std::{
    hash::{Hash, Hasher},
    marker::PhantomData,
    sync::Arc,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use rustc_hash::FxHashMap;
use sea_orm::EntityTrait;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    cache::{Cached, ReadContext, Retention, Tag},
    database::{
        scope::Scope,
        sql::{Record, Sql},
    },
    error::Error,
    id::{Id, NodeKind},
    store::Store,
};

/// A batch read as its domain declares it, once: at most one value for each key. Whoever loads by it, such as the edges
/// of the graph, needs to know nothing else.
pub struct Finder<K: 'static, V: 'static> {
    name: &'static str,
    is_scoped: bool,
    read: ReadFn<K, V>,
}

type Found<K, V> = Result<FxHashMap<K, Arc<V>>, Error>;
type ReadFn<K, V> = for<'a> fn(&'a Store, &'a Scope, &'a [K]) -> BoxFuture<'a, Found<K, V>>;

impl<K, V> Finder<K, V> {
    /// Rows by id. Who may see a row is decided on the row.
    pub(crate) const fn by_id() -> Self
    where
        K: Id,
        V: ById<Id = K>,
    {
        Self { name: V::BY_IDS, is_scoped: false, read: |store, _, ids| by_ids(store, ids).boxed() }
    }

    /// A read that finds the same for everybody: who may see it was decided before, or is decided on the value.
    pub(crate) const fn open(name: &'static str, read: ReadFn<K, V>) -> Self {
        Self { name, is_scoped: false, read }
    }

    /// A read that finds what the scope reaches.
    pub(crate) const fn scoped(name: &'static str, read: ReadFn<K, V>) -> Self {
        Self { name, is_scoped: true, read }
    }

    /// What the read is called, `domain.read`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Does it depend on the scope what it finds?
    pub fn is_scoped(&self) -> bool {
        self.is_scoped
    }

    /// The values of these keys; keys without one are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn find(&self, store: &Store, scope: &Scope, keys: &[K]) -> Found<K, V> {
        (self.read)(store, scope, keys).await
    }
}

/// Each declaration is another finder, so that loaders can be compared.
impl<K, V> PartialEq for Finder<K, V> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl<K, V> Eq for Finder<K, V> {}

impl<K, V> Hash for Finder<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// What is read of a table by the id that its rows have.
pub(crate) trait ById: Record + Serialize + DeserializeOwned {
    /// What the statement is called.
    const BY_IDS: &'static str;
    /// Checked against Redis at each read: what access depends on.
    const IS_STRONG: bool = false;
    /// Is a new row told as a change of its own? Positions and entries of the log are too many for that.
    const IS_ANNOUNCED: bool = true;
    /// The column of its id.
    const ID: <Self::Entity as EntityTrait>::Column;
    /// The type of its id.
    type Id: Id;

    /// Its id.
    fn id(&self) -> Self::Id;
}

/// Rows by id; absent ones are left out.
pub(crate) async fn by_ids<R: ById>(store: &Store, ids: &[R::Id]) -> Result<FxHashMap<R::Id, Arc<R>>, Error> {
    store.cached(Rows(PhantomData::<fn() -> R>), ids).await
}

struct Rows<R>(PhantomData<fn() -> R>);

impl<R> Clone for Rows<R> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

/// A write ends the use of a row at once; this is only for what is never written again.
const RETENTION: Retention = Retention::for_seconds(300);

impl<R: ById> Cached for Rows<R> {
    type Key = R::Id;
    type Value = R;

    fn name(&self) -> &'static str {
        R::BY_IDS
    }

    fn shape(&self) -> &'static str {
        R::SHAPE
    }

    fn retention(&self) -> Retention {
        RETENTION
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, key: R::Id, _: Option<&R>) -> Vec<Tag> {
        let kind = R::Id::KIND.as_str();
        let mut tags = vec![Tag::Row(kind, key.into())];
        if !R::IS_ANNOUNCED {
            // Old ones are removed many at a time (`retention`).
            tags.push(Tag::Type(kind));
        }
        tags
    }

    fn is_strong(&self) -> bool {
        R::IS_STRONG
    }

    fn rows_of(&self) -> Option<NodeKind> {
        Some(R::Id::KIND)
    }

    fn caches_absence(&self) -> bool {
        R::IS_ANNOUNCED
    }

    async fn load(self, context: ReadContext, keys: Arc<[R::Id]>) -> Result<FxHashMap<R::Id, Arc<R>>, Error> {
        let matching = |sql: &mut Sql| {
            sql.filter(R::ID).any_id(&keys);
        };
        context.database().by_keys(R::BY_IDS, matching, R::id).await
    }
}

/// One row for each key, as far as a scope reaches: a read that a domain declares once.
pub(crate) struct Find<K: 'static, R: 'static> {
    /// What the statement is called.
    pub(crate) name: &'static str,
    /// ` WHERE …`.
    pub(crate) matching: fn(&mut Sql, &[K], &Scope),
    /// Under which key a row is found.
    pub(crate) key: fn(&R) -> K,
    /// What the row of a key depends on, and who may see it.
    pub(crate) tags: fn(K, Option<&R>) -> Vec<Tag>,
    /// Do the tags without a row cover the write that brings one?
    pub(crate) caches_absence: bool,
}

impl<K, R> Find<K, R>
where
    K: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync,
    R: Record + Serialize + DeserializeOwned,
{
    /// Reads the rows of these keys.
    pub(crate) async fn rows(
        &'static self,
        store: &Store,
        scope: &Scope,
        keys: &[K],
    ) -> Result<FxHashMap<K, Arc<R>>, Error> {
        store.cached(ScopedRows { find: self, scope: *scope }, keys).await
    }
}

struct ScopedRows<K: 'static, R: 'static> {
    find: &'static Find<K, R>,
    scope: Scope,
}

impl<K, R> Clone for ScopedRows<K, R> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<K, R> Cached for ScopedRows<K, R>
where
    K: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync,
    R: Record + Serialize + DeserializeOwned,
{
    type Key = K;
    type Value = R;

    fn name(&self) -> &'static str {
        self.find.name
    }

    fn shape(&self) -> &'static str {
        R::SHAPE
    }

    fn retention(&self) -> Retention {
        RETENTION
    }

    fn arguments(&self) -> impl Serialize {
        self.scope
    }

    fn tags(&self, key: K, value: Option<&R>) -> Vec<Tag> {
        (self.find.tags)(key, value)
    }

    fn caches_absence(&self) -> bool {
        self.find.caches_absence
    }

    async fn load(self, context: ReadContext, keys: Arc<[K]>) -> Result<FxHashMap<K, Arc<R>>, Error> {
        let Self { find, scope } = self;
        let matching = |sql: &mut Sql| (find.matching)(sql, &keys, &scope);
        context.database().by_keys(find.name, matching, find.key).await
    }
}
