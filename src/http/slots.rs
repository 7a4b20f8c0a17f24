//! Which connections are let in: so many in all, and so many of one address. What is beyond that is counted and said in
//! the log, a few times a minute at most. Not here: what a connection does (`server`), how long it may stay
//! (`connection_timeouts`).

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use schema::Caller;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    config::{HttpConfig, setting::Networks},
    telemetry::metrics::Metrics,
};

/// How long to wait after an accept that failed, which mostly means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the log says at most that connections are not let in, for each reason.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Why a connection is not let in, or not at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotAccepted {
    /// There are `http.max_connections`: it waits in the system's queue.
    Full,
    /// Its address has `http.max_connections_per_address`: it is closed.
    Address,
    /// The system could not accept it, mostly for want of file descriptors: it waits.
    Failed,
}

impl NotAccepted {
    const ALL: [Self; 3] = [Self::Full, Self::Address, Self::Failed];

    fn reason(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
            Self::Failed => "failed",
        }
    }
}

/// The connections of one listener.
pub(super) struct Slots {
    all: Arc<Semaphore>,
    most: u32,
    of_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most_of_address: usize,
    trusted: Networks,
    metrics: Option<Arc<Metrics>>,
    /// When the log said last why connections are not let in.
    said: [Option<Instant>; NotAccepted::ALL.len()],
}

/// One of the connections that there may be, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    of_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: Option<IpAddr>,
}

impl Slots {
    pub(super) fn new(http: &HttpConfig, metrics: Option<Arc<Metrics>>) -> Self {
        let most = u32::try_from(http.max_connections).unwrap_or(u32::MAX);
        Self {
            all: Arc::new(Semaphore::new(most as usize)),
            most,
            of_address: Arc::default(),
            most_of_address: http.max_connections_per_address,
            trusted: http.trusted_proxies.clone(),
            metrics,
            said: [None; NotAccepted::ALL.len()],
        }
    }

    /// The next connection that is let in.
    pub(super) async fn accept(&mut self, listener: &TcpListener) -> (TcpStream, IpAddr, Slot) {
        loop {
            let permit = self.permit().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Some(slot) = self.slot(permit, peer.ip()) {
                        return (stream, peer.ip(), slot);
                    }
                }
                Err(error) if is_its_clients(&error) => {}
                Err(error) => {
                    self.keep(NotAccepted::Failed, &error);
                    drop(permit);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Lets in a connection that is accepted already, if there is a slot for it.
    pub(super) fn admit(&mut self, peer: IpAddr) -> Option<Slot> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        self.slot(permit, peer)
    }

    /// Done when no connection is open any more.
    pub(super) async fn all_ended(&self) {
        let _ = self.all.acquire_many(self.most).await;
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.most as usize - self.all.available_permits()
    }

    async fn permit(&mut self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.all).try_acquire_owned() {
            return permit;
        }
        self.keep(NotAccepted::Full, &"http.max_connections are open");
        let permit = Arc::clone(&self.all).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    fn slot(&mut self, permit: OwnedSemaphorePermit, peer: IpAddr) -> Option<Slot> {
        let of_address = Arc::clone(&self.of_address);
        let address = peer.to_canonical();
        if self.trusted.contains(address) {
            return Some(Slot { _permit: permit, of_address, address: None });
        }
        let customer = Caller { address: Some(address), ..Caller::default() }.customer().unwrap_or(address);
        let has_all = {
            let mut counts = of_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(customer).or_default();
            let has_all = *count >= self.most_of_address;
            *count += usize::from(!has_all);
            has_all
        };
        if has_all {
            self.keep(NotAccepted::Address, &format_args!("{customer} has http.max_connections_per_address"));
            return None;
        }
        Some(Slot { _permit: permit, of_address, address: Some(customer) })
    }

    fn keep(&mut self, kept: NotAccepted, why: &dyn std::fmt::Display) {
        if let Some(metrics) = &self.metrics {
            metrics.connection_refused(kept.reason());
        }
        let now = Instant::now();
        let said = &mut self.said[kept as usize];
        if said.is_none_or(|said| now - said >= SAY_EVERY) {
            *said = Some(now);
            tracing::warn!(reason = kept.reason(), open = self.open(), "connections are not let in: {why}");
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.of_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// The client went away before it was accepted.
fn is_its_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, setting::Setting as _};

    #[test]
    fn an_address_has_a_share_and_proxies_have_none() {
        let mut http = Config::default().http;
        http.max_connections_per_address = 2;
        http.trusted_proxies = Networks::parse("10.0.0.0/8").expect("a network");
        let mut slots = Slots::new(&http, None);
        let mut admit = |address: &str| slots.admit(address.parse().expect("an address"));
        let held = [admit("192.0.2.1"), admit("::ffff:192.0.2.1"), admit("192.0.2.1")];
        assert_eq!(held.each_ref().map(Option::is_some), [true, true, false], "written in two ways");
        let [first, ..] = held;
        drop(first);
        assert!(admit("192.0.2.1").is_some(), "given back");
        assert!((0..9).map(|_| admit("10.1.2.3")).all(|slot| slot.is_some()));
        let network =
            [admit("2001:db8::1"), admit("2001:db8::2"), admit("2001:db8::3"), admit("2001:db8:0:1::1")];
        assert_eq!(
            network.each_ref().map(Option::is_some),
            [true, true, false, true],
            "one customer of IPv6"
        );
        drop(network);
        assert_eq!(slots.of_address.lock().expect("not poisoned").len(), 1, "who has none is forgotten");
    }
}
