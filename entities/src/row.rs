//! Rows by id, through the cache: the read behind every edge to one object. Not here: lists (`page`), reads whose
//! result depends on the caller (they stay with their domain).

use std::{hash::Hash, marker::PhantomData, sync::Arc};

use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    cache::{Cached, Kept, Tag},
    error::Error,
    node::Kind,
    sql::Record,
    store::Store,
};

/// A row that has an id of its own.
pub(crate) trait Row: Record + Serialize + DeserializeOwned {
    /// Its type in the graph, and in tags.
    const KIND: Kind;
    /// What the statement is called.
    const BY_IDS: &'static str;
    /// Checked against Redis at each read: what access depends on.
    const IS_STRONG: bool = false;
    /// Is a new row told as a change of its own? Positions and entries of the log are too many for that.
    const IS_ANNOUNCED: bool = true;
    /// The type of its id.
    type Id: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync + 'static;

    /// Its id.
    fn id(&self) -> Self::Id;
}

/// Rows by id; absent ones are left out.
pub(crate) async fn by_ids<R: Row>(store: &Store, ids: &[R::Id]) -> Result<FxHashMap<R::Id, Arc<R>>, Error> {
    store.cached(ById(PhantomData::<fn() -> R>), ids).await
}

struct ById<R>(PhantomData<fn() -> R>);

impl<R> Clone for ById<R> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

/// A write ends the use of a row at once; this is only for what is never written again.
const KEPT: Kept = Kept::for_seconds(300);

impl<R: Row> Cached for ById<R> {
    const STRONG: bool = R::IS_STRONG;
    type Key = R::Id;
    type Value = R;

    fn name(&self) -> &'static str {
        R::BY_IDS
    }

    fn shape(&self) -> &'static str {
        R::SHAPE
    }

    fn kept(&self) -> Kept {
        KEPT
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, key: R::Id, _: Option<&R>) -> Vec<Tag> {
        vec![Tag::Row(R::KIND.as_str(), key.into())]
    }

    fn keeps_absent(&self) -> bool {
        R::IS_ANNOUNCED
    }

    async fn load(self, store: Store, keys: Arc<[R::Id]>) -> Result<FxHashMap<R::Id, Arc<R>>, Error> {
        let matching = |sql: &mut crate::sql::Sql| {
            sql.push("t.id").any_id(&keys);
        };
        store.by_keys(R::BY_IDS, matching, R::id).await
    }
}
