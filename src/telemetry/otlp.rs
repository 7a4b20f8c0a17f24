//! Spans to a collector: batched on a thread of their own. A collector that is slow or away
//! costs nothing but its spans: the queue is bounded and drops. Not here: which spans there are.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{self, BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter},
};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use tokio::runtime::Handle;

use super::{
    Error,
    collector::{self, Collector},
};
use crate::config::TelemetryConfig;

/// Spans that wait at most; more are dropped.
const QUEUED_SPANS: usize = 4096;

/// Links of a span at most: as many as a batch has requests (`engine::batch`).
const MAX_LINKS: u32 = 1_000;

/// The provider, where a collector is configured.
pub(super) fn provider(config: &TelemetryConfig) -> Result<Option<SdkTracerProvider>, Error> {
    let (Some(endpoint), Some(address)) = (&config.otlp_endpoint, collector::address(config, "traces"))
    else {
        return Ok(None);
    };
    // It may say the address again, with the account in it.
    let refused = |error: opentelemetry_otlp::ExporterBuildError| {
        Error::Exporter(error.to_string().replace(endpoint.expose(), &endpoint.to_string()))
    };
    let collector = Collector::new(config).map_err(Error::Certificate)?;
    // The exporter decodes values.
    let headers = config.otlp_headers.expose().iter().map(|(name, value)| {
        let value = percent_encode(value.as_bytes(), NON_ALPHANUMERIC).to_string();
        (name.as_str().to_owned(), value)
    });
    let headers = headers.collect();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(address)
        .with_http_client(collector)
        .with_headers(headers)
        .build()
        .map_err(refused)?;
    let exporter = OnRuntime { exporter: Arc::new(exporter), runtime: Handle::current() };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUED_SPANS)
        .with_scheduled_delay(Duration::from_secs(1))
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(resource(config))
        .with_max_links_per_span(MAX_LINKS);
    // Spans are made only of traces that are kept (`sampling`).
    Ok(Some(provider.with_sampler(trace::Sampler::AlwaysOn).build()))
}

/// What this process is called in traces and metrics, with what `OTEL_RESOURCE_ATTRIBUTES` adds.
pub(super) fn resource(config: &TelemetryConfig) -> Resource {
    /// Tells the metrics of this process from those of others.
    static INSTANCE: LazyLock<String> = LazyLock::new(|| entities::id::new().to_string());
    let attributes = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", INSTANCE.clone()),
    ];
    Resource::builder().with_service_name(config.service_name.clone()).with_attributes(attributes).build()
}

/// The processor's thread has no runtime, which the HTTP client needs: batches are sent from ours.
#[derive(Debug)]
struct OnRuntime {
    exporter: Arc<opentelemetry_otlp::SpanExporter>,
    runtime: Handle,
}

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sending = self.runtime.spawn(async move { exporter.export(batch).await });
        sending.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())))
    }

    fn set_resource(&mut self, resource: &Resource) {
        let exporter = Arc::get_mut(&mut self.exporter);
        exporter.expect("the resource is set before the first batch").set_resource(resource);
    }
}
