//! Rows by id, through the cache: the read behind every edge to one object, and the same where only the database can
//! say who may see a row (`Find`). Not here: lists (`list`).

use std::{hash::Hash, marker::PhantomData, sync::Arc};

use rustc_hash::FxHashMap;
use sea_orm::EntityTrait;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    cache::{Cached, ReadContext, Retention, Tag},
    database::{
        kind::Kind,
        scope::Scope,
        sql::{Record, Sql},
    },
    error::Error,
    store::Store,
};

/// What is read of a table by the id that its rows have.
pub(crate) trait ById: Record + Serialize + DeserializeOwned {
    /// Its type in the graph, and in tags.
    const KIND: Kind;
    /// What the statement is called.
    const BY_IDS: &'static str;
    /// Checked against Redis at each read: what access depends on.
    const IS_STRONG: bool = false;
    /// Is a new row told as a change of its own? Positions and entries of the log are too many for that.
    const IS_ANNOUNCED: bool = true;
    /// The column of its id.
    const ID: <Self::Entity as EntityTrait>::Column;
    /// The type of its id.
    type Id: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync + 'static;

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
        vec![Tag::Row(R::KIND.as_str(), key.into())]
    }

    fn is_strong(&self) -> bool {
        R::IS_STRONG
    }

    fn rows_of(&self) -> Option<Kind> {
        Some(R::KIND)
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
