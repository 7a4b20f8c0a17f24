//! Subscriptions over HTTP: `graphql-transport-ws` on a WebSocket (`websocket`), as the body of an answer (`body`:
//! server-sent events, `sse`, and Apollo's `multipart`), and by calling back (`callback`). Here is what all share: which
//! requests are theirs, how an operation becomes answers, and what ends a stream from outside: the end of its session or
//! token, and that of the server. Not here: what an event is (`schema::Events`).

mod body;
mod callback;
mod multipart;
mod sse;
mod websocket;

use std::{future::Future, sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use schema::{Access, Opened, OperationKind, Reply, token::Bearer};
use tokio::sync::watch;
use tracing::Span;

pub(crate) use callback::Callbacks;

use super::{
    about::About,
    cors::Page,
    graphql::{self, Asker, Ran},
    request_id,
    wire::Wire,
};
use crate::App;

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

/// In front of the routes of plain GraphQL: takes the requests that want a stream.
pub(super) async fn intercept(State(app): State<App>, request: Request, next: Next) -> Response {
    if websocket::is_asked_for(request.headers()) {
        return websocket::upgrade(app, request).await;
    }
    if request.method() == Method::POST && callback::is_asked_for(request.headers()) {
        return callback::serve(app, request).await;
    }
    match body::Asked::of(request.headers()) {
        Some(asked) => body::serve(app, asked, request).await,
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
    Answers(BoxStream<'static, Reply>),
    /// Its only answer.
    Answer(Reply),
}

/// Begins an operation; from then on no event is missed.
async fn begin(
    app: App,
    headers: Arc<HeaderMap>,
    asker: Asker,
    wire: Wire,
    transport: &'static str,
) -> Begun {
    let started = Instant::now();
    let mut about = About::of(&app, &asker, &wire);
    // Waiting for events takes no permit, asking for them and every other operation does.
    let opened = match app.admission.enter() {
        Ok(_permit) => {
            let opening = graphql::open(&app, &headers, &asker, wire, &mut about);
            let opened = tokio::time::timeout(app.http.request_timeout, opening).await;
            opened.unwrap_or(Err(graphql::TIMEOUT))
        }
        Err(overloaded) => Err(overloaded),
    };
    let ran = match &opened {
        Ok(Opened::Reply(reply)) => Ran::answered(reply),
        Ok(Opened::Events(_)) => Ran::begun(OperationKind::Subscription),
        Err(refusal) => Ran::refused(refusal),
    };
    graphql::record(&app, &headers, (&Span::none(), started), StatusCode::OK, &ran, &about);
    match opened {
        Ok(Opened::Events(events)) => {
            let counted = app.metrics.begin_subscription(transport);
            // Held by the stream, so that it ends with it.
            Begun::Answers(events.inspect(move |_| _ = &counted).boxed())
        }
        Ok(Opened::Reply(reply)) => Begun::Answer(reply),
        Err(refusal) => Begun::Answer(refusal.into_reply(request_id(&headers))),
    }
}

/// An operation as a stream of answers. One that did not run (`Reply::executed`) is the last.
fn answers(
    app: App,
    headers: Arc<HeaderMap>,
    asker: Asker,
    wire: Wire,
    transport: &'static str,
) -> BoxStream<'static, Reply> {
    let beginning = async move {
        match begin(app, headers, asker, wire, transport).await {
            Begun::Answers(answers) => answers,
            Begun::Answer(reply) => stream::iter([reply]).boxed(),
        }
    };
    stream::once(beginning).flatten().boxed()
}

/// The array of errors of an answer that has nothing else.
fn errors_of(body: &[u8]) -> &[u8] {
    let errors = body.strip_prefix(b"{\"errors\":").and_then(|rest| rest.strip_suffix(b"}"));
    errors.unwrap_or(b"[]")
}

/// Is the request from a page of this server, of one of the configured origins, or from no page at all?
fn may_connect(app: &App, headers: &HeaderMap) -> bool {
    Page::of(&app.http, headers) != Page::Foreign
}
