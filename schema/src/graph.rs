//! The graph: schema, documents, batching, and the store behind them; one request from its text to the bytes of its answer.
//! Not here: how a selection is run (`engine`), who is let in (`auth`).

use std::{sync::Arc, time::Instant};

use async_graphql::{Schema, ValidationMode, parser::parse_schema};
use entities::{Recorder, Store};
use prometheus_client::registry::Registry;

pub mod activity;
pub mod credentials;
pub(crate) mod edges;
pub mod form;
pub mod input;
pub(crate) mod list;
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

use crate::{
    answers::AnswerCacheKey,
    auth::{
        access::{Access, AccessOptions},
        viewer::Viewer,
    },
    context::{ContextExt as _, Database, RequestData, ServiceInfo},
    explain::{self, Explain, Explained, Extensions},
    request::{Caller, Prepared, Reply, Request, rejected},
    // The domains name it in their declarations.
    subgraph::{self, Subgraph},
};
use engine::{
    batch::{Batcher, Groups, Metrics},
    bounds::{Bounds, Memory, Owner, PIECE, Taken},
    cache_control::{self, Audience},
    context::Context,
    document::{Document, DocumentCache, OperationKind, Rules},
    error::{Code, RequestError},
    execute::{answer, plan},
    federation::{
        sdl,
        trace::{Clock, Tree},
    },
    introspection::{AnswerCache, Question},
    limits::Limits,
    object::Row,
    output::{Errors, Unfinished},
    plan::Selected,
    variables::InputTypes,
};
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
    /// Bytes of one answer at most.
    pub answer_bytes: usize,
    /// Memory that all answers of more than 64 KiB may take together while they are written, bytes; one account half of it.
    pub answer_memory: usize,
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
            answer_bytes: 16 << 20,
            answer_memory: 32 << 20,
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
/// The input types whose lists are batches: what a device has collected offline comes in one request, and an item that
/// cannot be read must not keep the others from being stored.
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
    groups: Groups,
    metrics: Metrics,
    /// What subscriptions show to whom.
    decisions: Arc<Decisions>,
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
            .enable_subscription_in_federation()
            .directive(subgraph)
            // Depth is counted where documents are read; the library must not refuse what was let through.
            .limit_recursive_depth(64)
            .validation_mode(ValidationMode::Fast)
            .finish();
        let for_clients: Engine =
            Schema::build(Row::new(), Mutation, Subscription).directive(sdl::ForClients(subgraph)).finish();
        let api_sdl = sdl::api(&for_clients);
        let service = ServiceInfo { subgraph, sdl: sdl::federated(&introspector, &[]).into() };
        let text = introspector.sdl();
        let types = parse_schema(&text).expect("the schema prints SDL that its own parser reads");
        let input_types = InputTypes::of(&types, &JUDGED_ALONE);
        let documents = DocumentCache::new(options.rules(), (&types, &text), registry);
        let (groups, metrics) = (Groups::new(options.shared_batches), Metrics::register(registry));
        let own = || Access::new(store.clone(), AccessOptions::default());
        let access = options.access.clone().unwrap_or_else(own);
        registry.register_collector(Box::new(access.active_users().clone()));
        let inner = GraphInner {
            answer_memory: Memory::of(options.answer_memory),
            store,
            access,
            options,
            service,
            api_sdl,
            introspector,
            introspected: AnswerCache::default(),
            input_types,
            documents,
            groups,
            metrics,
            decisions: Decisions::register(registry),
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
            Err(refused) => Opened::Reply(*refused),
        }
    }

    /// Reads, validates and judges a document; once for each text, as long as it is remembered.
    ///
    /// # Errors
    /// The answer to a request with this document, which cannot be run.
    pub fn prepare(&self, text: &str) -> Result<Arc<Document>, Box<Reply>> {
        self.prepare_for(text, &Caller::default())
    }

    /// Parses and validates a document for a caller, whose request's id the answer tells, and who may ask for more as a
    /// gateway.
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

    /// Runs a document for a viewer who cannot wait for events.
    pub async fn execute_document(&self, viewer: Viewer, document: Arc<Document>, request: Request) -> Reply {
        let request_id = Arc::clone(&request.caller.request_id);
        match self.open_document(viewer, document, request).await {
            Opened::Reply(reply) => reply,
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
        let prepared = match self.inner.prepare(document, &mut request) {
            Ok(prepared) => prepared,
            Err(refused) => return Opened::Reply(*refused),
        };
        if prepared.kind == OperationKind::Subscription {
            let request_id = Arc::clone(&request.caller.request_id);
            let explain = request.explain && self.inner.options.development;
            return match subscription::subscribe(self, viewer, (request.caller, explain), prepared) {
                Ok(events) => Opened::Events(events),
                Err(error) => {
                    Opened::Reply(rejected(Some(OperationKind::Subscription), &[error], &request_id))
                }
            };
        }
        let explain = request.explain && self.inner.options.development;
        let floor = request.cache_token.and_then(|token| token.parse().ok());
        let floored = floor.map(|floor| self.inner.store.not_before(floor));
        let store = floored.as_ref().unwrap_or(&self.inner.store);
        // A request that asks how its answer was made is always executed.
        let cache_key = AnswerCacheKey::of(&prepared, &viewer, store)
            .filter(|_| !explain && !request.trace && !request.cache_tags);
        let bounds = self.inner.bounds(&viewer, &request.caller, &request.taken);
        if let Some(cache_key) = &cache_key
            && let Some(answer) = cache_key.find(store).await
            && let Some(reply) = answer.reply(&bounds)
        {
            return Opened::Reply(reply);
        }
        let recorder = Recorder::new(explain);
        let collects = request.cache_tags || cache_key.is_some();
        let recorder = Arc::new(if collects { recorder.collecting() } else { recorder });
        let mut ctx = self.inner.context(store, viewer, request.caller, Arc::clone(&recorder));
        ctx.bounds = bounds;
        ctx.clock = request.trace.then(Clock::start);
        let answered = self.inner.answer(&prepared, &ctx).await;
        Opened::Reply(match answered {
            Ok(mut answer) => {
                let (body, errors) = (&mut answer.out, &mut answer.errors);
                // An answer that lacks something, or tells about itself, is for this once.
                let cache = prepared.cache.filter(|_| errors.is_empty() && !explain && !request.trace);
                // Whether it was a gateway that asked is no part of the address that an answer is kept under.
                let is_for_some = ctx.viewer().was_read()
                    || prepared.document.for_gateways.is_for_them_alone(self.inner.options.gateways_only);
                let cache = cache.map(|policy| policy.for_one_if(is_for_some));
                let cache_key = cache_key.filter(|_| errors.is_empty());
                let digest = cache_key.and_then(|cache_key| cache_key.keep(&ctx, &recorder, body, cache));
                let explained = explain.then(|| {
                    let found = request.found_from.map(|from| explain::Found {
                        known: prepared.document.was_known(from),
                        elapsed: started.saturating_duration_since(from),
                    });
                    let ran = explain::Ran { started, recorder: &recorder, batchers: &[&ctx.batcher] };
                    self.inner.explain(&prepared, ctx.viewer(), ran).found(found)
                });
                let trace = errors.trace.take().map(|trace| trace.finish(ctx.began(), started.elapsed()));
                let wanted = request.cache_tags && prepared.kind == OperationKind::Query;
                let of_entities = wanted.then(|| query::entity_tags(&prepared)).flatten();
                let extensions = Extensions {
                    explain: explained,
                    cache_token: recorder.written_version().map(|moment| moment.to_string()),
                    ftv1: trace,
                    apollo_cache_tags: (wanted && of_entities.is_none())
                        .then(|| explain::tags_of(&recorder))
                        .flatten(),
                    apollo_entity_cache_tags: of_entities,
                };
                extensions.write(body.end());
                let answer = answer.finished(&ctx.caller().request_id, &ctx.bounds);
                prepared.document.note_response_bytes(answer.out.len());
                self.inner.documents.count_excess(&answer.errors.codes);
                let cache = cache.filter(|_| answer.errors.is_empty());
                let entities = if request.entities { query::entity_counts(&prepared) } else { Vec::new() };
                Reply { cache, digest, entities, ..Reply::executed(prepared.kind, answer, &recorder) }
            }
            Err(error) => rejected(Some(prepared.kind), &[error], &ctx.caller().request_id),
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

impl GraphInner {
    /// Finds out which operation is meant, or what is wrong with its variables.
    fn prepare(&self, document: Arc<Document>, request: &mut Request) -> Result<Prepared, Box<Reply>> {
        let request_id = Arc::clone(&request.caller.request_id);
        // However the document was found, by whomever it was sent first.
        let may_run = document.for_gateways.check(self.options.gateways_only, request.caller.clearance());
        may_run.map_err(|error| Box::new(rejected(None, &[error], &request_id)))?;
        let operation = document.operation(request.operation_name.as_deref());
        let operation = operation.map_err(|error| Box::new(rejected(None, &[error], &request_id)))?;
        let (kind, cache) = (operation.info.kind, operation.info.cache);
        let given = std::mem::take(&mut request.variables);
        let variables = self.input_types.coerce(&operation.parsed.node.variable_definitions, given);
        let variables = variables.and_then(|variables| {
            let cost = self.documents.check_cost(operation.info, &variables)?;
            Ok((variables, cost))
        });
        let (variables, cost) =
            variables.map_err(|error| Box::new(rejected(Some(kind), &[error], &request_id)))?;
        Ok(Prepared { operation_name: request.operation_name.take(), kind, cache, cost, variables, document })
    }

    /// How an answer was made. Its statements are kept for an administrator, who may ask for their plans.
    fn explain(&self, prepared: &Prepared, viewer: &Viewer, ran: explain::Ran<'_>) -> Explain {
        let plans = viewer.is_admin().then(|| {
            let runs_again = prepared.kind != OperationKind::Mutation;
            self.explained.keep(ran.recorder.statements(), runs_again)
        });
        Explain::of(ran, (prepared.cost, self.options.limits.cost), plans)
    }

    /// A new request's context.
    fn context(&self, store: &Store, viewer: Viewer, caller: Caller, recorder: Arc<Recorder>) -> Context {
        let batcher = self.batcher(store, recorder);
        let bounds = self.bounds(&viewer, &caller, &Taken::default());
        let data = RequestData::new(viewer, caller, self.access.clone(), self.service.clone());
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

    /// Runs a query or a mutation; the answer lacks only its closing brace.
    async fn answer(&self, prepared: &Prepared, ctx: &Context) -> Result<Unfinished, RequestError> {
        let (root, planner) = (&prepared.operation().selection_set.node, prepared.planner());
        let trace = ctx.clock.map(|_| Box::new(Tree::new(Arc::clone(&self.documents.types))));
        let errors = Errors::of(&ctx.caller().request_id).traced(trace);
        if prepared.kind == OperationKind::Mutation {
            return mutation::execute(root, planner, ctx, errors).await;
        }
        let ask = |selected: &Selected<'_>| {
            let (document, operation_name) = (&*prepared.document, prepared.operation_name.as_deref());
            let question = Question { document, operation_name, planner, selected };
            self.introspected.answer(&question, &self.introspector)
        };
        let selection = plan(planner, root, ctx, ask).await?;
        Ok(answer(&selection, Query, ctx, prepared.document.output_buffer(), errors).await)
    }
}
