//! How many sockets and subscriptions one account, or one address, has at a time, over all transports. What
//! one of them has, nobody else pays for: each write is looked at by every subscription. Not here: how many
//! requests (`admission`) and connections (`server`) there may be in all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::http::StatusCode;
use entities::id::UserId;
use schema::Viewer;

use crate::{config::HttpConfig, rejection::Rejection};

pub(super) const TOO_MANY_SUBSCRIPTIONS: Rejection = Rejection::new(
    StatusCode::TOO_MANY_REQUESTS,
    "RATE_LIMITED",
    "This account has as many subscriptions at once as it may have (http.max_subscriptions_per_account).",
);
pub(super) const TOO_MANY_SOCKETS: Rejection = Rejection::new(
    StatusCode::TOO_MANY_REQUESTS,
    "RATE_LIMITED",
    "This address has as many WebSockets that are not signed in as it may have \
     (http.max_sockets_per_address).",
);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum QuotaKey {
    /// Sockets that have not signed in, of an address: of IPv6 the network of one customer.
    SocketsOfAddress(IpAddr),
    SocketsOfAccount(UserId),
    SubscriptionsOfAccount(UserId),
}

/// The counts.
#[derive(Clone, Debug)]
pub(crate) struct Quotas(Arc<QuotaCounts>);

#[derive(Debug)]
struct QuotaCounts {
    sockets_per_address: usize,
    sockets_per_account: usize,
    subscriptions_per_account: usize,
    /// Nothing that is not there any more.
    counts: Mutex<HashMap<QuotaKey, usize>>,
}

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub(super) struct QuotaPermit(Option<(Arc<QuotaCounts>, QuotaKey)>);

/// There are as many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Quotas {
    pub(crate) fn new(http: &HttpConfig) -> Self {
        Self(Arc::new(QuotaCounts {
            sockets_per_address: http.max_sockets_per_address,
            sockets_per_account: http.max_sockets_per_account,
            subscriptions_per_account: http.max_subscriptions_per_account,
            counts: Mutex::default(),
        }))
    }

    /// One more socket of an address that has not signed in yet.
    pub(super) fn socket_of_address(&self, address: Option<IpAddr>) -> Result<QuotaPermit, Full> {
        self.count(address.map(QuotaKey::SocketsOfAddress))
    }

    /// One more socket of a viewer's account.
    pub(super) fn socket_of(&self, viewer: &Viewer) -> Result<QuotaPermit, Full> {
        self.count(viewer.user_id().map(QuotaKey::SocketsOfAccount))
    }

    /// One more subscription of a viewer's account.
    pub(super) fn subscription_of(&self, viewer: &Viewer) -> Result<QuotaPermit, Full> {
        self.count(viewer.user_id().map(QuotaKey::SubscriptionsOfAccount))
    }

    /// Callers without an account and an address are not counted.
    fn count(&self, key: Option<QuotaKey>) -> Result<QuotaPermit, Full> {
        let Some(key) = key else { return Ok(QuotaPermit(None)) };
        let most = match key {
            QuotaKey::SocketsOfAddress(_) => self.0.sockets_per_address,
            QuotaKey::SocketsOfAccount(_) => self.0.sockets_per_account,
            QuotaKey::SubscriptionsOfAccount(_) => self.0.subscriptions_per_account,
        };
        let mut counts = self.0.counts();
        let count = counts.get(&key).copied().unwrap_or_default();
        if count >= most {
            return Err(Full);
        }
        counts.insert(key, count + 1);
        Ok(QuotaPermit(Some((Arc::clone(&self.0), key))))
    }
}

impl QuotaCounts {
    fn counts(&self) -> MutexGuard<'_, HashMap<QuotaKey, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let Some((quotas, key)) = self.0.take() else { return };
        let mut counts = quotas.counts();
        let left = counts.get(&key).copied().unwrap_or_default().saturating_sub(1);
        if left == 0 {
            counts.remove(&key);
        } else {
            counts.insert(key, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use entities::Role;

    use super::*;

    #[test]
    fn quotas_count_per_account_and_address() {
        let mut http = crate::config::Config::default().http;
        (http.max_sockets_per_address, http.max_sockets_per_account) = (1, 2);
        http.max_subscriptions_per_account = 1;
        let quotas = Quotas::new(&http);
        let user = || Viewer::User { id: UserId::new(), role: Role::Viewer, session: None };
        let (ann, bob) = (user(), user());
        let first = quotas.socket_of(&ann).expect("there is room");
        let second = quotas.socket_of(&ann).expect("there is room");
        assert_eq!(quotas.socket_of(&ann).err(), Some(Full));
        let subscription = quotas.subscription_of(&ann).expect("counted by itself");
        assert_eq!(quotas.subscription_of(&ann).err(), Some(Full));
        let others = (quotas.socket_of(&bob).expect("room"), quotas.subscription_of(&bob).expect("room"));
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let strange = quotas.socket_of_address(address).expect("there is room");
        assert_eq!(quotas.socket_of_address(address).err(), Some(Full));
        drop(first);
        let third = quotas.socket_of(&ann).expect("given back");
        let nobody: Vec<_> = (0..9).map(|_| quotas.subscription_of(&Viewer::Anonymous)).collect();
        assert!(nobody.iter().all(Result::is_ok));
        drop((second, third, subscription, others, strange, nobody));
        assert!(quotas.0.counts().is_empty());
    }
}
