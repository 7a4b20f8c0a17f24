//! One request and its answer, as they come from the server and go back to it. Not here: what happens between them
//! (`Graph`), what a request knows while it runs (`context`).

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_graphql::parser::types::OperationDefinition;
use entities::{Commits, DependencySet, Recorder, events::ResumeToken};

use crate::{Variables, auth::throttle};
use engine::{
    bounds::{HeldMemory, Taken},
    cache_control::CachePolicy,
    chunks::Chunks,
    document::{Document, OperationKind},
    error::{Code, OnError, RequestError},
    federation::gateway::Clearance,
    output::{Errors, Unfinished},
    plan::Planner,
};

/// One GraphQL request as it came over the wire.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each asks for one thing beside the answer")]
pub struct Request {
    /// The document's text; not used where the document is given by itself.
    pub query: String,
    /// Which operation of the document to run.
    pub operation_name: Option<String>,
    /// Values of the operation's variables.
    pub variables: Variables,
    /// What a field that fails does to the rest of the answer; `None`: as the document was published, else it
    /// propagates.
    pub on_error: Option<OnError>,
    /// Add `extensions.explain` to the answer; only in development.
    pub explain: bool,
    /// When its document began to be looked for, for `extensions.explain`.
    pub found_from: Option<Instant>,
    /// Say what the answer depends on: in `Reply::dependencies`, and to gateways in
    /// `extensions.apolloEntityCacheTags`, one list for each entity. Where no entities are asked for, in
    /// `apolloCacheTags`, for the whole answer.
    pub cache_tags: bool,
    /// Say in the reply which entities `_entities` was asked for.
    pub entities: bool,
    /// Add `extensions.ftv1` to the answer: what was resolved, and when.
    pub trace: bool,
    /// What the caller has written, as `extensions.cacheToken` said: the answer must not be older.
    pub cache_token: Option<String>,
    /// The caller can be told more than one answer: a query with `@live` goes on.
    pub streams: bool,
    /// Tell how the answer to a live query has changed (RFC 6902), where that is shorter than the answer.
    pub json_patch: bool,
    /// Add `extensions.resumeToken` to the answer of a query or a mutation: a subscription after it misses
    /// nothing that is not in the answer.
    pub resume_token: bool,
    /// After which event a subscription goes on, as `extensions.resumeToken` of the event said.
    pub resume_after: Option<String>,
    /// From where and with what it was sent.
    pub caller: Caller,
    /// The caller's name for it: the same account's same request runs once, and is answered in the same way each
    /// time.
    pub idempotency_key: Option<Arc<str>>,
    /// What is known of it where it is stopped before its end.
    pub progress: Progress,
    /// Is told of slow runs, where it goes on: of a live query, and of events of a subscription.
    pub on_slow_run: Option<OnSlowRun>,
    /// What its answer takes; the requests of an array share one.
    pub taken: Taken,
}

/// Gets how long a slow run has taken, and what was done, as `Reply::slow`.
type TellSlowRun = dyn Fn(Duration, &str) + Send + Sync;

/// Is told of slow runs. Cheap to clone.
#[derive(Clone)]
pub struct OnSlowRun(pub Arc<TellSlowRun>);

impl fmt::Debug for OnSlowRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSlowRun")
    }
}

/// What is known of a request before it ends, by whoever may stop it. Cheap to clone: all clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Counts how many times COMMIT is sent for it: something may be stored from the first one on.
    pub commits: Commits,
    stopped: Arc<OnceLock<Box<str>>>,
}

impl Progress {
    /// Of an operation that was stopped when it had taken longer than is usual: as `Reply::slow`.
    pub fn slow(&self) -> Option<&str> {
        self.stopped.get().map(AsRef::as_ref)
    }

    /// It is stopped, and had done this until then.
    pub(crate) fn stop(&self, done: impl FnOnce() -> Box<str>) {
        self.stopped.get_or_init(done);
    }
}

/// From where and with what a request was sent; says nothing about whose rights it has (`Viewer`).
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The client's address, or that of who asks for it: see `client_address`.
    pub address: Option<IpAddr>,
    /// The client's address, where a proxy that is trusted has said it.
    pub forwarded_address: Option<IpAddr>,
    /// The client's own description of itself.
    pub user_agent: Option<Arc<str>>,
    /// It came with others, in one array.
    pub in_batch: bool,
    /// It was sent by a gateway that has proved to be one.
    pub is_gateway: bool,
    /// It may ask for the schema's introspection, also where only gateways may.
    pub may_introspect: bool,
    /// The request's id, which its errors and the log tell; empty: none.
    pub request_id: Arc<str>,
}

impl Caller {
    /// What it may ask for of what is for gateways only.
    pub(crate) fn clearance(&self) -> Clearance {
        match (self.is_gateway, self.may_introspect) {
            (true, _) => Clearance::Gateway,
            (false, true) => Clearance::Introspection,
            (false, false) => Clearance::None,
        }
    }

    /// The client's own address; `None` for the many clients of a gateway that does not say which of them asks.
    pub fn client_address(&self) -> Option<IpAddr> {
        if self.is_gateway { self.forwarded_address } else { self.address }
    }

    /// The addresses that one customer has to himself: of IPv6 a whole network.
    pub fn customer(&self) -> Option<IpAddr> {
        self.client_address().map(throttle::block_of_one)
    }

    /// The network that the address is of (IPv4 /24, IPv6 /48): what one attacker is likely to have to himself.
    pub fn network(&self) -> Option<IpAddr> {
        self.client_address().map(throttle::network_of)
    }
}

/// A request that may run: its document is valid, and so are its variables.
pub(crate) struct Prepared {
    pub(crate) document: Arc<Document>,
    pub(crate) operation_name: Option<String>,
    pub(crate) kind: OperationKind,
    pub(crate) cache: Option<CachePolicy>,
    /// How many objects it may load.
    pub(crate) cost: u64,
    pub(crate) variables: Variables,
    pub(crate) on_error: OnError,
}

impl Prepared {
    /// The operation to run.
    pub(crate) fn operation(&self) -> &OperationDefinition {
        let operation = self.document.operation(self.operation_name.as_deref());
        &operation.expect("it was found when the request was prepared").parsed.node
    }

    /// What its selections refer to.
    pub(crate) fn planner(&self) -> Planner<'_> {
        Planner { fragments: &self.document.parsed.fragments, variables: &self.variables }
    }
}

/// The answer to one request.
#[derive(Debug, Default)]
pub struct Reply {
    /// The response as JSON.
    pub body: Chunks,
    /// The kind of the operation, where one was found.
    pub operation: Option<OperationKind>,
    /// False for request errors (parse, validation, coercion): the answer has no `data` entry then.
    pub executed: bool,
    /// The codes of all errors in the answer, in order.
    pub codes: Vec<&'static str>,
    /// After how many seconds it may be tried again, where an error says so.
    pub retry_after_seconds: Option<u32>,
    /// SQL statements that this request caused or shared.
    pub statements: u32,
    /// How many objects it may load, as `Options::limits` counts; `None` where that was not found out.
    pub cost: Option<u64>,
    /// Rows, pages and counts that were found in the cache for it; a whole answer counts as one.
    pub cache_hits: u32,
    /// The moment of what the request wrote, for reading it on other nodes.
    pub cache_token: Option<Box<str>>,
    /// How long the answer keeps; `None`: not at all.
    pub cache: Option<CachePolicy>,
    /// What the answer depends on, where `Request::cache_tags` asks for it.
    pub dependencies: Option<Arc<DependencySet>>,
    /// What stands for the bytes of `body`, where that is known.
    pub digest: Option<[u8; 16]>,
    /// How many of each type `_entities` was asked for, where somebody wants to know.
    pub entities: Box<[(&'static str, u32)]>,
    /// Of an operation that took longer than is usual (`Options::slow_operation`): its batches and the texts of its
    /// statements, as JSON; no values.
    pub slow: Option<Box<str>>,
    /// The memory that a long answer takes; given back when this is dropped.
    pub held: HeldMemory,
    /// The place of the set of variables that it answers, where there are several; `body` tells it.
    pub set: Option<u32>,
    /// Of an event: what stands for it when its reader comes back; `body` tells it, too.
    pub resume_token: Option<Box<ResumeToken>>,
}

impl Reply {
    /// An answer with its last brace.
    pub(crate) fn executed(kind: OperationKind, answer: Unfinished, recorder: &Recorder) -> Self {
        let Unfinished { out: body, errors, bound } = answer;
        let Errors { codes, retry_after_seconds, .. } = errors;
        let (operation, statements, cache_hits) = (Some(kind), recorder.count(), recorder.cache_hits());
        let cache_token = recorder.written_version().map(|moment| moment.to_string().into());
        Self {
            body,
            operation,
            executed: true,
            codes,
            retry_after_seconds,
            statements,
            cost: None,
            cache_hits,
            cache_token,
            cache: None,
            dependencies: recorder.dependencies(),
            digest: None,
            entities: Box::default(),
            slow: None,
            held: bound.into_held(),
            set: None,
            resume_token: None,
        }
    }

    /// Whether it ends its request on a stream: nothing ran, so nothing else is told.
    pub fn is_refusal(&self) -> bool {
        !self.executed && self.set.is_none()
    }

    /// The answer to the set of variables at this place of a list. The entry `variableIndex` is that of the batching
    /// proposal of GraphQL over HTTP (its appendix B).
    #[must_use]
    pub fn of_set(mut self, index: usize) -> Self {
        self.body.truncate(self.body.len().saturating_sub(1));
        self.body.extend(format!(",\"variableIndex\":{index}}}"));
        Self { set: Some(u32::try_from(index).unwrap_or(u32::MAX)), ..self }
    }
}

/// The answer to a request that did not run.
pub(crate) fn rejected(
    operation: Option<OperationKind>,
    errors: &[RequestError],
    request_id: &Arc<str>,
) -> Reply {
    let errors = Errors::of_request(errors, request_id);
    let mut body = b"{\"errors\":".to_vec();
    errors.write(&mut body);
    body.push(b'}');
    let (executed, codes) = (false, errors.codes);
    let is_short =
        |code: &&str| [Code::Unavailable, Code::Conflict].iter().any(|short| short.as_str() == *code);
    let retry_after_seconds = codes.iter().any(is_short).then_some(1);
    Reply { body: body.into(), operation, executed, codes, retry_after_seconds, ..Reply::default() }
}
