//! What is told of a request when it has ended: metrics, the end of its span, and the one line of the log. Not here: what
//! they say of who asked (`about`).

use std::{borrow::Cow, time::Instant};

use axum::http::{HeaderMap, StatusCode};
use opentelemetry::trace::TraceContextExt as _;
use schema::{OperationKind, Reply};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::TIMEOUT;
use crate::{
    App,
    http::{
        about::{self, About},
        request_id,
    },
    rejection::Rejection,
    telemetry::{
        self, OPERATIONS,
        metrics::{Outcome, kind_name},
    },
};

/// What is told about a request afterwards.
pub(in crate::http) struct RequestSummary<'a> {
    kind: Option<OperationKind>,
    pub(super) outcome: Outcome,
    statements: u32,
    codes: Cow<'a, [&'static str]>,
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
            outcome,
            statements: reply.statements,
            codes: Cow::Borrowed(&reply.codes),
        }
    }

    /// Its answers come later.
    pub(in crate::http) fn of_stream(kind: OperationKind) -> Self {
        Self { kind: Some(kind), outcome: Outcome::Ok, statements: 0, codes: Cow::Borrowed(&[]) }
    }

    /// It did not run, or not to its end.
    pub(in crate::http) fn of_rejection(rejection: &Rejection) -> Self {
        let outcome = if *rejection == TIMEOUT { Outcome::Timeout } else { Outcome::Refused };
        Self { kind: None, outcome, statements: 0, codes: Cow::Owned(vec![rejection.code]) }
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
    app.metrics.operation(kind, summary.outcome, took, &summary.codes);
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
    if !tracing::enabled!(target: OPERATIONS, tracing::Level::INFO) {
        return;
    }
    let own_trace = || (!span.is_disabled()).then(|| telemetry::trace_id(&span.context())).flatten();
    let callers_trace = || telemetry::remote_context(headers).as_ref().and_then(telemetry::trace_id);
    let trace_id = own_trace().or_else(callers_trace);
    let codes = (!summary.codes.is_empty()).then(|| summary.codes.join(","));
    tracing::info!(
        target: OPERATIONS, operation = kind, operation_name = about.operation_name, document_id = about.document_id,
        viewer = about.viewer.map(tracing::field::display), client_name = about::client_name(headers),
        client_version = about::client_version(headers), ms = took.as_micros() as f64 / 1000.0,
        statements = summary.statements, codes, status = status.as_u16(), request_id = request_id(headers), trace_id,
        "operation",
    );
}
