//! Pages and counts through the cache. Who asks is part of the key as far as SQL depends on it: the scope. Not here:
//! how they are read from the database (`list`).

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{Filtering, List, Parent};
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

/// The rows of a list (`&'static List`) that a filter and a scope leave.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Part<L, F> {
    pub(super) list: L,
    pub(super) scope: Scope,
    pub(super) filter: F,
}

type PartOf<R, F> = Part<&'static List<R, F>, F>;

impl<R, F> PartOf<R, F> {
    /// What the statement of a page is called.
    pub fn page_name(&self) -> &'static str {
        self.list.names.page
    }

    /// What the statement of a count is called.
    pub fn count_name(&self) -> &'static str {
        self.list.names.count
    }
}

impl<R, F> PartOf<R, F>
where
    R: Serialize + DeserializeOwned + Send + Sync,
    F: Filtering,
{
    /// A page for each parent, in one statement; a parent without rows has an empty one. A list that is read whole has
    /// one parent, which is nil.
    ///
    /// # Errors
    /// The database's.
    pub async fn pages<P: Parent>(
        &self,
        store: &Store,
        keyset: &'static Keyset<R>,
        window: &Window,
        parents: &[P],
    ) -> Result<FxHashMap<P, Arc<Page<R>>>, Error> {
        let pages = Pages { part: self.clone(), keyset, window: window.clone() };
        let found = self.read(store, pages, parents).await?;
        Ok(found.into_iter().map(|(parent, page)| (P::from(parent), page)).collect())
    }

    /// How many rows each parent has, in one statement; 0 for a parent without rows. A list that is read whole has one
    /// parent, which is nil.
    ///
    /// # Errors
    /// The database's.
    pub async fn counts<P: Parent>(&self, store: &Store, parents: &[P]) -> Result<FxHashMap<P, i64>, Error> {
        let found = self.read(store, Counts { part: self.clone() }, parents).await?;
        Ok(found.into_iter().map(|(parent, count)| (P::from(parent), *count)).collect())
    }

    /// Reads through the cache, if the list is kept.
    async fn read<C: Cached<Key = Uuid>, P: Parent>(
        &self,
        store: &Store,
        read: C,
        parents: &[P],
    ) -> Result<FxHashMap<Uuid, Arc<C::Value>>, Error> {
        let parents: Vec<Uuid> = parents.iter().map(|parent| (*parent).into()).collect();
        if self.list.depends_on.is_some() && self.filter.is_repeatable() {
            store.cached(read, &parents).await
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
struct Pages<R: 'static, F: 'static> {
    part: PartOf<R, F>,
    keyset: &'static Keyset<R>,
    window: Window,
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
        let Self { part: Part { list, scope, filter }, keyset, window } = self;
        if list.is_whole() {
            let page = list.load_page(context.database(), &scope, &filter, keyset, &window).await?;
            return Ok([(Uuid::nil(), Arc::new(page))].into_iter().collect());
        }
        list.load_pages(context.database(), &scope, &filter, keyset, &window, &parents).await
    }
}

/// How long the whole list is, or each parent's.
struct Counts<R: 'static, F: 'static> {
    part: PartOf<R, F>,
}

impl<R, F: Clone> Clone for Counts<R, F> {
    fn clone(&self) -> Self {
        Self { part: self.part.clone() }
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
        let Part { list, scope, filter } = self.part;
        let counts = if list.is_whole() {
            [(Uuid::nil(), list.load_count(context.database(), &scope, &filter).await?)].into_iter().collect()
        } else {
            list.load_counts(context.database(), &scope, &filter, &parents).await?
        };
        Ok(counts.into_iter().map(|(parent, count)| (parent, Arc::new(count))).collect())
    }
}
