//! The values as those want them who act on them: the limits of the graph, tokens and passwords, the
//! database. Not here: the keys, and what only shows when values are seen together (`contradictions`).

use std::time::Duration;

use axum::http::Uri;
use entities::{
    Pooler, ReplicaOptions,
    auth::{password::Cost, secret::Secret},
    idempotency::Lifetimes,
    retention::RetentionTimes,
    webhook::targets::TargetRules,
};
use schema::{AccessOptions, Subgraph, engine::limits::Limits};

use super::{
    AuthConfig, Config, GatewayConfig, GraphConfig, RetentionConfig, TelemetryConfig, WebhooksConfig,
    setting::{DatabaseUrl, PoolerMode},
};
use crate::{upkeep::Upkeep, webhooks::WebhookSettings};

/// How much longer than its request a claim on it lasts: what is left of a COMMIT ends within it.
const CLAIM_AFTER_TIMEOUT: Duration = Duration::from_secs(5);

impl TelemetryConfig {
    /// Where usage is reported to GraphQL Hive; `None` where it is not, or where that cannot be.
    pub fn hive_address(&self) -> Option<Uri> {
        let endpoint = self.hive_endpoint.as_ref().filter(|endpoint| !endpoint.has_account())?;
        let endpoint = endpoint.uri().filter(|uri| uri.query().is_none())?.to_string();
        let is_plain = |target: &str| {
            matches!(target.split('/').count(), 1 | 3)
                && target.split('/').all(|part| !part.is_empty())
                && target
                    .chars()
                    .all(|character| character.is_ascii_alphanumeric() || "-_/".contains(character))
        };
        match self.hive_target.as_deref() {
            Some(target) if !is_plain(target) => None,
            Some(target) => format!("{}/{target}", endpoint.trim_end_matches('/')).parse().ok(),
            None => endpoint.parse().ok(),
        }
    }
}

impl GraphConfig {
    /// What of the graph is served.
    pub fn subgraph(&self) -> Subgraph {
        self.subgraphs.unwrap_or(Subgraph::WHOLE)
    }

    /// The limits of documents, as the crate `schema` takes them.
    pub fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_bytes,
            tokens: self.max_tokens,
            nesting: self.max_nesting,
            aliases: self.max_aliases,
            directives: self.max_directives,
            root_fields: self.max_root_fields,
            operations: self.max_operations,
            fragments: self.max_fragments,
            selections: self.max_selections,
            depth: self.max_depth,
            ignored_bytes: self.max_ignored_bytes,
            introspection_depth: self.max_introspection_depth,
            introspection_lists: self.max_introspection_lists,
            cost: u64::from(self.max_cost),
        }
    }
}

impl GatewayConfig {
    /// Whether there is a way for gateways to prove that they are some.
    pub fn can_prove_itself(&self) -> bool {
        let secrets = [&self.secrets, &self.hmac_secrets];
        self.address.is_some()
            || !self.signature_keys.is_empty()
            || secrets.iter().any(|secrets| secrets.expose().next().is_some())
    }

    /// The limits of everybody, raised for gateways.
    pub fn limits(&self, public: Limits) -> Limits {
        Limits {
            bytes: self.max_document_bytes.max(public.bytes),
            tokens: self.max_tokens.max(public.tokens),
            aliases: self.max_aliases.max(public.aliases),
            root_fields: self.max_root_fields.max(public.root_fields),
            depth: self.max_depth.max(public.depth),
            ignored_bytes: public.ignored_bytes.max(Limits::gateway().ignored_bytes),
            ..public
        }
    }
}

impl AuthConfig {
    /// For the crate `schema`.
    ///
    /// Without a secret one is made that ends with the process.
    pub fn access(&self) -> AccessOptions {
        let defaults = AccessOptions::default();
        AccessOptions {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            secret: self.secret.as_ref().map_or(defaults.secret, |secret| Secret::new(secret.expose())),
            cost: self.cost(),
            sign_up: self.sign_up,
            poll: defaults.poll,
        }
    }

    pub(super) fn cost(&self) -> Cost {
        Cost { memory_kib: (self.password_memory.0 >> 10) as u32, passes: self.password_passes }
    }
}

impl Config {
    /// How long requests with an idempotency key are known. Who holds one longer than a request may take is gone.
    pub fn keyed_requests(&self) -> Lifetimes {
        let claim = self.http.request_timeout.saturating_add(CLAIM_AFTER_TIMEOUT);
        Lifetimes { request: self.retention.idempotency, claim }
    }

    /// What a running server does for its database beside the requests.
    pub fn upkeep(&self) -> Upkeep {
        let RetentionConfig { locations, activity, sessions, outbox, events, deliveries, .. } =
            self.retention;
        Upkeep {
            months_ahead: self.partitions.months_ahead,
            retention: RetentionTimes { locations, activity, sessions, outbox, events, deliveries },
        }
    }

    /// Where webhooks may be sent, and how.
    pub fn webhooks(&self) -> WebhookSettings {
        let WebhooksConfig { allow_networks, timeout, max_concurrent, .. } = &self.webhooks;
        let targets = TargetRules::new(allow_networks.iter().collect());
        WebhookSettings { targets, timeout: *timeout, concurrency: *max_concurrent }
    }

    fn pooler(&self, serving: bool) -> Pooler {
        let is_direct = self.database.direct_url.is_some();
        match self.database.pooler {
            PoolerMode::None => Pooler::None,
            PoolerMode::Auto if !is_direct => Pooler::None,
            // Commands use the direct URL.
            _ if !serving && is_direct => Pooler::None,
            PoolerMode::Session => Pooler::Session,
            PoolerMode::Auto | PoolerMode::Transaction => Pooler::Transaction,
        }
    }

    /// The database for the crate `entities`. While serving, PostgreSQL works on no statement longer than its
    /// request may take; migrations and seeds may take longer. `None` without a URL.
    pub fn store(&self, serving: bool) -> Option<entities::DatabaseOptions> {
        let database = &self.database;
        let given = database.url.as_ref()?;
        let address = |url: &DatabaseUrl| url.expose().to_owned();
        let direct_url = database.direct_url.as_ref().map(address);
        let longest = database.statement_timeout.min(self.http.request_timeout);
        Some(entities::DatabaseOptions {
            // Commands prepare statements, for which a pooler by transaction is no place.
            url: if serving { address(given) } else { direct_url.clone().unwrap_or_else(|| address(given)) },
            max_connections: database.max_connections,
            acquire_timeout: database.acquire_timeout,
            statement_timeout: serving.then_some(longest),
            pooler: self.pooler(serving),
            direct_url,
            replicas: ReplicaOptions {
                // Commands read what is written only.
                urls: database.replica_urls.iter().filter(|_| serving).map(address).collect(),
                wait: database.replica_wait,
                max_lag: database.replica_max_lag,
            },
        })
    }
}
