//! Who asks, and for what: the requests of one HTTP request, read within bounds in the order of what the
//! checks cost, and the document that one means. Not here: what a body says (`params`), how it is received
//! (`receive`), and running it.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use schema::{
    Caller, Document, OperationKind, VariableSets, Viewer,
    auth::token::{Bearer, InvalidToken},
};

use super::idempotency_key;
use crate::{
    App, auth,
    config::setting::Playground,
    documents::{self, DocumentError},
    gateway::{self, Trust},
    http::{
        QUERY,
        about::{self, About},
        admission::Permit,
        cors::Page,
        media::is_json,
        memory::MemoryReservation,
        params::{self, Bounds, GraphQLParams, GraphQLRequest},
        peer::Peer,
        receive, request_id,
        shares::Owner,
    },
    rejection::Rejection,
};

const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
const CSRF: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "CSRF_PREVENTION",
    "A GET must show that it does not come from a foreign page: by an authorization, \
     apollo-require-preflight or x-apollo-operation-name header, by content-type: application/json, from a \
     page of this server (Sec-Fetch-Site), or from an Origin that http.cors_origins lists. A POST or a QUERY \
     needs none of these.",
);
const MEDIA_TYPE: Rejection = Rejection::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "BAD_USER_INPUT",
    "The body must be sent as content-type: application/json, in UTF-8.",
);

/// Requests that may go on, of one caller.
pub(in crate::http) struct IncomingRequest {
    pub(in crate::http) requester: Requester,
    pub(in crate::http) requests: GraphQLRequest,
    /// Leave to be worked on, and the memory for what it says. Kept until it is answered.
    pub(in crate::http) held: (Permit, Option<MemoryReservation>),
}

/// What all requests of one HTTP request share.
pub(in crate::http) struct Requester {
    pub(in crate::http) viewer: Viewer,
    /// What the viewer came with.
    pub(in crate::http) bearer: Option<Bearer>,
    pub(in crate::http) caller: Caller,
    pub(in crate::http) id_in_path: Option<String>,
    /// The caller's name for what it asks for, so that the same again is not done twice.
    pub(in crate::http) idempotency_key: Option<Arc<str>>,
    /// It came by GET or QUERY, so it must not write; its answer may be kept.
    pub(in crate::http) is_safe: bool,
    /// The token that came along is not valid. Nobody acts for it, and only what gets a new one may run.
    pub(in crate::http) has_bad_token: bool,
}

impl Requester {
    /// The id that a document is asked for by, if it is.
    pub(in crate::http) fn document_id<'w>(
        &'w self,
        app: &App,
        params: &'w GraphQLParams,
    ) -> Option<&'w str> {
        let by_specification = self.id_in_path.as_deref().or(params.document_id.as_deref());
        let by_apollo = || params.persisted_query().map(|persisted| persisted.hash);
        let elsewhere = || if app.documents.looks_further() { params.other_id() } else { None };
        by_specification.or_else(by_apollo).or_else(elsewhere)
    }

    /// What is known of one of its requests before its document is found.
    pub(in crate::http) fn about(&self, app: &App, params: &GraphQLParams) -> About {
        let document_id = self.document_id(app, params);
        About::new(params.operation_name.as_deref(), document_id, self.viewer.user_id())
    }
}

/// Reads a request with a body: by POST or, where it asks only, by QUERY.
pub(in crate::http) async fn read_body(
    app: &App,
    id: Option<String>,
    parts: &Parts,
    body: Body,
) -> Result<IncomingRequest, Rejection> {
    if !is_json(&parts.headers) {
        return Err(MEDIA_TYPE);
    }
    let head = app.gateways().head(parts)?;
    let bearer = auth::bearer(&app.access, &parts.headers);
    let (has_bad_token, trust) = (bearer.is_err(), head.trust);
    let read = read_body_of(app, id, parts, body, head, bearer).await;
    // A bad token is as none until it is known what is asked for. Whatever else is wrong with the request is said once
    // its token is good; that the server is busy is said now, or the client would think its session over.
    let mut incoming = read.map_err(|rejection| match rejection.status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            rejection
        }
        _ if has_bad_token => unauthenticated(trust.is_gateway()),
        _ => rejection,
    })?;
    if incoming.requester.has_bad_token {
        let GraphQLRequest::One(params) = &mut incoming.requests else {
            return Err(unauthenticated(incoming.requester.caller.is_gateway));
        };
        // Before it is decided how the answer is sent.
        let found = Box::pin(find_document(app, &parts.headers, &incoming.requester, params)).await;
        // Gateways read the errors of a subscription where its events would come.
        let is_told_later = params.is_refused_subscription && incoming.requester.caller.is_gateway;
        match found {
            Err(DocumentError::Rejected(rejection))
                if rejection.code == UNAUTHENTICATED && !is_told_later =>
            {
                return Err(rejection);
            }
            found => params.found = Some(found),
        }
    }
    if incoming.held.0.has_priority() {
        incoming = Box::pin(with_priority(app, &parts.headers, incoming)).await?;
    }
    Ok(incoming)
}

/// Leave that was given because of what the request may mean is kept if it does.
async fn with_priority(
    app: &App,
    headers: &HeaderMap,
    mut incoming: IncomingRequest,
) -> Result<IncomingRequest, Rejection> {
    let mut has_priority = false;
    if let GraphQLRequest::One(params) = &mut incoming.requests {
        let found = find_document(app, headers, &incoming.requester, params).await;
        let name = params.operation_name.as_deref();
        has_priority = match &found {
            Ok(document) => document.has_priority(name),
            // Clients that register their documents send the text next.
            Err(DocumentError::Rejected(_)) => true,
            Err(DocumentError::Invalid(_)) => false,
        };
        params.found = Some(found);
    }
    if !has_priority {
        incoming.held.0 = incoming.held.0.without_priority()?;
    }
    Ok(incoming)
}

/// Leave for one request whose parameters are known.
pub(in crate::http) async fn permit(
    app: &App,
    headers: &HeaderMap,
    requester: &Requester,
    params: &mut GraphQLParams,
) -> Result<Permit, Rejection> {
    let owner = owner(app, &requester.caller, requester.bearer.as_ref());
    let overloaded = match app.admission.acquire(owner.clone()) {
        Ok(permit) => return Ok(permit),
        Err(overloaded) => overloaded,
    };
    let text = params.query.as_deref().unwrap_or_default().as_bytes();
    if !app.documents.may_have_priority(text, requester.document_id(app, params)) {
        return Err(overloaded);
    }
    let permit = app.admission.acquire_with_priority(owner)?;
    let found = find_document(app, headers, requester, params).await;
    let name = params.operation_name.as_deref();
    let has_priority = found.as_ref().is_ok_and(|document| document.has_priority(name));
    params.found = Some(found);
    if has_priority { Ok(permit) } else { Err(overloaded) }
}

async fn read_body_of(
    app: &App,
    id: Option<String>,
    parts: &Parts,
    body: Body,
    head: gateway::Head,
    bearer: Result<Option<Bearer>, InvalidToken>,
) -> Result<IncomingRequest, Rejection> {
    let is_anonymous = !matches!(bearer, Ok(Some(_)));
    let mut bounds = bounds(app, is_anonymous, head.trust);
    if app.gateways().may_sign_in_body() {
        bounds.batch = bounds.batch.max(app.gateway.max_batch);
        bounds.sets = bounds.sets.max(app.gateway.max_batch);
    }
    let caller = caller(app, parts, head.trust);
    let signed_in = bearer.as_ref().ok().and_then(Option::as_ref);
    let owner = owner(app, &caller, signed_in);
    app.admission.check_answers(&owner)?;
    let mut memory = app.admission.request_memory(owner.clone())?;
    let received = receive::receive(&parts.headers, body, &app.http, bounds.bytes, &mut memory).await?;
    // A digest is of the bytes as they were sent (RFC 9530, section 2).
    head.check_body(received.as_sent())?;
    let body = received.decode(bounds.bytes, &mut memory).await?;
    // Leave is taken once there is something to work on: who sends slowly keeps nobody out.
    let permit = app.admission.acquire(owner.clone()).or_else(|overloaded| {
        // Whether it has will be known when it is read.
        let may_have_priority = app.documents.may_have_priority(&body, id.as_deref());
        if may_have_priority { app.admission.acquire_with_priority(owner) } else { Err(overloaded) }
    })?;
    let requests = params::of_body(&body, bounds, &mut memory)?;
    let is_safe = parts.method.as_str() == QUERY;
    // What does not write needs none.
    let idempotency_key = if is_safe { None } else { idempotency_key::of(&parts.headers, &requests)? };
    let requester = requester(app, caller, head.trust, bearer, &requests, id)?;
    let requester = Requester { idempotency_key, is_safe, ..requester };
    Ok(IncomingRequest { requester, requests, held: (permit, Some(memory)) })
}

pub(in crate::http) fn read_get(
    app: &App,
    id: Option<String>,
    parts: &Parts,
) -> Result<IncomingRequest, Rejection> {
    if !is_meant(app, &parts.headers) {
        return Err(CSRF);
    }
    let head = app.gateways().head(parts)?;
    let bearer = auth::bearer(&app.access, &parts.headers);
    // No GET gets a new token. A gateway is told in its own way, and may prove itself by its request only.
    if bearer.is_err() && !app.gateways().may_sign_in_body() {
        return Err(unauthenticated(head.trust.is_gateway()));
    }
    let caller = caller(app, parts, head.trust);
    let signed_in = bearer.as_ref().ok().and_then(Option::as_ref);
    let owner = owner(app, &caller, signed_in);
    app.admission.check_answers(&owner)?;
    let permit = app.admission.acquire(owner)?;
    // A list of sets of variables is sent in a body.
    let bounds = Bounds { sets: 0, ..bounds(app, !matches!(bearer, Ok(Some(_))), head.trust) };
    let requests = GraphQLRequest::One(Box::new(params::of_uri(&parts.uri, bounds)?));
    requests.check_length(bounds)?;
    let requester = Requester { is_safe: true, ..requester(app, caller, head.trust, bearer, &requests, id)? };
    Ok(IncomingRequest { requester, requests, held: (permit, None) })
}

/// Who asks, now that it is known what for; counted against their rate.
fn requester(
    app: &App,
    caller: Caller,
    head: Trust,
    bearer: Result<Option<Bearer>, InvalidToken>,
    requests: &GraphQLRequest,
    id_in_path: Option<String>,
) -> Result<Requester, Rejection> {
    let wired = requests.as_slice();
    let by_text = id_in_path.is_none();
    let proven = wired.iter().map(|params| {
        let text = params.own_text().filter(|_| by_text);
        app.gateways().signed_body(head, params.extension("hmac-signature"), text, &params.variables)
    });
    let trust = proven.collect::<Result<Vec<_>, _>>()?.into_iter().min().unwrap_or(head);
    let bearer = end_user(app, trust, bearer, wired);
    let has_bad_token = bearer.is_err();
    let bearer = bearer.unwrap_or_default();
    requests.check_length(bounds(app, bearer.is_none(), trust))?;
    let viewer = bearer.as_ref().map_or(Viewer::Anonymous, |bearer| bearer.viewer.clone());
    let in_batch = requests.is_batch();
    let may_introspect = app.http.playground == Playground::Admins && viewer.is_admin();
    let caller = Caller { in_batch, is_gateway: trust.is_gateway(), may_introspect, ..caller };
    app.admission.check_rate(&viewer, &caller, requests.count())?;
    let (idempotency_key, is_safe) = (None, false);
    Ok(Requester { viewer, bearer, caller, id_in_path, idempotency_key, is_safe, has_bad_token })
}

/// The end user: of the token that came along, or, where that is switched on, whom a gateway has claims of.
fn end_user(
    app: &App,
    trust: Trust,
    bearer: Result<Option<Bearer>, InvalidToken>,
    requests: &[GraphQLParams],
) -> Result<Option<Bearer>, InvalidToken> {
    if !matches!(bearer, Ok(None)) || !app.gateway.claims {
        return bearer;
    }
    let mut claims = requests.iter().map(|params| gateway::claims(trust, params.extension("jwt")));
    let first = claims.next().flatten();
    if claims.any(|other| other != first) {
        return Err(InvalidToken("an array of requests has claims of several users"));
    }
    first.map(|claims| app.access.accept(claims.clone())).transpose()
}

/// Gateways make one error of an answer that is not 200, whatever it says.
pub(in crate::http) fn unauthenticated(is_gateway: bool) -> Rejection {
    let status = if is_gateway { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    Rejection::new(status, UNAUTHENTICATED, "The access token is not valid.")
}

/// From where and with what the request was sent.
pub(in crate::http) fn caller(app: &App, parts: &Parts, trust: Trust) -> Caller {
    let peer = parts.extensions.get::<Peer>();
    let found = peer.map(|Peer(peer)| app.forwarding.client_address(*peer, &parts.headers));
    let address = found.map(|(address, _)| address);
    let forwarded_address = found.and_then(|(address, is_forwarded)| is_forwarded.then_some(address));
    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    // A gateway whose client has sent none says so by an empty one, or it would send its own.
    let agent = agent.filter(|agent| !agent.is_empty());
    let request_id = Arc::from(request_id(&parts.headers));
    let (user_agent, is_gateway) = (agent.map(Arc::from), trust.is_gateway());
    let (in_batch, may_introspect) = (false, false);
    Caller { address, forwarded_address, user_agent, in_batch, request_id, is_gateway, may_introspect }
}

/// On whose account memory is held for this caller.
pub(in crate::http) fn owner(app: &App, caller: &Caller, bearer: Option<&Bearer>) -> Owner {
    let account = bearer.and_then(|bearer| bearer.viewer.user_id());
    // Gateways and proxies ask for everybody.
    let asks_for_many =
        caller.is_gateway || caller.address.is_some_and(|address| app.http.trusted_proxies.contains(address));
    let address = if asks_for_many { None } else { caller.customer() };
    Owner { address, account, is_gateway: caller.is_gateway }
}

/// On whose account a request is that has not been read: as far as its head says.
pub(in crate::http) fn sender(app: &App, parts: &Parts) -> Owner {
    let peer = parts.extensions.get::<Peer>();
    let address = peer.map(|Peer(peer)| app.forwarding.client_address(*peer, &parts.headers).0);
    let bearer = auth::bearer(&app.access, &parts.headers).ok().flatten();
    owner(app, &Caller { address, ..Caller::default() }, bearer.as_ref())
}

/// How much a caller may send.
pub(in crate::http) fn bounds(app: &App, is_anonymous: bool, trust: Trust) -> Bounds {
    let http = &app.http;
    let (bytes, values, batch, sets) = if trust.is_gateway() {
        let bytes = app.gateway.body_limit.max(http.body_limit_signed_in);
        (bytes, http.max_json_values_signed_in, app.gateway.max_batch, app.gateway.max_batch)
    } else if is_anonymous {
        (http.body_limit_anonymous, http.max_json_values_anonymous, 0, 0)
    } else {
        (http.body_limit_signed_in, http.max_json_values_signed_in, http.max_batch, http.max_variable_sets)
    };
    let batch = if batch > 1 { batch } else { 0 };
    Bounds { bytes: bytes.0, depth: http.max_json_depth, values, batch, sets }
}

/// Whether a GET can be no link or image of a foreign page. No such page could read the answer, and there is
/// no cookie that a browser would add; but it could make its visitors' browsers ask.
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

/// Whether one operation is asked for, and it goes on: a subscription, or a live query.
pub(in crate::http) async fn goes_on(app: &App, headers: &HeaderMap, incoming: &mut IncomingRequest) -> bool {
    let GraphQLRequest::One(params) = &mut incoming.requests else { return false };
    let found = find_document(app, headers, &incoming.requester, params).await;
    let document = found.as_ref().ok();
    let name = params.operation_name.as_deref();
    let goes_on = document.is_some_and(|document| {
        // A list of sets of variables is answered once.
        let is_live = || document.is_live(name) && !matches!(params.variables, VariableSets::Many(_));
        document.kind(name) == Some(OperationKind::Subscription) || is_live()
    });
    params.found = Some(found);
    goes_on || params.is_refused_subscription
}

pub(super) async fn find_document(
    app: &App,
    headers: &HeaderMap,
    requester: &Requester,
    params: &mut GraphQLParams,
) -> Result<Arc<Document>, DocumentError> {
    if let Some(found) = params.found.take() {
        return found;
    }
    let persisted = params.persisted_query();
    let is_by_specification = requester.id_in_path.is_some() || params.document_id.is_some();
    let incoming = documents::DocumentRequest {
        text: params.query.as_deref().filter(|text| !text.is_empty()),
        id: requester.document_id(app, params),
        is_apq: !is_by_specification && persisted.is_some(),
        is_version_1: persisted.is_some_and(|persisted| persisted.is_version_1),
        operation_name: params.operation_name.as_deref(),
        caller: &requester.caller,
        client: about::client(headers),
    };
    let found = app.documents.find(&app.graph, &requester.viewer, incoming).await;
    if !requester.has_bad_token {
        return found;
    }
    match found {
        Ok(document) if document.only_signs_in(params.operation_name.as_deref()) => Ok(document),
        // Clients that register their documents send the text next: it may be one of these.
        Err(DocumentError::Rejected(rejection)) if rejection.status == StatusCode::OK => {
            Err(rejection.into())
        }
        found => {
            let kind = found.ok().and_then(|document| document.kind(params.operation_name.as_deref()));
            params.is_refused_subscription = kind == Some(OperationKind::Subscription);
            Err(unauthenticated(requester.caller.is_gateway).into())
        }
    }
}
