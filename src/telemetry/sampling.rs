//! Which traces are kept (`telemetry.sampler`), decided before the first span of a trace is made: a request whose
//! trace is not kept makes no span and pays next to nothing. Not here: where spans are made, and how they are sent
//! (`otlp`).

use std::cell::Cell;

use opentelemetry::{
    Context, TraceId,
    trace::{SpanKind, TraceContextExt as _},
};
use opentelemetry_sdk::trace::{
    self, IdGenerator as _, RandomIdGenerator, SamplingDecision, ShouldSample as _,
};
use tracing::{Level, Metadata, Span, Subscriber, subscriber::Interest};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{filter::DynFilterFn, layer, registry::LookupSpan};

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

/// Lets the spans of traces through that are kept.
pub(super) fn filter<S>(config: &TelemetryConfig) -> impl layer::Filter<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let sampling = Sampling::of(config);
    let is_ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == SPANS;
    DynFilterFn::new(move |metadata, cx: &layer::Context<'_, S>| {
        is_ours(metadata)
            && match BEGINS.get() {
                Some(begins) => sampling.keeps(begins),
                None if cx.lookup_current().is_some() => true,
                None => BY_THEMSELVES.contains(&metadata.name()) && sampling.keeps(Beginning::Here),
            }
    })
    .with_callsite_filter(
        move |metadata| if is_ours(metadata) { Interest::sometimes() } else { Interest::never() },
    )
    .with_max_level_hint(Level::DEBUG)
}

/// The rule by which traces are kept.
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
