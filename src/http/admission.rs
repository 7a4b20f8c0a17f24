//! Who may come in now: so many requests at once in all, with so much memory for what they say and for their answers, and
//! so many a second from each account or address. Decided before a request is read further than its headers and bytes.
//! Not here: how memory is shared (`memory`), how large a request may be.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use entities::id::UserId;
use moka::sync::Cache;
use schema::Viewer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    memory::{MemoryPool, MemoryReservation, OutOfMemory, Owner},
    refusal::Refusal,
};
use crate::config::{HttpConfig, setting::Bytes};

pub(super) const OVERLOADED: Refusal = Refusal::new(
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
    permits: Arc<Semaphore>,
    bodies: MemoryPool,
    answers: MemoryPool,
    rate: Option<Rate>,
}

/// Leave to be one of the requests that are worked on, until it is dropped.
pub(super) struct Permit {
    _permit: OwnedSemaphorePermit,
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
        let permits = Arc::new(Semaphore::new(http.max_concurrent_requests.min(Semaphore::MAX_PERMITS)));
        let pool = |limit: Bytes| MemoryPool::new(limit.0, http.address_share.0);
        Self { permits, bodies: pool(http.max_body_memory), answers: pool(http.max_answer_memory), rate }
    }

    /// Memory for what a caller sends (`http.max_body_memory`), nothing of it held yet.
    pub(super) fn body_memory(&self, owner: Owner) -> MemoryReservation {
        self.bodies.reserve(owner)
    }

    /// Refuses a caller who leaves so many answers to be sent that there is hardly memory for another one.
    pub(super) fn check_answers(&self, owner: &Owner) -> Result<(), Refusal> {
        if self.answers.is_exhausted(owner) { Err(OVERLOADED) } else { Ok(()) }
    }

    /// Memory for what a caller is sent (`http.max_answer_memory`), nothing of it held yet.
    pub(super) fn answer_memory(&self, owner: Owner) -> MemoryReservation {
        self.answers.reserve(owner)
    }

    /// Memory that is held for what is received, and for what is sent; bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> [usize; 2] {
        [self.bodies.held(), self.answers.held()]
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

    /// Leave to be worked on, if not too many are.
    pub(super) fn enter(&self) -> Result<Permit, Refusal> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| OVERLOADED)?;
        Ok(Permit { _permit: permit })
    }
}

impl From<OutOfMemory> for Refusal {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        OVERLOADED
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
