//! `graphql-transport-ws` (the protocol of the npm package `graphql-ws`) on a WebSocket: queries, mutations and
//! subscriptions, many at a time. One task a socket; it reads, runs operations, and writes, so a client that does not
//! read stops its own operations, and one that does not read for long is cut off. Not here: what is answered.

use std::{
    borrow::Cow,
    collections::HashMap,
    ops::ControlFlow::{self, Break, Continue},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{
        FromRequestParts as _, Request,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{
    StreamExt as _,
    stream::{self, AbortHandle, BoxStream, SelectAll},
};
use schema::{Caller, Reply, Viewer, token::Bearer};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{End, answers, end, errors_of};
use crate::{
    App, auth,
    gateway::Trust,
    http::{
        cors,
        graphql::{self, Asker, caller},
        patience::UnderWay,
        refusal::Refusal,
        request_id,
        wire::{self, Wire, Wires},
    },
};

const PROTOCOL: &str = "graphql-transport-ws";
/// How long a client may take to say who it is.
const INIT_WITHIN: Duration = Duration::from_secs(3);
/// How often a client is asked whether it is still there; who is silent for two such times is not.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long the closing handshake may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Operations of a socket at a time.
const MAX_OPERATIONS: usize = 50;
/// A socket that waits needs little; the library would take 128 KiB.
const READ_BUFFER_BYTES: usize = 4_096;

const NOT_WEBSOCKET: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, "BAD_USER_INPUT", "This is no WebSocket handshake (RFC 6455).");

/// Does the request want to become a WebSocket?
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

pub(super) async fn upgrade(app: App, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if !super::may_connect(&app, &parts.headers) {
        return cors::foreign(&parts.headers).into_response(request_id(&parts.headers));
    }
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await else {
        return NOT_WEBSOCKET.into_response(request_id(&parts.headers));
    };
    let under_way = parts.extensions.get::<UnderWay>().cloned();
    // A signature covers the handshake, and nothing that is sent afterwards.
    let trust = match app.gateways.head(&parts) {
        Ok(head) if head.trust == Trust::Connection => head.trust,
        Ok(_) => Trust::Nothing,
        Err(refusal) => return refusal.into_response(request_id(&parts.headers)),
    };
    let caller = caller(&app, &parts, trust);
    let most = app.http.body_limit_signed_in.0;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(most.saturating_mul(4))
        .max_message_size(most)
        .max_frame_size(most);
    let headers = Arc::new(parts.headers);
    upgrade
        .on_upgrade(async move |socket| {
            Connection::new(app, headers, (caller, trust), socket).run().await;
            drop(under_way);
        })
        .into_response()
}

/// Why a socket is closed: a code of the protocol, and a word about it.
type Close = (u16, &'static str);

const BAD_REQUEST: Close = (4400, "Invalid message");
const TOO_EARLY: Close = (4401, "Unauthorized");
const EXPIRED: Close = (4401, "The access token has expired");
const FORBIDDEN: Close = (4403, "Forbidden");
const NO_PROTOCOL: Close = (4406, "Subprotocol not acceptable");
const INIT_TIMEOUT: Close = (4408, "Connection initialisation timeout");
const TAKEN: Close = (4409, "Subscriber already exists");
const TWICE: Close = (4429, "Too many initialisation requests");
const TOO_LARGE: Close = (1009, "Message too large");
const GOING_AWAY: Close = (1001, "Going away");
const GONE: Close = (1001, "No answer");

impl From<End> for Close {
    fn from(end: End) -> Self {
        match end {
            End::Revoked => FORBIDDEN,
            End::Expired => EXPIRED,
            End::Closing => GOING_AWAY,
        }
    }
}

/// What a client says.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Said<'_> {
    fn read(text: &str) -> ControlFlow<Option<Close>, Said<'_>> {
        serde_json::from_str(text).map_or(Break(Some(BAD_REQUEST)), Continue)
    }

    /// The value that would stand in an `Authorization` header, where clients put it: in the payload, or in its `headers`.
    fn authorization(&self) -> Option<String> {
        let payload: Value = serde_json::from_str(self.payload?.get()).ok()?;
        [&payload, &payload["headers"]].into_iter().find_map(|object| {
            let mut fields = object.as_object()?.iter();
            let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
            value.as_str().map(str::to_owned)
        })
    }
}

/// What the server says about an operation.
enum Saying {
    /// One answer; after the last one, that it was the last.
    Answer(Arc<str>, Reply),
    /// There is no more.
    Complete(Arc<str>),
}

/// `Break` carries why the socket is closed; none: the client has closed it.
type Flow = ControlFlow<Option<Close>>;

struct Connection {
    app: App,
    headers: Arc<HeaderMap>,
    caller: Caller,
    trust: Trust,
    socket: WebSocket,
    viewer: Viewer,
    /// The account may not change when the token is renewed.
    bearer: Option<Bearer>,
    end: Pin<Box<dyn Future<Output = End> + Send>>,
    /// What is running, and how to stop it.
    running: HashMap<Arc<str>, AbortHandle>,
    sayings: SelectAll<BoxStream<'static, Saying>>,
    /// Has it been heard of since it was asked?
    heard: bool,
}

impl Connection {
    fn new(app: App, headers: Arc<HeaderMap>, (caller, trust): (Caller, Trust), socket: WebSocket) -> Self {
        let end = Box::pin(end(&app, None));
        let (running, sayings) = (HashMap::new(), SelectAll::new());
        let (viewer, bearer) = (Viewer::Anonymous, None);
        Self { app, headers, caller, trust, socket, viewer, bearer, end, running, sayings, heard: true }
    }

    async fn run(mut self) {
        let flow = match self.greet().await {
            Continue(()) => self.converse().await,
            ended @ Break(_) => ended,
        };
        self.sayings.clear();
        let closing = async {
            if let Break(Some((code, reason))) = flow {
                let frame = CloseFrame { code, reason: reason.into() };
                let _ = self.socket.send(Message::Close(Some(frame))).await;
            }
            // Reading on answers the client's closing, or waits for its answer to ours.
            while let Some(Ok(_)) = self.socket.recv().await {}
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, closing).await;
    }

    /// Waits for `connection_init`, and finds out who it is.
    async fn greet(&mut self) -> Flow {
        if self.socket.protocol().is_none_or(|protocol| protocol != PROTOCOL) {
            return Break(Some(NO_PROTOCOL));
        }
        let init_until = tokio::time::Instant::now() + INIT_WITHIN;
        loop {
            let message = tokio::select! {
                message = self.socket.recv() => message,
                () = tokio::time::sleep_until(init_until) => return Break(Some(INIT_TIMEOUT)),
                end = &mut self.end => return Break(Some(end.into())),
            };
            let Some(text) = text_of(message)? else { continue };
            let said = Said::read(&text)?;
            match &*said.kind {
                "connection_init" => {
                    let bearer = match said.authorization() {
                        Some(token) => self.bearer_of(&token).map(Some),
                        None => auth::bearer(&self.app.access, &self.headers).ok(),
                    };
                    let Some(bearer) = bearer else { return Break(Some(FORBIDDEN)) };
                    self.admit(bearer);
                    return self.send(br#"{"type":"connection_ack"}"#.to_vec()).await;
                }
                "ping" => self.pong(said.payload).await?,
                "subscribe" => return Break(Some(TOO_EARLY)),
                "pong" | "complete" => {}
                _ => return Break(Some(BAD_REQUEST)),
            }
        }
    }

    async fn converse(&mut self) -> Flow {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        loop {
            tokio::select! {
                end = &mut self.end => return Break(Some(end.into())),
                message = self.socket.recv() => {
                    self.heard = true;
                    if let Some(text) = text_of(message)? {
                        self.hear(&text).await?;
                    }
                }
                Some(saying) = self.sayings.next() => self.say(saying).await?,
                _ = ping.tick() => {
                    if !std::mem::take(&mut self.heard) {
                        return Break(Some(GONE));
                    }
                    self.send_message(Message::Ping(bytes::Bytes::new())).await?;
                }
            }
        }
    }

    async fn hear(&mut self, text: &str) -> Flow {
        let bounds = graphql::bounds(&self.app, self.bearer.is_none(), self.trust);
        if text.len() > bounds.bytes {
            return Break(Some(TOO_LARGE));
        }
        let said = Said::read(text)?;
        match (&*said.kind, &said.id, said.payload) {
            ("subscribe", Some(id), Some(payload)) => {
                let owner = graphql::owner(&self.app, &self.caller, self.bearer.as_ref());
                let mut memory = self.app.admission.body_memory(owner);
                match wire::of_body(payload.get().as_bytes(), bounds, &mut memory) {
                    Ok(Wires::One(wire)) => self.begin(id.as_str().into(), *wire).await,
                    Ok(Wires::Batch(_)) | Err(_) => Break(Some(BAD_REQUEST)),
                }
            }
            ("complete", Some(id), _) => {
                self.stop(id);
                Continue(())
            }
            ("ping", ..) => {
                self.renew(&said)?;
                self.pong(said.payload).await
            }
            ("pong", ..) => Continue(()),
            ("connection_init", ..) => Break(Some(TWICE)),
            _ => Break(Some(BAD_REQUEST)),
        }
    }

    fn stop(&mut self, id: &str) {
        if let Some(running) = self.running.remove(id) {
            running.abort();
        }
    }

    /// A ping may bring the next access token of the same account and session: `{"authorization": "Bearer …"}`.
    fn renew(&mut self, said: &Said<'_>) -> Flow {
        let Some(token) = said.authorization() else { return Continue(()) };
        match self.bearer_of(&token) {
            Some(bearer) if self.bearer.is_some() && bearer.viewer == self.viewer => {
                self.admit(Some(bearer));
                Continue(())
            }
            _ => Break(Some(FORBIDDEN)),
        }
    }

    /// `None`: refused.
    fn bearer_of(&self, authorization: &str) -> Option<Bearer> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).ok()?);
        auth::bearer(&self.app.access, &headers).ok().flatten()
    }

    fn admit(&mut self, bearer: Option<Bearer>) {
        self.viewer = bearer.as_ref().map_or(Viewer::Anonymous, |bearer| bearer.viewer.clone());
        self.end = Box::pin(end(&self.app, bearer.clone()));
        self.bearer = bearer;
    }

    async fn begin(&mut self, id: Arc<str>, wire: Wire) -> Flow {
        if self.running.contains_key(&id) {
            return Break(Some(TAKEN));
        }
        if self.running.len() >= MAX_OPERATIONS {
            let busy =
                Refusal::new(StatusCode::OK, "OVERLOADED", "At most 50 operations run on a socket at once.");
            return self.answer(&id, &busy.into_reply(request_id(&self.headers))).await;
        }
        if let Err(too_often) = self.app.admission.check_rate(&self.viewer, &self.caller, 1) {
            return self.answer(&id, &too_often.into_reply(request_id(&self.headers))).await;
        }
        let trust = match self.app.gateways.wire(self.trust, &wire, true) {
            Ok(trust) => trust,
            Err(refusal) => return self.answer(&id, &refusal.into_reply(request_id(&self.headers))).await,
        };
        let (viewer, bearer) = (self.viewer.clone(), self.bearer.clone());
        let caller = Caller { is_gateway: trust.is_gateway(), ..self.caller.clone() };
        let asker = Asker { viewer, bearer, caller, id_in_path: None, is_get: false, has_bad_token: false };
        let (app, headers) = (self.app.clone(), Arc::clone(&self.headers));
        let replies = answers(app, headers, asker, wire, "websocket");
        let (of, last) = (Arc::clone(&id), Arc::clone(&id));
        let answers = replies.map(move |reply| Saying::Answer(Arc::clone(&of), reply));
        // What was stopped says nothing more, not even that it is complete.
        let (sayings, handle) = stream::abortable(answers.chain(stream::iter([Saying::Complete(last)])));
        self.sayings.push(sayings.boxed());
        self.running.insert(id, handle);
        Continue(())
    }

    async fn say(&mut self, saying: Saying) -> Flow {
        match saying {
            Saying::Answer(id, reply) => {
                if !reply.executed {
                    self.stop(&id);
                }
                self.answer(&id, &reply).await
            }
            Saying::Complete(id) => {
                self.running.remove(&id);
                let id = serde_json::to_string(&*id).expect("a text is JSON");
                self.send(format!(r#"{{"id":{id},"type":"complete"}}"#).into_bytes()).await
            }
        }
    }

    /// An answer of an operation that ran is `next`; one that did not is `error`, with the errors alone.
    async fn answer(&mut self, id: &str, reply: &Reply) -> Flow {
        let id = serde_json::to_string(id).expect("a text is JSON");
        let (kind, payload) =
            if reply.executed { ("next", &reply.body[..]) } else { ("error", errors_of(&reply.body)) };
        let mut text = format!(r#"{{"id":{id},"type":"{kind}","payload":"#).into_bytes();
        text.extend(payload);
        text.push(b'}');
        self.send(text).await
    }

    async fn pong(&mut self, payload: Option<&RawValue>) -> Flow {
        let text = match payload {
            Some(payload) => format!(r#"{{"type":"pong","payload":{}}}"#, payload.get()),
            None => r#"{"type":"pong"}"#.to_owned(),
        };
        self.send(text.into_bytes()).await
    }

    async fn send(&mut self, text: Vec<u8>) -> Flow {
        let text = String::from_utf8(text).expect("JSON is UTF-8");
        self.send_message(Message::Text(text.into())).await
    }

    /// Who does not read is cut off by the connection itself (`patience`).
    async fn send_message(&mut self, message: Message) -> Flow {
        tokio::select! {
            sent = self.socket.send(message) => if sent.is_ok() { Continue(()) } else { Break(None) },
            end = &mut self.end => Break(Some(end.into())),
        }
    }
}

/// The text of a message; `None` for those that are no word of the protocol.
fn text_of(message: Option<Result<Message, axum::Error>>) -> ControlFlow<Option<Close>, Option<String>> {
    match message {
        Some(Ok(Message::Text(text))) => Continue(Some(text.to_string())),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Continue(None),
        Some(Ok(Message::Binary(_))) => Break(Some(BAD_REQUEST)),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Break(None),
    }
}
