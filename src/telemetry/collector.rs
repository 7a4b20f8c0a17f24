//! The connection to an OpenTelemetry collector, for traces and metrics alike: OTLP in protobuf, over HTTP/1.1 or as
//! calls of gRPC (<https://opentelemetry.io/docs/specs/otlp/>), with TLS where the address says `https`. Not here:
//! what is sent.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
    uri::PathAndQuery,
};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{HttpClient, HttpError};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::config::{TelemetryConfig, setting::OtlpProtocol};

/// How long one message may take to send.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// What is read of an answer, bytes.
const MAX_ANSWER: usize = 64 << 10;
/// A message of gRPC begins with whether it is compressed, and with its length.
const PREFIX_BYTES: usize = 5;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What is sent, with its path over HTTP and its method of gRPC.
const SIGNALS: [(&str, &str); 2] = [
    ("/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
    ("/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
];

/// Sends to a collector. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    protocol: OtlpProtocol,
}

impl Collector {
    /// Fails with what is wrong with the file of authorities.
    pub(super) fn new(config: &TelemetryConfig) -> Result<Self, String> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(SEND_WITHIN));
        http.enforce_http(false);
        let https = HttpsConnectorBuilder::new();
        let https = match &config.otlp_certificate {
            Some(file) => https.with_tls_config(trusting(file)?),
            None => https.with_webpki_roots(),
        };
        let https = https.https_or_http();
        let is_grpc = config.otlp_protocol == OtlpProtocol::Grpc;
        let https = if is_grpc {
            https.enable_http2().wrap_connector(http)
        } else {
            https.enable_http1().wrap_connector(http)
        };
        let client = Client::builder(TokioExecutor::new()).http2_only(is_grpc).build(https);
        Ok(Self { client, protocol: config.otlp_protocol })
    }

    /// Sends a message of protobuf; fails unless it was taken.
    pub(super) async fn send(&self, to: &Uri, headers: &HeaderMap, message: Bytes) -> Result<(), HttpError> {
        let mut request = Request::post(to.clone()).body(message)?;
        *request.headers_mut() = headers.clone();
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(header::CONTENT_TYPE, protobuf);
        match self.send_bytes(request).await?.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the collector answers {status}").into()),
        }
    }

    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, message) = request.into_parts();
        let request = match self.protocol {
            OtlpProtocol::HttpProtobuf => Request::from_parts(parts, message),
            OtlpProtocol::Grpc => call(Request::from_parts(parts, message))?,
        };
        let (parts, body) = self.client.request(request.map(Full::new)).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        if self.protocol == OtlpProtocol::HttpProtobuf {
            return Ok(Response::from_parts(parts, body));
        }
        if parts.status != StatusCode::OK {
            return Ok(Response::from_parts(parts, Bytes::new()));
        }
        // What has no message has its status among the headers.
        check(trailers.as_ref().unwrap_or(&parts.headers))?;
        Ok(Response::new(body.slice(PREFIX_BYTES.min(body.len())..)))
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        tokio::time::timeout(SEND_WITHIN, self.ask(request)).await?
    }
}

/// What trusts the authorities of a file only.
fn trusting(file: &Path) -> Result<ClientConfig, String> {
    let place = file.display();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| format!("{place}: {error}"))?;
    let mut authorities = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("{place}: {error}"))?;
        authorities.add(certificate).map_err(|error| format!("{place}: {error}"))?;
    }
    if authorities.is_empty() {
        return Err(format!("{place} has no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(authorities).with_no_client_auth())
}

/// A message as a call of gRPC (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn call(request: Request<Bytes>) -> Result<Request<Bytes>, HttpError> {
    let (mut parts, message) = request.into_parts();
    let path = parts.uri.path();
    let method = SIGNALS.iter().find(|(ending, _)| path.ends_with(ending)).map(|(_, method)| *method);
    let method = method.ok_or("no method of gRPC takes this")?;
    let mut address = parts.uri.into_parts();
    address.path_and_query = Some(PathAndQuery::from_static(method));
    parts.uri = Uri::from_parts(address)?;
    parts.version = Version::HTTP_2;
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    parts.headers.remove(header::CONTENT_ENCODING);
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.remaining())?);
    framed.put(message);
    Ok(Request::from_parts(parts, framed.freeze()))
}

/// Whether a call has succeeded.
fn check(told: &HeaderMap) -> Result<(), HttpError> {
    let text = |name| told.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match text(&GRPC_STATUS) {
        Some("0") => Ok(()),
        status => {
            let (status, message) = (status.unwrap_or("no status"), text(&GRPC_MESSAGE).unwrap_or_default());
            Err(format!("the collector answers {status} {message}").trim_end().into())
        }
    }
}

/// The address of a signal: `traces` or `metrics`.
pub(super) fn address(config: &TelemetryConfig, signal: &str) -> Option<String> {
    let endpoint = config.otlp_endpoint.as_ref()?;
    Some(format!("{}/v1/{signal}", endpoint.expose().trim_end_matches('/')))
}
