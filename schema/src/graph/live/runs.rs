//! Executions of live queries: those that ask for the same at the same time share one, and so many run at a
//! time at most. Not here: when a live query is executed (`live`), what an execution does (`execution`).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use entities::{cache::AnswerName, events::EventPosition};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use super::LiveResult;
use crate::answers::AnswerNames;
use engine::{bounds::Owner, cache_control::Looked};

/// Executions at a time, in all and for one owner: a write that changes the answers of thousands leaves the
/// database to others, too.
const AT_A_TIME: (usize, usize) = (8, 2);
/// How long an answer is kept for those who come to it a little later.
const KEPT: Duration = Duration::from_millis(250);
/// Answers kept at most, and the longest that is, bytes.
const MOST: (usize, usize) = (1_024, 1 << 20);

type Made = Shared<BoxFuture<'static, Option<Arc<LiveResult>>>>;

/// Executions of live queries that are under way or have just ended.
pub(crate) struct LiveRuns {
    recent: Mutex<FxHashMap<AnswerName, Run>>,
    turns: Semaphore,
    /// Those of each owner who has some now.
    turns_of: Mutex<FxHashMap<Owner, Arc<Semaphore>>>,
    executed: Counter,
    shared: Counter,
}

#[derive(Clone)]
struct Run {
    /// Its answer has everything up to here.
    position: EventPosition,
    made: Made,
}

enum FoundRun {
    Made(Arc<LiveResult>),
    Making(Made),
}

impl LiveRuns {
    /// The metrics go into `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Arc<Self> {
        let (executed, shared) = (Counter::default(), Counter::default());
        registry.register("graphql_server_live_executions", "Executions of live queries", executed.clone());
        registry.register(
            "graphql_server_live_shared_answers",
            "Answers to live queries that another one's execution has made",
            shared.clone(),
        );
        let (turns, turns_of) = (Semaphore::new(AT_A_TIME.0), Mutex::default());
        Arc::new(Self { recent: Mutex::default(), turns, turns_of, executed, shared })
    }

    /// Executes what nobody else gets the answer of.
    pub(super) async fn alone(&self, owner: &Owner, run: BoxFuture<'static, LiveResult>) -> LiveResult {
        let own = self.turns_of(owner);
        // They are never closed.
        let (_own, _turn) = (own.acquire().await, self.turns.acquire().await);
        self.executed.inc();
        run.await
    }

    fn turns_of(&self, owner: &Owner) -> Arc<Semaphore> {
        let mut all = self.turns_of.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST.0 {
            // Nobody has a turn of these, or waits for one.
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let new = || Arc::new(Semaphore::new(AT_A_TIME.1));
        Arc::clone(all.entry(owner.clone()).or_insert_with(new))
    }

    /// The answer with these names, which has everything up to `position`: one that is made already, or is being
    /// made for somebody who, like this one, is likely to look so far at who asks; else that of `run`.
    pub(super) async fn of(
        self: &Arc<Self>,
        (owner, names): (&Owner, &AnswerNames),
        looks: Looked,
        position: EventPosition,
        run: impl Fn() -> BoxFuture<'static, LiveResult>,
    ) -> Arc<LiveResult> {
        let found = match self.find(names, looks, position) {
            Some(FoundRun::Made(answer)) => Some(answer),
            // What has looked further than was thought is somebody's own.
            Some(FoundRun::Making(made)) => made.await.filter(|answer| is_for(answer, looks)),
            None => None,
        };
        if let Some(answer) = found {
            self.shared.inc();
            return answer;
        }
        let (runs, of, shared, making) = (Arc::clone(self), owner.clone(), *names, run());
        // In a task of its own: a viewer who has gone, or reads slowly, keeps nobody else waiting.
        let task = tokio::spawn(async move {
            let answer = Arc::new(runs.alone(&of, making).await);
            runs.made(&shared, looks, &answer, position);
            answer
        });
        let made = task.map(Result::ok).boxed().shared();
        self.keep(names.at(looks), Run { position, made: made.clone() });
        match made.await {
            Some(answer) => answer,
            // The task was ended from outside, or has panicked.
            None => Arc::new(self.alone(owner, run()).await),
        }
    }

    fn find(&self, names: &AnswerNames, looks: Looked, position: EventPosition) -> Option<FoundRun> {
        let recent = self.recent();
        let run_at = |level: Looked| recent.get(&names.at(level)).filter(|run| run.position >= position);
        let made_at = |level: Looked| {
            let answer = run_at(level)?.made.peek()?.as_ref()?;
            is_for(answer, level).then(|| FoundRun::Made(Arc::clone(answer)))
        };
        let made = [Looked::Nowhere, Looked::AtScope, Looked::AtViewer].into_iter().find_map(made_at);
        made.or_else(|| Some(FoundRun::Making(run_at(looks)?.made.clone())))
    }

    /// From now on it is found by how far it has looked, for a moment.
    fn made(
        self: &Arc<Self>,
        names: &AnswerNames,
        looks: Looked,
        answer: &Arc<LiveResult>,
        position: EventPosition,
    ) {
        let is_short = matches!(answer.as_ref(), Ok(made) if made.reply.body.len() <= MOST.1);
        let looked = answer.as_ref().as_ref().map_or(Looked::AtViewer, |made| made.looked);
        if looked != looks && is_short {
            let made = std::future::ready(Some(Arc::clone(answer))).boxed().shared();
            // So that it counts as made.
            let _ = made.clone().now_or_never();
            self.keep(names.at(looked), Run { position, made });
        }
        let (runs, name) = (Arc::downgrade(self), [names.at(looks), names.at(looked)]);
        tokio::spawn(async move {
            if is_short {
                tokio::time::sleep(KEPT).await;
            }
            if let Some(runs) = runs.upgrade() {
                let mut recent = runs.recent();
                for name in name {
                    if recent.get(&name).is_some_and(|run| run.position <= position) {
                        recent.remove(&name);
                    }
                }
            }
        });
    }

    fn keep(&self, name: AnswerName, run: Run) {
        let mut recent = self.recent();
        if recent.len() < MOST.0 || recent.contains_key(&name) {
            recent.insert(name, run);
        }
    }

    fn recent(&self) -> MutexGuard<'_, FxHashMap<AnswerName, Run>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer is that of everybody who is the same as far as this, and still true. One with errors is
/// for the one who has executed it: another may have more memory, or a request that costs less.
fn is_for(answer: &LiveResult, level: Looked) -> bool {
    answer.as_ref().is_ok_and(|made| {
        let is_true = made.true_until.is_none_or(|until| until > std::time::Instant::now());
        made.looked <= level && is_true && made.reply.codes.is_empty()
    })
}
