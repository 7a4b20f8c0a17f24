//! Whole answers of trusted documents, kept on the same stamps as rows: one is given again as long as nothing was
//! written that it was made of, without executing anything. An answer is of the partition that its execution has
//! looked at: everybody's, if it never asked who reads; a role's, if it only asked what administrators may read, who
//! all read everything; otherwise one viewer's. Answers with errors and answers with something that no tag covers
//! are not kept; what a clock decides is kept until then. Not here: the stamps (`entities::cache`), `ETag` (`src`).

use std::sync::Arc;

use entities::{
    Recorder, Role, Store, Version,
    cache::{AnswerName, Retention},
    database::scope::Scope,
    id::{SessionId, UserId},
};
use serde::Serialize;

use crate::{
    auth::viewer::Viewer,
    context::ContextExt as _,
    request::{Prepared, Reply},
};
use engine::{
    bounds::Bounds,
    cache_control::{CachePolicy, Looked},
    chunks::Chunks,
    context::Context,
    document::OperationKind,
};

/// Longer ones are made each time, bytes: giving one again copies it.
const LONGEST: usize = 1 << 20;
/// A write ends the use of an answer at once; this bounds what no tag covers.
const KEPT: Retention = Retention::for_seconds(60);

/// An answer that may be given again.
pub(crate) struct CachedAnswer {
    /// Lacks only its closing brace, like an answer that was just made.
    body: Vec<u8>,
    digest: [u8; 16],
    cache: Option<CachePolicy>,
}

/// Where the answer to one request is looked for and put.
pub(crate) struct AnswerCacheKey {
    names: AnswerNames,
    /// Before anything was read.
    began: Version,
}

/// The names that the answer to one request has, by how far the execution looks at who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerNames([AnswerName; 3]);

impl AnswerNames {
    /// For what decides an answer beside who asks.
    pub(crate) fn of(asked: &impl Serialize, viewer: &Viewer) -> Self {
        let partitions =
            [Partition::Everybody, Partition::of_scope(viewer.scope()), Partition::of_viewer(viewer)];
        Self(partitions.map(|partition| AnswerName::of(&(asked, partition))))
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[AnswerName; 3] {
        &self.0
    }

    /// That of an execution that has looked so far.
    pub(crate) fn at(&self, looked: Looked) -> AnswerName {
        self.0[looked as usize]
    }
}

impl AnswerCacheKey {
    /// The place for a request; none, if its answers are not kept.
    pub(crate) fn of(prepared: &Prepared, viewer: &Viewer, store: &Store) -> Option<Self> {
        let is_kept = store.cache().is_on() && prepared.document.is_trusted();
        if !is_kept || prepared.kind != OperationKind::Query {
            return None;
        }
        // As JSON: values of different types never look alike in it.
        let variables = serde_json::to_string(&prepared.variables).ok()?;
        let asked = (prepared.document.hash(), prepared.operation_name.as_deref(), variables);
        Some(Self { names: AnswerNames::of(&asked, viewer), began: store.cache().version() })
    }

    /// The answer, if there is one that is true.
    pub(crate) async fn find(&self, store: &Store) -> Option<Arc<CachedAnswer>> {
        store.answer(self.names.all()).await
    }

    /// Keeps an answer without errors, which lacks its closing brace, if it may be given again; its digest.
    pub(crate) fn keep(
        &self,
        ctx: &Context,
        recorder: &Recorder,
        body: &Chunks,
        cache: Option<CachePolicy>,
    ) -> Option<[u8; 16]> {
        if body.len() > LONGEST {
            return None;
        }
        let ttl = KEPT.ttl.min(ctx.is_true_for());
        let dependencies =
            recorder.dependencies().filter(|dependencies| dependencies.is_complete() && !ttl.is_zero())?;
        let name = self.names.at(ctx.viewer().looked());
        let digest = digest(body.slices().chain([&b"}"[..]]));
        let answer = CachedAnswer { body: body.slices().flatten().copied().collect(), digest, cache };
        ctx.store().cache().insert_answer(
            name,
            Arc::new(answer),
            body.len(),
            Retention { ttl, ..KEPT },
            &dependencies,
            self.began,
        );
        Some(digest)
    }
}

impl CachedAnswer {
    /// The answer again; none where there is no memory for it now.
    pub(crate) fn reply(&self, bounds: &Bounds) -> Option<Reply> {
        let held = bounds.hold(self.body.len() + 1)?;
        let mut body = Vec::with_capacity(self.body.len() + 1);
        body.extend_from_slice(&self.body);
        body.push(b'}');
        Some(Reply {
            body: body.into(),
            held,
            operation: Some(OperationKind::Query),
            executed: true,
            cache_hits: 1,
            cache: self.cache,
            digest: Some(self.digest),
            ..Reply::default()
        })
    }
}

/// What stands for the bytes of an answer: others have another.
pub fn digest<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut start = [0; 16];
    start.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    start
}

/// Who gets the same answer.
#[derive(Serialize)]
enum Partition<'v> {
    Everybody,
    /// Administrators, and machines without a role: they may all read everything.
    Role(Option<Role>),
    Scope(Scope),
    Viewer(&'v UserId, Role, Option<SessionId>),
    Anonymous,
    Service,
}

impl<'v> Partition<'v> {
    fn of_scope(scope: Scope) -> Self {
        match scope {
            Scope::All => Self::Role(None),
            Scope::Of { role, .. } if scope.administers() => Self::Role(Some(role)),
            Scope::Of { .. } | Scope::Nothing => Self::Scope(scope),
        }
    }

    fn of_viewer(viewer: &'v Viewer) -> Self {
        match viewer {
            Viewer::Anonymous => Self::Anonymous,
            Viewer::User { id, role, session } => Self::Viewer(id, *role, *session),
            Viewer::Service => Self::Service,
        }
    }
}
