//! How something of which there is only so much is divided, so that one address or one account cannot keep
//! everybody else out: a count in all, by address and by account, each with its bound. Not here: what is
//! counted (`memory`: bytes; `admission`: requests that are worked on), and the bounds.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use entities::id::UserId;

/// On whose account something is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Where the request comes from: one address, or the network of one customer of IPv6. `None` for gateways
    /// and trusted proxies, who ask for many.
    pub(crate) address: Option<IpAddr>,
    /// The account, if the caller is signed in.
    pub(crate) account: Option<UserId>,
    /// Whether it is a gateway's request.
    pub(crate) is_gateway: bool,
}

impl Owner {
    /// Whether it is one of the many who only have an address.
    pub(super) fn is_stranger(&self) -> bool {
        !self.is_known() && self.address.is_some()
    }

    /// Whether it is known who asks: an account or a gateway.
    pub(super) fn is_known(&self) -> bool {
        self.account.is_some() || self.is_gateway
    }
}

/// How much may be held: by everybody together, by all who only have an address, at one address, there by
/// those who are signed in or by those who are not, whichever asks, and for one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShareLimits {
    pub(super) total: usize,
    pub(super) strangers: usize,
    pub(super) address: usize,
    pub(super) kind_at_address: usize,
    pub(super) account: usize,
}

impl ShareLimits {
    /// No bound.
    pub(super) const NONE: Self = {
        let most = usize::MAX;
        Self { total: most, strangers: most, address: most, kind_at_address: most, account: most }
    };

    /// So much in all, and no more than that at one address or for one account. Of one address,
    /// `kind_at_address` is for those like the one who asks.
    pub(super) fn new(total: usize, (address, kind_at_address): (usize, usize), account: usize) -> Self {
        let [address, kind_at_address, account] =
            [address, kind_at_address, account].map(|limit| limit.min(total));
        Self { total, strangers: total, address, kind_at_address, account }
    }

    /// Of it, so much for all who only have an address.
    pub(super) fn for_strangers(self, strangers: usize) -> Self {
        Self { strangers: strangers.min(self.total), ..self }
    }

    /// These limits, so many times.
    pub(super) fn times(self, factor: usize) -> Self {
        let Self { total, strangers, address, kind_at_address, account } = self;
        let [total, strangers, address, kind_at_address, account] =
            [total, strangers, address, kind_at_address, account].map(|limit| limit.saturating_mul(factor));
        Self { total, strangers, address, kind_at_address, account }
    }
}

/// What is held, in all and by whom. Who holds nothing is not remembered.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    total: usize,
    strangers: usize,
    /// Of everybody there.
    by_address: HashMap<IpAddr, usize>,
    /// Of those there who are not signed in.
    anonymous_by_address: HashMap<IpAddr, usize>,
    by_account: HashMap<UserId, usize>,
}

impl Shares {
    /// Holds so much more, if everything stays within its limit; else nothing, and it is false.
    pub(super) fn take(&self, owner: &Owner, amount: usize, limits: ShareLimits) -> bool {
        let mut held = self.held();
        let fits = held.fits(owner, amount, limits);
        if fits && amount > 0 {
            held.add(owner, amount);
        }
        fits
    }

    /// Holds one more, if there are fewer than `all` and this owner has no more than others: all are divided
    /// among the accounts that hold some, and for strangers among their addresses. Who holds none may be
    /// beyond `all`, up to a quarter. `limits` hold besides.
    pub(super) fn take_fairly(&self, owner: &Owner, all: usize, limits: ShareLimits) -> bool {
        let mut held = self.held();
        let fits = held.fits(owner, 1, held.fair(owner, all, limits));
        if fits {
            held.add(owner, 1);
        }
        fits
    }

    /// Whether `take_fairly` would.
    pub(super) fn fits_fairly(&self, owner: &Owner, all: usize, limits: ShareLimits) -> bool {
        let held = self.held();
        held.fits(owner, 1, held.fair(owner, all, limits))
    }

    /// Whether so much more would stay within all limits now.
    pub(super) fn fits(&self, owner: &Owner, amount: usize, limits: ShareLimits) -> bool {
        self.held().fits(owner, amount, limits)
    }

    /// Gives back so much of what was taken for this owner.
    pub(super) fn give_back(&self, owner: &Owner, amount: usize) {
        let mut held = self.held();
        held.total -= amount;
        if owner.is_stranger() {
            held.strangers -= amount;
        }
        if let Some(key) = owner.address {
            give_back(&mut held.by_address, &key, amount);
            if owner.is_stranger() {
                give_back(&mut held.anonymous_by_address, &key, amount);
            }
        }
        if let Some(key) = owner.account {
            give_back(&mut held.by_account, &key, amount);
        }
    }

    /// What is held in all.
    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.held().total
    }

    /// How many addresses and accounts hold something.
    #[cfg(test)]
    pub(super) fn owners(&self) -> usize {
        let held = self.held();
        held.by_address.len() + held.anonymous_by_address.len() + held.by_account.len()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn add(&mut self, owner: &Owner, amount: usize) {
        self.total += amount;
        if owner.is_stranger() {
            self.strangers += amount;
        }
        if let Some(key) = owner.address {
            *self.by_address.entry(key).or_default() += amount;
            if owner.is_stranger() {
                *self.anonymous_by_address.entry(key).or_default() += amount;
            }
        }
        if let Some(key) = owner.account {
            *self.by_account.entry(key).or_default() += amount;
        }
    }

    /// These limits where there are `all` for everybody: divided among those who hold some, once three
    /// quarters are taken. Before that nobody has to make room. A quarter of all is for accounts and
    /// gateways, and none of what is beyond is for more strangers than that, or for more accounts of one
    /// address.
    fn fair(&self, owner: &Owner, all: usize, limits: ShareLimits) -> ShareLimits {
        let total = all.min(limits.total);
        let strangers = limits.strangers.min(all - all / 4);
        let fair = ShareLimits { total, strangers, ..limits };
        let (of_owner, owners) = match (owner.account, owner.address) {
            (Some(account), _) => (of(&self.by_account, &account), self.by_account.len()),
            (None, Some(address)) => (of(&self.anonymous_by_address, &address), self.by_address.len()),
            // Those who ask for many.
            (None, None) => return ShareLimits { total: (all + all / 8).min(limits.total), ..fair },
        };
        if of_owner == 0 {
            let (total, address) = ((all + all / 4).min(limits.total), limits.address.min(all));
            return ShareLimits { total, strangers: limits.strangers.min(all), address, ..fair };
        }
        if self.total < all - all / 4 {
            return fair;
        }
        let each = (all / owners.max(1)).max(1);
        if owner.account.is_some() {
            ShareLimits { account: fair.account.min(each), ..fair }
        } else {
            ShareLimits { kind_at_address: fair.kind_at_address.min(each), ..fair }
        }
    }

    /// What those hold at an address who are signed in, if this owner is, or those who are not.
    fn of_kind(&self, owner: &Owner, address: &IpAddr) -> usize {
        let anonymous = of(&self.anonymous_by_address, address);
        if owner.is_stranger() { anonymous } else { of(&self.by_address, address) - anonymous }
    }

    fn fits(&self, owner: &Owner, amount: usize, limits: ShareLimits) -> bool {
        let fits = |held: usize, limit: usize| held.checked_add(amount).is_some_and(|held| held <= limit);
        fits(self.total, limits.total)
            && (!owner.is_stranger() || fits(self.strangers, limits.strangers))
            && owner.address.is_none_or(|key| fits(of(&self.by_address, &key), limits.address))
            && owner.address.is_none_or(|key| fits(self.of_kind(owner, &key), limits.kind_at_address))
            && owner.account.is_none_or(|key| fits(of(&self.by_account, &key), limits.account))
    }
}

fn of<K: Hash + Eq>(held: &HashMap<K, usize>, key: &K) -> usize {
    held.get(key).copied().unwrap_or_default()
}

fn give_back<K: Hash + Eq>(held: &mut HashMap<K, usize>, key: &K, amount: usize) {
    if let Some(of) = held.get_mut(key) {
        *of = of.saturating_sub(amount);
        if *of == 0 {
            held.remove(key);
        }
    }
}
