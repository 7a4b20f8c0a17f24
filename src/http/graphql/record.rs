//! What is told of a request when it has ended: metrics, the end of its span, the one line of the log, and, of those
//! of the sample, which fields were used and for whom.
//! Not here: what they say of who asked (`about`).

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode};
use entities::clock;
use opentelemetry::trace::TraceContextExt as _;
use schema::{OnSlowRun, OperationKind, Progress, Reply};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{is_late, response::sum_of_costs};
use crate::{
    App,
    hive::UsageRun,
    http::{
        about::{self, About},
        request_id,
    },
    rejection::Rejection,
    telemetry::{
        self, OPERATIONS, SLOW_OPERATIONS,
        metrics::{Outcome, kind_name},
    },
};

/// Of the slow runs of one stream one is logged in this time.
const SLOW_RUN_EVERY: Duration = Duration::from_mins(1);

/// What is told about a request afterwards.
pub(in crate::http) struct RequestSummary<'a> {
    kind: Option<OperationKind>,
    pub(super) outcome: Outcome,
    statements: u32,
    cost: Option<u64>,
    cache_hits: u32,
    codes: Cow<'a, [&'static str]>,
    /// How many, where that is not the number of codes.
    errors: Option<usize>,
    /// How many sets of variables it had, where it had a list of them.
    variable_sets: Option<usize>,
    /// Its batches and statements, where it was slow.
    slow: Option<&'a str>,
    /// Its answers come later.
    is_stream: bool,
}

/// What is told of a request with a list of sets of variables: it is one operation.
#[derive(Default)]
pub(super) struct SetsSummary {
    /// Sets that were answered.
    pub(super) answered: usize,
    /// Its time was up before all were.
    pub(super) is_late: bool,
    kind: Option<OperationKind>,
    is_executed: bool,
    statements: u32,
    /// Of all sets together, where it was found out for any.
    cost: Option<u64>,
    cache_hits: u32,
    /// Each once.
    codes: Vec<&'static str>,
    errors: usize,
    slow: Option<Box<str>>,
}

impl SetsSummary {
    /// One more set is answered.
    pub(super) fn add(&mut self, reply: &Reply) {
        self.answered += 1;
        self.kind = self.kind.or(reply.operation);
        self.is_executed |= reply.executed;
        self.statements += reply.statements;
        self.cost = sum_of_costs(self.cost, reply.cost);
        self.cache_hits = self.cache_hits.saturating_add(reply.cache_hits);
        if reply.slow.is_some() {
            self.slow.clone_from(&reply.slow);
        }
        self.errors += reply.codes.len();
        for code in &reply.codes {
            if !self.codes.contains(code) {
                self.codes.push(code);
            }
        }
    }
}

impl<'a> RequestSummary<'a> {
    /// It got an answer.
    pub(in crate::http) fn of_reply(reply: &'a Reply) -> Self {
        let outcome = match (reply.executed, reply.codes.is_empty()) {
            (true, true) => Outcome::Ok,
            (true, false) => Outcome::Errors,
            (false, _) => Outcome::Refused,
        };
        Self {
            kind: reply.operation,
            statements: reply.statements,
            cost: reply.cost,
            cache_hits: reply.cache_hits,
            codes: Cow::Borrowed(&reply.codes),
            slow: reply.slow.as_deref(),
            ..Self::new(outcome)
        }
    }

    /// Its sets of variables got their answers.
    pub(super) fn of_sets(told: &'a SetsSummary) -> Self {
        let outcome = match (told.is_executed, told.codes.is_empty()) {
            _ if told.is_late => Outcome::Timeout,
            (_, true) => Outcome::Ok,
            (true, false) => Outcome::Errors,
            (false, false) => Outcome::Refused,
        };
        Self {
            kind: told.kind,
            statements: told.statements,
            cost: told.cost,
            cache_hits: told.cache_hits,
            codes: Cow::Borrowed(&told.codes),
            errors: Some(told.errors),
            variable_sets: Some(told.answered),
            slow: told.slow.as_deref(),
            ..Self::new(outcome)
        }
    }

    /// Where it was stopped, it had done this until then.
    pub(in crate::http) fn stopped(self, progress: &'a Progress) -> Self {
        Self { slow: progress.slow().or(self.slow), ..self }
    }

    /// Its answers come later.
    pub(in crate::http) fn of_stream(kind: OperationKind) -> Self {
        Self { kind: Some(kind), is_stream: true, ..Self::new(Outcome::Ok) }
    }

    /// It did not run, or not to its end.
    pub(in crate::http) fn of_rejection(rejection: &Rejection) -> Self {
        let outcome = if is_late(rejection) { Outcome::Timeout } else { Outcome::Refused };
        Self { codes: Cow::Owned(vec![rejection.code]), ..Self::new(outcome) }
    }

    /// Nothing else is known.
    fn new(outcome: Outcome) -> Self {
        Self {
            kind: None,
            outcome,
            statements: 0,
            cost: None,
            cache_hits: 0,
            codes: Cow::Borrowed(&[]),
            errors: None,
            variable_sets: None,
            slow: None,
            is_stream: false,
        }
    }
}

/// The metrics, the span's end and the one log line of a request.
pub(in crate::http) fn record(
    app: &App,
    headers: &HeaderMap,
    (span, started): (&Span, Instant),
    status: StatusCode,
    summary: &RequestSummary<'_>,
    about: &About,
) {
    let took = started.elapsed();
    // What was refused or stopped is of the kind that was found until then.
    let kind = summary.kind.or(about.kind);
    let own_trace = (!span.is_disabled()).then(|| telemetry::trace_id(&span.context())).flatten();
    app.metrics.operation(kind, summary.outcome, (took, own_trace.as_deref()), &summary.codes);
    if let Some(fields) = &about.fields
        && summary.outcome != Outcome::Refused
    {
        app.field_usage.count(fields, about::client_name(headers).as_deref());
        if let (Some(hive), Some(operation)) = (&app.hive, &about.reported) {
            hive.add(UsageRun {
                operation: Arc::clone(operation),
                at_milliseconds: clock::now().timestamp_millis(),
                took: (!summary.is_stream).then_some(took),
                errors: summary.errors.unwrap_or(summary.codes.len()),
                client: (about::client_name(headers), about::client_version(headers)),
            });
        }
    }
    let kind = kind_name(kind);
    if !span.is_disabled() {
        // Named by its type only: names of operations are the caller's, and without end.
        span.context().span().update_name(kind);
        span.record("graphql.operation.type", kind);
        about.record(span, headers);
        if summary.outcome != Outcome::Ok {
            span.record("otel.status_code", "ERROR");
        }
    }
    if summary.slow.is_none() && !tracing::enabled!(target: OPERATIONS, tracing::Level::INFO) {
        return;
    }
    let callers_trace = || telemetry::remote_context(headers).as_ref().and_then(telemetry::trace_id);
    let trace_id = own_trace.or_else(callers_trace);
    let codes = (!summary.codes.is_empty()).then(|| summary.codes.join(","));
    tracing::info!(
        target: OPERATIONS, operation = kind, operation_name = about.operation_name,
        document_id = about.document_id,
        viewer = about.viewer.map(tracing::field::display), client_name = about::client_name(headers),
        client_version = about::client_version(headers), ms = took.as_micros() as f64 / 1000.0,
        statements = summary.statements, cache_hits = summary.cache_hits, cost = summary.cost,
        variable_sets = summary.variable_sets, codes,
        status = status.as_u16(), request_id = request_id(headers), trace_id,
        "operation",
    );
    if let Some(made) = summary.slow {
        tracing::warn!(
            target: SLOW_OPERATIONS, operation = kind, operation_name = about.operation_name,
            document_id = about.document_id, ms = took.as_micros() as f64 / 1000.0,
            request_id = request_id(headers), trace_id, made,
            "slow operation",
        );
    }
}

/// Logs the slow runs of a live query or of a subscription's events: one a minute, with how many were left out since
/// the last one.
pub(super) fn slow_runs(kind: OperationKind, about: &About, headers: &HeaderMap) -> OnSlowRun {
    let (operation_name, document_id) = (about.operation_name.clone(), about.document_id.clone());
    let request_id = request_id(headers).to_owned();
    // When a line was written last, and how many runs were left out since.
    let logged: Mutex<(Option<tokio::time::Instant>, u64)> = Mutex::default();
    OnSlowRun(Arc::new(move |took, made| {
        let mut logged = logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.0.is_some_and(|last| last.elapsed() < SLOW_RUN_EVERY) {
            logged.1 += 1;
            return;
        }
        let (_, left_out) = std::mem::replace(&mut *logged, (Some(tokio::time::Instant::now()), 0));
        tracing::warn!(
            target: SLOW_OPERATIONS, operation = kind_name(Some(kind)), operation_name, document_id,
            ms = took.as_micros() as f64 / 1000.0, request_id, left_out, made,
            "slow run of a stream",
        );
    }))
}

#[cfg(test)]
mod tests {
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;

    /// How many runs each line says were left out.
    #[derive(Clone, Default)]
    struct LeftOut(Arc<Mutex<Vec<u64>>>);

    impl<S: tracing::Subscriber> Layer<S> for LeftOut {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            event.record(&mut self.clone());
        }
    }

    impl Visit for LeftOut {
        fn record_u64(&mut self, field: &Field, value: u64) {
            if field.name() == "left_out" {
                self.0.lock().expect("not poisoned").push(value);
            }
        }

        fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
    }

    #[tokio::test(start_paused = true)]
    async fn each_minute_has_one_line_which_counts_the_runs_before_it() {
        let lines = LeftOut::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
        let runs = slow_runs(OperationKind::Query, &About::default(), &HeaderMap::new());
        let another = slow_runs(OperationKind::Query, &About::default(), &HeaderMap::new());
        for _ in 0..121 {
            runs.0(Duration::from_secs(1), "{}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        another.0(Duration::from_secs(1), "{}");
        assert_eq!(*lines.0.lock().expect("not poisoned"), [0, 59, 59, 0]);
    }
}
