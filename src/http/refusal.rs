//! What every failure of this room looks like: GraphQL-shaped JSON with a code and the request's id. Not here: errors of
//! the graph, which arrive as part of its answer.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schema::Reply;
use serde_json::json;

/// A request that is not run, or not to its end. Its text is written here, never taken from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: &'static str,
}

impl Refusal {
    pub(crate) const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }

    /// Something broke; the cause is in the log, under the request's id.
    pub(crate) const fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_SERVER_ERROR",
            "Something went wrong on our side.",
        )
    }

    /// The answer where there is no status: on a stream.
    pub(crate) fn into_reply(self) -> Reply {
        let Self { code, message, .. } = self;
        let body = json!({ "errors": [{ "message": message, "extensions": { "code": code } }] });
        Reply { body: body.to_string().into_bytes(), codes: vec![code], ..Reply::default() }
    }

    /// The answer as JSON.
    pub(crate) fn into_response(self, request_id: &str) -> Response {
        self.into_response_as("application/json; charset=utf-8", request_id)
    }

    /// The answer under the content type that the caller prefers.
    pub(crate) fn into_response_as(self, content_type: &'static str, request_id: &str) -> Response {
        let Self { status, code, message } = self;
        let body = json!({
            "errors": [{ "message": message, "extensions": { "code": code, "requestId": request_id } }],
        });
        let mut response = (
            status,
            [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")],
            body.to_string(),
        )
            .into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            // What is left of the body will not be read.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
