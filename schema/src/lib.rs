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
    SDLExportOptions, Schema, ValidationMode, Variables,
    parser::types::{OperationDefinition, OperationType, SelectionSet},
};
use entities::{Recorder, Store, clock::Time, id::UserId, scope::Scope};
use prometheus_client::registry::Registry;
use serde::Deserialize;

pub mod access;
pub mod activity;
pub mod batch;
pub mod connection;
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
pub mod query;
pub mod scalar;
mod select;
pub mod session;
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
pub use gate::Limits;
pub use subscription::Events;
pub use viewer::Viewer;

use crate::{
    batch::{Batcher, Groups, Metrics},
    document::{Document, Documents, OnlyValidate, request_of},
    error::{Code, FieldError, RequestError},
    mutation::Mutation,
    object::{Entity as _, Row, Selection},
    query::Query,
    select::Planner,
    subscription::Subscription,
    variables::InputTypes,
    write::{Errors, Writer},
};

/// One GraphQL request as it came over the wire.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The document's text.
    #[serde(default)]
    pub query: String,
    /// Which operation of the document to run.
    #[serde(default)]
    pub operation_name: Option<String>,
    /// Values of the operation's variables.
    #[serde(default)]
    pub variables: Variables,
    /// Add `extensions.explain` to the answer; only in development.
    #[serde(skip)]
    pub explain: bool,
    /// What the caller has written, as `extensions.cacheToken` said: the answer must not be older.
    #[serde(skip)]
    pub cache_token: Option<String>,
    /// From where and with what it was sent.
    #[serde(skip)]
    pub caller: Caller,
    /// The request's id, for internal errors.
    #[serde(skip)]
    pub request_id: String,
}

/// From where and with what a request was sent; says nothing about who sent it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The client's own description of itself.
    pub user_agent: Option<Arc<str>>,
}

/// What kind of operation ran.
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
}

impl Reply {
    fn executed(kind: OperationKind, body: Vec<u8>, errors: Errors, recorder: &Recorder) -> Self {
        let Errors { codes, retry_after_seconds, .. } = errors;
        let (operation, statements) = (Some(kind), recorder.count());
        let cache_token = recorder.wrote().map(|moment| moment.to_string());
        Self { body, operation, executed: true, codes, retry_after_seconds, statements, cache_token }
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
}

impl Default for Options {
    fn default() -> Self {
        Self { development: false, limits: Limits::default(), access: None, shared_batches: 2 }
    }
}

/// What one request knows: who asks, when, and its loads.
#[derive(Clone)]
pub struct Context {
    /// Who asks.
    pub viewer: Viewer,
    /// What they may read.
    pub scope: Scope,
    /// From where they ask.
    pub caller: Caller,
    /// When the request began: one moment for the whole answer.
    pub now: Time,
    /// Its loads.
    pub batcher: Batcher,
    pub(crate) access: Access,
    pub(crate) sdl: Arc<str>,
}

impl Context {
    /// The same request in the eyes of another viewer, if there is one.
    pub(crate) fn read_by(&self, viewer: Option<Viewer>) -> Self {
        let viewer = viewer.unwrap_or_else(|| self.viewer.clone());
        Self { scope: viewer.scope(), viewer, ..self.clone() }
    }

    /// The account that asks.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where nobody is signed in.
    pub(crate) fn user(&self) -> Result<UserId, FieldError> {
        self.viewer.user_id().ok_or(FieldError::unauthenticated())
    }

    /// The account that asks, which may fill in forms and record positions.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where nobody is signed in, `FORBIDDEN` for accounts that only read.
    pub(crate) fn collector(&self) -> Result<UserId, FieldError> {
        let user = self.user()?;
        if self.viewer.collects() {
            Ok(user)
        } else {
            Err(FieldError::new(Code::Forbidden, "Accounts of the role VIEWER only read"))
        }
    }

    /// The store, reporting its statements to this request.
    pub(crate) fn store(&self) -> &Store {
        self.batcher.store()
    }
}

type Engine = Schema<Row<Query>, Mutation, Subscription>;

/// The graph: schema, documents, batching, and the store behind them. Cheap to clone.
#[derive(Clone)]
pub struct Graph {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    access: Access,
    options: Options,
    sdl: Arc<str>,
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
        let engine = |suggestions: bool| {
            let builder = Schema::build(Row::new(), Mutation, Subscription)
                .enable_federation()
                .enable_subscription_in_federation()
                // The gate counts depth itself, through fragments too; the library must not refuse what it let through.
                .limit_recursive_depth(64);
            if suggestions { builder } else { builder.disable_suggestions() }
        };
        let validator = engine(options.development).extension(OnlyValidate).finish();
        let introspector = engine(false).validation_mode(ValidationMode::Fast).finish();
        let sdl = introspector
            .sdl_with_options(SDLExportOptions::new().federation().include_specified_by().use_space_ident());
        let input_types = InputTypes::of_sdl(&introspector.sdl());
        let documents = Documents::new(options.limits);
        let (groups, metrics) = (Groups::new(options.shared_batches), Metrics::register(registry));
        let sdl = Arc::from(sdl);
        let own = || Access::new(store.clone(), AccessOptions::default());
        let access = options.access.clone().unwrap_or_else(own);
        let inner = Inner {
            store,
            access,
            options,
            sdl,
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
        &self.inner.sdl
    }

    /// What lets callers in. Before `Access::open` was called on it no token is good.
    pub fn access(&self) -> &Access {
        &self.inner.access
    }

    /// Runs one request for a viewer. Never fails: every failure is an answer with coded errors.
    pub async fn execute(&self, viewer: Viewer, request: Request) -> Reply {
        match self.open(viewer, request).await {
            Opened::Reply(reply) => reply,
            Opened::Events(_) => {
                let message = "Subscriptions are answered over WebSocket (graphql-transport-ws) or as server-sent \
                               events (Accept: text/event-stream)";
                let error = RequestError::new(Code::BadUserInput, message);
                refused(Some(OperationKind::Subscription), &[error])
            }
        }
    }

    /// The same for callers who can wait: a subscription is answered by its events.
    pub async fn open(&self, viewer: Viewer, mut request: Request) -> Opened {
        let started = Instant::now();
        let prepared = match self.inner.prepare(&mut request).await {
            Ok(prepared) => prepared,
            Err(refused) => return Opened::Reply(refused),
        };
        if prepared.kind == OperationKind::Subscription {
            return match subscription::subscribe(self, viewer, prepared) {
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
                let explained =
                    explain.then(|| explain::Explain::of(&recorder, &ctx.batcher, started.elapsed()));
                explain::write(explained, recorder.wrote(), &mut body);
                body.push(b'}');
                prepared.document.answered(body.len());
                Reply::executed(prepared.kind, body, errors, &recorder)
            }
            Err(error) => refused(Some(prepared.kind), &[error]),
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
    variables: Variables,
}

impl Prepared {
    fn operation(&self) -> &OperationDefinition {
        let operation = self.document.operation(self.operation_name.as_deref());
        &operation.expect("it was found when the request was prepared").node
    }

    fn planner(&self) -> Planner<'_> {
        Planner { fragments: &self.document.parsed.fragments, variables: &self.variables }
    }
}

impl Inner {
    /// Finds out what is asked, or what is wrong with it.
    async fn prepare(&self, request: &mut Request) -> Result<Prepared, Reply> {
        let document = self.document(request).await.map_err(|errors| refused(None, &errors))?;
        let operation = document.operation(request.operation_name.as_deref());
        let operation = &operation.map_err(|error| refused(None, &[error]))?.node;
        let kind = match operation.ty {
            OperationType::Query => OperationKind::Query,
            OperationType::Mutation => OperationKind::Mutation,
            OperationType::Subscription => OperationKind::Subscription,
        };
        let given = std::mem::take(&mut request.variables);
        let variables = self.input_types.coerce(&operation.variable_definitions, given);
        let variables = variables.map_err(|error| refused(Some(kind), &[error]))?;
        Ok(Prepared { operation_name: request.operation_name.take(), kind, variables, document })
    }

    /// A new request's context.
    fn context(&self, viewer: Viewer, caller: Caller, recorder: Arc<Recorder>) -> Context {
        let batcher = self.batcher(&self.store, recorder);
        let (scope, now) = (viewer.scope(), entities::clock::now());
        let (access, sdl) = (self.access.clone(), Arc::clone(&self.sdl));
        Context { viewer, scope, caller, now, batcher, access, sdl }
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

    /// The request's document, valid.
    async fn document(&self, request: &Request) -> Result<Arc<Document>, Vec<RequestError>> {
        if let Some(document) = self.documents.known(&request.query) {
            return Ok(document);
        }
        let document = self.documents.read(&request.query).map_err(|error| vec![error])?;
        let operation = document.operation(request.operation_name.as_deref()).map_err(|error| vec![error])?;
        // Values of the wrong type would show up as validation errors of the document: variables come first.
        let definitions = &operation.node.variable_definitions;
        let variables =
            self.input_types.coerce(definitions, request.variables.clone()).map_err(|error| vec![error])?;
        let name = request.operation_name.as_deref();
        let checked = self.validator.execute(request_of(document.parsed.clone(), name, variables)).await;
        if !checked.errors.is_empty() {
            let errors = checked.errors.into_iter();
            return Err(errors.map(|error| RequestError::of_engine(Code::ValidationFailed, error)).collect());
        }
        self.documents.keep(&request.query, &document);
        Ok(document)
    }

    /// Plans the root: introspection is answered by the library, everything else by the declarations.
    async fn plan<'q>(
        &self,
        document: &Document,
        root: &'q SelectionSet,
        planner: Planner<'q>,
        ctx: &'q Context,
    ) -> Result<Selection<'q, Query>, RequestError> {
        let query = Query::object();
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
    let mut writer = Writer::new(out);
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

fn refused(operation: Option<OperationKind>, errors: &[RequestError]) -> Reply {
    let errors = Errors::of_request(errors);
    let mut body = b"{\"errors\":".to_vec();
    errors.write(&mut body);
    body.push(b'}');
    let (executed, codes) = (false, errors.codes);
    Reply { body, operation, executed, codes, retry_after_seconds: None, statements: 0, cache_token: None }
}
