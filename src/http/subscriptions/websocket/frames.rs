//! Messages over the frames of RFC 6455, the server's end. The libraries for this put a whole message
//! together before they say anything of it; here its size, the memory for it and its time are judged as its
//! bytes come, and what is refused is refused with a close code that the client gets to see. Not here: what
//! is said in the messages.

use std::{
    collections::VecDeque,
    io::{self, Cursor},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, timeout, timeout_at},
};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

use super::close::{self, Close};
use crate::http::{memory::MemoryReservation, outgoing::Pace};

/// Read at a time, bytes. A socket that waits needs little.
const READ_BYTES: usize = 4_096;
/// Longest payload of a control frame (RFC 6455 §5.5), bytes.
const LONGEST_CONTROL: u64 = 125;
/// Memory for a message grows from here on, bytes.
const FIRST_MESSAGE_BYTES: usize = 512;
/// Frames up to this size are copied behind their heads, so that they are sent in one piece; bytes.
const SENT_IN_ONE: usize = 16 << 10;

/// What has come from the client.
pub(super) enum ClientFrame {
    /// A message.
    Text(Text),
    /// Whether the server is there, with what its answer has to repeat.
    Ping(Bytes),
    /// The client is there.
    Pong,
    /// The client closes, with this code.
    Close(u16),
}

/// A message. It counts as memory of requests until it is dropped.
pub(super) struct Text {
    pub(super) text: String,
    _memory: MemoryReservation,
}

/// Nothing more is to be had from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketError {
    /// The connection is gone.
    Gone,
    /// The client has done what is not allowed, or took too long.
    Refused(Close),
}

impl From<Close> for SocketError {
    fn from(close: Close) -> Self {
        Self::Refused(close)
    }
}

/// How much and how slowly a client may send, and take.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageLimits {
    /// Bytes of a message.
    pub(super) message: usize,
    /// From the first byte of a message to its last.
    pub(super) within: Duration,
    /// How fast it must take what is sent.
    pub(super) pace: Pace,
}

/// A frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    is_final: bool,
    opcode: OpCode,
    mask: [u8; 4],
    /// Bytes that are yet to come.
    left: u64,
}

/// A message whose frames are being read.
struct Partial {
    bytes: Vec<u8>,
    memory: MemoryReservation,
}

/// A connection that has become a WebSocket.
pub(super) struct Socket<S> {
    stream: S,
    limits: MessageLimits,
    new_memory: Box<dyn Fn() -> MemoryReservation + Send + Sync>,
    /// Read, and not looked at yet.
    input: BytesMut,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: Option<Partial>,
    /// When the first byte was read of what is not complete yet.
    since: Option<Instant>,
    /// What comes is of no interest any more, but for its end.
    is_closing: bool,
    /// To be sent, in this order.
    output: VecDeque<Bytes>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// `new_memory`: memory for one more message, of which nothing is taken yet.
    pub(super) fn new(
        stream: S,
        limits: MessageLimits,
        new_memory: impl Fn() -> MemoryReservation + Send + Sync + 'static,
    ) -> Self {
        Self {
            stream,
            limits,
            new_memory: Box::new(new_memory),
            input: BytesMut::new(),
            frame: None,
            control: Vec::new(),
            message: None,
            since: None,
            is_closing: false,
            output: VecDeque::new(),
        }
    }

    /// From the next message on.
    pub(super) fn set_limits(
        &mut self,
        limits: MessageLimits,
        new_memory: impl Fn() -> MemoryReservation + Send + Sync + 'static,
    ) {
        (self.limits, self.new_memory) = (limits, Box::new(new_memory));
    }

    /// The next thing that comes. What was read of it is not lost when this is not waited for any longer.
    pub(super) async fn receive(&mut self) -> Result<ClientFrame, SocketError> {
        loop {
            if let Some(received) = self.next_of_input()? {
                if self.message.is_none() {
                    self.since = (!self.input.is_empty()).then(Instant::now);
                }
                return Ok(received);
            }
            if self.input.is_empty() && self.frame.is_none() && self.message.is_none() {
                self.since = None;
            }
            let until = self.since.map(|since| since + self.limits.within);
            // Also where there is always something to read.
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(close::MESSAGE_TIMEOUT.into());
            }
            self.input.reserve(READ_BYTES);
            let reading = self.stream.read_buf(&mut self.input);
            let read = match until {
                Some(until) => timeout_at(until, reading).await.map_err(|_| close::MESSAGE_TIMEOUT)?,
                None => reading.await,
            };
            match read {
                Ok(0) | Err(_) => return Err(SocketError::Gone),
                Ok(_) => _ = self.since.get_or_insert_with(Instant::now),
            }
        }
    }

    /// What is complete in the input.
    fn next_of_input(&mut self) -> Result<Option<ClientFrame>, SocketError> {
        loop {
            if self.frame.is_none() && !self.begin_frame()? {
                return Ok(None);
            }
            let Some(frame) = &mut self.frame else { return Ok(None) };
            let length = usize::try_from(frame.left).unwrap_or(usize::MAX).min(self.input.len());
            let mut piece = self.input.split_to(length);
            frame.left -= length as u64;
            let (is_control, is_complete) = (matches!(frame.opcode, OpCode::Control(_)), frame.left == 0);
            if is_control || !self.is_closing {
                unmask(&mut piece, &mut frame.mask);
            }
            if is_control {
                self.control.extend_from_slice(&piece);
            } else if !self.is_closing {
                self.append(&piece)?;
            }
            if !is_complete {
                return Ok(None);
            }
            let Some(frame) = self.frame.take() else { return Ok(None) };
            if let Some(received) = self.end_frame(&frame)? {
                return Ok(Some(received));
            }
        }
    }

    /// Reads the head of the next frame, if it is there as a whole.
    fn begin_frame(&mut self) -> Result<bool, SocketError> {
        let mut cursor = Cursor::new(&self.input[..]);
        let Some((head, length)) = FrameHeader::parse(&mut cursor).map_err(|_| close::BAD_FRAME)? else {
            return Ok(false);
        };
        let bytes = cursor.position() as usize;
        // No extension was agreed on; clients must mask.
        let Some(mask) = head.mask.filter(|_| !(head.rsv1 || head.rsv2 || head.rsv3)) else {
            return Err(close::BAD_FRAME.into());
        };
        let is_allowed = match head.opcode {
            OpCode::Control(_) => head.is_final && length <= LONGEST_CONTROL,
            OpCode::Data(Data::Continue) => self.message.is_some() || self.is_closing,
            OpCode::Data(_) => self.message.is_none(),
        };
        if !is_allowed {
            return Err(close::BAD_FRAME.into());
        }
        self.input.advance(bytes);
        self.frame = Some(Frame { is_final: head.is_final, opcode: head.opcode, mask, left: length });
        if matches!(head.opcode, OpCode::Control(_)) || self.is_closing {
            return Ok(true);
        }
        if head.opcode == OpCode::Data(Data::Binary) {
            return Err(close::BINARY.into());
        }
        let so_far = self.message.as_ref().map_or(0, |message| message.bytes.len());
        if (so_far as u64).saturating_add(length) > self.limits.message as u64 {
            return Err(close::TOO_LARGE.into());
        }
        let memory = &self.new_memory;
        self.message.get_or_insert_with(|| Partial { bytes: Vec::new(), memory: memory() });
        Ok(true)
    }

    /// Adds to the message, whose memory grows with what has come, not with what was announced.
    fn append(&mut self, piece: &[u8]) -> Result<(), SocketError> {
        let Some(message) = &mut self.message else { return Ok(()) };
        let (held, wanted) = (message.bytes.capacity(), message.bytes.len() + piece.len());
        if wanted > held {
            let most = self.limits.message.max(wanted);
            let next = wanted.max(held.saturating_mul(2)).max(FIRST_MESSAGE_BYTES).min(most);
            message.memory.grow(next - held).map_err(|_| close::NO_MEMORY)?;
            message.bytes.reserve_exact(next - message.bytes.len());
        }
        message.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn end_frame(&mut self, frame: &Frame) -> Result<Option<ClientFrame>, SocketError> {
        match frame.opcode {
            OpCode::Control(Control::Ping) => Ok(Some(ClientFrame::Ping(self.take_control()))),
            OpCode::Control(Control::Close) => closed_with(&self.take_control()).map(Some),
            OpCode::Control(_) => {
                self.control.clear();
                Ok(Some(ClientFrame::Pong))
            }
            OpCode::Data(_) if !frame.is_final => Ok(None),
            OpCode::Data(_) => {
                let Some(Partial { bytes, memory }) = self.message.take() else { return Ok(None) };
                let text = String::from_utf8(bytes).map_err(|_| close::NOT_UTF8)?;
                Ok(Some(ClientFrame::Text(Text { text, _memory: memory })))
            }
        }
    }

    fn take_control(&mut self) -> Bytes {
        std::mem::take(&mut self.control).into()
    }

    /// Sends a message, in pieces that are not copied where it is long.
    pub(super) async fn send_text(&mut self, text: impl Into<Vec<Bytes>>) -> io::Result<()> {
        self.queue(OpCode::Data(Data::Text), text.into());
        self.flush().await
    }

    /// Asks whether the client is there.
    pub(super) async fn send_ping(&mut self) -> io::Result<()> {
        self.queue(OpCode::Control(Control::Ping), Vec::new());
        self.flush().await
    }

    /// Answers a ping.
    pub(super) async fn send_pong(&mut self, payload: Bytes) -> io::Result<()> {
        self.queue(OpCode::Control(Control::Pong), vec![payload]);
        self.flush().await
    }

    fn queue(&mut self, opcode: OpCode, payload: Vec<Bytes>) {
        let head = FrameHeader { opcode, ..FrameHeader::default() };
        let length: usize = payload.iter().map(Bytes::len).sum();
        let mut first = Vec::new();
        head.format(length as u64, &mut first).expect("a vector takes what is written");
        if length <= SENT_IN_ONE {
            for piece in &payload {
                first.extend_from_slice(piece);
            }
            self.output.push_back(first.into());
        } else {
            self.output.push_back(first.into());
            self.output.extend(payload);
        }
    }

    /// Sends what is queued; fails where the client takes it too slowly. What was not sent yet when this is
    /// not waited for any longer is sent with what comes next.
    async fn flush(&mut self) -> io::Result<()> {
        let pace = self.limits.pace;
        let wanted = pace.window.as_secs_f64() * pace.per_second as f64;
        let (mut until, mut taken) = (Instant::now() + pace.window, 0);
        while let Some(piece) = self.output.front_mut() {
            if !piece.is_empty() {
                if let Ok(written) = timeout_at(until, self.stream.write_buf(piece)).await {
                    match written? {
                        0 => return Err(io::ErrorKind::WriteZero.into()),
                        written => taken += written,
                    }
                }
                let is_complete = piece.is_empty() && self.output.len() == 1;
                // Also where there is always room for a little, so that nothing is waited for until then.
                if !is_complete && Instant::now() >= until {
                    if (taken as f64) < wanted {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    (until, taken) = (Instant::now() + pace.window, 0);
                }
            }
            if self.output.front().is_some_and(Bytes::is_empty) {
                self.output.pop_front();
            }
        }
        self.stream.flush().await
    }

    /// Closes: says why, and waits for the client's answer, so long at most. What else the client is still
    /// sending is read and forgotten; otherwise the system would reset the connection, and the client might
    /// not read the reason.
    pub(super) async fn close(mut self, with: Close, within: Duration) {
        let payload = [&with.code.to_be_bytes()[..], with.reason.as_bytes()].concat();
        // After a frame that cannot be read nobody knows where the next one begins.
        let is_readable = with != close::BAD_FRAME;
        let closing = async {
            self.queue(OpCode::Control(Control::Close), vec![payload.into()]);
            if self.flush().await.is_err() {
                return;
            }
            (self.is_closing, self.message, self.since) = (true, None, None);
            self.limits.within = within;
            if is_readable {
                let ended = loop {
                    match self.receive().await {
                        Ok(ClientFrame::Close(_)) => break SocketError::Gone,
                        Ok(_) => {}
                        Err(broken) => break broken,
                    }
                };
                if ended == SocketError::Gone {
                    return;
                }
            }
            let mut rest = [0; READ_BYTES];
            while self.stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        };
        let _ = timeout(within, closing).await;
    }

    /// Answers the client's closing.
    pub(super) async fn answer_close(mut self, code: u16, within: Duration) {
        self.queue(OpCode::Control(Control::Close), vec![code.to_be_bytes().to_vec().into()]);
        let _ = timeout(within, self.flush()).await;
    }
}

/// Takes the mask off, and turns it to where the next piece begins.
fn unmask(piece: &mut [u8], mask: &mut [u8; 4]) {
    let mut chunks = piece.chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, mask) in chunk.iter_mut().zip(*mask) {
            *byte ^= mask;
        }
    }
    let rest = chunks.into_remainder();
    let turned = rest.len();
    for (byte, mask) in rest.iter_mut().zip(*mask) {
        *byte ^= mask;
    }
    mask.rotate_left(turned);
}

/// What a close frame says (RFC 6455 §5.5.1, §7.4).
fn closed_with(payload: &[u8]) -> Result<ClientFrame, SocketError> {
    match payload {
        [] => Ok(ClientFrame::Close(CloseCode::Normal.into())),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() {
                return Err(close::BAD_FRAME.into());
            }
            std::str::from_utf8(reason).map_err(|_| close::NOT_UTF8)?;
            Ok(ClientFrame::Close(code))
        }
        [_] => Err(close::BAD_FRAME.into()),
    }
}

#[cfg(test)]
mod tests;
