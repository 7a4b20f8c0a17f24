//! Objects over rows that everybody may see: the row's type says how it is declared, and nothing has to be
//! said of who sees it; edges between such objects are declared by a loader and a key. Not here: objects
//! whose rows some may not see (`object::Visible`), which are types of their own, and edges with arguments
//! (`edge`).

use std::{
    any::{Any, TypeId},
    ops::Deref,
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use rustc_hash::FxHashMap;

use crate::{
    batch::Loader,
    context::Context,
    edge::{Many, NoArguments, One},
    object::{Entity, Object, Visible},
};

/// A row that everybody may see.
pub trait PublicRow: Sized + Send + Sync + 'static {
    /// How its object is declared; asked for once.
    fn declare() -> Object<Public<Self>>;
}

/// The object of a row that everybody may see.
pub struct Public<R>(Arc<R>);

impl<R> Clone for Public<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Deref for Public<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.0
    }
}

impl<R> From<R> for Public<R> {
    fn from(row: R) -> Self {
        Self(Arc::new(row))
    }
}

impl<R> From<Arc<R>> for Public<R> {
    fn from(row: Arc<R>) -> Self {
        Self(row)
    }
}

/// The declarations, by their rows. They live as long as the program, like those of other objects.
static DECLARED: LazyLock<RwLock<FxHashMap<TypeId, &'static (dyn Any + Send + Sync)>>> =
    LazyLock::new(RwLock::default);

impl<R: PublicRow> Entity for Public<R> {
    fn object() -> &'static Object<Self> {
        let row = TypeId::of::<R>();
        let known = DECLARED.read().unwrap_or_else(PoisonError::into_inner).get(&row).copied();
        let declared = known.unwrap_or_else(|| {
            // Before the lock is taken: two may declare it, and one of these is kept.
            let declared = R::declare();
            let mut all = DECLARED.write().unwrap_or_else(PoisonError::into_inner);
            *all.entry(row).or_insert_with(|| Box::leak(Box::new(declared)))
        });
        declared.downcast_ref().expect("the key is the row's type")
    }
}

impl<R: PublicRow> Visible for Public<R> {
    type Row = R;

    fn visible_to(_: &Context, row: Arc<R>) -> Option<Self> {
        Some(Self(row))
    }
}

impl<R: PublicRow> Object<Public<R>> {
    /// An edge to one object, which `loader` finds by the key in the row. Where it finds none, the parent is null.
    #[must_use]
    pub fn one<U: PublicRow, L: Loader<Value = Arc<U>>>(
        self,
        name: &'static str,
        about: &'static str,
        loader: L,
        key: fn(&R) -> L::Key,
    ) -> Self {
        let one = One::<_, NoArguments, L, Public<U>>::required(
            move |_| Ok(loader.clone()),
            move |row: &Public<R>, _| Ok(Some(key(row))),
        );
        self.edge(name, about, one)
    }

    /// An edge to a list of objects, which `loader` finds by the key in the row. Where it finds none, the
    /// list is empty.
    #[must_use]
    pub fn many<U: PublicRow, L: Loader<Value = Vec<Arc<U>>>>(
        self,
        name: &'static str,
        about: &'static str,
        loader: L,
        key: fn(&R) -> L::Key,
    ) -> Self {
        let many = Many::<_, NoArguments, L, Public<U>>::new(
            move |_| Ok(loader.clone()),
            move |row: &Public<R>, _| Ok(Some(key(row))),
            |rows, _| Ok(rows.clone()),
        );
        self.edge(name, about, many)
    }
}
