//! The graph: schema, documents, batching, and the store behind them; one request from its text to the bytes
//! of its answer. Not here: how a selection is run (`engine`), who is let in (`auth`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_graphql::{Schema, ValidationMode, parser::parse_schema};
use entities::{Recorder, Store, idempotency::Lifetimes, webhook::targets::TargetRules};
use prometheus_client::registry::Registry;

pub mod activity;
pub mod credentials;
pub(crate) mod edges;
mod execution;
pub mod form;
pub mod input;
pub(crate) mod list;
pub(crate) mod live;
pub mod location;
pub mod mutation;
pub mod node;
pub mod query;
pub(crate) mod scalar;
pub mod session;
pub mod submission;
pub mod subscription;
pub mod user;
pub mod user_error;
pub mod webhook;

use crate::{
    auth::{
        access::{Access, AccessOptions},
        viewer::Viewer,
    },
    context::{Database, RequestData, ServiceInfo},
    explain::{self, Explain, Explained},
    request::{Caller, Reply, Request, rejected},
    // The domains name it in their declarations.
    subgraph::{self, Subgraph},
};
use engine::{
    batch::{Batcher, Groups, Metrics},
    bounds::{Bounds, Memory, Owner, PIECE, Taken},
    cache_control::{self, Audience},
    context::Context,
    coordinates::Coordinates,
    document::{Document, DocumentCache, OperationKind, Rules},
    federation::sdl,
    introspection::AnswerCache,
    limits::Limits,
    object::Row,
    variables::InputTypes,
};
use live::LiveRuns;
use mutation::Mutation;
use query::Query;
use subscription::{Decisions, Events, Subscription};

/// How the graph is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Development: `extensions.explain`, suggestions in validation errors.
    pub development: bool,
    /// Limits on documents.
    pub limits: Limits,
    /// Limits on documents of gateways.
    pub gateway_limits: Limits,
    /// Whether the federation's fields and the schema are there for gateways only.
    pub gateways_only: bool,
    /// Authentication; without it the graph makes keys of its own, and accepts no others.
    pub access: Option<Access>,
    /// Shared batches of one loader that may be under way at once; 0 keeps every request to itself.
    pub shared_batches: usize,
    /// What of the graph is served.
    pub subgraph: Subgraph,
    /// Whether the federated SDL says what refuses whom (`@authenticated`, `@requiresScopes`), for gateways
    /// that refuse by themselves.
    pub authorization_directives: bool,
    /// How long gateways that are told what answers depend on may keep them, seconds; 0: not at all.
    pub gateway_max_age_seconds: u32,
    /// Bytes of one answer at most.
    pub answer_bytes: usize,
    /// Memory that all answers of more than 64 KiB may take together while they are written, bytes; one
    /// account half of it.
    pub answer_memory: usize,
    /// How long requests with an idempotency key are known.
    pub keyed_requests: Lifetimes,
    /// Of operations that take longer the answer tells its batches and statements (`Reply::slow`).
    pub slow_operation: Option<Duration>,
    /// Where webhooks may be sent.
    pub webhook_targets: TargetRules,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            development: false,
            limits: Limits::default(),
            gateway_limits: Limits::gateway(),
            gateways_only: false,
            access: None,
            shared_batches: 2,
            subgraph: Subgraph::WHOLE,
            authorization_directives: false,
            gateway_max_age_seconds: 60,
            answer_bytes: 16 << 20,
            answer_memory: 32 << 20,
            keyed_requests: Lifetimes { request: Duration::from_hours(24), claim: Duration::from_secs(10) },
            slow_operation: None,
            webhook_targets: TargetRules::default(),
        }
    }
}

/// How long objects keep, by their type, and for whom.
const CACHE_HINTS: [cache_control::Hint; 1] = [
    // A published version never changes; who may see it does.
    ("FormVersion", 300, Audience::Private),
];
/// The mutations by which somebody gets a token.
const SIGN_IN_FIELDS: [&str; 3] = ["signIn", "signUp", "refreshSession"];
/// The mutations that a busy server runs all the same: who cannot refresh is signed out, and who signs out
/// must not stay in.
pub const PRIORITY_FIELDS: [&str; 4] = ["refreshSession", "signOut", "revokeSession", "revokeAllSessions"];
/// The input types whose lists are batches: what a device has collected offline comes in one request, and an item
/// that cannot be read must not keep the others from being stored.
const JUDGED_ALONE: [&str; 2] = ["LocationPointInput", "CreateSubmissionInput"];

impl Options {
    /// By what documents are judged.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            limits: self.limits,
            gateway_limits: self.gateway_limits,
            gateways_only: self.gateways_only,
            cache_hints: &CACHE_HINTS,
            sign_in_fields: &SIGN_IN_FIELDS,
            priority_fields: &PRIORITY_FIELDS,
            suggests: self.development,
        }
    }
}

pub(crate) type Engine = Schema<Row<Query>, Mutation, Subscription>;

/// The graph: schema, documents, batching, and the store behind them. Cheap to clone.
#[derive(Clone)]
pub struct Graph {
    inner: Arc<GraphInner>,
}

struct GraphInner {
    store: Store,
    access: Access,
    options: Options,
    service: ServiceInfo,
    api_sdl: String,
    introspector: Engine,
    introspected: AnswerCache,
    input_types: InputTypes,
    documents: DocumentCache,
    coordinates: Arc<Coordinates>,
    groups: Groups,
    metrics: Metrics,
    /// What subscriptions show to whom.
    decisions: Arc<Decisions>,
    /// What live queries execute.
    live_runs: Arc<LiveRuns>,
    /// What live queries keep between their answers.
    live_memory: Memory,
    answer_memory: Memory,
    /// The statements of the answers that were explained last.
    explained: Explained,
}

impl Graph {
    /// Builds the schema over a store. Metrics go into `registry`.
    pub fn new(store: Store, options: Options, registry: &mut Registry) -> Self {
        let subgraph = options.subgraph;
        let introspector = Schema::build(Row::new(), Mutation, Subscription)
            .enable_federation()
            .enable_subscription_in_federation();
        let introspector = if options.authorization_directives {
            introspector.directive(subgraph)
        } else {
            introspector.directive(sdl::without_authorization(subgraph))
        };
        let introspector = introspector
            // Depth is counted where documents are read; the library must not refuse what was let through.
            .limit_recursive_depth(64)
            .validation_mode(ValidationMode::Fast)
            .finish();
        let for_clients: Engine =
            Schema::build(Row::new(), Mutation, Subscription).directive(sdl::for_clients(subgraph)).finish();
        let api_sdl = engine::live::sdl() + &sdl::api(&for_clients);
        let service = ServiceInfo { subgraph, sdl: sdl::federated(&introspector, &[]).into() };
        let text = introspector.sdl();
        let types = parse_schema(&text).expect("the schema prints SDL that its own parser reads");
        let input_types = InputTypes::of(&types, &JUDGED_ALONE);
        let coordinates = Arc::new(Coordinates::of(&types));
        let documents = DocumentCache::new(options.rules(), (&types, &text), registry);
        let (groups, metrics) = (Groups::new(options.shared_batches), Metrics::register(registry));
        let own = || Access::new(store.clone(), AccessOptions::default());
        let access = options.access.clone().unwrap_or_else(own);
        registry.register_collector(Box::new(access.active_users().clone()));
        let inner = GraphInner {
            answer_memory: Memory::of(options.answer_memory),
            live_memory: Memory::of(options.answer_memory),
            store,
            access,
            options,
            service,
            api_sdl,
            introspector,
            introspected: AnswerCache::default(),
            input_types,
            documents,
            coordinates,
            groups,
            metrics,
            decisions: Decisions::register(registry),
            live_runs: LiveRuns::register(registry),
            explained: Explained::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The federated SDL, byte-equal to `_service.sdl`.
    pub fn sdl(&self) -> &str {
        &self.inner.service.sdl
    }

    /// The SDL for client tools: without federation.
    pub fn api_sdl(&self) -> &str {
        &self.inner.api_sdl
    }

    /// The SDL as a source schema of GraphQL Federation (Composite Schemas), whose lookups are ordinary fields.
    pub fn lookup_sdl(&self) -> String {
        let factory = sdl::for_composition(self.inner.options.subgraph);
        let schema: Engine = Schema::build(Row::new(), Mutation, Subscription).directive(factory).finish();
        sdl::with_lookups(&schema)
    }

    /// How many objects one operation may load, as `Options::limits` counts.
    pub fn max_cost(&self) -> u64 {
        self.inner.options.limits.cost
    }

    /// The fields that documents can select.
    pub fn coordinates(&self) -> &Arc<Coordinates> {
        &self.inner.coordinates
    }

    /// What lets callers in. Before `Access::open` was called on it no token is good.
    pub fn access(&self) -> &Access {
        &self.inner.access
    }

    /// Runs one request for a viewer. Never fails: every failure is an answer with coded errors.
    pub async fn execute(&self, viewer: Viewer, mut request: Request) -> Reply {
        request.found_from = Some(Instant::now());
        match self.prepare_for(&request.query, &request.caller) {
            Ok(document) => self.execute_document(viewer, document, request).await,
            Err(refused) => *refused,
        }
    }

    /// Runs a request for a caller who can wait: a subscription is answered by its events.
    pub async fn open(&self, viewer: Viewer, mut request: Request) -> Opened {
        request.found_from = Some(Instant::now());
        match self.prepare_for(&request.query, &request.caller) {
            Ok(document) => self.open_document(viewer, document, request).await,
            Err(refused) => Opened::Reply(refused),
        }
    }

    /// Reads, validates and judges a document; once for each text, as long as it is remembered.
    ///
    /// # Errors
    /// The answer to a request with this document, which cannot be run.
    pub fn prepare(&self, text: &str) -> Result<Arc<Document>, Box<Reply>> {
        self.prepare_for(text, &Caller::default())
    }

    /// Parses and validates a document for a caller, whose request's id the answer tells, and who may ask for more as
    /// a gateway.
    ///
    /// # Errors
    /// The answer to a request with this document, which cannot be run.
    pub fn prepare_for(&self, text: &str, caller: &Caller) -> Result<Arc<Document>, Box<Reply>> {
        let prepared = self.inner.documents.prepare(text, caller.clearance());
        prepared.map_err(|errors| Box::new(rejected(None, &errors, &caller.request_id)))
    }

    /// How the database carries out a statement of an answer that was explained: `id` is `extensions.explain.plans`,
    /// `statement` the place in `extensions.explain.sql`. Only in development, and for administrators; `None` for
    /// everybody else, and where the answer is one of long ago.
    ///
    /// # Errors
    /// Of the database.
    pub async fn plan(
        &self,
        viewer: &Viewer,
        id: u64,
        statement: usize,
    ) -> Result<Option<Vec<String>>, entities::Error> {
        let may = self.inner.options.development && viewer.is_admin();
        match may.then(|| self.inner.explained.find(id, statement)).flatten() {
            Some((executed, runs_again)) => self.inner.store.database().plan(&executed, runs_again).await,
            None => Ok(None),
        }
    }
}

/// What comes of a request.
pub enum Opened {
    /// One answer.
    Reply(Box<Reply>),
    /// The answers of a subscription, one an event.
    Events(Events),
}

impl GraphInner {
    /// How an answer was made. Its statements are kept for an administrator, who may ask for their plans.
    fn explain(&self, (kind, cost): (OperationKind, u64), viewer: &Viewer, ran: explain::Ran<'_>) -> Explain {
        let plans = viewer.is_admin().then(|| {
            let runs_again = kind != OperationKind::Mutation;
            self.explained.keep(ran.recorder.statements(), runs_again)
        });
        Explain::of(ran, (cost, self.options.limits.cost), plans)
    }

    /// A new request's context.
    fn context(&self, store: &Store, viewer: Viewer, caller: Caller, recorder: Arc<Recorder>) -> Context {
        let batcher = self.batcher(store, recorder);
        let bounds = self.bounds(&viewer, &caller, &Taken::default());
        let parts = (self.access.clone(), self.service.clone(), self.options.webhook_targets.clone());
        let data = RequestData::new(viewer, caller, parts);
        Context::new(data, batcher, bounds)
    }

    /// What an answer may take, of which so much is taken.
    fn bounds(&self, viewer: &Viewer, caller: &Caller, taken: &Taken) -> Bounds {
        let (most, memory) = (self.options.answer_bytes, self.answer_memory.clone());
        let owner = match viewer {
            Viewer::User { id, .. } => Owner::Account(id.0),
            Viewer::Anonymous if !caller.is_gateway => Owner::Address(caller.customer()),
            Viewer::Anonymous | Viewer::Service => Owner::Many,
        };
        Bounds { most, memory, taken: taken.clone(), owner, piece: PIECE }
    }

    /// A new request's loads.
    fn batcher(&self, store: &Store, recorder: Arc<Recorder>) -> Batcher {
        Batcher::new(Database::new(store, recorder), self.groups.clone(), self.metrics.clone())
    }
}
