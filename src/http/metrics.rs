//! `GET /metrics` in the text format of Prometheus, and the listener that it has to itself. Not here: what is counted
//! (`telemetry::metrics` and the crates below).

use std::{io, net::SocketAddr, time::Instant};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse as _, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::Mutex};

use crate::{App, config::address::MetricsPlace};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens for the metrics alone, where they are not on the main port. The usual address may belong to
/// another process of this machine: then there are no metrics, and the log says what to do; an address that
/// was asked for must be free.
pub(super) async fn listener(app: &App) -> io::Result<Option<TcpListener>> {
    let (address, is_usual) = match app.http.metrics_address.place(app.development) {
        MetricsPlace::Main => return Ok(None),
        MetricsPlace::Asked(address) => (address, false),
        MetricsPlace::Usual(address) => (address, true),
    };
    match TcpListener::bind(address).await {
        Ok(listener) => {
            let metrics_address = listener.local_addr().unwrap_or(address);
            tracing::info!(%metrics_address, "serving metrics");
            Ok(Some(listener))
        }
        Err(error) if is_usual => {
            not_served(address, &error);
            Ok(None)
        }
        Err(error) => {
            let why = format!("http.metrics_address cannot be listened on: {error}");
            Err(io::Error::new(error.kind(), why))
        }
    }
}

fn not_served(metrics_address: SocketAddr, error: &io::Error) {
    tracing::warn!(
        %metrics_address,
        %error,
        "/metrics is not served: its usual address cannot be listened on. Set http.metrics_address \
         (XP_HTTP_METRICS_ADDRESS) to another one, one for each process, or to `main` for the main port"
    );
}

/// The routes of the metrics' own listener, with the same outermost layer as all others.
pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(super::no_such_path)
        .method_not_allowed_fallback(super::no_such_method)
        .layer(from_fn_with_state(app.clone(), super::edge))
        .with_state(app)
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    match app.exposition.text().await {
        Some(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The metrics as text. To write them takes milliseconds of a thread, so that is done once for all who have
/// asked before it begins: many scrapes at once do not keep others waiting.
#[derive(Debug)]
pub(crate) struct Exposition {
    registry: Registry,
    /// What was written last, and when that began.
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Exposition {
    pub(crate) fn of(registry: Registry) -> Self {
        Self { registry, last: Mutex::default() }
    }

    /// As it is at this moment or later; `None` if it cannot be written.
    pub(crate) async fn text(&self) -> Option<Bytes> {
        let asked = Instant::now();
        // Whoever else is waiting for the thread asks before it is written.
        tokio::task::yield_now().await;
        let mut last = self.last.lock().await;
        if let Some((_, text)) = last.as_ref().filter(|(began, _)| *began > asked) {
            return Some(text.clone());
        }
        let began = Instant::now();
        let mut text = String::with_capacity(16 << 10);
        prometheus_client::encoding::text::encode(&mut text, &self.registry).ok()?;
        let text = Bytes::from(text);
        *last = Some((began, text.clone()));
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use futures_util::future::join_all;
    use prometheus_client::{
        collector::Collector,
        encoding::{DescriptorEncoder, EncodeMetric as _},
        metrics::counter::{ConstCounter, Counter},
    };

    use super::*;

    /// Counts how often the metrics are written.
    #[derive(Debug, Default)]
    struct Writes(AtomicU64);

    impl Collector for Writes {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            let writes = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            let counter = ConstCounter::new(writes);
            let metric = encoder.encode_descriptor("writes", "Times", None, counter.metric_type())?;
            counter.encode(metric)
        }
    }

    #[tokio::test]
    async fn the_metrics_are_written_once_for_all_who_ask_at_once() {
        let (mut registry, asked) = (Registry::default(), Counter::<u64>::default());
        registry.register_collector(Box::new(Writes::default()));
        registry.register("asked", "Times", asked.clone());
        let exposition = Exposition::of(registry);
        let texts = join_all((0..100).map(|_| exposition.text())).await;
        for text in texts {
            let text = String::from_utf8(text.expect("it is written").to_vec()).expect("text");
            assert!(text.contains("writes_total 1\n"), "{text}");
        }
        asked.inc();
        let text = String::from_utf8(exposition.text().await.expect("it is written").to_vec()).expect("text");
        assert!(text.contains("writes_total 2\n") && text.contains("asked_total 1\n"), "{text}");
    }
}
