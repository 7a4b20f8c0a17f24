//! Batched loading without a timer. One request is one future: when it is pending and has not woken itself, every
//! resolver that could run has run, and exactly then the queued keys are as many as they will ever be. `drive` polls
//! the execution until it is stuck, then runs one batch per loader, inside the request's own task.
//!
//! Kept per request: a memo of found and absent keys, so nothing is loaded twice; it dies with the request. Dropping
//! the request drops its SQL. An error or a panic in a batch fails the keys of that batch only. Loads of many
//! requests share statements in `batch/group.rs`. Not here: what is loaded (a `Loader` beside its domain).

use std::{
    any::{Any, TypeId},
    collections::hash_map::Entry,
    fmt::Display,
    future::{Future, poll_fn},
    hash::Hash,
    ops::Range,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered, task::AtomicWaker,
};
use rustc_hash::FxHashMap;
use tracing::{Instrument as _, field::Empty};

use crate::error::FieldError;

mod function;
mod group;
mod metrics;

pub use function::{FromFn, from_fn};
pub use group::Groups;
use group::Share;
pub use metrics::Metrics;

/// Keys in one statement at most; larger batches are run in parts.
pub const MAX_KEYS: usize = 1_000;

/// What a loader returns: values by key; a key that is left out is absent.
pub type Loaded<L> =
    Result<FxHashMap<<L as Loader>::Key, <L as Loader>::Value>, <<L as Loader>::Source as Source>::Error>;

/// The target of the spans of batches: off unless spans are wanted.
const SPANS: &str = "xp::span";

/// What loaders read from, as one request has it: a handle to a database, or whatever else has the values.
pub trait Source: Clone + Send + Sync + 'static {
    /// Why a batch fails.
    type Error: Display + Send;

    /// May its loads be answered together with those of other requests?
    fn is_shareable(&self) -> bool {
        true
    }

    /// What a batch reads from that answers all these requests, of which there is at least one.
    fn shared<'a>(mut requests: impl Iterator<Item = &'a Self>) -> Self {
        requests.next().expect("there is at least one request").clone()
    }

    /// Takes note of what a batch did that answered other requests, too.
    fn absorb(&self, _shared: &Self) {}

    /// The error that clients get for each key of a batch that failed: a failure of the server, whose cause
    /// the log tells.
    fn field_error(error: &Self::Error, loader: &'static str) -> FieldError {
        FieldError::internal_by(format_args!("{loader}: {error}"))
    }
}

/// A batch read. The value itself carries the arguments (page, filter, scope): loads with equal loaders share a
/// batch, others do not.
pub trait Loader: Clone + Eq + Hash + Send + Sync + 'static {
    /// The name in metrics and in `extensions.explain`.
    const NAME: &'static str;
    /// May be loaded together with other requests' keys: only for loaders whose result depends on their value and the
    /// key alone. A page that reads by a viewer's scope carries it, and is shared by whoever has the same. What a
    /// viewer may see is decided on the rows, per request.
    const SHARED: bool = false;
    /// What it reads from.
    type Source: Source;
    /// What is asked for.
    type Key: Clone + Eq + Hash + Send + Sync + 'static;
    /// What is found. Cheap to clone.
    type Value: Clone + Send + Sync + 'static;

    /// The name, where it is not the type's.
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// Reads all `keys`, which are unique and at most `MAX_KEYS`.
    fn load(self, source: Self::Source, keys: Arc<[Self::Key]>) -> impl Future<Output = Loaded<Self>> + Send;
}

/// The outcome for one key.
pub type Outcome<V> = Result<Option<V>, FieldError>;

/// One request's loads. Cheap to clone.
#[derive(Clone)]
pub struct Batcher {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<dyn Any + Send + Sync>,
    groups: Groups,
    metrics: Metrics,
    queues: Mutex<AllQueues>,
    batches: Mutex<Vec<BatchRun>>,
    resolvers: Mutex<Vec<ResolverRun>>,
    /// How often batches were begun because nothing else could go on.
    levels: AtomicU32,
    /// How many batches had ended when the execution could go no further for the last time.
    ended: AtomicUsize,
    /// Keys that were asked for again.
    repeated: AtomicUsize,
    /// No batch begins any more.
    is_halted: AtomicBool,
}

/// The queues of all loader types.
#[derive(Default)]
struct AllQueues {
    /// How often everything was forgotten: what was asked or read before is not known any more.
    generation: u64,
    by_type: FxHashMap<TypeId, Box<dyn Queue>>,
}

/// One batch that ran, for `extensions.explain`.
#[derive(Clone, Debug)]
pub struct BatchRun {
    /// The loader.
    pub loader: &'static str,
    /// Batches of the same number were begun together: nothing could go on without them. The first has 1.
    pub level: u32,
    /// Keys loaded.
    pub keys: usize,
    /// Values found.
    pub found: usize,
    /// The batches whose end let the execution go on and ask for these keys, by their places in
    /// [`Batcher::batches`]. Empty where the keys were known from the start, or by a resolver.
    pub after: Range<usize>,
    /// Requests whose keys were read together, this one included.
    pub requests: usize,
    /// How long it waited for batches of other requests, before anything was read.
    pub queued: Duration,
    /// When it began to wait or to read.
    pub began: Instant,
    /// Time of the batch, waiting included.
    pub elapsed: Duration,
}

/// The calls of one resolver for one level, for `extensions.explain`.
#[derive(Clone, Debug)]
pub struct ResolverRun {
    /// The type and the field.
    pub field: (&'static str, &'static str),
    /// Rows that it was called for.
    pub rows: usize,
    /// Calls that failed.
    pub failed: usize,
    /// When the first was called.
    pub began: Instant,
    /// Time until all of them were done.
    pub elapsed: Duration,
}

impl Batcher {
    /// The loads of one request, which read from `source`.
    pub fn new<S: Source>(source: S, groups: Groups, metrics: Metrics) -> Self {
        let source = Box::new(source);
        let (queues, batches, resolvers) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self {
            inner: Arc::new(Inner {
                source,
                groups,
                metrics,
                queues,
                batches,
                resolvers,
                levels: AtomicU32::default(),
                ended: AtomicUsize::default(),
                repeated: AtomicUsize::default(),
                is_halted: AtomicBool::default(),
            }),
        }
    }

    /// Loads one key.
    pub fn load<L: Loader>(
        &self,
        loader: L,
        key: L::Key,
    ) -> impl Future<Output = Outcome<L::Value>> + use<L> {
        self.load_many(loader, vec![key]).map(|mut outcomes| outcomes.pop().expect("one key has one outcome"))
    }

    /// Loads keys; the outcomes come in the order of the keys. Equal keys are loaded once.
    pub fn load_many<L: Loader>(
        &self,
        loader: L,
        keys: Vec<L::Key>,
    ) -> impl Future<Output = Vec<Outcome<L::Value>>> + use<L> {
        let inner = Arc::clone(&self.inner);
        let mut asked_in = None;
        poll_fn(move |cx| {
            let mut queues = inner.queues();
            let generation = queues.generation;
            let queue = queues.of::<L>().entry(loader.clone()).or_default();
            if asked_in.replace(generation) != Some(generation) {
                let repeated = keys.len() - queue.ask(&keys);
                inner.metrics.asked(loader.name(), repeated);
                inner.repeated.fetch_add(repeated, Ordering::Relaxed);
            }
            queue.answer(&keys).map_or_else(
                || {
                    queue.waiters.push(cx.waker().clone());
                    Poll::Pending
                },
                Poll::Ready,
            )
        })
    }

    /// Forgets everything loaded so far: after a write of this request, reads must see it. Loads that wait ask
    /// again, and what is under way is not kept.
    pub fn forget(&self) {
        let mut queues = self.inner.queues();
        queues.generation += 1;
        for (_, mut queue) in queues.by_type.drain() {
            queue.wake_all();
        }
    }

    /// From now on no batch begins: what is asked for has an error instead, whichever loader it is of.
    pub(crate) fn halt(&self) {
        self.inner.is_halted.store(true, Ordering::Relaxed);
    }

    /// Whether it was halted.
    pub(crate) fn is_halted(&self) -> bool {
        self.inner.is_halted.load(Ordering::Relaxed)
    }

    /// Runs `execution` to its end, flushing whenever it is stuck. Execution and batches are polled only when they were
    /// woken: rows arrive in many pieces, and those that wait for the last of them need not look each time.
    pub async fn drive<F: Future>(&self, execution: F) -> F::Output {
        let mut execution = pin!(execution);
        let mut running = FuturesUnordered::new();
        let task = Arc::new(Task::default());
        let (executing, loading) = (Flag::raised(&task), Flag::raised(&task));
        let (execution_waker, batch_waker) =
            (Waker::from(Arc::clone(&executing)), Waker::from(Arc::clone(&loading)));
        poll_fn(|cx| {
            task.outer.register(cx.waker());
            task.polling.store(true, Ordering::SeqCst);
            let mut turns = 0;
            loop {
                if loading.take() {
                    let mut cx = Context::from_waker(&batch_waker);
                    while let Poll::Ready(Some(())) = running.poll_next_unpin(&mut cx) {}
                }
                if executing.take()
                    && let Poll::Ready(output) =
                        execution.as_mut().poll(&mut Context::from_waker(&execution_waker))
                {
                    return Poll::Ready(output);
                }
                turns += 1;
                if !executing.is_up() && !loading.is_up() {
                    let open = self.take_open();
                    if open.is_empty() {
                        task.polling.store(false, Ordering::SeqCst);
                        // A wake between the check and the store raised a flag but did not wake the task.
                        if executing.is_up() || loading.is_up() {
                            task.polling.store(true, Ordering::SeqCst);
                            continue;
                        }
                        return Poll::Pending;
                    }
                    running.extend(open);
                    loading.raise();
                }
                if turns > MAX_TURNS {
                    // Be a good neighbour on the runtime.
                    task.polling.store(false, Ordering::SeqCst);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// What this request's loaders read from.
    ///
    /// # Panics
    /// Where it is of another type.
    pub fn source<S: Source>(&self) -> &S {
        self.inner.source()
    }

    /// The batches that ran so far, in the order in which they ended.
    pub fn batches(&self) -> Vec<BatchRun> {
        lock(&self.inner.batches).clone()
    }

    /// The calls of resolvers that have ended so far.
    pub fn resolvers(&self) -> Vec<ResolverRun> {
        lock(&self.inner.resolvers).clone()
    }

    /// Notes the calls of a resolver.
    pub(crate) fn note_resolver(&self, run: ResolverRun) {
        lock(&self.inner.resolvers).push(run);
    }

    /// How many keys were asked for that had been asked for before, and were not loaded again.
    pub fn repeated(&self) -> usize {
        self.inner.repeated.load(Ordering::Relaxed)
    }

    fn take_open(&self) -> Vec<BoxFuture<'static, ()>> {
        let mut open = Vec::new();
        let level = self.inner.levels.load(Ordering::Relaxed) + 1;
        let ended = lock(&self.inner.batches).len();
        let after = self.inner.ended.swap(ended, Ordering::Relaxed)..ended;
        let mut queues = self.inner.queues();
        if self.is_halted() {
            queues.by_type.values_mut().for_each(|queue| queue.halt());
            return open;
        }
        let at = Begun { generation: queues.generation, level, after };
        for queue in queues.by_type.values_mut() {
            queue.take_open(&self.inner, &at, &mut open);
        }
        if !open.is_empty() {
            self.inner.levels.store(level, Ordering::Relaxed);
        }
        open
    }
}

const MAX_TURNS: usize = 256;

impl Inner {
    fn source<S: Source>(&self) -> &S {
        self.source.downcast_ref().expect("all loaders of a request read from a source of the same type")
    }

    fn queues(&self) -> MutexGuard<'_, AllQueues> {
        lock(&self.queues)
    }

    /// Loads keys in this task, or together with other requests'.
    async fn run<L: Loader>(
        self: Arc<Self>,
        loader: L,
        keys: Arc<[L::Key]>,
        Begun { generation, level, after }: Begun,
    ) {
        let (began, name) = (Instant::now(), loader.name());
        let span = tracing::debug_span!(
            target: SPANS, "batch", otel.name = name, otel.status_code = Empty,
            keys = keys.len(), found = Empty,
        );
        let source = self.source::<L::Source>();
        let (loaded, Share { requests, queued }) =
            if L::SHARED && self.groups.is_on() && source.is_shareable() {
                let loading = self.groups.load(loader.clone(), Arc::clone(&keys), source);
                loading.instrument(span.clone()).await
            } else {
                let loading = guarded(loader.clone(), source.clone(), Arc::clone(&keys));
                (loading.instrument(span.clone()).await.map(Arc::new), Share::ALONE)
            };
        let elapsed = began.elapsed();
        let outcomes = outcomes_of::<L>(&keys, &loaded);
        let found = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Some(_)))).count();
        self.metrics.ran(name, keys.len(), found, loaded.is_err(), elapsed);
        span.record("found", found);
        if loaded.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        let keys_read = keys.len();
        let run =
            BatchRun { loader: name, level, keys: keys_read, found, after, requests, queued, began, elapsed };
        lock(&self.batches).push(run);
        let mut queues = self.queues();
        if queues.generation == generation
            && let Some(queue) = queues.of::<L>().get_mut(&loader)
        {
            queue.fill(&keys, outcomes);
        }
    }
}

/// What became of each key of a batch.
fn outcomes_of<L: Loader>(keys: &[L::Key], loaded: &group::Shared<L>) -> Vec<Outcome<L::Value>> {
    match loaded {
        Ok(values) => keys.iter().map(|key| Ok(values.get(key).cloned())).collect(),
        Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// Runs a batch; a panic becomes an error of its keys.
async fn guarded<L: Loader>(
    loader: L,
    source: L::Source,
    keys: Arc<[L::Key]>,
) -> Result<FxHashMap<L::Key, L::Value>, FieldError> {
    let name = loader.name();
    // In a block, so that what `load` does before its first await is guarded too.
    let loading = AssertUnwindSafe(async move { loader.load(source, keys).await });
    if let Ok(loaded) = loading.catch_unwind().await {
        loaded.map_err(|error| L::Source::field_error(&error, name))
    } else {
        Err(FieldError::internal_by(format_args!("{name}: the batch panicked")))
    }
}

/// The loads of one loader value.
struct Pending<L: Loader> {
    /// What became of a key; `None` while it is on its way.
    keys: FxHashMap<L::Key, Option<Outcome<L::Value>>>,
    /// What waits for the next flush.
    open: Vec<L::Key>,
    waiters: Vec<Waker>,
}

impl<L: Loader> Default for Pending<L> {
    fn default() -> Self {
        Self { keys: FxHashMap::default(), open: Vec::new(), waiters: Vec::new() }
    }
}

impl<L: Loader> Pending<L> {
    /// Queues the keys that nobody has asked for yet; says how many these are.
    fn ask(&mut self, keys: &[L::Key]) -> usize {
        let before = self.open.len();
        self.keys.reserve(keys.len());
        for key in keys {
            if let Entry::Vacant(vacant) = self.keys.entry(key.clone()) {
                vacant.insert(None);
                self.open.push(key.clone());
            }
        }
        self.open.len() - before
    }

    fn answer(&self, keys: &[L::Key]) -> Option<Vec<Outcome<L::Value>>> {
        keys.iter().map(|key| self.keys.get(key)?.clone()).collect()
    }

    fn fill(&mut self, keys: &[L::Key], outcomes: Vec<Outcome<L::Value>>) {
        for (key, outcome) in keys.iter().zip(outcomes) {
            if let Some(place) = self.keys.get_mut(key) {
                *place = Some(outcome);
            }
        }
        self.waiters.drain(..).for_each(Waker::wake);
    }
}

/// When batches were begun together.
#[derive(Clone)]
struct Begun {
    /// Of the queues.
    generation: u64,
    level: u32,
    /// The batches whose end let the execution come this far.
    after: Range<usize>,
}

type Queues<L> = FxHashMap<L, Pending<L>>;

trait Queue: Send {
    /// Begins to load what waits.
    fn take_open(&mut self, inner: &Arc<Inner>, at: &Begun, open: &mut Vec<BoxFuture<'static, ()>>);
    /// What waits gets an error instead of being loaded.
    fn halt(&mut self);
    fn wake_all(&mut self);
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<L: Loader> Queue for Queues<L> {
    fn take_open(&mut self, inner: &Arc<Inner>, at: &Begun, open: &mut Vec<BoxFuture<'static, ()>>) {
        for (loader, pending) in self.iter_mut().filter(|(_, pending)| !pending.open.is_empty()) {
            let keys = std::mem::take(&mut pending.open);
            for part in keys.chunks(MAX_KEYS) {
                open.push(Arc::clone(inner).run(loader.clone(), Arc::from(part), at.clone()).boxed());
            }
        }
    }

    fn halt(&mut self) {
        for pending in self.values_mut().filter(|pending| !pending.open.is_empty()) {
            let keys = std::mem::take(&mut pending.open);
            let outcomes = keys.iter().map(|_| Err(FieldError::halted())).collect();
            pending.fill(&keys, outcomes);
        }
    }

    fn wake_all(&mut self) {
        self.values_mut().flat_map(|pending| pending.waiters.drain(..)).for_each(Waker::wake);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl AllQueues {
    fn of<L: Loader>(&mut self) -> &mut Queues<L> {
        self.by_type
            .entry(TypeId::of::<L>())
            .or_insert_with(|| Box::new(Queues::<L>::default()))
            .as_any()
            .downcast_mut()
            .expect("the key is the loader's type")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic happens under this lock")
}

/// The task in which a request is driven.
#[derive(Default)]
struct Task {
    polling: AtomicBool,
    outer: AtomicWaker,
}

/// Notes whether one side of a request, its execution or its batches, has to be polled. Wakes that come while the task
/// does not run are passed on to the runtime.
struct Flag {
    up: AtomicBool,
    task: Arc<Task>,
}

impl Flag {
    fn raised(task: &Arc<Task>) -> Arc<Self> {
        Arc::new(Self { up: AtomicBool::new(true), task: Arc::clone(task) })
    }

    fn raise(&self) {
        self.up.store(true, Ordering::SeqCst);
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    fn take(&self) -> bool {
        self.is_up() && self.up.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
        if !self.task.polling.load(Ordering::SeqCst) {
            self.task.outer.wake();
        }
    }
}

#[cfg(test)]
mod tests;
