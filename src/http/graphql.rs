//! GraphQL over HTTP: `POST /graphql`, `GET /graphql?query=…`, and both for a document by its id in the path. Checks in
//! the order of what they cost, hands the request to the graph, answers in the media type that the caller prefers, and
//! writes the one log line. Not here: what a request says (`wire`), which document it means (`documents`).

use std::{borrow::Cow, sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use futures_util::future::join_all;
use opentelemetry::trace::TraceContextExt as _;
use schema::{
    CachePolicy, Caller, Document, Held, Opened, OperationKind, Reply, Taken, Viewer,
    auth::token::{Bearer, Refused},
};
use tracing::{Instrument as _, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    about::{self, About},
    admission::Permit,
    caching,
    cors::Page,
    media::{Media, is_json},
    memory::{AnswerMemory, MemoryReservation, OutOfMemory, Owner},
    playground, receive,
    refusal::Refusal,
    request_id,
    server::Peer,
    wire::{self, Bounds, Wire, Wires},
};
use crate::{
    App, auth,
    documents::{self, Stop},
    gateway::{self, Trust},
    telemetry::{
        self, OPERATIONS, SPANS,
        metrics::{Outcome, kind_name},
    },
};

/// What a caller has written, to be read on whatever node answers next.
pub(super) const CACHE_TOKEN: HeaderName = HeaderName::from_static("x-cache-token");
/// How Apollo's gateways ask for a trace.
const INCLUDE_TRACE: &str = "apollo-federation-include-trace";

const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
const NOT_ACCEPTABLE: Refusal = Refusal::new(
    StatusCode::NOT_ACCEPTABLE,
    "BAD_USER_INPUT",
    "The answer comes as application/graphql-response+json or application/json; the Accept header takes neither.",
);
const CSRF: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "CSRF_PREVENTION",
    "A GET must show that no foreign page sends it: by an authorization, apollo-require-preflight or \
     x-apollo-operation-name header, by content-type: application/json, from a page of this server (Sec-Fetch-Site), or \
     from an Origin that http.cors_origins lists. A POST needs none of these.",
);
const MEDIA_TYPE: Refusal = Refusal::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "BAD_USER_INPUT",
    "The body must be sent as content-type: application/json, in UTF-8.",
);
const ONLY_QUERIES: Refusal =
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "BAD_USER_INPUT", "GET runs queries only; use POST.");
const METHODS: Refusal =
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "BAD_USER_INPUT", "GraphQL takes POST and GET.");
/// In the place of an answer that there is no memory for. No client repeats a request that has this code.
const DONE: Refusal = Refusal::new(
    StatusCode::OK,
    "COST_LIMIT",
    "There is no memory for an answer of this length. Ask for less at once. What the mutation did is done.",
);
pub(super) const TIMEOUT: Refusal =
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", "The request took too long and was stopped.");

/// Requests that may go on, of one caller.
pub(super) struct Asked {
    pub(super) asker: Asker,
    pub(super) wires: Wires,
    /// Leave to be worked on, and the memory for what it says. Kept until it is answered.
    pub(super) held: (Permit, Option<MemoryReservation>),
}

/// What all requests of one HTTP request share.
pub(super) struct Asker {
    pub(super) viewer: Viewer,
    /// What the viewer came with.
    pub(super) bearer: Option<Bearer>,
    pub(super) caller: Caller,
    pub(super) id_in_path: Option<String>,
    pub(super) is_get: bool,
    /// The token that came along is not valid. Nobody acts for it, and only what gets a new one may run.
    pub(super) has_bad_token: bool,
}

impl Asker {
    /// The id that a document is asked for by, if it is.
    pub(super) fn document_id<'w>(&'w self, app: &App, wire: &'w Wire) -> Option<&'w str> {
        let by_specification = self.id_in_path.as_deref().or(wire.document_id.as_deref());
        let by_apollo = || wire.persisted_query().map(|persisted| persisted.hash);
        let elsewhere = || if app.documents.looks_further() { wire.other_id() } else { None };
        by_specification.or_else(by_apollo).or_else(elsewhere)
    }
}

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
    let asked = read_post(app, id, &parts, body).await;
    answer(app, &parts.headers, asked).await
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

pub(super) async fn read_post(
    app: &App,
    id: Option<String>,
    parts: &Parts,
    body: Body,
) -> Result<Asked, Refusal> {
    if !is_json(&parts.headers) {
        return Err(MEDIA_TYPE);
    }
    let head = app.gateways.head(parts)?;
    let bearer = auth::bearer(&app.access, &parts.headers);
    let (has_bad_token, trust) = (bearer.is_err(), head.trust);
    let read = read_post_of(app, id, parts, body, head, bearer).await;
    // A bad token is as none until it is known what is asked for. Whatever else is wrong with the request is said once
    // its token is good; that the server is busy is said now, or the client would think its session over.
    let mut asked = read.map_err(|refusal| match refusal.status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            refusal
        }
        _ if has_bad_token => unauthenticated(trust.is_gateway()),
        _ => refusal,
    })?;
    if asked.asker.has_bad_token {
        let Wires::One(wire) = &mut asked.wires else {
            return Err(unauthenticated(asked.asker.caller.is_gateway));
        };
        // Before it is decided how the answer is sent.
        match find_document(app, &parts.headers, &asked.asker, wire).await {
            Err(Stop::Refused(refusal)) if refusal.code == UNAUTHENTICATED => return Err(refusal),
            found => wire.found = Some(found),
        }
    }
    Ok(asked)
}

async fn read_post_of(
    app: &App,
    id: Option<String>,
    parts: &Parts,
    body: Body,
    head: gateway::Head,
    bearer: Result<Option<Bearer>, Refused>,
) -> Result<Asked, Refusal> {
    let is_anonymous = !matches!(bearer, Ok(Some(_)));
    let mut bounds = bounds(app, is_anonymous, head.trust);
    if app.gateways.may_sign_in_body() {
        bounds.batch = bounds.batch.max(app.gateway.max_batch);
    }
    let caller = caller(app, parts, head.trust);
    let signed_in = bearer.as_ref().ok().and_then(Option::as_ref);
    let owner = owner(app, &caller, signed_in);
    app.admission.check_answers(&owner)?;
    let mut memory = app.admission.body_memory(owner);
    let received = receive::receive(&parts.headers, body, &app.http, bounds.bytes, &mut memory).await?;
    // A digest is of the bytes as they were sent (RFC 9530, section 2).
    head.check_body(received.as_sent())?;
    let body = received.decode(bounds.bytes, &mut memory).await?;
    // Leave is taken once there is something to work on: who sends slowly keeps nobody out.
    let permit = app.admission.enter()?;
    let wires = wire::of_body(&body, bounds, &mut memory)?;
    let asker = asker(app, caller, head.trust, bearer, &wires, id)?;
    Ok(Asked { asker, wires, held: (permit, Some(memory)) })
}

pub(super) fn read_get(app: &App, id: Option<String>, parts: &Parts) -> Result<Asked, Refusal> {
    if !is_meant(app, &parts.headers) {
        return Err(CSRF);
    }
    let head = app.gateways.head(parts)?;
    let bearer = auth::bearer(&app.access, &parts.headers);
    // No GET gets a new token. A gateway is told in its own way, and may prove itself by its request only.
    if bearer.is_err() && !app.gateways.may_sign_in_body() {
        return Err(unauthenticated(head.trust.is_gateway()));
    }
    let caller = caller(app, parts, head.trust);
    let signed_in = bearer.as_ref().ok().and_then(Option::as_ref);
    app.admission.check_answers(&owner(app, &caller, signed_in))?;
    let permit = app.admission.enter()?;
    let bounds = bounds(app, !matches!(bearer, Ok(Some(_))), head.trust);
    let wires = Wires::One(Box::new(wire::of_uri(&parts.uri, bounds)?));
    let asker = Asker { is_get: true, ..asker(app, caller, head.trust, bearer, &wires, id)? };
    Ok(Asked { asker, wires, held: (permit, None) })
}

/// Who asks, now that it is known what for; counted against their rate.
fn asker(
    app: &App,
    caller: Caller,
    head: Trust,
    bearer: Result<Option<Bearer>, Refused>,
    wires: &Wires,
    id_in_path: Option<String>,
) -> Result<Asker, Refusal> {
    let wired = wires.as_slice();
    let by_text = id_in_path.is_none();
    let proven = wired.iter().map(|wire| app.gateways.wire(head, wire, by_text));
    let trust = proven.collect::<Result<Vec<_>, _>>()?.into_iter().min().unwrap_or(head);
    let bearer = end_user(app, trust, bearer, wired);
    let has_bad_token = bearer.is_err();
    let bearer = bearer.unwrap_or_default();
    wires.check_length(bounds(app, bearer.is_none(), trust))?;
    let viewer = bearer.as_ref().map_or(Viewer::Anonymous, |bearer| bearer.viewer.clone());
    let in_batch = matches!(wires, Wires::Batch(_));
    let caller = Caller { in_batch, is_gateway: trust.is_gateway(), ..caller };
    app.admission.check_rate(&viewer, &caller, wired.len() as u32)?;
    Ok(Asker { viewer, bearer, caller, id_in_path, is_get: false, has_bad_token })
}

/// The end user: of the token that came along, or, where that is switched on, whom a gateway has claims of.
fn end_user(
    app: &App,
    trust: Trust,
    bearer: Result<Option<Bearer>, Refused>,
    wires: &[Wire],
) -> Result<Option<Bearer>, Refused> {
    if !matches!(bearer, Ok(None)) || !app.gateway.claims {
        return bearer;
    }
    let mut claims = wires.iter().map(|wire| gateway::claims(trust, wire));
    let first = claims.next().flatten();
    if claims.any(|other| other != first) {
        return Err(Refused("an array of requests has claims of several users"));
    }
    first.map(|claims| app.access.accept(claims.clone())).transpose()
}

/// Gateways make one error of an answer that is not 200, whatever it says.
fn unauthenticated(is_gateway: bool) -> Refusal {
    let status = if is_gateway { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    Refusal::new(status, UNAUTHENTICATED, "The access token is not valid.")
}

/// From where and with what the request was sent.
pub(super) fn caller(app: &App, parts: &Parts, trust: Trust) -> Caller {
    let peer = parts.extensions.get::<Peer>();
    let address = peer.map(|Peer(peer)| app.forwarding.client_address(*peer, &parts.headers));
    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let request_id = Arc::from(request_id(&parts.headers));
    let (user_agent, is_gateway) = (agent.map(Arc::from), trust.is_gateway());
    Caller { address, user_agent, in_batch: false, request_id, is_gateway }
}

/// On whose account memory is held for this caller.
pub(super) fn owner(app: &App, caller: &Caller, bearer: Option<&Bearer>) -> Owner {
    let account = bearer.and_then(|bearer| bearer.viewer.user_id());
    // Gateways and proxies ask for everybody.
    let asks_for_many =
        caller.is_gateway || caller.address.is_some_and(|address| app.http.trusted_proxies.contains(address));
    let address = if asks_for_many { None } else { caller.customer() };
    Owner { address, account, is_gateway: caller.is_gateway }
}

/// How much a caller may send.
pub(super) fn bounds(app: &App, is_anonymous: bool, trust: Trust) -> Bounds {
    let http = &app.http;
    let (bytes, values, batch) = if trust.is_gateway() {
        let bytes = app.gateway.body_limit.max(http.body_limit_signed_in);
        (bytes, http.max_json_values_signed_in, app.gateway.max_batch)
    } else if is_anonymous {
        (http.body_limit_anonymous, http.max_json_values_anonymous, 0)
    } else {
        (http.body_limit_signed_in, http.max_json_values_signed_in, http.max_batch)
    };
    let batch = if batch > 1 { batch } else { 0 };
    Bounds { bytes: bytes.0, depth: http.max_json_depth, values, batch }
}

/// Whether a GET can be no link or image of a foreign page. No such page could read the answer, and there is no cookie that
/// a browser would add; but it could make its visitors' browsers ask.
fn is_meant(app: &App, headers: &HeaderMap) -> bool {
    has_preflight_header(headers)
        || headers.get(header::AUTHORIZATION).is_some_and(|value| !value.is_empty())
        || matches!(Page::of(&app.http, headers), Page::Own | Page::Allowed)
}

/// Apollo's rule: a header that makes a browser ask first, so that no foreign page can send the request unasked.
fn has_preflight_header(headers: &HeaderMap) -> bool {
    let given = |name: &str| headers.get(name).is_some_and(|value| !value.is_empty());
    given("apollo-require-preflight") || given("x-apollo-operation-name") || is_json(headers)
}

/// The answer to one request.
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    /// The memory that `body` was written in.
    held: Held,
    /// A mutation has run: whoever is told to try again would do it twice.
    is_owed: bool,
    cache: Option<CachePolicy>,
    cache_token: Option<String>,
    retry_after_seconds: Option<u32>,
    /// It ran, without errors.
    is_whole: bool,
    digest: Option<[u8; 16]>,
}

/// Runs what was asked, and puts the answers into one response.
pub(super) async fn answer(app: &App, headers: &HeaderMap, asked: Result<Asked, Refusal>) -> Response {
    let accepted = Media::accepted_by(headers);
    let media = accepted.unwrap_or(Media::Json);
    let asked = if accepted.is_none() { Err(NOT_ACCEPTABLE) } else { asked };
    let started = Instant::now();
    let asked = match asked {
        Ok(asked) => asked,
        Err(refusal) => {
            let ran = Ran::refused(&refusal);
            record(app, headers, (&Span::none(), started), refusal.status, &ran, &About::default());
            return refusal.into_response_as(media.content_type(), request_id(headers));
        }
    };
    let (asker, content_type) = (&asked.asker, (header::CONTENT_TYPE, media.content_type()));
    let memory = app.admission.answer_memory(owner(app, &asker.caller, asker.bearer.as_ref()));
    // What an answer was written in is given back once it is counted as one that is sent.
    let (taken, mut all_held) = (Taken::default(), Vec::new());
    let (mut is_owed, mut count) = (false, None);
    let response = match asked.wires {
        Wires::One(wire) => match run(app, headers, media, asker, *wire, taken).await {
            Ok(mut answer) => {
                is_owed = answer.is_owed;
                all_held.push(std::mem::take(&mut answer.held));
                respond(media, asker, answer)
            }
            Err(refusal) => {
                is_owed = refusal == TIMEOUT;
                let only_queries = refusal.status == StatusCode::METHOD_NOT_ALLOWED;
                let response = refusal.into_response_as(media.content_type(), request_id(headers));
                if only_queries { with_allow(response, "POST") } else { response }
            }
        },
        Wires::Batch(wires) => {
            let running = wires.into_iter().map(|wire| run(app, headers, media, asker, wire, taken.clone()));
            let mut body = Vec::new();
            let answers = join_all(running).await;
            count = Some(answers.len());
            for answer in answers {
                is_owed |=
                    answer.as_ref().map_or_else(|refusal| *refusal == TIMEOUT, |answer| answer.is_owed);
                body.push(if body.is_empty() { b'[' } else { b',' });
                match answer {
                    Ok(Answer { body: one, held, .. }) => {
                        body.extend(one);
                        all_held.push(held);
                    }
                    Err(refusal) => body.extend(refusal.body(request_id(headers))),
                }
            }
            body.push(b']');
            (StatusCode::OK, [content_type, (header::CACHE_CONTROL, "no-store")], body).into_response()
        }
    };
    let refuse = |overloaded: Refusal| overloaded.into_response_as(media.content_type(), request_id(headers));
    let response = if is_owed {
        hold_owed(response, memory, (count, request_id(headers)))
    } else {
        hold(response, memory).unwrap_or_else(|OutOfMemory| refuse(OutOfMemory.into()))
    };
    drop(all_held);
    response
}

/// The same for the answer to what was done. If it does not fit at all, at least that is told, to each request of an array
/// of `count`.
pub(super) fn hold_owed(
    mut response: Response,
    mut memory: MemoryReservation,
    (count, request_id): (Option<usize>, &str),
) -> Response {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    if memory.grow_owed(usize::try_from(bytes).unwrap_or(usize::MAX)).is_err() {
        let one = DONE.body(request_id);
        // The request ran, so there is an entry `data` (GraphQL, October 2021, §7.1).
        let one = [b"{\"data\":null,", one.get(1..).unwrap_or_default()].concat();
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

/// Lets an answer hold the memory that it takes until it is sent.
fn hold(mut response: Response, mut memory: MemoryReservation) -> Result<Response, OutOfMemory> {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    memory.grow(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    response.extensions_mut().insert(AnswerMemory::from(memory));
    Ok(response)
}

fn respond(media: Media, asker: &Asker, answer: Answer) -> Response {
    let Answer { status, body, cache, is_whole, digest, .. } = answer;
    let body = Bytes::from(body);
    let mut response = if asker.is_get {
        let answer = caching::Answer { policy: cache, is_whole, digest };
        caching::respond(answer, status, media.content_type(), body)
    } else {
        let control = caching::control(cache);
        (status, [(header::CONTENT_TYPE, media.content_type())], [(header::CACHE_CONTROL, control)], body)
            .into_response()
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
    asker: &Asker,
    wire: Wire,
    taken: Taken,
) -> Result<Answer, Refusal> {
    let started = Instant::now();
    let span = tracing::debug_span!(
        target: SPANS, "graphql", otel.name = "graphql", otel.status_code = Empty,
        graphql.operation.type = Empty, graphql.operation.name = Empty, graphql.document.id = Empty,
        graphql.client.name = Empty, graphql.client.version = Empty, enduser.id = Empty,
        request_id = request_id(headers),
    );
    let mut about = About::of(app, asker, &wire);
    let running = execute(app, headers, asker, wire, &mut about, taken).instrument(span.clone());
    let result = tokio::time::timeout(app.http.request_timeout, running).await;
    match result.unwrap_or(Err(TIMEOUT)) {
        Ok(reply) => {
            let status = match media {
                Media::Graphql if !reply.executed => StatusCode::BAD_REQUEST,
                Media::Graphql | Media::Json => StatusCode::OK,
            };
            let ran = Ran::answered(&reply);
            record(app, headers, (&span, started), status, &ran, &about);
            // On the server's span: one for each call of a gateway.
            for (name, count) in &reply.entities {
                Span::current().set_attribute(format!("federation.entities.{name}"), i64::from(*count));
            }
            let is_whole = ran.outcome == Outcome::Ok;
            let is_owed = reply.executed && reply.operation == Some(OperationKind::Mutation);
            let Reply { body, held, cache, cache_token, retry_after_seconds, digest, .. } = reply;
            Ok(Answer {
                status,
                body,
                held,
                is_owed,
                cache,
                cache_token,
                retry_after_seconds,
                is_whole,
                digest,
            })
        }
        Err(refusal) => {
            record(app, headers, (&span, started), refusal.status, &Ran::refused(&refusal), &about);
            Err(refusal)
        }
    }
}

async fn execute(
    app: &App,
    headers: &HeaderMap,
    asker: &Asker,
    mut wire: Wire,
    about: &mut About,
    taken: Taken,
) -> Result<Reply, Refusal> {
    let document = match find_document(app, headers, asker, &mut wire).await {
        Ok(document) => document,
        Err(stop) => return stop.into_reply(),
    };
    about.found(document.name(wire.operation_name.as_deref()));
    let kind = document.kind(wire.operation_name.as_deref());
    if asker.is_get && kind.is_some_and(|kind| kind != OperationKind::Query) {
        return Err(ONLY_QUERIES);
    }
    let request = schema::Request { taken, ..request(app, headers, asker, wire) };
    Ok(app.graph.execute_document(asker.viewer.clone(), document, request).await)
}

/// The same for who can wait for events. No GET writes there either.
pub(super) async fn open(
    app: &App,
    headers: &HeaderMap,
    asker: &Asker,
    mut wire: Wire,
    about: &mut About,
) -> Result<Opened, Refusal> {
    let document = match find_document(app, headers, asker, &mut wire).await {
        Ok(document) => document,
        Err(stop) => return stop.into_reply().map(Opened::Reply),
    };
    about.found(document.name(wire.operation_name.as_deref()));
    let kind = document.kind(wire.operation_name.as_deref());
    if asker.is_get && kind == Some(OperationKind::Mutation) {
        return Err(ONLY_QUERIES);
    }
    let request = request(app, headers, asker, wire);
    Ok(app.graph.open_document(asker.viewer.clone(), document, request).await)
}

/// Whether one operation is asked for, and it is a subscription.
pub(super) async fn is_subscription(app: &App, headers: &HeaderMap, asked: &mut Asked) -> bool {
    let Wires::One(wire) = &mut asked.wires else { return false };
    let found = find_document(app, headers, &asked.asker, wire).await;
    let document = found.as_ref().ok();
    let kind = document.and_then(|document| document.kind(wire.operation_name.as_deref()));
    wire.found = Some(found);
    kind == Some(OperationKind::Subscription)
}

fn request(app: &App, headers: &HeaderMap, asker: &Asker, wire: Wire) -> schema::Request {
    schema::Request {
        query: String::new(),
        operation_name: wire.operation_name,
        variables: wire.variables,
        trace: wants_trace(app, headers, asker),
        cache_tags: app.gateway.cache_tags && asker.caller.is_gateway,
        entities: !Span::current().is_disabled(),
        explain: app.development && headers.get("x-explain").is_some_and(|value| value == "1"),
        cache_token: headers.get(CACHE_TOKEN).and_then(|token| token.to_str().ok()).map(ToOwned::to_owned),
        caller: asker.caller.clone(),
        taken: Taken::default(),
    }
}

/// Times are told to those who may ask for the schema.
fn wants_trace(app: &App, headers: &HeaderMap, asker: &Asker) -> bool {
    headers.get(INCLUDE_TRACE).is_some_and(|kind| kind == "ftv1")
        && (asker.caller.is_gateway || !app.gateways_only)
}

async fn find_document(
    app: &App,
    headers: &HeaderMap,
    asker: &Asker,
    wire: &mut Wire,
) -> Result<Arc<Document>, Stop> {
    if let Some(found) = wire.found.take() {
        return found;
    }
    let persisted = wire.persisted_query();
    let is_by_specification = asker.id_in_path.is_some() || wire.document_id.is_some();
    let asked = documents::Asked {
        text: wire.query.as_deref().filter(|text| !text.is_empty()),
        id: asker.document_id(app, wire),
        is_apq: !is_by_specification && persisted.is_some(),
        is_version_1: persisted.is_some_and(|persisted| persisted.is_version_1),
        operation_name: wire.operation_name.as_deref(),
        caller: &asker.caller,
        client: about::client(headers),
    };
    let found = app.documents.find(&app.graph, &asker.viewer, asked).await;
    if !asker.has_bad_token {
        return found;
    }
    match found {
        Ok(document) if document.only_lets_in(wire.operation_name.as_deref()) => Ok(document),
        // Clients that register their documents send the text next: it may be one of these.
        Err(Stop::Refused(refusal)) if refusal.status == StatusCode::OK => Err(refusal.into()),
        Ok(_) | Err(_) => Err(unauthenticated(asker.caller.is_gateway).into()),
    }
}

/// What is told about a request afterwards.
pub(super) struct Ran<'a> {
    kind: Option<OperationKind>,
    outcome: Outcome,
    statements: u32,
    codes: Cow<'a, [&'static str]>,
}

impl<'a> Ran<'a> {
    /// It got an answer.
    pub(super) fn answered(reply: &'a Reply) -> Self {
        let outcome = match (reply.executed, reply.codes.is_empty()) {
            (true, true) => Outcome::Ok,
            (true, false) => Outcome::Errors,
            (false, _) => Outcome::Refused,
        };
        Self {
            kind: reply.operation,
            outcome,
            statements: reply.statements,
            codes: Cow::Borrowed(&reply.codes),
        }
    }

    /// Its answers come later.
    pub(super) fn begun(kind: OperationKind) -> Self {
        Self { kind: Some(kind), outcome: Outcome::Ok, statements: 0, codes: Cow::Borrowed(&[]) }
    }

    /// It did not run, or not to its end.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let outcome = if *refusal == TIMEOUT { Outcome::Timeout } else { Outcome::Refused };
        Self { kind: None, outcome, statements: 0, codes: Cow::Owned(vec![refusal.code]) }
    }
}

/// The metrics, the span's end and the one log line of a request.
pub(super) fn record(
    app: &App,
    headers: &HeaderMap,
    (span, started): (&Span, Instant),
    status: StatusCode,
    ran: &Ran<'_>,
    about: &About,
) {
    let took = started.elapsed();
    app.metrics.operation(ran.kind, ran.outcome, took, &ran.codes);
    let kind = kind_name(ran.kind);
    if !span.is_disabled() {
        // Named by its type only: names of operations are the caller's, and without end.
        span.context().span().update_name(kind);
        span.record("graphql.operation.type", kind);
        about.record(span, headers);
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
        target: OPERATIONS, operation = kind, operation_name = about.operation_name, document_id = about.document_id,
        viewer = about.viewer.map(tracing::field::display), client_name = about::client_name(headers),
        client_version = about::client_version(headers), ms = took.as_micros() as f64 / 1000.0,
        statements = ran.statements, codes, status = status.as_u16(), request_id = request_id(headers), trace_id,
        "operation",
    );
}

fn with_allow(mut response: Response, methods: &'static str) -> Response {
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
