//! GraphQL over HTTP: `POST /graphql`, `GET /graphql?query=…`, and both for a document by its id in the path. Hands what
//! was asked (`incoming`) to the graph, answers in the media type that the caller prefers, and has it told afterwards
//! (`record`). Not here: what a request says (`params`), which document it means (`documents`).

mod incoming;
mod record;

use std::time::Instant;

use axum::{
    body::{Body, HttpBody as _},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::future::join_all;
use schema::{CachePolicy, Chunks, HeldMemory, Opened, OperationKind, Reply, Taken};
use serde_json::Value;
use tracing::{Instrument as _, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    about::About,
    caching,
    in_memory::InMemory,
    media::Media,
    memory::{AnswerMemory, MemoryReservation, OutOfMemory},
    params::{GraphQLParams, GraphQLRequest},
    playground, request_id,
};
use crate::{
    App,
    rejection::Rejection,
    telemetry::{SPANS, metrics::Outcome},
};
use incoming::find_document;

pub(super) use incoming::{
    IncomingRequest, Requester, bounds, caller, is_subscription, owner, read_get, read_post,
};
pub(super) use record::{RequestSummary, record};

/// What a caller has written, to be read on whatever instance answers next.
pub(super) const CACHE_TOKEN: HeaderName = HeaderName::from_static("x-cache-token");
/// How Apollo's gateways ask for a trace.
const INCLUDE_TRACE: &str = "apollo-federation-include-trace";

const NOT_ACCEPTABLE: Rejection = Rejection::new(
    StatusCode::NOT_ACCEPTABLE,
    "BAD_USER_INPUT",
    "The answer comes as application/graphql-response+json or application/json; the Accept header takes neither.",
);
const ONLY_QUERIES: Rejection =
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "BAD_USER_INPUT", "GET runs queries only; use POST.");
const METHODS: Rejection =
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "BAD_USER_INPUT", "GraphQL takes POST and GET.");
/// In the place of an answer that there is no memory for. No client repeats a request that has this code.
const DONE: Rejection = Rejection::new(
    StatusCode::OK,
    "COST_LIMIT",
    "The server cannot hold an answer of this length now. Ask for less at once. What the mutation did is done.",
);
pub(super) const TIMEOUT: Rejection =
    Rejection::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", "The request took too long and was stopped.");

/// `POST /graphql`.
pub(super) async fn post(State(app): State<App>, request: Request) -> Response {
    post_to(&app, None, request).await
}

/// `POST /graphql/{documentId}`.
pub(super) async fn post_by_id(State(app): State<App>, Path(id): Path<String>, request: Request) -> Response {
    post_to(&app, Some(id), request).await
}

async fn post_to(app: &App, id: Option<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let incoming = read_post(app, id, &parts, body).await;
    // What running takes is not held while a body is waited for.
    Box::pin(answer(app, &parts.headers, incoming)).await
}

/// `GET /graphql?query=…&variables=…&operationName=…`.
pub(super) async fn get(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if app.playground.is_some() && playground::is_meant(&parts) {
        return playground::elsewhere();
    }
    answer(&app, &parts.headers, read_get(&app, None, &parts)).await
}

/// `GET /graphql/{documentId}?variables=…`.
pub(super) async fn get_by_id(State(app): State<App>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    answer(&app, &parts.headers, read_get(&app, Some(id), &parts)).await
}

/// Any other method.
pub(super) async fn other_method(headers: HeaderMap) -> Response {
    with_allow(METHODS.into_response(request_id(&headers)), "GET, POST")
}

/// The answer to one request.
struct GraphQLResponse {
    status: StatusCode,
    body: Chunks,
    /// The memory that `body` was written in.
    held: HeldMemory,
    /// A mutation has run: whoever is told to try again would do it twice.
    is_owed: bool,
    cache: Option<CachePolicy>,
    cache_token: Option<String>,
    retry_after_seconds: Option<u32>,
    /// It ran, without errors.
    is_complete: bool,
    digest: Option<[u8; 16]>,
}

/// Runs an incoming request, and puts the answers into one response.
pub(super) async fn answer(
    app: &App,
    headers: &HeaderMap,
    incoming: Result<IncomingRequest, Rejection>,
) -> Response {
    let accepted = Media::accepted_by(headers);
    let media = accepted.unwrap_or(Media::Json);
    let incoming = if accepted.is_none() { Err(NOT_ACCEPTABLE) } else { incoming };
    let started = Instant::now();
    let incoming = match incoming {
        Ok(incoming) => incoming,
        Err(rejection) => {
            let summary = RequestSummary::of_rejection(&rejection);
            record(app, headers, (&Span::none(), started), rejection.status, &summary, &About::default());
            return rejection.into_response_as(media.content_type(), request_id(headers));
        }
    };
    let (requester, content_type) = (&incoming.requester, (header::CONTENT_TYPE, media.content_type()));
    let memory = app.admission.answer_memory(owner(app, &requester.caller, requester.bearer.as_ref()));
    // What an answer was written in is given back once it is counted as one that is sent.
    let (taken, mut all_held) = (Taken::default(), Vec::new());
    let (mut is_owed, mut count) = (false, None);
    let response = match incoming.requests {
        GraphQLRequest::One(params) => match run(app, headers, media, requester, *params, taken).await {
            Ok(mut answer) => {
                is_owed = answer.is_owed;
                all_held.push(std::mem::take(&mut answer.held));
                respond(media, requester, answer)
            }
            Err(rejection) => {
                is_owed = rejection == TIMEOUT;
                let only_queries = rejection.status == StatusCode::METHOD_NOT_ALLOWED;
                let response = rejection.into_response_as(media.content_type(), request_id(headers));
                if only_queries { with_allow(response, "POST") } else { response }
            }
        },
        GraphQLRequest::Batch(requests) => {
            let running =
                requests.into_iter().map(|params| run(app, headers, media, requester, params, taken.clone()));
            let mut body = Chunks::default();
            let answers = join_all(running).await;
            count = Some(answers.len());
            for answer in answers {
                is_owed |=
                    answer.as_ref().map_or_else(|rejection| *rejection == TIMEOUT, |answer| answer.is_owed);
                body.push(if body.is_empty() { b'[' } else { b',' });
                match answer {
                    Ok(GraphQLResponse { body: one, held, .. }) => {
                        body.append(one);
                        all_held.push(held);
                    }
                    Err(rejection) => body.extend(rejection.body(request_id(headers))),
                }
            }
            body.push(b']');
            (
                StatusCode::OK,
                [content_type, (header::CACHE_CONTROL, "no-store")],
                Body::from(InMemory::from(body)),
            )
                .into_response()
        }
    };
    let refuse =
        |overloaded: Rejection| overloaded.into_response_as(media.content_type(), request_id(headers));
    let response = if is_owed {
        hold_owed(response, memory, (count, request_id(headers)))
    } else {
        hold(response, memory).unwrap_or_else(|OutOfMemory| refuse(OutOfMemory.into()))
    };
    drop(all_held);
    response
}

/// Counts the answer to what was done, which must be sent, in the bound on memory. If it does not fit at all, at least that is told, to each request of an array
/// of `count`.
pub(super) fn hold_owed(
    mut response: Response,
    mut memory: MemoryReservation,
    (count, request_id): (Option<usize>, &str),
) -> Response {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    if memory.grow_owed(usize::try_from(bytes).unwrap_or(usize::MAX)).is_err() {
        let one = done(request_id);
        let body = match count {
            None => one,
            Some(count) => [&b"["[..], &vec![one; count].join(&b','), b"]"].concat(),
        };
        let fits = memory.grow_owed(body.len());
        debug_assert!(fits.is_ok(), "what is small always fits");
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
    response.extensions_mut().insert(AnswerMemory::from(memory));
    response
}

/// What is told in the place of the answer to a mutation that there is no memory for.
pub(super) fn done(request_id: &str) -> Vec<u8> {
    let errors = DONE.body(request_id);
    // The request ran, so there is an entry `data` (GraphQL, October 2021, §7.1).
    [b"{\"data\":null,", errors.get(1..).unwrap_or_default()].concat()
}

/// Lets an answer hold the memory that it takes until it is sent.
fn hold(mut response: Response, mut memory: MemoryReservation) -> Result<Response, OutOfMemory> {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    memory.grow(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    response.extensions_mut().insert(AnswerMemory::from(memory));
    Ok(response)
}

fn respond(media: Media, requester: &Requester, answer: GraphQLResponse) -> Response {
    let GraphQLResponse { status, body, cache, is_complete, digest, .. } = answer;
    let mut response = if requester.is_get {
        let answer = caching::CacheableResponse { policy: cache, is_complete, digest };
        caching::respond(answer, status, media.content_type(), body)
    } else {
        let control = caching::control(cache);
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(media.content_type())),
            (header::CACHE_CONTROL, control),
        ];
        (status, headers, Body::from(InMemory::from(body))).into_response()
    };
    let token = answer.cache_token.and_then(|token| HeaderValue::from_str(&token).ok());
    let headers = response.headers_mut();
    headers.extend(token.map(|token| (CACHE_TOKEN, token)));
    headers
        .extend(answer.retry_after_seconds.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
    response
}

/// Runs one request within the deadline; measures and logs it.
async fn run(
    app: &App,
    headers: &HeaderMap,
    media: Media,
    requester: &Requester,
    params: GraphQLParams,
    taken: Taken,
) -> Result<GraphQLResponse, Rejection> {
    let started = Instant::now();
    let span = tracing::debug_span!(
        target: SPANS, "graphql", otel.name = "graphql", otel.status_code = Empty,
        graphql.operation.type = Empty, graphql.operation.name = Empty, graphql.document.id = Empty,
        graphql.client.name = Empty, graphql.client.version = Empty, enduser.id = Empty,
        request_id = request_id(headers),
    );
    let mut about = requester.about(app, &params);
    let running = execute(app, headers, requester, params, &mut about, taken).instrument(span.clone());
    let result = tokio::time::timeout(app.http.request_timeout, running).await;
    match result.unwrap_or(Err(TIMEOUT)) {
        Ok(reply) => {
            let status = match media {
                Media::Graphql if !reply.executed => StatusCode::BAD_REQUEST,
                Media::Graphql | Media::Json => StatusCode::OK,
            };
            let summary = RequestSummary::of_reply(&reply);
            record(app, headers, (&span, started), status, &summary, &about);
            // On the server's span: one for each call of a gateway.
            for (name, count) in &reply.entities {
                Span::current().set_attribute(format!("federation.entities.{name}"), i64::from(*count));
            }
            let is_complete = summary.outcome == Outcome::Ok;
            let is_owed = reply.executed && reply.operation == Some(OperationKind::Mutation);
            let Reply { body, held, cache, cache_token, retry_after_seconds, digest, .. } = reply;
            Ok(GraphQLResponse {
                status,
                body,
                held,
                is_owed,
                cache,
                cache_token,
                retry_after_seconds,
                is_complete,
                digest,
            })
        }
        Err(rejection) => {
            record(
                app,
                headers,
                (&span, started),
                rejection.status,
                &RequestSummary::of_rejection(&rejection),
                &about,
            );
            Err(rejection)
        }
    }
}

async fn execute(
    app: &App,
    headers: &HeaderMap,
    requester: &Requester,
    mut params: GraphQLParams,
    about: &mut About,
    taken: Taken,
) -> Result<Reply, Rejection> {
    let found_from = Some(Instant::now());
    let document = match find_document(app, headers, requester, &mut params).await {
        Ok(document) => document,
        Err(stop) => return stop.into_reply(),
    };
    let kind = document.kind(params.operation_name.as_deref());
    about.found(document.name(params.operation_name.as_deref()), kind);
    if requester.is_get && kind.is_some_and(|kind| kind != OperationKind::Query) {
        return Err(ONLY_QUERIES);
    }
    let request = schema::Request { taken, found_from, ..request(app, headers, requester, params) };
    Ok(app.graph.execute_document(requester.viewer.clone(), document, request).await)
}

/// Runs one request for a caller who can wait for events. A GET does not write here either.
pub(super) async fn open(
    app: &App,
    headers: &HeaderMap,
    requester: &Requester,
    mut params: GraphQLParams,
    about: &mut About,
) -> Result<Opened, Rejection> {
    let document = match find_document(app, headers, requester, &mut params).await {
        Ok(document) => document,
        Err(stop) => return stop.into_reply().map(Opened::Reply),
    };
    let kind = document.kind(params.operation_name.as_deref());
    about.found(document.name(params.operation_name.as_deref()), kind);
    if requester.is_get && kind == Some(OperationKind::Mutation) {
        return Err(ONLY_QUERIES);
    }
    let request = request(app, headers, requester, params);
    Ok(app.graph.open_document(requester.viewer.clone(), document, request).await)
}

fn request(app: &App, headers: &HeaderMap, requester: &Requester, params: GraphQLParams) -> schema::Request {
    schema::Request {
        query: String::new(),
        explain: explains(app, headers, &params),
        found_from: None,
        operation_name: params.operation_name,
        variables: params.variables,
        trace: wants_trace(app, headers, requester),
        cache_tags: app.gateway.cache_tags && requester.caller.is_gateway,
        entities: !Span::current().is_disabled(),
        cache_token: headers.get(CACHE_TOKEN).and_then(|token| token.to_str().ok()).map(ToOwned::to_owned),
        caller: requester.caller.clone(),
        taken: Taken::default(),
    }
}

/// Whether the answer is to say how it was made: by a header, or, for those who send many requests over one WebSocket, by an
/// entry of `extensions`. Only in development.
fn explains(app: &App, headers: &HeaderMap, params: &GraphQLParams) -> bool {
    let by_header = || headers.get("x-explain").is_some_and(|value| value == "1");
    app.development && (by_header() || params.extension("explain").and_then(Value::as_bool) == Some(true))
}

/// Times are told to those who may ask for the schema.
fn wants_trace(app: &App, headers: &HeaderMap, requester: &Requester) -> bool {
    headers.get(INCLUDE_TRACE).is_some_and(|kind| kind == "ftv1")
        && (requester.caller.is_gateway || !app.gateways_only)
}

fn with_allow(mut response: Response, methods: &'static str) -> Response {
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
