//! Loaders made of async functions, for reads that take no arguments but their keys. Not here: loaders that
//! carry arguments, such as a page or a filter (types of their own).

use std::{
    future::Future,
    hash::{Hash, Hasher},
    marker::PhantomData,
    sync::Arc,
};

use rustc_hash::FxHashMap;

use super::{Loaded, Loader, Source};

/// A loader that is a function; see [`from_fn`].
pub struct FromFn<S, K, V, F> {
    name: &'static str,
    load: F,
    marker: PhantomData<fn(S, K) -> V>,
}

/// A loader that calls `load` with the keys of a batch, which are unique. `name` stands in metrics and in
/// `extensions.explain`.
///
/// `load` must capture nothing, so that one function always reads the same; another is refused when it is
/// compiled. What it reads from comes with each call.
pub fn from_fn<S, K, V, F, R>(name: &'static str, load: F) -> FromFn<S, K, V, F>
where
    S: Source,
    F: Fn(S, Arc<[K]>) -> R,
    R: Future<Output = Result<FxHashMap<K, V>, S::Error>>,
{
    const { assert!(size_of::<F>() == 0, "the function of a loader captures nothing") }
    FromFn { name, load, marker: PhantomData }
}

impl<S, K, V, F: Clone> Clone for FromFn<S, K, V, F> {
    fn clone(&self) -> Self {
        Self { name: self.name, load: self.load.clone(), marker: PhantomData }
    }
}

/// All values of one type are equal: the function is the type.
impl<S, K, V, F> PartialEq for FromFn<S, K, V, F> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<S, K, V, F> Eq for FromFn<S, K, V, F> {}

impl<S, K, V, F> Hash for FromFn<S, K, V, F> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl<S, K, V, F, R> Loader for FromFn<S, K, V, F>
where
    S: Source,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    F: Fn(S, Arc<[K]>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<FxHashMap<K, V>, S::Error>> + Send,
{
    const NAME: &'static str = "function";
    type Source = S;
    type Key = K;
    type Value = V;

    fn name(&self) -> &'static str {
        self.name
    }

    async fn load(self, source: S, keys: Arc<[K]>) -> Loaded<Self> {
        (self.load)(source, keys).await
    }
}
