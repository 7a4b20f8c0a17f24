//! How an answer leaves: in slices, each of which tells when it was taken by the connection, so that it is
//! known of every answer whether its reader takes it, over HTTP/1.1 and HTTP/2 alike. hyper asks a body for
//! more only when the connection has room for it, so a body cannot notice by itself that nobody reads. A
//! stream of HTTP/2 whose reader is too slow is reset; the other streams of its connection go on. Not here:
//! what is noted of an answer (`outgoing`), and the limits and who looks at them (`connection_timeouts`).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use hyper::body::{Frame, SizeHint};

use super::{connection_timeouts::InFlight, memory::AnswerMemory, outgoing::Outgoing};

/// Largest part of an answer that is handed over at a time.
const SLICE_BYTES: usize = 64 << 10;
/// The last part of an answer over HTTP/2, handed over when the rest is taken: a stream can be reset until then, and
/// afterwards only its connection can be cut. Not more than a frame, so that it fits any usual window.
const TAIL_BYTES: usize = 16 << 10;

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
    /// The body has given all: a stream must not be asked again then.
    has_ended: bool,
    _under_way: InFlight,
}

impl Answered {
    pub(super) fn new(body: Body, memory: Option<AnswerMemory>, is_http2: bool, in_flight: InFlight) -> Self {
        let answer = Arc::new(Outgoing::new(memory));
        if !body.is_end_stream() {
            in_flight.watch(&answer);
        }
        Self { body, rest: Bytes::new(), answer, is_http2, has_ended: false, _under_way: in_flight }
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
        if self.rest.is_empty() && !self.has_ended {
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
                None => self.has_ended = true,
            }
        }
        if self.has_ended {
            if self.is_http2 {
                ready!(self.answer.poll_drained(cx));
            }
            return Poll::Ready(None);
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
