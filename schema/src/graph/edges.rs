//! Edges as the domains declare them, one line each: to an object by where its id stands in the row, to what
//! a batch read of `entities` finds, to a list. Not here: how edges run (`engine::edge`), what is read
//! (`entities`).

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use entities::{database::scope::Scope, store::row::Finder};

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        list::{Listed, Lists},
        node::NodeId,
    },
};
use engine::{
    batch::{Loaded, Loader},
    context::Context,
    edge::{FieldArgs, NoArguments, One, Single},
    error::FieldError,
    object::{Entity, Object, Visible, VisibleFrom},
    scalar::Leaf,
};

/// Loads what a batch read of `entities` finds.
pub(crate) struct FindLoader<K: 'static, V: 'static> {
    finder: &'static Finder<K, V>,
    scope: Scope,
}

impl<K, V> FindLoader<K, V> {
    /// Under the viewer's scope, where the read depends on it.
    pub(crate) fn of(finder: &'static Finder<K, V>, ctx: &Context) -> Self {
        // Reading the scope makes an answer private.
        Self { finder, scope: if finder.is_scoped() { ctx.scope() } else { Scope::All } }
    }

    /// Whoever asks sees everything that it finds.
    pub(crate) fn of_all(finder: &'static Finder<K, V>) -> Self {
        Self { finder, scope: Scope::All }
    }
}

impl<K, V> Clone for FindLoader<K, V> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<K, V> PartialEq for FindLoader<K, V> {
    fn eq(&self, other: &Self) -> bool {
        (self.finder, self.scope) == (other.finder, other.scope)
    }
}

impl<K, V> Eq for FindLoader<K, V> {}

impl<K, V> Hash for FindLoader<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.finder, self.scope).hash(state);
    }
}

impl<K, V> Loader for FindLoader<K, V>
where
    K: Clone + Eq + Hash + Send + Sync,
    V: Send + Sync,
{
    const NAME: &'static str = "find";
    const SHARED: bool = true;
    type Source = Database;
    type Key = K;
    type Value = Arc<V>;

    fn name(&self) -> &'static str {
        self.finder.name()
    }

    async fn load(self, store: Database, keys: Arc<[K]>) -> Loaded<Self> {
        self.finder.find(&store, &self.scope, &keys).await
    }
}

/// Loads the rows of an id's objects.
pub(crate) type NodeLoader<K> = FindLoader<K, <<K as NodeId>::Object as Visible>::Row>;

/// The loader of an id's object.
pub(crate) fn by_id<K: NodeId>(ctx: &Context) -> NodeLoader<K> {
    FindLoader::of(K::finder(), ctx)
}

/// How an edge without arguments to an id's object finds its loader.
type LoadById<K> = fn(&FieldArgs<'_, NoArguments>) -> Result<NodeLoader<K>, FieldError>;

/// The loader of an edge without arguments to an id's object.
fn load<K: NodeId>() -> LoadById<K> {
    |given| Ok(by_id::<K>(given.ctx))
}

/// What an object of the graph can be declared by, beside the columns and edges of the engine.
pub(crate) trait Edges<T>: Sized {
    /// The object of an id; where it is gone or hidden, the parent is null.
    #[must_use]
    fn one<K: NodeId>(self, name: &'static str, about: &'static str, id: fn(&T) -> K) -> Self;

    /// The object of an id; null where there is none, or the viewer may not see it.
    #[must_use]
    fn maybe<K: NodeId>(self, name: &'static str, about: &'static str, id: fn(&T) -> Option<K>) -> Self;

    /// The object of an id, which whoever sees the parent sees, too.
    #[must_use]
    fn implied<K: NodeId>(self, name: &'static str, about: &'static str, id: fn(&T) -> K) -> Self
    where
        K::Object: VisibleFrom<T>;

    /// In a payload: the object that a mutation has written; null where it wrote nothing.
    #[must_use]
    fn written<K: NodeId>(self, name: &'static str, about: &'static str, id: fn(&T) -> Option<K>) -> Self;

    /// The object `U` that a batch read finds for a key; null where it finds none.
    #[must_use]
    fn find<U: Visible, K>(
        self,
        name: &'static str,
        about: &'static str,
        finder: &'static Finder<K, U::Row>,
        key: fn(&T) -> Option<K>,
    ) -> Self
    where
        K: Clone + Eq + Hash + Send + Sync;

    /// The value that a batch read finds for a key; null where it finds none.
    #[must_use]
    fn value<K, V: Leaf<M> + Send + Sync, M: 'static>(
        self,
        name: &'static str,
        about: &'static str,
        finder: &'static Finder<K, V>,
        key: fn(&T) -> Option<K>,
    ) -> Self
    where
        K: Clone + Eq + Hash + Send + Sync;

    /// A list, in pages.
    #[must_use]
    fn page<A: Lists>(self, name: &'static str, about: &'static str, list: &'static Listed<T, A>) -> Self;

    /// The number of a list's rows that the viewer may see.
    #[must_use]
    fn count<A: Lists<Filter: Default>>(
        self,
        name: &'static str,
        about: &'static str,
        list: &'static Listed<T, A>,
    ) -> Self;
}

impl<T: Entity> Edges<T> for Object<T> {
    fn one<K: NodeId>(self, name: &'static str, about: &'static str, id: fn(&T) -> K) -> Self {
        self.edge(
            name,
            about,
            One::<_, _, _, K::Object>::required(load::<K>(), move |row, _| Ok(Some(id(row)))),
        )
    }

    fn maybe<K: NodeId>(self, name: &'static str, about: &'static str, id: fn(&T) -> Option<K>) -> Self {
        self.edge(name, about, One::<_, _, _, K::Object>::nullable(load::<K>(), move |row, _| Ok(id(row))))
    }

    fn implied<K: NodeId>(self, name: &'static str, about: &'static str, id: fn(&T) -> K) -> Self
    where
        K::Object: VisibleFrom<T>,
    {
        self.edge(
            name,
            about,
            One::<_, _, _, K::Object>::implied(load::<K>(), move |row, _| Ok(Some(id(row)))),
        )
    }

    fn written<K: NodeId>(self, name: &'static str, about: &'static str, id: fn(&T) -> Option<K>) -> Self {
        let one = One::<_, _, _, K::Object>::written(
            load::<K>(),
            move |row, _| Ok(id(row)),
            |id| id.to_string().into(),
        );
        self.edge(name, about, one)
    }

    fn find<U: Visible, K>(
        self,
        name: &'static str,
        about: &'static str,
        finder: &'static Finder<K, U::Row>,
        key: fn(&T) -> Option<K>,
    ) -> Self
    where
        K: Clone + Eq + Hash + Send + Sync,
    {
        let one = One::<T, NoArguments, _, U>::nullable(
            |given| Ok(FindLoader::of(finder, given.ctx)),
            move |row, _| Ok(key(row)),
        );
        self.edge(name, about, one)
    }

    fn value<K, V: Leaf<M> + Send + Sync, M: 'static>(
        self,
        name: &'static str,
        about: &'static str,
        finder: &'static Finder<K, V>,
        key: fn(&T) -> Option<K>,
    ) -> Self
    where
        K: Clone + Eq + Hash + Send + Sync,
    {
        let load = |ctx: &Context| FindLoader::of(finder, ctx);
        let value = Single::<T, FindLoader<K, V>, Option<Arc<V>>, M>::new(load, key, |value| value);
        self.edge(name, about, value)
    }

    fn page<A: Lists>(self, name: &'static str, about: &'static str, list: &'static Listed<T, A>) -> Self {
        self.edge(name, about, list.pages())
    }

    fn count<A: Lists<Filter: Default>>(
        self,
        name: &'static str,
        about: &'static str,
        list: &'static Listed<T, A>,
    ) -> Self {
        self.edge(name, about, list.count())
    }
}
