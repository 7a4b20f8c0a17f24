//! GraphQL over HTTP: `POST /graphql`, `GET /graphql?query=…`, and both for a document by its id in the path.
//! Hands what was asked (`incoming`) to the graph, answers in the media type that the caller prefers, and has
//! it told afterwards (`record`). Not here: what a request says (`params`), which document it means
//! (`documents`).

mod idempotency_key;
mod incoming;
mod record;
mod response;
mod status;
mod variable_sets;

use std::{borrow::Cow, time::Instant};

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::future::join_all;
use schema::{Document, HeldMemory, Opened, OperationKind, Progress, Reply, Taken, VariableSets, Variables};
use serde_json::Value;
use tracing::{Instrument as _, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    QUERY,
    about::About,
    compression::ToGateway,
    in_memory::InMemory,
    media::Media,
    memory::OutOfMemory,
    params::{GraphQLParams, GraphQLRequest},
    playground, request_id,
};
use crate::{
    App,
    rejection::Rejection,
    telemetry::{self, SPANS},
};
use incoming::find_document;
use response::{Answers, ArrayOfAnswers, GraphQLResponse, hold, respond};

pub(super) use incoming::{
    IncomingRequest, Requester, bounds, caller, goes_on, owner, permit, read_body, read_get, sender,
    unauthenticated,
};
pub(super) use record::{RequestSummary, record};
pub(super) use response::{Replies, done, hold_owed};
pub(super) use variable_sets::run as run_sets;

/// What a caller has written, to be read on whatever instance answers next.
pub(super) const CACHE_TOKEN: HeaderName = HeaderName::from_static("x-cache-token");
/// By which a caller asks what its operations may load (`report`), and where it is told: as Hot Chocolate names it.
pub(super) const COST: HeaderName = HeaderName::from_static("graphql-cost");
/// How clients of server-sent events say what they were told last.
const LAST_EVENT_ID: &str = "last-event-id";
/// How Apollo's gateways ask for a trace.
const INCLUDE_TRACE: HeaderName = HeaderName::from_static("apollo-federation-include-trace");

const NOT_ACCEPTABLE: Rejection = Rejection::new(
    StatusCode::NOT_ACCEPTABLE,
    "BAD_USER_INPUT",
    "The answer comes as application/graphql-response+json or application/json; the Accept header takes \
     neither.",
);
const NOT_A_RESUME_TOKEN: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "extensions.resumeAfter takes what an event said as extensions.resumeToken, a text.",
);
const ONLY_QUERIES: Rejection = Rejection::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "BAD_USER_INPUT",
    "GET and QUERY run queries only; use POST.",
);
const METHODS: Rejection =
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "BAD_USER_INPUT", "GraphQL takes POST, QUERY and GET.");
/// The methods that GraphQL takes.
pub(super) const METHODS_TAKEN: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS, POST, QUERY");
/// Says that QUERY is taken, and with which bodies (RFC 10008).
pub(super) const ACCEPT_QUERY: (HeaderName, HeaderValue) =
    (HeaderName::from_static("accept-query"), HeaderValue::from_static("application/json"));
/// What a mutation is sent by.
const POST_ONLY: HeaderValue = HeaderValue::from_static("POST");
const TIMEOUT: Rejection =
    Rejection::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", "The request took too long and was stopped.");

/// In the place of `TIMEOUT` where something of a mutation may be stored.
const OUTCOME_UNKNOWN: Rejection = Rejection::new(
    StatusCode::GATEWAY_TIMEOUT,
    "OUTCOME_UNKNOWN",
    "The request took too long and was stopped; something of it may be stored. Look whether it is before you \
     send it again.",
);

/// And where the same request again gives its result.
const OUTCOME_TOLD_LATER: Rejection = Rejection {
    status: StatusCode::GATEWAY_TIMEOUT,
    code: "OUTCOME_UNKNOWN",
    message: Cow::Borrowed(
        "The request took too long and was stopped; something of it may be stored. Send it again with its \
         Idempotency-Key: what is stored is not done twice.",
    ),
    retryable: Some(true),
    content_codings: None,
};

/// What is told of a request whose time was up before it ended.
pub(super) fn late(may_be_stored: bool, requester: &Requester) -> Rejection {
    match (may_be_stored, &requester.idempotency_key) {
        (false, _) => TIMEOUT,
        (true, None) => OUTCOME_UNKNOWN,
        (true, Some(_)) => OUTCOME_TOLD_LATER,
    }
}

/// Its time was up before it ended.
fn is_late(rejection: &Rejection) -> bool {
    [TIMEOUT, OUTCOME_UNKNOWN, OUTCOME_TOLD_LATER].contains(rejection)
}

/// `POST /graphql`.
pub(super) async fn post(State(app): State<App>, request: Request) -> Response {
    with_body(&app, None, request).await
}

/// `POST /graphql/{documentId}`.
pub(super) async fn post_by_id(State(app): State<App>, Path(id): Path<String>, request: Request) -> Response {
    with_body(&app, Some(id), request).await
}

async fn with_body(app: &App, id: Option<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let incoming = read_body(app, id, &parts, body).await;
    // What running takes is not held while a body is waited for.
    let mut response = Box::pin(answer(app, &parts.headers, incoming)).await;
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response.headers_mut().extend([ACCEPT_QUERY]);
    }
    response
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

/// `QUERY /graphql`, and any other method.
pub(super) async fn other_method(State(app): State<App>, request: Request) -> Response {
    other_method_at(&app, None, request).await
}

/// `QUERY /graphql/{documentId}`, and any other method.
pub(super) async fn other_method_by_id(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    other_method_at(&app, Some(id), request).await
}

async fn other_method_at(app: &App, id: Option<String>, request: Request) -> Response {
    match request.method().as_str() {
        QUERY => with_body(app, id, request).await,
        "OPTIONS" => with_allow(StatusCode::NO_CONTENT.into_response(), METHODS_TAKEN),
        _ => not_allowed(request.headers()),
    }
}

/// A method that GraphQL does not take.
pub(super) fn not_allowed(headers: &HeaderMap) -> Response {
    with_allow(METHODS.into_response(request_id(headers)), METHODS_TAKEN)
}

/// What all requests of one HTTP request are run with.
#[derive(Clone, Copy)]
struct Asked<'a> {
    app: &'a App,
    headers: &'a HeaderMap,
    media: Media,
    requester: &'a Requester,
}

impl Asked<'_> {
    /// The status of an answer.
    fn status(&self, reply: &Reply) -> StatusCode {
        // What those need to know, too, that know nothing of GraphQL.
        if let Some(status) = status::of_unexecuted(reply) {
            return status;
        }
        match self.media {
            Media::Graphql => status::of_reply(self.app.http.statuses, reply),
            Media::Json => StatusCode::OK,
        }
    }
}

/// A refusal with its status under this media type.
fn refusal(app: &App, media: Media, rejection: Rejection) -> Rejection {
    match media {
        Media::Graphql => status::of_rejection(app.http.statuses, rejection),
        Media::Json => rejection,
    }
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
            let rejection = refusal(app, media, rejection);
            let summary = RequestSummary::of_rejection(&rejection);
            record(app, headers, (&Span::none(), started), rejection.status, &summary, &About::default());
            return rejection.into_response_as(media.content_type(), request_id(headers));
        }
    };
    let requester = &incoming.requester;
    let memory = app.admission.answer_memory(owner(app, &requester.caller, requester.bearer.as_ref()));
    let asked = Asked { app, headers, media, requester };
    let answered = match incoming.requests {
        GraphQLRequest::One(params) if is_list(&params) => variable_sets::array(asked, *params).await,
        GraphQLRequest::One(params) => Answers::One(run(asked, *params, Taken::default()).await),
        GraphQLRequest::Batch(requests) => Answers::Many(run_array(asked, requests).await),
    };
    // What an answer was written in is given back once it is counted as one that is sent.
    let (mut held, mut replies) = (Vec::new(), Replies::One);
    let mut cost = None;
    let (response, is_owed) = match answered {
        Answers::One(Ok(mut answer)) => {
            held.push(std::mem::take(&mut answer.held));
            cost = answer.cost;
            let is_owed = answer.is_owed;
            (respond(media, requester, answer), is_owed)
        }
        Answers::One(Err(rejection)) => {
            let rejection = refusal(app, media, rejection);
            let (is_owed, only_queries) = (is_late(&rejection), rejection == ONLY_QUERIES);
            let response = rejection.into_response_as(media.content_type(), request_id(headers));
            (if only_queries { with_allow(response, POST_ONLY) } else { response }, is_owed)
        }
        Answers::Many(answers) => {
            replies = answers.replies();
            (held, cost) = (answers.held, answers.cost);
            let content_type = (header::CONTENT_TYPE, media.content_type());
            let headers = [content_type, (header::CACHE_CONTROL, "no-store")];
            ((headers, Body::from(InMemory::from(answers.body))).into_response(), answers.is_owed)
        }
    };
    let is_to_gateway = requester.caller.is_gateway;
    let refuse =
        |overloaded: Rejection| overloaded.into_response_as(media.content_type(), request_id(headers));
    let mut response = if is_owed {
        hold_owed(response, memory, (replies, request_id(headers)))
    } else {
        hold(response, memory).unwrap_or_else(|OutOfMemory| refuse(OutOfMemory.into()))
    };
    drop(held);
    if let Some(cost) = cost.filter(|_| headers.get(COST).is_some_and(|asked| asked == "report")) {
        // A number with a parameter (RFC 9651).
        let told = HeaderValue::from_str(&format!("{cost}; limit={}", app.graph.max_cost()));
        response.headers_mut().extend(told.map(|told| (COST, told)));
    }
    if is_to_gateway {
        response.extensions_mut().insert(ToGateway);
    }
    response
}

fn is_list(params: &GraphQLParams) -> bool {
    matches!(params.variables, VariableSets::Many(_))
}

/// Runs the requests of an array.
async fn run_array(asked: Asked<'_>, requests: Vec<GraphQLParams>) -> ArrayOfAnswers {
    let taken = Taken::default();
    let running = requests.into_iter().map(|params| run(asked, params, taken.clone()));
    let mut answers = ArrayOfAnswers::default();
    for answer in join_all(running).await {
        match answer {
            Ok(GraphQLResponse { body, held, is_owed, cost, .. }) => {
                answers.push(body, held, (is_owed, cost));
            }
            Err(rejection) => {
                let is_owed = is_late(&rejection);
                let body = rejection.body(request_id(asked.headers));
                answers.push(body.into(), HeldMemory::default(), (is_owed, None));
            }
        }
    }
    answers.ended()
}

/// The span of an operation, below that of its HTTP request.
fn operation_span(headers: &HeaderMap) -> Span {
    tracing::debug_span!(
        target: SPANS, "graphql", otel.name = "graphql", otel.status_code = Empty,
        graphql.operation.type = Empty, graphql.operation.name = Empty, graphql.document.id = Empty,
        graphql.client.name = Empty, graphql.client.version = Empty, enduser.id = Empty,
        request_id = request_id(headers),
    )
}

/// The span of an operation that came over a stream, which no HTTP request may stand for any more.
pub(super) fn span_on_stream(headers: &HeaderMap) -> Span {
    if Span::current().is_disabled() {
        return telemetry::begin(telemetry::remote_context(headers), || operation_span(headers));
    }
    operation_span(headers)
}

/// Runs one request within the deadline; measures and logs it.
async fn run(asked: Asked<'_>, params: GraphQLParams, taken: Taken) -> Result<GraphQLResponse, Rejection> {
    let Asked { app, headers, requester, .. } = asked;
    let started = Instant::now();
    let span = operation_span(headers);
    let mut about = requester.about(app, &params);
    let progress = Progress::default();
    let running = execute(app, headers, requester, params, &mut about, (taken, progress.clone()));
    let result = tokio::time::timeout(app.http.request_timeout, running.instrument(span.clone())).await;
    match result.unwrap_or_else(|_| Err(late(progress.commits.count() > 0, requester))) {
        Ok(reply) => {
            let status = asked.status(&reply);
            record(app, headers, (&span, started), status, &RequestSummary::of_reply(&reply), &about);
            note_entities(&reply);
            Ok(GraphQLResponse::of(reply, status))
        }
        Err(rejection) => {
            let summary = RequestSummary::of_rejection(&rejection).stopped(&progress);
            record(app, headers, (&span, started), rejection.status, &summary, &about);
            Err(rejection)
        }
    }
}

/// On the server's span, for each call of a gateway: how many entities of each type it asked for.
fn note_entities(reply: &Reply) {
    for (name, count) in &reply.entities {
        Span::current().set_attribute(format!("federation.entities.{name}"), i64::from(*count));
    }
}

async fn execute(
    app: &App,
    headers: &HeaderMap,
    requester: &Requester,
    mut params: GraphQLParams,
    about: &mut About,
    (taken, progress): (Taken, Progress),
) -> Result<Reply, Rejection> {
    let found_from = Some(Instant::now());
    let document = match find_document(app, headers, requester, &mut params).await {
        Ok(document) => document,
        Err(stop) => return stop.into_reply(),
    };
    let kind = note_found(app, about, &document, params.operation_name.as_deref());
    if requester.is_safe && kind.is_some_and(|kind| kind != OperationKind::Query) {
        return Err(ONLY_QUERIES);
    }
    let request =
        schema::Request { taken, progress, found_from, ..request(app, headers, requester, params)? };
    Ok(app.graph.execute_document(requester.viewer.clone(), document, request).await)
}

/// Runs one request for a caller who can wait for events. A GET or a QUERY does not write here either.
pub(super) async fn open(
    app: &App,
    headers: &HeaderMap,
    requester: &Requester,
    mut params: GraphQLParams,
    about: &mut About,
    progress: Progress,
) -> Result<Opened, Rejection> {
    let document = match find_document(app, headers, requester, &mut params).await {
        Ok(document) => document,
        Err(stop) => return stop.into_reply().map(|reply| Opened::Reply(Box::new(reply))),
    };
    let kind = note_found(app, about, &document, params.operation_name.as_deref());
    if requester.is_safe && kind == Some(OperationKind::Mutation) {
        return Err(ONLY_QUERIES);
    }
    let on_slow_run =
        app.telemetry.slow_operation.and(kind).map(|kind| record::slow_runs(kind, about, headers));
    let request = request(app, headers, requester, params)?;
    let request = schema::Request { progress, streams: true, on_slow_run, ..request };
    Ok(app.graph.open_document(requester.viewer.clone(), document, request).await)
}

/// What is told of an operation afterwards, once it was found in its document; its kind.
fn note_found(
    app: &App,
    about: &mut About,
    document: &Document,
    operation_name: Option<&str>,
) -> Option<OperationKind> {
    let kind = document.kind(operation_name);
    about.found(document.name(operation_name), kind);
    about.fields = app.field_usage.sample(document, operation_name);
    if about.fields.is_some() && app.hive.is_some() {
        about.reported = document.reported(operation_name, app.graph.coordinates());
    }
    kind
}

fn request(
    app: &App,
    headers: &HeaderMap,
    requester: &Requester,
    params: GraphQLParams,
) -> Result<schema::Request, Rejection> {
    let (explain, on_error) = (explains(app, headers, &params), params.on_error()?);
    let resume_after = resume_after(headers, &params)?;
    let is_asked_for = |name| params.extension(name).and_then(Value::as_bool) == Some(true);
    let (resume_token, json_patch) = (is_asked_for("resumeToken"), is_asked_for("jsonPatch"));
    let variables = match params.variables {
        VariableSets::One(variables) => variables,
        // They are handed over by themselves (`variable_sets`).
        VariableSets::Many(_) => Variables::default(),
    };
    Ok(schema::Request {
        query: String::new(),
        on_error,
        explain,
        resume_after,
        resume_token,
        streams: false,
        json_patch,
        found_from: None,
        operation_name: params.operation_name,
        variables,
        trace: wants_trace(app, headers, requester),
        cache_tags: app.gateway.cache_tags && requester.caller.is_gateway,
        entities: !Span::current().is_disabled(),
        cache_token: headers.get(CACHE_TOKEN).and_then(|token| token.to_str().ok()).map(ToOwned::to_owned),
        caller: requester.caller.clone(),
        taken: Taken::default(),
        progress: Progress::default(),
        on_slow_run: None,
        idempotency_key: requester.idempotency_key.clone(),
    })
}

/// After which event a subscription goes on: an entry of `extensions`, or the header by which clients of
/// server-sent events say it (HTML, §9.2.4).
fn resume_after(headers: &HeaderMap, params: &GraphQLParams) -> Result<Option<String>, Rejection> {
    match params.extension("resumeAfter") {
        Some(Value::String(token)) => return Ok(Some(token.clone())),
        None | Some(Value::Null) => {}
        Some(_) => return Err(NOT_A_RESUME_TOKEN),
    }
    let id = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
    Ok(id.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned()))
}

/// Whether the answer is to say how it was made: by a header, or, for those who send many requests over one
/// WebSocket, by an entry of `extensions`. Only in development.
fn explains(app: &App, headers: &HeaderMap, params: &GraphQLParams) -> bool {
    let by_header = || headers.get("x-explain").is_some_and(|value| value == "1");
    app.development && (by_header() || params.extension("explain").and_then(Value::as_bool) == Some(true))
}

/// Times are told to those who may ask for the schema.
fn wants_trace(app: &App, headers: &HeaderMap, requester: &Requester) -> bool {
    headers.get(INCLUDE_TRACE).is_some_and(|kind| kind == "ftv1")
        && (requester.caller.is_gateway || !app.gateways_only)
}

fn with_allow(mut response: Response, methods: HeaderValue) -> Response {
    let (name, value) = ACCEPT_QUERY;
    response.headers_mut().insert(header::ALLOW, methods);
    response.headers_mut().insert(name, value);
    response
}
