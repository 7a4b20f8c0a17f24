//! An answer that is being sent: how much of it waits for its reader, whether the reader keeps its pace, and
//! the end of a stream of HTTP/2 whose reader does not. Not here: cutting answers into slices that tell when
//! they are taken (`sending`), and when an answer is looked at (`connection_timeouts`).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use tokio::{sync::Notify, time::Instant};

use super::memory::AnswerMemory;

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
    /// Nothing of it is handed over yet. Knows its stream of HTTP/2, where it is made in the task of one.
    pub(super) fn new(memory: Option<AnswerMemory>) -> Self {
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

    /// The connection gets this many bytes.
    pub(super) fn hand_over(&self, bytes: usize) {
        self.pending.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The connection has sent this many bytes of them.
    pub(super) fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.let_go(bytes);
    }

    /// This many bytes are not held any more, whether sent or not.
    pub(super) fn let_go(&self, bytes: usize) {
        if self.pending.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            if self.has_nothing.load(Ordering::Relaxed) {
                self.was_drained.store(true, Ordering::Relaxed);
            }
            self.drained.wake();
        }
    }

    /// Whether the server has nothing to send at the moment: then no reader is slow.
    pub(super) fn set_has_nothing(&self, has_nothing: bool) {
        self.has_nothing.store(has_nothing, Ordering::Relaxed);
        if has_nothing && self.pending.load(Ordering::Relaxed) == 0 {
            self.was_drained.store(true, Ordering::Relaxed);
        }
    }

    /// Ready when all that was handed over is taken.
    pub(super) fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        self.drained.register(cx.waker());
        if self.pending.load(Ordering::Acquire) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}
