//! Mutations with an idempotency key: which may have one, what is the same request, and what the same request
//! is answered. The name of a request is made of the account and its key, so that no account meets another's.
//! Not here: how it is made sure that each runs once (`entities::idempotency`).

use std::sync::Arc;

use entities::{
    Failure,
    id::UserId,
    idempotency::{self, Claim, Claimed, KeptAnswer, KeyedRequest},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use uuid::Uuid;

use super::Execution;
use crate::{
    auth::viewer::Viewer,
    context::Database,
    graph::mutation,
    request::{Prepared, Reply, rejected},
};
use engine::{
    batch::Source as _,
    document::OperationKind,
    error::{Code, FieldError, RequestError},
};

const ANONYMOUS: &str = "An Idempotency-Key is for callers who are signed in.";
const RUNNING: &str =
    "The same request is under way. Its answer is told when it is sent again a moment later.";
const MISMATCH: &str = "This Idempotency-Key was sent with another document, other variables or another \
                        `onError` before. Take a new key for each request.";
const NOT_CLAIMED: &str = "The database cannot be reached now. Nothing was executed; try again in a moment.";

/// Longer answers are not kept, bytes: what is stored is read anew for them.
const LONGEST: usize = 256 << 10;

/// What passes by itself: the same request is run again, but for what it has stored.
const PASSING: [Code; 6] = [
    Code::Unavailable,
    Code::Timeout,
    Code::OutcomeUnknown,
    Code::Overloaded,
    Code::RateLimited,
    Code::InternalServerError,
];

impl Execution<'_> {
    /// Claims a mutation that has a key. `None` for all others, which pay nothing for it: what claims has a
    /// place of its own.
    ///
    /// # Errors
    /// The answer: that of the same request before, or why this one does not run.
    pub(super) fn claim<'a>(
        &'a self,
        viewer: &'a Viewer,
        prepared: &'a Prepared,
    ) -> Option<BoxFuture<'a, Result<Arc<Claim>, Box<Reply>>>> {
        let key = self.request.idempotency_key.as_deref()?;
        let is_mutation = prepared.kind == OperationKind::Mutation;
        is_mutation.then(|| self.claim_as(key, viewer, prepared).boxed())
    }

    async fn claim_as(
        &self,
        key: &str,
        viewer: &Viewer,
        prepared: &Prepared,
    ) -> Result<Arc<Claim>, Box<Reply>> {
        let request_id = &self.request.caller.request_id;
        let refuse = |error| Box::new(rejected(Some(prepared.kind), &[error], request_id));
        let refuse_as = |code, message: &'static str| refuse(RequestError::new(code, message));
        let Some(account) = viewer.user_id() else {
            return Err(refuse_as(Code::BadUserInput, ANONYMOUS));
        };
        let root = &prepared.operation().selection_set.node;
        mutation::check_keyed(root, prepared.planner(), viewer).map_err(refuse)?;
        let request = self.keyed_request(account, key, prepared).map_err(refuse)?;
        let (store, lifetimes) = (&self.inner.store, self.inner.options.keyed_requests);
        match idempotency::claim(store.database(), &request, lifetimes).await {
            Ok(Claimed::ToRun(claim)) => Ok(claim),
            Ok(Claimed::Answered(kept)) => Err(Box::new(of_kept(kept))),
            Ok(Claimed::Running) => Err(refuse_as(Code::Conflict, RUNNING)),
            Ok(Claimed::Mismatch) => Err(refuse_as(Code::IdempotencyMismatch, MISMATCH)),
            Err(error) => Err(refuse(self.not_claimed(&error))),
        }
    }

    fn keyed_request(
        &self,
        account: UserId,
        key: &str,
        prepared: &Prepared,
    ) -> Result<KeyedRequest, RequestError> {
        let name = prepared.operation_name.as_deref();
        let asked = serde_json::to_vec(&(
            prepared.document.hash(),
            name,
            &prepared.variables,
            prepared.on_error.as_str(),
        ));
        // Variables came as JSON.
        let asked = asked.map_err(|error| RequestError::new(Code::BadUserInput, error.to_string()))?;
        let names = self.inner.access.options().secret.request_key();
        let mut id = [0; 16];
        id.copy_from_slice(&names.hash([&account.0.as_bytes()[..], key.as_bytes()]).as_bytes()[..16]);
        let fingerprint = names.hash([&id[..], &asked[..]]).to_hex().to_string();
        Ok(KeyedRequest { account, id: Uuid::from_bytes(id), fingerprint })
    }

    /// Nothing was executed, whatever the claim's own COMMIT came to.
    fn not_claimed(&self, error: &entities::Error) -> RequestError {
        let FieldError { cause, .. } = Database::field_error(error, "idempotency.claim");
        tracing::error!(
            request_id = &*self.request.caller.request_id,
            cause = cause.as_deref(),
            "a request with an idempotency key could not be claimed"
        );
        match error.failure() {
            Failure::Internal | Failure::Refused => {
                RequestError::new(Code::InternalServerError, "Internal server error")
            }
            _ => RequestError::new(Code::Unavailable, NOT_CLAIMED),
        }
    }
}

/// Keeps the answer of a request for the next time it comes, unless the next one may be better.
pub(super) async fn keep(claim: &Claim, reply: &Reply) {
    let passes = |code: &&str| PASSING.iter().any(|passing| passing.as_str() == *code);
    if !reply.executed || reply.codes.iter().any(passes) || reply.body.len() > LONGEST {
        return;
    }
    let bytes = reply.body.slices().flatten().copied().collect();
    let Ok(body) = String::from_utf8(bytes) else { return };
    let codes = reply.codes.iter().map(|code| (*code).to_owned()).collect();
    let answer = KeptAnswer { body, codes, cache_token: reply.cache_token.as_deref().map(ToOwned::to_owned) };
    if let Err(error) = claim.keep(answer).await {
        tracing::warn!(%error, "an answer to a request with an idempotency key could not be kept");
    }
}

fn of_kept(KeptAnswer { body, codes, cache_token }: KeptAnswer) -> Reply {
    let known =
        |kept: &String| Code::ALL.iter().map(|code| code.as_str()).find(|code| *code == kept.as_str());
    Reply {
        body: body.into_bytes().into(),
        operation: Some(OperationKind::Mutation),
        executed: true,
        codes: codes.iter().filter_map(known).collect(),
        cache_token: cache_token.map(Into::into),
        ..Reply::default()
    }
}
