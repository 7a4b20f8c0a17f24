//! Lines of the log as JSON. Not here: which lines there are.

use serde_json::{Value, json};

use super::*;

/// The lines that are written at a format.
async fn lines(log_format: LogFormat, write: impl FnOnce()) -> Vec<Value> {
    let log = Sink::default();
    let filter = LogFilter("info,xp::span=debug".to_owned());
    let config = TelemetryConfig { filter, log_format, ..Config::default().telemetry };
    let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(log.clone())).expect("built");
    let guard = tracing::dispatcher::set_default(&dispatch);
    write();
    drop(guard);
    telemetry.stop().await;
    log.text().lines().map(|line| serde_json::from_str(line).expect("one object")).collect()
}

fn write_some() {
    let error = io::Error::other("why \"it\" failed");
    tracing::warn!(
        error = &error as &dyn std::error::Error,
        count = 3,
        ratio = 0.5,
        on = true,
        "a \"text\"\n"
    );
    let span = tracing::debug_span!(target: SPANS, "outer", keys = 2);
    let _entered = span.enter();
    let _inner = tracing::debug_span!(target: SPANS, "inner").entered();
    tracing::info!(target: OPERATIONS, ms = 1.25, status = 200_u16, viewer = %7, codes = None::<&str>, "operation");
}

#[tokio::test]
async fn a_line_is_one_object_with_all_fields() {
    let _alone = alone().await;
    let mut lines = lines(LogFormat::Json, write_some).await;
    for line in &mut lines {
        let time = line.as_object_mut().and_then(|line| line.remove("timestamp")).expect("a time");
        assert!(time.as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 27), "{time}");
    }
    let here = module_path!();
    assert_eq!(
        lines,
        [
            json!({
                "level": "WARN", "message": "a \"text\"\n", "error": "why \"it\" failed", "count": 3, "ratio": 0.5,
                "on": true, "target": here,
            }),
            json!({
                "level": "INFO", "message": "operation", "ms": 1.25, "status": 200, "viewer": "7",
                "target": OPERATIONS, "spans": [{ "name": "outer", "keys": 2 }, { "name": "inner" }],
            }),
        ]
    );
}

#[tokio::test]
async fn a_line_can_have_the_names_of_the_elastic_common_schema() {
    let _alone = alone().await;
    let mut lines = lines(LogFormat::Ecs, write_some).await;
    for line in &mut lines {
        assert!(line.as_object_mut().is_some_and(|line| line.remove("@timestamp").is_some()), "{line}");
    }
    let here = module_path!();
    assert_eq!(
        lines,
        [
            json!({
                "log.level": "WARN", "message": "a \"text\"\n", "error.message": "why \"it\" failed", "xp.count": 3,
                "xp.ratio": 0.5, "xp.on": true, "log.logger": here, "ecs.version": "8.11.0",
                "service.name": "xp-graph",
            }),
            json!({
                "log.level": "INFO", "message": "operation", "event.duration": 1_250_000,
                "http.response.status_code": 200, "user.id": "7", "log.logger": OPERATIONS,
                "ecs.version": "8.11.0", "service.name": "xp-graph",
                "xp.spans": [{ "name": "outer", "keys": 2 }, { "name": "inner" }],
            }),
        ]
    );
}
