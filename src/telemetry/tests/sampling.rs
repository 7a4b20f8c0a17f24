//! Which traces are kept: all of their spans, or none.

use super::*;
use crate::config::setting::{Ratio, Sampler};

/// Telemetry with a log and a collector of its own, and the spans that this one gets.
async fn telemetry_of(
    sampler: Sampler,
    ratio: f64,
    (filter, log): (&str, Sink),
) -> (Telemetry, Dispatch, Arc<Mutex<Vec<Span>>>) {
    let (endpoint, spans) = collector().await;
    let config = TelemetryConfig {
        filter: LogFilter(filter.to_owned()),
        otlp_endpoint: Some(endpoint.into()),
        sampler,
        sampler_argument: Ratio(ratio),
        ..Config::default().telemetry
    };
    let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(log)).expect("built");
    (telemetry, dispatch, spans)
}

#[tokio::test]
async fn a_sampler_keeps_the_part_of_traces_that_is_wanted() {
    let _alone = alone().await;
    for (sampler, ratio, kept) in [
        (Sampler::AlwaysOn, 0.0, true),
        (Sampler::AlwaysOff, 1.0, false),
        (Sampler::Ratio, 0.0, false),
        (Sampler::Ratio, 1.0, true),
        // The caller of these requests keeps its trace.
        (Sampler::ParentOrOff, 0.0, true),
        (Sampler::ParentOrRatio, 0.0, true),
    ] {
        let (telemetry, dispatch, spans) = telemetry_of(sampler, ratio, ("info", Sink::default())).await;
        let guard = tracing::dispatcher::set_default(&dispatch);
        let answered = crate::router(app().await).oneshot(request("{ __typename }", None)).await;
        answered.expect("answered");
        drop(guard);
        telemetry.stop().await;
        assert_eq!(!spans.lock().expect("not poisoned").is_empty(), kept, "{sampler:?} {ratio}");
    }
}

#[tokio::test]
async fn what_is_not_kept_is_not_made_unless_the_log_wants_it() {
    let _alone = alone().await;
    for (filter, is_made) in [("info", false), ("info,xp::span=debug", true)] {
        let (telemetry, dispatch, spans) =
            telemetry_of(Sampler::AlwaysOff, 1.0, (filter, Sink::default())).await;
        let guard = tracing::dispatcher::set_default(&dispatch);
        let make = || tracing::debug_span!(target: SPANS, "http");
        assert_eq!(!super::super::begin(None, make).is_disabled(), is_made, "{filter}");
        telemetry.set_filter(&LogFilter("xp::span=debug".to_owned()));
        assert!(!super::super::begin(None, make).is_disabled(), "{filter}");
        telemetry.set_filter(&LogFilter("info".to_owned()));
        assert!(super::super::begin(None, make).is_disabled(), "{filter}");
        drop(guard);
        telemetry.stop().await;
        assert!(spans.lock().expect("not poisoned").is_empty(), "{filter}");
    }
}

/// The histogram of operations leads to the trace of one that took so long.
#[tokio::test]
async fn a_figure_names_a_trace_that_is_kept() {
    let _alone = alone().await;
    for (sampler, is_named) in [(Sampler::AlwaysOn, true), (Sampler::AlwaysOff, false)] {
        let (telemetry, dispatch, _) = telemetry_of(sampler, 1.0, ("info", Sink::default())).await;
        let guard = tracing::dispatcher::set_default(&dispatch);
        let app = app().await;
        crate::router(app.clone()).oneshot(request("{ __typename }", None)).await.expect("answered");
        drop(guard);
        telemetry.stop().await;
        let text = app.exposition.text().await.expect("written");
        let text = String::from_utf8_lossy(&text).into_owned();
        let example = "# {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.";
        let named = text.lines().filter(|line| line.contains(example)).collect::<Vec<_>>();
        assert_eq!(named.len(), usize::from(is_named), "{text}");
        assert!(
            named.iter().all(|line| line.starts_with("graphql_server_operation_duration_seconds_bucket{"))
        );
    }
}

/// How many traces a collector gets of so many requests without a caller's trace, and how many spans.
async fn kept(requests: usize, sampler: Sampler, ratio: f64) -> (usize, usize) {
    let (telemetry, dispatch, spans) = telemetry_of(sampler, ratio, ("info", Sink::default())).await;
    let app = app().await;
    let guard = tracing::dispatcher::set_default(&dispatch);
    let routes = crate::router(app);
    for _ in 0..requests {
        let mut request = request("{ users(first: 1) { nodes { id } } }", None);
        request.headers_mut().remove("traceparent");
        routes.clone().oneshot(request).await.expect("answered");
    }
    drop(guard);
    telemetry.stop().await;
    let spans = spans.lock().expect("not poisoned");
    let traces: std::collections::HashSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    (traces.len(), spans.len())
}

#[tokio::test]
async fn a_part_of_the_traces_is_kept_and_of_the_others_no_span() {
    let _alone = alone().await;
    for sampler in [Sampler::Ratio, Sampler::ParentOrRatio] {
        let (traces, spans) = kept(200, sampler, 0.25).await;
        // The chance to be wrong is below one in a million (binomial, 200 of 0.25).
        assert!((20..=85).contains(&traces), "{traces}");
        // HTTP, operation, batch, statement; the thread of SQLite may hold the last ones open.
        assert!((traces * 2..=traces * 4).contains(&spans), "{spans} of {traces}");
    }
    assert_eq!(kept(20, Sampler::ParentOrOff, 1.0).await, (0, 0));
    assert_eq!(kept(20, Sampler::ParentOrOn, 0.0).await.0, 20);
}

/// What the caller has decided holds below it.
#[tokio::test]
async fn a_trace_that_its_caller_does_not_keep_has_no_spans() {
    let _alone = alone().await;
    for (sampler, flags, is_kept) in [
        (Sampler::ParentOrOn, "00", false),
        (Sampler::ParentOrRatio, "00", false),
        (Sampler::ParentOrOff, "01", true),
        (Sampler::AlwaysOn, "00", true),
    ] {
        let log = Sink::default();
        let (telemetry, dispatch, spans) = telemetry_of(sampler, 1.0, ("info", log.clone())).await;
        let app = app().await;
        let guard = tracing::dispatcher::set_default(&dispatch);
        let mut request = request("{ users(first: 1) { nodes { id } } }", None);
        let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        request.headers_mut().insert("traceparent", HeaderValue::from_str(&parent).expect("a header"));
        crate::router(app).oneshot(request).await.expect("answered");
        drop(guard);
        telemetry.stop().await;
        assert_eq!(!spans.lock().expect("not poisoned").is_empty(), is_kept, "{sampler:?} {flags}");
        assert!(log.text().contains("0af7651916cd43dd8448eb211c80319c"), "the line names the trace anyway");
    }
}
