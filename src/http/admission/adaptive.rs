//! How many requests may be worked on at once, by how long what is ready has to wait: for a thread of the
//! runtime, and for a connection to the database. While that is little, the limit is the configured one; when
//! it is more, the limit follows it down (a gradient, as in Netflix's concurrency-limits), and up again when
//! it is over. What waits is measured rather than how long requests take: slow ones on an idle machine are
//! not too many, and a mix that becomes slower is not an overload. Not here: who is refused (`admission`),
//! what counts as one.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use entities::database::{ConnectionWaits, WaitSum};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

/// The limit is not lowered further than to so many for each thread: fewer would leave it without work in between, and
/// share fewer statements.
const LEAST_PER_THREAD: usize = 64;
/// Between two changes.
const WINDOW: Duration = Duration::from_millis(100);
/// Between two looks how long a thread is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The most and the least that one window lowers the limit to.
const LOWER: (f64, f64) = (0.5, 0.95);
/// One window raises it by its tenth.
const RAISE: usize = 10;

/// A limit that follows what is measured.
#[derive(Debug)]
pub(super) struct AdaptiveLimit {
    least: usize,
    most: usize,
    /// The average wait that is aimed at; zero: the limit stays where it is.
    target: Duration,
    now: AtomicUsize,
    shown: Gauge,
    shown_wait: Gauge<f64, AtomicU64>,
}

impl AdaptiveLimit {
    /// A limit of `most`, to begin with.
    pub(super) fn new(most: usize, target: Duration) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (least, now) = (least_of(most, threads), AtomicUsize::new(most));
        let (shown, shown_wait) = (Gauge::default(), Gauge::default());
        shown.set(most as i64);
        Self { least, most, target, now, shown, shown_wait }
    }

    /// Shows it and what it follows.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_server_concurrency_limit",
            "GraphQL requests that may be worked on at once, as load allows",
            self.shown.clone(),
        );
        registry.register(
            "http_server_queue_wait_seconds",
            "How long what was ready waited for a thread and for a database connection, on the average of a \
             tenth of a second",
            self.shown_wait.clone(),
        );
    }

    /// How many there may be now.
    pub(super) fn get(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// As under load.
    #[cfg(test)]
    pub(super) fn lower_to(&self, limit: usize) {
        self.now.store(limit, Ordering::Relaxed);
    }

    /// After a window in which at most `busiest` were worked on at once, and what was ready waited for so
    /// long on average.
    fn follow(&self, wait: Duration, busiest: usize) {
        let now = self.get();
        // With fewer than the least under way, there is nothing that a lower limit would refuse.
        let next = if wait > self.target && busiest >= self.least {
            let gradient = (self.target.as_secs_f64() / wait.as_secs_f64()).clamp(LOWER.0, LOWER.1);
            // What was not used is no reason for the wait.
            (now.min(busiest) as f64 * gradient) as usize
        } else {
            now + (now / RAISE).max(1)
        };
        let next = next.clamp(self.least, self.most);
        self.now.store(next, Ordering::Relaxed);
        self.shown.set(next as i64);
        self.shown_wait.set(wait.as_secs_f64());
    }

    /// Measures and follows, for ever. `busiest` says how many were worked on at once at most since it was last asked.
    pub(super) async fn run(&self, connections: &ConnectionWaits, busiest: impl Fn() -> usize) {
        if self.target.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let mut window = WaitWindow::begin(connections);
            // A server that nobody asks is not woken so often.
            if busiest() == 0 && self.get() == self.most {
                tokio::time::sleep(WINDOW).await;
                continue;
            }
            while window.began.elapsed() < WINDOW {
                window.look().await;
            }
            self.follow(window.average(connections), busiest());
        }
    }
}

/// How far a limit may fall. A quarter on machines with many threads, so that it can fall there, too.
fn least_of(most: usize, threads: usize) -> usize {
    (LEAST_PER_THREAD * threads).min(most / 4).max(LEAST_PER_THREAD.min(most))
}

/// What was waited in a window.
struct WaitWindow {
    began: Instant,
    waited: Duration,
    looks: u32,
    connections: WaitSum,
}

impl WaitWindow {
    fn begin(connections: &ConnectionWaits) -> Self {
        let connections = connections.sum();
        Self { began: Instant::now(), waited: Duration::ZERO, looks: 0, connections }
    }

    async fn look(&mut self) {
        tokio::time::sleep(LOOK_EVERY).await;
        // Whom a timer wakes has the next turn of all; who lets others go first waits as long as everybody else.
        let began = Instant::now();
        tokio::task::yield_now().await;
        self.waited += began.elapsed();
        self.looks += 1;
    }

    /// For a thread and for a connection together.
    fn average(&self, connections: &ConnectionWaits) -> Duration {
        let for_thread = self.waited.checked_div(self.looks).unwrap_or_default();
        for_thread + connections.sum().average_since(&self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(10);

    fn limit() -> AdaptiveLimit {
        AdaptiveLimit { least: 32, ..AdaptiveLimit::new(512, TARGET) }
    }

    #[test]
    fn the_limit_falls_with_the_wait_and_rises_again() {
        let limit = limit();
        limit.follow(Duration::from_millis(12), 512);
        assert_eq!(limit.get(), 426, "by as much as the wait is too long");
        limit.follow(Duration::from_secs(1), 400);
        assert_eq!(limit.get(), 200, "by half of what was used, at most");
        for _ in 0..9 {
            limit.follow(Duration::from_secs(1), 512);
        }
        assert_eq!(limit.get(), 32, "not further");
        let mut windows = 0;
        while limit.get() < 512 {
            limit.follow(TARGET, 0);
            windows += 1;
        }
        assert!(windows < 40, "{windows}: within four seconds all are let in again");
        limit.follow(TARGET, 512);
        assert_eq!(limit.get(), 512);
    }

    #[test]
    fn the_limit_can_fall_whatever_the_machine() {
        let least = [1, 2, 8, 64].map(|threads| least_of(512, threads));
        assert_eq!(least, [64, 128, 128, 128]);
        assert_eq!((least_of(16, 2), least_of(100, 64), least_of(1 << 20, 64)), (16, 64, 4096));
    }

    #[test]
    fn few_requests_that_wait_are_no_load() {
        let limit = limit();
        limit.follow(Duration::from_secs(1), 31);
        assert_eq!(limit.get(), 512, "they wait for a database far away, or behind one long step");
    }

    #[test]
    fn a_limit_of_few_stays() {
        let limit = AdaptiveLimit::new(2, TARGET);
        limit.follow(Duration::from_secs(1), 2);
        assert_eq!(limit.get(), 2);
    }

    #[tokio::test]
    async fn threads_that_are_kept_busy_and_connections_that_are_waited_for_count() {
        let connections = ConnectionWaits::default();
        let mut window = WaitWindow::begin(&connections);
        window.look().await;
        assert!(window.average(&connections) < Duration::from_millis(50));
        let waiting = [connections.begin(), connections.begin()];
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(window.average(&connections) >= Duration::from_millis(200), "nobody gets a connection");
        drop(waiting);
        assert!(window.average(&connections) >= Duration::from_millis(200), "they have one, or gave up");
        let mut window = WaitWindow::begin(&connections);
        for _ in 0..20 {
            tokio::spawn(async {
                for _ in 0..20 {
                    std::thread::sleep(Duration::from_millis(2));
                    tokio::task::yield_now().await;
                }
            });
        }
        window.look().await;
        assert!(window.average(&connections) > Duration::from_millis(30), "the only thread was busy");
    }
}
