//! `graphql-transport-ws` (the protocol of the npm package `graphql-ws`) on a WebSocket: queries, mutations
//! and subscriptions, many at a time. One task a socket; it reads, runs operations, and writes, so a client
//! that does not read stops its own operations, and one that does not read for long is cut off. How a socket
//! begins is in `handshake`, who it is of in `greeting`, its frames and messages are in `frames`, what they
//! say in `message`, how it ends in `close`. Not here: what is answered.

use std::{
    collections::HashMap,
    future::pending,
    ops::ControlFlow::{self, Break, Continue},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, AbortHandle, BoxStream, SelectAll},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use schema::{Caller, Event, OperationKind, Reply, Viewer, auth::token::Bearer};
use serde_json::value::RawValue;

use super::{
    End, OUT_OF_MEMORY, Waits, answers, end, errors_of,
    quotas::{QuotaPermit, TOO_MANY_SOCKETS},
    sent,
};
use crate::{
    App,
    gateway::Trust,
    http::{
        connection_timeouts::InFlight,
        cors,
        graphql::{self, Requester, caller},
        memory::MemoryReservation,
        outgoing::Pace,
        params::{self, Bounds, GraphQLParams, GraphQLRequest},
        request_id,
        shares::Owner,
    },
    rejection::Rejection,
};

mod close;
mod frames;
mod greeting;
mod handshake;
mod message;

pub(super) use handshake::is_asked_for;

use close::Close;
use frames::{ClientFrame, MessageLimits, Socket, SocketError};
use handshake::Handshake;
use message::ClientMessage;

/// How often a client is asked whether it is still there; who is silent for two such times is not.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long the closing handshake may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Operations of a socket at a time.
const MAX_OPERATIONS: usize = 50;
/// Longest message until a token was accepted, bytes.
const LONGEST_UNTIL_TOKEN: usize = 64 << 10;

pub(super) fn upgrade(app: App, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if !super::may_connect(&app, &parts.headers) {
        return cors::foreign(&parts.headers).into_response(request_id(&parts.headers));
    }
    let handshake = match Handshake::read(&mut parts) {
        Ok(handshake) => handshake,
        Err(rejection) => return handshake::refuse(rejection, request_id(&parts.headers)),
    };
    let in_flight = parts.extensions.get::<InFlight>().cloned();
    // A signature covers the handshake, and nothing that is sent afterwards.
    let trust = match app.gateways().head(&parts) {
        Ok(head) if head.trust == Trust::Connection => head.trust,
        Ok(_) => Trust::Nothing,
        Err(rejection) => return rejection.into_response(request_id(&parts.headers)),
    };
    let caller = caller(&app, &parts, trust);
    let owner = graphql::owner(&app, &caller, None);
    let Ok(counted) = app.quotas.socket_of_address(owner.address) else {
        return TOO_MANY_SOCKETS.into_response(request_id(&parts.headers));
    };
    let speaks_protocol = handshake.speaks_protocol;
    let (response, upgrade) = handshake.accept();
    let headers = Arc::new(parts.headers);
    tokio::spawn(async move {
        // It fails where the client has gone meanwhile.
        if let Ok(upgraded) = upgrade.await {
            let connection = Connection::new(app, headers, (caller, trust), upgraded, counted);
            connection.run(speaks_protocol).await;
        }
        drop(in_flight);
    });
    response
}

impl From<End> for Close {
    fn from(end: End) -> Self {
        match end {
            End::Revoked => close::REVOKED,
            End::Expired => close::EXPIRED,
            End::Closing => close::GOING_AWAY,
            End::Interrupted => close::INTERRUPTED,
            End::OutOfMemory => close::NO_MEMORY,
        }
    }
}

/// What the server says about an operation.
enum ServerMessage {
    /// One answer; after the last one, that it was the last.
    Next(Arc<str>, Box<Reply>),
    /// There is no more.
    Complete(Arc<str>),
    /// What was told may not be true any more, by all subscriptions of this server.
    Interrupted,
}

/// An operation that is running.
struct Running {
    /// Stops it.
    handle: AbortHandle,
    waits: Waits,
}

/// Why a conversation is over.
#[derive(Clone, Copy)]
enum Over {
    /// The server closes.
    Because(Close),
    /// What ends all streams of the caller.
    Ended(End),
    /// The client closes, with this code.
    ClientCloses(u16),
    /// The connection is gone.
    Gone,
}

impl From<Close> for Over {
    fn from(close: Close) -> Self {
        Self::Because(close)
    }
}

impl From<End> for Over {
    fn from(end: End) -> Self {
        Self::Ended(end)
    }
}

impl From<SocketError> for Over {
    fn from(broken: SocketError) -> Self {
        match broken {
            SocketError::Gone => Self::Gone,
            SocketError::Refused(close) => Self::Because(close),
        }
    }
}

type Flow<T = ()> = ControlFlow<Over, T>;

/// `Err` ends the conversation.
fn flow<T, E: Into<Over>>(result: Result<T, E>) -> Flow<T> {
    match result {
        Ok(value) => Continue(value),
        Err(error) => Break(error.into()),
    }
}

struct Connection {
    app: App,
    headers: Arc<HeaderMap>,
    caller: Caller,
    trust: Trust,
    socket: Socket<TokioIo<Upgraded>>,
    viewer: Viewer,
    /// The account may not change when the token is renewed.
    bearer: Option<Bearer>,
    /// Among the sockets of the address; once signed in, among those of the account.
    counted: QuotaPermit,
    end: Pin<Box<dyn Future<Output = End> + Send>>,
    running: HashMap<Arc<str>, Running>,
    messages: SelectAll<BoxStream<'static, ServerMessage>>,
    /// A gateway has come with a token that is not valid: its operations are refused, each by itself.
    has_bad_token: bool,
    /// Has it been heard of since it was asked?
    heard: bool,
}

/// How much a client may say at once.
fn bounds(app: &App, is_anonymous: bool, trust: Trust) -> Bounds {
    let bounds = graphql::bounds(app, is_anonymous, trust);
    let is_known = !is_anonymous || trust.is_gateway();
    let bytes = if is_known { bounds.bytes } else { bounds.bytes.min(LONGEST_UNTIL_TOKEN) };
    Bounds { bytes, ..bounds }
}

fn limits(app: &App, is_anonymous: bool, trust: Trust) -> MessageLimits {
    let http = &app.http;
    let pace = Pace { window: http.write_timeout, per_second: http.min_answer_rate.0 };
    MessageLimits { message: bounds(app, is_anonymous, trust).bytes, within: http.body_timeout, pace }
}

/// Memory for messages, shared with the bodies of requests.
fn memory(app: &App, owner: Owner) -> impl Fn() -> MemoryReservation + Send + Sync + use<> {
    let app = app.clone();
    move || app.admission.body_memory(owner.clone())
}

impl Connection {
    fn new(
        app: App,
        headers: Arc<HeaderMap>,
        (caller, trust): (Caller, Trust),
        upgraded: Upgraded,
        counted: QuotaPermit,
    ) -> Self {
        let end = Box::pin(end(&app, None));
        let owner = graphql::owner(&app, &caller, None);
        let socket = Socket::new(TokioIo::new(upgraded), limits(&app, true, trust), memory(&app, owner));
        let (running, messages) = (HashMap::new(), SelectAll::new());
        let (viewer, bearer, has_bad_token, heard) = (Viewer::Anonymous, None, false, true);
        Self {
            app,
            headers,
            caller,
            trust,
            socket,
            viewer,
            bearer,
            counted,
            end,
            running,
            messages,
            has_bad_token,
            heard,
        }
    }

    async fn run(mut self, speaks_protocol: bool) {
        let flow = match self.greet(speaks_protocol).await {
            Continue(()) => self.converse().await,
            ended @ Break(_) => ended,
        };
        if let Break(Over::Ended(end)) = flow
            && !end.is_final()
        {
            self.finish().await;
        }
        match flow {
            Break(Over::Ended(end)) if self.trust.is_gateway() => {
                self.tell_all(&end.reply(&self.headers)).await;
            }
            Break(Over::Because(close::NOT_VALID)) if self.trust.is_gateway() => {
                let refusal = graphql::unauthenticated(true).into_reply(request_id(&self.headers));
                self.tell_all(&refusal).await;
            }
            _ => {}
        }
        self.messages.clear();
        match flow {
            Break(Over::Ended(end)) => self.socket.close(end.into(), CLOSE_WITHIN).await,
            Break(Over::Because(close)) => self.socket.close(close, CLOSE_WITHIN).await,
            Break(Over::ClientCloses(code)) => self.socket.answer_close(code, CLOSE_WITHIN).await,
            Break(Over::Gone) | Continue(()) => {}
        }
    }

    /// Tells each operation that is still running why it ends. A gateway passes that on, and makes an error
    /// of its own of a socket that is closed. Clients that ask directly begin anew by themselves what they
    /// were not told of.
    async fn tell_all(&mut self, why: &Reply) {
        self.end = Box::pin(pending());
        let until = tokio::time::Instant::now() + CLOSE_WITHIN;
        let ids: Vec<_> = self.running.drain().map(|(id, running)| (id, running.handle.abort()).0).collect();
        for id in ids {
            let (body, codes) = (why.body.clone(), why.codes.clone());
            let told = self.answer(&id, Reply { body, codes, ..Reply::default() });
            if !matches!(tokio::time::timeout_at(until, told).await, Ok(Continue(()))) {
                return;
            }
        }
    }

    /// Answers what has one answer and is already running, within its own time: the client comes back and
    /// sends again what was not answered, and a mutation would run twice.
    async fn finish(&mut self) {
        self.end = Box::pin(pending());
        let until = tokio::time::Instant::now() + self.app.http.request_timeout;
        while self.running.values().any(|running| !running.waits.is_set()) {
            let message = async {
                match self.messages.next().await {
                    Some(ServerMessage::Interrupted) => Continue(()),
                    Some(message) => match self.say(message).await {
                        // A subscription; what has one answer goes on.
                        Break(Over::Ended(End::OutOfMemory)) => Continue(()),
                        message => message,
                    },
                    None => Break(Over::Gone),
                }
            };
            if !matches!(tokio::time::timeout_at(until, message).await, Ok(Continue(()))) {
                return;
            }
        }
    }

    async fn converse(&mut self) -> Flow {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        loop {
            tokio::select! {
                end = &mut self.end => return Break(end.into()),
                received = self.socket.receive() => {
                    self.heard = true;
                    if let Some(text) = self.text_of(received).await? {
                        self.hear(&text.text).await?;
                    }
                }
                Some(message) = self.messages.next() => self.say(message).await?,
                _ = ping.tick() => {
                    if !std::mem::take(&mut self.heard) {
                        return Break(close::PING_TIMEOUT.into());
                    }
                    tokio::select! {
                        sent = self.socket.send_ping() => flow(sent.map_err(|_| Over::Gone))?,
                        end = &mut self.end => return Break(end.into()),
                    }
                }
            }
        }
    }

    /// The text of a message; `None` for those that are no word of the protocol.
    async fn text_of(&mut self, received: Result<ClientFrame, SocketError>) -> Flow<Option<frames::Text>> {
        match flow(received)? {
            ClientFrame::Text(text) => Continue(Some(text)),
            ClientFrame::Pong => Continue(None),
            ClientFrame::Close(code) => Break(Over::ClientCloses(code)),
            ClientFrame::Ping(payload) => tokio::select! {
                sent = self.socket.send_pong(payload) => flow(sent.map(|()| None).map_err(|_| Over::Gone)),
                end = &mut self.end => Break(end.into()),
            },
        }
    }

    async fn hear(&mut self, text: &str) -> Flow {
        let bounds = self.bounds();
        let message = flow(ClientMessage::read(text, bounds))?;
        match (&*message.kind, &message.id, message.payload) {
            ("subscribe", Some(id), Some(payload)) => {
                let mut memory = self.app.admission.body_memory(self.owner());
                // Its texts are in the message now, and in the operation afterwards.
                if memory.grow(payload.get().len()).is_err() {
                    return Break(close::NO_MEMORY.into());
                }
                match params::of_body(payload.get().as_bytes(), bounds, &mut memory) {
                    Ok(request @ GraphQLRequest::One(_)) => self.begin((**id).into(), request, memory).await,
                    Err(rejection) if rejection.status == StatusCode::SERVICE_UNAVAILABLE => {
                        Break(close::NO_MEMORY.into())
                    }
                    Ok(GraphQLRequest::Batch(_)) | Err(_) => Break(close::INVALID_MESSAGE.into()),
                }
            }
            ("complete", Some(id), _) => {
                self.stop(id);
                Continue(())
            }
            ("ping", ..) => {
                self.renew(&message)?;
                self.pong(message.payload).await
            }
            ("pong", ..) => Continue(()),
            ("connection_init", ..) => Break(close::TWICE.into()),
            _ => Break(close::INVALID_MESSAGE.into()),
        }
    }

    fn bounds(&self) -> Bounds {
        bounds(&self.app, self.bearer.is_none(), self.trust)
    }

    fn stop(&mut self, id: &str) {
        if let Some(running) = self.running.remove(id) {
            running.handle.abort();
        }
    }

    /// `received` counts what was received of the operation as long as it goes on.
    async fn begin(&mut self, id: Arc<str>, request: GraphQLRequest, received: MemoryReservation) -> Flow {
        if self.running.contains_key(&id) {
            return Break(close::TAKEN.into());
        }
        if self.running.len() >= MAX_OPERATIONS {
            let busy = Rejection::new(
                StatusCode::OK,
                "OVERLOADED",
                "At most 50 operations run on a socket at once.",
            );
            return self.answer(&id, busy.into_reply(request_id(&self.headers))).await;
        }
        if let Err(too_often) = self.app.admission.check_rate(&self.viewer, &self.caller, request.count()) {
            return self.answer(&id, too_often.into_reply(request_id(&self.headers))).await;
        }
        if let Err(overloaded) = self.app.admission.check_answers(&self.owner()) {
            return self.answer(&id, overloaded.into_reply(request_id(&self.headers))).await;
        }
        let in_batch = request.is_batch();
        let (params, trust) = match self.proven(request) {
            Ok(proven) => proven,
            Err(rejection) => return self.answer(&id, rejection.into_reply(request_id(&self.headers))).await,
        };
        let (viewer, bearer) = (self.viewer.clone(), self.bearer.clone());
        let caller = Caller { in_batch, is_gateway: trust.is_gateway(), ..self.caller.clone() };
        // The headers are those of the socket: a key among them would be that of each of its operations.
        let (id_in_path, idempotency_key, is_safe, has_bad_token) = (None, None, false, self.has_bad_token);
        let requester =
            Requester { viewer, bearer, caller, id_in_path, idempotency_key, is_safe, has_bad_token };
        let (app, headers, waits) = (self.app.clone(), Arc::clone(&self.headers), Waits::default());
        let incoming = (params, Some(received));
        let replies = answers(app, headers, requester, incoming, ("websocket", waits.clone()));
        let (of, last) = (Arc::clone(&id), Arc::clone(&id));
        let answers = replies.map(move |event| match event {
            Event::Reply(reply) => ServerMessage::Next(Arc::clone(&of), reply),
            Event::Interrupted => ServerMessage::Interrupted,
        });
        // What was stopped says nothing more, not even that it is complete.
        let (messages, handle) =
            stream::abortable(answers.chain(stream::iter([ServerMessage::Complete(last)])));
        self.messages.push(messages.boxed());
        self.running.insert(id, Running { handle, waits });
        Continue(())
    }

    /// The one request that a message may have, and what proves that it is a gateway's.
    fn proven(&self, request: GraphQLRequest) -> Result<(GraphQLParams, Trust), Rejection> {
        let mut trust = self.trust;
        for params in request.as_slice() {
            let (signature, text) = (params.extension("hmac-signature"), params.own_text());
            trust = self.app.gateways().signed_body(trust, signature, text, &params.variables)?;
        }
        request.check_length(bounds(&self.app, self.bearer.is_none(), trust))?;
        Ok((request.one()?, trust))
    }

    async fn say(&mut self, message: ServerMessage) -> Flow {
        match message {
            ServerMessage::Next(id, reply) => {
                if reply.is_refusal() {
                    self.stop(&id);
                }
                self.answer(&id, *reply).await
            }
            ServerMessage::Interrupted => Break(End::Interrupted.into()),
            ServerMessage::Complete(id) => {
                self.running.remove(&id);
                let id = serde_json::to_string(&*id).expect("a text is JSON");
                self.send([format!(r#"{{"id":{id},"type":"complete"}}"#).into()]).await
            }
        }
    }

    /// An answer of an operation that ran is `next`, and so is that to each set of variables, with its
    /// `variableIndex`; what did not run at all is `error`, with the errors alone. It counts as memory until
    /// it is sent; where there is none, the client connects again for a subscription, and gets an error for a
    /// query.
    async fn answer(&mut self, id: &str, mut reply: Reply) -> Flow {
        let mut memory = self.app.admission.answer_memory(self.owner());
        if sent::reserve(&mut memory, &mut reply, request_id(&self.headers)).is_err() {
            if reply.operation == Some(OperationKind::Subscription) {
                return Break(End::OutOfMemory.into());
            }
            self.stop(id);
            reply = OUT_OF_MEMORY.into_reply(request_id(&self.headers));
        }
        let is_refusal = reply.is_refusal();
        let Reply { body, held, .. } = reply;
        drop(held);
        let (kind, payload) = if is_refusal { ("error", errors_of(body).into()) } else { ("next", body) };
        let id = serde_json::to_string(id).expect("a text is JSON");
        let begins = format!(r#"{{"id":{id},"type":"{kind}","payload":"#);
        let mut text = vec![Bytes::from(begins)];
        text.extend(sent::with_memory(payload, memory));
        text.push(Bytes::from_static(b"}"));
        self.send(text).await
    }

    /// On whose account memory is held.
    fn owner(&self) -> Owner {
        graphql::owner(&self.app, &self.caller, self.bearer.as_ref())
    }

    async fn pong(&mut self, payload: Option<&RawValue>) -> Flow {
        let text = match payload {
            Some(payload) => format!(r#"{{"type":"pong","payload":{}}}"#, payload.get()),
            None => r#"{"type":"pong"}"#.to_owned(),
        };
        self.send([text.into()]).await
    }

    /// Sends a message, in pieces. Who does not read, or too slowly, is cut off.
    async fn send(&mut self, text: impl Into<Vec<Bytes>>) -> Flow {
        tokio::select! {
            sent = self.socket.send_text(text) => flow(sent.map_err(|_| Over::Gone)),
            end = &mut self.end => Break(end.into()),
        }
    }
}
