//! How long the other end of a connection may keep the server waiting. A connection is cut off when its other
//! end does not take what is written to it, or takes an answer too slowly, does not finish the head of a
//! request, or asks for nothing more. All of that is seen where bytes come and go, so that each has a limit
//! of its own: hyper has one timer for the last two, and none for the bodies of answers. Between two requests
//! hyper keeps 24 KiB of buffers for a connection over HTTP/1.1: one that is idle for a moment is taken from
//! hyper, rests, and is given to it again when more comes. Not here: how long the body of a request
//! (`receive`) and the work on it may take.

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
    time::{Instant, Sleep, sleep, timeout_at},
};

use super::{
    outgoing::{Outgoing, Pace, TAKES_NOTHING, Verdict},
    slots::Slot,
};

/// How often answers are looked at within the time in which something of them must be taken.
const LOOKS: u32 = 4;
/// Answers that are remembered before those that are sent are forgotten.
const FORGET_FROM: usize = 16;
/// How long a connection over HTTP/1.1 is without a request before it rests.
const REST_AFTER: Duration = Duration::from_secs(1);
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
    /// The connection, while it rests, and since when nothing is asked on it.
    resting: Mutex<Option<(TcpStream, Instant)>>,
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
            resting: Mutex::default(),
        })
    }

    /// The connection is over, also where it was given back to rest.
    pub(super) fn close(&self) {
        let closed = self.resting.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(closed);
    }

    /// The connection, if it was given back to rest: again when more comes on it, and `None` when it is over.
    pub(super) async fn rest(&self, limits: ConnectionTimeouts) -> Option<TcpStream> {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (stream, idle_since) = resting?;
        match timeout_at(idle_since + limits.idle, stream.peek(&mut [0])).await {
            Ok(Ok(1..)) => Some(stream),
            Ok(_) => None,
            Err(_) => {
                let _ = self.cut.set("idle");
                None
            }
        }
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

    /// Looks at the answers that are being sent as long as the connection lasts; done when it has to be cut
    /// off. `reset` is told why a single stream was ended.
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
    /// None from when it rests.
    stream: Option<TcpStream>,
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
        // One that has rested has had requests.
        let seen = activity.begun.load(Ordering::Relaxed);
        Self {
            stream: Some(stream),
            limits,
            activity,
            seen,
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
        // Where it is not said yet, it may be HTTP/2, which is never taken from hyper.
        let may_be_http2 = || bytes.starts_with(HTTP2) || HTTP2.starts_with(bytes);
        let is_http2 = *self.is_http2.get_or_insert_with(may_be_http2);
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
                if self.may_rest() {
                    ready!(self.reading.poll(cx, since + REST_AFTER));
                    *self.activity.resting.lock().unwrap_or_else(PoisonError::into_inner) =
                        self.stream.take().map(|stream| (stream, since));
                    // For hyper this is the end of the connection.
                    return Poll::Ready(Ok(()));
                }
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

    /// Whether it may be taken from hyper: everything that was asked is answered, and sent.
    fn may_rest(&self) -> bool {
        self.seen > 0 && self.is_http2 == Some(false) && !self.write_waits && self.limits.idle > REST_AFTER
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
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let written = write(Pin::new(stream), cx);
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
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        match Pin::new(stream).poll_read(cx, to) {
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
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.is_none() {
            return Poll::Ready(Ok(()));
        }
        self.bounded(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.is_none() {
            return Poll::Ready(Ok(()));
        }
        self.bounded(cx, AsyncWrite::poll_shutdown)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{config::Config, http::slots::Slots};

    /// Both ends of a connection on which a request was asked and answered, over HTTP/1.1.
    async fn answered(idle: Duration) -> (TimeoutStream, TcpStream, Arc<Activity>) {
        let limits = ConnectionTimeouts {
            head: Duration::from_mins(1),
            idle,
            write: Duration::from_mins(1),
            per_second: 1,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut slots = Slots::new(&Config::default().http, None);
        let (client, (stream, _, slot)) = tokio::join!(TcpStream::connect(address), slots.accept(&listener));
        let mut client = client.expect("connected");
        let activity = Activity::new(slot);
        let mut stream = TimeoutStream::new(stream, limits, Arc::clone(&activity));
        client.write_all(b"GET").await.expect("sent");
        assert_eq!(stream.read(&mut [0; 3]).await.expect("read"), 3);
        drop(activity.begin());
        (stream, client, activity)
    }

    #[tokio::test]
    async fn a_connection_without_a_request_is_given_back_until_more_comes() {
        let (mut stream, mut client, activity) = answered(Duration::from_mins(10)).await;
        let limits = stream.limits;
        assert_eq!(stream.read(&mut [0; 3]).await.expect("its end for hyper"), 0);
        stream.shutdown().await.expect("nothing is shut down");
        drop(stream);
        client.write_all(b"more").await.expect("it is open still");
        let mut again = activity.rest(limits).await.expect("more has come");
        let mut more = [0; 4];
        again.read_exact(&mut more).await.expect("nothing is lost");
        assert_eq!((&more, activity.cut()), (b"more", None));
        assert!(activity.rest(limits).await.is_none(), "it was given back once");
    }

    #[tokio::test]
    async fn a_connection_that_rests_is_cut_off_in_the_end() {
        let (mut stream, client, activity) = answered(REST_AFTER + Duration::from_millis(100)).await;
        let limits = stream.limits;
        assert_eq!(stream.read(&mut [0; 3]).await.expect("its end for hyper"), 0);
        assert!(activity.rest(limits).await.is_none());
        assert_eq!(activity.cut(), Some("idle"));
        drop(client);
    }

    #[tokio::test]
    async fn a_connection_at_work_does_not_rest() {
        let (mut stream, _client, activity) = answered(Duration::from_mins(10)).await;
        let _request = activity.begin();
        let read = timeout_at(Instant::now() + REST_AFTER * 2, stream.read(&mut [0; 3])).await;
        assert!(read.is_err(), "{read:?}");
    }
}
