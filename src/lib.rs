//! The server: process, configuration, HTTP, auth, telemetry. Knows axum; knows no table and no GraphQL type. A request
//! passes `http` (limits, trace span, `auth` -> viewer) and leaves for `schema::Graph::execute`.

pub mod auth;
pub mod codes;
pub mod config;
pub mod documents;
pub mod error_chain;
mod forwarded;
pub mod gateway;
mod hive;
pub mod http;
mod invalidation;
mod log_waker;
mod outbound;
mod rejection;
pub mod reload;
pub mod sinks;
pub mod telemetry;
pub mod upkeep;
pub mod webhooks;

use std::{
    ops::Deref,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use entities::{Store, warmup};
use prometheus_client::registry::Registry;
use schema::{Access, Graph};
use tokio::sync::watch;

use config::{Config, GatewayConfig, HttpConfig, TelemetryConfig};
use documents::{DocumentStore, field_usage::FieldUsage};
use forwarded::Forwarding;
use gateway::Gateways;
use hive::HiveReports;
use http::{
    admission::Admission,
    metrics::Exposition,
    shedding::Refusals,
    subscriptions::{Callbacks, Closing, Quotas},
};
use outbound::Outbound;
use sinks::Sinks;
use telemetry::metrics::Metrics;
use upkeep::TableFigures;
use webhooks::Webhooks;

pub use http::{playground::Account, router, server::serve};

/// The server: everything that requests share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<AppParts>);

/// What an `App` is made of.
pub struct AppParts {
    /// The graph.
    pub graph: Graph,
    /// The store behind the graph; the server only asks whether it is there.
    pub store: Store,
    /// Tokens to viewers.
    pub access: Access,
    /// Whether requests should come here.
    pub ready: Readiness,
    /// Development: explanations, demo accounts.
    pub development: bool,
    pub(crate) closing: Closing,
    pub(crate) callbacks: Callbacks,
    pub(crate) quotas: Quotas,
    pub(crate) http: HttpConfig,
    pub(crate) telemetry: TelemetryConfig,
    pub(crate) gateway: GatewayConfig,
    pub(crate) admission: Admission,
    pub(crate) refusals: Refusals,
    pub(crate) forwarding: Forwarding,
    pub(crate) documents: DocumentStore,
    /// Which clients ask for which fields.
    pub(crate) field_usage: Arc<FieldUsage>,
    /// What reports operations to GraphQL Hive, where that is configured.
    pub(crate) hive: Option<Arc<HiveReports>>,
    pub(crate) gateways: RwLock<Arc<Gateways>>,
    /// What only gateways may ask for, nobody else may.
    pub(crate) gateways_only: bool,
    pub(crate) outbound: Outbound,
    pub(crate) metrics: Arc<Metrics>,
    /// How the tables stand, for the metrics.
    pub tables: TableFigures,
    /// What tells webhooks.
    pub webhooks: Webhooks,
    /// What publishes events to message queues.
    pub sinks: Sinks,
    pub(crate) exposition: Exposition,
    /// The playground's settings, where the playground is on.
    pub(crate) playground: Option<Bytes>,
}

impl App {
    /// Builds the graph over a store and puts the parts together. `registry` holds what the store has registered.
    pub fn new(
        config: &Config,
        store: Store,
        access: Access,
        mut registry: Registry,
        development: Option<Development>,
    ) -> Self {
        let is_development = development.is_some();
        let accounts = development.map(|development| development.accounts).unwrap_or_default();
        let gateways_only = config.gateway.required.is_on(!is_development);
        let options = schema::Options {
            development: is_development,
            limits: config.graph.limits(),
            gateway_limits: config.gateway.limits(config.graph.limits()),
            gateways_only,
            access: Some(access.clone()),
            subgraph: config.graph.subgraph(),
            authorization_directives: config.graph.authorization_directives,
            gateway_max_age_seconds: u32::try_from(config.gateway.max_age.as_secs()).unwrap_or(u32::MAX),
            shared_batches: config.graph.shared_batches.0,
            answer_bytes: config.graph.max_answer_bytes.0,
            answer_memory: config.graph.max_writing_memory.0,
            keyed_requests: config.keyed_requests(),
            slow_operation: config.telemetry.slow_operation,
            webhook_targets: config.webhooks().targets,
        };
        let metrics = Metrics::register(&mut registry);
        let admission = Admission::new(&config.http);
        admission.register(&mut registry);
        let tables = TableFigures::register(&mut registry);
        let webhooks = Webhooks::new(config.webhooks(), &mut registry);
        let sinks = Sinks::new(
            config.events.sinks.iter().cloned().collect(),
            config.events.source.clone(),
            &mut registry,
        );
        let (settings, texts) = (config.documents.clone(), store.shared_kv().clone());
        let key = access.options().secret.document_key();
        let documents = DocumentStore::new(settings, key, texts, &mut registry);
        let graph = Graph::new(store.clone(), options, &mut registry);
        let coordinates = Arc::clone(graph.coordinates());
        let field_usage = Arc::new(FieldUsage::new(&config.telemetry, coordinates, &mut registry));
        let outbound = Outbound::new();
        let hive = HiveReports::of(&config.telemetry, outbound.clone(), &mut registry).map(Arc::new);
        let playground = config.http.playground.is_on(is_development);
        let mut http = config.http.clone();
        if is_development {
            http.cors_origins = http.cors_origins.with_local();
        }
        Self(Arc::new(AppParts {
            graph,
            store,
            access,
            ready: Readiness::default(),
            development: is_development,
            closing: Closing::default(),
            callbacks: Callbacks::default(),
            quotas: Quotas::new(&config.http),
            http,
            admission,
            refusals: Refusals::default(),
            forwarding: Forwarding::new(&config.http.trusted_proxies),
            documents,
            field_usage,
            hive,
            gateways: RwLock::new(Arc::new(Gateways::new(&config.gateway))),
            gateways_only,
            telemetry: config.telemetry.clone(),
            gateway: config.gateway.clone(),
            outbound,
            metrics,
            tables,
            webhooks,
            sinks,
            exposition: Exposition::of(registry),
            playground: playground.then(|| http::playground::settings(&accounts, is_development)),
        }))
    }
}

impl AppParts {
    /// The gateways that are known now.
    pub(crate) fn gateways(&self) -> Arc<Gateways> {
        Arc::clone(&self.gateways.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Deref for App {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.0
    }
}

/// What is different in development.
#[derive(Clone, Debug, Default)]
pub struct Development {
    /// Accounts that the playground offers.
    pub accounts: Vec<Account>,
}

/// Whether requests should come here: not before the cache is warm, nor while the process is about to end.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: watch::Sender<bool>,
    warming: AtomicBool,
    pub(crate) database: http::health::Database,
}

impl Readiness {
    /// Fills the cache before requests come, for this long at most: until then `/readyz` says 503.
    pub(crate) async fn warm(&self, store: &Store, connection_timeouts: Duration) {
        let started = Instant::now();
        let warmed = tokio::time::timeout(connection_timeouts, warmup::warm_up(store)).await;
        self.warming.store(false, Ordering::Release);
        match warmed {
            Ok(Ok(rows)) => {
                tracing::info!(rows, ms = started.elapsed().as_millis() as u64, "the cache is warm");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the cache stays cold"),
            Err(_) => tracing::warn!("the cache is not warm in time"),
        }
    }

    /// Requests should not come yet, until `warm` is done.
    pub(crate) fn begin_to_warm(&self) {
        self.warming.store(true, Ordering::Release);
    }

    /// Whether the cache is being filled before requests come.
    pub fn is_warming(&self) -> bool {
        self.warming.load(Ordering::Acquire)
    }

    /// From now on `/readyz` says 503.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Tells when the process is about to end.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }
}
