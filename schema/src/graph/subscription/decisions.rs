//! Whether a viewer may see what has changed: found out once for each announced change and each scope, and
//! shared by all subscriptions that ask at about the same time. Without that, each write would cost as much
//! as there are subscriptions to look at it, also those to which it shows nothing. Not here: how it is found
//! out (`Interest::decide`).

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use entities::{database::scope::Scope, events::ChangeEvent};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use rustc_hash::FxHashMap;

use engine::batch::Outcome;

/// The changed row, if viewers of this scope may see it.
pub(super) type Decision = Outcome<Arc<dyn Any + Send + Sync>>;

/// What is to be decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Which announcement the change belongs to: the same row may change again.
    pub(super) number: u64,
    pub(super) change: ChangeEvent,
    /// The subscription, whose rows are all of one type.
    pub(super) field: &'static str,
    pub(super) scope: Scope,
}

/// How long a decision is kept for subscriptions that come to it later. A viewer's rights may change meanwhile, and are
/// looked at again no later than this.
const KEPT: Duration = Duration::from_secs(1);
/// Decisions kept at most, since each has a row; further ones are made anew for whoever asks.
const MOST: usize = 1_024;

/// Decisions that were just made, or are being made.
pub(crate) struct Decisions {
    recent: Mutex<FxHashMap<Question, Shared<BoxFuture<'static, Decision>>>>,
    made: Counter,
}

impl Decisions {
    /// The metric goes into `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Arc<Self> {
        let made = Counter::default();
        registry.register(
            "graphql_server_subscription_decisions",
            "Decisions whether viewers of one scope may see one change",
            made.clone(),
        );
        Arc::new(Self { recent: Mutex::default(), made })
    }

    /// The decision; made with `decide` unless it is known or under way. Whoever waits for it drives it on,
    /// so it does not depend on the subscription that asked first.
    pub(super) fn of(
        self: &Arc<Self>,
        question: Question,
        decide: impl FnOnce() -> BoxFuture<'static, Decision>,
    ) -> Shared<BoxFuture<'static, Decision>> {
        let mut recent = self.recent();
        if let Some(known) = recent.get(&question) {
            return known.clone();
        }
        self.made.inc();
        let (deciding, decisions) = (decide(), Arc::downgrade(self));
        let deciding = async move {
            let decision = deciding.await;
            // What failed is tried again by the next one.
            if decision.is_err()
                && let Some(decisions) = decisions.upgrade()
            {
                let failed = decisions.recent().remove(&question);
                drop(failed);
            }
            decision
        };
        let deciding = deciding.boxed().shared();
        if recent.len() < MOST {
            recent.insert(question, deciding.clone());
            let decisions = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(KEPT).await;
                if let Some(decisions) = decisions.upgrade() {
                    let forgotten = decisions.recent().remove(&question);
                    drop(forgotten);
                }
            });
        }
        deciding
    }

    fn recent(&self) -> MutexGuard<'_, FxHashMap<Question, Shared<BoxFuture<'static, Decision>>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
