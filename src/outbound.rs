//! Posts to other services: the callbacks of subscriptions, what a router is told to forget, usage reports. An
//! address is never followed to another one, an answer's body is not read, and each post has its time. It carries the
//! trace that it belongs to. Not here: which addresses are allowed, and what is tried again.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry::{Context, trace::SpanContext};
use tracing::{Instrument as _, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::telemetry::{self, SPANS};

/// How long one post may take.
const POST_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection that is not used is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Posts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outbound(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// There was no answer. What the network said is for the log of who asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Not reached, or the connection broke.
    #[error("the answer failed")]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// It took too long.
    #[error("the answer did not come in time")]
    Timeout,
}

impl Outbound {
    pub(crate) fn new() -> Self {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(POST_WITHIN));
        http.enforce_http(false);
        let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(https.wrap_connector(http));
        Self(client)
    }

    /// Posts JSON; says how it was answered. `what` names the span.
    pub(crate) async fn post(
        &self,
        what: &'static str,
        trace: &SpanContext,
        to: &Uri,
        headers: HeaderMap,
        json: Bytes,
    ) -> Result<(StatusCode, HeaderMap), Failed> {
        let parent = telemetry::context_of(trace);
        let span = telemetry::begin(Some(parent.clone()), || {
            tracing::debug_span!(
                target: SPANS, "outbound", otel.name = what, otel.kind = "client",
                http.request.method = "POST", http.response.status_code = Empty, otel.status_code = Empty,
            )
        });
        let context = if span.is_disabled() { parent } else { span.context() };
        let posting = self.send(to, headers, json, &context);
        let answered = tokio::time::timeout(POST_WITHIN, posting.instrument(span.clone())).await;
        let answered = answered.unwrap_or(Err(Failed::Timeout));
        match &answered {
            Ok((status, _)) => span.record("http.response.status_code", status.as_u16()),
            Err(_) => span.record("otel.status_code", "ERROR"),
        };
        answered
    }

    async fn send(
        &self,
        to: &Uri,
        headers: HeaderMap,
        json: Bytes,
        context: &Context,
    ) -> Result<(StatusCode, HeaderMap), Failed> {
        let mut request = Request::new(Full::new(json));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = to.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        telemetry::inject(context, request.headers_mut());
        let (parts, _) = self.0.request(request).await?.into_parts();
        Ok((parts.status, parts.headers))
    }
}
