//! Logs and traces as a collector and a log file see them: a request goes through the real routes.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, http::Request, routing::post};
use bytes::Bytes;
use entities::Store;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value as AnyValue,
    trace::v1::Span,
};
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::{net::TcpListener, sync::MutexGuard, time::sleep};
use tower::ServiceExt as _;
use tracing::subscriber::NoSubscriber;

use super::*;
use schema::Access;

mod collecting;
mod json;
mod sampling;
mod secrets;
mod slow_streams;

use crate::{
    App,
    config::{Config, address::MetricsAddress, setting::Switch},
};

/// The caller's span, of which the requests tell.
const PARENT: [u8; 8] = [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31];

/// Everything that was written or received.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The header of an administrator.
fn bearer(app: &App) -> String {
    bearer_of(app, entities::id::UserId::new())
}

fn bearer_of(app: &App, user: entities::id::UserId) -> String {
    let subject = schema::auth::token::Subject { user, role: entities::Role::Admin, epoch: 0, session: None };
    format!("Bearer {}", app.access.tokens().mint(subject, 60).expect("a token").0)
}

async fn app() -> App {
    app_with(|_| {}).await
}

/// The server on an empty database in memory.
pub(crate) async fn app_with(set: impl FnOnce(&mut Config)) -> App {
    let mut config = Config::default();
    set(&mut config);
    config.auth.sign_up = true;
    config.gateway.required = Switch::Off;
    let mut registry = Registry::default();
    let settings = entities::DatabaseOptions::at("sqlite::memory:");
    let store = Store::connect(&settings, &mut registry).await.expect("SQLite in memory");
    migration::up(store.connection()).await.expect("migrated");
    let access = Access::new(store.clone(), config.auth.access());
    access.open().await.expect("a key is made");
    App::new(&config, store, access, registry, None)
}

fn request(query: &str, authorization: Option<&str>) -> Request<Body> {
    let body = serde_json::json!({ "query": query, "variables": { "planted": "s3cret-variable" } });
    let mut request = Request::post("/graphql")
        .header("content-type", "application/json")
        .header("x-request-id", "request-1")
        .header("apollographql-client-name", "web")
        .header("apollographql-client-version", "1.2")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request.body(Body::from(body.to_string())).expect("a request")
}

/// A collector that keeps what it gets.
async fn collector() -> (String, Arc<Mutex<Vec<Span>>>) {
    let spans = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&spans);
    let receive = move |body: Bytes| {
        let kept = Arc::clone(&kept);
        async move {
            let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            kept.lock().expect("not poisoned").extend(scopes.flat_map(|scope| scope.spans));
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let routes = Router::new().route("/v1/traces", post(receive));
    let config = Config::default().http;
    tokio::spawn(crate::http::server::run(
        routes,
        config,
        listener,
        crate::http::server::never_draining(),
        std::future::pending(),
    ));
    (format!("http://{address}"), spans)
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        AnyValue::StringValue(text) => Some(text.clone()),
        AnyValue::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// One subscriber at a time: whether a span is made is decided by all that live at once.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The turn of a test that looks at spans. A second subscriber, which wants nothing, lives as long: while
/// there is a single one, `tracing` asks that of the thread which comes to a span first, and that is often
/// another test's, which has none.
async fn alone() -> (MutexGuard<'static, ()>, Dispatch) {
    (ALONE.lock().await, Dispatch::new(NoSubscriber::new()))
}

#[tokio::test]
async fn a_request_is_two_spans_in_the_callers_trace() {
    let _alone = alone().await;
    let id = "0190aaaa-0000-7000-8000-000000000000";
    let representation = |name: &str| format!("{{__typename: \"{name}\", id: \"{id}\"}}");
    let representations = ["User", "Form", "User", "Planted"].map(representation).join(", ");
    let entities = format!("{{ _entities(representations: [{representations}]) {{ __typename }} }}");
    let (spans, log) = spans_of(&["query Named { alias: __typename }", "{ planted_field }", &entities]).await;
    let trace =
        [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
    let (spans, others): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| span.trace_id == trace);
    let is_statement = |span: &Span| attribute(span, "db.operation.name").is_some();
    assert!(others.iter().all(is_statement), "only what the server asks at its start: {others:?}");
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (http, graphql) = (named("POST /graphql"), named("query"));
    assert_eq!((http.len(), graphql.len(), named("unknown").len()), (3, 2, 1), "{spans:?}");
    assert_eq!(http[0].parent_span_id, PARENT);
    assert_eq!(graphql[0].parent_span_id, http[0].span_id);
    assert_eq!(attribute(http[0], "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(attribute(http[0], "request_id").as_deref(), Some("request-1"));
    let told = ["type", "name"].map(|what| attribute(graphql[0], &format!("graphql.operation.{what}")));
    assert_eq!(told, [Some("query".to_owned()), Some("Named".to_owned())]);
    let client = ["name", "version"].map(|what| attribute(graphql[0], &format!("graphql.client.{what}")));
    assert_eq!(client, [Some("web".to_owned()), Some("1.2".to_owned())]);
    assert_eq!(["enduser.id", "graphql.document.id"].map(|name| attribute(graphql[0], name)), [None, None]);
    let counts =
        ["User", "Form", "Session"].map(|name| attribute(http[2], &format!("federation.entities.{name}")));
    assert_eq!(counts, [Some("2".to_owned()), Some("1".to_owned()), None]);
    assert!(http[..2].iter().all(|span| !span.attributes.iter().any(|at| at.key.starts_with("federation"))));
    assert!(
        !format!("{spans:?}").to_lowercase().contains("planted"),
        "nothing of the document is in a span, but the operation's name"
    );
    assert!(log.contains("0af7651916cd43dd8448eb211c80319c"), "{log}");
}

/// The spans, and the log, that these requests leave. Asked again where a span is missing: the thread of a
/// connection to SQLite holds the span of its statement, too, and where it lets it go last, the spans around
/// it stay open, since that thread does not know the subscriber of this test. A server's is that of all
/// threads.
async fn spans_of(documents: &[&str]) -> (Vec<Span>, String) {
    spans(documents, async |app, documents| {
        for document in documents {
            crate::router(app.clone()).oneshot(request(document, None)).await.expect("answered");
        }
    })
    .await
}

/// The spans, and the log, that requests leave which run at the same time.
async fn spans_at_once(documents: &[String]) -> (Vec<Span>, String) {
    spans(documents, async |app, documents| {
        let routes = crate::router(app.clone());
        let asking = documents.iter().map(|document| routes.clone().oneshot(request(document, None)));
        futures_util::future::try_join_all(asking).await.expect("answered");
    })
    .await
}

async fn spans<D>(documents: &[D], ask: impl AsyncFn(&App, &[D])) -> (Vec<Span>, String) {
    for _ in 0..20 {
        let (endpoint, spans) = collector().await;
        let config = TelemetryConfig { otlp_endpoint: Some(endpoint.into()), ..Config::default().telemetry };
        let log = Sink::default();
        let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(log.clone())).expect("built");
        let guard = tracing::dispatcher::set_default(&dispatch);
        ask(&app().await, documents).await;
        drop(guard);
        telemetry.stop().await;
        let spans = spans.lock().expect("not poisoned").clone();
        let ids: Vec<_> = spans.iter().map(|span| span.span_id.clone()).collect();
        let is_open = |parent: &Vec<u8>| !parent.is_empty() && *parent != PARENT && !ids.contains(parent);
        if !spans.iter().any(|span| is_open(&span.parent_span_id)) {
            return (spans, log.text());
        }
    }
    panic!("some spans are never closed");
}

#[tokio::test]
async fn batches_and_statements_stand_below_their_operation() {
    let _alone = alone().await;
    let (spans, _) = spans_of(&["{ users(first: 1) { nodes { id } } }"]).await;
    let with = |name: &str, value: &str| {
        let found = spans.iter().find(|span| attribute(span, name).as_deref() == Some(value));
        found.unwrap_or_else(|| panic!("{name} = {value} is in no span of {spans:?}"))
    };
    let operation = with("graphql.operation.type", "query");
    let (batch, statement) = (with("keys", "1"), with("db.collection.name", "users"));
    assert_eq!((batch.name.as_str(), statement.name.as_str()), ("user.page", "user.page"));
    assert_eq!(batch.parent_span_id, operation.span_id);
    assert_eq!(statement.parent_span_id, batch.span_id);
    assert_eq!(attribute(statement, "db.response.returned_rows").as_deref(), Some("0"));
}

#[tokio::test]
async fn operations_and_live_queries_on_streams_have_their_spans() {
    let _alone = alone().await;
    let documents =
        ["{ users(first: 1) { nodes { id } } }", "query @live { users(first: 1) { nodes { id } } }"];
    let (spans, _) = spans(&documents, async |app, documents| {
        for document in documents {
            let mut request = request(document, Some(&bearer(app)));
            request.headers_mut().insert("accept", HeaderValue::from_static("text/event-stream"));
            let mut body = crate::router(app.clone()).oneshot(request).await.expect("answered").into_body();
            // Until the first answer; a live query has no last one.
            let mut received = String::new();
            while !received.contains("\"data\"") {
                let part =
                    http_body_util::BodyExt::frame(&mut body).await.expect("a part").expect("readable");
                received += &String::from_utf8_lossy(part.data_ref().expect("data"));
            }
        }
    })
    .await;
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (operations, runs, batches) = (named("query"), named("live query"), named("user.page"));
    assert_eq!((operations.len(), runs.len()), (2, 1), "{spans:?}");
    for above in [operations[0], runs[0]] {
        assert!(batches.iter().any(|batch| batch.parent_span_id == above.span_id), "{spans:?}");
    }
}

#[tokio::test]
async fn a_batch_of_several_requests_is_linked_to_all_of_them() {
    let _alone = alone().await;
    let document = |_| {
        let user = format!("{{ __typename: \"User\", id: \"{}\" }}", entities::id::UserId::new());
        format!("{{ _entities(representations: [{user}]) {{ ... on User {{ id }} }} }}")
    };
    let documents: Vec<_> = (0..40).map(document).collect();
    let (spans, _) = spans_at_once(&documents).await;
    let requests = |span: &Span| attribute(span, "graphql.dataloader.batch.requests");
    let shared: Vec<_> = spans.iter().filter(|span| requests(span).is_some()).collect();
    assert!(!shared.is_empty(), "many requests at once share statements");
    for span in shared {
        assert_eq!(span.name, "graphql.dataloader.batch");
        assert_eq!(attribute(span, "graphql.dataloader.name").as_deref(), Some("user.by_ids"));
        let batches: Vec<_> =
            span.links.iter().map(|link| &link.span_id).chain([&span.parent_span_id]).collect();
        assert_eq!(requests(span), Some(batches.len().to_string()));
        for batch in batches {
            let batch = spans.iter().find(|span| span.span_id == *batch).expect("the batch of a request");
            assert_eq!(batch.name, "user.by_ids");
        }
    }
}

/// The lines of operations that requests leave.
async fn lines_of(app: &App, requests: Vec<Request<Body>>) -> (String, Vec<serde_json::Value>) {
    let log = Sink::default();
    let config = TelemetryConfig { log_format: LogFormat::Json, ..Config::default().telemetry };
    let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(log.clone())).expect("built");
    let guard = tracing::dispatcher::set_default(&dispatch);
    let routes = crate::router(app.clone());
    for request in requests {
        let response = routes.clone().oneshot(request).await.expect("answered");
        // What is told of a stream is told when it is read.
        http_body_util::BodyExt::collect(response.into_body()).await.expect("a body");
    }
    drop(guard);
    telemetry.stop().await;
    let text = log.text();
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let lines = lines.filter(|line: &serde_json::Value| line["target"] == OPERATIONS).collect();
    (text, lines)
}

#[tokio::test]
async fn an_operation_logs_one_line_without_client_values() {
    let _alone = alone().await;
    let app = app().await;
    let (text, lines) = lines_of(
        &app,
        vec![
            request("query Named { s3cret: users(first: 1) { nodes { id } } }", None),
            request("{ s3cretField }", None),
            request("{ __typename }", Some("Bearer s3cret-token")),
        ],
    )
    .await;
    assert!(!text.to_lowercase().contains("s3cret"), "{text}");
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0]["operation"], "query");
    assert_eq!(lines[0]["request_id"], "request-1");
    assert_eq!(lines[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(lines[1]["codes"], "GRAPHQL_VALIDATION_FAILED");
    assert_eq!((&lines[2]["codes"], &lines[2]["status"]), (&"UNAUTHENTICATED".into(), &401.into()));
    assert!(lines.iter().all(|line| line["ms"].is_number() && line["statements"].is_number()));
    assert_eq!((&lines[0]["cost"], &lines[1]["cost"]), (&2.into(), &serde_json::Value::Null));
    assert!(lines.iter().all(|line| line["cache_hits"] == 0), "{text}");
}

/// Asks for what takes a statement.
fn asking_for_a_node() -> Request<Body> {
    let id = entities::id::UserId::new();
    request(&format!("{{ node(id: \"{id}\") {{ ... on User {{ sessions {{ nodes {{ id }} }} }} }} }}"), None)
}

/// The one line about a slow operation, and what it says was made.
fn slow_line(text: &str) -> (serde_json::Value, serde_json::Value) {
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let slow: Vec<_> = lines.filter(|line| line["target"] == SLOW_OPERATIONS).collect();
    let [slow] = &slow[..] else { panic!("one line: {text}") };
    let made = serde_json::from_str(slow["made"].as_str().expect("a text")).expect("JSON");
    (slow.clone(), made)
}

#[tokio::test]
async fn a_slow_operation_logs_its_batches_and_statements_without_values() {
    let _alone = alone().await;
    let app = app_with(|config| config.telemetry.slow_operation = Some(Duration::ZERO)).await;
    let (text, _) = lines_of(&app, vec![asking_for_a_node()]).await;
    let (slow, made) = slow_line(&text);
    assert_eq!((&slow["operation"], slow["ms"].is_number()), (&"query".into(), true));
    assert_eq!(made["batches"].as_array().map(Vec::len), Some(1), "{made}");
    assert!(made["sql"][0]["text"].as_str().is_some_and(|text| text.starts_with("SELECT")), "{made}");
    let usual = app_with(|config| config.telemetry.slow_operation = Some(Duration::from_mins(1))).await;
    assert!(!lines_of(&usual, vec![asking_for_a_node()]).await.0.contains("slow operation"));
}

#[tokio::test]
async fn a_slow_operation_that_is_stopped_logs_the_statement_that_was_under_way() {
    let _alone = alone().await;
    let app = app_with(|config| {
        config.telemetry.slow_operation = Some(Duration::ZERO);
        config.http.request_timeout = Duration::ZERO;
    })
    .await;
    // A statement may be as quick as the clock: then it is asked again.
    let mut stopped = None;
    for _ in 0..1_000 {
        let (text, lines) = lines_of(&app, vec![asking_for_a_node()]).await;
        if lines[0]["codes"] == "TIMEOUT" {
            stopped = Some(text);
            break;
        }
    }
    let (_, made) = slow_line(&stopped.expect("some time it is stopped"));
    assert_eq!(made["sql"].as_array().map(Vec::len), Some(1), "{made}");
    assert!(made["sql"][0]["text"].as_str().is_some_and(|text| text.starts_with("SELECT")), "{made}");
    assert_eq!(made["sql"][0]["rows"], serde_json::Value::Null, "{made}");
}

#[tokio::test]
async fn the_filter_of_the_log_can_be_changed() {
    let _alone = alone().await;
    let log = Sink::default();
    let config = TelemetryConfig { log_format: LogFormat::Json, ..Config::default().telemetry };
    let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(log.clone())).expect("built");
    let guard = tracing::dispatcher::set_default(&dispatch);
    for filter in ["info", "xp=debug", "off", "warn"] {
        telemetry.set_filter(&LogFilter(filter.to_owned()));
        tracing::debug!("debug at {filter}");
        tracing::warn!("warning at {filter}");
    }
    drop(guard);
    telemetry.stop().await;
    let text = log.text();
    let written: Vec<_> =
        text.split("message\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(written, ["warning at info", "debug at xp=debug", "warning at xp=debug", "warning at warn"]);
}

#[tokio::test]
async fn a_line_says_which_operation_of_whom_by_which_client() {
    use serde_json::{Value, json};
    let _alone = alone().await;
    let app = app().await;
    let user = entities::id::UserId::new();
    let bearer = bearer_of(&app, user);
    let asking = |body: Value, headers: &[(&'static str, &'static str)]| {
        let mut request = request("", Some(&bearer));
        *request.body_mut() = Body::from(body.to_string());
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
            request.headers_mut().insert(*name, value);
        }
        request
    };
    let two = "query First { __typename } query Second { __typename }";
    let sha256 = "0123456789abcdef".repeat(4);
    let prefixed = format!("sha256:{sha256}");
    let by_hash = json!({ "persistedQuery": { "version": 1, "sha256Hash": sha256 } });
    let named = json!({ "query": "query Streamed { __typename }" });
    let requests = vec![
        asking(json!({ "query": two, "operationName": "Second" }), &[]),
        asking(json!({ "query": two }), &[("apollographql-client-name", "a\u{202e}b")]),
        asking(json!({ "query": two, "operationName": "x\n".repeat(100) }), &[]),
        asking(json!({ "extensions": by_hash, "operationName": "Kept" }), &[]),
        asking(json!({ "documentId": prefixed }), &[]),
        asking(named, &[("accept", "text/event-stream")]),
    ];
    let (text, lines) = lines_of(&app, requests).await;
    let names: Vec<_> = lines.iter().map(|line| line["operation_name"].as_str()).collect();
    let long = format!("{}…", "x\\u{a}".repeat(32));
    assert_eq!(
        names,
        [Some("Second"), None, Some(long.as_str()), Some("Kept"), None, Some("Streamed")],
        "{text}"
    );
    let ids: Vec<_> = lines.iter().map(|line| line["document_id"].as_str()).collect();
    assert_eq!(ids, [None, None, None, Some(sha256.as_str()), Some(prefixed.as_str()), None]);
    assert!(lines.iter().all(|line| line["viewer"] == user.to_string()), "{text}");
    let clients: Vec<_> = lines.iter().map(|line| line["client_name"].as_str()).collect();
    assert_eq!(clients[..3], [Some("web"), Some("a\\u{202e}b"), Some("web")]);
    assert!(lines.iter().all(|line| line["client_version"] == "1.2"));
}

#[tokio::test]
async fn a_collector_that_hangs_slows_nothing() {
    let _alone = alone().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let config = Config::default().http;
    let routes = Router::new().fallback(|| sleep(Duration::from_mins(1)));
    tokio::spawn(crate::http::server::run(
        routes,
        config,
        listener,
        crate::http::server::never_draining(),
        std::future::pending(),
    ));
    let config = TelemetryConfig { otlp_endpoint: Some(endpoint.into()), ..Config::default().telemetry };
    let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(io::sink())).expect("built");
    let guard = tracing::dispatcher::set_default(&dispatch);
    let routes = crate::router(app().await);
    let started = std::time::Instant::now();
    for _ in 0..100 {
        routes.clone().oneshot(request("{ __typename }", None)).await.expect("answered");
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(guard);
    let stopping = std::time::Instant::now();
    telemetry.stop().await;
    assert!(stopping.elapsed() < Duration::from_millis(2500), "{:?}", stopping.elapsed());
}

#[tokio::test]
async fn without_a_collector_no_span_is_made() {
    let _alone = ALONE.lock().await;
    // Whether a span is wanted is kept for all subscribers together, and those of the tests before end a
    // little later than their tests. A new subscriber makes it be found out anew.
    for _ in 0..100 {
        let (_telemetry, dispatch) =
            Telemetry::build(&Config::default().telemetry, LogWriter::start(io::sink())).expect("built");
        let _guard = tracing::dispatcher::set_default(&dispatch);
        if tracing::debug_span!(target: SPANS, "http").is_disabled() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("spans are made");
}
