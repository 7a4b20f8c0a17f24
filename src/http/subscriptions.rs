//! Subscriptions over HTTP: `graphql-transport-ws` on a WebSocket (`websocket`), as the body of an answer
//! (`body`: server-sent events, `sse`, and Apollo's `multipart`), and by calling back (`callback`). Here is
//! what all share: which requests are theirs, how an operation becomes answers, and what ends a stream from
//! outside: the end of its session or token, that of the server, that the database was restored, and that
//! there is no memory to send them. What is sent counts as memory by `sent`. How many there may be is in
//! `quotas`. Not here: what an event is (`schema::Event`).

mod body;
mod callback;
mod multipart;
mod quotas;
mod sent;
mod sse;
mod websocket;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use futures_util::{
    StreamExt as _, future,
    stream::{self, BoxStream},
};
use schema::{
    Access, Chunks, Event, Opened, OperationKind, Progress, Reply, VariableSets, auth::token::Bearer,
};
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

pub(crate) use callback::Callbacks;
pub(crate) use quotas::Quotas;

use quotas::{QuotaPermit, TOO_MANY_SUBSCRIPTIONS};

use super::{
    cors::Page,
    graphql::{self, RequestSummary, Requester},
    memory::MemoryReservation,
    params::GraphQLParams,
    request_id,
};
use crate::{App, rejection::Rejection};

/// Tells all streams that the server is about to end.
#[derive(Debug)]
pub(crate) struct Closing(watch::Sender<bool>);

impl Default for Closing {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Closing {
    /// From now on streams end.
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Done when it begins.
    pub(crate) fn begun(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closing = self.0.subscribe();
        async move {
            // The sender lives as long as the server.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }
}

/// In front of the routes of plain GraphQL: takes the requests that want a stream. What these take is not
/// held for others.
pub(super) async fn intercept(State(app): State<App>, request: Request, next: Next) -> Response {
    if websocket::is_asked_for(request.headers()) {
        return websocket::upgrade(app, request);
    }
    if request.method() == Method::POST && callback::is_asked_for(request.headers()) {
        return Box::pin(callback::serve(app, request)).await;
    }
    match body::StreamRequest::of(request.headers()) {
        Some(incoming) => Box::pin(body::serve(app, incoming, None, request)).await,
        None => next.run(request).await,
    }
}

/// In front of the routes of documents by their id: takes the requests whose answers may come in lines.
pub(super) async fn intercept_by_id(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
    next: Next,
) -> Response {
    match body::StreamRequest::of_lines(request.headers()) {
        Some(incoming) => Box::pin(body::serve(app, incoming, Some(id), request)).await,
        None => next.run(request).await,
    }
}

/// Why a stream ends although nobody asked it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The session was ended, or the account's rights changed.
    Revoked,
    /// The access token ran out.
    Expired,
    /// The server stops.
    Closing,
    /// What was told may not be true any more.
    Interrupted,
    /// There is no memory to send what happened.
    OutOfMemory,
}

const REVOKED: Rejection = Rejection::new(StatusCode::OK, "UNAUTHENTICATED", "The session has ended.");
const EXPIRED: Rejection = Rejection::new(StatusCode::OK, "UNAUTHENTICATED", "The access token has expired.");
const STOPPING: Rejection =
    Rejection::new(StatusCode::OK, "SUBSCRIPTION_INTERRUPTED", "The server stops: subscribe again.");
const OUT_OF_MEMORY: Rejection = Rejection::new(
    StatusCode::OK,
    "OVERLOADED",
    "The server cannot hold this answer now (http.max_answer_memory): read what was sent, then ask again.",
);
const INTERRUPTED: Rejection = Rejection::new(
    StatusCode::OK,
    "SUBSCRIPTION_INTERRUPTED",
    "Another database took over, or a backup was restored: read what you need again, then subscribe again.",
);

impl End {
    /// What is told of it.
    fn reply(self, headers: &HeaderMap) -> Reply {
        let told = match self {
            Self::Revoked => REVOKED,
            Self::Expired => EXPIRED,
            Self::Closing => STOPPING,
            Self::Interrupted => INTERRUPTED,
            Self::OutOfMemory => OUT_OF_MEMORY,
        };
        told.into_reply(request_id(headers))
    }

    /// Whether it helps nobody to come back: after all others a client subscribes again, with a fresh token.
    fn is_final(self) -> bool {
        self == Self::Revoked
    }
}

/// Done when a stream of this caller has to end.
fn end(app: &App, bearer: Option<Bearer>) -> impl Future<Output = End> + Send + use<> {
    let (access, closing) = (app.access.clone(), app.closing.begun());
    let changed = app.store.revocations().changed();
    async move {
        tokio::select! {
            () = closing => End::Closing,
            end = not_good_any_more(access, bearer, changed) => end,
        }
    }
}

async fn not_good_any_more(access: Access, bearer: Option<Bearer>, mut changed: watch::Receiver<u64>) -> End {
    let Some(bearer) = bearer else { return std::future::pending().await };
    let left = (bearer.expires_at - entities::clock::now()).to_std().unwrap_or_default();
    let expired = tokio::time::sleep(left);
    let revoked = async {
        while !access.is_revoked(&bearer) {
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        () = expired => End::Expired,
        () = revoked => End::Revoked,
    }
}

/// What comes of an operation that may take its time.
enum Begun {
    /// Its answers, for as long as it goes on.
    Answers(BoxStream<'static, Event>),
    /// Its only answer.
    Answer(Box<Reply>),
}

/// Begins an operation; from then on no event is missed. What was received of it counts as memory as long as
/// it goes on.
async fn begin(
    app: App,
    headers: Arc<HeaderMap>,
    requester: Requester,
    (mut params, received): (GraphQLParams, Option<MemoryReservation>),
    transport: &'static str,
) -> Begun {
    if matches!(params.variables, VariableSets::Many(_)) {
        return Begun::Answers(answers_of_sets(app, headers, requester, (params, received)));
    }
    let (started, span) = (Instant::now(), graphql::span_on_stream(&headers));
    let mut about = requester.about(&app, &params);
    let progress = Progress::default();
    // Waiting for events takes no permit, asking for them and every other operation does.
    let opened = match graphql::permit(&app, &headers, &requester, &mut params).await {
        Ok(_permit) => {
            let opening = graphql::open(&app, &headers, &requester, params, &mut about, progress.clone());
            let opening = opening.instrument(span.clone());
            let opened = tokio::time::timeout(app.http.request_timeout, opening).await;
            opened.unwrap_or_else(|_| Err(graphql::late(progress.commits.count() > 0, &requester)))
        }
        Err(overloaded) => Err(overloaded),
    };
    let opened = opened.and_then(|opened| counted(&app, &requester, opened));
    let summary = match &opened {
        Ok((Opened::Reply(reply), _)) => RequestSummary::of_reply(reply),
        Ok((Opened::Events(_), _)) => {
            RequestSummary::of_stream(about.kind.unwrap_or(OperationKind::Subscription))
        }
        Err(rejection) => RequestSummary::of_rejection(rejection).stopped(&progress),
    };
    graphql::record(&app, &headers, (&span, started), StatusCode::OK, &summary, &about);
    match opened {
        Ok((Opened::Events(events), counted)) => {
            let counted = (counted, app.metrics.begin_subscription(transport), received);
            // Held by the stream, so that it ends with it.
            Begun::Answers(events.inspect(move |_| _ = &counted).boxed())
        }
        Ok((Opened::Reply(reply), _)) => Begun::Answer(reply),
        Err(rejection) => Begun::Answer(Box::new(rejection.into_reply(request_id(&headers)))),
    }
}

/// The answers to several sets of variables, each as soon as it is written. They are made while the stream is
/// asked for them.
fn answers_of_sets(
    app: App,
    headers: Arc<HeaderMap>,
    requester: Requester,
    (params, received): (GraphQLParams, Option<MemoryReservation>),
) -> BoxStream<'static, Event> {
    let (written, mut told) = mpsc::unbounded_channel();
    let running = async move {
        let _received = received;
        let owner = graphql::owner(&app, &requester.caller, requester.bearer.as_ref());
        let only = match app.admission.acquire(owner) {
            Ok(_permit) => {
                // A reader who has gone takes none of them.
                let tell = |reply| drop(written.send(reply));
                {
                    let span = graphql::span_on_stream(&headers);
                    graphql::run_sets(&app, &headers, &requester, (span, params), tell).await
                }
            }
            Err(overloaded) => Err(overloaded),
        };
        only.unwrap_or_else(|rejection| Some(rejection.into_reply(request_id(&headers))))
    };
    // The only answer, where there are no others, is the last thing to come.
    let last = stream::once(running).filter_map(future::ready);
    let told = stream::poll_fn(move |cx| told.poll_recv(cx));
    stream::select(told, last).map(|reply| Event::Reply(Box::new(reply))).boxed()
}

/// A subscription counts among those of its account.
fn counted(
    app: &App,
    requester: &Requester,
    opened: Opened,
) -> Result<(Opened, Option<QuotaPermit>), Rejection> {
    if matches!(opened, Opened::Reply(_)) {
        return Ok((opened, None));
    }
    let counted = app.quotas.subscription_of(&requester.viewer).map_err(|_| TOO_MANY_SUBSCRIPTIONS)?;
    Ok((opened, Some(counted)))
}

/// Whether an operation waits for events; until that is known, and for all that have one answer, it does not.
#[derive(Clone, Debug, Default)]
struct Waits(Arc<AtomicBool>);

impl Waits {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An operation as a stream of answers. One that did not run (`Reply::executed`) is the last.
fn answers(
    app: App,
    headers: Arc<HeaderMap>,
    requester: Requester,
    incoming: (GraphQLParams, Option<MemoryReservation>),
    (transport, waits): (&'static str, Waits),
) -> BoxStream<'static, Event> {
    let beginning = async move {
        match begin(app, headers, requester, incoming, transport).await {
            Begun::Answers(answers) => {
                waits.0.store(true, Ordering::Relaxed);
                answers
            }
            Begun::Answer(reply) => stream::iter([Event::Reply(reply)]).boxed(),
        }
    };
    stream::once(beginning).flatten().boxed()
}

/// The array of errors of an answer that has nothing else.
fn errors_of(answer: Chunks) -> Vec<u8> {
    let body = answer.into_vec();
    let errors = body.strip_prefix(b"{\"errors\":").and_then(|rest| rest.strip_suffix(b"}"));
    errors.unwrap_or(b"[]").to_vec()
}

/// Is the request from a page of this server, of one of the configured origins, or from no page at all?
fn may_connect(app: &App, headers: &HeaderMap) -> bool {
    Page::of(&app.http, headers) != Page::Foreign
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ends_have_codes_and_only_revocation_is_final() {
        let headers = HeaderMap::new();
        let of = |end: End| (end.reply(&headers).codes, end.is_final());
        assert_eq!(of(End::Revoked), (vec!["UNAUTHENTICATED"], true));
        assert_eq!(of(End::Expired), (vec!["UNAUTHENTICATED"], false));
        assert_eq!(of(End::Closing), (vec!["SUBSCRIPTION_INTERRUPTED"], false));
        assert_eq!(of(End::Interrupted), (vec!["SUBSCRIPTION_INTERRUPTED"], false));
        assert_eq!(of(End::OutOfMemory), (vec!["OVERLOADED"], false));
    }
}
