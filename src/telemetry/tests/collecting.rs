//! What a collector gets, over HTTP and as calls of gRPC. Not here: which spans there are.

use std::convert::Infallible;

use axum::http::Response;
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest, metrics::v1::metric::Data,
};

use super::*;
use crate::config::setting::{OtlpHeaders, OtlpProtocol, Setting as _};

/// The messages that a collector got.
type Pushed = Arc<Mutex<Vec<ExportMetricsServiceRequest>>>;

#[tokio::test]
async fn metrics_are_pushed_over_http_as_often_as_is_configured_and_at_the_end() {
    let (endpoint, pushed) = metrics_collector().await;
    pushes_metrics(OtlpProtocol::HttpProtobuf, endpoint, pushed).await;
}

#[tokio::test]
async fn metrics_are_pushed_by_grpc_as_often_as_is_configured_and_at_the_end() {
    let collector = GrpcCollector::start().await;
    pushes_metrics(OtlpProtocol::Grpc, collector.endpoint, collector.metrics).await;
}

async fn pushes_metrics(protocol: OtlpProtocol, endpoint: String, pushed: Pushed) {
    let _alone = alone().await;
    let app = app_with(|config| {
        config.telemetry.otlp_endpoint = Some(endpoint.into());
        config.telemetry.otlp_protocol = protocol;
        config.telemetry.otlp_metrics_interval = Some(Duration::from_millis(50));
        config.telemetry.otlp_headers = OtlpHeaders::parse("authorization=Bearer%20s3cret").expect("headers");
        config.http.drain_delay = Duration::ZERO;
        config.http.metrics_address = MetricsAddress::Main;
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(crate::serve(app.clone(), listener, async {
        let _ = stopped.await;
    }));
    let counted = |wanted: u64| {
        let bodies = pushed.lock().expect("not poisoned");
        bodies.iter().any(|body| operations_in(body) == wanted)
    };
    let until = async |wanted: u64| {
        for _ in 0..600 {
            if counted(wanted) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("{wanted} operations were not told: {:?}", pushed.lock().expect("not poisoned").last());
    };
    let routes = crate::router(app);
    let ask = async || routes.clone().oneshot(request("{ __typename }", None)).await.expect("answered");
    ask().await;
    until(1).await;
    ask().await;
    ask().await;
    until(3).await;
    let before = pushed.lock().expect("not poisoned").len();
    stop.send(()).expect("it runs");
    serving.await.expect("no panic").expect("it ends");
    assert!(pushed.lock().expect("not poisoned").len() > before, "once more at the end");
}

/// How many queries a message tells of.
fn operations_in(message: &ExportMetricsServiceRequest) -> u64 {
    let scopes = message.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let mut metrics = scopes.flat_map(|scope| &scope.metrics);
    let durations = metrics.find(|metric| metric.name == "graphql_server_operation_duration_seconds");
    match durations.and_then(|metric| metric.data.as_ref()) {
        Some(Data::Histogram(histogram)) => histogram.data_points.iter().map(|point| point.count).sum(),
        _ => 0,
    }
}

fn has_token(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == "Bearer s3cret")
}

/// A collector that keeps what it gets of metrics over HTTP from whom has the token.
async fn metrics_collector() -> (String, Pushed) {
    let messages = Pushed::default();
    let kept = Arc::clone(&messages);
    let receive = move |headers: HeaderMap, body: Bytes| {
        let is_known = has_token(&headers);
        if is_known {
            let message = ExportMetricsServiceRequest::decode(body).expect("protobuf");
            kept.lock().expect("not poisoned").push(message);
        }
        async move { if is_known { axum::http::StatusCode::OK } else { axum::http::StatusCode::UNAUTHORIZED } }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let routes = Router::new().route("/v1/metrics", post(receive));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (format!("http://{address}"), messages)
}

/// A collector that keeps what it gets by gRPC from whom has the token.
#[derive(Clone)]
struct GrpcCollector {
    endpoint: String,
    metrics: Pushed,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl GrpcCollector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (metrics, spans) = (Pushed::default(), Arc::default());
        let collector = Self { endpoint: format!("http://{address}"), metrics, spans };
        let accepting = collector.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let collector = accepting.clone();
                let service = tower::service_fn(move |request| collector.clone().answer(request));
                let connection = async move {
                    let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
                    let service = TowerToHyperService::new(service);
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                };
                tokio::spawn(connection);
            }
        });
        collector
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        assert_eq!(parts.headers["content-type"], "application/grpc");
        assert_eq!(parts.headers["te"], "trailers");
        let length = body[1..5].try_into().map(u32::from_be_bytes).expect("four bytes");
        assert_eq!((body[0], length as usize), (0, body.len() - 5));
        let message = body.slice(5..);
        let status = match parts.uri.path() {
            _ if !has_token(&parts.headers) => "16",
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
                let message = ExportMetricsServiceRequest::decode(message).expect("protobuf");
                self.metrics.lock().expect("not poisoned").push(message);
                "0"
            }
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
                let message = ExportTraceServiceRequest::decode(message).expect("protobuf");
                let scopes = message.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
                self.spans.lock().expect("not poisoned").extend(scopes.flat_map(|scope| scope.spans));
                "0"
            }
            _ => "12",
        };
        let status = HeaderValue::from_static(status);
        let trailers = [(HeaderName::from_static("grpc-status"), status)].into_iter().collect();
        // An empty message, and the status behind it.
        let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed();
        let response = Response::builder().header("content-type", "application/grpc").body(body);
        Ok(response.expect("a response"))
    }
}

/// What a collector gets of a request; what the exporter says of it.
async fn traced(config: TelemetryConfig) {
    let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(Sink::default())).expect("built");
    let guard = tracing::dispatcher::set_default(&dispatch);
    let answered = crate::router(app().await).oneshot(request("{ __typename }", None)).await;
    answered.expect("answered");
    drop(guard);
    telemetry.stop().await;
}

#[tokio::test]
async fn spans_are_sent_by_grpc() {
    let _alone = alone().await;
    let collector = GrpcCollector::start().await;
    let config = |token: &str| TelemetryConfig {
        otlp_endpoint: Some(collector.endpoint.clone().into()),
        otlp_protocol: OtlpProtocol::Grpc,
        otlp_headers: OtlpHeaders::parse(token).expect("headers"),
        ..Config::default().telemetry
    };
    traced(config("authorization=Bearer%20other")).await;
    assert!(collector.spans.lock().expect("not poisoned").is_empty());
    traced(config("authorization=Bearer%20s3cret")).await;
    let spans = collector.spans.lock().expect("not poisoned").clone();
    assert!(spans.iter().any(|span| span.name == "POST /graphql"), "{spans:?}");
}

#[tokio::test]
async fn what_a_collector_answers_by_grpc_is_told() {
    let collector = GrpcCollector::start().await;
    let config = TelemetryConfig {
        otlp_endpoint: Some(collector.endpoint.clone().into()),
        otlp_protocol: OtlpProtocol::Grpc,
        ..Config::default().telemetry
    };
    let connection = super::super::collector::Collector::new(&config).expect("no certificate");
    let send = async |path: &str, token: Option<&'static str>| {
        let to = format!("{}{path}", collector.endpoint).parse().expect("an address");
        let headers =
            token.map(|token| (HeaderName::from_static("authorization"), HeaderValue::from_static(token)));
        let sent = connection.send(&to, &headers.into_iter().collect(), Bytes::new()).await;
        sent.map_err(|error| error.to_string())
    };
    assert_eq!(send("/v1/metrics", Some("Bearer s3cret")).await, Ok(()));
    assert_eq!(send("/v1/metrics", None).await, Err("the collector answers 16".to_owned()));
    assert_eq!(send("/v1/logs", None).await, Err("no method of gRPC takes this".to_owned()));
}

#[test]
fn a_file_without_certificates_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = folder.path().join("key.pem");
    std::fs::write(&wrong, "no certificate").expect("written");
    for (file, why) in [(wrong, "has no certificate"), (folder.path().join("nowhere.pem"), "nowhere.pem")] {
        let config = TelemetryConfig { otlp_certificate: Some(file), ..Config::default().telemetry };
        let refused = super::super::collector::Collector::new(&config).expect_err("it is refused");
        assert!(refused.contains(why), "{refused}");
    }
}
