//! What only shows when values are seen together, and what to write instead. Not here: what is wrong with one value
//! (`setting`), and what is seldom meant but allowed (`cautions`).

use axum::http::HeaderValue;
use entities::auth::password::Cost;

use super::{
    Config, HttpConfig, Mode, TelemetryConfig,
    layers::Problem,
    memory,
    mode::DEVELOPMENT_SECRET,
    setting::{DatabaseUrl, PoolerMode, SecretText},
};

/// How access tokens of GraphQL Hive begin that are of an organization, a project or an account.
const HIVE_ACCESS_TOKENS: [&str; 3] = ["hvo1/", "hvp1/", "hvu1/"];

/// Sets of variables of one request at most, whatever is configured: as many as one statement has keys.
const MOST_SETS: usize = 1_000;
/// Requests of one array at most, whatever is configured.
const LONGEST_BATCH: usize = 10;
/// What hyper reads at a time.
const LEAST_HEADER_BYTES: usize = 8 << 10;

impl Config {
    /// What only shows when values are seen together.
    pub(super) fn contradictions(&self, mode: Mode) -> Vec<Problem> {
        let mut found = Vec::new();
        let is_known = self.auth.secret.as_ref().is_some_and(|secret| secret.expose() == DEVELOPMENT_SECRET);
        if mode == Mode::Production && is_known {
            found.push(Problem {
                what: "auth.secret is the one of development".into(),
                place: "XP_AUTH_SECRET or xp.toml".into(),
                why: "everybody knows it and could make tokens with a copy of the database".into(),
                fix: "make one of your own with `openssl rand -base64 32`".into(),
            });
        }
        let (cost, floor) = (self.auth.cost(), Cost::default());
        if cost.memory_kib < floor.memory_kib || cost.passes < floor.passes {
            found.push(Problem {
                what: "auth.password_memory or auth.password_passes is too low".into(),
                place: "the two values together".into(),
                why: "stolen hashes would be cheap to guess".into(),
                fix: "give 19MiB and 2 or more, or leave them out".into(),
            });
        }
        self.http.contradictions(&mut found);
        memory::contradictions(self, &mut found);
        let batches = [
            ("http.max_batch", "XP_HTTP_MAX_BATCH", self.http.max_batch),
            ("gateway.max_batch", "XP_GATEWAY_MAX_BATCH", self.gateway.max_batch),
        ];
        for (key, variable, batch) in batches.into_iter().filter(|(.., batch)| *batch > LONGEST_BATCH) {
            found.push(Problem {
                what: format!("{key} = {batch}"),
                place: format!("{variable} or xp.toml"),
                why: format!(
                    "an array of requests is one request to every limit, so it has {LONGEST_BATCH} at most"
                ),
                fix: "lower it; the requests of one HTTP/2 connection run side by side anyway".into(),
            });
        }
        if self.http.max_variable_sets > MOST_SETS {
            found.push(Problem {
                what: format!("http.max_variable_sets = {}", self.http.max_variable_sets),
                place: "XP_HTTP_MAX_VARIABLE_SETS or xp.toml".into(),
                why: format!("all sets of a request have one deadline, so it has {MOST_SETS} at most"),
                fix: "lower it, and send further sets in further requests".into(),
            });
        }
        let is_postgres = self.database.url.as_ref().is_some_and(DatabaseUrl::is_postgres);
        if !self.database.replica_urls.is_empty() && !is_postgres {
            found.push(Problem {
                what: "database.replica_urls is set, and database.url does not name a PostgreSQL server"
                    .into(),
                place: "DATABASE_REPLICA_URLS or xp.toml".into(),
                why: "standbys are of the PostgreSQL that is written to".into(),
                fix: "leave it out, or set DATABASE_URL to the primary of these standbys".into(),
            });
        }
        if self.database.direct_url.as_ref().is_some_and(DatabaseUrl::has_several_hosts) {
            found.push(Problem {
                what: "database.direct_url names several hosts".into(),
                place: "DATABASE_DIRECT_URL or xp.toml".into(),
                why: "what uses it asks the first one only".into(),
                fix: "give it a name that follows the primary".into(),
            });
        }
        if self.database.pooler == PoolerMode::Transaction && self.database.direct_url.is_none() {
            found.push(Problem {
                what: "database.pooler is transaction, and database.direct_url is not set".into(),
                place: "DATABASE_DIRECT_URL or xp.toml".into(),
                why: "migrations, partitions and `/readyz` need connections that outlive a transaction"
                    .into(),
                fix: "set DATABASE_DIRECT_URL to the database without the pooler".into(),
            });
        }
        if let Some(url) = &self.gateway.invalidation_url
            && (url.uri().is_none() || url.has_account())
        {
            found.push(Problem {
                // Not as it is: an account in it has a password.
                what: "gateway.invalidation_url is not the address of a router".into(),
                place: "XP_GATEWAY_INVALIDATION_URL or xp.toml".into(),
                why: "it is posted to by HTTP, with gateway.invalidation_key and without an account".into(),
                fix: "write it as in http://router:3000/invalidation".into(),
            });
        }
        if let Some(endpoint) = &self.telemetry.otlp_endpoint
            && endpoint.uri().is_none_or(|uri| !matches!(uri.scheme_str(), Some("http" | "https")))
        {
            found.push(Problem {
                what: format!("telemetry.otlp_endpoint = \"{endpoint}\""),
                place: "OTEL_EXPORTER_OTLP_ENDPOINT or xp.toml".into(),
                why: "traces are sent by OTLP over HTTP or gRPC".into(),
                fix: "name a collector, as in http://localhost:4318 or https://otlp.example.com".into(),
            });
        }
        self.telemetry.hive_contradictions(&mut found);
        found
    }
}

impl TelemetryConfig {
    fn hive_contradictions(&self, found: &mut Vec<Problem>) {
        if self.hive_endpoint.is_none() {
            return;
        }
        if self.hive_address().is_none() {
            found.push(Problem {
                // Not as it is: an account in it has a password.
                what:
                    "telemetry.hive_endpoint, with telemetry.hive_target, is not the address of a usage API"
                        .into(),
                place: "XP_TELEMETRY_HIVE_ENDPOINT, XP_TELEMETRY_HIVE_TARGET or xp.toml".into(),
                why: "usage is posted there by HTTP, with telemetry.hive_token and without an account".into(),
                fix: "write it as in https://app.graphql-hive.com/usage, and the target as its id or as in \
                      acme/shop/production"
                    .into(),
            });
        }
        let token = self.hive_token.as_ref().map(SecretText::expose);
        if token.is_none_or(|token| HeaderValue::from_str(token).is_err()) {
            found.push(Problem {
                what: "telemetry.hive_endpoint is set, and telemetry.hive_token is not, or has characters \
                       that no header can have"
                    .into(),
                place: "XP_TELEMETRY_HIVE_TOKEN or xp.toml".into(),
                why: "Hive takes usage with an access token only".into(),
                fix: "make a token with the right to report usage in Hive".into(),
            });
        }
        let is_of_organization =
            |token: &str| HIVE_ACCESS_TOKENS.iter().any(|prefix| token.starts_with(prefix));
        if token.is_some_and(|token| !is_of_organization(token)) && self.hive_target.is_some() {
            found.push(Problem {
                what: "telemetry.hive_token is a registry token, and telemetry.hive_target is set".into(),
                place: "XP_TELEMETRY_HIVE_TARGET or xp.toml".into(),
                why: "Hive refuses usage with both: a registry token is good for one target, which it knows"
                    .into(),
                fix: "leave telemetry.hive_target out, or make an access token for it (hvo1/…)".into(),
            });
        }
        if token.is_some_and(is_of_organization) && self.hive_target.is_none() {
            found.push(Problem {
                what:
                    "telemetry.hive_token is good for several targets, and telemetry.hive_target is not set"
                        .into(),
                place: "XP_TELEMETRY_HIVE_TARGET or xp.toml".into(),
                why: "Hive asks for the target with tokens of this kind".into(),
                fix: "set telemetry.hive_target to the id of the target".into(),
            });
        }
    }
}

impl HttpConfig {
    fn contradictions(&self, found: &mut Vec<Problem>) {
        if self.body_limit_signed_in < self.body_limit_anonymous {
            found.push(Problem {
                what: "http.body_limit_signed_in is smaller than http.body_limit_anonymous".into(),
                place: "the two values together".into(),
                why: "a signed-in caller may always send at least as much as an anonymous one".into(),
                fix: "raise http.body_limit_signed_in or lower http.body_limit_anonymous".into(),
            });
        }
        if self.max_header_bytes.0 < LEAST_HEADER_BYTES {
            found.push(Problem {
                what: format!("http.max_header_bytes = {}", self.max_header_bytes.0),
                place: "XP_HTTP_MAX_HEADER_BYTES or xp.toml".into(),
                why: "heads of requests are read in pieces of 8 KiB".into(),
                fix: "give 8KiB or more".into(),
            });
        }
    }
}
