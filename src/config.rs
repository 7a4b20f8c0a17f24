//! The configuration: one struct per concern, read once, validated, its parts handed out. Every key is declared once,
//! in the table below; parsing, `xp config print` and docs/configuration.md derive from it. Precedence: defaults <
//! `xp.toml` < environment < flags. Not here: where values come from (`layers`), how a text becomes a value
//! (`setting`), what is wrong with several together (`contradictions`), and anything that acts on a value (`parts`).

pub mod address;
mod cautions;
mod contradictions;
pub mod layers;
mod memory;
mod mode;
pub mod origins;
mod parts;
pub mod print;
pub mod setting;
pub mod signature_keys;
mod sink_urls;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use address::{MetricsAddress, ServiceUrl};
use entities::redis::RedisUrl;
use layers::Values;
use origins::{HeaderNames, OriginPatterns, Origins};
use schema::Subgraph;
use setting::{
    Bytes, ClientModes, Concurrency, DatabaseUrl, DocumentMode, GatewayCompression, LogFilter, LogFormat,
    Networks, OtlpHeaders, OtlpProtocol, Percent, Playground, PoolerMode, Ratio, ReplicaUrls, Sampler,
    SecretText, Secrets, Setting, Statuses, Switch,
};
use signature_keys::SignatureKeys;
use sink_urls::SinkUrls;

pub use mode::{DEVELOPMENT_FILE, Mode};

/// One key of the configuration: its name, how else it can be set, what it means.
#[derive(Debug)]
pub struct ConfigKey {
    /// `section.key`, as in `xp.toml` and `--set`.
    pub name: &'static str,
    /// The usual name of its environment variable, where it has one.
    usual_env: Option<&'static str>,
    /// What it is, in one or two sentences.
    pub doc: &'static str,
    /// The default as text; empty for "not set".
    pub default: &'static str,
    /// What a value looks like.
    pub expects: &'static str,
    /// Secrets are masked in print and can be read from a file (`<VARIABLE>_FILE`).
    pub secret: bool,
    /// The value as it may be shown.
    pub show: fn(&str) -> String,
    /// How it is written in `xp.toml`, as JSON Schema.
    pub schema: fn() -> serde_json::Value,
}

impl ConfigKey {
    /// The name of its environment variable.
    pub fn env(&self) -> String {
        self.usual_env.map_or_else(
            || format!("XP_{}", self.name.replace('.', "_").to_ascii_uppercase()),
            ToOwned::to_owned,
        )
    }
}

macro_rules! usual {
    () => {
        None
    };
    ($env:literal) => {
        Some($env)
    };
}

macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $ty:ty = $default:literal $(, env $env:literal)?; )+
        }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $key: $ty, )+
            }

            impl $Section {
                fn read(values: &mut Values) -> Option<Self> {
                    $( let $key = values.read::<$ty>(concat!(stringify!($section), ".", stringify!($key))); )+
                    Some(Self { $( $key: $key? ),+ })
                }
            }
        )+

        /// Everything that can be configured.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( $(#[doc = $about])+ pub $section: $Section, )+
        }

        impl Config {
            fn read(values: &mut Values) -> Option<Self> {
                $( let $section = $Section::read(values); )+
                Some(Self { $( $section: $section? ),+ })
            }
        }

        /// All keys, in the order of docs/configuration.md.
        pub static KEYS: &[ConfigKey] = &[$($(
            ConfigKey {
                name: concat!(stringify!($section), ".", stringify!($key)),
                usual_env: usual!($($env)?),
                doc: concat!($($doc),+),
                default: $default,
                expects: <$ty as Setting>::EXPECTS,
                secret: <$ty as Setting>::SECRET,
                show: <$ty as Setting>::show,
                schema: <$ty as Setting>::schema,
            },
        )+)+];
    };
}

sections! {
    /// The HTTP server.
    http: HttpConfig {
        /// Address or host name to listen on; `0.0.0.0` in a container.
        host: String = "127.0.0.1", env "HOST";
        /// Port to listen on.
        port: u16 = "8080", env "PORT";
        /// Where `/metrics` is served: an address, `main` for the main port, or `auto`: the main port in
        /// development, else `127.0.0.1:9464`. Metrics reveal what is used how much, so keep them from the
        /// public.
        metrics_address: MetricsAddress = "auto";
        /// Maximum size of a request body of a caller without a token.
        body_limit_anonymous: Bytes = "256KiB";
        /// Maximum size of a request body of a signed-in caller.
        body_limit_signed_in: Bytes = "2MiB";
        /// How long the head of a request may take, from its first byte; for the first request of a
        /// connection, from when it was opened.
        header_timeout: Duration = "5s";
        /// Maximum number of headers of a request.
        max_headers: usize = "64";
        /// Maximum size of a request's head, not less than 8 KiB.
        max_header_bytes: Bytes = "16KiB";
        /// How long a connection without a request is kept.
        idle_timeout: Duration = "1m";
        /// How long a client may read nothing of its answer before it is cut off.
        write_timeout: Duration = "10s";
        /// Bytes a second, on the average of each `write_timeout`, that a client must take of each answer
        /// that waits for it, also of several on one connection; where one is taken more slowly, it is cut
        /// off.
        min_answer_rate: Bytes = "8KiB";
        /// Maximum number of requests of one HTTP/2 connection at a time.
        max_streams: u32 = "100";
        /// How long the body of a request may take, if it does not keep `min_body_rate`.
        body_timeout: Duration = "10s";
        /// Bytes a second, on the average of each `body_timeout`, that a body must come with to be waited for longer.
        min_body_rate: Bytes = "1KiB";
        /// Maximum nesting of JSON values in the body of a request.
        max_json_depth: usize = "32";
        /// Maximum number of JSON values in the body of an anonymous request.
        max_json_values_anonymous: usize = "20000";
        /// Maximum number of JSON values in the body of a signed-in caller's request.
        max_json_values_signed_in: usize = "100000";
        /// Maximum number of requests that a signed-in caller may send in one array, up to 10; 1: no arrays.
        /// Anonymous callers may not send arrays.
        max_batch: usize = "1";
        /// Maximum number of sets of variables that a signed-in caller may send with one document
        /// (`"variables": [{…}, {…}]`); 0: none. A gateway may send `gateway.max_batch`, anonymous callers
        /// none.
        max_variable_sets: usize = "100";
        /// GraphQL requests that are worked on at once; further ones are refused (503) before they are read.
        /// A quarter of them is for signed-in callers.
        max_concurrent_requests: usize = "512";
        /// How long what is ready may wait for a thread and for a database connection, on average. While it
        /// waits longer, fewer GraphQL requests are worked on at once than `max_concurrent_requests`, and
        /// more again when it is over; those that refresh a session or end one are still taken. 0s: the
        /// number stays as it is.
        target_wait: Duration = "10ms";
        /// GraphQL requests a second that one account, or one address without an account, may send. Not set:
        /// unlimited.
        rate_per_second: Option<u32> = "";
        /// GraphQL requests that may come at once before `rate_per_second` bounds them.
        rate_burst: u32 = "100";
        /// Memory that the bodies of all requests may take while they are received and worked on, each
        /// request counting 8 KiB besides, a JSON value 64 bytes; further ones are refused (503). An eighth
        /// of it is for small requests, a quarter for signed-in callers.
        max_body_memory: Bytes = "64MiB";
        /// Memory that answers may take while they are sent; further ones are refused (503), those of
        /// mutations that have run only from twice as much on, with `COST_LIMIT`. Divided in the same way.
        max_answer_memory: Bytes = "96MiB";
        /// Percent of that memory, and of `max_concurrent_requests`, that one address may take without a
        /// token, or one account; signed-in callers of one address may take one and a half times as much
        /// together, and all of one address twice. An account has this bound wherever it asks from; callers
        /// without one who come through `trusted_proxies` that name no address of theirs, or through a
        /// gateway, have none.
        address_share: Percent = "25";
        /// Size from which answers are compressed.
        compress_from: Bytes = "1KiB";
        /// Web origins whose pages may ask, comma-separated: `https://app.example.com`,
        /// `https://*.example.com`, `http://localhost:*`, or `*` for all; none: only pages of this server. In
        /// development also those of this machine.
        cors_origins: OriginPatterns = "";
        /// Request headers that pages of other origins may send besides those that GraphQL clients need,
        /// comma-separated, as in `baggage, sentry-trace`; `*`: all.
        cors_headers: HeaderNames = "*";
        /// How long one GraphQL request may run; PostgreSQL stops its statements then, too.
        request_timeout: Duration = "2s";
        /// Statuses of answers in `application/graphql-response+json`: `draft` (200, and 400 for what did not
        /// run), or `2026`, those of GraphQL over HTTP of September 2026: 294 for partial data, 422 for what
        /// is wrong with a document, its variables or the request. Gateways and clients must know 294.
        statuses: Statuses = "draft";
        /// Maximum number of open connections; further ones wait to be accepted.
        max_connections: usize = "10000";
        /// Maximum number of WebSocket connections of one address (IPv6: one /64) that have not signed in;
        /// further ones are refused (429). Those that have signed in count for their account.
        max_sockets_per_address: usize = "250";
        /// Maximum number of WebSocket connections of one account; further ones are closed (1013).
        max_sockets_per_account: usize = "100";
        /// Maximum number of subscriptions of one account, over all transports; further ones are refused
        /// (`RATE_LIMITED`).
        max_subscriptions_per_account: usize = "500";
        /// Maximum number of open connections of one address; further ones are closed. Does not bound
        /// `trusted_proxies`.
        max_connections_per_address: usize = "1000";
        /// How long `/readyz` says 503, and answers tell their clients to open other connections, before the listener
        /// closes, so that load balancers notice; `xp serve`: 5s.
        drain_delay: Duration = "0s";
        /// How long running requests may take to finish at shutdown.
        shutdown_grace: Duration = "20s";
        /// Networks of the proxies in front, whose `X-Forwarded-For` is trusted, as in `10.0.0.0/8,
        /// 127.0.0.1`. Required behind any proxy: without it all clients count as one address, whose wrong
        /// passwords lock all of them out.
        trusted_proxies: Networks = "";
        /// The playground at `/`; `auto` is on in development only. `admins` is on in production too, and
        /// lets signed-in administrators, nobody else, ask for the schema's introspection.
        playground: Playground = "auto";
    }
    /// Gateways in front: how they prove what they are, and what they may do that others may not.
    gateway: GatewayConfig {
        /// Whether only authenticated gateways may ask for `_service`, `_entities`, `/schema.graphql` and
        /// introspection; `auto` is on in production.
        required: Switch = "auto";
        /// A second address to listen on, for gateways only. Every caller there counts as a gateway, so nobody else
        /// may reach it.
        address: Option<SocketAddr> = "";
        /// Secrets that gateways send in `Router-Authorization`; two while one replaces the other.
        secrets: Secrets = "";
        /// Secrets of Hive Gateway's `hmacSignature`; two while one replaces the other.
        hmac_secrets: Secrets = "";
        /// Keys of gateways that sign their requests (RFC 9421), as in `main=ed25519:<base64>`; also
        /// `ecdsa-p256-sha256` and `hmac-sha256`.
        signature_keys: SignatureKeys = "";
        /// Maximum age of a signature.
        signature_max_age: Duration = "60s";
        /// Whether a signature must cover `content-digest`. Where it need not (Grafbase sends none), claims
        /// are ignored.
        signature_covers_body: bool = "true";
        /// Whether the claims in a gateway's `extensions.jwt` are accepted instead of a token. Never set it
        /// for a gateway that forwards the `extensions` of its clients, as Cosmo Router does: clients could
        /// claim to be anybody.
        claims: bool = "false";
        /// Maximum size of a request body of a gateway.
        body_limit: Bytes = "2MiB";
        /// Maximum number of requests in one array of a gateway, up to 10; 1: no arrays.
        max_batch: usize = "10";
        /// Maximum number of tokens of a gateway's document.
        max_tokens: usize = "15000";
        /// Maximum number of aliases in a gateway's document: some gateways join what they ask for under aliases.
        max_aliases: usize = "600";
        /// Maximum number of fields at the root of a gateway's operation.
        max_root_fields: usize = "200";
        /// Maximum depth of a gateway's operation.
        max_depth: usize = "16";
        /// Maximum number of bytes of a gateway's document.
        max_document_bytes: usize = "1048576";
        /// In which of the codings that it accepts a gateway is answered: `cheapest` (of this server's time;
        /// a gateway is near), `smallest` (as all others are) or `off`.
        compression: GatewayCompression = "cheapest";
        /// Origins where subscriptions may be called back (`callback/1.0`), as in `http://router:4000`. Not set:
        /// none.
        callback_origins: Origins = "";
        /// Whether answers to gateways tell which entities they depend on (`extensions.apolloEntityCacheTags`), or
        /// everything that they are made of (`apolloCacheTags`).
        cache_tags: bool = "false";
        /// How long a gateway that is told these tags may keep an answer at most (`Cache-Control: private,
        /// max-age=…`), where they cover everything that it is made of. 0s: not at all.
        max_age: Duration = "60s";
        /// Where Apollo Router is told what is out of date, as in `http://router:3000/invalidation`. Not set:
        /// it is not told.
        invalidation_url: Option<ServiceUrl> = "";
        /// The shared key of that router.
        invalidation_key: Option<SecretText> = "";
        /// The name of this subgraph in the supergraph.
        subgraph: String = "xp";
    }
    /// Persisted documents.
    documents: DocumentsConfig {
        /// Which documents clients may send: `off`, `apq`, `audit`, `safelist` or `require_id`.
        mode: DocumentMode = "apq";
        /// Modes of clients by the name that they give in `apollographql-client-name`, as in `legacy=apq,
        /// web=require_id`.
        clients: ClientModes = "";
        /// Trusted documents: a manifest of Apollo's, a map of ids to texts (Relay, graphql-codegen), or a directory
        /// of those and of `<id>.graphql`. Changes are noticed.
        path: Option<PathBuf> = "";
        /// How often the files of trusted documents are checked for changes.
        poll: Duration = "1s";
        /// Whether to look for a document's id in `doc_id` and `id`, too.
        more_id_fields: Switch = "off";
        /// How long a document that a client registered is kept after it was last asked for.
        apq_ttl: Duration = "24h";
        /// How long a document that a client registered is kept until it is asked for by its hash for the first time.
        apq_first_ttl: Duration = "10m";
        /// Bytes of documents that clients may register with one process in a day; clients of one network
        /// (IPv4 /24, IPv6 /48) an eighth of it. Documents beyond that run, but are not kept.
        apq_daily_bytes: Bytes = "64MiB";
        /// Maximum size of a document that a client can register.
        apq_max_bytes: Bytes = "64KiB";
        /// File that says how often each trusted document was asked for; written every minute and at the end. Each
        /// process needs one of its own.
        usage_file: Option<PathBuf> = "";
    }
    /// The database.
    database: DatabaseConfig {
        /// `postgres://user:password@host/name` or `sqlite:path`; in development `sqlite:xp-dev.db`. Several hosts
        /// (`a,b:5433`): whichever of them takes writes is used.
        url: Option<DatabaseUrl> = "", env "DATABASE_URL";
        /// Leads to the database of `database.url` without the pooler in between: for migrations, partitions
        /// and `/readyz`, which need connections of their own. Not set: `database.url`.
        direct_url: Option<DatabaseUrl> = "", env "DATABASE_DIRECT_URL";
        /// The pooler that `database.url` leads to, such as `PgBouncer`: `none`, `session`, `transaction`, or `auto`
        /// (`transaction` where `database.direct_url` is set, else `none`).
        pooler: PoolerMode = "auto";
        /// Standbys of that PostgreSQL (streaming replication), for reads: one URL for each server, separated
        /// by commas. Needs the cache, which knows what a standby may be asked for.
        replica_urls: ReplicaUrls = "", env "DATABASE_REPLICA_URLS";
        /// How long a read waits for a standby to have what was just written, before it runs on the primary.
        replica_wait: Duration = "5ms";
        /// A standby that is further behind is not read from until it has caught up.
        replica_max_lag: Duration = "10s";
        /// Connections for requests, kept open at most, to the primary and to each standby; `/readyz` and
        /// cancelling statements have one more each.
        max_connections: u32 = "10";
        /// How long connecting, or waiting for a free connection, may take.
        acquire_timeout: Duration = "2s";
        /// How long `xp serve` waits at its start for a PostgreSQL that cannot be reached yet; 0s: it ends at once.
        start_wait: Duration = "30s";
        /// How long PostgreSQL works on one statement of a request before it gives up.
        statement_timeout: Duration = "2s";
    }
    /// Months of positions and of the activity log, each of which is a partition on PostgreSQL.
    partitions: PartitionsConfig {
        /// Months after this one whose partitions `xp serve` makes ahead, once a day and when a month begins.
        months_ahead: u32 = "3";
    }
    /// How long things are kept. What is older, running servers remove once a day.
    retention: RetentionConfig {
        /// How long a mutation that was sent with an `Idempotency-Key` is known: the same again is answered
        /// as it was, and not done twice.
        idempotency: Duration = "24h";
        /// How long positions are kept, by device time, as in `365d`; the newest of each account too. Not
        /// set: for ever.
        locations: Option<Duration> = "";
        /// How long entries of the activity log are kept. Not set: for ever.
        activity: Option<Duration> = "";
        /// How long sessions are kept after their end, for people to see what was signed in.
        sessions: Duration = "90d";
        /// How long invalidations of caches are kept that no server has taken; longer than anything is cached.
        outbox: Duration = "24h";
        /// How long events are kept for clients who come back with a resume token. What webhooks have yet to
        /// be told of stays for twice as long.
        events: Duration = "7d";
        /// How long deliveries of webhooks are kept after their end, for people to see what became of them.
        deliveries: Duration = "7d";
    }
    /// Events for other systems.
    events: EventsConfig {
        /// Message queues that every event is published to, as CloudEvents, comma-separated:
        /// `redis://host:6379?stream=xp-events&max_length=1000000`,
        /// `amqp://account:password@host:5672/%2f?exchange=xp-events`,
        /// `nats://host:4222?subject=xp.events&stream=XP_EVENTS`. Servers on one database name the same.
        sinks: SinkUrls = "";
        /// The `source` of the CloudEvents: a URI reference that tells this deployment from others.
        source: String = "/xp-graph";
    }
    /// Webhooks: addresses that are told of events.
    webhooks: WebhooksConfig {
        /// Whether this server sends what webhooks are to be told. Where no server does, it waits.
        deliver: bool = "true";
        /// Networks that webhooks may be sent to besides public ones, also without TLS, as in `10.1.0.0/16`;
        /// in development `127.0.0.0/8, ::1`. Whoever may make webhooks can have this server call every
        /// address in them.
        allow_networks: Networks = "";
        /// How long a receiver may take to answer, connecting included.
        timeout: Duration = "15s";
        /// Maximum number of deliveries that this server sends at a time.
        max_concurrent: usize = "64";
    }
    /// Redis: optional, shared by all instances.
    redis: RedisConfig {
        /// `redis://[user:password@]host[:port][/database]`, or
        /// `redis+sentinel://[user:password@]host[:port],…/master[/database]`; `rediss` is with TLS.
        /// Parameters: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (files), `sentinel_username`,
        /// `sentinel_password`. Not set: for one instance only.
        url: Option<RedisUrl> = "", env "REDIS_URL";
        /// Prefix of keys: keeps apart installations that share a Redis but not a database.
        namespace: String = "xp";
    }
    /// The cache of rows, pages and counts.
    cache: CacheConfig {
        /// On or off; `auto` is on.
        enabled: Switch = "auto";
        /// Maximum size of the values held in this process.
        max_bytes: Bytes = "128MiB";
    }
    /// Who is asking: access tokens.
    auth: AuthConfig {
        /// The `iss` of access tokens.
        issuer: String = "xp-graph";
        /// The `aud` of access tokens.
        audience: String = "xp-graph";
        /// Seals private keys and signs refresh tokens and cursors: at least 32 characters, the same on all
        /// instances. Required by `xp serve`. With another secret everybody has to sign in again.
        secret: Option<SecretText> = "";
        /// Whether anybody may create an account for themselves; `true` in development. The answer reveals whether an
        /// e-mail address has an account.
        sign_up: bool = "false";
        /// Memory of one password's hash; more is safer and slower.
        password_memory: Bytes = "19MiB";
        /// Passes over that memory.
        password_passes: u32 = "2";
    }
    /// Logs and traces.
    telemetry: TelemetryConfig {
        /// Which log lines to write, in the syntax of `tracing-subscriber`'s `EnvFilter`.
        filter: LogFilter = "info", env "RUST_LOG";
        /// `pretty`, `json`, `ecs` (JSON with the names of the Elastic Common Schema), or `auto`: pretty on a
        /// terminal, else JSON.
        log_format: LogFormat = "auto";
        /// Where traces go by OTLP, as in `http://collector:4318`. Not set: no traces.
        otlp_endpoint: Option<ServiceUrl> = "", env "OTEL_EXPORTER_OTLP_ENDPOINT";
        /// How they go there: `http/protobuf` (a collector takes it at port 4318), or `grpc` (at 4317).
        otlp_protocol: OtlpProtocol = "http/protobuf", env "OTEL_EXPORTER_OTLP_PROTOCOL";
        /// The file of the authorities (PEM) that its certificate is checked by, where the address says `https`.
        /// Not set: those that browsers know.
        otlp_certificate: Option<PathBuf> = "", env "OTEL_EXPORTER_OTLP_CERTIFICATE";
        /// Headers of what is sent there, as in `authorization=Bearer%20token,x-tenant=xp`; values are
        /// percent-encoded.
        otlp_headers: OtlpHeaders = "", env "OTEL_EXPORTER_OTLP_HEADERS";
        /// How often the metrics go there, too (the same as at `/metrics`), as in `60s`. Not set: never.
        otlp_metrics_interval: Option<Duration> = "";
        /// Which traces are kept: `always_on`, `always_off`, `traceidratio`, or, where the caller has a
        /// trace, as its sender has decided: `parentbased_always_on`, `parentbased_always_off`,
        /// `parentbased_traceidratio`.
        sampler: Sampler = "parentbased_always_on", env "OTEL_TRACES_SAMPLER";
        /// The part of traces that the samplers `…traceidratio` keep, from 0 to 1.
        sampler_argument: Ratio = "1", env "OTEL_TRACES_SAMPLER_ARG";
        /// Operations that take longer are logged with their batches and the texts of their statements,
        /// without values; of those that `http.request_timeout` stops, what they had done until then, without
        /// the statements of a batch that they share with other requests and still wait for. Every request
        /// keeps its statements until its end then. Not set: none are logged.
        slow_operation: Option<Duration> = "";
        /// The part of operations, from 0 to 1, of which it is counted which fields of the schema they
        /// select, for which client. 0: none.
        field_usage: Ratio = "0.1";
        /// File of these counts for `xp documents usage --fields`; written every minute and at the end. Each
        /// process needs one of its own. Not set: only deprecated fields are counted, at `/metrics`.
        field_usage_file: Option<PathBuf> = "";
        /// Where the operations of the sample (`telemetry.field_usage`) are reported to GraphQL Hive:
        /// `https://app.graphql-hive.com/usage`, or the usage API of a Hive of your own. Not set: nothing is sent.
        hive_endpoint: Option<ServiceUrl> = "";
        /// The token for usage reports to GraphQL Hive: an access token, or a registry token.
        hive_token: Option<SecretText> = "";
        /// The target in GraphQL Hive of usage reports with an access token: its id, or
        /// `organization/project/target`. A registry token knows its own.
        hive_target: Option<String> = "";
        /// The name of this service in traces.
        service_name: String = "xp-graph", env "OTEL_SERVICE_NAME";
    }
    /// The graph: what of it is served, limits on documents, and batching.
    graph: GraphConfig {
        /// Whether the SDL for gateways says who is refused what (`@authenticated`, `@requiresScopes`), so
        /// that they can refuse by themselves. Apollo Router needs a licence to start with these; who may do
        /// what is decided here in any case.
        authorization_directives: bool = "false";
        /// Which domains to serve, as one of several subgraphs: some of `users`, `sessions`, `forms`, `locations` and
        /// `activity`, comma-separated. All without it.
        subgraphs: Option<Subgraph> = "";
        /// Maximum number of bytes of a document.
        max_bytes: usize = "65536";
        /// Maximum number of tokens of a document.
        max_tokens: usize = "2000";
        /// Maximum number of brackets that are open at once in a document.
        max_nesting: usize = "64";
        /// Maximum number of aliases of a document.
        max_aliases: usize = "30";
        /// Maximum number of directives of a document.
        max_directives: usize = "25";
        /// Maximum number of fields at the root of an operation.
        max_root_fields: usize = "20";
        /// Maximum number of operations of a document.
        max_operations: usize = "10";
        /// Maximum number of fragments of a document.
        max_fragments: usize = "50";
        /// Maximum number of fields of all operations, each fragment counted where it is spread.
        max_selections: usize = "10000";
        /// Fields within each other at most.
        max_depth: usize = "12";
        /// Maximum number of bytes of a document that are not names or punctuation: those of white space counted
        /// once, those of comments, texts and numbers four times.
        max_ignored_bytes: usize = "262144";
        /// Fields within each other at most, below `__schema` and `__type`.
        max_introspection_depth: usize = "20";
        /// Maximum nesting of lists of fields and types below `__schema` and `__type`.
        max_introspection_lists: usize = "2";
        /// Objects that one operation may load at most, by the sizes of its pages; a page without `first` and `last`
        /// counts 20, a document of JSON 10, a track 50.
        max_cost: u32 = "10000";
        /// Maximum size of an answer; the answers to an array of requests count together.
        max_answer_bytes: Bytes = "16MiB";
        /// Memory that all answers of more than 64 KiB may take together while they are written, those of one
        /// account half of it; further ones end in `OVERLOADED`. When they are sent, `http.max_answer_memory`
        /// counts.
        max_writing_memory: Bytes = "32MiB";
        /// Statements of one kind of point read that may be under way at once, all requests together; reads that come
        /// meanwhile wait and share the next one. 0: each request reads for itself.
        shared_batches: Concurrency = "2";
    }
}

impl Default for Config {
    /// The defaults of the table, with nothing read from outside; where tests start.
    fn default() -> Self {
        let inputs = layers::Inputs::nothing(Mode::Tool);
        layers::load(&inputs).expect("a unit test holds that the defaults are valid").config
    }
}
