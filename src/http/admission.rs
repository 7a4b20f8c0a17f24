//! Who may come in now: so many requests at once in all, with so much memory for what they say, and so many a second from
//! each account or address. Decided before a request is read further than its headers and bytes. Not here: how large a
//! request may be.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use entities::id::UserId;
use moka::sync::Cache;
use schema::Viewer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusal;
use crate::config::HttpConfig;

const OVERLOADED: Refusal = Refusal::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "OVERLOADED",
    "The server has too much to do; try again in a moment.",
);
const RATE_LIMITED: Refusal =
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "Too many requests; try again in a moment.");
/// Callers whose rate is remembered; whoever is forgotten may begin anew.
const MOST_CALLERS: u64 = 100_000;

/// Decides who may come in.
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    memory: Arc<AtomicUsize>,
    most_memory: usize,
    rate: Option<Rate>,
}

/// A place among the requests that are worked on.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// The memory that one request's words take, given back when it is done.
pub(super) struct Room {
    taken_by_all: Arc<AtomicUsize>,
    most: usize,
    taken: usize,
}

/// A bucket that leaks: a caller's clock runs ahead of the time by one interval with each request.
struct Rate {
    interval: Duration,
    ahead: Duration,
    clocks: Cache<Caller, Arc<Mutex<Instant>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Caller {
    Account(UserId),
    Address(Option<IpAddr>),
}

impl Admission {
    pub(crate) fn new(http: &HttpConfig) -> Self {
        let rate = http.rate_per_second.map(|per_second| {
            let interval = Duration::from_secs(1) / per_second;
            let clocks = Cache::builder()
                .max_capacity(MOST_CALLERS)
                .time_to_idle(interval * http.rate_burst + Duration::from_secs(1))
                .build();
            Rate { interval, ahead: interval * (http.rate_burst - 1), clocks }
        });
        let places = Arc::new(Semaphore::new(http.max_concurrent_requests.min(Semaphore::MAX_PERMITS)));
        Self { places, memory: Arc::default(), most_memory: http.max_body_memory.0, rate }
    }

    /// Room for one more request, nothing of it taken yet.
    pub(super) fn room(&self) -> Room {
        Room { taken_by_all: Arc::clone(&self.memory), most: self.most_memory, taken: 0 }
    }

    /// Counts `requests` of a caller against their rate.
    pub(super) fn check_rate(
        &self,
        viewer: &Viewer,
        sent: &schema::Caller,
        requests: u32,
    ) -> Result<(), Refusal> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let asking = match viewer {
            Viewer::Service => return Ok(()),
            Viewer::User { id, .. } => Caller::Account(*id),
            // Gateways ask for everybody.
            Viewer::Anonymous if sent.is_gateway => return Ok(()),
            Viewer::Anonymous => Caller::Address(sent.customer()),
        };
        if rate.take(asking, Instant::now(), requests) { Ok(()) } else { Err(RATE_LIMITED) }
    }

    /// A place among the requests that are worked on, if one is free.
    pub(super) fn enter(&self) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| OVERLOADED)?;
        Ok(Place { _permit: permit })
    }
}

impl Room {
    /// Takes more, if all requests together do not take too much.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= self.most);
        self.taken_by_all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| OVERLOADED)?;
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken_by_all.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

impl Rate {
    fn take(&self, caller: Caller, now: Instant, requests: u32) -> bool {
        let clock = self.clocks.get_with(caller, || Arc::new(Mutex::new(now)));
        let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = (*clock).max(now);
        let is_in_time = begins - now <= self.ahead;
        if is_in_time {
            *clock = begins + self.interval * requests;
        }
        is_in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_requests_share_the_memory_and_give_it_back() {
        let mut config = crate::config::Config::default().http;
        config.max_body_memory.0 = 100;
        let admission = Admission::new(&config);
        let (mut one, mut other) = (admission.room(), admission.room());
        assert_eq!((one.take(60), other.take(40)), (Ok(()), Ok(())));
        assert_eq!(one.take(1), Err(OVERLOADED));
        drop(other);
        assert_eq!((one.take(40), one.take(usize::MAX)), (Ok(()), Err(OVERLOADED)));
        drop(one);
        assert_eq!(admission.room().take(100), Ok(()));
    }

    #[test]
    fn a_caller_has_a_burst_and_then_the_rate() {
        let clocks = Cache::builder().build();
        let interval = Duration::from_millis(100);
        let rate = Rate { interval, ahead: interval * 2, clocks };
        let (start, ann, bob) =
            (Instant::now(), Caller::Address(None), Caller::Account(UserId::from(entities::id::new())));
        let taken = |caller: &Caller, at: u32| rate.take(caller.clone(), start + interval * at, 1);
        assert_eq!([0; 4].map(|at| taken(&ann, at)), [true, true, true, false]);
        assert!(taken(&bob, 0), "another caller");
        assert_eq!([1, 1, 2, 2].map(|at| taken(&ann, at)), [true, false, true, false]);
        assert_eq!(
            [100; 4].map(|at| taken(&ann, at)),
            [true, true, true, false],
            "what was not used is no credit"
        );
    }
}
