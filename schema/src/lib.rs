//! The front room: everything a client sees. Knows GraphQL and the store room's functions; names no SQL, no Redis and
//! no HTTP (its manifest has none of them).
//!
//! In reading order: `Graph` (one request from text to bytes), `access` (who is let in) and `viewer` (who asks), `document` and `variables` (what
//! is asked, checked once), `object` (types declared once, executed batch-first) with `edge`, `connection` and `node`,
//! `batch` (loading without a timer), `write` (the answer), then the domains under the same names as in every room.
//!
//! The library async-graphql parses, validates, introspects and prints the schema. Queries are executed by `object`.

use std::{net::IpAddr, sync::Arc, time::Instant};

use async_graphql::{EmptySubscription, SDLExportOptions, Schema, ValidationMode, parser::parse_schema};
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
pub mod query;
pub mod scalar;
mod select;
pub mod session;
pub mod submission;
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
pub use viewer::Viewer;

use crate::{
    batch::{Batcher, Groups, Metrics},
    cache_control::Watched,
    cost::OutputTypes,
    document::{Documents, OnlyValidate},
    error::{FieldError, RequestError},
    mutation::Mutation,
    object::{Entity as _, Row, Selection},
    query::Query,
    select::Planner,
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
    /// The request's id, for internal errors.
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
#[derive(Debug)]
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
    /// How long the answer keeps; `None`: not at all.
    pub cache: Option<CachePolicy>,
    /// The moment of what the request wrote, for reading it on other nodes.
    pub cache_token: Option<String>,
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
    pub(crate) sdl: Arc<str>,
}

impl Context {
    pub(crate) fn new(
        viewer: Viewer,
        caller: Caller,
        access: Access,
        batcher: Batcher,
        sdl: Arc<str>,
    ) -> Self {
        let (viewer, scope) = Watched::viewer(viewer);
        Self { viewer, scope, caller, access, now: entities::clock::now(), batcher, sdl }
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

type Engine = Schema<Row<Query>, Mutation, EmptySubscription>;

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
            let builder = Schema::build(Row::new(), Mutation, EmptySubscription)
                .enable_federation()
                // The gate counts depth itself, through fragments too; the library must not refuse what it let through.
                .limit_recursive_depth(64);
            if suggestions { builder } else { builder.disable_suggestions() }
        };
        let validator = engine(options.development).extension(OnlyValidate).finish();
        let introspector = engine(false).validation_mode(ValidationMode::Fast).finish();
        let sdl = introspector
            .sdl_with_options(SDLExportOptions::new().federation().include_specified_by().use_space_ident());
        let types =
            parse_schema(introspector.sdl()).expect("the schema prints SDL that its own parser reads");
        let input_types = InputTypes::of(&types);
        let documents = Documents::new(options.limits, OutputTypes::of(&types), registry);
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
        match self.prepare(&request.query).await {
            Ok(document) => self.run(viewer, &document, request).await,
            Err(refused) => refused,
        }
    }

    /// Reads, validates and judges a document; once for each text, as long as it is remembered.
    ///
    /// # Errors
    /// The answer to a request with this document, which cannot be run.
    pub async fn prepare(&self, text: &str) -> Result<Arc<Document>, Reply> {
        self.inner
            .documents
            .prepare(text, &self.inner.validator)
            .await
            .map_err(|errors| refused(None, &errors))
    }

    /// Runs a document for a viewer; nothing that was found out when it was prepared is looked at again.
    pub async fn run(&self, viewer: Viewer, document: &Document, request: Request) -> Reply {
        let started = Instant::now();
        let explain = request.explain && self.inner.options.development;
        let recorder = Arc::new(Recorder::new(explain));
        let operation = match document.operation(request.operation_name.as_deref()) {
            Ok(operation) => operation,
            Err(error) => return refused(None, &[error]),
        };
        let (definition, kind) = (&operation.parsed.node, operation.judged.kind);
        let inner = &self.inner;
        let variables = match inner.input_types.coerce(&definition.variable_definitions, request.variables) {
            Ok(variables) => variables,
            Err(error) => return refused(Some(kind), &[error]),
        };
        if let Err(error) = inner.documents.check_cost(operation.judged, &variables) {
            return refused(Some(kind), &[error]);
        }
        let floor = request.cache_token.and_then(|token| token.parse().ok());
        let store = floor.map_or_else(|| inner.store.clone(), |moment| inner.store.not_before(moment));
        let batcher =
            Batcher::new(&store, Arc::clone(&recorder), inner.groups.clone(), inner.metrics.clone());
        let ctx = Context::new(viewer, request.caller, inner.access.clone(), batcher, Arc::clone(&inner.sdl));
        let planner = Planner { fragments: &document.parsed.fragments, variables: &variables };
        let root = &definition.selection_set.node;
        let answered = match kind {
            OperationKind::Mutation => mutation::execute(root, planner, &ctx).await,
            OperationKind::Query | OperationKind::Subscription => {
                match inner.plan(document, root, planner, &ctx).await {
                    Ok(selection) => Ok(answer(&selection, Query, &ctx, document.room()).await),
                    Err(error) => Err(error),
                }
            }
        };
        let (mut body, errors) = match answered {
            Ok(answered) => answered,
            Err(error) => return refused(Some(kind), &[error]),
        };
        // An answer that lacks something, or tells about itself, is for this once.
        let cache = operation.judged.cache.filter(|_| errors.is_empty() && !explain);
        let cache = cache.map(|policy| policy.for_one_if(ctx.viewer.was_read()));
        let cache_token = recorder.wrote().map(|moment| moment.to_string());
        let explained = explain.then(|| explain::Explain::of(&recorder, &ctx.batcher, started.elapsed()));
        explain::write(explained, cache_token.as_deref(), &mut body);
        body.push(b'}');
        document.answered(body.len());
        let statements = recorder.count();
        let Errors { codes, retry_after_seconds, .. } = errors;
        let operation = Some(kind);
        Reply { body, operation, executed: true, codes, retry_after_seconds, statements, cache, cache_token }
    }
}

impl Inner {
    /// Plans the root: introspection is answered by the library, everything else by the declarations.
    async fn plan<'q>(
        &self,
        document: &Document,
        root: &'q async_graphql::parser::types::SelectionSet,
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
    Reply {
        body,
        operation,
        executed,
        codes,
        retry_after_seconds: None,
        statements: 0,
        cache: None,
        cache_token: None,
    }
}
