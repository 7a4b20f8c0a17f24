//! Group commit: point reads of many requests share statements. A batch goes out at once while fewer than `width`
//! batches of its loader are under way; otherwise it waits until one returns, together with all that came meanwhile.
//! So batches grow with the load, and an idle server adds nothing.
//!
//! Rules: a batch joins only what is still queued, never what is under way (a read must not be older than its own
//! start). A batch that runs at once runs in its request's own task; queued ones run in a task of their own, so that
//! a request that goes away hurts nobody. One poisonous key fails only its own request: a failed group is retried
//! one by one. Requests are served first come, first served, each with at most `MAX_KEYS` keys a turn, which is how
//! the batcher hands them over.

use std::{
    any::{Any, TypeId},
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use super::{Loader, MAX_KEYS, SPANS, Source as _, guarded, lock};
use crate::error::FieldError;

pub(super) type Shared<L> = Result<Arc<FxHashMap<<L as Loader>::Key, <L as Loader>::Value>>, FieldError>;

/// How a batch came to be read with those of other requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Requests that the read answered, this one included.
    pub(super) requests: usize,
    /// How long it waited until one of the batches under way returned.
    pub(super) queued: Duration,
}

impl Share {
    pub(super) const ALONE: Self = Self { requests: 1, queued: Duration::ZERO };
}

/// All queues of the process. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    /// Batches of one loader under way at most; 0 turns sharing off.
    width: usize,
    queues: Arc<Mutex<FxHashMap<TypeId, Box<dyn Any + Send>>>>,
}

impl Groups {
    /// Queues that let so many batches of one loader be under way at once; 0 turns sharing off.
    pub fn new(width: usize) -> Self {
        Self { width, queues: Arc::default() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.width > 0
    }

    pub(super) async fn load<L: Loader>(
        &self,
        loader: L,
        keys: Arc<[L::Key]>,
        source: &L::Source,
    ) -> (Shared<L>, Share) {
        let line = self.line_of(&loader);
        let Some(_turn) = Turn::take_or_none(self, &line, &loader) else {
            let (reply, answer) = oneshot::channel();
            let (source, span) = (source.clone(), Span::current());
            lock(&line).waiting.push_back(Waiting { keys, source, span, since: Instant::now(), reply });
            // Who waits does not hold the queue, or it would never be let go.
            drop(line);
            // The queue drops a reply only when its task is torn down with the runtime.
            return answer.await.unwrap_or_else(|_| (Err(FieldError::internal()), Share::ALONE));
        };
        // From here on the turn holds it.
        drop(line);
        (guarded(loader, source.clone(), keys).await.map(Arc::new), Share::ALONE)
    }

    fn line_of<L: Loader>(&self, loader: &L) -> Arc<Mutex<Line<L>>> {
        let mut queues = lock(&self.queues);
        let lines: &mut Lines<L> = queues
            .entry(TypeId::of::<L>())
            .or_insert_with(|| Box::new(Lines::<L>::default()))
            .downcast_mut()
            .expect("the key is the loader's type");
        Arc::clone(lines.entry(loader.clone()).or_default())
    }

    #[cfg(test)]
    pub(super) fn lines_of<L: Loader>(&self) -> usize {
        let queues = lock(&self.queues);
        queues
            .get(&TypeId::of::<L>())
            .and_then(|lines| lines.downcast_ref::<Lines<L>>())
            .map_or(0, Lines::len)
    }

    /// Lets go of a queue that nobody is in and nobody is about to join: there is one for each value of a loader, and
    /// filters and cursors make many.
    fn leave<L: Loader>(&self, loader: &L, line: &Arc<Mutex<Line<L>>>) {
        let mut queues = lock(&self.queues);
        let lines = queues.get_mut(&TypeId::of::<L>()).and_then(|lines| lines.downcast_mut::<Lines<L>>());
        // One is the map's, one the caller's; further ones are made under the lock that is held here.
        if let Some(lines) = lines.filter(|_| Arc::strong_count(line) == 2) {
            lines.remove(loader);
        }
    }
}

type Lines<L> = FxHashMap<L, Arc<Mutex<Line<L>>>>;

/// One loader's queue.
struct Line<L: Loader> {
    under_way: usize,
    waiting: VecDeque<Waiting<L>>,
}

impl<L: Loader> Default for Line<L> {
    fn default() -> Self {
        Self { under_way: 0, waiting: VecDeque::new() }
    }
}

struct Waiting<L: Loader> {
    keys: Arc<[L::Key]>,
    source: L::Source,
    span: Span,
    since: Instant,
    reply: oneshot::Sender<(Shared<L>, Share)>,
}

/// The right to have one batch under way. Giving it up (also by cancellation or panic) hands it to those who wait.
struct Turn<L: Loader> {
    groups: Groups,
    line: Arc<Mutex<Line<L>>>,
    loader: L,
    /// Given to a task that has not begun. Dropped like that, the runtime is ending and takes no task any more.
    handed_on: bool,
}

impl<L: Loader> Turn<L> {
    fn take_or_none(groups: &Groups, line: &Arc<Mutex<Line<L>>>, loader: &L) -> Option<Self> {
        let mut queue = lock(line);
        if queue.under_way >= groups.width {
            return None;
        }
        queue.under_way += 1;
        drop(queue);
        let (groups, line, loader) = (groups.clone(), Arc::clone(line), loader.clone());
        Some(Self { groups, line, loader, handed_on: false })
    }

    /// Serves those who wait until nobody does.
    async fn serve(mut self) {
        self.handed_on = false;
        loop {
            let batch = take_batch(&self.line);
            if batch.is_empty() {
                return;
            }
            self.run(batch).await;
        }
    }

    async fn run(&self, mut batch: Vec<Waiting<L>>) {
        let (began, requests) = (Instant::now(), batch.len());
        let source = L::Source::shared(batch.iter().map(|waiting| &waiting.source));
        let alone = requests == 1;
        let keys = match batch.as_slice() {
            [waiting] => Arc::clone(&waiting.keys),
            batch => {
                let all = batch.iter().map(|waiting| waiting.keys.len()).sum();
                let mut unique = FxHashSet::with_capacity_and_hasher(all, FxBuildHasher);
                unique.extend(batch.iter().flat_map(|waiting| waiting.keys.iter()));
                unique.into_iter().cloned().collect()
            }
        };
        let span = span_of(&batch, self.loader.name(), keys.len());
        let loading = guarded(self.loader.clone(), source.clone(), keys).instrument(span);
        let all_gone = join_all(batch.iter_mut().map(|waiting| waiting.reply.closed()));
        let loaded = tokio::select! {
            biased;
            loaded = loading => loaded.map(Arc::new),
            // Nobody works for requests that are over.
            _ = all_gone => return,
        };
        for waiting in batch {
            waiting.source.absorb(&source);
            let queued = began.saturating_duration_since(waiting.since);
            let answer = match &loaded {
                // Somebody's keys are at fault: let each request find out for itself.
                Err(_) if !alone => {
                    let loading = guarded(self.loader.clone(), waiting.source, waiting.keys);
                    (loading.await.map(Arc::new), Share { requests: 1, queued })
                }
                loaded => (loaded.clone(), Share { requests, queued }),
            };
            // A request that went away does not want its answer.
            let _ = waiting.reply.send(answer);
        }
    }
}

impl<L: Loader> Drop for Turn<L> {
    fn drop(&mut self) {
        let mut queue = lock(&self.line);
        queue.under_way -= 1;
        if queue.waiting.is_empty() {
            let is_over = queue.under_way == 0;
            drop(queue);
            if is_over {
                self.groups.leave(&self.loader, &self.line);
            }
            return;
        }
        let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| !self.handed_on);
        let Some(runtime) = runtime else {
            // Nothing can run any more; the waiting requests get an error.
            let stranded = std::mem::take(&mut queue.waiting);
            drop(queue);
            drop(stranded);
            return;
        };
        queue.under_way += 1;
        drop(queue);
        let (groups, line) = (self.groups.clone(), Arc::clone(&self.line));
        let loader = self.loader.clone();
        drop(runtime.spawn(Self { groups, line, loader, handed_on: true }.serve()));
    }
}

/// What the statement of a batch stands below in traces. One that is several requests' has a span of its own,
/// with the one that waited longest of those whose traces are kept, and linked to those of the others.
fn span_of<L: Loader>(batch: &[Waiting<L>], loader: &'static str, keys: usize) -> Span {
    let mut kept = batch.iter().map(|waiting| &waiting.span).filter(|span| !span.is_disabled());
    let Some(first) = kept.next() else { return Span::none() };
    if batch.len() == 1 {
        return first.clone();
    }
    // Whether a trace is kept may be asked of the current span only.
    let span = first.in_scope(|| {
        tracing::debug_span!(
            target: SPANS, "shared", otel.name = "graphql.dataloader.batch",
            graphql.dataloader.name = loader, graphql.dataloader.batch.keys = keys,
            graphql.dataloader.batch.requests = batch.len(),
        )
    });
    for other in kept {
        span.follows_from(other);
    }
    span
}

/// The requests of the next batch: whole ones, in order, up to `MAX_KEYS` keys.
fn take_batch<L: Loader>(line: &Mutex<Line<L>>) -> Vec<Waiting<L>> {
    let mut queue = lock(line);
    let (mut batch, mut keys) = (Vec::new(), 0);
    while let Some(next) = queue.waiting.front() {
        if next.reply.is_closed() {
            queue.waiting.pop_front();
            continue;
        }
        if !batch.is_empty() && keys + next.keys.len() > MAX_KEYS {
            break;
        }
        keys += next.keys.len();
        batch.extend(queue.waiting.pop_front());
    }
    batch
}
