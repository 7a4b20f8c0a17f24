//! How long the other end of a connection may keep the server waiting. A connection is cut off when its other end does not
//! take what is written to it, or takes an answer too slowly, does not finish the head of a request, or asks for nothing
//! more. All of that is seen where bytes come and go, so that each has a limit of its own: hyper has one timer for the
//! last two, and none for the bodies of answers. Not here: how long the body of a request (`receive`) and the work on it
//! may take.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::{Instant, Sleep, sleep},
};

use super::{
    outgoing::{Outgoing, Pace, TAKES_NOTHING, Verdict},
    slots::Slot,
};

/// How often answers are looked at within the time in which something of them must be taken.
const LOOKS: u32 = 4;
/// Answers that are remembered before those that are sent are forgotten.
const FORGET_FROM: usize = 16;
/// What a connection over HTTP/2 begins with.
const HTTP2: &[u8] = b"PRI";

/// The limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTimeouts {
    /// From the first byte of a request to the end of its head; also how long the first request may take to begin.
    pub(super) head: Duration,
    /// Without a request.
    pub(super) idle: Duration,
    /// Without taking any of what is written; over which also `per_second` is measured.
    pub(super) write: Duration,
    /// What must be taken of an answer, bytes a second.
    pub(super) per_second: usize,
}

/// What is known of a connection beside its bytes. It has one of the slots that there are for connections.
#[derive(Debug)]
pub(super) struct Activity {
    _slot: Slot,
    /// Requests whose heads are read; may begin anew.
    begun: AtomicU32,
    /// What keeps it from being idle.
    in_flight: AtomicU32,
    /// The answers that are being sent.
    answers: Mutex<Vec<Weak<Outgoing>>>,
    /// Nobody looks at answers, until there is one.
    is_unwatched: AtomicBool,
    answering: Notify,
    /// Why it was cut off.
    cut: OnceLock<&'static str>,
}

/// Something is under way on a connection: a request, its answer, or what became of it.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl Activity {
    pub(super) fn new(slot: Slot) -> Arc<Self> {
        Arc::new(Self {
            _slot: slot,
            begun: AtomicU32::default(),
            in_flight: AtomicU32::default(),
            answers: Mutex::default(),
            is_unwatched: AtomicBool::default(),
            answering: Notify::new(),
            cut: OnceLock::new(),
        })
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Whether a request has ever begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// Looks at the answers that are being sent as long as the connection lasts; done when it has to be cut off. `reset` is
    /// told why a single stream was ended.
    pub(super) async fn watch(&self, limits: ConnectionTimeouts, reset: impl Fn(&'static str)) {
        let pace = Pace { window: limits.write, per_second: limits.per_second };
        let tick = limits.write / LOOKS;
        loop {
            let verdicts = {
                let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.retain(|answer| answer.strong_count() > 0);
                let now = Instant::now();
                let live = answers.iter().filter_map(Weak::upgrade);
                live.map(|answer| answer.look(now, pace)).collect::<Vec<_>>()
            };
            if verdicts.is_empty() {
                self.is_unwatched.store(true, Ordering::Release);
                self.answering.notified().await;
            }
            for verdict in verdicts {
                match verdict {
                    Verdict::Fine => {}
                    Verdict::Reset(why) => reset(why),
                    Verdict::Cut(why) => {
                        let _ = self.cut.set(why);
                        return;
                    }
                }
            }
            sleep(tick).await;
        }
    }

    /// Why the connection was cut off, if it was.
    pub(super) fn cut(&self) -> Option<&'static str> {
        self.cut.get().copied()
    }
}

impl InFlight {
    /// From now on it is looked at whether this answer is taken.
    pub(super) fn watch(&self, answer: &Arc<Outgoing>) {
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() == answers.capacity() && answers.len() >= FORGET_FROM {
            answers.retain(|answer| answer.strong_count() > 0);
        }
        answers.push(Arc::downgrade(answer));
        drop(answers);
        if self.0.is_unwatched.swap(false, Ordering::AcqRel) {
            self.0.answering.notify_one();
        }
    }
}

impl Clone for InFlight {
    fn clone(&self) -> Self {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A TCP connection that fails when its other end is too slow.
pub(super) struct TimeoutStream {
    stream: TcpStream,
    limits: ConnectionTimeouts,
    activity: Arc<Activity>,
    /// Of what is noted here: how many requests had begun.
    seen: u32,
    /// Once something was read: whether bytes between requests belong to the connection and not to the next request.
    is_http2: Option<bool>,
    /// When the request that is being read began.
    head_since: Option<Instant>,
    /// When it was seen first that nothing is under way.
    idle_since: Option<Instant>,
    reading: Deadline,
    writing: Deadline,
    write_waits: bool,
}

/// Rings not before a moment that can be put off for nothing: only the earliest one is waited for.
struct Deadline {
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(within: Duration) -> Self {
        Self { sleep: Box::pin(sleep(within)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(at);
        }
    }
}

impl TimeoutStream {
    pub(super) fn new(stream: TcpStream, limits: ConnectionTimeouts, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            limits,
            activity,
            seen: 0,
            is_http2: None,
            head_since: None,
            idle_since: None,
            reading: Deadline::new(limits.head),
            writing: Deadline::new(limits.write),
            write_waits: false,
        }
    }

    /// What has changed since this was last asked; whether something is under way.
    fn look(&mut self) -> bool {
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if begun != self.seen {
            (self.seen, self.head_since, self.idle_since) = (begun, None, None);
        }
        let is_busy = self.activity.in_flight.load(Ordering::Relaxed) > 0;
        if is_busy {
            self.idle_since = None;
        }
        is_busy
    }

    fn hear(&mut self, bytes: &[u8]) {
        let is_http2 = *self.is_http2.get_or_insert_with(|| bytes.starts_with(HTTP2));
        if !self.look() && !is_http2 {
            self.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// Waits for the other end as long as it may take.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_busy = self.look();
        let (until, why) = match (is_busy, self.head_since) {
            // To be looked at again: the end of what is under way wakes nobody here.
            (true, _) => (Instant::now() + self.limits.idle, None),
            (false, Some(since)) => (since + self.limits.head, Some("head")),
            (false, None) => {
                let since = *self.idle_since.get_or_insert_with(Instant::now);
                let limit = if self.seen == 0 { self.limits.head } else { self.limits.idle };
                (since + limit, Some("idle"))
            }
        };
        ready!(self.reading.poll(cx, until));
        match why {
            Some(why) => Poll::Ready(Err(self.cut(why))),
            None => self.wait(cx),
        }
    }

    fn cut(&self, why: &'static str) -> io::Error {
        let _ = self.activity.cut.set(why);
        io::ErrorKind::TimedOut.into()
    }

    /// The outcome of a write, unless it has waited for too long.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), cx);
        if written.is_ready() {
            self.write_waits = false;
            return written;
        }
        if !std::mem::replace(&mut self.write_waits, true) {
            self.writing.sleep.as_mut().reset(Instant::now() + self.limits.write);
        }
        ready!(self.writing.sleep.as_mut().poll(cx));
        Poll::Ready(Err(self.cut(TAKES_NOTHING)))
    }
}

impl AsyncRead for TimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, to) {
            Poll::Ready(read) => {
                if let Some(bytes) = to.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
                    self.hear(bytes);
                }
                Poll::Ready(read)
            }
            Poll::Pending => self.wait(cx),
        }
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.bounded(cx, |stream, cx| stream.poll_write(cx, from))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.bounded(cx, |stream, cx| stream.poll_write_vectored(cx, from))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bounded(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bounded(cx, AsyncWrite::poll_shutdown)
    }
}
