//! How the bytes of an answer go out: in which coding (RFC 9110 §12.5.3), under which tag, in pieces, or not
//! at all where the caller has them already (§13.1.2). Coding and tag are settled before anything is
//! compressed, so a 304 has the `ETag`, `Vary` and `Cache-Control` of the 200 that it stands for. A long body
//! is compressed and handed over piece by piece, and between two pieces others get their turn on the thread;
//! long bodies are compressed on half of the threads at most, however many there are. Where there is no
//! memory for an encoder now, an answer goes out as it is. Not here: how long an answer keeps (`caching`).

use std::{
    io::{self, Write as _},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    thread,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use brotli::CompressorWriter;
use flate2::{Compression, write::GzEncoder};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, futures::OwnedNotified};
use zstd::{stream::write::Encoder as ZstdEncoder, zstd_safe::CParameter};

use super::{
    caching,
    in_memory::InMemory,
    memory::{AnswerMemory, OutOfMemory},
    request_id,
    shares::Owner,
};
use crate::{App, config::setting::GatewayCompression, rejection::Rejection};

/// Bytes that are compressed, or handed over, at a time.
const PIECE: usize = 32 << 10;
/// The window of all encoders, as a power of two: what an encoder keeps in memory for each answer under way.
const WINDOW_BITS: u32 = 18;
/// What an encoder keeps in memory at most, about. For a short body it is less: twice its length.
const ENCODER_BYTES: usize = 1 << WINDOW_BITS;
/// Answers are made for one reader: speed counts more than size.
const BROTLI_QUALITY: u32 = 0;
const ZSTD_LEVEL: i32 = 1;

/// How many pieces of long bodies may be compressed at the same time: on half of the threads, at least one.
static TURNS: LazyLock<Arc<Turns>> = LazyLock::new(|| {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() / 2);
    Arc::new(Turns::new(threads.max(1)))
});

/// Permits to compress a piece. One is taken and given back within one poll: a semaphore that hands its
/// permits to who has waited longest would also hand them to bodies that nobody polls, such as those whose
/// HTTP/2 window is closed.
struct Turns {
    permits: Semaphore,
    /// Tells all who wait that a permit is free.
    freed: Arc<Notify>,
}

impl Turns {
    fn new(permits: usize) -> Self {
        Self { permits: Semaphore::new(permits), freed: Arc::default() }
    }

    /// A permit, where one is free now. If none is, the caller is woken once `waiting` is told of one.
    fn poll_take(
        &self,
        waiting: &mut Option<Pin<Box<OwnedNotified>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Turn<'_>> {
        loop {
            // It waits before it looks, so that what is freed between the two is not missed.
            let freed = waiting.get_or_insert_with(|| Box::pin(Arc::clone(&self.freed).notified_owned()));
            let is_told = freed.as_mut().poll(cx).is_ready();
            if is_told {
                *waiting = None;
            }
            if let Ok(permit) = self.permits.try_acquire() {
                *waiting = None;
                return Poll::Ready(Turn { permit: Some(permit), freed: &self.freed });
            }
            if !is_told {
                return Poll::Pending;
            }
        }
    }
}

/// The right to compress a piece.
struct Turn<'a> {
    permit: Option<SemaphorePermit<'a>>,
    freed: &'a Notify,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permit = None;
        self.freed.notify_waiters();
    }
}

/// Marks an answer to a gateway.
#[derive(Clone, Copy)]
pub(super) struct ToGateway;

/// A coding of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Zstd,
    Brotli,
}

impl Coding {
    /// What is taken at equal weight, the best first: the smallest.
    const SMALLEST: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];
    /// And where it must cost this server little.
    const CHEAPEST: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Brotli];

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }
}

/// The codings that a caller takes (RFC 9110 §12.5.3), each with its weight.
struct Accepted<'h>(Vec<(&'h str, u16)>);

impl<'h> Accepted<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let accepted =
            headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        Self(accepted.flat_map(|value| value.split(',')).filter_map(weighted).collect())
    }

    fn weight(&self, name: &str) -> Option<u16> {
        let listed = self.0.iter().find(|(listed, _)| listed.eq_ignore_ascii_case(name));
        listed.map(|(_, weight)| *weight)
    }

    /// The one that the caller likes best, of equals the first of these. Without a usable `Accept-Encoding` nothing
    /// is compressed.
    fn best(&self, preferred: [Coding; 3]) -> Coding {
        // RFC 9110 §8.4.1.3: `x-gzip` is the same.
        let same = |coding: Coding| (coding == Coding::Gzip).then(|| self.weight("x-gzip")).flatten();
        let any = self.weight("*");
        let mut best = (Coding::Identity, self.weight("identity").unwrap_or(0));
        let mut is_compressed = false;
        for coding in preferred {
            let weight = self.weight(coding.name()).or_else(|| same(coding)).or(any).unwrap_or(0);
            // What is compressed is as good as what is not.
            if weight > best.1 || (weight == best.1 && weight > 0 && !is_compressed) {
                (best, is_compressed) = ((coding, weight), true);
            }
        }
        best.0
    }

    /// Whether the caller takes an answer as it is: unless they say that they do not.
    fn takes_identity(&self) -> bool {
        self.weight("identity").or_else(|| self.weight("*")).is_none_or(|weight| weight > 0)
    }
}

/// Holds the memory of an encoder for a body of so many bytes, and that of the body, where nobody does yet.
fn hold_encoder(app: &App, owner: Owner, response: &mut Response, bytes: u64) -> Result<(), OutOfMemory> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let memory = if let Some(memory) = response.extensions().get::<AnswerMemory>() {
        memory.clone()
    } else {
        let mut memory = app.admission.answer_memory(owner);
        memory.grow(bytes)?;
        memory.into()
    };
    memory.grow_beside(bytes.saturating_mul(2).min(ENCODER_BYTES))?;
    response.extensions_mut().insert(memory);
    Ok(())
}

/// An item of a list of preferences, in thousandths.
fn weighted(item: &str) -> Option<(&str, u16)> {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok());
    let weight = weight.filter(|weight| (0.0..=1.0).contains(weight))?;
    Some((name, (weight * 1_000.0) as u16))
}

/// Sends an answer as the caller takes it, or tells that they have it.
pub(super) async fn respond(State(app): State<App>, request: Request, next: Next) -> Response {
    let accepted = Accepted::of(request.headers());
    let [smallest, cheapest] = [Coding::SMALLEST, Coding::CHEAPEST].map(|preferred| accepted.best(preferred));
    let takes_identity = accepted.takes_identity();
    let is_read =
        matches!(*request.method(), Method::GET | Method::HEAD) || request.method().as_str() == super::QUERY;
    let conditions = request.headers().get_all(header::IF_NONE_MATCH).iter();
    let known: Vec<HeaderValue> = if is_read { conditions.cloned().collect() } else { Vec::new() };
    let id = request.headers().get(super::REQUEST_ID).cloned();
    let id = id.map(|id| HeaderMap::from_iter([(super::REQUEST_ID, id)])).unwrap_or_default();
    let owner = request.extensions().get::<Owner>().cloned().unwrap_or_default();
    let mut response = next.run(request).await;
    caching::vary_by_caller(&mut response);
    let coding = match (response.extensions().get::<ToGateway>(), app.gateway.compression) {
        (None, _) | (_, GatewayCompression::Smallest) => smallest,
        (_, GatewayCompression::Off) if takes_identity => Coding::Identity,
        (_, GatewayCompression::Cheapest | GatewayCompression::Off) => cheapest,
    };
    let size = size_of(&response);
    let is_coded =
        size.is_some_and(|size| size >= app.http.compress_from.0 as u64) && is_compressible(&response);
    let mut coding = if is_coded { coding } else { Coding::Identity };
    if is_coded {
        caching::vary(response.headers_mut(), &["accept-encoding"]);
    }
    if coding != Coding::Identity {
        let plain = response.headers().clone();
        mark(response.headers_mut(), coding);
        let is_known = response.status() == StatusCode::OK && caching::is_known(&known, response.headers());
        if !is_known && hold_encoder(&app, owner, &mut response, size.unwrap_or_default()).is_err() {
            let is_owed = response.extensions().get::<AnswerMemory>().is_some_and(AnswerMemory::is_owed);
            if !takes_identity && !is_owed {
                return Rejection::from(OutOfMemory).into_response(request_id(&id));
            }
            coding = Coding::Identity;
            *response.headers_mut() = plain;
        }
    }
    if response.status() == StatusCode::OK && caching::is_known(&known, response.headers()) {
        return not_modified(response);
    }
    let is_long = size.is_some_and(|size| size > PIECE as u64);
    if coding == Coding::Identity && !is_long {
        return response;
    }
    let (parts, body) = response.into_parts();
    // It is in memory already: nothing is waited for, and nothing copied.
    match Pieces::of(InMemory::collect(body).await, coding, &TURNS) {
        Ok(pieces) => Response::from_parts(parts, Body::new(pieces)),
        Err(error) => {
            tracing::error!(%error, coding = coding.name(), "an answer could not be compressed");
            Rejection::internal().into_response(request_id(&id))
        }
    }
}

/// The bytes of an answer, if that is known; to HEAD it is told without them.
fn size_of(response: &Response) -> Option<u64> {
    let told =
        response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    told.or_else(|| response.body().size_hint().exact())
}

/// Texts are; what is compressed already is not, nor are streams.
fn is_compressible(response: &Response) -> bool {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text(header::CONTENT_TYPE);
    let is_stream =
        ["text/event-stream", "multipart/", "image/"].iter().any(|kind| content_type.starts_with(kind));
    text(header::CONTENT_ENCODING).is_empty() && !is_stream
}

/// Says in which coding it goes out; other bytes have another tag.
fn mark(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    let marked = tag.and_then(|tag| tag.strip_suffix('"')).map(|open| format!("{open}-{}\"", coding.name()));
    if let Some(marked) = marked.and_then(|marked| HeaderValue::from_str(&marked).ok()) {
        headers.insert(header::ETAG, marked);
    }
}

/// RFC 9110 §15.4.5: the headers that the 200 has, without what describes a body.
fn not_modified(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Body::empty();
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
    response
}

/// A body that is in memory, handed over piece by piece.
struct Pieces {
    /// What is still to be handed over, or compressed.
    rest: InMemory,
    encoder: Option<Encoder>,
    /// Where it waits until the next piece of a long body may be compressed.
    turns: Arc<Turns>,
    waiting: Option<Pin<Box<OwnedNotified>>>,
    is_long: bool,
    /// The last turn took its time; now it is others' turn.
    is_others_turn: bool,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
}

impl Encoder {
    fn of(coding: Coding) -> io::Result<Option<Self>> {
        Ok(Some(match coding {
            Coding::Identity => return Ok(None),
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_BITS))?;
                Self::Zstd(encoder)
            }
            Coding::Brotli => Self::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                4 << 10,
                BROTLI_QUALITY,
                WINDOW_BITS,
            ))),
        }))
    }

    /// Takes a piece; what has come out of it so far.
    fn take(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(piece).map(|()| std::mem::take(encoder.get_mut())),
            Self::Zstd(encoder) => encoder.write_all(piece).map(|()| std::mem::take(encoder.get_mut())),
            Self::Brotli(encoder) => encoder.write_all(piece).map(|()| std::mem::take(encoder.get_mut())),
        }
    }

    /// What is left of all pieces.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
        }
    }
}

impl Pieces {
    fn of(whole: InMemory, coding: Coding, turns: &Arc<Turns>) -> io::Result<Self> {
        let is_long = whole.len() > PIECE;
        let (encoder, turns) = (Encoder::of(coding)?, Arc::clone(turns));
        Ok(Self { rest: whole, encoder, turns, waiting: None, is_long, is_others_turn: false })
    }

    /// The next bytes that go out; none where the encoder keeps them for now.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        let piece = self.rest.take(PIECE);
        let Some(encoder) = &mut self.encoder else { return Ok(Vec::new()) };
        let mut out = encoder.take(&piece)?;
        if self.rest.is_empty()
            && let Some(encoder) = self.encoder.take()
        {
            out.extend(encoder.finish()?);
        }
        Ok(out)
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.is_others_turn) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.is_end_stream() {
            return Poll::Ready(None);
        }
        if this.encoder.is_none() {
            let piece = this.rest.take(PIECE);
            this.is_others_turn = !this.rest.is_empty();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let turns = Arc::clone(&this.turns);
        let turn = if this.is_long {
            match turns.poll_take(&mut this.waiting, cx) {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => return Poll::Pending,
            }
        } else {
            None
        };
        let out = match this.next() {
            Ok(out) => out,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        drop(turn);
        let is_last = this.is_end_stream();
        if out.is_empty() && !is_last {
            // What is very compressible gives nothing for a long while.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.is_others_turn = !is_last;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.encoder.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.encoder {
            None => SizeHint::with_exact(self.rest.len() as u64),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests;
