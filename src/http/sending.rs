//! How an answer leaves: in slices, each of which tells when it was taken by the connection, so that it is known of every
//! answer whether its reader takes it, over HTTP/1.1 and HTTP/2 alike. hyper asks a body for more only when the
//! connection has room for it, so a body cannot notice by itself that nobody reads. A stream of HTTP/2 whose reader
//! is too slow is reset; the other streams of its connection go on. Not here: the limits and who looks at them
//! (`connection_timeouts`).

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use futures_util::task::AtomicWaker;
use hyper::{
    body::{Frame, SizeHint},
    rt::Executor,
};
use tokio::{sync::Notify, time::Instant};

use super::{connection_timeouts::InFlight, memory::AnswerMemory};

/// Largest part of an answer that is handed over at a time.
const SLICE_BYTES: usize = 64 << 10;
/// The last part of an answer over HTTP/2, handed over when the rest is taken: a stream can be reset until then, and
/// afterwards only its connection can be cut. Not more than a frame, so that it fits any usual window.
const TAIL_BYTES: usize = 16 << 10;

tokio::task_local! {
    /// The stream of HTTP/2 whose task this is.
    static STREAM: Arc<StreamHandle>;
}

/// What ends a stream of HTTP/2 from outside.
#[derive(Debug, Default)]
struct StreamHandle {
    reset: Notify,
    has_ended: AtomicBool,
}

/// Runs the streams of HTTP/2 connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let handle = Arc::new(StreamHandle::default());
        tokio::spawn(STREAM.scope(Arc::clone(&handle), async move {
            // Dropping a stream before its end resets it, and drops what it still had to send.
            tokio::select! {
                _ = future => {}
                () = handle.reset.notified() => {}
            }
            handle.has_ended.store(true, Ordering::Relaxed);
        }));
    }
}

/// What an answer's reader must keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Without taking anything, and over which the rate is measured.
    pub(super) window: Duration,
    /// What must be taken at least, bytes a second on the average of each window.
    pub(super) per_second: usize,
}

/// Why a reader is given up.
pub(super) const TAKES_NOTHING: &str = "write";
pub(super) const TOO_SLOW: &str = "rate";

/// An answer that is being sent, as long as anything of it is held.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Handed over and not taken yet, bytes.
    pending: AtomicUsize,
    /// Taken in all, bytes; may begin anew.
    taken: AtomicUsize,
    /// The server has nothing to send at the moment.
    has_nothing: AtomicBool,
    /// All there was has been taken since this was last looked at.
    was_drained: AtomicBool,
    drained: AtomicWaker,
    stream: Option<Arc<StreamHandle>>,
    seen: Mutex<Seen>,
    _memory: Option<AnswerMemory>,
}

/// What was seen of an answer when it was last looked at.
#[derive(Debug)]
struct Seen {
    taken: usize,
    progress_at: Instant,
    window_from: Instant,
    window_taken: usize,
    is_reset: bool,
}

/// What is to be done about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// Its stream was reset, for this reason.
    Reset(&'static str),
    /// Its connection must be cut, for this reason.
    Cut(&'static str),
}

impl Outgoing {
    fn new(memory: Option<AnswerMemory>) -> Self {
        let now = Instant::now();
        let seen = Seen { taken: 0, progress_at: now, window_from: now, window_taken: 0, is_reset: false };
        Self {
            pending: AtomicUsize::default(),
            taken: AtomicUsize::default(),
            has_nothing: AtomicBool::default(),
            was_drained: AtomicBool::default(),
            drained: AtomicWaker::default(),
            stream: STREAM.try_with(Arc::clone).ok(),
            seen: Mutex::new(seen),
            _memory: memory,
        }
    }

    /// Holds the reader to its pace; resets its stream, where it has one that goes on.
    pub(super) fn look(&self, now: Instant, pace: Pace) -> Verdict {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.taken.load(Ordering::Relaxed);
        if self.was_drained.swap(false, Ordering::Relaxed) || self.pending.load(Ordering::Relaxed) == 0 {
            (seen.progress_at, seen.window_from) = (now, now);
            (seen.taken, seen.window_taken) = (taken, taken);
            return Verdict::Fine;
        }
        if taken != seen.taken {
            (seen.taken, seen.progress_at) = (taken, now);
        }
        let window = now - seen.window_from;
        let why = if now - seen.progress_at >= pace.window {
            TAKES_NOTHING
        } else if window < pace.window {
            return Verdict::Fine;
        } else if (taken.wrapping_sub(seen.window_taken) as f64)
            < pace.per_second as f64 * window.as_secs_f64()
        {
            TOO_SLOW
        } else {
            (seen.window_from, seen.window_taken) = (now, taken);
            return Verdict::Fine;
        };
        match &self.stream {
            Some(_) if seen.is_reset => Verdict::Fine,
            Some(stream) if !stream.has_ended.load(Ordering::Relaxed) => {
                seen.is_reset = true;
                stream.reset.notify_one();
                Verdict::Reset(why)
            }
            Some(_) | None => Verdict::Cut(why),
        }
    }

    fn hand_over(&self, bytes: usize) {
        self.pending.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.let_go(bytes);
    }

    fn let_go(&self, bytes: usize) {
        if self.pending.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            if self.has_nothing.load(Ordering::Relaxed) {
                self.was_drained.store(true, Ordering::Relaxed);
            }
            self.drained.wake();
        }
    }

    fn set_has_nothing(&self, has_nothing: bool) {
        self.has_nothing.store(has_nothing, Ordering::Relaxed);
        if has_nothing && self.pending.load(Ordering::Relaxed) == 0 {
            self.was_drained.store(true, Ordering::Relaxed);
        }
    }

    fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        self.drained.register(cx.waker());
        if self.pending.load(Ordering::Acquire) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A slice of an answer, which tells when it is taken.
#[derive(Debug)]
pub(super) struct Slice {
    bytes: Bytes,
    answer: Arc<Outgoing>,
}

impl Slice {
    fn new(bytes: Bytes, answer: &Arc<Outgoing>) -> Self {
        answer.hand_over(bytes.len());
        Self { bytes, answer: Arc::clone(answer) }
    }
}

impl Buf for Slice {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if count > 0 {
            self.answer.take(count);
        }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.answer.let_go(self.bytes.len());
        }
    }
}

/// The body of an answer, which is under way as long as it lasts.
pub(super) struct Answered {
    body: Body,
    /// What the body has given and is not handed over yet.
    rest: Bytes,
    answer: Arc<Outgoing>,
    is_http2: bool,
    _under_way: InFlight,
}

impl Answered {
    pub(super) fn new(body: Body, memory: Option<AnswerMemory>, is_http2: bool, in_flight: InFlight) -> Self {
        let answer = Arc::new(Outgoing::new(memory));
        if !body.is_end_stream() {
            in_flight.watch(&answer);
        }
        Self { body, rest: Bytes::new(), answer, is_http2, _under_way: in_flight }
    }

    /// How much of the rest may be handed over now.
    fn poll_size(&self, cx: &Context<'_>) -> Poll<usize> {
        let rest = self.rest.len();
        let has_tail = self.is_http2 && self.body.is_end_stream();
        if has_tail && rest > TAIL_BYTES {
            return Poll::Ready(SLICE_BYTES.min(rest - TAIL_BYTES));
        }
        if has_tail {
            ready!(self.answer.poll_drained(cx));
        }
        Poll::Ready(SLICE_BYTES.min(rest))
    }
}

impl HttpBody for Answered {
    type Data = Slice;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Slice>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = Pin::new(&mut self.body).poll_frame(cx);
            self.answer.set_has_nothing(frame.is_pending());
            match ready!(frame) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => {
                        let none = |_: Bytes| Slice::new(Bytes::new(), &self.answer);
                        return Poll::Ready(Some(Ok(frame.map_data(none))));
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.is_http2 => {
                    ready!(self.answer.poll_drained(cx));
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(None),
            }
        }
        let size = ready!(self.poll_size(cx));
        let slice = self.rest.split_to(size);
        Poll::Ready(Some(Ok(Frame::data(Slice::new(slice, &self.answer)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        if let Some(upper) = body.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole.set_lower(body.lower().saturating_add(rest));
        whole
    }
}
