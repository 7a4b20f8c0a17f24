//! What one request knows while it runs: who asks, when, its loads, and for how long its answer stays true. Not here: who may
//! see what (`viewer`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use entities::{Store, clock::Time, database::scope::Scope, id::UserId};

use crate::{
    auth::{access::Access, viewer::Viewer},
    engine::{
        batch::Batcher,
        bounds::Bounds,
        cache_control::Watched,
        error::FieldError,
        federation::trace::{Clock, Moment},
    },
    graph::subgraph::Subgraph,
    request::Caller,
};

/// What one request knows: who asks, when, and its loads.
#[derive(Clone)]
pub struct Context {
    /// Who asks.
    pub viewer: Watched<Viewer>,
    /// What they may read.
    pub scope: Watched<Scope>,
    /// From where they ask.
    pub caller: Caller,
    pub(crate) now: Time,
    /// Until when the answer stays true if nothing is written, milliseconds since 1970.
    true_until: Arc<AtomicI64>,
    /// Its loads.
    pub batcher: Batcher,
    /// Runs where somebody asks for a trace.
    pub(crate) clock: Option<Clock>,
    pub(crate) access: Access,
    pub(crate) service: Service,
    /// What its answer may take.
    pub(crate) bounds: Bounds,
}

/// What gateways are told of the graph.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) subgraph: Subgraph,
    pub(crate) sdl: Arc<str>,
}

impl Context {
    pub(crate) fn new(
        viewer: Viewer,
        caller: Caller,
        access: Access,
        batcher: Batcher,
        (service, bounds): (Service, Bounds),
    ) -> Self {
        let (viewer, scope) = Watched::viewer(viewer);
        let (now, true_until) = (entities::clock::now(), Arc::new(AtomicI64::new(i64::MAX)));
        let clock = None;
        Self { viewer, scope, caller, now, true_until, batcher, clock, access, service, bounds }
    }

    /// When the request began: one moment for the whole answer, which is true for that moment only.
    pub fn now(&self) -> Time {
        self.true_until.store(i64::MIN, Ordering::Relaxed);
        self.now
    }

    /// The same for what stays true until another moment, such as that a session has not expired.
    pub fn now_until(&self, end: Time) -> Time {
        if end > self.now {
            self.true_until.fetch_min(end.timestamp_millis(), Ordering::Relaxed);
        }
        self.now
    }

    /// For how long from now on the answer stays true if nothing is written. Making it has taken a while.
    pub(crate) fn is_true_for(&self) -> Duration {
        let now = entities::clock::now().timestamp_millis();
        let left = self.true_until.load(Ordering::Relaxed).saturating_sub(now);
        Duration::from_millis(u64::try_from(left).unwrap_or_default())
    }

    /// The same request in the eyes of another viewer, if there is one.
    pub(crate) fn read_by(&self, viewer: Option<Viewer>) -> Self {
        let viewer = viewer.unwrap_or_else(|| Viewer::clone(&self.viewer));
        Self { scope: self.scope.with(viewer.scope()), viewer: self.viewer.with(viewer), ..self.clone() }
    }

    /// The account that asks.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where nobody is signed in.
    pub(crate) fn user(&self) -> Result<UserId, FieldError> {
        self.viewer.user_id().ok_or(FieldError::unauthenticated())
    }

    /// This moment, where somebody asks for a trace.
    pub(crate) fn moment(&self) -> Moment {
        self.clock.map_or(0, Clock::now)
    }

    /// The store, reporting its statements to this request.
    pub(crate) fn store(&self) -> &Store {
        self.batcher.store()
    }
}
