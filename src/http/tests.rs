//! The routes, called in memory, and the accept loop, over real sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use axum::http::Request as HttpRequest;
use entities::{Role, Store, id::UserId};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt as _;

mod answers;
mod asking;
mod connections;
mod cors;
mod documents;
mod field_usage;
mod gateways;
mod idempotency;
mod lifetimes;
mod overload;
mod playground;
mod readers;
mod sign_in;
mod streams;

use super::*;
use schema::{Access, auth::token::Subject};

use crate::{
    Account, Development,
    config::{Config, address::MetricsAddress, setting::Playground},
};

const QUERY: &str = r#"{"query": "{ users(first: 1) { nodes { id } } }"}"#;

async fn app_with(change: impl FnOnce(&mut Config)) -> App {
    app_over(change, |store, _| store).await
}

/// A server with something done to its store before anybody uses it.
async fn app_over(
    change: impl FnOnce(&mut Config),
    prepare: impl FnOnce(Store, &mut Registry) -> Store,
) -> App {
    let accounts = vec![Account { name: "ann".into(), role: "ADMIN", token: "t".into(), password: "p" }];
    app_of(Some(Development { accounts }), change, prepare).await
}

/// Without development: as in production.
async fn app_of(
    development: Option<Development>,
    change: impl FnOnce(&mut Config),
    prepare: impl FnOnce(Store, &mut Registry) -> Store,
) -> App {
    let mut config = Config::default();
    config.auth.sign_up = true;
    change(&mut config);
    let mut registry = Registry::default();
    let settings = entities::DatabaseOptions::at("sqlite::memory:");
    let store = Store::connect(&settings, &mut registry).await.expect("SQLite in memory");
    migration::up(store.connection()).await.expect("migrated");
    let store = prepare(store, &mut registry);
    let access = Access::new(store.clone(), config.auth.access());
    access.open().await.expect("a key is made");
    App::new(&config, store, access, registry, development)
}

async fn app() -> App {
    app_with(|_| {}).await
}

/// A token of an account in this role.
fn token(app: &App, role: Role) -> String {
    let subject = Subject { user: UserId::new(), role, epoch: 0, session: None };
    app.access.tokens().mint(subject, 60).expect("a token").0
}

fn post_of(body: impl Into<Body>) -> HttpRequest<Body> {
    let request = HttpRequest::post("/graphql").header("content-type", "application/json");
    request.body(body.into()).expect("a request")
}

fn get_of(path: &str) -> HttpRequest<Body> {
    let request = HttpRequest::get(path).header("apollo-require-preflight", "1").header("host", "localhost");
    request.body(Body::empty()).expect("a request")
}

fn with(mut request: HttpRequest<Body>, name: &'static str, value: &str) -> HttpRequest<Body> {
    request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header"));
    request
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().expect("text")
}

/// Status, headers and body.
async fn send(app: &App, request: HttpRequest<Body>) -> (u16, HeaderMap, Value) {
    let response = router(app.clone()).oneshot(request).await.expect("never fails");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
    (parts.status.as_u16(), parts.headers, body)
}

/// The status and the first error's code.
async fn rejection(app: &App, request: HttpRequest<Body>) -> (u16, String) {
    let (status, headers, body) = send(app, request).await;
    let extensions = &body["errors"][0]["extensions"];
    assert_eq!(extensions["requestId"].as_str(), headers["x-request-id"].to_str().ok(), "{body}");
    (status, extensions["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_query_is_answered() {
    let app = app().await;
    let (status, headers, body) = send(&app, post_of(QUERY)).await;
    assert_eq!((status, &body["data"]["users"]["nodes"]), (200, &json!([])));
    assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    let path = "/graphql?query=query%20A%7B__typename%7D%20query%20B%7Bb%3A__typename%7D&operationName=B&variables=%7B%7D";
    assert_eq!(send(&app, get_of(path)).await.2, json!({ "data": { "b": "Query" } }));
}

#[tokio::test]
async fn the_accept_header_decides_the_status_of_a_request_error() {
    let app = app().await;
    let wrong = || post_of(r#"{"query": "{ nothing }"}"#);
    assert_eq!(send(&app, wrong()).await.0, 200);
    let (status, headers, body) =
        send(&app, with(wrong(), "accept", "application/graphql-response+json")).await;
    assert_eq!((status, body.get("data")), (400, None));
    assert_eq!(headers["content-type"], "application/graphql-response+json; charset=utf-8");
    assert_eq!(send(&app, with(post_of(QUERY), "accept", "application/graphql-response+json")).await.0, 200);
    assert_eq!(
        rejection(&app, with(post_of(QUERY), "accept", "text/html")).await,
        (406, "BAD_USER_INPUT".into())
    );
}

#[tokio::test]
async fn requests_that_are_none_are_refused() {
    let app = app().await;
    for (body, status) in [("{", 400), ("[]", 400), ("{}", 400), (r#"{"query": 1}"#, 400), ("", 400)] {
        assert_eq!(rejection(&app, post_of(body)).await, (status, "BAD_USER_INPUT".into()), "{body}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        assert_eq!(rejection(&app, with(post_of(QUERY), "content-type", content_type)).await.0, 415);
    }
    let put = HttpRequest::put("/graphql").body(Body::empty()).expect("a request");
    let (status, headers, _) = send(&app, put).await;
    assert_eq!((status, &headers["allow"]), (405, &graphql::METHODS_TAKEN));
    assert_eq!(headers["accept-query"], "application/json");
    assert_eq!(rejection(&app, get_of("/nowhere")).await, (404, "BAD_USER_INPUT".into()));
    let posted = HttpRequest::post("/livez").body(Body::empty()).expect("a request");
    assert_eq!(rejection(&app, posted).await.0, 405);
}

#[tokio::test]
async fn get_runs_queries_only_and_only_after_a_preflight() {
    let app = app().await;
    let mutation = "/graphql?query=mutation%20%7B__typename%7D";
    let (status, headers, _) = send(&app, get_of(mutation)).await;
    assert_eq!((status, &headers["allow"]), (405, &HeaderValue::from_static("POST")));
    assert_eq!(rejection(&app, get_of(mutation)).await, (405, "BAD_USER_INPUT".into()));
    let written_together = "/graphql?query=mutationX%7B__typename%7D";
    assert_eq!(
        rejection(&app, get_of(written_together)).await,
        (200, "GRAPHQL_PARSE_FAILED".into()),
        "one name, no operation: nothing runs"
    );
    let both = "/graphql?query=query%20A%7B__typename%7D%20mutation%20B%7B__typename%7D&operationName=";
    assert_eq!(send(&app, get_of(&format!("{both}A"))).await.0, 200);
    assert_eq!(send(&app, get_of(&format!("{both}B"))).await.0, 405);
    assert_eq!(rejection(&app, get_of("/graphql")).await.0, 400);
    assert_eq!(rejection(&app, get_of("/graphql?query=%7Ba%7D&query=%7Bb%7D")).await.0, 400);
    let plain =
        || HttpRequest::get("/graphql?query=%7B__typename%7D").body(Body::empty()).expect("a request");
    assert_eq!(rejection(&app, plain()).await, (400, "CSRF_PREVENTION".into()));
    assert_eq!(rejection(&app, with(plain(), "apollo-require-preflight", "")).await.1, "CSRF_PREVENTION");
    assert_eq!(rejection(&app, with(plain(), "content-type", "text/plain")).await.1, "CSRF_PREVENTION");
    assert_eq!(rejection(&app, with(plain(), "authorization", "")).await.1, "CSRF_PREVENTION");
    assert_eq!(send(&app, with(plain(), "x-apollo-operation-name", "A")).await.0, 200);
    assert_eq!(send(&app, with(plain(), "content-type", "application/json")).await.0, 200);
}

#[tokio::test]
async fn a_bad_token_is_refused_and_a_good_one_authenticates() {
    let app = app().await;
    let (status, headers, body) = send(&app, with(post_of(QUERY), "authorization", "Bearer x")).await;
    assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (401, &json!("UNAUTHENTICATED")));
    assert_eq!(headers["www-authenticate"], "Bearer error=\"invalid_token\"");
    let token = token(&app, Role::Admin);
    let good = with(post_of(QUERY), "authorization", &format!("Bearer {token}"));
    assert_eq!(send(&app, good).await.2, json!({ "data": { "users": { "nodes": [] } } }));
}

#[tokio::test]
async fn a_body_is_as_large_as_its_sender_may_send() {
    let app = app_with(|config| {
        config.http.body_limit_anonymous.0 = 100;
        config.http.body_limit_signed_in.0 = 200;
    })
    .await;
    let padded = |length: usize| format!("{QUERY:length$}");
    assert_eq!(send(&app, post_of(padded(100))).await.0, 200);
    assert_eq!(rejection(&app, post_of(padded(101))).await, (413, "PAYLOAD_TOO_LARGE".into()));
    let pieces = futures_util::stream::iter(vec![padded(60), padded(60)]).map(Ok::<_, std::io::Error>);
    assert_eq!(rejection(&app, post_of(Body::from_stream(pieces))).await.0, 413, "length not announced");
    let token = token(&app, Role::Viewer);
    let signed_in = |body| with(post_of(body), "authorization", &format!("Bearer {token}"));
    assert_eq!(send(&app, signed_in(padded(200))).await.0, 200);
    assert_eq!(rejection(&app, signed_in(padded(201))).await.0, 413);
}

#[tokio::test]
async fn a_body_in_pieces_is_one_body() {
    let app = app().await;
    let pieces = QUERY.as_bytes().chunks(7).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let body = Body::from_stream(futures_util::stream::iter(pieces.collect::<Vec<_>>()));
    assert_eq!(send(&app, post_of(body)).await.2, json!({ "data": { "users": { "nodes": [] } } }));
}

#[tokio::test]
async fn what_takes_too_long_is_stopped() {
    let app = app_with(|config| {
        config.http.body_timeout = Duration::from_millis(20);
        config.http.request_timeout = Duration::from_millis(50);
    })
    .await;
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    assert_eq!(rejection(&app, post_of(Body::from_stream(never))).await, (408, "TIMEOUT".into()));
    let token = token(&app, Role::Admin);
    let only_connection = app.store.connection().get_sqlite_connection_pool().acquire().await.expect("free");
    let slow = with(post_of(QUERY), "authorization", &format!("Bearer {token}"));
    assert_eq!(rejection(&app, slow).await, (504, "TIMEOUT".into()));
    drop(only_connection);
}

#[tokio::test]
async fn a_request_id_is_taken_over_only_if_harmless() {
    let app = app().await;
    let id = |value: &'static str| {
        let app = app.clone();
        async move { send(&app, with(get_of("/livez"), "x-request-id", value)).await.1["x-request-id"].clone() }
    };
    assert_eq!(id("abc-1.2_3").await, "abc-1.2_3");
    for harmful in
        ["", "a b", "a\"b", "0123456789012345678901234567890123456789012345678901234567890123456789"]
    {
        assert_eq!(id(harmful).await.len(), 36, "{harmful}");
    }
}

#[tokio::test]
async fn a_panic_costs_its_own_request_only() {
    async fn panics() {
        panic!("on purpose")
    }
    let app = app().await;
    let routes = Router::new().route("/livez", get(panics)).layer(from_fn_with_state(app.clone(), edge));
    let response = routes.with_state::<()>(()).oneshot(get_of("/livez")).await.expect("never fails");
    assert_eq!(response.status(), 500);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["errors"][0]["extensions"]["code"], "INTERNAL_SERVER_ERROR");
    assert!(!body.to_string().contains("on purpose"));
}

#[tokio::test]
async fn readiness_follows_the_database_and_the_process() {
    let app = app().await;
    assert_eq!(send(&app, get_of("/livez")).await.0, 200);
    let (status, _, body) = send(&app, get_of("/readyz")).await;
    assert_eq!((status, &body["status"]), (200, &json!("ready")));
    migration::down(app.store.connection(), 1).await.expect("taken back");
    let (status, _, body) = send(&app, get_of("/readyz")).await;
    assert_eq!((status, &body["checks"]["migrations"]), (503, &json!("pending")));
    migration::up(app.store.connection()).await.expect("applied");
    app.ready.drain();
    let (status, _, body) = send(&app, get_of("/readyz")).await;
    assert_eq!((status, &body["checks"]["process"]), (503, &json!("draining")));
    app.store.clone().close().await;
    assert_eq!(send(&app, get_of("/readyz")).await.2["checks"]["database"], "unreachable");
    assert_eq!(send(&app, get_of("/livez")).await.0, 200);
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let app = app().await;
    send(&app, post_of(QUERY)).await;
    send(&app, post_of("{")).await;
    for path in ["/graphql/a?b=c", "/graphql/b", "/graphql/a/b", "/nowhere", "/.env"] {
        send(&app, get_of(path)).await;
    }
    let Value::String(text) = send(&app, get_of("/metrics")).await.2 else { panic!("metrics are text") };
    for line in [
        r#"http_server_request_duration_seconds_count{http_request_method="POST",http_route="/graphql",http_response_status_code="200"} 1"#,
        r#"http_route="/graphql/{id}",http_response_status_code="404"} 2"#,
        r#"http_route="_other",http_response_status_code="404"} 3"#,
        r#"graphql_server_operation_duration_seconds_count{graphql_operation_type="query",outcome="ok"} 1"#,
        r#"graphql_server_errors_total{code="BAD_USER_INPUT"} 1"#,
        "http_server_active_requests 1",
        "build_info{",
        "process_cpu_seconds_total",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    let own = MetricsAddress::Own("127.0.0.1:0".parse().expect("an address"));
    let apart = app_with(|config| config.http.metrics_address = own).await;
    assert_eq!(send(&apart, get_of("/metrics")).await.0, 404);
    // In production they are apart unless it is said otherwise.
    let production =
        |place| app_of(None, move |config| config.http.metrics_address = place, |store, _| store);
    assert_eq!(send(&production(MetricsAddress::Auto).await, get_of("/metrics")).await.0, 404);
    assert_eq!(send(&production(MetricsAddress::Main).await, get_of("/metrics")).await.0, 200);
}

#[tokio::test]
async fn an_answer_says_how_it_was_made_and_administrators_get_the_plans() {
    let app = app().await;
    let explained = async |role, query: &str| {
        let body = json!({ "query": query, "extensions": { "explain": true } }).to_string();
        let bearer = format!("Bearer {}", token(&app, role));
        let answer = send(&app, with(post_of(body), "authorization", &bearer)).await.2;
        (answer["extensions"]["explain"].clone(), bearer)
    };
    let query = "{ users(first: 2) { nodes { id sessions(first: 1) { nodes { id } } } } }";
    let (first, bearer) = explained(Role::Admin, query).await;
    assert_eq!(first["document"]["known"], false, "{first}");
    assert!(first["document"]["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{first}");
    assert!(
        first["cost"].as_u64() > Some(1) && first["maxCost"].as_u64() > first["cost"].as_u64(),
        "{first}"
    );
    assert_eq!((&first["batches"][0]["level"], &first["sql"][0]["name"]), (&json!(1), &json!("user.page")));
    let within = |one: &Value| {
        let end = one["startMs"].as_f64().unwrap_or(f64::MAX) + one["ms"].as_f64().unwrap_or(f64::MAX);
        // Both are rounded.
        end <= first["totalMs"].as_f64().unwrap_or_default() + 0.002
    };
    let timed = |name: &str| first[name].as_array().expect("a list").clone();
    assert!(timed("batches").iter().chain(&timed("sql")).all(within), "{first}");
    let plan = async |id: &Value, statement: usize, bearer: &str| {
        let path = format!("/playground/plans/{id}/{statement}");
        send(&app, with(get_of(&path), "authorization", bearer)).await
    };
    let (status, headers, body) = plan(&first["plans"], 0, &bearer).await;
    assert_eq!((status, text(&headers["cache-control"])), (200, "no-store"), "{body}");
    assert!(
        body["plan"][0].as_str().is_some_and(|line| line.contains("SCAN") || line.contains("SEARCH")),
        "{body}"
    );
    assert_eq!(plan(&first["plans"], 99, &bearer).await.0, 404);
    let (again, _) = explained(Role::Admin, query).await;
    assert_eq!(again["document"]["known"], true, "{again}");
    let (others, manager) = explained(Role::Manager, query).await;
    assert_eq!(others["plans"], Value::Null, "{others}");
    assert_eq!(plan(&first["plans"], 0, &manager).await.0, 404, "only for administrators");
    let anonymous = get_of(&format!("/playground/plans/{}/0", first["plans"]));
    assert_eq!(send(&app, anonymous).await.0, 404);
}

/// A server over real sockets: its address, and what stops it.
async fn serving(routes: Router, change: impl FnOnce(&mut Config)) -> (String, oneshot::Sender<()>, Stopped) {
    let mut config = Config::default();
    change(&mut config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server::run(routes, config.http, listener, server::never_draining(), async {
        let _ = stopped.await;
    }));
    (address, stop, server)
}

type Stopped = tokio::task::JoinHandle<usize>;

async fn exchange(address: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(bytes.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// Sends a request and reads an answer that ends so.
async fn ask_on(stream: &mut TcpStream, ends_with: &str) {
    stream.write_all(HELLO).await.expect("sent");
    let mut answer = String::new();
    while !answer.ends_with(ends_with) {
        let mut part = [0; 1_024];
        let read = stream.read(&mut part).await.expect("it is open");
        assert!(read > 0, "closed after {answer}");
        answer.push_str(&String::from_utf8_lossy(&part[..read]));
    }
}

/// Waits until the other end closes the connection.
async fn expect_closed(stream: &mut TcpStream) {
    let closed = timeout(Duration::from_secs(20), stream.read(&mut [0; 1_024])).await.expect("it is closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}
