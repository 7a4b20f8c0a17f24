//! The status of an answer in `application/graphql-response+json`, by either text of GraphQL over HTTP
//! (`http.statuses`). Not here: `application/json`, whose status is 200 for whatever is well-formed.

use axum::http::StatusCode;
use schema::Reply;

use crate::{config::setting::Statuses, http::params, rejection::Rejection};

/// 294 Partial Success, which GraphQL over HTTP defines itself.
const PARTIAL_SUCCESS: u16 = 294;

/// Of a request that was not executed, under either media type: whether to send it again, or another one.
pub(super) fn of_unexecuted(reply: &Reply) -> Option<StatusCode> {
    let code = reply.codes.first().filter(|_| !reply.executed)?;
    match *code {
        "UNAVAILABLE" => Some(StatusCode::SERVICE_UNAVAILABLE),
        "CONFLICT" => Some(StatusCode::CONFLICT),
        "IDEMPOTENCY_MISMATCH" => Some(StatusCode::UNPROCESSABLE_ENTITY),
        _ => None,
    }
}

/// Of an answer of the graph.
pub(super) fn of_reply(statuses: Statuses, reply: &Reply) -> StatusCode {
    match (statuses, reply.executed) {
        (Statuses::Draft, true) => StatusCode::OK,
        (Statuses::Draft, false) => StatusCode::BAD_REQUEST,
        (Statuses::Of2026, true) if reply.codes.is_empty() => StatusCode::OK,
        (Statuses::Of2026, true) => StatusCode::from_u16(PARTIAL_SUCCESS).unwrap_or(StatusCode::OK),
        (Statuses::Of2026, false) => match reply.codes.first().copied() {
            Some("GRAPHQL_PARSE_FAILED") => StatusCode::BAD_REQUEST,
            Some("UNAUTHENTICATED") => StatusCode::UNAUTHORIZED,
            Some("FORBIDDEN" | "INTROSPECTION_DISABLED") => StatusCode::FORBIDDEN,
            Some("OVERLOADED") => StatusCode::SERVICE_UNAVAILABLE,
            Some("RATE_LIMITED") => StatusCode::TOO_MANY_REQUESTS,
            Some("INTERNAL_SERVER_ERROR") => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        },
    }
}

/// A refusal with its status: JSON that is no GraphQL request is one thing (422), and what is no JSON another (400).
pub(super) fn of_rejection(statuses: Statuses, rejection: Rejection) -> Rejection {
    if statuses == Statuses::Of2026 && params::is_ill_formed(&rejection) {
        return Rejection { status: StatusCode::UNPROCESSABLE_ENTITY, ..rejection };
    }
    rejection
}
