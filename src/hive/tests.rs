//! Reports as Hive gets them: from a whole server, and when Hive is away, slow or refuses.

use std::{sync::Arc, time::Instant};

use axum::{Router, body::Body, extract::State, http::Request, http::StatusCode, routing::post};
use schema::engine::coordinates::ReportedOperation;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::*;
use crate::{
    App,
    config::{
        Config,
        setting::{Ratio, Setting as _},
    },
};

const TOKEN: &str = "hvo1/0123456789abcdef0123456789abcdef";

/// What was posted, and how the next posts are answered: then, and for ever, with 200.
#[derive(Clone, Default)]
struct Receiver {
    posts: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
    answers: Arc<Mutex<Vec<StatusCode>>>,
}

impl Receiver {
    /// A Hive that answers so; its address.
    async fn start(answers: &[StatusCode]) -> (Self, String) {
        let receiver = Self::default();
        receiver.answers.lock().expect("not poisoned").extend(answers.iter().rev());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let routes = Router::new().route("/usage/{*target}", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (receiver, format!("http://{address}/usage"))
    }

    fn posts(&self) -> Vec<(String, HeaderMap, Value)> {
        self.posts.lock().expect("not poisoned").clone()
    }
}

async fn receive(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let json = serde_json::from_slice(&body).expect("JSON");
    receiver.posts.lock().expect("not poisoned").push((uri.path().to_owned(), headers, json));
    receiver.answers.lock().expect("not poisoned").pop().unwrap_or(StatusCode::OK)
}

fn configure(config: &mut TelemetryConfig, endpoint: String) {
    config.hive_endpoint = Some(endpoint.into());
    config.hive_token = Some(SecretText::parse(TOKEN).expect("a token"));
    config.hive_target = Some("acme/shop/production".to_owned());
    config.field_usage = Ratio(1.0);
}

/// What sends to this address, and how many operations were sent and dropped.
fn reports(endpoint: String, every: Duration) -> Arc<HiveReports> {
    let mut config = Config::default().telemetry;
    configure(&mut config, endpoint);
    let reports = HiveReports::of(&config, Outbound::new(), &mut Registry::default()).expect("configured");
    Arc::new(HiveReports { every, ..reports })
}

fn counts(reports: &HiveReports) -> [u64; 2] {
    ["sent", "dropped"].map(|outcome| reports.operations.get_or_create(&ReportLabels { outcome }).get())
}

fn run_of(key: &str, text: &str) -> UsageRun {
    let operation = Arc::new(ReportedOperation {
        key: key.to_owned(),
        name: None,
        text: text.to_owned(),
        coordinates: vec!["Query.me".to_owned()],
    });
    let (took, client) = (Some(Duration::from_millis(2)), (None, None));
    UsageRun { operation, at_milliseconds: 1_700_000_000_000, took, errors: 0, client }
}

fn start(reports: &Arc<HiveReports>) -> JoinHandle<()> {
    let reports = Arc::clone(reports);
    tokio::spawn(async move { reports.run().await })
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("it becomes so");
}

async fn app(change: impl FnOnce(&mut Config)) -> App {
    crate::telemetry::tests::app_with(|config| {
        config.http.drain_delay = Duration::ZERO;
        change(config);
    })
    .await
}

async fn ask(app: &App, body: Value, accept: &str) {
    let subject = schema::auth::token::Subject {
        user: entities::id::UserId::new(),
        role: entities::Role::Admin,
        epoch: 0,
        session: None,
    };
    let token = app.access.tokens().mint(subject, 60).expect("a token").0;
    let request = Request::post("/graphql")
        .header("content-type", "application/json")
        .header("accept", accept)
        .header("authorization", format!("Bearer {token}"))
        .header("apollographql-client-name", "web")
        .header("apollographql-client-version", "1.2");
    let request = request.body(Body::from(body.to_string())).expect("a request");
    let answered = crate::router(app.clone()).oneshot(request).await.expect("answered");
    // A stream begins when it is read, and ends with the server.
    tokio::spawn(http_body_util::BodyExt::collect(answered.into_body()));
}

/// All reports as one: where the machine is slow, a first one was sent before the end.
fn merged(posts: &[(String, HeaderMap, Value)]) -> Value {
    let mut sum = json!({ "size": 0, "map": {}, "operations": [], "subscriptionOperations": [] });
    for (_, _, report) in posts {
        sum["size"] =
            (sum["size"].as_u64().unwrap_or_default() + report["size"].as_u64().expect("a number")).into();
        let operations = report["map"].as_object().expect("an object").clone();
        sum["map"].as_object_mut().expect("an object").extend(operations);
        for key in ["operations", "subscriptionOperations"] {
            let runs = report[key].as_array().cloned().unwrap_or_default();
            sum[key].as_array_mut().expect("a list").extend(runs);
        }
    }
    sum
}

#[tokio::test]
async fn operations_are_reported_at_the_end_without_values_of_literals() {
    let (hive, endpoint) = Receiver::start(&[]).await;
    let app = app(|config| configure(&mut config.telemetry, endpoint)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(crate::serve(app.clone(), listener, async {
        let _ = stopped.await;
    }));
    let people = json!({
        "query": "query People($n: Int!) { s3cret: users(first: $n, filter: { search: \"s3cret\" }) { nodes { id } } }",
        "variables": { "n": 5 },
    });
    for _ in 0..2 {
        ask(&app, people.clone(), "application/json").await;
    }
    let id = entities::id::UserId::new();
    let failing = format!("{{ user(id: \"{id}\") {{ role }} }}");
    ask(&app, json!({ "query": failing }), "application/json").await;
    ask(&app, json!({ "query": "{ users { s3cret } }" }), "application/json").await;
    let subscription = "subscription { locationUpdated(userIds: []) { latitude } }";
    ask(&app, json!({ "query": subscription }), "text/event-stream").await;
    let reports = app.hive.as_ref().expect("configured");
    let waiting = || reports.batch.lock().expect("not poisoned").len() as u64;
    until(|| waiting() + counts(reports)[0] == 4).await;
    stop.send(()).expect("it runs");
    serving.await.expect("no panic").expect("it ends");

    let posts = hive.posts();
    let (path, headers, _) = posts.last().expect("a report");
    let report = merged(&posts);
    assert_eq!(path, "/usage/acme/shop/production");
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!((header("x-usage-api-version"), header("content-type")), ("2", "application/json"));
    assert_eq!(header("graphql-client-name"), "xp-graph");
    assert!(uuid::Uuid::parse_str(header("x-request-id")).is_ok());
    assert!(
        !report.to_string().contains("s3cret") && !report.to_string().contains(&id.to_string()),
        "{report}"
    );

    assert_eq!(report["size"], 4, "what is refused is not reported: {report}");
    let named = |run: &Value| {
        let key = run["operationMapKey"].as_str().expect("a text");
        let operation = &report["map"][key];
        (operation["operationName"].as_str().expect("a text").to_owned(), operation["operation"].clone())
    };
    let runs = report["operations"].as_array().expect("a list");
    let people = "query People($n:Int!){users(first:$n filter:{search:\"\"}){nodes{id}}}";
    assert_eq!(named(&runs[0]), ("People".to_owned(), people.into()));
    assert_eq!((named(&runs[1]), runs.len()), (named(&runs[0]), 3));
    assert_eq!(named(&runs[2]), ("anonymous".to_owned(), "query{user(id:\"\"){role}}".into()));
    assert_eq!(runs[0]["metadata"]["client"], json!({ "name": "web", "version": "1.2" }));
    assert_eq!(
        (&runs[0]["execution"]["ok"], &runs[0]["execution"]["errorsTotal"]),
        (&true.into(), &0.into())
    );
    assert!(runs[0]["execution"]["duration"].as_u64().is_some_and(|nanoseconds| nanoseconds > 1_000));
    assert!(runs[0]["timestamp"].as_i64().is_some_and(|at| at > 1_700_000_000_000));
    let streams = report["subscriptionOperations"].as_array().expect("a list");
    assert_eq!((streams.len(), &streams[0]["execution"]), (1, &Value::Null));
    assert_eq!(report["map"].as_object().map(serde_json::Map::len), Some(3), "each operation once: {report}");
    assert_eq!(counts(reports), [4, 0]);
}

#[tokio::test]
async fn nothing_is_noted_where_hive_is_not_configured_or_nothing_is_sampled() {
    assert!(app(|_| {}).await.hive.is_none());
    let (_, endpoint) = Receiver::start(&[]).await;
    let app = app(|config| {
        configure(&mut config.telemetry, endpoint);
        config.telemetry.field_usage = Ratio(0.0);
    })
    .await;
    ask(&app, json!({ "query": "{ users(first: 1) { nodes { id } } }" }), "application/json").await;
    assert_eq!(app.hive.as_ref().expect("configured").batch.lock().expect("not poisoned").len(), 0);
}

#[tokio::test]
async fn reports_are_sent_every_interval_and_when_many_runs_wait() {
    let (hive, endpoint) = Receiver::start(&[]).await;
    let often = reports(endpoint.clone(), Duration::from_millis(20));
    let _running = start(&often);
    for sent in 1..=2 {
        often.add(run_of("a", "{me}"));
        until(|| counts(&often) == [sent, 0]).await;
    }
    assert_eq!(hive.posts().len(), 2, "nothing is sent where nothing waits");
    let seldom = reports(endpoint, Duration::from_hours(1));
    let _running = start(&seldom);
    for _ in 0..FULL_BATCH {
        seldom.add(run_of("a", "{me}"));
    }
    until(|| counts(&seldom) == [FULL_BATCH as u64, 0]).await;
    assert_eq!(hive.posts()[2].2["size"], FULL_BATCH);
}

#[tokio::test]
async fn reports_that_hive_cannot_take_now_are_sent_again_and_those_that_it_refuses_are_not() {
    let away = StatusCode::SERVICE_UNAVAILABLE;
    for (answers, posts, sent) in [
        (vec![away, away], 3, [1, 0]),
        (vec![away; 4], 4, [0, 1]),
        (vec![StatusCode::BAD_REQUEST], 1, [0, 1]),
    ] {
        let (hive, endpoint) = Receiver::start(&answers).await;
        let reports = reports(endpoint, Duration::from_millis(20));
        let _running = start(&reports);
        reports.add(run_of("a", "{me}"));
        until(|| counts(&reports) == sent).await;
        let posted = hive.posts();
        assert_eq!(posted.len(), posts, "{answers:?}");
        assert!(posted.iter().all(|(_, _, report)| *report == posted[0].2));
        // The next report is sent all the same.
        reports.add(run_of("b", "{me}"));
        until(|| counts(&reports)[0] == sent[0] + 1).await;
    }
}

#[tokio::test]
async fn a_hive_that_never_answers_costs_reports_and_a_bounded_time_at_the_end() {
    // Connections are accepted by the system, and nobody reads.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("an address");
    let reports = reports(format!("http://{address}/usage"), Duration::from_millis(1));
    let running = start(&reports);
    reports.add(run_of("a", "{me}"));
    until(|| reports.batch.lock().expect("not poisoned").len() == 0).await;
    // What comes meanwhile waits, up to the bound.
    for _ in 0..6_000 {
        reports.add(run_of("a", "{me}"));
    }
    assert!(counts(&reports)[1] >= 1_000, "{:?}", counts(&reports));
    let began = Instant::now();
    reports.finish(running).await;
    assert!(began.elapsed() >= FINISH_WITHIN);
    assert_eq!(counts(&reports), [0, 6_001], "what is lost is counted");
}

#[test]
fn what_waits_is_bounded_by_the_texts_of_its_operations_and_empty_ones_are_left_out() {
    let reports = reports("http://127.0.0.1:1/usage".to_owned(), Duration::from_hours(1));
    let text = "x".repeat(1 << 20);
    for key in ["a", "b", "c", "d", "a"] {
        reports.add(run_of(key, &text));
    }
    assert_eq!(counts(&reports), [0, 1], "four texts of a megabyte are too much");
    assert_eq!(reports.batch.lock().expect("not poisoned").len(), 4, "what is known already takes no room");
    let empty = run_of("e", "{_service{sdl}}");
    let operation =
        ReportedOperation { coordinates: Vec::new(), key: "e".into(), name: None, text: String::new() };
    reports.add(UsageRun { operation: Arc::new(operation), ..empty });
    assert_eq!(reports.batch.lock().expect("not poisoned").len(), 4);
}
