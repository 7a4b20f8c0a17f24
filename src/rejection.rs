//! A request that is refused before the graph is asked: GraphQL-shaped JSON with a code and the request's id. Not here:
//! errors of the graph, which arrive as part of its answer.

use std::borrow::Cow;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schema::{Reply, engine::error::Code};
use serde_json::json;

/// A request that is not run, or not to its end. Its text is safe: what it repeats of the request is short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
    /// Whether the same may be sent again, where that is otherwise than the code says.
    pub(crate) retryable: Option<bool>,
    /// The codings in which a body may come (`Accept-Encoding`), where it came in another one (RFC 9110,
    /// section 15.5.16).
    pub(crate) content_codings: Option<&'static str>,
}

impl Rejection {
    pub(crate) const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), retryable: None, content_codings: None }
    }

    /// Something broke; the cause is in the log, under the request's id.
    pub(crate) const fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_SERVER_ERROR", "Internal server error.")
    }

    /// The answer where there is no status: on a stream.
    pub(crate) fn into_reply(self, request_id: &str) -> Reply {
        Reply { body: self.body(request_id).into(), codes: vec![self.code], ..Reply::default() }
    }

    /// The answer as JSON.
    pub(crate) fn into_response(self, request_id: &str) -> Response {
        self.into_response_as("application/json; charset=utf-8", request_id)
    }

    /// The answer under the content type that the caller prefers.
    pub(crate) fn into_response_as(self, content_type: &'static str, request_id: &str) -> Response {
        self.response_with(content_type, self.body(request_id))
    }

    /// The answer with a body that was made already.
    pub(crate) fn response_with(&self, content_type: &'static str, body: Vec<u8>) -> Response {
        let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, self.cache_control())];
        let mut response = (self.status, headers, body).into_response();
        self.add_headers(response.headers_mut());
        response
    }

    /// The body of the answer.
    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        let mut extensions = json!({ "code": self.code, "requestId": request_id });
        if let Some(retryable) = self.is_retryable() {
            extensions["retryable"] = retryable.into();
        }
        json!({ "errors": [{ "message": self.message, "extensions": extensions }] }).to_string().into_bytes()
    }

    /// Whether the same may be sent again, where that can be said.
    fn is_retryable(&self) -> Option<bool> {
        let by_code = || Code::ALL.iter().find(|code| code.as_str() == self.code)?.is_retryable();
        self.retryable.or_else(by_code)
    }

    /// Apollo's clients and gateways expect their own words where a hash is not known (yet).
    fn cache_control(&self) -> &'static str {
        match self.code {
            "PERSISTED_QUERY_NOT_FOUND" | "PERSISTED_QUERY_NOT_SUPPORTED" | "PERSISTED_QUERY_NOT_IN_LIST" => {
                "private, no-cache, must-revalidate"
            }
            _ => "no-store",
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(codings) = self.content_codings {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(codings));
        }
        let (name, value) = match self.status {
            StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""),
            // What is left of the body will not be read.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => (header::CONNECTION, "close"),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => (header::RETRY_AFTER, "1"),
            _ => return,
        };
        headers.insert(name, HeaderValue::from_static(value));
    }
}
