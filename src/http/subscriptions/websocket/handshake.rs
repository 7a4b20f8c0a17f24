//! The opening handshake of a WebSocket (RFC 6455 §4.2). Not here: who may connect, and what is said afterwards.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::upgrade::OnUpgrade;
use tungstenite::handshake::derive_accept_key;

use crate::rejection::Rejection;

/// `graphql-transport-ws`, the only protocol that is spoken.
pub(super) const PROTOCOL: &str = "graphql-transport-ws";
const VERSION: HeaderValue = HeaderValue::from_static("13");
/// A `Sec-WebSocket-QuotaKey` is so many random bytes.
const KEY_BYTES: usize = 16;

const NOT_WEBSOCKET: Rejection =
    Rejection::new(StatusCode::BAD_REQUEST, "BAD_USER_INPUT", "Invalid WebSocket handshake (RFC 6455).");
const OTHER_VERSION: Rejection =
    Rejection::new(StatusCode::UPGRADE_REQUIRED, "BAD_USER_INPUT", "WebSockets are spoken in version 13.");

/// A handshake that can be answered.
pub(super) struct Handshake {
    accept: HeaderValue,
    upgrade: OnUpgrade,
    /// Whether the client speaks `PROTOCOL`.
    pub(super) speaks_protocol: bool,
}

/// Does the request want to become a WebSocket?
pub(in crate::http::subscriptions) fn is_asked_for(headers: &HeaderMap) -> bool {
    has_token(headers, header::UPGRADE, "websocket")
}

/// Is this token in a comma-separated header? The case does not matter.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|given| given.trim().eq_ignore_ascii_case(token))
}

impl Handshake {
    /// Reads the handshake, and takes the connection that it is about.
    pub(super) fn read(parts: &mut Parts) -> Result<Self, Rejection> {
        let headers = &parts.headers;
        if parts.method != Method::GET || !has_token(headers, header::CONNECTION, "upgrade") {
            return Err(NOT_WEBSOCKET);
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
            return Err(OTHER_VERSION);
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(NOT_WEBSOCKET)?;
        let is_key = BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == KEY_BYTES);
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok();
        let accept = accept.filter(|_| is_key).ok_or(NOT_WEBSOCKET)?;
        let speaks_protocol = has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
        let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(NOT_WEBSOCKET)?;
        Ok(Self { accept, upgrade, speaks_protocol })
    }

    /// The answer that makes the connection a WebSocket, and the connection that it then is.
    pub(super) fn accept(self) -> (Response, OnUpgrade) {
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_ACCEPT, self.accept),
        ];
        let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response();
        if self.speaks_protocol {
            let protocol = HeaderValue::from_static(PROTOCOL);
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        (response, self.upgrade)
    }
}

/// The answer to a handshake that cannot be read.
pub(super) fn refuse(rejection: Rejection, request_id: &str) -> Response {
    let is_other_version = rejection == OTHER_VERSION;
    let mut response = rejection.into_response(request_id);
    if is_other_version {
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, VERSION);
    }
    response
}
