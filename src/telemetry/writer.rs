//! Log lines leave through a thread of their own, many at a time: a request never waits for a terminal or a log
//! collector. The queue is bounded; when nobody reads, lines are dropped and counted, and the count is written later.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most.
const QUEUED_LINES: usize = 8192;
/// Bytes that are written at once, about.
const BATCH_BYTES: usize = 64 << 10;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The queue's entrance. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread, which writes to standard error.
    pub(super) fn start() -> Self {
        let (queue, waiting) = sync_channel(QUEUED_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        let thread = std::thread::Builder::new().name("log".into());
        // Without the thread the queue fills up and lines are dropped; the service goes on.
        let _ = thread.spawn(move || write_all(&waiting, &counted, &mut io::stderr()));
        Self { queue, dropped }
    }

    /// Waits until everything so far is written, or the time is over.
    pub(super) fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }
}

impl Write for &LogWriter {
    /// Takes one whole line; the formatter writes each event at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn write_all(waiting: &Receiver<Message>, dropped: &AtomicU64, out: &mut impl Write) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    while let Ok(first) = waiting.recv() {
        let mut done = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(tell) => done.push(tell),
            }
            next = (batch.len() < BATCH_BYTES).then(|| waiting.try_recv().ok()).flatten();
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(batch, "{{\"level\":\"WARN\",\"message\":\"{lost} log lines were dropped\"}}");
        }
        // There is nowhere to report that standard error is closed.
        let _ = out.write_all(&batch);
        batch.clear();
        for tell in done {
            let _ = tell.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_says_so() {
        let (queue, waiting) = sync_channel(2);
        let writer = LogWriter { queue, dropped: Arc::default() };
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            (&writer).write_all(line.as_bytes()).expect("never fails");
        }
        let dropped = Arc::clone(&writer.dropped);
        drop(writer);
        let mut out = Vec::new();
        write_all(&waiting, &dropped, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.starts_with("a\nb\n") && text.contains("2 log lines were dropped"), "{text}");
    }
}
