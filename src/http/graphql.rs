//! GraphQL over HTTP: `POST /graphql` and `GET /graphql?query=…`. Reads a request in the order of what checks cost,
//! hands it to the graph, answers in the media type that the caller prefers, and writes the one log line. Knows no
//! more of a document than the front room's gate says about it.

use std::{sync::Arc, time::Instant};

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use opentelemetry::trace::TraceContextExt as _;
use schema::{Caller, OperationKind, Reply, Viewer, gate};
use serde_json::{Map, Value, value::RawValue};
use tracing::{Instrument as _, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{refusal::Refusal, request_id, server::Peer};
use crate::{
    App, auth,
    telemetry::{
        self, OPERATIONS, SPANS,
        metrics::{Outcome, kind_name},
    },
};

const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";
const JSON: &str = "application/json";

/// The media types that answers come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    /// `application/graphql-response+json`: the status tells whether the request ran.
    Graphql,
    /// `application/json`: 200 for every well-formed request.
    Json,
}

/// A request that may go to the graph.
pub(super) struct Asked {
    pub(super) viewer: Viewer,
    pub(super) request: schema::Request,
}

const NOT_ACCEPTABLE: Refusal = Refusal::new(
    StatusCode::NOT_ACCEPTABLE,
    "BAD_USER_INPUT",
    "The answer comes as application/graphql-response+json or application/json; the Accept header takes neither.",
);
const UNAUTHENTICATED: Refusal =
    Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "The access token is not valid.");
const CSRF: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "CSRF_PREVENTION",
    "A GET needs a header that a web page cannot send by itself: apollo-require-preflight, x-apollo-operation-name, or \
     content-type: application/json.",
);
const MEDIA_TYPE: Refusal = Refusal::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "BAD_USER_INPUT",
    "The body must be sent as content-type: application/json, in UTF-8.",
);
/// What a caller has written, to be read on whatever node answers next.
const CACHE_TOKEN: HeaderName = HeaderName::from_static("x-cache-token");
const TOO_LARGE: Refusal =
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", "The request is too large.");
const BODY_TIMEOUT: Refusal =
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", "The request's body did not arrive in time.");
const BODY_BROKEN: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, "BAD_USER_INPUT", "The request's body broke off.");
const NO_JSON: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, "BAD_USER_INPUT", "The body is not valid JSON.");
const NO_REQUEST: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "A GraphQL request is one JSON object: query (text), variables (object), operationName (text), extensions (object).",
);
const NO_QUERY: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, "BAD_USER_INPUT", "The request has no query.");
const ONLY_QUERIES: Refusal =
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "BAD_USER_INPUT", "GET runs queries only; use POST.");
const METHODS: Refusal =
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "BAD_USER_INPUT", "GraphQL takes POST and GET.");
pub(super) const TIMEOUT: Refusal =
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", "The request took too long and was stopped.");

/// `POST /graphql`.
pub(super) async fn post(State(app): State<App>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = read_post(&app, &parts, body).await;
    answer(&app, &parts.headers, asked).await
}

/// `GET /graphql?query=…&variables=…&operationName=…`.
pub(super) async fn get(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let asked = read_get(&app, &parts, false);
    answer(&app, &parts.headers, asked).await
}

/// Any other method.
pub(super) async fn other_method(headers: HeaderMap) -> Response {
    with_allow(METHODS.into_response(request_id(&headers)), "GET, POST")
}

pub(super) async fn read_post(app: &App, parts: &Parts, body: Body) -> Result<Asked, Refusal> {
    if !is_json(&parts.headers) {
        return Err(MEDIA_TYPE);
    }
    let viewer = auth::viewer(&app.access, &parts.headers).map_err(|_| UNAUTHENTICATED)?;
    let limit = match viewer {
        Viewer::Anonymous => app.http.body_limit_anonymous.0,
        Viewer::User { .. } | Viewer::Service => app.http.body_limit_signed_in.0,
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(TOO_LARGE);
    }
    let reading = tokio::time::timeout(app.http.body_timeout, read_body(body, limit));
    let body = reading.await.map_err(|_| BODY_TIMEOUT)??;
    let mut request = read_request(&body)?;
    request.caller = caller(app, parts);
    Ok(Asked { viewer, request })
}

/// From where and with what the request was sent.
pub(super) fn caller(app: &App, parts: &Parts) -> Caller {
    let peer = parts.extensions.get::<Peer>();
    let address =
        peer.map(|Peer(peer)| auth::client_address(*peer, &parts.headers, &app.http.trusted_proxies));
    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Caller { address, user_agent: agent.map(Arc::from) }
}

async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BODY_BROKEN)?.into_data() else { continue };
        if whole.len() + parts.len() + data.len() > limit {
            return Err(TOO_LARGE);
        }
        // Nearly every body comes in one piece, which is used as it is.
        if whole.is_empty() && parts.is_empty() {
            whole = data;
        } else {
            parts.extend_from_slice(&std::mem::take(&mut whole));
            parts.extend_from_slice(&data);
        }
    }
    Ok(if parts.is_empty() { whole } else { parts.freeze() })
}

/// Reads the body. What serde says about it is not passed on: it may quote the body at length.
fn read_request(body: &[u8]) -> Result<schema::Request, Refusal> {
    // An array would be read as the fields in their order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(if serde_json::from_slice::<&RawValue>(body).is_ok() { NO_REQUEST } else { NO_JSON });
    }
    let request: schema::Request =
        serde_json::from_slice(body).map_err(|error| if error.is_data() { NO_REQUEST } else { NO_JSON })?;
    if request.query.is_empty() { Err(NO_QUERY) } else { Ok(request) }
}

pub(super) fn read_get(app: &App, parts: &Parts, may_stream: bool) -> Result<Asked, Refusal> {
    if !has_preflight_header(&parts.headers) {
        return Err(CSRF);
    }
    let viewer = auth::viewer(&app.access, &parts.headers).map_err(|_| UNAUTHENTICATED)?;
    let mut fields = Map::new();
    for (name, text) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
        let value = match name.as_ref() {
            "query" | "operationName" => Value::String(text.into_owned()),
            "variables" | "extensions" if text.is_empty() => Value::Null,
            "variables" | "extensions" => serde_json::from_str(&text).map_err(|_| NO_REQUEST)?,
            _ => continue,
        };
        if fields.insert(name.into_owned(), value).is_some() {
            return Err(NO_REQUEST);
        }
    }
    if fields.get("operationName").is_some_and(|name| name == "") {
        fields.remove("operationName");
    }
    let mut request: schema::Request =
        serde_json::from_value(Value::Object(fields)).map_err(|_| NO_REQUEST)?;
    request.caller = caller(app, parts);
    if request.query.is_empty() {
        return Err(NO_QUERY);
    }
    match kind_of(app, &request) {
        Some(OperationKind::Mutation) => Err(ONLY_QUERIES),
        Some(OperationKind::Subscription) if !may_stream => Err(ONLY_QUERIES),
        _ => Ok(Asked { viewer, request }),
    }
}

/// What kind of operation it is. A document that the gate does not let through runs nothing; the graph says what is
/// wrong with it.
pub(super) fn kind_of(app: &App, request: &schema::Request) -> Option<OperationKind> {
    let shape = gate::check(&request.query, &app.limits).ok()?;
    shape.operation(request.operation_name.as_deref()).map(|operation| operation.kind)
}

/// Apollo's rule: a header that makes a browser ask first, so that no foreign page can send the request unasked.
fn has_preflight_header(headers: &HeaderMap) -> bool {
    let given = |name: &str| headers.get(name).is_some_and(|value| !value.is_empty());
    given("apollo-require-preflight") || given("x-apollo-operation-name") || is_json(headers)
}

/// `application/json`, with no charset but UTF-8.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return false };
    if value == JSON {
        return true;
    }
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case(JSON)
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

impl Media {
    /// What the caller prefers of the two; `None` when it takes neither. Without a preference: JSON.
    fn accepted_by(headers: &HeaderMap) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        let mut asked = false;
        for value in headers.get_all(header::ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                    "" => continue,
                    GRAPHQL_RESPONSE => Some(Self::Graphql),
                    JSON | "application/*" | "*/*" => Some(Self::Json),
                    _ => None,
                };
                asked = true;
                let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse);
                let quality: f32 = quality.unwrap_or(0.0);
                if let Some(media) = media
                    && quality > best.map_or(0.0, |(best, _)| best)
                {
                    best = Some((quality, media));
                }
            }
        }
        if asked { best.map(|(_, media)| media) } else { Some(Self::Json) }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Graphql => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        }
    }
}

/// Runs what was asked, within the deadline; measures and logs it.
pub(super) async fn answer(app: &App, headers: &HeaderMap, asked: Result<Asked, Refusal>) -> Response {
    let started = Instant::now();
    let id = request_id(headers);
    let media = Media::accepted_by(headers);
    let asked = if media.is_none() { Err(NOT_ACCEPTABLE) } else { asked };
    let media = media.unwrap_or(Media::Json);
    let span = tracing::debug_span!(
        target: SPANS, "graphql", otel.name = "graphql", otel.status_code = Empty,
        graphql.operation.type = Empty, request_id = id,
    );
    let result = match asked {
        Ok(Asked { viewer, mut request }) => {
            id.clone_into(&mut request.request_id);
            let token = headers.get(CACHE_TOKEN).and_then(|token| token.to_str().ok());
            request.cache_token = token.map(ToOwned::to_owned);
            request.explain = app.development && headers.get("x-explain").is_some_and(|value| value == "1");
            let running = app.graph.execute(viewer, request).instrument(span.clone());
            tokio::time::timeout(app.http.request_timeout, running).await.map_err(|_| TIMEOUT)
        }
        Err(refusal) => Err(refusal),
    };
    match result {
        Ok(reply) => {
            let status = match media {
                Media::Graphql if !reply.executed => StatusCode::BAD_REQUEST,
                Media::Graphql | Media::Json => StatusCode::OK,
            };
            record(app, headers, &span, started, status, &Ran::answered(&reply));
            let headers = [(header::CONTENT_TYPE, media.content_type()), (header::CACHE_CONTROL, "no-store")];
            let token = reply.cache_token.and_then(|token| HeaderValue::from_str(&token).ok());
            let mut response = (status, headers, reply.body).into_response();
            if let Some(token) = token {
                response.headers_mut().insert(CACHE_TOKEN, token);
            }
            if let Some(seconds) = reply.retry_after_seconds {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
        Err(refusal) => {
            let outcome = if refusal == TIMEOUT { Outcome::Timeout } else { Outcome::Refused };
            let codes = [refusal.code];
            let ran = Ran { kind: None, outcome, statements: 0, codes: &codes };
            record(app, headers, &span, started, refusal.status, &ran);
            let only_queries = refusal == ONLY_QUERIES;
            let response = refusal.into_response_as(media.content_type(), id);
            if only_queries { with_allow(response, "POST") } else { response }
        }
    }
}

/// What is told about a request afterwards.
pub(super) struct Ran<'a> {
    kind: Option<OperationKind>,
    outcome: Outcome,
    statements: u32,
    codes: &'a [&'static str],
}

impl<'a> Ran<'a> {
    /// It got an answer.
    pub(super) fn answered(reply: &'a Reply) -> Self {
        let outcome = match (reply.executed, reply.codes.is_empty()) {
            (true, true) => Outcome::Ok,
            (true, false) => Outcome::Errors,
            (false, _) => Outcome::Refused,
        };
        Self { kind: reply.operation, outcome, statements: reply.statements, codes: &reply.codes }
    }

    /// Its answers come later.
    pub(super) fn begun(kind: OperationKind) -> Self {
        Self { kind: Some(kind), outcome: Outcome::Ok, statements: 0, codes: &[] }
    }

    /// It took too long.
    pub(super) fn timed_out() -> Self {
        Self { kind: None, outcome: Outcome::Timeout, statements: 0, codes: &["TIMEOUT"] }
    }
}

/// The metrics, the span's end and the one log line of a request.
pub(super) fn record(
    app: &App,
    headers: &HeaderMap,
    span: &Span,
    started: Instant,
    status: StatusCode,
    ran: &Ran<'_>,
) {
    let took = started.elapsed();
    app.metrics.operation(ran.kind, ran.outcome, took, ran.codes);
    let kind = kind_name(ran.kind);
    if !span.is_disabled() {
        // Named by its type only: names of operations are the caller's, and without end.
        span.context().span().update_name(kind);
        span.record("graphql.operation.type", kind);
        if ran.outcome != Outcome::Ok {
            span.record("otel.status_code", "ERROR");
        }
    }
    if !tracing::enabled!(target: OPERATIONS, tracing::Level::INFO) {
        return;
    }
    let own_trace = || (!span.is_disabled()).then(|| telemetry::trace_id(&span.context())).flatten();
    let callers_trace = || telemetry::remote_context(headers).as_ref().and_then(telemetry::trace_id);
    let trace_id = own_trace().or_else(callers_trace);
    let codes = (!ran.codes.is_empty()).then(|| ran.codes.join(","));
    tracing::info!(
        target: OPERATIONS, operation = kind, ms = took.as_micros() as f64 / 1000.0, statements = ran.statements,
        codes, status = status.as_u16(), request_id = request_id(headers), trace_id, "operation",
    );
}

fn with_allow(mut response: Response, methods: &'static str) -> Response {
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(accept: &str) -> Option<Media> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).expect("a header"));
        Media::accepted_by(&headers)
    }

    #[test]
    fn the_accept_header_chooses_the_media_type() {
        assert_eq!(Media::accepted_by(&HeaderMap::new()), Some(Media::Json));
        for (accept, media) in [
            ("application/graphql-response+json", Some(Media::Graphql)),
            (
                "application/graphql-response+json; charset=utf-8, application/json; charset=utf-8",
                Some(Media::Graphql),
            ),
            ("application/json", Some(Media::Json)),
            ("application/json, application/graphql-response+json;q=0.9", Some(Media::Json)),
            ("*/*", Some(Media::Json)),
            ("text/html, */*;q=0.1", Some(Media::Json)),
            ("application/graphql-response+json;q=0", None),
            ("text/html", None),
            ("", Some(Media::Json)),
        ] {
            assert_eq!(preferred(accept), media, "{accept}");
        }
    }

    #[test]
    fn only_json_in_utf_8_is_json() {
        for (content_type, json) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json; charset=\"utf-8\"", true),
            ("application/json; charset=utf-16", false),
            ("text/plain", false),
            ("application/jsonp", false),
            ("text/plain; application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_json(&headers), json, "{content_type}");
        }
    }

    #[test]
    fn only_one_object_is_a_request() {
        assert!(read_request(br#" {"query": "{a}", "variables": null, "operationName": null}"#).is_ok());
        for body in ["", "{", "nonsense", r#"{"query": "{a}"} x"#] {
            assert_eq!(read_request(body.as_bytes()).err(), Some(NO_JSON), "{body}");
        }
        for body in [r#"["{a}"]"#, "1", r#"{"query": 1}"#, r#"{"query": "{a}", "variables": []}"#] {
            assert_eq!(read_request(body.as_bytes()).err(), Some(NO_REQUEST), "{body}");
        }
        assert_eq!(read_request(b"{}").err(), Some(NO_QUERY));
        let deep = format!(
            r#"{{"query": "{{a}}", "variables": {{"x": {}1{}}}}}"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        assert!(read_request(deep.as_bytes()).is_err());
    }
}
