//! Live queries: `query @live` over a transport that streams. The answer is told at once, and again whenever
//! something that it was made of is written, which is known from the tags of what was read; nothing is
//! executed for other writes, and an answer that is the same is not told again. Viewers who get the same
//! answer share its execution (`runs`). Not here: how an answer is made (`execution`), how a change of it is
//! told (`patch`), how answers travel (the transports).

mod patch;
mod runs;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_graphql::{Name, Value};
use entities::{
    Version,
    events::{EventWatch, ReadSet, WatchEnd, Watched},
};
use futures_util::{FutureExt as _, future::BoxFuture, stream};
use tokio::{
    task::unconstrained,
    time::{Instant, sleep_until},
};

use super::{
    Graph,
    execution::RunningSet,
    subscription::{Event, Events, refused},
};
use crate::{
    answers::AnswerNames,
    auth::viewer::Viewer,
    request::{Prepared, Reply, Request, rejected},
};
use engine::{
    bounds::{Bounds, HeldMemory, Taken},
    cache_control::Looked,
    chunks::Chunks,
    document::OperationKind,
    error::{Code, RequestError},
    live::{NAME, PAUSE, THROTTLE},
};

pub(crate) use runs::LiveRuns;

/// After an answer with errors, which may be gone.
const AFTER_ERRORS: Duration = Duration::from_secs(2);
/// A query waits so many times longer than its last execution took, so that one that takes long does not run
/// all the time.
const REST: u32 = 3;

const SIGN_IN: &str = "Sign in first: what is not signed in has one answer, without @live";
const FULL: &str = "Too much is kept for live queries already. Close some of them, or ask for less in each";
/// What the time of day decides is looked at so often.
pub(super) const CLOCK: Duration = Duration::from_secs(10);

/// One execution of a live query, and what would make its answer another one.
pub(super) struct LiveAnswer {
    /// The answer, with what it depends on.
    pub(super) reply: Reply,
    /// What stands for its data and errors, but not for what is told beside them.
    pub(super) digest: [u8; 16],
    /// How far the execution has looked at who asks.
    pub(super) looked: Looked,
    /// Until when it stays as it is if nothing is written; none: for longer than anybody counts.
    pub(super) true_until: Option<std::time::Instant>,
    /// How long the execution took, without the wait for its turn.
    pub(super) took: Duration,
}

/// What comes of an execution: the only answer, where nothing could run.
pub(super) type LiveResult = Result<LiveAnswer, Box<Reply>>;

/// The length of the periods of which each has one answer at most.
fn throttle_of(prepared: &Prepared) -> Result<Duration, RequestError> {
    let directives = &prepared.operation().directives;
    let Some(found) = directives.iter().find(|found| found.node.name.node == NAME) else {
        return Ok(Duration::from_millis(PAUSE.0));
    };
    let variable = |name: &Name| prepared.variables.get(name).cloned().ok_or(());
    let argument = found.node.get_argument(THROTTLE);
    let given = argument.and_then(|value| value.node.clone().into_const_with(|name| variable(&name)).ok());
    let millis = match given {
        None | Some(Value::Null) => Some(PAUSE.0),
        Some(Value::Number(number)) => number.as_u64(),
        Some(_) => None,
    };
    let millis = millis.filter(|millis| (PAUSE.1..=PAUSE.2).contains(millis));
    let millis = millis.ok_or_else(|| {
        let message = format!("@live(throttle:) takes {} to {} milliseconds", PAUSE.1, PAUSE.2);
        RequestError::new(Code::BadUserInput, message).at(found.pos)
    })?;
    Ok(Duration::from_millis(millis))
}

/// When the period after that of `moment` begins. Periods of one length begin at the same moments for
/// everybody, so that those who wait for the same answer ask for it at the same time.
fn next_period(moment: Instant, length: Duration) -> Instant {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let nanos = length.as_nanos().max(1);
    let passed = moment.saturating_duration_since(*ORIGIN).as_nanos() % nanos;
    moment + Duration::from_nanos(u64::try_from(nanos - passed).unwrap_or_default())
}

/// A live query under way.
struct LiveQuery {
    graph: Graph,
    viewer: Viewer,
    asked: Arc<(Request, RunningSet)>,
    /// The names of its answer; none where it tells something about itself, so that nobody else gets it.
    names: Option<AnswerNames>,
    throttle: Duration,
    watch: EventWatch,
    /// What is read must not be older.
    floor: Option<Version>,
    /// Its next execution may have to see what others do not know of.
    is_apart: bool,
    last: Option<Told>,
    /// The last answer that was told, and its number, where changes of it may be told.
    patched: Option<(Chunks, u64)>,
    /// The memory of what is kept between two answers.
    held: HeldMemory,
    has_ended: bool,
}

/// The last execution.
struct Told {
    read: ReadSet,
    /// When it began.
    began: Instant,
    /// Not executed again before then.
    rests_until: Instant,
    /// From then on it is another one by itself.
    until: Option<Instant>,
    digest: Option<[u8; 16]>,
    looked: Looked,
}

/// Begins a live query.
pub(super) async fn begin(
    graph: &Graph,
    viewer: Viewer,
    request: Request,
    set: RunningSet,
) -> Result<Events, RequestError> {
    if viewer == Viewer::Anonymous {
        return Err(RequestError::new(Code::Unauthenticated, SIGN_IN));
    }
    let throttle = throttle_of(&set.prepared)?;
    let tells_about_itself =
        request.explain || request.trace || request.cache_tags || request.cache_token.is_some();
    let names = (!tells_about_itself).then(|| names_of(&set.prepared, &viewer)).flatten();
    let mut watch = graph.inner.store.watch(None);
    // What is written from here on is seen.
    watch.begin().await.map_err(refused)?;
    let is_apart = watch.tell_unsettled();
    let live = LiveQuery {
        graph: graph.clone(),
        viewer,
        asked: Arc::new((request, set)),
        names,
        throttle,
        floor: watch.floor(),
        watch,
        is_apart,
        last: None,
        patched: None,
        held: HeldMemory::default(),
        has_ended: false,
    };
    Ok(Box::pin(stream::unfold(live, |mut live| async {
        let event = live.next().await?;
        Some((event, live))
    })))
}

fn names_of(prepared: &Prepared, viewer: &Viewer) -> Option<AnswerNames> {
    let variables = serde_json::to_string(&prepared.variables).ok()?;
    let on_error = format!("{:?}", prepared.on_error);
    let asked = (prepared.document.hash(), prepared.operation_name.as_deref(), variables, on_error, NAME);
    Some(AnswerNames::of(&asked, viewer))
}

impl LiveQuery {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.has_ended {
                return None;
            }
            if let Err(end) = self.until_outdated().await {
                self.has_ended = true;
                return Some(end);
            }
            match self.run().await {
                Ok(Some(reply)) => return Some(Event::Reply(Box::new(reply))),
                Ok(None) => {}
                Err(last) => {
                    self.has_ended = true;
                    return Some(Event::Reply(last));
                }
            }
        }
    }

    /// Done when the last answer may be another one, and it may be executed again.
    async fn until_outdated(&mut self) -> Result<(), Event> {
        let Some(told) = &self.last else { return Ok(()) };
        let may_run_at = next_period(told.began, self.throttle).max(told.rests_until);
        let until = told.until;
        loop {
            let expiry = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let watched = tokio::select! {
                watched = self.watch.next() => watched,
                () = expiry => break,
            };
            match watched {
                Ok(watched) => {
                    self.note(&watched);
                    if self.is_touched_by(&watched) {
                        break;
                    }
                }
                Err(WatchEnd::Interrupted) => return Err(Event::Interrupted),
                Err(WatchEnd::Expired | WatchEnd::Unavailable) => {
                    self.watch_anew().await;
                    break;
                }
            }
        }
        sleep_until(may_run_at).await;
        self.catch_up().await
    }

    /// All that is known by now is in the next answer.
    async fn catch_up(&mut self) -> Result<(), Event> {
        // Without tokio's budget, which would end it after some, and let a query that is touched often fall behind.
        while let Some(watched) = unconstrained(self.watch.next()).now_or_never() {
            match watched {
                Ok(watched) => self.note(&watched),
                Err(WatchEnd::Interrupted) => return Err(Event::Interrupted),
                Err(WatchEnd::Expired | WatchEnd::Unavailable) => break,
            }
        }
        // What it has yet to read from the log it need not read: the answer is whole.
        if self.watch.position().is_none() {
            self.watch_anew().await;
        }
        Ok(())
    }

    /// Whether the last answer may be another one after these changes.
    fn is_touched_by(&self, watched: &Watched) -> bool {
        let Some(told) = &self.last else { return true };
        watched.changes().any(|(change, _)| told.read.is_touched_by(change))
    }

    fn note(&mut self, watched: &Watched) {
        self.floor = watched.written.or(self.floor);
        self.is_apart |= !watched.is_logged();
    }

    /// Watches from now on: whatever was written until then is in the next answer.
    async fn watch_anew(&mut self) {
        loop {
            self.watch = self.graph.inner.store.watch(None);
            if self.watch.begin().await.is_ok() {
                break;
            }
            tokio::time::sleep(AFTER_ERRORS).await;
        }
        self.is_apart |= self.watch.tell_unsettled();
        self.floor = self.watch.floor().or(self.floor);
    }

    /// Executes it; the answer, if it is another one. Where nothing could run, that is the last answer.
    async fn run(&mut self) -> Result<Option<Reply>, Box<Reply>> {
        let began = Instant::now();
        let answer = self.execute().await;
        self.is_apart = false;
        let LiveAnswer { reply, digest, looked, true_until, took } = match answer.as_ref() {
            Ok(answer) => answer,
            Err(refused) => return Err(Box::new(again(refused, refused.body.clone()))),
        };
        let read = reply.dependencies.as_deref().map(ReadSet::of).unwrap_or_default();
        let is_same = self.last.as_ref().is_some_and(|last| last.digest == Some(*digest));
        let told = if is_same { None } else { self.tell(reply) };
        self.keep(read.bytes())?;
        // Where there was no memory to tell it, it is told later.
        let is_known = is_same || told.is_some();
        let looks_at = read.has_unlogged().then(|| Instant::now() + CLOCK);
        let until = true_until.map(Instant::from_std).into_iter().chain(looks_at).min();
        let again = Instant::now() + AFTER_ERRORS;
        let is_whole = is_known && reply.codes.is_empty();
        self.last = Some(Told {
            read,
            began,
            rests_until: Instant::now() + *took * REST,
            until: if is_whole { until } else { Some(until.map_or(again, |until| until.min(again))) },
            digest: is_known.then_some(*digest),
            looked: *looked,
        });
        Ok(told)
    }

    /// Takes the memory for what is kept until the next answer, where that is much.
    fn keep(&mut self, read: usize) -> Result<(), Box<Reply>> {
        let memory = self.graph.inner.live_memory.clone();
        let bounds = Bounds { most: usize::MAX, memory, ..self.bounds() };
        self.held = HeldMemory::default();
        let patched = self.patched.as_ref().map_or(0, |(before, _)| before.len());
        let held = bounds.hold(read + patched).or_else(|| {
            self.patched = None;
            bounds.hold(read)
        });
        let Some(held) = held else {
            let error = RequestError::new(Code::Overloaded, FULL);
            let id = &self.asked.0.caller.request_id;
            return Err(Box::new(rejected(Some(OperationKind::Query), &[error], id)));
        };
        self.held = held;
        Ok(())
    }

    /// What one answer may take: each may take as much as one request.
    fn bounds(&self) -> Bounds {
        self.graph.inner.bounds(&self.viewer, &self.asked.0.caller, &Taken::default())
    }

    /// An answer that has everything that it was told of.
    async fn execute(&self) -> Arc<LiveResult> {
        let run = || -> BoxFuture<'static, LiveResult> {
            let (graph, viewer) = (self.graph.clone(), self.viewer.clone());
            let (asked, floor) = (Arc::clone(&self.asked), self.floor);
            async move {
                let (request, set) = &*asked;
                let result = graph.inner.run_live(viewer, (request, set), floor).await;
                // By the stream that runs it, not by each one that gets its answer.
                if let (Ok(answer), Some(on_slow_run)) = (&result, &request.on_slow_run)
                    && let Some(done) = &answer.reply.slow
                {
                    on_slow_run.0(answer.took, done);
                }
                result
            }
            .boxed()
        };
        let runs = &self.graph.inner.live_runs;
        let owner = self.bounds().owner;
        let shared = self.names.as_ref().zip(self.watch.position()).filter(|_| !self.is_apart);
        let Some((names, position)) = shared else {
            let (runs, running) = (Arc::clone(runs), run());
            // In a task of its own, as those that are shared: one whose reader is slow must not stand still.
            let task = tokio::spawn(async move { runs.alone(&owner, running).await });
            return Arc::new(task.await.expect("an execution does not panic and is not aborted"));
        };
        let looks = self.last.as_ref().map_or(Looked::AtViewer, |last| last.looked);
        runs.of((&owner, names), looks, position, run).await
    }

    /// What is told of an answer: it, or how the one before has changed. `None` where there is no memory for it now.
    fn tell(&mut self, reply: &Reply) -> Option<Reply> {
        let json_patch = self.asked.0.json_patch;
        let before = self.patched.take();
        let is_patched = json_patch && patch::is_patched(reply);
        let patch = before
            .filter(|_| is_patched)
            .and_then(|(before, number)| Some((patch::between(&before, &reply.body)?, number + 1)));
        let (body, number) = match patch {
            Some((operations, number)) => (patch::told(&operations, number), number),
            None if json_patch => (patch::whole(&reply.body), 1),
            None => (reply.body.clone(), 1),
        };
        let held = self.bounds().hold(body.len())?;
        self.patched = is_patched.then(|| (reply.body.clone(), number));
        Some(Reply { held, ..again(reply, body) })
    }
}

/// An answer, told once more. To the transports it is one of many.
fn again(reply: &Reply, body: Chunks) -> Reply {
    Reply {
        body,
        operation: Some(OperationKind::Subscription),
        executed: reply.executed,
        codes: reply.codes.clone(),
        statements: reply.statements,
        retry_after_seconds: reply.retry_after_seconds,
        ..Reply::default()
    }
}
