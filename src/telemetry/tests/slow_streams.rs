//! What is logged of slow runs of live queries and of slow events of subscriptions. Not here: other slow operations.

use http_body_util::BodyExt as _;

use super::*;

/// A server to which every run is slow, and its log.
struct SlowServer {
    app: App,
    log: Sink,
    telemetry: Telemetry,
    _guard: tracing::dispatcher::DefaultGuard,
}

impl SlowServer {
    async fn start() -> Self {
        let log = Sink::default();
        let config = TelemetryConfig { log_format: LogFormat::Json, ..Config::default().telemetry };
        let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(log.clone())).expect("built");
        let guard = tracing::dispatcher::set_default(&dispatch);
        let app = app_with(|config| config.telemetry.slow_operation = Some(Duration::ZERO)).await;
        Self { app, log, telemetry, _guard: guard }
    }

    /// Reads a stream from now on; what has come of it.
    async fn stream(&self, query: &str) -> Sink {
        let mut request = request(query, Some(&bearer(&self.app)));
        request.headers_mut().insert("accept", HeaderValue::from_static("text/event-stream"));
        let answer = crate::router(self.app.clone()).oneshot(request).await.expect("answered");
        let (mut body, mut received) = (answer.into_body(), Sink::default());
        let reading = received.clone();
        tokio::spawn(async move {
            while let Some(Ok(part)) = body.frame().await {
                received.write_all(part.data_ref().map_or(&[], |data| data)).expect("kept");
            }
        });
        reading
    }

    async fn ask(&self, query: &str, authorization: Option<&str>) -> serde_json::Value {
        let routes = crate::router(self.app.clone());
        let answer = routes.oneshot(request(query, authorization)).await.expect("answered");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("JSON")
    }

    async fn sign_up(&self, name: &str) -> String {
        let input = format!(
            "{{ email: \"{name}@example.com\", password: \"a-Passw0rd-1\", displayName: \"{name}\" }}"
        );
        let answer =
            self.ask(&format!("mutation {{ signUp(input: {input}) {{ accessToken }} }}"), None).await;
        let token = answer["data"]["signUp"]["accessToken"].as_str().unwrap_or_else(|| panic!("{answer}"));
        format!("Bearer {token}")
    }

    /// The lines about slow runs, once the log is written.
    async fn slow_runs(self) -> Vec<serde_json::Value> {
        self.telemetry.stop().await;
        let text = self.log.text();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let is_of_run = |line: &serde_json::Value| {
            line["target"] == SLOW_OPERATIONS && line["message"] == "slow run of a stream"
        };
        lines.filter(is_of_run).collect()
    }
}

async fn until(sink: &Sink, is_so: impl Fn(&str) -> bool) {
    let waiting = async {
        while !is_so(&sink.text()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("it becomes so");
}

#[tokio::test]
async fn of_the_slow_runs_of_a_live_query_one_a_minute_is_logged() {
    let _alone = alone().await;
    let server = SlowServer::start().await;
    let received = server.stream("query Watched @live { users { totalCount } }").await;
    let answers = |wanted| move |text: &str| text.matches("\"totalCount\"").count() >= wanted;
    until(&received, answers(1)).await;
    server.sign_up("ann").await;
    until(&received, answers(2)).await;
    let lines = server.slow_runs().await;
    let [line] = &lines[..] else { panic!("one line for two runs: {lines:?}") };
    assert_eq!((&line["operation"], &line["operation_name"]), (&"query".into(), &"Watched".into()));
    assert_eq!((&line["left_out"], &line["request_id"]), (&0.into(), &"request-1".into()));
    let made: serde_json::Value = serde_json::from_str(line["made"].as_str().expect("a text")).expect("JSON");
    assert!(made["sql"][0]["text"].as_str().is_some_and(|text| text.starts_with("SELECT")), "{made}");
    assert!(line["ms"].is_number());
}

#[tokio::test]
async fn slow_events_of_a_subscription_are_logged() {
    let _alone = alone().await;
    let server = SlowServer::start().await;
    let received = server.stream("subscription Ended { sessionEnded { id } }").await;
    // It has begun when its line is written.
    until(&server.log, |text| text.contains("\"operation\":\"subscription\"")).await;
    let token = server.sign_up("ann").await;
    server.ask("mutation { signOut { __typename } }", Some(&token)).await;
    until(&received, |text| text.contains("sessionEnded")).await;
    let lines = server.slow_runs().await;
    let [line] = &lines[..] else { panic!("one line: {lines:?}") };
    assert_eq!((&line["operation"], &line["operation_name"]), (&"subscription".into(), &"Ended".into()));
    let made: serde_json::Value = serde_json::from_str(line["made"].as_str().expect("a text")).expect("JSON");
    assert_eq!(made["batches"].as_array().map(Vec::len), Some(1), "{made}");
}
