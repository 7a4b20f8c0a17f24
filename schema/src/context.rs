//! What the graph knows of one request while it runs: who asks, when, and for how long its answer stays true.
//! Not here: its loads and bounds (`engine::context`), who may see what (`auth::viewer`).

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use entities::{
    Failure, Recorder, Store,
    clock::Time,
    database::scope::Scope,
    id::UserId,
    idempotency::{Claim, Stored},
    webhook::targets::TargetRules,
};

use crate::{Access, Caller, Subgraph, Viewer};
use engine::{
    batch::Source,
    cache_control::Watched,
    context::Context,
    error::{Code, FieldError},
};

const UNAVAILABLE: &str = "The database cannot be reached now. Nothing was changed; try again in a moment";
const CONTENDED: &str =
    "Others changed the same at the same time. Nothing was changed for this request; try again in a moment";
const TIMED_OUT: &str = "The database did not answer in time. Nothing was changed; try again in a moment";
const OUTCOME_UNKNOWN: &str =
    "The database did not say in time whether this is stored. Look whether it is before you send it again";

/// What loaders read from: the store, reporting its statements to one request.
#[derive(Clone)]
pub struct Database {
    store: Store,
    recorder: Arc<Recorder>,
}

impl Database {
    pub(crate) fn new(store: &Store, recorder: Arc<Recorder>) -> Self {
        Self { store: store.recorded_by(Arc::clone(&recorder)), recorder }
    }
}

impl Deref for Database {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Source for Database {
    type Error = entities::Error;

    /// A reader who must see a write has a store of their own, and cannot share another request's. Nor can a reader who
    /// collects what its own values depend on: a shared batch reads those of others too.
    fn is_shareable(&self) -> bool {
        self.store.min_version().is_none() && !self.recorder.collects()
    }

    fn shared<'a>(requests: impl Iterator<Item = &'a Self>) -> Self {
        let mut requests = requests.peekable();
        let store = &requests.peek().expect("there is at least one request").store;
        let recorder = Recorder::new(requests.any(|request| request.recorder.keeps_texts()));
        Self::new(store, Arc::new(recorder))
    }

    fn absorb(&self, shared: &Self) {
        self.recorder.absorb(&shared.recorder);
    }

    fn field_error(error: &entities::Error, loader: &'static str) -> FieldError {
        let cause = || {
            let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            Arc::from(format!("{loader}: {error}: {source}"))
        };
        let (code, message) = match (error.failure(), error) {
            (Failure::Refused, entities::Error::Refused(message)) => {
                return FieldError::bad_input(message.clone());
            }
            (Failure::Unavailable, _) => (Code::Unavailable, UNAVAILABLE),
            (Failure::Contended, _) => (Code::Unavailable, CONTENDED),
            (Failure::TimedOut, _) => (Code::Timeout, TIMED_OUT),
            (Failure::OutcomeUnknown, _) => (Code::OutcomeUnknown, OUTCOME_UNKNOWN),
            (Failure::Refused | Failure::Internal, _) => {
                return FieldError { cause: Some(cause()), ..FieldError::internal() };
            }
        };
        let retry_after_seconds = (code != Code::OutcomeUnknown).then_some(1);
        let repeats = error.repeats();
        FieldError { retry_after_seconds, repeats, cause: Some(cause()), ..FieldError::new(code, message) }
    }
}

/// The data of a request (`Context::data`).
#[derive(Clone)]
pub(crate) struct RequestData {
    /// Who asks.
    viewer: Watched<Viewer>,
    /// What they may read.
    scope: Watched<Scope>,
    /// From where they ask.
    caller: Caller,
    /// When the request began.
    now: Time,
    /// Until when the answer stays true if nothing is written, milliseconds since 1970.
    true_until: Arc<AtomicI64>,
    access: Access,
    service: ServiceInfo,
    webhook_targets: TargetRules,
}

/// What gateways are told of the graph.
#[derive(Clone)]
pub(crate) struct ServiceInfo {
    pub(crate) subgraph: Subgraph,
    pub(crate) sdl: Arc<str>,
}

impl RequestData {
    pub(crate) fn new(
        viewer: Viewer,
        caller: Caller,
        (access, service, webhook_targets): (Access, ServiceInfo, TargetRules),
    ) -> Self {
        let scope = viewer.scope();
        let (viewer, scope) = Watched::pair(viewer, scope);
        let (now, true_until) = (entities::clock::now(), Arc::new(AtomicI64::new(i64::MAX)));
        Self { viewer, scope, caller, now, true_until, access, service, webhook_targets }
    }
}

/// What the graph asks of a request's context.
pub(crate) trait ContextExt {
    /// Who asks. Reading it makes the answer private.
    fn viewer(&self) -> &Watched<Viewer>;

    /// What they may read. Reading it makes the answer private.
    fn scope(&self) -> Scope;

    /// From where and with what the request was sent.
    fn caller(&self) -> &Caller;

    /// What lets callers in.
    fn access(&self) -> &Access;

    /// What gateways are told of the graph.
    fn service(&self) -> &ServiceInfo;

    /// Where webhooks may be sent.
    fn webhook_targets(&self) -> &TargetRules;

    /// When the request began, for what is told beside its answer.
    fn began(&self) -> Time;

    /// When the request began: one moment for the whole answer, which is true for that moment only.
    fn now(&self) -> Time;

    /// When the request began, for what stays true until another moment, such as that a session has not expired.
    fn now_until(&self, end: Time) -> Time;

    /// For how long from now on the answer stays true if nothing is written. Making it has taken a while.
    fn is_true_for(&self) -> Duration;

    /// This request in the eyes of another viewer, if one is given.
    #[must_use]
    fn read_by(&self, viewer: Option<Viewer>) -> Self;

    /// The account that asks.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where nobody is signed in.
    fn user(&self) -> Result<UserId, FieldError>;

    /// The store, reporting its statements to this request.
    fn store(&self) -> &Store;

    /// How many times COMMIT was sent for this request.
    fn commits(&self) -> u32;

    /// The claim on this request, where it has an idempotency key.
    fn claim(&self) -> Option<&Claim>;

    /// What the part of the request that runs now had stored when the same request was sent before.
    fn stored(&self) -> Option<&Stored> {
        self.claim()?.stored()
    }
}

impl ContextExt for Context {
    fn viewer(&self) -> &Watched<Viewer> {
        &data(self).viewer
    }

    fn scope(&self) -> Scope {
        *data(self).scope
    }

    fn caller(&self) -> &Caller {
        &data(self).caller
    }

    fn access(&self) -> &Access {
        &data(self).access
    }

    fn service(&self) -> &ServiceInfo {
        &data(self).service
    }

    fn webhook_targets(&self) -> &TargetRules {
        &data(self).webhook_targets
    }

    fn began(&self) -> Time {
        data(self).now
    }

    fn now(&self) -> Time {
        data(self).true_until.store(i64::MIN, Ordering::Relaxed);
        data(self).now
    }

    fn now_until(&self, end: Time) -> Time {
        let RequestData { now, true_until, .. } = data(self);
        if end > *now {
            // Of the last millisecond a part is over, and a part is not.
            true_until.fetch_min(end.timestamp_millis() + 1, Ordering::Relaxed);
        }
        *now
    }

    fn is_true_for(&self) -> Duration {
        let now = entities::clock::now().timestamp_millis();
        let left = data(self).true_until.load(Ordering::Relaxed).saturating_sub(now);
        Duration::from_millis(u64::try_from(left).unwrap_or_default())
    }

    fn read_by(&self, viewer: Option<Viewer>) -> Self {
        let data = data(self);
        let viewer = viewer.unwrap_or_else(|| Viewer::clone(&data.viewer));
        let scope = data.scope.with(viewer.scope());
        self.with_data(RequestData { scope, viewer: data.viewer.with(viewer), ..data.clone() })
    }

    fn user(&self) -> Result<UserId, FieldError> {
        self.viewer().user_id().ok_or(FieldError::unauthenticated())
    }

    fn store(&self) -> &Store {
        self.batcher.source::<Database>()
    }

    fn commits(&self) -> u32 {
        self.batcher.source::<Database>().recorder.commits()
    }

    fn claim(&self) -> Option<&Claim> {
        self.batcher.source::<Database>().recorder.claim()
    }
}

fn data(ctx: &Context) -> &RequestData {
    ctx.data()
}
