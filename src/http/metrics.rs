//! `GET /metrics` in the text format of Prometheus, and the listener that it has to itself. Not here: what is counted
//! (`telemetry::metrics` and the crates below).

use std::{io, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse as _, Response},
    routing::get,
};

use tokio::net::TcpListener;

use crate::{App, config::address::MetricsPlace};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens for the metrics alone, where they are not on the main port. The usual address may belong to another process of
/// this machine: then there are no metrics, and the log says what to do; an address that was asked for must be free.
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
    let mut text = String::with_capacity(16 << 10);
    match prometheus_client::encoding::text::encode(&mut text, &app.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
