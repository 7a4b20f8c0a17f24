//! Pages and counts through the cache. Who asks is part of the key as far as SQL depends on it: the scope. Not here:
//! how they are read from the database (`list`).

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{Filtering, List};
use crate::{
    cache::{Cached, ReadContext, Retention, Tag},
    database::{
        page::{Keyset, Page, Window},
        scope::Scope,
    },
    error::Error,
    store::Store,
};

/// A write ends the use of a page at once; this bounds what no tag covers.
const RETENTION: Retention = Retention::for_seconds(60);

/// The part of a list that a caller sees.
pub(super) struct Part<R: 'static, F: 'static> {
    pub(super) list: &'static List<R, F>,
    pub(super) scope: Scope,
    pub(super) filter: F,
}

impl<R, F: Clone> Clone for Part<R, F> {
    fn clone(&self) -> Self {
        Self { filter: self.filter.clone(), ..*self }
    }
}

impl<R, F: Filtering> Part<R, F> {
    /// Reads through the cache, if the list is kept.
    pub(super) async fn read<C: Cached<Key = Uuid>>(
        &self,
        store: &Store,
        read: C,
        parents: &[Uuid],
    ) -> Result<FxHashMap<Uuid, Arc<C::Value>>, Error> {
        if self.list.depends_on.is_some() && self.filter.is_repeatable() {
            store.cached(read, parents).await
        } else {
            read.load(store.context().clone(), Arc::from(parents)).await
        }
    }

    fn arguments(&self) -> impl Serialize {
        (self.list.names.page, self.list.names.parent(), self.scope, &self.filter)
    }

    fn tags(&self, parent: Uuid) -> Vec<Tag> {
        self.list.depends_on.map(|tags| tags(parent, &self.scope)).unwrap_or_default()
    }
}

/// A page of the whole list, or one for each parent.
pub(super) struct Pages<R: 'static, F: 'static> {
    pub(super) part: Part<R, F>,
    pub(super) keyset: &'static Keyset<R>,
    pub(super) window: Window,
    pub(super) whole: bool,
}

impl<R, F: Clone> Clone for Pages<R, F> {
    fn clone(&self) -> Self {
        Self { part: self.part.clone(), window: self.window.clone(), ..*self }
    }
}

impl<R, F> Cached for Pages<R, F>
where
    R: Serialize + DeserializeOwned + Send + Sync,
    F: Filtering,
{
    type Key = Uuid;
    type Value = Page<R>;

    fn name(&self) -> &'static str {
        self.part.list.names.page
    }

    fn shape(&self) -> &'static str {
        self.part.list.shape
    }

    fn retention(&self) -> Retention {
        RETENTION
    }

    fn arguments(&self) -> impl Serialize {
        (self.part.arguments(), self.keyset.name, self.keyset.descending, &self.window)
    }

    fn is_strong(&self) -> bool {
        self.part.list.is_strong
    }

    fn tags(&self, parent: Uuid, _: Option<&Page<R>>) -> Vec<Tag> {
        self.part.tags(parent)
    }

    /// There always is one, if an empty one.
    fn caches_absence(&self) -> bool {
        false
    }

    async fn load(
        self,
        context: ReadContext,
        parents: Arc<[Uuid]>,
    ) -> Result<FxHashMap<Uuid, Arc<Page<R>>>, Error> {
        let Self { part: Part { list, scope, filter }, keyset, window, whole } = self;
        if whole {
            let page = list.load_page(context.database(), &scope, &filter, keyset, &window).await?;
            return Ok([(Uuid::nil(), Arc::new(page))].into_iter().collect());
        }
        list.load_pages(context.database(), &scope, &filter, keyset, &window, &parents).await
    }
}

/// How long the whole list is, or each parent's.
pub(super) struct Counts<R: 'static, F: 'static> {
    pub(super) part: Part<R, F>,
    pub(super) whole: bool,
}

impl<R, F: Clone> Clone for Counts<R, F> {
    fn clone(&self) -> Self {
        Self { part: self.part.clone(), ..*self }
    }
}

impl<R, F> Cached for Counts<R, F>
where
    R: Serialize + DeserializeOwned + Send + Sync,
    F: Filtering,
{
    type Key = Uuid;
    type Value = i64;

    fn name(&self) -> &'static str {
        self.part.list.names.count
    }

    fn shape(&self) -> &'static str {
        "count"
    }

    fn retention(&self) -> Retention {
        RETENTION
    }

    fn arguments(&self) -> impl Serialize {
        self.part.arguments()
    }

    fn is_strong(&self) -> bool {
        self.part.list.is_strong
    }

    fn tags(&self, parent: Uuid, _: Option<&i64>) -> Vec<Tag> {
        self.part.tags(parent)
    }

    /// There always is one, if a zero.
    fn caches_absence(&self) -> bool {
        false
    }

    async fn load(
        self,
        context: ReadContext,
        parents: Arc<[Uuid]>,
    ) -> Result<FxHashMap<Uuid, Arc<i64>>, Error> {
        let Self { part: Part { list, scope, filter }, whole } = self;
        let counts = if whole {
            [(Uuid::nil(), list.load_count(context.database(), &scope, &filter).await?)].into_iter().collect()
        } else {
            list.load_counts(context.database(), &scope, &filter, &parents).await?
        };
        Ok(counts.into_iter().map(|(parent, count)| (parent, Arc::new(count))).collect())
    }
}
