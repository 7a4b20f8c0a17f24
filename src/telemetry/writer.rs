//! Log lines leave through a thread of their own, many at a time: a request never waits for a terminal or a log
//! collector, and wakes nobody while a batch is gathered. The buffer is bounded; when nobody reads, lines are dropped
//! and counted, and the count is written later.
//!
//! Not tracing-appender's `NonBlocking`: its queue is bounded in lines and not in bytes, its thread is woken
//! for each line, nobody writes how many were dropped, what cannot be written is lost uncounted, and it is
//! flushed only when it ends.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait at most.
const BUFFER_BYTES: usize = 4 << 20;
/// How long a batch is gathered, and so how late a line may be.
const GATHER: Duration = Duration::from_millis(20);

/// What waits to be written.
#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    dropped: u64,
    /// The thread that writes waits for a line, and has to be woken. Where many lines come it never does: waking a
    /// thread costs more than a line.
    idle: bool,
    /// Somebody waits for the buffer to be written.
    hurry: bool,
    writing: bool,
}

impl Buffer {
    fn push(&mut self, line: &[u8]) {
        if self.lines.len() + line.len() > BUFFER_BYTES {
            self.dropped += 1;
        } else {
            self.lines.extend_from_slice(line);
        }
    }

    /// Moves everything into `batch`, which is empty.
    fn take(&mut self, batch: &mut Vec<u8>) {
        std::mem::swap(&mut self.lines, batch);
        let lost = std::mem::take(&mut self.dropped);
        if lost > 0 {
            // Writing to memory does not fail.
            let _ = writeln!(batch, "{{\"level\":\"WARN\",\"message\":\"{lost} log lines were dropped\"}}");
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    buffer: Mutex<Buffer>,
    filled: Condvar,
    written: Condvar,
}

impl Queue {
    /// A line that was cut short by a panic is no reason to stop logging.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, out: &mut impl Write) -> ! {
        let mut batch = Vec::new();
        loop {
            let mut buffer = self.lock();
            while buffer.lines.is_empty() {
                buffer.idle = true;
                buffer = self.filled.wait(buffer).unwrap_or_else(PoisonError::into_inner);
            }
            buffer.idle = false;
            let gathered = self.filled.wait_timeout_while(buffer, GATHER, |buffer| !buffer.hurry);
            buffer = gathered.unwrap_or_else(PoisonError::into_inner).0;
            buffer.take(&mut batch);
            buffer.writing = true;
            drop(buffer);
            // There is nowhere to report that standard error is closed.
            let _ = out.write_all(&batch);
            batch.clear();
            self.lock().writing = false;
            self.written.notify_all();
        }
    }
}

/// The buffer's entrance. Clones share the buffer.
#[derive(Clone, Debug)]
pub(super) struct LogWriter(Arc<Queue>);

impl LogWriter {
    /// Starts the thread that writes to `out`. It lives as long as the process.
    pub(super) fn start(mut out: impl Write + Send + 'static) -> Self {
        let queue = Arc::<Queue>::default();
        let filled = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("log".into());
        // Without the thread the buffer fills up and lines are dropped; the service goes on.
        let _ = thread.spawn(move || filled.write_all(&mut out));
        Self(queue)
    }

    /// Waits until everything so far is written, or the time is over.
    pub(super) fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut buffer = self.0.lock();
        buffer.hurry = true;
        self.0.filled.notify_one();
        while !buffer.lines.is_empty() || buffer.writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            buffer = self.0.written.wait_timeout(buffer, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        buffer.hurry = false;
    }
}

impl Write for &LogWriter {
    /// Takes one whole line; the formatter writes each event at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut buffer = self.0.lock();
        let is_idle = std::mem::take(&mut buffer.idle);
        buffer.push(line);
        drop(buffer);
        if is_idle {
            self.0.filled.notify_one();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_drops_and_says_so() {
        let mut buffer = Buffer::default();
        buffer.push(b"a\n");
        buffer.push(&vec![b'x'; BUFFER_BYTES]);
        buffer.push(&vec![b'x'; BUFFER_BYTES - 1]);
        buffer.push(b"b\n");
        let mut batch = Vec::new();
        buffer.take(&mut batch);
        let text = String::from_utf8(batch).expect("UTF-8");
        assert!(text.starts_with("a\nb\n") && text.contains("2 log lines were dropped"), "{text}");
        assert!(buffer.lines.is_empty());
    }

    #[test]
    fn flushing_does_not_wait_for_a_reader_that_hangs() {
        struct Hangs;
        impl Write for Hangs {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                std::thread::sleep(Duration::from_mins(1));
                Ok(0)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writer = LogWriter::start(Hangs);
        (&writer).write_all(b"line\n").expect("never fails");
        let started = Instant::now();
        writer.flush(Duration::from_millis(50));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
