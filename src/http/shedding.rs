//! Refuses GraphQL requests early while there is too much to do: in front of all routes and before a body is
//! read further than what has come with its head, since a server that is busy with refusing serves nobody.
//! What this does not see at once (a body that is still to come, a gateway's proof) goes on, and is refused
//! where permits are given (`admission`). Not here: how much is too much (`admission::adaptive`).

use std::{
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderMap, Method, header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use memchr::memmem;

use super::{REQUEST_ID, about, admission::OVERLOADED, cors, graphql, media::Media, shares::Owner};
use crate::App;

const ROUTE: &str = "/graphql";
/// Between two log lines about requests that are refused.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// So many requests a second are refused at once, for each thread. Beyond that, answers are spaced: whoever
/// sends the next request when the last is answered sends fewer, and what is worked on keeps its part of the
/// processor.
const AT_ONCE_PER_THREAD: u64 = 5_000;
/// The longest that a refusal waits for that.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// So many refusals wait for that at most; what they hold of their requests is not counted elsewhere.
const MOST_WAITING: usize = 10_000;
/// In the place of a request's id.
const PLACE_OF_ID: &str = "00000000-0000-0000-0000-000000000000";

/// Spaces the refusals, and says that there are some, a few times a minute at most.
#[derive(Debug)]
pub(crate) struct Refusals {
    began: Instant,
    /// Nanoseconds between two, where there are many.
    space: u64,
    /// When the next one is answered, in nanoseconds from `began`.
    next: AtomicU64,
    waiting: AtomicUsize,
    refused: AtomicU64,
    said: Mutex<Option<Instant>>,
}

impl Default for Refusals {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
        let space = 1_000_000_000 / (AT_ONCE_PER_THREAD * threads);
        let (next, waiting, refused, said) = Default::default();
        Self { began: Instant::now(), space, next, waiting, refused, said }
    }
}

impl Refusals {
    /// How long the answer to one more has to wait.
    fn pause(&self, now: Instant) -> Duration {
        let now = u64::try_from((now - self.began).as_nanos()).unwrap_or(u64::MAX);
        let latest = now.saturating_add(LONGEST_PAUSE.as_nanos() as u64);
        let after = |next: u64| Some(next.saturating_add(self.space).clamp(now, latest));
        let next = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).unwrap_or(now);
        let pause = Duration::from_nanos(next.saturating_sub(now));
        // A timer has no shorter time.
        if pause < Duration::from_millis(1) { Duration::ZERO } else { pause }
    }

    /// Waits until the next one may be answered, if there are not too many that wait.
    async fn wait(&self) {
        let pause = self.pause(Instant::now());
        if pause.is_zero() {
            return;
        }
        let waiting = Waiting(&self.waiting);
        if waiting.0.fetch_add(1, Ordering::Relaxed) < MOST_WAITING {
            tokio::time::sleep(pause).await;
        }
    }

    /// Says how many there were, and who is the last of them.
    fn say(&self, limit: usize, sender: &Owner, headers: &HeaderMap) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        // Whoever holds the lock says it.
        let Ok(mut said) = self.said.try_lock() else { return };
        if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            let refused = self.refused.swap(0, Ordering::Relaxed);
            let [viewer, address] =
                [sender.account.map(|id| id.to_string()), sender.address.map(|ip| ip.to_string())];
            tracing::warn!(
                refused,
                limit,
                viewer,
                address,
                client_name = about::client_name(headers),
                "GraphQL requests are refused, the last one of this caller: more is asked than can be done"
            );
        }
    }
}

/// One that waits, until it is dropped: its client may go away.
struct Waiting<'r>(&'r AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refuses a request, or gives it back.
pub(super) async fn shed(app: &App, request: Request) -> Result<Request, Response> {
    if !app.admission.is_under_load()
        || !is_plain(&request)
        || app.gateways().may_have_sent(request.headers())
    {
        return Ok(request);
    }
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let sender = graphql::sender(app, &parts);
    if !app.admission.refuses(&sender) {
        return Ok(Request::from_parts(parts, body));
    }
    if parts.method == Method::POST {
        let id_in_path = parts.uri.path().strip_prefix(ROUTE).map(|rest| rest.trim_start_matches('/'));
        match whole(body) {
            Ok(bytes) if app.documents.may_have_priority(&bytes, id_in_path) => {
                return Ok(Request::from_parts(parts, Body::from(bytes)));
            }
            Ok(_) => {}
            Err(body) => return Ok(Request::from_parts(parts, body)),
        }
    } else {
        drop(body);
    }
    let refused = refuse(app, &parts, &sender, started);
    // What waits holds nothing of its request.
    drop(parts);
    app.refusals.wait().await;
    Err(refused)
}

/// Whether it is an ordinary GraphQL request.
fn is_plain(request: &Request) -> bool {
    let rest = request.uri().path().strip_prefix(ROUTE);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && (request.method() == Method::POST || request.method() == Method::GET)
        && ![header::UPGRADE, header::CONTENT_ENCODING]
            .iter()
            .any(|name| request.headers().contains_key(name))
}

/// A body that has come as a whole already; else it is as it was.
fn whole(mut body: Body) -> Result<Bytes, Body> {
    let Some(Some(Ok(frame))) = body.frame().now_or_never() else { return Err(body) };
    match frame.into_data() {
        Ok(bytes) if body.is_end_stream() => Ok(bytes),
        Ok(bytes) => Err(Body::from_stream(stream::iter([Ok(bytes)]).chain(body.into_data_stream()))),
        // Trailers without a body.
        Err(_) => Ok(Bytes::new()),
    }
}

fn refuse(app: &App, parts: &Parts, sender: &Owner, started: Instant) -> Response {
    let id = super::id_of(&parts.headers);
    let media = Media::accepted_by(&parts.headers).unwrap_or(Media::Json);
    let body = body_with(id.to_str().unwrap_or_default());
    let mut response = OVERLOADED.response_with(media.content_type(), body);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    cors::show(&app.http, parts.headers.get(header::ORIGIN), headers);
    app.metrics.shed(parts.method == Method::GET, started.elapsed());
    app.refusals.say(app.admission.limit(), sender, &parts.headers);
    response
}

/// The body of every refusal but for the request's id.
fn body_with(request_id: &str) -> Vec<u8> {
    static PARTS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
        let body = OVERLOADED.body(PLACE_OF_ID);
        let at = memmem::find(&body, PLACE_OF_ID.as_bytes()).unwrap_or(body.len());
        let rest = body.get(at + PLACE_OF_ID.len()..).unwrap_or_default().to_vec();
        [body[..at].to_vec(), rest]
    });
    let [before, after] = &*PARTS;
    [before, request_id.as_bytes(), after].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_counted_until_the_answer_or_the_end_of_the_client() {
        let refusals = Refusals { space: 100_000_000, ..Refusals::default() };
        for _ in 0..4 {
            refusals.pause(Instant::now());
        }
        let mut waiting = Box::pin(refusals.wait());
        assert!(waiting.as_mut().now_or_never().is_none(), "it waits");
        assert_eq!(refusals.waiting.load(Ordering::Relaxed), 1);
        drop(waiting);
        assert_eq!(refusals.waiting.load(Ordering::Relaxed), 0);
        refusals.waiting.store(MOST_WAITING, Ordering::Relaxed);
        assert!(refusals.wait().now_or_never().is_some(), "too many wait");
        assert_eq!(refusals.waiting.load(Ordering::Relaxed), MOST_WAITING);
    }

    #[test]
    fn many_refusals_are_spaced_and_few_are_not() {
        let refusals = Refusals { space: 100_000, ..Refusals::default() };
        let begin = refusals.began + Duration::from_secs(1);
        let pauses: Vec<_> = (0..100).map(|_| refusals.pause(begin)).collect();
        assert_eq!(pauses[..9], [Duration::ZERO; 9], "less than a millisecond");
        assert_eq!(pauses[99], Duration::from_micros(9_800), "the first one is answered at once");
        assert_eq!(refusals.pause(begin + Duration::from_secs(1)), Duration::ZERO, "later");
        let last = (0..10_000).map(|_| refusals.pause(begin + Duration::from_secs(1))).last();
        assert_eq!(last, Some(LONGEST_PAUSE));
        let later = begin + Duration::from_secs(1) + LONGEST_PAUSE;
        assert_eq!(refusals.pause(later), Duration::ZERO, "what is beyond that is not remembered");
    }
}
