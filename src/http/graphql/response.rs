//! The answers to what one HTTP request asks, as a response that holds the memory it takes. Not here: how they come
//! about.

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schema::{CachePolicy, Chunks, HeldMemory, OperationKind, Reply};

use super::{CACHE_TOKEN, Requester};
use crate::{
    http::{
        caching,
        in_memory::InMemory,
        media::Media,
        memory::{AnswerMemory, MemoryReservation, OutOfMemory},
    },
    rejection::Rejection,
};

/// In the place of an answer that there is no memory for. No client repeats a request that has this code.
const DONE: Rejection = Rejection::new(
    StatusCode::OK,
    "COST_LIMIT",
    "The server cannot hold an answer of this length now. Ask for less at once. What the mutation did is \
     done.",
);
/// The answer to one request.
pub(super) struct GraphQLResponse {
    pub(super) status: StatusCode,
    pub(super) body: Chunks,
    /// The memory that `body` was written in.
    pub(super) held: HeldMemory,
    /// A mutation has run: whoever is told to try again would do it twice.
    pub(super) is_owed: bool,
    pub(super) cache: Option<CachePolicy>,
    pub(super) cache_token: Option<Box<str>>,
    pub(super) retry_after_seconds: Option<u32>,
    pub(super) cost: Option<u64>,
    /// It ran, without errors.
    pub(super) is_complete: bool,
    pub(super) digest: Option<[u8; 16]>,
}

impl GraphQLResponse {
    pub(super) fn of(reply: Reply, status: StatusCode) -> Self {
        let is_complete = reply.executed && reply.codes.is_empty();
        let is_owed = reply.executed && reply.operation == Some(OperationKind::Mutation);
        let Reply { body, held, cache, cache_token, retry_after_seconds, cost, digest, .. } = reply;
        Self {
            status,
            body,
            held,
            is_owed,
            cache,
            cache_token,
            retry_after_seconds,
            cost,
            is_complete,
            digest,
        }
    }
}

/// Several answers to one HTTP request, as one JSON array.
#[derive(Default)]
pub(super) struct ArrayOfAnswers {
    pub(super) body: Chunks,
    /// The memory that they were written in.
    pub(super) held: Vec<HeldMemory>,
    /// A mutation has run.
    pub(super) is_owed: bool,
    pub(super) count: usize,
    /// They are those to several sets of variables.
    pub(super) is_of_sets: bool,
    /// Of all together, where it was found out for any.
    pub(super) cost: Option<u64>,
}

impl ArrayOfAnswers {
    /// One more, behind those that are there.
    pub(super) fn push(&mut self, answer: Chunks, held: HeldMemory, (is_owed, cost): (bool, Option<u64>)) {
        self.cost = sum_of_costs(self.cost, cost);
        self.body.push(if self.count == 0 { b'[' } else { b',' });
        self.body.append(answer);
        self.held.push(held);
        self.is_owed |= is_owed;
        self.count += 1;
    }

    /// All of them.
    pub(super) fn ended(mut self) -> Self {
        self.body.push(b']');
        self
    }

    pub(super) fn replies(&self) -> Replies {
        if self.is_of_sets { Replies::ToSets(self.count) } else { Replies::ToRequests(self.count) }
    }
}

/// What operations cost together, where it was found out for any.
pub(super) fn sum_of_costs(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    [one, other].into_iter().flatten().reduce(u64::saturating_add)
}

/// How many replies an answer has, and to what.
#[derive(Clone, Copy)]
pub(in crate::http) enum Replies {
    One,
    /// An array, to the requests of one.
    ToRequests(usize),
    /// An array, to the sets of variables of one request.
    ToSets(usize),
}

/// What an HTTP request is answered with.
pub(super) enum Answers {
    One(Result<GraphQLResponse, Rejection>),
    Many(ArrayOfAnswers),
}

/// Counts the answer to what was done, which must be sent, in the bound on memory. If it does not fit at all,
/// at least that is told in each reply.
pub(in crate::http) fn hold_owed(
    mut response: Response,
    mut memory: MemoryReservation,
    (replies, request_id): (Replies, &str),
) -> Response {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    if memory.grow_owed(usize::try_from(bytes).unwrap_or(usize::MAX)).is_err() {
        let array = |replies: Vec<Vec<u8>>| [&b"["[..], &replies.join(&b','), b"]"].concat();
        let body = match replies {
            Replies::One => done(request_id, None),
            Replies::ToRequests(count) => array(vec![done(request_id, None); count]),
            Replies::ToSets(count) => {
                array((0..count as u32).map(|set| done(request_id, Some(set))).collect())
            }
        };
        let fits = memory.grow_owed(body.len());
        debug_assert!(fits.is_ok(), "what is small always fits");
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
    response.extensions_mut().insert(AnswerMemory::from(memory));
    response
}

/// What is told in the place of the answer to a mutation that there is no memory for; `set` is the place of its set
/// of variables, where there are several.
pub(in crate::http) fn done(request_id: &str, set: Option<u32>) -> Vec<u8> {
    let errors = DONE.body(request_id);
    let errors = errors.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or_default();
    let index = set.map(|index| format!(",\"variableIndex\":{index}")).unwrap_or_default();
    // The request ran, so there is an entry `data` (GraphQL, October 2021, §7.1).
    [b"{\"data\":null,", errors, index.as_bytes(), b"}"].concat()
}

/// Lets an answer hold the memory that it takes until it is sent.
pub(super) fn hold(mut response: Response, mut memory: MemoryReservation) -> Result<Response, OutOfMemory> {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    memory.grow(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    response.extensions_mut().insert(AnswerMemory::from(memory));
    Ok(response)
}

pub(super) fn respond(media: Media, requester: &Requester, answer: GraphQLResponse) -> Response {
    let GraphQLResponse { status, body, cache, is_complete, digest, .. } = answer;
    let mut response = if requester.is_safe {
        let answer = caching::CacheableResponse { policy: cache, is_complete, digest };
        caching::respond(answer, status, media.content_type(), body)
    } else {
        let control = caching::control(cache);
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(media.content_type())),
            (header::CACHE_CONTROL, control),
        ];
        (status, headers, Body::from(InMemory::from(body))).into_response()
    };
    let token = answer.cache_token.and_then(|token| HeaderValue::from_str(&token).ok());
    let headers = response.headers_mut();
    headers.extend(token.map(|token| (CACHE_TOKEN, token)));
    headers
        .extend(answer.retry_after_seconds.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
    response
}
