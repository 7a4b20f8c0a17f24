//! The front room: everything a client sees. Knows GraphQL and the store room's functions; names no SQL, no Redis and
//! no HTTP (its manifest has none of them).
//!
//! In reading order: `Graph` (one request from text to bytes), `access` (who is let in) and `viewer` (who asks), `document` and `variables` (what
//! is asked, checked once), `object` (types declared once, executed batch-first) with `edge`, `connection` and `node`,
//! `batch` (loading without a timer), `write` (the answer), then the domains under the same names as in every room.
//!
//! The library async-graphql parses, validates, introspects and prints the schema. Queries are executed by `object`.

use std::{net::IpAddr, sync::Arc, time::Instant};

use async_graphql::{
    CustomDirectiveFactory, Schema, ValidationMode,
    parser::{
        parse_schema,
        types::{OperationDefinition, SelectionSet},
    },
};
use entities::{Recorder, Store, clock::Time, id::UserId, scope::Scope};
use prometheus_client::registry::Registry;

pub mod access;
pub mod activity;
pub mod batch;
pub mod cache_control;
pub mod connection;
mod cost;
pub mod credentials;
mod document;
pub mod edge;
pub mod error;
mod explain;
#[cfg(any(test, feature = "bench"))]
pub mod fake;
pub mod form;
pub mod gate;
pub mod input;
mod introspection;
pub mod location;
mod mutation;
pub mod node;
pub mod object;
#[cfg(any(test, feature = "products"))]
pub mod products;
pub mod query;
pub mod scalar;
mod sdl;
mod select;
pub mod session;
pub mod subgraph;
pub mod submission;
mod subscription;
mod throttle;
pub mod token;
pub mod user;
pub mod user_error;
mod variables;
pub mod viewer;
mod write;

pub use access::{Access, AccessOptions};
/// Values of variables by name.
pub use async_graphql::Variables;
pub use cache_control::{Audience, CachePolicy};
pub use document::Document;
pub use gate::Limits;
pub use subgraph::{Domain, Subgraph};
pub use subscription::Events;
pub use viewer::Viewer;

use crate::{
    batch::{Batcher, Groups, Metrics},
    cache_control::Watched,
    cost::OutputTypes,
    document::{Documents, OnlyValidate},
    error::{Code, FieldError, RequestError},
    mutation::Mutation,
    object::{Entity as _, Object, Row, Selection},
    query::Query,
    select::Planner,
    subscription::Subscription,
    variables::InputTypes,
    write::{Errors, Writer},
};

/// One GraphQL request as it came over the wire.
#[derive(Debug, Default)]
pub struct Request {
    /// The document's text; not used where the document is given by itself.
    pub query: String,
    /// Which operation of the document to run.
    pub operation_name: Option<String>,
    /// Values of the operation's variables.
    pub variables: Variables,
    /// Add `extensions.explain` to the answer; only in development.
    pub explain: bool,
    /// What the caller has written, as `extensions.cacheToken` said: the answer must not be older.
    pub cache_token: Option<String>,
    /// From where and with what it was sent.
    pub caller: Caller,
}

/// From where and with what a request was sent; says nothing about whose rights it has (`Viewer`).
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The client's own description of itself.
    pub user_agent: Option<Arc<str>>,
    /// The request's id, which its errors and the log tell; empty: none.
    pub request_id: Arc<str>,
}

impl Caller {
    /// The addresses that one customer has to himself: of IPv6 a whole network.
    pub fn customer(&self) -> Option<IpAddr> {
        self.address.map(throttle::block_of_one)
    }
}

/// What kind of operation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Reads.
    Query,
    /// Writes.
    Mutation,
    /// Waits for events.
    Subscription,
}

/// The answer to one request.
#[derive(Debug, Default)]
pub struct Reply {
    /// The response as JSON.
    pub body: Vec<u8>,
    /// The kind of the operation, where one was found.
    pub operation: Option<OperationKind>,
    /// False for request errors (parse, validation, coercion): the answer has no `data` entry then.
    pub executed: bool,
    /// The codes of all errors in the answer, in order.
    pub codes: Vec<&'static str>,
    /// After how many seconds it may be tried again, where an error says so.
    pub retry_after_seconds: Option<u32>,
    /// SQL statements that this request caused or shared.
    pub statements: u32,
    /// The moment of what the request wrote, for reading it on other nodes.
    pub cache_token: Option<String>,
    /// How long the answer keeps; `None`: not at all.
    pub cache: Option<CachePolicy>,
}

impl Reply {
    fn executed(kind: OperationKind, body: Vec<u8>, errors: Errors, recorder: &Recorder) -> Self {
        let Errors { codes, retry_after_seconds, .. } = errors;
        let (operation, statements) = (Some(kind), recorder.count());
        let cache_token = recorder.wrote().map(|moment| moment.to_string());
        Self {
            body,
            operation,
            executed: true,
            codes,
            retry_after_seconds,
            statements,
            cache_token,
            cache: None,
        }
    }
}

/// How the graph is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Development: `extensions.explain`, suggestions in validation errors.
    pub development: bool,
    /// Limits on documents.
    pub limits: Limits,
    /// Who is let in; none: nobody but by keys of this graph alone.
    pub access: Option<Access>,
    /// Shared batches of one loader that may be under way at once; 0 keeps every request to itself.
    pub shared_batches: usize,
    /// What of the graph is served.
    pub subgraph: Subgraph,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            development: false,
            limits: Limits::default(),
            access: None,
            shared_batches: 2,
            subgraph: Subgraph::WHOLE,
        }
    }
}

/// What one request knows: who asks, when, and its loads.
#[derive(Clone)]
pub struct Context {
    /// Who asks.
    pub viewer: Watched<Viewer>,
    /// What they may read.
    pub scope: Watched<Scope>,
    /// From where they ask.
    pub caller: Caller,
    /// When the request began: one moment for the whole answer.
    pub now: Time,
    /// Its loads.
    pub batcher: Batcher,
    pub(crate) access: Access,
    pub(crate) service: Service,
}

/// What gateways are told of the graph.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) subgraph: Subgraph,
    pub(crate) sdl: Arc<str>,
}

impl Context {
    pub(crate) fn new(
        viewer: Viewer,
        caller: Caller,
        access: Access,
        batcher: Batcher,
        service: Service,
    ) -> Self {
        let (viewer, scope) = Watched::viewer(viewer);
        Self { viewer, scope, caller, access, now: entities::clock::now(), batcher, service }
    }

    /// The same request in the eyes of another viewer, if there is one.
    pub(crate) fn read_by(&self, viewer: Option<Viewer>) -> Self {
        let viewer = viewer.unwrap_or_else(|| Viewer::clone(&self.viewer));
        Self { scope: self.scope.with(viewer.scope()), viewer: self.viewer.with(viewer), ..self.clone() }
    }

    /// The account that asks.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where nobody is signed in.
    pub(crate) fn user(&self) -> Result<UserId, FieldError> {
        self.viewer.user_id().ok_or(FieldError::unauthenticated())
    }

    /// The store, reporting its statements to this request.
    pub(crate) fn store(&self) -> &Store {
        self.batcher.store()
    }
}

type Engine = Schema<Row<Query>, Mutation, Subscription>;

/// What a graph is made of.
struct Shape<T> {
    /// The root of queries.
    query: &'static Object<Query>,
    /// Has the last word on what the schema has.
    types: T,
    /// Directives that are none of the federation's.
    composed: &'static [sdl::Composed],
}

/// The graph: schema, documents, batching, and the store behind them. Cheap to clone.
#[derive(Clone)]
pub struct Graph {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    access: Access,
    options: Options,
    service: Service,
    query: &'static Object<Query>,
    validator: Engine,
    introspector: Engine,
    input_types: InputTypes,
    documents: Documents,
    groups: Groups,
    metrics: Metrics,
}

impl Graph {
    /// Builds the schema over a store. Metrics go into `registry`.
    pub fn new(store: Store, options: Options, registry: &mut Registry) -> Self {
        let subgraph = options.subgraph;
        Self::of(store, options, registry, Shape { query: Query::object(), types: subgraph, composed: &[] })
    }

    /// The same of another shape.
    fn of<T: CustomDirectiveFactory + Copy>(
        store: Store,
        options: Options,
        registry: &mut Registry,
        Shape { query, types, composed }: Shape<T>,
    ) -> Self {
        let engine = |suggestions: bool| {
            let builder = Schema::build(Row::new(), Mutation, Subscription)
                .enable_federation()
                .enable_subscription_in_federation()
                .directive(types)
                // The gate counts depth itself, through fragments too; the library must not refuse what it let through.
                .limit_recursive_depth(64);
            if suggestions { builder } else { builder.disable_suggestions() }
        };
        let validator = engine(options.development).extension(OnlyValidate).finish();
        let introspector = engine(false).validation_mode(ValidationMode::Fast).finish();
        let service =
            Service { subgraph: options.subgraph, sdl: sdl::federated(&introspector, composed).into() };
        let types =
            parse_schema(introspector.sdl()).expect("the schema prints SDL that its own parser reads");
        let input_types = InputTypes::of(&types);
        let documents = Documents::new(options.limits, OutputTypes::of(&types), registry);
        let (groups, metrics) = (Groups::new(options.shared_batches), Metrics::register(registry));
        let own = || Access::new(store.clone(), AccessOptions::default());
        let access = options.access.clone().unwrap_or_else(own);
        let inner = Inner {
            store,
            access,
            options,
            service,
            query,
            validator,
            introspector,
            input_types,
            documents,
            groups,
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The federated SDL, byte-equal to `_service.sdl`.
    pub fn sdl(&self) -> &str {
        &self.inner.service.sdl
    }

    /// What lets callers in. Before `Access::open` was called on it no token is good.
    pub fn access(&self) -> &Access {
        &self.inner.access
    }

    /// Runs one request for a viewer. Never fails: every failure is an answer with coded errors.
    pub async fn execute(&self, viewer: Viewer, request: Request) -> Reply {
        match self.prepare_for(&request.query, &request.caller).await {
            Ok(document) => self.execute_document(viewer, document, request).await,
            Err(refused) => refused,
        }
    }

    /// The same for callers who can wait: a subscription is answered by its events.
    pub async fn open(&self, viewer: Viewer, request: Request) -> Opened {
        match self.prepare_for(&request.query, &request.caller).await {
            Ok(document) => self.open_document(viewer, document, request).await,
            Err(refused) => Opened::Reply(refused),
        }
    }

    /// Reads, validates and judges a document; once for each text, as long as it is remembered.
    ///
    /// # Errors
    /// The answer to a request with this document, which cannot be run.
    pub async fn prepare(&self, text: &str) -> Result<Arc<Document>, Reply> {
        self.prepare_for(text, &Caller::default()).await
    }

    /// The same for a caller, whose request's id the answer tells.
    ///
    /// # Errors
    /// The answer to a request with this document, which cannot be run.
    pub async fn prepare_for(&self, text: &str, caller: &Caller) -> Result<Arc<Document>, Reply> {
        let prepared = self.inner.documents.prepare(text, &self.inner.validator).await;
        prepared.map_err(|errors| refused(None, &errors, &caller.request_id))
    }

    /// Runs a document for a viewer who cannot wait for events.
    pub async fn execute_document(&self, viewer: Viewer, document: Arc<Document>, request: Request) -> Reply {
        let request_id = Arc::clone(&request.caller.request_id);
        match self.open_document(viewer, document, request).await {
            Opened::Reply(reply) => reply,
            Opened::Events(_) => {
                let message = "Subscriptions are answered over WebSocket (graphql-transport-ws) or as server-sent \
                               events (Accept: text/event-stream)";
                let error = RequestError::new(Code::BadUserInput, message);
                refused(Some(OperationKind::Subscription), &[error], &request_id)
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
        let prepared = match self.inner.prepare(document, &mut request) {
            Ok(prepared) => prepared,
            Err(refused) => return Opened::Reply(refused),
        };
        if prepared.kind == OperationKind::Subscription {
            return match subscription::subscribe(self, viewer, request.caller, prepared) {
                Ok(events) => Opened::Events(events),
                Err(refused) => Opened::Reply(refused),
            };
        }
        let explain = request.explain && self.inner.options.development;
        let recorder = Arc::new(Recorder::new(explain));
        let mut ctx = self.inner.context(viewer, request.caller, Arc::clone(&recorder));
        if let Some(moment) = request.cache_token.and_then(|token| token.parse().ok()) {
            ctx.batcher = self.inner.batcher(&self.inner.store.not_before(moment), Arc::clone(&recorder));
        }
        let answered = self.inner.answer(&prepared, &ctx).await;
        Opened::Reply(match answered {
            Ok((mut body, errors)) => {
                // An answer that lacks something, or tells about itself, is for this once.
                let cache = prepared.cache.filter(|_| errors.is_empty() && !explain);
                let cache = cache.map(|policy| policy.for_one_if(ctx.viewer.was_read()));
                let explained =
                    explain.then(|| explain::Explain::of(&recorder, &ctx.batcher, started.elapsed()));
                explain::write(explained, recorder.wrote(), &mut body);
                body.push(b'}');
                prepared.document.answered(body.len());
                Reply { cache, ..Reply::executed(prepared.kind, body, errors, &recorder) }
            }
            Err(error) => refused(Some(prepared.kind), &[error], &ctx.caller.request_id),
        })
    }
}

/// What comes of a request.
pub enum Opened {
    /// One answer.
    Reply(Reply),
    /// The answers of a subscription, one an event.
    Events(Events),
}

/// A request that may run: its document is valid, and so are its variables.
struct Prepared {
    document: Arc<Document>,
    operation_name: Option<String>,
    kind: OperationKind,
    cache: Option<CachePolicy>,
    variables: Variables,
}

impl Prepared {
    fn operation(&self) -> &OperationDefinition {
        let operation = self.document.operation(self.operation_name.as_deref());
        &operation.expect("it was found when the request was prepared").parsed.node
    }

    fn planner(&self) -> Planner<'_> {
        Planner { fragments: &self.document.parsed.fragments, variables: &self.variables }
    }
}

impl Inner {
    /// Finds out which operation is meant, or what is wrong with its variables.
    fn prepare(&self, document: Arc<Document>, request: &mut Request) -> Result<Prepared, Reply> {
        let request_id = Arc::clone(&request.caller.request_id);
        let operation = document.operation(request.operation_name.as_deref());
        let operation = operation.map_err(|error| refused(None, &[error], &request_id))?;
        let (kind, cache) = (operation.judged.kind, operation.judged.cache);
        let given = std::mem::take(&mut request.variables);
        let variables = self.input_types.coerce(&operation.parsed.node.variable_definitions, given);
        let variables = variables.and_then(|variables| {
            self.documents.check_cost(operation.judged, &variables)?;
            Ok(variables)
        });
        let variables = variables.map_err(|error| refused(Some(kind), &[error], &request_id))?;
        Ok(Prepared { operation_name: request.operation_name.take(), kind, cache, variables, document })
    }

    /// A new request's context.
    fn context(&self, viewer: Viewer, caller: Caller, recorder: Arc<Recorder>) -> Context {
        let batcher = self.batcher(&self.store, recorder);
        Context::new(viewer, caller, self.access.clone(), batcher, self.service.clone())
    }

    /// A new request's loads.
    fn batcher(&self, store: &Store, recorder: Arc<Recorder>) -> Batcher {
        Batcher::new(store, recorder, self.groups.clone(), self.metrics.clone())
    }

    /// Runs a query or a mutation; the answer lacks only its closing brace.
    async fn answer(&self, prepared: &Prepared, ctx: &Context) -> Result<(Vec<u8>, Errors), RequestError> {
        let (root, planner) = (&prepared.operation().selection_set.node, prepared.planner());
        if prepared.kind == OperationKind::Mutation {
            return mutation::execute(root, planner, ctx).await;
        }
        let selection = self.plan(&prepared.document, root, planner, ctx).await?;
        Ok(answer(&selection, Query, ctx, prepared.document.room()).await)
    }

    /// Plans the root: introspection is answered by the library, everything else by the declarations.
    async fn plan<'q>(
        &self,
        document: &Document,
        root: &'q SelectionSet,
        planner: Planner<'q>,
        ctx: &'q Context,
    ) -> Result<Selection<'q, Query>, RequestError> {
        let query = self.query;
        let mut selection = Selection::empty();
        for selected in planner.collect(&|condition| query.is(condition), &[root])? {
            if matches!(selected.name(), "__schema" | "__type") {
                let (key, run) = introspection::run(&self.introspector, document, planner, &selected).await;
                selection.push_edge(key, selected.name() == "__type", run);
            } else {
                query.plan_field(&mut selection, planner, selected, ctx)?;
            }
        }
        Ok(selection)
    }
}

/// Runs a planned query on its root; the answer lacks only its closing brace.
async fn answer<T: object::Entity>(
    selection: &Selection<'_, T>,
    root: T,
    ctx: &Context,
    mut out: Vec<u8>,
) -> (Vec<u8>, Errors) {
    let rows = ctx.batcher.drive(selection.run(vec![root], ctx)).await;
    out.extend(b"{\"data\":");
    let mut writer = Writer::new(out, &ctx.caller.request_id);
    let start = writer.out.len();
    if rows.write(0, &mut writer).is_err() {
        writer.out.truncate(start);
        writer.out.extend(b"null");
    }
    with_errors(writer.finish())
}

/// Adds the entry `errors`, where there are any.
fn with_errors((mut body, errors): (Vec<u8>, Errors)) -> (Vec<u8>, Errors) {
    if !errors.is_empty() {
        body.extend(b",\"errors\":");
        errors.write(&mut body);
    }
    (body, errors)
}

fn refused(operation: Option<OperationKind>, errors: &[RequestError], request_id: &Arc<str>) -> Reply {
    let errors = Errors::of_request(errors, request_id);
    let mut body = b"{\"errors\":".to_vec();
    errors.write(&mut body);
    body.push(b'}');
    let (executed, codes) = (false, errors.codes);
    Reply { body, operation, executed, codes, ..Reply::default() }
}
