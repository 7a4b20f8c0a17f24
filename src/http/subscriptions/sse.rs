//! Server-sent events, "distinct connections mode" (the protocol of the npm package `graphql-sse`): one operation a
//! request, by POST or GET; an event `next` for each answer, and `complete` at the end. Not here: what is answered.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use schema::Reply;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{End, answers, end};
use crate::{
    App, auth,
    http::{graphql, refusal::Refusal, request_id, wire::Wires},
};

const EVENT_STREAM: &str = "text/event-stream";
/// How often something is sent while there is nothing to tell: what stands in between gives up on silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(12);
const COMMENT: &[u8] = b":\n\n";

const REVOKED: Refusal = Refusal::new(StatusCode::OK, "UNAUTHENTICATED", "The session has ended.");
const EXPIRED: Refusal = Refusal::new(StatusCode::OK, "UNAUTHENTICATED", "The access token has expired.");

/// How much a caller wants an event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It takes nothing else.
    Always,
    /// It names other types too: for subscriptions only.
    WhereNeeded,
}

impl Asked {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|value| value.split(','));
        let types = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
        let (streams, others): (Vec<_>, Vec<_>) = types
            .filter(|media| !media.is_empty())
            .partition(|media| media.eq_ignore_ascii_case(EVENT_STREAM));
        match (streams.is_empty(), others.is_empty()) {
            (true, _) => None,
            (false, true) => Some(Self::Always),
            (false, false) => Some(Self::WhereNeeded),
        }
    }
}

pub(super) async fn serve(app: App, wanted: Asked, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut read = match parts.method {
        Method::GET => graphql::read_get(&app, None, &parts),
        Method::POST => graphql::read_post(&app, None, &parts, body).await,
        _ => return graphql::other_method(parts.headers).await,
    };
    let is_stream = match &mut read {
        Ok(asked) => wanted == Asked::Always || graphql::is_subscription(&app, &parts.headers, asked).await,
        Err(_) => false,
    };
    let (asker, wire) = match read {
        Ok(graphql::Asked { asker, wires: Wires::One(wire), .. }) if is_stream => (asker, *wire),
        Err(refusal) if wanted == Asked::Always => return refusal.into_response(request_id(&parts.headers)),
        read => return graphql::answer(&app, &parts.headers, read).await,
    };
    // Reading the request has looked at the same header.
    let bearer = auth::bearer(&app.access, &parts.headers).unwrap_or_default();
    let end = Box::pin(end(&app, bearer));
    let headers = Arc::new(parts.headers);
    let replies = answers(app, Arc::clone(&headers), asker, wire, "sse");
    let mut keep_alive = interval(KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream { headers, replies, end, keep_alive, ended: false };
    let headers = [(header::CONTENT_TYPE, EVENT_STREAM), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(stream::unfold(stream, Stream::next))).into_response()
}

/// The body of an answer.
struct Stream {
    /// Of the request.
    headers: Arc<HeaderMap>,
    replies: BoxStream<'static, Reply>,
    end: Pin<Box<dyn Future<Output = End> + Send>>,
    keep_alive: Interval,
    ended: bool,
}

impl Stream {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        let part = tokio::select! {
            biased;
            end = &mut self.end => {
                self.ended = true;
                let last = match end {
                    End::Closing => Vec::new(),
                    End::Revoked => event(&REVOKED.into_reply(request_id(&self.headers))),
                    End::Expired => event(&EXPIRED.into_reply(request_id(&self.headers))),
                };
                complete(last)
            }
            reply = self.replies.next() => match reply {
                Some(reply) if reply.executed => event(&reply),
                reply => {
                    self.ended = true;
                    complete(reply.as_ref().map(event).unwrap_or_default())
                }
            },
            _ = self.keep_alive.tick() => COMMENT.to_vec(),
        };
        Some((Ok(part.into()), self))
    }
}

/// An answer is one line: JSON has no line breaks outside of its texts, and there they are escaped.
fn event(reply: &Reply) -> Vec<u8> {
    [b"event: next\ndata: ", &reply.body[..], b"\n\n"].concat()
}

fn complete(mut last: Vec<u8>) -> Vec<u8> {
    last.extend(b"event: complete\ndata: \n\n");
    last
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_stream_is_sent_to_those_who_take_it() {
        for (accept, wanted) in [
            ("text/event-stream", Some(Asked::Always)),
            ("text/event-stream;charset=utf-8", Some(Asked::Always)),
            ("application/json, Text/Event-Stream;q=0.5", Some(Asked::WhereNeeded)),
            ("application/json", None),
            ("*/*", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Asked::of(&headers), wanted, "{accept}");
        }
    }
}
