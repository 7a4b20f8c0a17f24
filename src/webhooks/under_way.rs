//! Shares of the attempts that are under way in this process: of a webhook, of an account, of webhooks that
//! fail. An account has as many as it leaves free (one more where the number is odd), and a webhook as many as
//! it leaves to the others of its account. So one account may use half of all while it is alone, and less the
//! more there are, and a newcomer finds a slot however slow the receivers of others are. Not here: who takes
//! leases, and which wait longest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entities::{
    id::{UserId, WebhookId},
    webhook::lane::{DueExcept, DueWebhook},
};

/// Attempts at one webhook at a time.
const PER_WEBHOOK: usize = 4;
/// Of all attempts, those at webhooks that fail: one in so many.
const SHARE_OF_FAILING: usize = 2;

/// A webhook, and how many of its lanes are being delivered.
#[derive(Clone, Copy, Debug)]
struct Busy {
    webhook: DueWebhook,
    lanes: usize,
}

/// What is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    concurrency: usize,
    busy: Mutex<Vec<Busy>>,
}

impl UnderWay {
    /// Nothing yet, of so many attempts at most.
    pub(super) fn new(concurrency: usize) -> Arc<Self> {
        Arc::new(Self { concurrency, busy: Mutex::default() })
    }

    fn busy(&self) -> MutexGuard<'_, Vec<Busy>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Slots that nobody uses.
    pub(super) fn free(&self) -> usize {
        self.free_beside(&self.busy())
    }

    fn free_beside(&self, busy: &[Busy]) -> usize {
        self.concurrency.saturating_sub(lanes_of(busy, |_| true))
    }

    /// What nothing may be begun for now.
    pub(super) fn except(&self) -> DueExcept {
        let busy = self.busy();
        let is_full = |webhook: &DueWebhook| self.room(&busy, webhook) == 0;
        let webhooks = busy.iter().map(|busy| busy.webhook).filter(is_full).map(|webhook| webhook.id);
        let mut owners: Vec<UserId> = busy.iter().map(|busy| busy.webhook.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners.retain(|owner| self.left_to(&busy, *owner) == 0);
        DueExcept {
            webhooks: webhooks.collect(),
            if_failing: busy.iter().map(|busy| busy.webhook.id).collect(),
            owners,
            failing: self.left_to_failing(&busy) == 0,
        }
    }

    /// How many further lanes of this webhook may be begun.
    pub(super) fn room_for(&self, webhook: &DueWebhook) -> usize {
        self.room(&self.busy(), webhook)
    }

    fn room(&self, busy: &[Busy], webhook: &DueWebhook) -> usize {
        let lanes = lanes_of(busy, |other| other.id == webhook.id);
        if webhook.is_failing {
            return 1_usize.saturating_sub(lanes).min(self.left_to_failing(busy));
        }
        let fair = fair_share(lanes, self.left_to(busy, webhook.owner));
        PER_WEBHOOK.saturating_sub(lanes).min(fair)
    }

    /// Those that fail have a share of their own, and do not count for their account.
    fn left_to(&self, busy: &[Busy], owner: UserId) -> usize {
        let own = lanes_of(busy, |other| other.owner == owner && !other.is_failing);
        fair_share(own, self.free_beside(busy))
    }

    fn left_to_failing(&self, busy: &[Busy]) -> usize {
        let most = (self.concurrency / SHARE_OF_FAILING).max(1);
        let failing = lanes_of(busy, |other| other.is_failing);
        // Beside those that do not fail they leave something free, too.
        most.saturating_sub(failing).min(fair_share(failing, self.free_beside(busy)))
    }

    /// A further lane of the webhook is being delivered, for as long as the answer is kept.
    pub(super) fn begin(self: &Arc<Self>, webhook: DueWebhook) -> BusyLane {
        let mut all = self.busy();
        match all.iter_mut().find(|busy| busy.webhook.id == webhook.id) {
            Some(busy) => *busy = Busy { webhook, lanes: busy.lanes + 1 },
            None => all.push(Busy { webhook, lanes: 1 }),
        }
        BusyLane { under_way: Arc::clone(self), webhook: webhook.id }
    }
}

/// A lane that is being delivered.
#[derive(Debug)]
pub(super) struct BusyLane {
    under_way: Arc<UnderWay>,
    webhook: WebhookId,
}

impl Drop for BusyLane {
    fn drop(&mut self) {
        let mut all = self.under_way.busy();
        if let Some(busy) = all.iter_mut().find(|busy| busy.webhook.id == self.webhook) {
            busy.lanes -= 1;
        }
        all.retain(|busy| busy.lanes > 0);
    }
}

fn lanes_of(busy: &[Busy], counts: impl Fn(&DueWebhook) -> bool) -> usize {
    busy.iter().filter(|busy| counts(&busy.webhook)).map(|busy| busy.lanes).sum()
}

/// How many more somebody may take who has some, of those that are free, without having more than remain free.
fn fair_share(has: usize, free: usize) -> usize {
    free.saturating_sub(has).div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(owner: UserId) -> DueWebhook {
        DueWebhook { id: WebhookId::new(), owner, is_failing: false }
    }

    /// Begins as much as may be begun.
    fn fill(under_way: &Arc<UnderWay>, webhook: DueWebhook) -> Vec<BusyLane> {
        let mut begun = Vec::new();
        while under_way.room_for(&webhook) > 0 {
            begun.push(under_way.begin(webhook));
        }
        begun
    }

    #[test]
    fn accounts_leave_room_for_newcomers() {
        let under_way = UnderWay::new(64);
        let of_account = |owner| (0..100).flat_map(|_| fill(&under_way, webhook(owner))).collect::<Vec<_>>();
        let all: Vec<_> = (0..7).map(|_| of_account(UserId::new())).collect();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [32, 16, 8, 4, 2, 1, 1]);
        assert_eq!((under_way.free(), under_way.except().owners.len()), (0, 7));
    }

    #[test]
    fn an_account_that_uses_up_its_share_is_asked_for_no_more() {
        let under_way = UnderWay::new(16);
        let (owner, other) = (UserId::new(), UserId::new());
        let first = webhook(owner);
        let mut of_first = fill(&under_way, first);
        assert_eq!(of_first.len(), 4);
        let except =
            DueExcept { webhooks: vec![first.id], if_failing: vec![first.id], ..DueExcept::default() };
        assert_eq!(under_way.except(), except);
        let others: Vec<_> = (0..100).flat_map(|_| fill(&under_way, webhook(owner))).collect();
        assert_eq!(of_first.len() + others.len(), 8);
        assert_eq!(under_way.except().owners, [owner]);
        assert_eq!(under_way.room_for(&webhook(owner)), 0);
        assert!(under_way.room_for(&webhook(other)) > 0);
        of_first.pop();
        assert!(under_way.room_for(&webhook(owner)) > 0, "it has given one back");
    }

    #[test]
    fn a_webhook_leaves_room_for_others_of_its_account() {
        let under_way = UnderWay::new(6);
        let owner = UserId::new();
        let (first, second) = (fill(&under_way, webhook(owner)), fill(&under_way, webhook(owner)));
        assert_eq!((first.len(), second.len()), (2, 1));
    }

    #[test]
    fn those_that_fail_have_one_attempt_each_and_half_of_all() {
        let under_way = UnderWay::new(8);
        let owner = UserId::new();
        let failing = || DueWebhook { is_failing: true, ..webhook(owner) };
        let begun: Vec<_> = (0..8).map(|_| fill(&under_way, failing())).collect();
        assert_eq!(begun.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1, 0, 0, 0, 0]);
        assert!(under_way.except().failing);
        assert!(!fill(&under_way, webhook(owner)).is_empty(), "those that do not fail have their own share");
    }

    #[test]
    fn an_account_with_slow_and_failing_webhooks_leaves_something_free() {
        let under_way = UnderWay::new(64);
        let owner = UserId::new();
        let slow: Vec<_> = (0..100).flat_map(|_| fill(&under_way, webhook(owner))).collect();
        let failing = || DueWebhook { is_failing: true, ..webhook(owner) };
        let failing: Vec<_> = (0..100).flat_map(|_| fill(&under_way, failing())).collect();
        assert_eq!((slow.len(), failing.len()), (32, 16));
        assert!(!fill(&under_way, webhook(UserId::new())).is_empty());
    }

    #[test]
    fn the_only_slot_may_be_used() {
        let under_way = UnderWay::new(1);
        assert_eq!(fill(&under_way, webhook(UserId::new())).len(), 1);
        assert_eq!(under_way.free(), 1, "the lane has come to its end");
    }
}
