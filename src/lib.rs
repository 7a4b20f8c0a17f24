//! The hall: process, configuration, HTTP, auth, telemetry. Knows axum; knows no table and no GraphQL type. A request
//! passes `http` (limits, trace span, `auth` -> viewer) and leaves for `schema::Graph::execute`.

// The future of a request goes through every room; to see that it is `Send` the compiler looks deeper than its default.
#![recursion_limit = "256"]

pub mod auth;
pub mod config;
pub mod documents;
pub mod http;
pub mod telemetry;

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use entities::Store;
use prometheus_client::registry::Registry;
use schema::{Access, Graph};

use config::{Config, HttpConfig};
use documents::Documents;
use http::{admission::Admission, subscriptions::Closing};
use telemetry::metrics::Metrics;

pub use http::{playground::Account, router, server::serve};

/// The server: everything that requests share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an `App` is made of.
pub struct Parts {
    /// The graph.
    pub graph: Graph,
    /// The store behind the graph; the hall only asks whether it is there.
    pub store: Store,
    /// Tokens to viewers.
    pub access: Access,
    /// Whether requests should come here.
    pub ready: Readiness,
    /// Development: explanations, demo accounts.
    pub development: bool,
    pub(crate) closing: Closing,
    pub(crate) http: HttpConfig,
    pub(crate) admission: Admission,
    pub(crate) documents: Documents,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    /// The playground's settings, where the playground is on.
    pub(crate) playground: Option<Bytes>,
}

impl App {
    /// Builds the graph over a store and puts the parts together. `registry` holds what the store has registered.
    pub fn new(
        config: &Config,
        store: Store,
        access: Access,
        registry: Registry,
        development: Option<Development>,
    ) -> Self {
        Self::serving(config, store, access, registry, development, Graph::new)
    }

    /// The same with another graph.
    pub fn serving(
        config: &Config,
        store: Store,
        access: Access,
        mut registry: Registry,
        development: Option<Development>,
        graph: fn(Store, schema::Options, &mut Registry) -> Graph,
    ) -> Self {
        let is_development = development.is_some();
        let accounts = development.map(|development| development.accounts).unwrap_or_default();
        let options = schema::Options {
            development: is_development,
            limits: config.graph.limits(),
            access: Some(access.clone()),
            subgraph: config.graph.subgraph(),
            ..schema::Options::default()
        };
        let metrics = Metrics::register(&mut registry);
        let documents = Documents::new(config.documents.clone(), store.texts().clone(), &mut registry);
        let graph = graph(store.clone(), options, &mut registry);
        let playground = config.http.playground.is_on(is_development);
        Self(Arc::new(Parts {
            graph,
            store,
            access,
            ready: Readiness::default(),
            development: is_development,
            closing: Closing::default(),
            http: config.http.clone(),
            admission: Admission::new(&config.http),
            documents,
            metrics,
            registry,
            playground: playground.then(|| http::playground::settings(&accounts)),
        }))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What is different in development.
#[derive(Clone, Debug, Default)]
pub struct Development {
    /// Accounts that the playground offers.
    pub accounts: Vec<Account>,
}

/// Whether requests should come here: not while the process is about to end.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: AtomicBool,
}

impl Readiness {
    /// From now on `/readyz` says 503.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
