//! The numbers of the server: HTTP requests, GraphQL operations, errors by code. No global state: everything is in the
//! registry that `main` makes and hands to each part. Labels are bounded: methods and routes come from closed lists,
//! codes from the catalogue. Not here: batches and statements, which the crates below count themselves.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::Gauge,
        histogram::Histogram, info::Info,
    },
    registry::Registry,
};
use schema::OperationKind;

use super::{process::Process, runtime::Runtime};

const BUCKETS_SECONDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The status that is counted for a caller who went away before the answer.
const ABANDONED: u16 = 499;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the labels' names are the contract")]
struct HttpLabels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    graphql_operation_type: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    code: &'static str,
}

/// How a GraphQL request ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Without errors.
    Ok,
    /// It ran, with errors.
    Errors,
    /// It was refused before it ran.
    Refused,
    /// It took too long.
    Timeout,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Ok => "ok",
            Self::Errors => "errors",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CutLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TransportLabels {
    transport: &'static str,
}

/// What leads from a figure to an example of it (`OpenMetrics`, exemplars).
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TraceLabels {
    trace_id: String,
}

type TracedHistogram = HistogramWithExemplars<TraceLabels>;

/// The metrics of requests and of the process.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    http_seconds: Family<HttpLabels, Histogram, fn() -> Histogram>,
    http_active: Gauge,
    operation_seconds: Family<OperationLabels, TracedHistogram, fn() -> TracedHistogram>,
    errors: Family<ErrorLabels, Counter>,
    subscriptions: Family<TransportLabels, Gauge>,
    connections_cut: Family<CutLabels, Counter>,
    connections_refused: Family<CutLabels, Counter>,
    shed: Shed,
}

/// Figures of requests that are refused before they are read: looked up once, since there may be very many.
#[derive(Clone, Debug)]
struct Shed {
    count: Counter,
    errors: Counter,
    operation_seconds: TracedHistogram,
    /// By POST and by GET.
    http_seconds: [Histogram; 2],
}

impl Metrics {
    /// Registers everything, build and process included.
    pub(crate) fn register(registry: &mut Registry) -> Arc<Self> {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS_SECONDS);
        let http_seconds = Family::<HttpLabels, Histogram, _>::new_with_constructor(histogram);
        let traced: fn() -> TracedHistogram = || TracedHistogram::new(BUCKETS_SECONDS.into_iter());
        let operation_seconds = Family::<OperationLabels, TracedHistogram, _>::new_with_constructor(traced);
        let errors = Family::<ErrorLabels, Counter>::default();
        let refused = OperationLabels { graphql_operation_type: kind_name(None), outcome: Outcome::Refused };
        let by = |http_request_method| HttpLabels {
            http_request_method,
            http_route: "/graphql".to_owned(),
            http_response_status_code: 503,
        };
        let shed = Shed {
            count: Counter::default(),
            errors: errors.get_or_create(&ErrorLabels { code: "OVERLOADED" }).clone(),
            operation_seconds: operation_seconds.get_or_create(&refused).clone(),
            http_seconds: ["POST", "GET"].map(|method| http_seconds.get_or_create(&by(method)).clone()),
        };
        let metrics = Self {
            http_seconds,
            http_active: Gauge::default(),
            operation_seconds,
            errors,
            subscriptions: Family::default(),
            connections_cut: Family::default(),
            connections_refused: Family::default(),
            shed,
        };
        registry.register(
            "http_server_request_duration_seconds",
            "HTTP requests from their headers to the answer's; status 499: the caller went away",
            metrics.http_seconds.clone(),
        );
        registry.register(
            "http_server_active_requests",
            "HTTP requests that are being answered",
            metrics.http_active.clone(),
        );
        registry.register(
            "graphql_server_operation_duration_seconds",
            "GraphQL requests by type of operation and outcome",
            metrics.operation_seconds.clone(),
        );
        registry.register(
            "graphql_server_errors",
            "Errors in GraphQL answers by code",
            metrics.errors.clone(),
        );
        registry.register(
            "graphql_server_subscriptions",
            "Subscriptions that wait for events, by transport",
            metrics.subscriptions.clone(),
        );
        registry.register(
            "http_server_connections_cut",
            "Connections, and streams of HTTP/2, that the server ended: head and idle (said nothing), write \
             and rate (took nothing, or too slowly), too_large, not_http",
            metrics.connections_cut.clone(),
        );
        registry.register(
            "http_server_connections_refused",
            "Connections that were not let in: address (has its share; closed), full and failed (out of file \
             descriptors; they wait)",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "http_server_requests_shed",
            "GraphQL requests that were refused before they were read, since there was too much to do",
            metrics.shed.count.clone(),
        );
        registry.register(
            "build",
            "The program that runs",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(Process));
        if let Some(runtime) = Runtime::current() {
            registry.register_collector(Box::new(runtime));
        }
        Arc::new(metrics)
    }

    /// Counts a request from now on, until it is finished or dropped.
    pub(crate) fn begin_http(self: &Arc<Self>, method: &'static str, route: &str) -> Measured {
        self.http_active.inc();
        Measured {
            metrics: Arc::clone(self),
            method,
            route: route.to_owned(),
            status: ABANDONED,
            started: Instant::now(),
        }
    }

    /// Counts a subscription from now on, until it is dropped.
    pub(crate) fn begin_subscription(&self, transport: &'static str) -> GaugeGuard {
        let gauge = self.subscriptions.get_or_create(&TransportLabels { transport }).clone();
        gauge.inc();
        GaugeGuard(gauge)
    }

    /// Counts a connection that was ended because of what its client did, or did not do.
    pub(crate) fn connection_cut(&self, reason: &'static str) {
        self.connections_cut.get_or_create(&CutLabels { reason }).inc();
    }

    /// Counts a connection that was not let in, or not at once.
    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&CutLabels { reason }).inc();
    }

    /// Counts a GraphQL request that is refused before it is read.
    pub(crate) fn shed(&self, is_get: bool, took: Duration) {
        self.shed.count.inc();
        self.shed.errors.inc();
        self.shed.operation_seconds.observe(took.as_secs_f64(), None, None);
        self.shed.http_seconds[usize::from(is_get)].observe(took.as_secs_f64());
    }

    /// Counts one GraphQL request; its trace, where that is kept, is an example of how long one takes.
    pub(crate) fn operation(
        &self,
        kind: Option<OperationKind>,
        outcome: Outcome,
        (took, trace_id): (Duration, Option<&str>),
        codes: &[&'static str],
    ) {
        let labels = OperationLabels { graphql_operation_type: kind_name(kind), outcome };
        let example = trace_id.map(|trace_id| TraceLabels { trace_id: trace_id.to_owned() });
        let at = example.is_some().then(|| SystemTime::from(entities::clock::now()));
        self.operation_seconds.get_or_create(&labels).observe(took.as_secs_f64(), example, at);
        for code in codes {
            self.errors.get_or_create(&ErrorLabels { code }).inc();
        }
    }
}

/// The name of an operation's type in metrics, logs and spans.
pub(crate) fn kind_name(kind: Option<OperationKind>) -> &'static str {
    match kind {
        Some(OperationKind::Query) => "query",
        Some(OperationKind::Mutation) => "mutation",
        Some(OperationKind::Subscription) => "subscription",
        None => "unknown",
    }
}

/// Something that goes on, counted while it does.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request that is being counted. One that is dropped without an answer counts as abandoned.
#[derive(Debug)]
pub(crate) struct Measured {
    metrics: Arc<Metrics>,
    method: &'static str,
    route: String,
    status: u16,
    started: Instant,
}

impl Measured {
    /// The request was answered.
    pub(crate) fn finish(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.metrics.http_active.dec();
        let labels = HttpLabels {
            http_request_method: self.method,
            http_route: std::mem::take(&mut self.route),
            http_response_status_code: self.status,
        };
        self.metrics.http_seconds.get_or_create(&labels).observe(self.started.elapsed().as_secs_f64());
    }
}
