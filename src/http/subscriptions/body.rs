//! A subscription as the body of an HTTP answer, for as long as it goes on: how the stream is framed is the protocol's
//! (`sse`, `multipart`), the rest is common. So come the answers to several sets of variables, there also one a line
//! (JSON Lines). Not here: what is answered.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use schema::{Chunks, Event, Reply, engine::error::Code};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{End, OUT_OF_MEMORY, Waits, answers, end, multipart, sent, sse};
use crate::{
    App,
    http::{
        QUERY, graphql,
        memory::{MemoryReservation, OutOfMemory},
        params::GraphQLRequest,
        request_id,
        shares::Owner,
    },
    rejection::Rejection,
};

/// How often something is sent while there is nothing to tell: what stands in between gives up on silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(12);

/// The protocols that have a stream as their body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Sse,
    Multipart,
    /// One answer a line (<https://jsonlines.org>): for requests with a list of sets of variables.
    Lines,
}

/// Which stream a caller takes, and how much they want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamRequest {
    /// The one that subscriptions come by.
    framing: Option<Framing>,
    /// Other types are named too: the stream is for subscriptions only.
    only_where_needed: bool,
    /// The answers to a list of sets of variables may come in lines.
    takes_lines: bool,
}

impl StreamRequest {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|value| value.split(',')).map(str::trim);
        let meant = ranges.filter(|range| !range.is_empty()).map(|range| match range {
            _ if multipart::is_meant(range) => Some(Framing::Multipart),
            _ if sse::is_meant(range) => Some(Framing::Sse),
            _ if are_lines(range) => Some(Framing::Lines),
            _ => None,
        });
        let meant: Vec<_> = meant.collect();
        let takes_lines = meant.contains(&Some(Framing::Lines));
        let framing = meant.iter().flatten().copied().find(|framing| *framing != Framing::Lines);
        let only_where_needed = meant.contains(&None);
        (takes_lines || framing.is_some()).then_some(Self { framing, only_where_needed, takes_lines })
    }

    /// Of a caller who takes no other stream than lines here.
    pub(super) fn of_lines(headers: &HeaderMap) -> Option<Self> {
        let wanted = Self::of(headers).filter(|wanted| wanted.takes_lines)?;
        Some(Self { framing: None, ..wanted })
    }
}

/// Whether a range of `Accept` means JSON Lines, and takes them.
fn are_lines(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_named = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/jsonl"));
    let quality = parts.find_map(|part| part.strip_prefix("q="));
    is_named && quality.is_none_or(|quality| quality.parse().is_ok_and(|quality: f32| quality > 0.0))
}

impl Framing {
    fn content_type(self) -> &'static str {
        match self {
            Self::Sse => sse::CONTENT_TYPE,
            Self::Multipart => multipart::CONTENT_TYPE,
            Self::Lines => "application/jsonl; charset=utf-8",
        }
    }

    /// In metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Multipart => "multipart",
            Self::Lines => "lines",
        }
    }

    fn opening(self) -> &'static [u8] {
        match self {
            Self::Sse | Self::Lines => b"",
            Self::Multipart => multipart::OPENING,
        }
    }

    /// What keeps a connection open; nothing where each line is an answer, which comes within the deadline of
    /// a request.
    fn alive(self) -> Option<&'static [u8]> {
        match self {
            Self::Sse => Some(sse::ALIVE),
            Self::Multipart => Some(multipart::ALIVE),
            Self::Lines => None,
        }
    }

    /// `id` stands for an event when its reader comes back.
    fn answer(self, mut answer: Chunks, id: Option<&str>) -> Chunks {
        match self {
            Self::Sse => sse::event(answer, id),
            Self::Multipart => multipart::part(answer),
            Self::Lines => {
                answer.push(b'\n');
                answer
            }
        }
    }

    /// What ended the stream from outside. Clients of server-sent events come back where the stream just
    /// ends, and do not after `complete`; Apollo's are told by an error. A gateway is told in any case: it
    /// has to tell its client, who would else hear nothing of it.
    fn ended(self, end: End, is_to_gateway: bool, headers: &HeaderMap) -> Chunks {
        let mut told = match self {
            Self::Sse if end.is_final() || is_to_gateway => sse::event(end.reply(headers).body, None),
            Self::Sse => return Chunks::default(),
            Self::Multipart => multipart::error(end.reply(headers)),
            Self::Lines => self.answer(end.reply(headers).body, None),
        };
        told.append(self.closing().to_vec().into());
        told
    }

    fn closing(self) -> &'static [u8] {
        match self {
            Self::Sse => sse::CLOSING,
            Self::Multipart => multipart::CLOSING,
            Self::Lines => b"",
        }
    }
}

pub(super) async fn serve(app: App, wanted: StreamRequest, id: Option<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut read = match parts.method {
        Method::GET => graphql::read_get(&app, id, &parts),
        Method::POST => graphql::read_body(&app, id, &parts, body).await,
        _ if parts.method.as_str() == QUERY => graphql::read_body(&app, id, &parts, body).await,
        _ => return graphql::other_method(State(app), Request::from_parts(parts, body)).await,
    };
    let is_subscription = match &mut read {
        Ok(wanted) => graphql::goes_on(&app, &parts.headers, wanted).await,
        Err(_) => false,
    };
    let framing = match &read {
        Ok(incoming) if wanted.takes_lines && incoming.requests.has_sets() => Some(Framing::Lines),
        Ok(_) => wanted.framing.filter(|_| is_subscription || !wanted.only_where_needed),
        Err(_) => None,
    };
    let (requester, params, received, framing) = match (read, framing) {
        (
            Ok(graphql::IncomingRequest {
                requester,
                requests: GraphQLRequest::One(params),
                held: (_permit, received),
            }),
            Some(framing),
        ) => (requester, *params, received, framing),
        (Err(rejection), _) if !wanted.only_where_needed => {
            return rejection.into_response(request_id(&parts.headers));
        }
        (read, _) => return graphql::answer(&app, &parts.headers, read).await,
    };
    // What has one answer gets it, within its own time: a client that came back would have it run twice.
    let end: Pin<Box<dyn Future<Output = End> + Send>> =
        if is_subscription { Box::pin(end(&app, requester.bearer.clone())) } else { Box::pin(pending()) };
    let owner = graphql::owner(&app, &requester.caller, requester.bearer.as_ref());
    let is_to_gateway = requester.caller.is_gateway;
    let received = match received {
        Some(received) => received,
        None => match memory_of_uri(&app, &owner, &parts.uri) {
            Ok(received) => received,
            Err(out) => return Rejection::from(out).into_response(request_id(&parts.headers)),
        },
    };
    let headers = Arc::new(parts.headers);
    let wanted = (params, Some(received));
    let transport = (framing.name(), Waits::default());
    let events = answers(app.clone(), Arc::clone(&headers), requester, wanted, transport);
    let mut keep_alive = interval(KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let new_memory: NewMemory = Box::new(move || app.admission.answer_memory(owner.clone()));
    let (ended, rest) = (false, VecDeque::new());
    let reader = Reader { is_to_gateway, headers };
    let stream =
        Stream { framing, is_subscription, reader, events, end, keep_alive, new_memory, ended, rest };
    let parts = stream::unfold(stream, Stream::next);
    let opening = Bytes::from_static(framing.opening());
    let opening = stream::iter((!opening.is_empty()).then_some(Ok(opening)));
    let headers = [(header::CONTENT_TYPE, framing.content_type()), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(opening.chain(parts))).into_response()
}

/// What is sent while there is nothing to tell, as soon as that is due.
async fn alive(keep_alive: &mut Interval, framing: Framing) -> &'static [u8] {
    match framing.alive() {
        Some(alive) => {
            keep_alive.tick().await;
            alive
        }
        None => pending().await,
    }
}

/// What was received of a request by GET.
fn memory_of_uri(app: &App, owner: &Owner, uri: &Uri) -> Result<MemoryReservation, OutOfMemory> {
    let mut memory = app.admission.body_memory(owner.clone());
    memory.grow(uri.query().map_or(0, str::len))?;
    Ok(memory)
}

type NewMemory = Box<dyn Fn() -> MemoryReservation + Send>;

/// Who reads a stream.
struct Reader {
    is_to_gateway: bool,
    /// Of the request.
    headers: Arc<HeaderMap>,
}

/// The body of an answer.
struct Stream {
    framing: Framing,
    is_subscription: bool,
    reader: Reader,
    events: BoxStream<'static, Event>,
    end: Pin<Box<dyn Future<Output = End> + Send>>,
    keep_alive: Interval,
    /// Memory for one more part, of which nothing is taken yet.
    new_memory: NewMemory,
    ended: bool,
    /// The rest of a part, which is handed over in several pieces.
    rest: VecDeque<Bytes>,
}

impl Stream {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(piece) = self.rest.pop_front() {
            return Some((Ok(piece), self));
        }
        if self.ended {
            return None;
        }
        let framing = self.framing;
        let part: VecDeque<Bytes> = tokio::select! {
            biased;
            end = &mut self.end => pieces(self.ended_by(end)),
            event = self.events.next() => match event {
                Some(Event::Reply(reply)) => self.answer(*reply),
                Some(Event::Interrupted) => pieces(self.ended_by(End::Interrupted)),
                None => {
                    self.ended = true;
                    pieces(framing.closing().to_vec().into())
                }
            },
            alive = alive(&mut self.keep_alive, framing) => VecDeque::from([Bytes::from_static(alive)]),
        };
        self.rest = part;
        self.rest.pop_front().map(|piece| (Ok(piece), self))
    }

    /// An answer, which counts as memory until it is taken. What it was written in is given back with `reply`.
    fn answer(&mut self, mut reply: Reply) -> VecDeque<Bytes> {
        let mut memory = (self.new_memory)();
        if sent::reserve(&mut memory, &mut reply, request_id(&self.reader.headers)).is_err() {
            return pieces(self.out_of_memory());
        }
        let is_last = reply.is_refusal();
        // A reader that comes back by itself does so without the token that was refused.
        let has_expired = reply.codes.contains(&Code::ResumeExpired.as_str());
        let id =
            if has_expired { Some(String::new()) } else { reply.resume_token.map(|token| token.to_string()) };
        let mut part = self.framing.answer(reply.body, id.as_deref());
        if is_last {
            self.ended = true;
            part.append(self.framing.closing().to_vec().into());
        }
        sent::with_memory(part, memory).collect()
    }

    /// A subscription is asked for again by its client; what has one answer gets this one.
    fn out_of_memory(&mut self) -> Chunks {
        if self.is_subscription {
            return self.ended_by(End::OutOfMemory);
        }
        self.ended = true;
        let reply = OUT_OF_MEMORY.into_reply(request_id(&self.reader.headers));
        let mut told = self.framing.answer(reply.body, None);
        told.append(self.framing.closing().to_vec().into());
        told
    }

    fn ended_by(&mut self, end: End) -> Chunks {
        self.ended = true;
        self.framing.ended(end, self.reader.is_to_gateway, &self.reader.headers)
    }
}

fn pieces(part: Chunks) -> VecDeque<Bytes> {
    part.into_iter().map(Bytes::from).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::http::memory::MemoryPool;

    #[test]
    fn a_stream_is_sent_to_those_who_take_it() {
        let wanted = |framing, only_where_needed| {
            Some(StreamRequest { framing: Some(framing), only_where_needed, takes_lines: false })
        };
        let lines = |framing, only_where_needed| {
            Some(StreamRequest { framing, only_where_needed, takes_lines: true })
        };
        for (accept, wanted) in [
            ("text/event-stream", wanted(Framing::Sse, false)),
            ("text/event-stream;charset=utf-8", wanted(Framing::Sse, false)),
            ("application/json, Text/Event-Stream;q=0.5", wanted(Framing::Sse, true)),
            (
                "multipart/mixed;subscriptionSpec=\"1.0\", text/event-stream",
                wanted(Framing::Multipart, false),
            ),
            (
                "multipart/mixed;boundary=\"graphql\";subscriptionSpec=1.0,application/json",
                wanted(Framing::Multipart, true),
            ),
            ("application/graphql-response+json, application/json, multipart/mixed", None),
            ("application/jsonl", lines(None, false)),
            ("application/jsonl;q=0, application/json", None),
            ("Application/JSONL; charset=utf-8, application/json", lines(None, true)),
            ("application/jsonl, text/event-stream, application/json", lines(Some(Framing::Sse), true)),
            ("application/jsonl, text/event-stream", lines(Some(Framing::Sse), false)),
            ("application/json", None),
            ("*/*", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(StreamRequest::of(&headers), wanted, "{accept}");
        }
    }

    /// The whole body of a subscription that has one event, for which there is no memory.
    async fn interrupted(framing: Framing, is_to_gateway: bool) -> String {
        let pool = MemoryPool::new(10, 100);
        let reply = Reply { body: vec![b'x'; 100].into(), executed: true, ..Reply::default() };
        let stream = Stream {
            framing,
            is_subscription: true,
            reader: Reader { is_to_gateway, headers: Arc::default() },
            events: stream::iter([Event::Reply(Box::new(reply))]).boxed(),
            end: Box::pin(pending()),
            keep_alive: tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE),
            new_memory: Box::new(move || pool.reserve(Owner::default())),
            ended: false,
            rest: VecDeque::new(),
        };
        let parts: Vec<_> = stream::unfold(stream, Stream::next).map(Result::unwrap).collect().await;
        String::from_utf8(parts.concat()).expect("a text")
    }

    #[tokio::test]
    async fn a_subscription_out_of_memory_asks_to_resubscribe() {
        assert_eq!(interrupted(Framing::Sse, false).await, "", "no complete");
        let told = interrupted(Framing::Sse, true).await;
        assert!(
            told.starts_with("event: next\ndata: {\"errors\":[") && told.contains("OVERLOADED"),
            "{told}"
        );
        assert!(told.ends_with("event: complete\ndata: \n\n"), "{told}");
        let told = interrupted(Framing::Multipart, false).await;
        assert!(told.contains(r#"{"payload":null,"errors":["#) && told.contains("OVERLOADED"), "{told}");
        assert!(told.ends_with("--graphql--\r\n"), "{told}");
    }
}
