//! HTTP: the routes and the layers around them. In order: `edge` (request id, span, measuring, panics), `cors`,
//! compression, then the route. `server` accepts connections; `graphql` is the way through, with `receive` (the bytes
//! of a body), `params` (what it says), `admission` and `memory` (who may come in now; `shares` counts by whom),
//! `media`, `caching` and `compression` (how an answer goes out). Not here: what a query means, which document an id
//! means, what a refusal looks like (`crate::rejection`).
//!
//! `edge` does by itself what tower-http's layers for panics and request ids do: the answer to a panic and
//! its log line name the request's id, which `CatchPanicLayer` does not give, and `SetRequestIdLayer`
//! believes every id that a caller sends.

mod about;
pub(crate) mod admission;
mod caching;
mod compression;
mod connection_timeouts;
mod cors;
mod graphql;
pub(crate) mod health;
mod host;
mod in_memory;
mod media;
mod memory;
pub(crate) mod metrics;
mod outgoing;
pub(crate) mod params;
mod peer;
pub mod playground;
mod receive;
mod sending;
pub mod server;
mod shares;
pub(crate) mod shedding;
mod slots;
pub(crate) mod subscriptions;

use std::{any::Any, panic::AssertUnwindSafe};

use axum::{
    Router,
    body::HttpBody as _,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use entities::{Role, clock};
use futures_util::FutureExt as _;
use schema::Viewer;
use tracing::{Instrument as _, field::Empty};

use crate::{
    App, auth,
    config::address::MetricsPlace,
    rejection::Rejection,
    telemetry::{self, SPANS},
};
use memory::{AnswerMemory, OutOfMemory};
use peer::Peer;
use shares::Owner;

/// The method that asks with a body, and is safe (RFC 10008). No page of another origin can send it unasked:
/// its browser asks first.
const QUERY: &str = "QUERY";
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from the caller.
const LONGEST_REQUEST_ID: usize = 64;
/// The label of what matches no route.
const NO_ROUTE: &str = "_other";

/// All routes of the server. Tests call it in memory: `router(app).oneshot(request)`.
pub fn router(app: App) -> Router {
    let graphql = Router::new()
        .route(
            "/graphql",
            post(graphql::post)
                .get(graphql::get)
                .fallback(graphql::other_method)
                .layer(from_fn_with_state(app.clone(), subscriptions::intercept)),
        )
        .route(
            "/graphql/{id}",
            post(graphql::post_by_id)
                .get(graphql::get_by_id)
                .fallback(graphql::other_method_by_id)
                .layer(from_fn_with_state(app.clone(), subscriptions::intercept_by_id)),
        )
        .route("/schema.graphql", get(sdl))
        .layer(from_fn_with_state(app.clone(), compression::respond));
    let mut routes = graphql
        .route("/schemas/form-definition.json", get(form_definition))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz));
    if app.http.metrics_address.place(app.development) == MetricsPlace::Main {
        routes = routes.route("/metrics", get(metrics::metrics));
    }
    if app.playground.is_some() {
        routes = routes
            .route("/", get(playground::page))
            .route("/playground/config.json", get(playground::config))
            .route("/playground/documents.json", get(playground::documents))
            .route("/playground/plans/{answer}/{statement}", get(playground::plan))
            .route("/playground/{asset}", get(playground::asset));
    }
    routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(app.clone(), cors::share))
        .layer(from_fn_with_state(app.clone(), edge))
        .with_state(app)
}

/// The outermost layer: gives the request its id, measures it, puts it into a span, and turns a panic into an answer.
async fn edge(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let method = method_label(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let measured = app.metrics.begin_http(method, route);
    let id = adopt_id(request.headers_mut());
    let caller = request.extensions().get::<Peer>().map(|Peer(peer)| {
        let (address, _) = app.forwarding.client_address(*peer, request.headers());
        graphql::owner(&app, &schema::Caller { address: Some(address), ..schema::Caller::default() }, None)
    });
    let span = telemetry::begin(telemetry::remote_context(request.headers()), || {
        tracing::debug_span!(
            target: SPANS, "http", otel.name = format_args!("{method} {route}"), otel.kind = "server",
            http.request.method = method, http.route = route, http.response.status_code = Empty,
            otel.status_code = Empty, request_id = id.to_str().unwrap_or_default(),
        )
    });
    // Whether the process is alive is always told.
    let is_health = matches!(route, "/livez" | "/readyz");
    // The graph knows better who asks.
    let is_checked = is_health || route.starts_with("/graphql");
    request.extensions_mut().insert(caller.clone().unwrap_or_default());
    if let (false, Some(Err(overloaded))) =
        (is_checked, caller.as_ref().map(|owner| app.admission.check_answers(owner)))
    {
        measured.finish(overloaded.status.as_u16());
        let mut response = overloaded.into_response(id.to_str().unwrap_or_default());
        response.headers_mut().insert(REQUEST_ID, id);
        return response;
    }
    let answer = if span.is_disabled() {
        AssertUnwindSafe(next.run(request)).catch_unwind().await
    } else {
        AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await
    };
    let mut response = answer.unwrap_or_else(|panic| after_panic(&id, panic.as_ref()));
    if !is_health && hold_memory(&app, caller, &mut response).is_err() {
        response = Rejection::from(OutOfMemory).into_response(id.to_str().unwrap_or_default());
    }
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response.headers_mut().insert(REQUEST_ID, id);
    measured.finish(status.as_u16());
    response
}

/// Lets an answer hold the memory that it takes until it is sent; what one of the graph takes is counted already.
fn hold_memory(app: &App, owner: Option<Owner>, response: &mut Response) -> Result<(), OutOfMemory> {
    if response.extensions().get::<AnswerMemory>().is_none() {
        let bytes = response.body().size_hint().exact().unwrap_or_default();
        let mut memory = app.admission.answer_memory(owner.unwrap_or_default());
        memory.grow(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        response.extensions_mut().insert(AnswerMemory::from(memory));
    }
    Ok(())
}

/// Takes over the caller's request id if it is harmless, else makes one; leaves it in the request's headers.
fn adopt_id(headers: &mut HeaderMap) -> HeaderValue {
    let id = id_of(headers);
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// The caller's request id if it is harmless, else a new one.
fn id_of(headers: &HeaderMap) -> HeaderValue {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let given = headers.get(REQUEST_ID).filter(|value| {
        (1..=LONGEST_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(harmless)
    });
    if let Some(given) = given {
        return given.clone();
    }
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = new_request_id().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("a UUID is a header value")
}

/// A UUID, version 7. Nobody is kept out by it, so its random part does not come from the kernel, which would be a
/// system call for each request.
fn new_request_id() -> uuid::Uuid {
    let milliseconds = clock::now().timestamp_millis().try_into().unwrap_or_default();
    let [random @ .., _, _, _, _, _, _] = fastrand::u128(..).to_ne_bytes();
    uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid()
}

/// The id that `edge` left in the headers.
pub(crate) fn request_id(headers: &HeaderMap) -> &str {
    headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

fn after_panic(id: &HeaderValue, panic: &(dyn Any + Send)) -> Response {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let request_id = id.to_str().unwrap_or_default();
    tracing::error!(request_id, panic = text.unwrap_or("not a text"), "a request panicked");
    Rejection::internal().into_response(request_id)
}

/// Methods as labels: a closed list, since a caller may invent any.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ if method.as_str() == QUERY => QUERY,
        _ => "_OTHER",
    }
}

/// `GET /schema.graphql`: as `_service`, where that is for gateways only, for them alone. With `?api` the SDL
/// for client tools, which administrators may have everywhere, too: it says no more than they may ask for.
async fn sdl(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let mut parameters = parts.uri.query().unwrap_or_default().split('&');
    let is_api = parameters.any(|parameter| parameter.split('=').next() == Some("api"));
    let is_gateway = || app.gateways().head(&parts).is_ok_and(|head| head.trust.is_gateway());
    let is_admin = || {
        let viewer = auth::viewer(&app.access, &parts.headers);
        matches!(viewer, Ok(Viewer::User { role: Role::Admin, .. }))
    };
    if app.gateways_only && !is_gateway() && !(is_api && is_admin()) {
        return no_such_path(parts.headers).await;
    }
    let text = if is_api { app.graph.api_sdl() } else { app.graph.sdl() };
    let kept = if app.gateways_only { "no-store" } else { "no-cache" };
    let headers =
        [(header::CONTENT_TYPE, "application/graphql; charset=utf-8"), (header::CACHE_CONTROL, kept)];
    let mut response = (headers, text.to_owned()).into_response();
    if is_gateway() {
        response.extensions_mut().insert(compression::ToGateway);
    }
    response
}

/// The JSON Schema of form definitions, for form builders and their editors.
async fn form_definition() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/schema+json"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, entities::forms::definition::JSON_SCHEMA).into_response()
}

/// The public keys of access tokens, for gateways and other subgraphs.
async fn jwks(State(app): State<App>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/jwk-set+json"),
        // Keys are published three times as long before they are used.
        (header::CACHE_CONTROL, "public, max-age=60"),
    ];
    (headers, app.access.tokens().published()).into_response()
}

async fn no_such_path(headers: HeaderMap) -> Response {
    Rejection::new(StatusCode::NOT_FOUND, "BAD_USER_INPUT", "Not found: nothing is served at this path.")
        .into_response(request_id(&headers))
}

async fn no_such_method(headers: HeaderMap) -> Response {
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "BAD_USER_INPUT", "Method not allowed at this path.")
        .into_response(request_id(&headers))
}

#[cfg(test)]
mod tests;
