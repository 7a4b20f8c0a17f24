//! Logs and traces: set up once, flushed at the end. Log lines go to standard error through a thread of their own
//! (`writer`), spans by OTLP in batches (`otlp`), numbers to Prometheus (`metrics`, `process`, `runtime`) and, where
//! that is wanted, by OTLP (`otlp_metrics`), both by the same connection (`collector`). Which traces are kept is
//! decided by `sampling`.
//!
//! There is a span for each HTTP request, GraphQL operation, batch, statement and Redis command, made where these
//! are. Spans have the target `xp::span` and the level debug: at the usual filter and without a collector nobody is
//! interested in them, so their callsites are off and a request pays nothing. Invariant: no query, variable, token,
//! body or address is ever logged or put into a span; names and ids that callers chose are, shortened
//! (`http::about`).

mod collector;
mod json_line;
pub mod metrics;
mod otlp;
pub(crate) mod otlp_metrics;
mod process;
mod runtime;
mod sampling;
mod writer;

use std::{io::IsTerminal as _, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Dispatch, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, FilterFn},
    fmt::format::JsonFields,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
};

use crate::config::{
    TelemetryConfig,
    setting::{LogFilter, LogFormat},
};
use json_line::JsonLine;
use sampling::KeptTraces;
pub(crate) use sampling::begin;
use writer::LogWriter;

/// The target of spans, so that they can be chosen as a whole: `RUST_LOG=xp::span=debug` shows them in logs.
pub(crate) use entities::SPANS;

/// The target of the one line per operation.
pub(crate) const OPERATIONS: &str = "xp::operation";
/// The target of the line about an operation that was slow.
pub(crate) const SLOW_OPERATIONS: &str = "xp::slow";
/// Says of which trace a request is part (W3C, Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// How long flushing may take at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter refuses its settings.
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(String),
    /// The file of authorities cannot be used.
    #[error("telemetry.otlp_certificate: {0}")]
    Certificate(String),
    /// Something else in this process has set up logging.
    #[error("logging was already set up in this process")]
    Again,
}

/// What has to be flushed at the end.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    writer: LogWriter,
    set_filter: SetFilter,
}

/// Puts another filter in the place of the log's.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

impl Telemetry {
    /// Sets up logs and, where a collector is configured, traces for the whole process. Call it inside the runtime:
    /// spans are sent from there.
    pub fn start(config: &TelemetryConfig) -> Result<Self, Error> {
        let (telemetry, dispatch) = Self::build(config, LogWriter::start(std::io::stderr()))?;
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| Error::Again)?;
        Ok(telemetry)
    }

    fn build(config: &TelemetryConfig, writer: LogWriter) -> Result<(Self, Dispatch), Error> {
        let provider = otlp::provider(config)?;
        let filter = EnvFilter::new(&config.filter.0);
        let kept = provider.is_some().then(|| KeptTraces::of(config, &filter));
        let traces = provider.as_ref().zip(kept.as_ref());
        let traces = traces.map(|(provider, kept)| trace_layer(provider, kept));
        let (lines, set_filter) = log_layer(config, filter, (&writer, kept.clone()));
        let subscriber = tracing_subscriber::registry().with(lines).with(traces).with(kept);
        Ok((Self { provider, writer, set_filter }, Dispatch::new(subscriber)))
    }

    /// Which log lines are written from now on.
    pub(crate) fn set_filter(&self, filter: &LogFilter) {
        // It fails where the log is gone, and with it who would be told.
        let _ = (self.set_filter)(EnvFilter::new(&filter.0));
    }

    /// Sends what is left, within two seconds.
    pub async fn stop(self) {
        let Self { provider, writer, .. } = self;
        // On a thread of its own: the exporter sends through this runtime, which must not be blocked meanwhile.
        let flush = tokio::task::spawn_blocking(move || {
            if let Some(provider) = provider {
                // A collector that is away has been reported; at the end there is nobody left to tell.
                let _ = provider.shutdown_with_timeout(FLUSH_LIMIT);
            }
            writer.flush(FLUSH_LIMIT);
        });
        let _ = tokio::time::timeout(FLUSH_LIMIT, flush).await;
    }
}

/// What writes the log, and how its filter is changed.
fn log_layer<S>(
    config: &TelemetryConfig,
    filter: EnvFilter,
    (writer, kept): (&LogWriter, Option<KeptTraces>),
) -> (Box<dyn Layer<S> + Send + Sync>, SetFilter)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let json = match config.log_format {
        LogFormat::Auto => (!terminal).then_some(JsonLine::Plain),
        LogFormat::Pretty => None,
        LogFormat::Json => Some(JsonLine::Plain),
        LogFormat::Ecs => Some(JsonLine::Ecs { service: config.service_name.clone() }),
    };
    // Spans of libraries have in them what these were called with: sea-orm's, the database's URL with its password.
    let own_spans = FilterFn::new(|metadata| metadata.is_event() || metadata.target().starts_with("xp"))
        .with_max_level_hint(tracing::Level::TRACE);
    let (filter, handle) = reload::Layer::new(filter);
    let filter = filter.and(own_spans);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer.clone());
    let lines = match json {
        Some(line) => lines.fmt_fields(JsonFields::new()).event_format(line).with_filter(filter).boxed(),
        None => lines.compact().with_ansi(terminal).with_filter(filter).boxed(),
    };
    let set_filter = move |filter: EnvFilter| {
        if let Some(kept) = &kept {
            kept.follow(&filter);
        }
        handle.reload(filter)
    };
    (lines, Box::new(set_filter))
}

fn trace_layer<S>(provider: &SdkTracerProvider, kept: &KeptTraces) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("xp"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Spans only: log lines inside a span stay log lines.
        .with_filter(kept.filter())
}

/// The caller's place in its trace, from `traceparent` and `tracestate` (W3C).
pub(crate) fn remote_context(headers: &HeaderMap) -> Option<Context> {
    headers.contains_key(TRACEPARENT).then(|| TraceContextPropagator::new().extract(&Headers(headers)))
}

/// The place in a trace that something which outlives its request goes on from: that of this moment's span, or the
/// caller's where spans go nowhere.
pub(crate) fn place_in_trace(headers: &HeaderMap) -> SpanContext {
    let own = tracing::Span::current().context().span().span_context().clone();
    if own.is_valid() {
        return own;
    }
    remote_context(headers).map_or(SpanContext::NONE, |caller| caller.span().span_context().clone())
}

/// A context to go on from such a place.
pub(crate) fn context_of(place: &SpanContext) -> Context {
    Context::new().with_remote_span_context(place.clone())
}

/// Writes `traceparent` and `tracestate`, where there is a trace.
pub(crate) fn inject(context: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(context, &mut MutHeaders(headers));
}

/// The trace that a request belongs to, for its log line.
pub(crate) fn trace_id(context: &Context) -> Option<String> {
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| context.trace_id().to_string())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct MutHeaders<'a>(&'a mut HeaderMap);

impl Injector for MutHeaders<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
