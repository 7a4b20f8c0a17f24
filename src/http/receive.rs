//! The body of a request: received within bounds on bytes, memory and time, then inflated where it came in gzip. Other
//! codings are refused, since they let a few bytes ask for megabytes of memory. Nothing is inflated before a body is
//! complete: one that never ends holds no more memory than was sent of it, and nothing of its connection's buffers, of
//! which a single byte would keep 16 KiB. Not here: what a body says (`params`).

use std::{borrow::Cow, io::Read as _, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::memory::MemoryReservation;
use crate::{config::HttpConfig, rejection::Rejection};

const TOO_LARGE: Rejection =
    Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", "The request is too large.");
const TIMEOUT: Rejection =
    Rejection::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", "The request's body did not arrive in time.");
const BROKEN: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "The request's body broke off, or is not in its encoding.",
);
const ENCODING: Rejection = Rejection {
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    code: "BAD_USER_INPUT",
    message: Cow::Borrowed("The body must be sent as it is, or in content-encoding: gzip."),
    retryable: None,
    content_codings: Some("gzip, identity"),
};
/// What is inflated at a time, bytes; other requests have their turn in between.
const STEP_BYTES: usize = 16 << 10;
/// The largest and the smallest piece that a body is received in, bytes.
const PART_BYTES: usize = 16 << 10;
const LEAST_PART_BYTES: usize = 64;

/// A body as it was sent.
pub(super) struct ReceivedBody {
    bytes: Bytes,
    is_gzip: bool,
}

impl ReceivedBody {
    /// The bytes as they were sent: in their coding.
    pub(super) fn as_sent(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes without their coding, `limit` at most.
    pub(super) async fn decode(
        self,
        limit: usize,
        memory: &mut MemoryReservation,
    ) -> Result<Bytes, Rejection> {
        if !self.is_gzip {
            return Ok(self.bytes);
        }
        let (mut decoder, mut whole) = (MultiGzDecoder::new(&self.bytes[..]), Vec::new());
        loop {
            let read = (&mut decoder).take(STEP_BYTES as u64).read_to_end(&mut whole).map_err(|_| BROKEN)?;
            if whole.len() > limit {
                return Err(TOO_LARGE);
            }
            memory.resize(self.bytes.len() + whole.capacity())?;
            if read < STEP_BYTES {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(self.bytes);
        memory.resize(whole.capacity())?;
        Ok(whole.into())
    }
}

/// Receives a body of `limit` bytes at most.
pub(super) async fn receive(
    headers: &HeaderMap,
    mut body: Body,
    http: &HttpConfig,
    limit: usize,
    memory: &mut MemoryReservation,
) -> Result<ReceivedBody, Rejection> {
    let is_gzip = is_gzip(headers)?;
    if body.size_hint().lower() > limit as u64 {
        return Err(TOO_LARGE);
    }
    let mut pace = BodyPace::new(http.body_timeout, http.min_body_rate.0);
    let mut parts = BodyParts::default();
    loop {
        let frame = match timeout_at(pace.ends, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(|_| BROKEN)?,
            Ok(None) => break,
            Err(_) if pace.is_kept() => continue,
            Err(_) => return Err(TIMEOUT),
        };
        let Ok(data) = frame.into_data() else { continue };
        if parts.length + data.len() > limit {
            return Err(TOO_LARGE);
        }
        pace.received += data.len();
        // Nearly every body comes in one piece, which is used as it is. Of others nothing is kept that is a slice of
        // what its connection has read.
        if parts.length == 0 && body.is_end_stream() {
            memory.resize(data.len())?;
            return Ok(ReceivedBody { bytes: data, is_gzip });
        }
        parts.append(&data);
        memory.resize(parts.capacity)?;
    }
    let bytes = parts.join();
    memory.resize(bytes.len())?;
    Ok(ReceivedBody { bytes, is_gzip })
}

/// What has come of a body. A part that is full is never moved before the body is complete: growing one
/// buffer would leave others of every size behind, which the allocator keeps.
#[derive(Default)]
struct BodyParts {
    buffers: Vec<BytesMut>,
    length: usize,
    capacity: usize,
}

impl BodyParts {
    fn append(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = self.buffers.last().map_or(0, |part| part.capacity() - part.len());
            if room == 0 {
                // As much again as has come.
                let part =
                    BytesMut::with_capacity(data.len().max(self.length).clamp(LEAST_PART_BYTES, PART_BYTES));
                self.capacity += part.capacity();
                self.buffers.push(part);
            } else if let Some(part) = self.buffers.last_mut() {
                let (fits, rest) = data.split_at(room.min(data.len()));
                part.extend_from_slice(fits);
                self.length += fits.len();
                data = rest;
            }
        }
    }

    /// All of it in one piece.
    fn join(mut self) -> Bytes {
        match self.buffers.pop() {
            Some(part) if self.buffers.is_empty() => part.freeze(),
            last => {
                let mut whole = BytesMut::with_capacity(self.length);
                for part in self.buffers.into_iter().chain(last) {
                    whole.extend_from_slice(&part);
                }
                whole.freeze()
            }
        }
    }
}

/// Whether a body is in gzip; refuses every other coding.
fn is_gzip(headers: &HeaderMap) -> Result<bool, Rejection> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    let is = |name: &str| coding.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    match (codings.next(), is("identity"), is("gzip") || is("x-gzip")) {
        (None, true, _) => Ok(false),
        (None, _, true) => Ok(true),
        _ => Err(ENCODING),
    }
}

/// How fast a body has to come: at its end, and at the end of each further window, so much must have come
/// within the last.
struct BodyPace {
    window: Duration,
    /// The least that must come within one window, bytes.
    least: usize,
    ends: Instant,
    received: usize,
}

impl BodyPace {
    fn new(window: Duration, per_second: usize) -> Self {
        let least = (per_second as f64 * window.as_secs_f64()).ceil() as usize;
        Self { window, least: least.max(1), ends: Instant::now() + window, received: 0 }
    }

    /// At the end of a window: whether enough has come, so that another begins.
    fn is_kept(&mut self) -> bool {
        self.ends += self.window;
        std::mem::take(&mut self.received) >= self.least
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io::Write as _, sync::Arc};

    use flate2::{Compression, write::GzEncoder};
    use futures_util::{StreamExt as _, stream};

    use super::*;
    use crate::{
        config::Config,
        http::{memory::MemoryPool, shares::Owner},
    };

    const LIMIT: usize = 100_000;

    fn http() -> HttpConfig {
        let mut http = Config::default().http;
        (http.body_timeout, http.min_body_rate.0) = (Duration::from_millis(500), 20_000);
        http
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("ended")
    }

    fn encoded(coding: &'static str) -> HeaderMap {
        [(header::CONTENT_ENCODING, coding.parse().expect("a value"))].into_iter().collect()
    }

    /// A body of so many parts of so many bytes, one every so many milliseconds.
    fn dripping(count: usize, bytes: usize, milliseconds: u64) -> Body {
        let parts = stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Ok::<_, Infallible>(vec![b' '; bytes])
        });
        Body::from_stream(parts)
    }

    #[tokio::test]
    async fn a_body_may_take_long_if_it_comes_fast_enough() {
        let pool = MemoryPool::new(1 << 20, 100);
        let outcome = async |body| {
            let mut memory = pool.reserve(Owner::default());
            let received = receive(&HeaderMap::new(), body, &http(), LIMIT, &mut memory).await;
            received.map(|received| received.as_sent().len())
        };
        assert_eq!(outcome(dripping(20, 5_000, 50)).await, Ok(100_000), "a second, faster than it must");
        assert_eq!(outcome(dripping(5, 1, 10)).await, Ok(5), "short ones may be slow");
        assert_eq!(outcome(dripping(60, 100, 50)).await, Err(TIMEOUT), "a tenth of the rate");
        let early = dripping(1, 50_000, 0).into_data_stream().chain(dripping(60, 1, 50).into_data_stream());
        assert_eq!(outcome(Body::from_stream(early)).await, Err(TIMEOUT), "what came early is no credit");
        assert_eq!(outcome(dripping(11, 10_000, 0)).await, Err(TOO_LARGE));
        assert_eq!(pool.held(), 0);
    }

    #[tokio::test]
    async fn an_endless_body_holds_only_the_bytes_sent() {
        let pool = MemoryPool::new(1 << 20, 100);
        let sent = gzip(&vec![b' '; LIMIT]);
        let size = sent.len();
        let never = stream::iter([Ok::<_, Infallible>(sent)]).chain(stream::pending());
        let mut memory = pool.reserve(Owner::default());
        let (headers, http) = (encoded("gzip"), http());
        let receiving = receive(&headers, Body::from_stream(never), &http, LIMIT, &mut memory);
        let held = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            pool.held()
        };
        let (received, held) = tokio::join!(receiving, held);
        assert_eq!((received.err(), held), (Some(TIMEOUT), size));
    }

    /// What a connection has read at once.
    struct Buffer(Vec<u8>, #[expect(dead_code, reason = "it is counted")] Arc<()>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[tokio::test]
    async fn a_pending_body_holds_no_connection_buffer() {
        let (pool, alive) = (MemoryPool::new(1 << 20, 100), Arc::new(()));
        let read = Bytes::from_owner(Buffer(vec![b' '; 16 << 10], Arc::clone(&alive)));
        let begins = stream::iter([Ok::<_, Infallible>(read.slice(..1))]).chain(stream::pending());
        drop(read);
        let mut memory = pool.reserve(Owner::default());
        let (headers, http) = (HeaderMap::new(), http());
        let receiving = receive(&headers, Body::from_stream(begins), &http, LIMIT, &mut memory);
        let held = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            (Arc::strong_count(&alive), pool.held())
        };
        let (received, (buffers, held)) = tokio::join!(receiving, held);
        assert_eq!((received.err(), buffers), (Some(TIMEOUT), 1), "none but this test's");
        assert!((1..=64).contains(&held), "{held}");
    }

    #[test]
    fn parts_are_what_came_and_grow_with_it() {
        let all: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        for step in [1, 63, 1_000, 16_384, 40_000, 100_000] {
            let mut parts = BodyParts::default();
            for data in all.chunks(step) {
                parts.append(data);
                let unused = parts.capacity - parts.length;
                assert!(unused <= parts.length.clamp(LEAST_PART_BYTES, PART_BYTES), "{step}: {unused}");
            }
            assert!(parts.buffers.len() < 20, "{step}: {}", parts.buffers.len());
            assert_eq!((parts.length, parts.join() == all), (all.len(), true), "{step}");
        }
        assert!(BodyParts::default().join().is_empty());
    }

    #[tokio::test]
    async fn inflated_bodies_count_toward_the_body_limit() {
        let pool = MemoryPool::new(200_000, 100);
        let outcome = async |bytes: Vec<u8>, limit: usize| {
            let mut memory = pool.reserve(Owner::default());
            let received = receive(&encoded("GZIP"), bytes.into(), &http(), limit, &mut memory).await?;
            received.decode(limit, &mut memory).await.map(|bytes| bytes.len())
        };
        assert_eq!(outcome(gzip(&vec![b'x'; 20_000]), 20_000).await, Ok(20_000));
        assert_eq!(
            outcome([gzip(b"ab"), gzip(b"c")].concat(), LIMIT).await,
            Ok(3),
            "two members are one body"
        );
        assert_eq!(outcome(gzip(&vec![b'x'; 20_001]), 20_000).await, Err(TOO_LARGE));
        assert_eq!(outcome(gzip(&vec![b'x'; 90_000]), LIMIT).await, Err(super::super::admission::OVERLOADED));
        let half = gzip(b"abcdefghij");
        assert_eq!(outcome(half[..half.len() - 4].to_vec(), LIMIT).await, Err(BROKEN));
        assert_eq!(outcome(b"no gzip".to_vec(), LIMIT).await, Err(BROKEN));
        assert_eq!(pool.held(), 0);
    }
}
