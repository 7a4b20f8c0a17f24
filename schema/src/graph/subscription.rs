//! The root `Subscription`. A subscription watches what is written (`entities::events`), and nothing escapes
//! it; each change that concerns it is one event, and each event is one small request of its own: the row is
//! read under the viewer's rights at that moment, then written by the same declarations as in a query.
//! Whether a viewer may see it is found out once for all subscriptions of the same rights (`decisions`). Not
//! here: how events travel to the client (the transports), what a subscription listens for (its domain).

use std::{
    any::Any,
    borrow::Cow,
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use async_graphql::{
    Context as EngineContext, OutputType as _, Response, SubscriptionType,
    indexmap::IndexMap,
    registry::{MetaField, MetaInputValue, MetaType, ObjectBuilder, Registry},
};
use entities::{
    Recorder, SPANS, Version,
    database::scope::Scope,
    events::{ChangeEvent, EventWatch, ResumeToken, WatchEnd},
};
use futures_util::{
    FutureExt as _, Stream,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tracing::Instrument as _;

mod decisions;

pub(crate) use decisions::Decisions;

use decisions::{Decision, Question};

use crate::{
    auth::viewer::Viewer,
    context::ContextExt as _,
    explain::{Explain, Extensions, Ran},
    graph::{Graph, location, session, submission},
    request::{Caller, OnSlowRun, Prepared, Reply, rejected},
};
use engine::{
    batch::Loader,
    chunks::Chunks,
    context::Context,
    document::OperationKind,
    edge::Arguments,
    error::{Code, FieldError, RequestError},
    federation::sdl,
    object::{Row, Visible, label, tags_of},
    output::{Errors, Unfinished, Writer},
    plan::{Planner, Selected},
};

/// All subscriptions.
static FIELDS: LazyLock<Vec<SubscriptionField>> = LazyLock::new(|| {
    vec![
        field(
            "submissionChanged",
            "Submissions to a form, as they are stored. Those that the viewer may not see do not come.",
            submission::changed(),
        ),
        field(
            "locationUpdated",
            "New newest positions, by the devices' clocks. Those that the viewer may not see do not come.",
            location::live::updated(),
        ),
        field(
            "sessionEnded",
            "Sessions of the viewer's account, as they end; for administrators, those of all accounts.",
            session::ended(),
        ),
    ]
});

fn field<A: Arguments, I, L, U>(
    name: &'static str,
    about: &'static str,
    listen: Listen<A, I, L, U>,
) -> SubscriptionField
where
    I: Send + Sync + 'static,
    U: Visible,
    L: Loader<Value = Arc<U::Row>>,
{
    SubscriptionField { name, about, listen: Box::new(listen) }
}

/// A subscription: what it takes, which changes concern it, which row an event shows.
pub(crate) struct Listen<A, I, L: Loader, U: Visible> {
    /// Turns the arguments into what is of interest; what is wrong with them is told at once.
    pub(crate) bind: fn(A, &Context) -> Result<I, FieldError>,
    /// The key of the row that an event shows, if the change is of interest. Which row that is follows from the
    /// change alone.
    pub(crate) key: fn(&I, &ChangeEvent) -> Option<L::Key>,
    /// Reads the row. What is read may depend on the viewer's scope, on nothing else of them.
    pub(crate) load: fn(&Context) -> L,
    /// Is it still of interest, now that it is read?
    pub(crate) wants: fn(&I, &ChangeEvent, &U::Row) -> bool,
}

struct SubscriptionField {
    name: &'static str,
    about: &'static str,
    listen: Box<dyn Listens>,
}

/// A `Listen` of any types.
trait Listens: Send + Sync {
    fn tag(&self) -> Option<&'static str>;
    fn type_ref(&self, registry: &mut Registry) -> String;
    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue>;
    /// Reads the arguments and checks the selection.
    fn open(
        &'static self,
        planner: Planner<'_>,
        selected: &Selected<'_>,
        ctx: &Context,
    ) -> Result<Box<dyn Interest>, RequestError>;
}

/// What one subscriber listens for.
trait Interest: Send + Sync {
    fn concerns(&self, change: &ChangeEvent) -> bool;
    /// Reads the row, and decides whether the viewer may see it: the same for all viewers of this scope.
    fn decide(&self, change: &ChangeEvent, ctx: Context) -> BoxFuture<'static, Decision>;
    /// Writes an event; `None` where it is not of interest after all.
    fn event<'a>(
        &'a self,
        change: &'a ChangeEvent,
        row: Result<Arc<dyn Any + Send + Sync>, FieldError>,
        planner: Planner<'a>,
        selected: &'a Selected<'a>,
        ctx: &'a Context,
    ) -> BoxFuture<'a, Option<Unfinished>>;
}

impl<A, I, L, U> Listens for Listen<A, I, L, U>
where
    A: Arguments,
    I: Send + Sync + 'static,
    U: Visible,
    L: Loader<Value = Arc<U::Row>>,
{
    fn tag(&self) -> Option<&'static str> {
        U::object().tag()
    }

    fn type_ref(&self, registry: &mut Registry) -> String {
        Row::<U>::create_type_info(registry)
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        A::describe(registry)
    }

    fn open(
        &'static self,
        planner: Planner<'_>,
        selected: &Selected<'_>,
        ctx: &Context,
    ) -> Result<Box<dyn Interest>, RequestError> {
        U::object().plan(planner, &selected.sets, ctx)?;
        let failed = |error: FieldError| RequestError::new(error.code, error.message).at(selected.location);
        if ctx.scope() == Scope::Nothing {
            return Err(failed(FieldError::unauthenticated()));
        }
        let args = A::of(&planner, selected.field).map_err(FieldError::bad_input).map_err(failed)?;
        let interest = (self.bind)(args, ctx).map_err(failed)?;
        Ok(Box::new(BoundListen { listen: self, interest }))
    }
}

struct BoundListen<A: 'static, I: 'static, L: Loader, U: Visible> {
    listen: &'static Listen<A, I, L, U>,
    interest: I,
}

impl<A, I, L, U> Interest for BoundListen<A, I, L, U>
where
    A: Arguments,
    I: Send + Sync + 'static,
    U: Visible,
    L: Loader<Value = Arc<U::Row>>,
{
    fn concerns(&self, change: &ChangeEvent) -> bool {
        (self.listen.key)(&self.interest, change).is_some()
    }

    fn decide(&self, change: &ChangeEvent, ctx: Context) -> BoxFuture<'static, Decision> {
        let (listen, key) = (self.listen, (self.listen.key)(&self.interest, change));
        async move {
            let Some(key) = key else { return Ok(None) };
            let reading = ctx.batcher.load((listen.load)(&ctx), key);
            let row = ctx.batcher.drive(reading).await?;
            let shown = row.filter(|row| U::visible_to(&ctx, Arc::clone(row)).is_some());
            Ok(shown.map(|row| row as Arc<dyn Any + Send + Sync>))
        }
        .boxed()
    }

    fn event<'a>(
        &'a self,
        change: &'a ChangeEvent,
        row: Result<Arc<dyn Any + Send + Sync>, FieldError>,
        planner: Planner<'a>,
        selected: &'a Selected<'a>,
        ctx: &'a Context,
    ) -> BoxFuture<'a, Option<Unfinished>> {
        async move {
            let plan = U::object().plan(planner, &selected.sets, ctx).expect("it was checked before");
            let reading = async {
                let row = match row {
                    Ok(row) => row.downcast::<U::Row>().expect("it was decided about this field"),
                    Err(error) => return Some(Err(error)),
                };
                if !(self.listen.wants)(&self.interest, change, &row) {
                    return None;
                }
                let shown = U::visible_to(ctx, row)?;
                Some(Ok(plan.run(vec![shown], ctx).await))
            };
            let rows = ctx.batcher.drive(reading).await?;
            let mut out = Chunks::from(b"{\"data\":".to_vec());
            let start = out.len();
            out.push(b'{');
            out.extend(label(selected.key()));
            let errors = Errors::of(&ctx.caller().request_id).handled(ctx.on_error);
            let mut writer = Writer::resume(Unfinished { out, errors, bound: ctx.bounds.answer() });
            let written = writer.whole(|writer| {
                writer.field(selected.key(), false, |writer| match &rows {
                    Ok(rows) => rows.write(0, writer),
                    Err(error) => Err(writer.fail(error, selected.location)),
                })
            });
            let written = match written.await {
                Ok(written) => written,
                Err(error) => {
                    return Some(Unfinished::instead(&error, &ctx.caller().request_id, &ctx.bounds));
                }
            };
            let mut answer = writer.finish();
            if written.is_ok() {
                answer.out.push(b'}');
            } else {
                answer.out.truncate(start);
                answer.out.extend(b"null");
            }
            Some(answer.with_errors())
        }
        .boxed()
    }
}

/// What comes of a subscription.
#[derive(Debug)]
pub enum Event {
    /// An event, as a complete answer.
    Reply(Box<Reply>),
    /// What was told may not be true any more, since another database took over or a backup was restored:
    /// whoever shows it must read it again, and subscribe again. Nothing follows.
    Interrupted,
}

/// The events of one subscription. Nothing is kept for a reader that does not read: what it is behind is read
/// from the log of events when it does.
pub type Events = BoxStream<'static, Event>;

/// A subscription under way.
struct Subscribed {
    graph: Graph,
    viewer: Viewer,
    caller: Caller,
    /// Each event says how it was made.
    explain: bool,
    /// Is told of events that take longer than is usual.
    on_slow_run: Option<OnSlowRun>,
    prepared: Prepared,
    field: &'static str,
    interest: Box<dyn Interest>,
    watch: EventWatch,
    /// What concerns it in the transaction that was told last.
    pending: VecDeque<Announced>,
    has_ended: bool,
}

/// A change, and where it comes from.
#[derive(Clone, Copy)]
struct Announced {
    change: ChangeEvent,
    /// `Watched::number`.
    number: u64,
    /// When it was written.
    written: Option<Version>,
    resume_token: Option<ResumeToken>,
}

/// Begins to listen, after the event that the token stands for.
pub(crate) async fn subscribe(
    graph: &Graph,
    viewer: Viewer,
    (caller, (explain, on_slow_run), resume_after): (Caller, (bool, Option<OnSlowRun>), Option<String>),
    prepared: Prepared,
) -> Result<Events, RequestError> {
    let ctx = graph.inner.context(&graph.inner.store, viewer.clone(), caller.clone(), Arc::default());
    let opened = selected(&prepared).and_then(|selected| match Subscription::field(selected.name()) {
        Some(field) => Ok((field.name, field.listen.open(prepared.planner(), &selected, &ctx)?)),
        None => Err(RequestError::new(Code::ValidationFailed, ONE_FIELD).at(selected.location)),
    });
    let (field, interest) = opened?;
    let after = resume_after.map(|token| token.parse::<ResumeToken>());
    let after = after.transpose().map_err(|_| RequestError::new(Code::BadUserInput, NOT_A_TOKEN))?;
    let mut watch = graph.inner.store.watch(after);
    // From here on nothing is missed.
    watch.begin().await.map_err(refused)?;
    let subscribed = Subscribed {
        graph: graph.clone(),
        viewer,
        caller,
        explain,
        on_slow_run,
        prepared,
        field,
        interest,
        watch,
        pending: VecDeque::new(),
        has_ended: false,
    };
    Ok(Box::pin(stream::unfold(subscribed, |mut subscribed| async {
        let event = subscribed.next().await?;
        Some((event, subscribed))
    })))
}

const ONE_FIELD: &str = "A subscription asks for exactly one field";
const AWAY: &str = "The database cannot be read now, so nobody knows what is new; try again in a moment";
/// How often the row of an event is read again where it cannot be read now, and the pause between.
const READ_AGAIN: (u32, Duration) = (20, Duration::from_millis(250));
const NOT_A_TOKEN: &str =
    "extensions.resumeAfter is not a resume token: it takes what an event said as extensions.resumeToken";
const EXPIRED: &str = "What happened after the resume token is not kept any more: read what you need again, \
                       then subscribe without it";

pub(super) fn refused(end: WatchEnd) -> RequestError {
    match end {
        WatchEnd::Expired => RequestError::new(Code::ResumeExpired, EXPIRED),
        WatchEnd::Unavailable | WatchEnd::Interrupted => RequestError::new(Code::Unavailable, AWAY),
    }
}

/// The one field of the operation (October 2021, §5.2.3.1).
fn selected(prepared: &Prepared) -> Result<Selected<'_>, RequestError> {
    let root = &prepared.operation().selection_set.node;
    let mut selected = prepared.planner().collect(&|condition| condition == Subscription::NAME, &[root])?;
    match (selected.pop(), selected.is_empty()) {
        (Some(field), true) => Ok(field),
        _ => Err(RequestError::new(Code::ValidationFailed, ONE_FIELD)),
    }
}

impl Subscribed {
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(announced) = self.pending.pop_front() {
                let span = tracing::debug_span!(target: SPANS, "event", otel.name = "subscription event");
                if let Some(reply) = self.event(announced).instrument(span).await {
                    return Some(Event::Reply(Box::new(reply)));
                }
            }
            if self.has_ended {
                return None;
            }
            match self.watch.next().await {
                Ok(watched) => {
                    let (number, written) = (watched.number(), watched.written);
                    let concerns = watched.changes().filter(|(change, _)| self.interest.concerns(change));
                    self.pending.extend(concerns.map(|(change, resume_token)| Announced {
                        change,
                        number,
                        written,
                        resume_token,
                    }));
                }
                Err(end) => {
                    self.has_ended = true;
                    if end == WatchEnd::Interrupted {
                        return Some(Event::Interrupted);
                    }
                    let kind = Some(OperationKind::Subscription);
                    let last = rejected(kind, &[refused(end)], &self.caller.request_id);
                    return Some(Event::Reply(Box::new(last)));
                }
            }
        }
    }

    async fn event(&self, announced: Announced) -> Option<Reply> {
        let Announced { change, number, written, mut resume_token } = announced;
        let started = Instant::now();
        let inner = &self.graph.inner;
        let context = |recorder| {
            let store = written.map_or_else(|| inner.store.clone(), |moment| inner.store.not_before(moment));
            let mut ctx = inner.context(&store, self.viewer.clone(), self.caller.clone(), recorder);
            ctx.on_error = self.prepared.on_error;
            ctx
        };
        let question = Question { number, change, field: self.field, scope: self.viewer.scope() };
        let is_recorded = self.explain || self.on_slow_run.is_some();
        let recorder = Arc::new(Recorder::new(is_recorded));
        // What was read for all who have these rights counts for none of them; it is told where it was read
        // for this one.
        let (mut tries, mut row, mut decider);
        tries = 0;
        loop {
            let deciding = context(if is_recorded { Arc::clone(&recorder) } else { Arc::default() });
            decider = deciding.batcher.clone();
            row = inner.decisions.of(question, || self.interest.decide(&change, deciding)).await;
            if row.is_ok() || tries == READ_AGAIN.0 {
                break;
            }
            tries += 1;
            tokio::time::sleep(READ_AGAIN.1).await;
        }
        if row.is_err() {
            // Who comes back gets it once it can be read.
            resume_token = None;
        }
        let row = row.transpose()?;
        let ctx = context(Arc::clone(&recorder));
        let selected = selected(&self.prepared).ok()?;
        let event = self.interest.event(&change, row, self.prepared.planner(), &selected, &ctx);
        let mut event = event.await?;
        let batchers = [&decider, &ctx.batcher];
        let ran = || Ran { started, recorder: &recorder, batchers: &batchers };
        let (kind, cost, took) = (self.prepared.kind, self.prepared.cost, started.elapsed());
        let explain = self.explain.then(|| inner.explain((kind, cost), &self.viewer, ran()));
        let is_slow = inner.options.slow_operation.is_some_and(|slow| took >= slow);
        if let Some(on_slow_run) = self.on_slow_run.as_ref().filter(|_| is_slow) {
            let most = inner.options.limits.cost;
            on_slow_run.0(took, &Explain::of(ran(), (cost, most), None).for_log());
        }
        let told = resume_token.map(|token| token.to_string());
        let extensions = Extensions { explain, resume_token: told, ..Extensions::default() };
        extensions.write(event.out.end());
        let answer = event.finished(&ctx.caller().request_id, &ctx.bounds);
        let reply = Reply::executed(OperationKind::Subscription, answer, &recorder);
        Some(Reply { resume_token: resume_token.map(Box::new), ..reply })
    }
}

/// The root's place in the library's registry. Execution never comes here.
pub(crate) struct Subscription;

impl Subscription {
    const NAME: &'static str = "Subscription";

    fn field(name: &str) -> Option<&'static SubscriptionField> {
        FIELDS.iter().find(|field| field.name == name)
    }

    fn describe(registry: &mut Registry) -> MetaType {
        let fields = FIELDS.iter().map(|field| {
            let mut meta = MetaField::new(field.name, field.listen.type_ref(registry));
            meta.description = Some(field.about.to_owned());
            meta.args = field.listen.arguments(registry);
            meta.tags = tags_of(field.listen.tag());
            // `Listens::open` asks for an account.
            meta.directive_invocations.push(sdl::authenticated());
            (field.name.to_owned(), meta)
        });
        let fields = fields.collect();
        ObjectBuilder::new(Self::NAME, fields)
            .description(Some(
                "Everything that can be waited for: over WebSocket (`graphql-transport-ws`) or as \
                 server-sent events."
                    .to_owned(),
            ))
            .is_subscription(true)
            .rust_typename(std::any::type_name::<Self>())
            .build()
    }
}

impl SubscriptionType for Subscription {
    fn type_name() -> Cow<'static, str> {
        Self::NAME.into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_subscription_type::<Self, _>(Self::describe)
    }

    fn create_field_stream<'a>(
        &'a self,
        _: &'a EngineContext<'_>,
    ) -> Option<Pin<Box<dyn Stream<Item = Response> + Send + 'a>>> {
        None
    }
}
