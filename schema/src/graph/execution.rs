//! From a document that is found to its answers: which operation is meant, the answer that is kept of it, its
//! execution, and what is told beside `data`. Several sets of variables of one document are one execution:
//! their selections are loaded together, so that all sets share every batch, and written one after the other.
//! Not here: how a selection is run (`engine`), requests with an idempotency key (`keyed`), what HTTP makes
//! of the answers.

mod kept;
mod keyed;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use entities::{Recorder, SPANS, Store, Version, idempotency::Claim};
use tracing::Instrument as _;

use super::{
    Graph, GraphInner, Opened,
    live::{self, LiveAnswer, LiveResult},
    mutation,
    query::{self, Query},
    subscription,
};
use crate::{
    Variables,
    answers::{AnswerCacheKey, digest},
    auth::viewer::Viewer,
    context::ContextExt as _,
    explain::{self, Explain, Extensions},
    request::{Prepared, Reply, Request, rejected},
};
use engine::{
    bounds::{Bounds, Taken},
    context::Context,
    document::{Document, OperationKind},
    error::{Code, OnError, RequestError},
    execute::{answer, load, plan, write},
    federation::trace::{Clock, Tree},
    introspection::Question,
    object::Selection,
    output::{Errors, Unfinished},
    plan::Selected,
};

const AWAY: &str = "The database cannot be reached now. Nothing was executed; try again in a moment.";

/// What is true for longer is true for as long as nothing is written.
const FOREVER: Duration = Duration::from_hours(24);

/// One request, as far as all its sets of variables have it in common.
struct Execution<'g> {
    inner: &'g GraphInner,
    request: &'g Request,
    started: Instant,
    /// Since when the document was looked for, where that is told.
    found_from: Option<Instant>,
    explain: bool,
    /// Where the caller must see what they have written.
    floored: Option<Store>,
    /// Up to where the log of events was written before anything was read, where that is asked for.
    resume_token: Option<String>,
}

/// One set of variables that is run, and where its answer may be kept.
pub(super) struct RunningSet {
    pub(super) prepared: Prepared,
    cache_key: Option<AnswerCacheKey>,
}

impl Graph {
    /// Runs a document for a viewer who cannot wait for events.
    pub async fn execute_document(&self, viewer: Viewer, document: Arc<Document>, request: Request) -> Reply {
        let request_id = Arc::clone(&request.caller.request_id);
        match self.open_document(viewer, document, request).await {
            Opened::Reply(reply) => *reply,
            Opened::Events(_) => {
                let message = "Subscriptions are answered over WebSocket (graphql-transport-ws) or as \
                               server-sent events (Accept: text/event-stream)";
                let error = RequestError::new(Code::BadUserInput, message);
                rejected(Some(OperationKind::Subscription), &[error], &request_id)
            }
        }
    }

    /// Runs a document for a viewer; nothing that was found out when it was prepared is looked at again.
    pub async fn open_document(
        &self,
        viewer: Viewer,
        document: Arc<Document>,
        mut request: Request,
    ) -> Opened {
        let started = Instant::now();
        let variables = std::mem::take(&mut request.variables);
        let is_live = request.streams && document.is_live(request.operation_name.as_deref());
        let prepared = match self.inner.prepare(document, &request, variables) {
            Ok(prepared) => prepared,
            Err(refused) => return Opened::Reply(refused),
        };
        if prepared.kind == OperationKind::Subscription {
            let request_id = Arc::clone(&request.caller.request_id);
            let explain = request.explain && self.inner.options.development;
            let asked = (request.caller, (explain, request.on_slow_run), request.resume_after);
            return match Box::pin(subscription::subscribe(self, viewer, asked, prepared)).await {
                Ok(events) => Opened::Events(events),
                Err(error) => {
                    let refused = rejected(Some(OperationKind::Subscription), &[error], &request_id);
                    Opened::Reply(Box::new(refused))
                }
            };
        }
        let (kind, cost) = (prepared.kind, Some(prepared.cost));
        if is_live {
            let request_id = Arc::clone(&request.caller.request_id);
            let set = RunningSet { prepared, cache_key: None };
            return match Box::pin(live::begin(self, viewer, request, set)).await {
                Ok(events) => Opened::Events(events),
                Err(error) => Opened::Reply(Box::new(rejected(Some(kind), &[error], &request_id))),
            };
        }
        let reply = match Execution::of(&self.inner, &request, started).with_token().await {
            Ok(execution) => Reply { cost, ..execution.run(viewer, prepared).await },
            Err(error) => rejected(Some(kind), &[error], &request.caller.request_id),
        };
        Opened::Reply(Box::new(reply))
    }

    /// Runs a document with several sets of variables: a query as one execution whose sets share every batch,
    /// a mutation one set after the other. `tell` gets each set's answer, in the order of the sets, as soon
    /// as it is written; what is wrong with one set is told in its answer alone. What the sets may load
    /// counts together.
    ///
    /// # Errors
    /// The only answer, where nothing can run: the operation is not found or is a subscription, or the sets
    /// cost too much.
    pub async fn execute_sets(
        &self,
        viewer: Viewer,
        document: Arc<Document>,
        (request, sets): (Request, Vec<Variables>),
        mut tell: impl FnMut(Reply) + Send,
    ) -> Result<(), Box<Reply>> {
        let started = Instant::now();
        let kind = self.inner.kind(&document, &request)?;
        let refuse = |error| Box::new(rejected(Some(kind), &[error], &request.caller.request_id));
        if kind == OperationKind::Subscription {
            let message = "A subscription takes one set of variables, not a list of them.";
            return Err(refuse(RequestError::new(Code::BadUserInput, message)));
        }
        let sets: Vec<_> =
            sets.into_iter().map(|set| self.inner.prepare(Arc::clone(&document), &request, set)).collect();
        let cost = sets.iter().flatten().fold(0_u64, |sum, set| sum.saturating_add(set.cost));
        self.inner.documents.check_total_cost(cost).map_err(refuse)?;
        let costs: Vec<_> = sets.iter().map(|set| set.as_ref().ok().map(|set| set.cost)).collect();
        let mut costs = costs.into_iter();
        let mut tell = |reply| tell(Reply { cost: costs.next().flatten(), ..reply });
        if kind != OperationKind::Mutation {
            let execution =
                Execution::of(&self.inner, &request, started).with_token().await.map_err(refuse)?;
            execution.run_sets(viewer, sets, tell).await;
            return Ok(());
        }
        self.inner.check_database(kind).map_err(refuse)?;
        for (index, set) in sets.into_iter().enumerate() {
            let reply = match set {
                Ok(prepared) => {
                    // Before a later set runs, those before it did: that time was not spent on the document.
                    let found_from = request.found_from.filter(|_| index == 0);
                    let execution = Execution::of(&self.inner, &request, Instant::now());
                    let execution = Execution { found_from, ..execution };
                    execution.run(viewer.clone(), prepared).await
                }
                Err(refused) => *refused,
            };
            tell(reply.of_set(index));
        }
        Ok(())
    }
}

impl<'g> Execution<'g> {
    fn of(inner: &'g GraphInner, request: &'g Request, started: Instant) -> Self {
        let explain = request.explain && inner.options.development;
        let floor = request.cache_token.as_deref().and_then(|token| token.parse().ok());
        let floored = floor.map(|floor| inner.store.not_before(floor));
        let found_from = request.found_from;
        Self { inner, request, started, found_from, explain, floored, resume_token: None }
    }

    /// Looks up to where the log of events was written, where that is asked for. What is read then is not older.
    async fn with_token(mut self) -> Result<Self, RequestError> {
        if self.request.resume_token {
            let found = Box::pin(self.store().at_resume_token()).await;
            let (token, store) = found.ok_or_else(|| RequestError::new(Code::Unavailable, AWAY))?;
            (self.resume_token, self.floored) = (Some(token.to_string()), Some(store));
        }
        Ok(self)
    }

    /// Whether the answer tells something about itself, so that nobody else gets it.
    fn is_for_once(&self) -> bool {
        self.explain || self.request.trace || self.request.resume_token
    }

    fn store(&self) -> &Store {
        self.floored.as_ref().unwrap_or(&self.inner.store)
    }

    fn bounds(&self, viewer: &Viewer) -> Bounds {
        self.inner.bounds(viewer, &self.request.caller, &self.request.taken)
    }

    /// Runs a query or a mutation with one set of variables.
    async fn run(&self, viewer: Viewer, prepared: Prepared) -> Reply {
        if let Err(error) = self.inner.check_database(prepared.kind) {
            return rejected(Some(prepared.kind), &[error], &self.request.caller.request_id);
        }
        let claim = match self.claim(&viewer, &prepared) {
            None => None,
            Some(claiming) => match claiming.await {
                Ok(claim) => Some(claim),
                Err(reply) => return *reply,
            },
        };
        let bounds = self.bounds(&viewer);
        let set = match self.find_kept(prepared, &viewer, &bounds).await {
            Ok(set) => set,
            Err(reply) => return reply,
        };
        let recorder = self.recorder(set.cache_key.is_some(), claim.clone());
        let ctx = self.context(viewer, &recorder, bounds, set.prepared.on_error);
        let stoppable = self.stoppable(&ctx, &recorder, set.prepared.cost);
        let answer = self.inner.answer(&set.prepared, &ctx).await;
        let reply = match answer {
            Ok(answer) => {
                let reply = self.finish(&set, &ctx, answer, (&recorder, Some(set.prepared.cost)));
                if let Some(claim) = claim {
                    Box::pin(keyed::keep(&claim, &reply)).await;
                }
                reply
            }
            Err(error) => rejected(Some(set.prepared.kind), &[error], &ctx.caller().request_id),
        };
        stoppable.ends();
        reply
    }

    /// Runs a query with one set of variables, noting what the answer is made of.
    async fn run_live(&self, viewer: Viewer, set: &RunningSet) -> LiveResult {
        // Each execution may take as much as one request.
        let bounds = self.inner.bounds(&viewer, &self.request.caller, &Taken::default());
        let recorder = self.recorder(true, None);
        let ctx = self.context(viewer, &recorder, bounds, set.prepared.on_error);
        let answer = match self.inner.answer(&set.prepared, &ctx).await {
            Ok(answer) => answer,
            Err(error) => {
                let id = &ctx.caller().request_id;
                return Err(Box::new(rejected(Some(set.prepared.kind), &[error], id)));
            }
        };
        let looked = ctx.viewer().looked();
        let is_true_for = ctx.is_true_for();
        let is_true_for = if is_true_for.is_zero() { live::CLOCK } else { is_true_for };
        let true_until = Instant::now().checked_add(is_true_for).filter(|_| is_true_for < FOREVER);
        let codes = answer.errors.codes.iter().map(|code| code.as_bytes());
        let digest = digest(answer.out.slices().chain(codes));
        let reply = self.finish(set, &ctx, answer, (&recorder, Some(set.prepared.cost)));
        Ok(LiveAnswer { reply, digest, looked, true_until, took: self.started.elapsed() })
    }

    /// Runs a query with several sets of variables. Its statements are those of the last answer that was made.
    async fn run_sets(
        &self,
        viewer: Viewer,
        sets: Vec<Result<Prepared, Box<Reply>>>,
        mut tell: impl FnMut(Reply) + Send,
    ) {
        let bounds = self.bounds(&viewer);
        let (mut running, mut ready) = (Vec::with_capacity(sets.len()), Vec::with_capacity(sets.len()));
        for set in sets {
            let set = match set {
                Ok(prepared) => self.find_kept(prepared, &viewer, &bounds).await,
                Err(refused) => Err(*refused),
            };
            ready.push(set.map(|set| running.push(set)).err());
        }
        let recorder = self.recorder(running.iter().any(|set| set.cache_key.is_some()), None);
        let cost = running.iter().fold(0_u64, |sum, set| sum.saturating_add(set.prepared.cost));
        // It is the same for all sets: the request says it, or the document.
        let on_error = running.first().map_or(OnError::default(), |set| set.prepared.on_error);
        let ctx = self.context(viewer, &recorder, bounds, on_error);
        let stoppable = self.stoppable(&ctx, &recorder, cost);
        let mut planned = Vec::with_capacity(running.len());
        for set in &running {
            planned.push(self.inner.plan(&set.prepared, &ctx).await);
        }
        let mut loaded = load(planned.iter().flatten(), &Query, &ctx).await.into_iter();
        let mut running = running.iter().zip(&planned);
        for (index, ready) in ready.into_iter().enumerate() {
            let reply = match ready.map_or_else(|| Err(running.next()), Ok) {
                Ok(reply) => reply,
                Err(Some((set, Ok(_)))) => {
                    let rows = loaded.next().expect("what was planned is loaded");
                    let out = set.prepared.document.output_buffer();
                    let answer = write(&rows, &ctx, out, self.inner.errors(&ctx)).await;
                    self.finish(set, &ctx, answer, (&recorder, (loaded.len() == 0).then_some(cost)))
                }
                Err(Some((set, Err(error)))) => {
                    rejected(Some(set.prepared.kind), std::slice::from_ref(error), &ctx.caller().request_id)
                }
                Err(None) => unreachable!("what is not ready was run"),
            };
            tell(reply.of_set(index));
        }
        stoppable.ends();
    }

    /// The answer that is kept for a set of variables; else the set, to be run.
    async fn find_kept(
        &self,
        prepared: Prepared,
        viewer: &Viewer,
        bounds: &Bounds,
    ) -> Result<RunningSet, Reply> {
        // A request that asks how its answer was made is always executed.
        let cache_key = AnswerCacheKey::of(&prepared, viewer, self.store())
            .filter(|_| !self.is_for_once() && !self.request.cache_tags);
        if let Some(cache_key) = &cache_key
            && let Some(answer) = cache_key.find(self.store()).await
            && let Some(reply) = answer.reply(bounds)
        {
            return Err(reply);
        }
        Ok(RunningSet { prepared, cache_key })
    }

    fn recorder(&self, keeps_answers: bool, claim: Option<Arc<Claim>>) -> Arc<Recorder> {
        // What is slow is known at the end only.
        let keeps_texts = self.explain || self.inner.options.slow_operation.is_some();
        let recorder = Recorder::new(keeps_texts).counting(self.request.progress.commits.clone());
        let recorder = match claim {
            Some(claim) => recorder.claimed(claim),
            None => recorder,
        };
        let collects = self.request.cache_tags || keeps_answers;
        Arc::new(if collects { recorder.collecting() } else { recorder })
    }

    /// Whether it has taken longer than is usual.
    fn is_slow(&self) -> bool {
        self.inner.options.slow_operation.is_some_and(|slow| self.started.elapsed() >= slow)
    }

    /// What the log tells of an operation that is slow.
    fn told_to_log(&self, ctx: &Context, recorder: &Recorder, cost: u64) -> Box<str> {
        let ran = explain::Ran { started: self.started, recorder, batchers: &[&ctx.batcher] };
        Explain::of(ran, (cost, self.inner.options.limits.cost), None).for_log().into()
    }

    /// From now on the execution may be stopped: whoever does so is told what it has done until then, if it is slow.
    fn stoppable<'a>(&'a self, ctx: &'a Context, recorder: &'a Recorder, cost: u64) -> Stoppable<'a, 'g> {
        Stoppable { execution: self, ctx, recorder, cost, has_ended: false }
    }

    fn context(
        &self,
        viewer: Viewer,
        recorder: &Arc<Recorder>,
        bounds: Bounds,
        on_error: OnError,
    ) -> Context {
        let caller = self.request.caller.clone();
        let mut ctx = self.inner.context(self.store(), viewer, caller, Arc::clone(recorder));
        (ctx.bounds, ctx.on_error) = (bounds, on_error);
        ctx.clock = self.request.trace.then(Clock::start);
        ctx
    }

    /// Ends an answer: keeps it where it may be kept, and adds what is told beside `data`. The last one of an
    /// execution tells what was executed, and gets what all of it may load.
    fn finish(
        &self,
        RunningSet { prepared, cache_key }: &RunningSet,
        ctx: &Context,
        mut answer: Unfinished,
        (recorder, cost_of_all): (&Recorder, Option<u64>),
    ) -> Reply {
        let Self { inner, request, started, found_from, explain, .. } = self;
        let (body, errors) = (&mut answer.out, &mut answer.errors);
        // An answer that lacks something, or tells about itself, is for this once.
        let is_for_once = self.is_for_once();
        let cache = prepared.cache.filter(|_| errors.is_empty() && !is_for_once);
        // Whether it was a gateway that asked is no part of the address that an answer is kept under.
        let is_for_some = ctx.viewer().was_read()
            || prepared.document.for_gateways.is_for_them_alone(inner.options.gateways_only);
        let cache = cache.map(|policy| policy.for_one_if(is_for_some));
        let cache_key = cache_key.as_ref().filter(|_| errors.is_empty());
        let digest = cache_key.and_then(|cache_key| cache_key.keep(ctx, recorder, body, cache));
        let explained = cost_of_all.filter(|_| *explain).map(|cost| {
            let found = found_from.map(|from| explain::Found {
                known: prepared.document.was_known(from),
                elapsed: started.saturating_duration_since(from),
            });
            let ran = explain::Ran { started: *started, recorder, batchers: &[&ctx.batcher] };
            inner.explain((prepared.kind, cost), ctx.viewer(), ran).found(found)
        });
        let trace = errors.trace.take().map(|trace| trace.finish(ctx.began(), started.elapsed()));
        let wanted = request.cache_tags && prepared.kind == OperationKind::Query;
        let labels = if wanted { kept::labels(prepared, ctx, recorder) } else { kept::Labels::default() };
        // A gateway that keeps answers by their tags may keep only what these cover, also of types that have an age.
        let cache = if wanted {
            let is_whole = errors.is_empty() && !is_for_once;
            labels.policy(inner.options.gateway_max_age_seconds, ctx).filter(|_| is_whole)
        } else {
            cache
        };
        let extensions = Extensions {
            explain: explained,
            cache_token: recorder.written_version().map(|moment| moment.to_string()),
            resume_token: self.resume_token.clone(),
            ftv1: trace,
            apollo_cache_tags: labels.of_answer,
            apollo_entity_cache_tags: labels.of_entities,
        };
        extensions.write(body.end());
        let answer = answer.finished(&ctx.caller().request_id, &ctx.bounds);
        prepared.document.note_response_bytes(answer.out.len());
        inner.documents.count_excess(&answer.errors.codes);
        let cache = cache.filter(|_| answer.errors.is_empty());
        let entities = if request.entities { query::entity_counts(prepared) } else { Vec::new() }.into();
        let slow = cost_of_all.filter(|_| self.is_slow()).map(|cost| self.told_to_log(ctx, recorder, cost));
        let reply = Reply::executed(prepared.kind, answer, recorder);
        let told = |count| if cost_of_all.is_some() { count } else { 0 };
        let (statements, cache_hits) = (told(reply.statements), told(reply.cache_hits));
        Reply { statements, cache_hits, cache, digest, entities, slow, ..reply }
    }
}

/// An execution that is stopped where this is dropped before `ends`.
struct Stoppable<'a, 'g> {
    execution: &'a Execution<'g>,
    ctx: &'a Context,
    recorder: &'a Recorder,
    cost: u64,
    has_ended: bool,
}

impl Stoppable<'_, '_> {
    fn ends(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Stoppable<'_, '_> {
    fn drop(&mut self) {
        let Self { execution, ctx, recorder, cost, has_ended } = self;
        if !*has_ended && execution.is_slow() {
            execution.request.progress.stop(|| execution.told_to_log(ctx, recorder, *cost));
        }
    }
}

impl GraphInner {
    /// Runs a live query once, reading nothing that is older than this.
    pub(super) async fn run_live(
        &self,
        viewer: Viewer,
        (request, set): (&Request, &RunningSet),
        floor: Option<Version>,
    ) -> LiveResult {
        let mut execution = Execution::of(self, request, Instant::now());
        if let Some(floor) = floor {
            // What the caller has written may be newer.
            let floor = execution.store().min_version().map_or(floor, |asked| floor.latest(asked));
            execution.floored = Some(self.store.not_before(floor));
        }
        let span = tracing::debug_span!(target: SPANS, "event", otel.name = "live query");
        execution.run_live(viewer, set).instrument(span).await
    }

    /// Every mutation needs the database: while it is away none begins.
    fn check_database(&self, kind: OperationKind) -> Result<(), RequestError> {
        if kind == OperationKind::Mutation && self.store.database().is_away() {
            return Err(RequestError::new(Code::Unavailable, AWAY));
        }
        Ok(())
    }

    /// The kind of the operation that is meant, if the caller may run the document.
    fn kind(&self, document: &Document, request: &Request) -> Result<OperationKind, Box<Reply>> {
        // However the document was found, by whomever it was sent first.
        let may_run = document.for_gateways.check(self.options.gateways_only, request.caller.clearance());
        let operation = may_run.and_then(|()| document.operation(request.operation_name.as_deref()));
        operation
            .map(|operation| operation.info.kind)
            .map_err(|error| Box::new(rejected(None, &[error], &request.caller.request_id)))
    }

    /// Finds out which operation is meant, or what is wrong with its variables.
    fn prepare(
        &self,
        document: Arc<Document>,
        request: &Request,
        given: Variables,
    ) -> Result<Prepared, Box<Reply>> {
        let kind = self.kind(&document, request)?;
        let refuse = |error| Box::new(rejected(Some(kind), &[error], &request.caller.request_id));
        let operation = document.operation(request.operation_name.as_deref()).map_err(refuse)?;
        let definitions = &operation.parsed.node.variable_definitions;
        let variables = self.input_types.coerce(definitions, given).map_err(refuse)?;
        let cost = self.documents.check_cost(operation.info, &variables).map_err(refuse)?;
        let (cache, operation_name) = (operation.info.cache, request.operation_name.clone());
        let on_error = request.on_error.unwrap_or_else(|| document.on_error());
        Ok(Prepared { document, operation_name, kind, cache, cost, variables, on_error })
    }

    /// No errors yet, of a request.
    fn errors(&self, ctx: &Context) -> Errors {
        let trace = ctx.clock.map(|_| Box::new(Tree::new(Arc::clone(&self.documents.types))));
        Errors::of(&ctx.caller().request_id)
            .traced(trace)
            .handled(ctx.on_error)
            .repeatable(ctx.claim().is_some())
    }

    /// Plans a query.
    async fn plan<'q>(
        &'q self,
        prepared: &'q Prepared,
        ctx: &'q Context,
    ) -> Result<Selection<'q, Query>, RequestError> {
        let planner = prepared.planner();
        let ask = |selected: &Selected<'_>| {
            let (document, operation_name) = (&*prepared.document, prepared.operation_name.as_deref());
            let question = Question { document, operation_name, planner, selected };
            self.introspected.answer(&question, &self.introspector)
        };
        plan(planner, &prepared.operation().selection_set.node, ctx, ask).await
    }

    /// Runs a query or a mutation; the answer lacks only its closing brace.
    async fn answer(&self, prepared: &Prepared, ctx: &Context) -> Result<Unfinished, RequestError> {
        let errors = self.errors(ctx);
        if prepared.kind == OperationKind::Mutation {
            let root = &prepared.operation().selection_set.node;
            return mutation::execute(root, prepared.planner(), ctx, errors).await;
        }
        let selection = self.plan(prepared, ctx).await?;
        Ok(answer(&selection, Query, ctx, prepared.document.output_buffer(), errors).await)
    }
}
