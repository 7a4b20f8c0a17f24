//! How much work the answers to a form may make. A few bytes of answers can make a lot of it: a rule in each entry of a
//! list may read the whole list. Each kind of work has its own measure, and what is beyond a bound is refused with
//! `maxCost`. Not here: how much a rule costs (`form::logic`).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What one run may spend.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// Steps that the rules may take together.
    pub(crate) steps: u64,
    /// Places of answers: the fields of the form, those in a repeat once for each of its entries.
    pub(crate) places: usize,
    /// Characters of answers, times the weights of the patterns that they are compared with.
    pub(crate) matching: u64,
    /// Ends the run early.
    pub(crate) stop: Stop,
}

impl Work {
    /// What any submission may spend. In the worst case this is some seconds of one core in a debug build.
    pub(crate) fn full() -> Self {
        Self { steps: 5_000_000, places: 200_000, matching: 100_000_000, stop: Stop::default() }
    }

    /// What may be spent on a thread that serves other requests as well: about a millisecond.
    pub(crate) fn short() -> Self {
        Self { steps: 20_000, places: 2_000, matching: 2_000_000, stop: Stop::default() }
    }
}

/// Tells a run that nobody waits for it any more, as when its request has reached its deadline. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Was it stopped?
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Stops the run when the returned value is dropped.
    pub(crate) fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }
}

/// Held by whoever waits for the run.
pub(crate) struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
