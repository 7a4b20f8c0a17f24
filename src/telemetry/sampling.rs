//! Which traces are kept (`telemetry.sampler`), decided before the first span of a trace is made: a request whose
//! trace is not kept makes no span and pays next to nothing. Not here: where spans are made, and how they are sent
//! (`otlp`).

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use opentelemetry::{
    Context, TraceId,
    trace::{SpanKind, TraceContextExt as _},
};
use opentelemetry_sdk::trace::{
    self, IdGenerator as _, RandomIdGenerator, SamplingDecision, ShouldSample as _,
};
use tracing::{Level, Metadata, Span, Subscriber, subscriber::Interest};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{DynFilterFn, LevelFilter},
    layer,
    registry::LookupSpan,
};

use super::SPANS;
use crate::config::{
    TelemetryConfig,
    setting::{Ratio, Sampler},
};

/// Spans of what nobody asks for at that moment: each begins a trace of its own.
const BY_THEMSELVES: [&str; 2] = ["event", "webhook"];

thread_local! {
    /// Where the span begins that is being made; `None`: below the current one, if there is one.
    static BEGINS: Cell<Option<Beginning>> = const { Cell::new(None) };
}

/// Where a trace begins that this process takes part in.
#[derive(Clone, Copy)]
enum Beginning {
    /// Here.
    Here,
    /// Below a span of another process, which has decided for itself.
    Below { trace: TraceId, is_kept: bool },
}

/// Makes the first span of this process in a trace: below `caller`, or where there is none in a trace of its own. A
/// span without effect, if the trace is not kept.
pub(crate) fn begin(caller: Option<Context>, make: impl FnOnce() -> Span) -> Span {
    let place = caller.as_ref().map(|caller| caller.span().span_context().clone());
    let begins = place.filter(opentelemetry::trace::SpanContext::is_valid).map_or(Beginning::Here, |place| {
        Beginning::Below { trace: place.trace_id(), is_kept: place.is_sampled() }
    });
    BEGINS.set(Some(begins));
    let span = make();
    BEGINS.set(None);
    if let Some(caller) = caller
        && !span.is_disabled()
    {
        // Fails only without a collector, when there is no trace to join.
        let _ = span.set_parent(caller);
    }
    span
}

/// Decides of each span whether its trace is kept. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct KeptTraces(Arc<Decider>);

#[derive(Debug)]
struct Decider {
    sampling: Sampling,
    /// The log wants spans, too: they are made whether their trace is kept or not.
    logs_spans: AtomicBool,
}

impl KeptTraces {
    pub(super) fn of(config: &TelemetryConfig, filter: &EnvFilter) -> Self {
        let decider = Decider { sampling: Sampling::of(config), logs_spans: AtomicBool::new(false) };
        let kept = Self(Arc::new(decider));
        kept.follow(filter);
        kept
    }

    /// The log has this filter from now on.
    pub(super) fn follow(&self, filter: &EnvFilter) {
        let is_fine = filter.max_level_hint().is_none_or(|level| level >= LevelFilter::DEBUG);
        self.0.logs_spans.store(is_fine, Ordering::Relaxed);
    }

    /// Lets the spans of traces through that are kept: to the layer that sends them. Where the log has no spans, it
    /// was asked already whether they are made at all.
    pub(super) fn filter<S>(&self) -> impl layer::Filter<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let Self(decider) = self.clone();
        DynFilterFn::new(move |metadata, cx: &layer::Context<'_, S>| {
            is_ours(metadata) && (!decider.logs_spans() || decider.keeps(metadata, cx))
        })
        .with_callsite_filter(interest_in)
        .with_max_level_hint(Level::DEBUG)
    }
}

/// In front of all layers: what no layer wants is not made. A filter of one layer does not spare that, since the
/// registry makes each span that some callsite may want.
impl<S> Layer<S> for KeptTraces
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_ours(metadata) { Interest::sometimes() } else { Interest::always() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, cx: layer::Context<'_, S>) -> bool {
        !is_ours(metadata) || self.0.logs_spans() || self.0.keeps(metadata, &cx)
    }

    /// The most that one layer wants counts, and this one wants nothing.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::OFF)
    }
}

impl Decider {
    fn logs_spans(&self) -> bool {
        self.logs_spans.load(Ordering::Relaxed)
    }

    fn keeps<S>(&self, metadata: &Metadata<'_>, cx: &layer::Context<'_, S>) -> bool
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        match BEGINS.get() {
            Some(begins) => self.sampling.keeps(begins),
            None if cx.lookup_current().is_some() => true,
            None => BY_THEMSELVES.contains(&metadata.name()) && self.sampling.keeps(Beginning::Here),
        }
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == SPANS
}

fn interest_in(metadata: &'static Metadata<'static>) -> Interest {
    if is_ours(metadata) { Interest::sometimes() } else { Interest::never() }
}

/// The rule by which traces are kept.
#[derive(Debug)]
struct Sampling {
    sampler: Sampler,
    part: trace::Sampler,
}

impl Sampling {
    fn of(config: &TelemetryConfig) -> Self {
        let Ratio(part) = config.sampler_argument;
        Self { sampler: config.sampler, part: trace::Sampler::TraceIdRatioBased(part) }
    }

    fn keeps(&self, begins: Beginning) -> bool {
        match (self.sampler, begins) {
            (Sampler::AlwaysOn, _) | (Sampler::ParentOrOn, Beginning::Here) => true,
            (Sampler::AlwaysOff, _) | (Sampler::ParentOrOff, Beginning::Here) => false,
            (
                Sampler::ParentOrOn | Sampler::ParentOrOff | Sampler::ParentOrRatio,
                Beginning::Below { is_kept, .. },
            ) => is_kept,
            // All processes that a trace goes through decide in the same way.
            (Sampler::Ratio, Beginning::Below { trace, .. }) => self.is_of_part(trace),
            (Sampler::Ratio | Sampler::ParentOrRatio, Beginning::Here) => {
                self.is_of_part(RandomIdGenerator::default().new_trace_id())
            }
        }
    }

    fn is_of_part(&self, trace: TraceId) -> bool {
        let sampled = self.part.should_sample(None, trace, "", &SpanKind::Internal, &[], &[]);
        sampled.decision == SamplingDecision::RecordAndSample
    }
}
