//! Writing sessions: renaming and ending them. Not here: how they begin (`sign_in`).

use std::sync::LazyLock;

use async_graphql::{ID, InputObject};
use entities::{
    id::{SessionId, UserId},
    idempotency::Stored,
    session::{self, EndReason, Which},
    unicode,
};
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::Session;
use crate::{
    context::{ContextExt as _, Database},
    graph::{
        edges::Edges as _,
        input::id,
        mutation::{Again, Input, MutationField, MutationResult, Needs, Payload, Written},
        subgraph::Domain,
        user_error::{UserError, UserErrorCode, UserErrors, is_one_line},
    },
};
use engine::{
    batch::Source as _,
    context::Context,
    edge::{Inline, NoArguments},
    error::FieldError,
    object::{Entity, Object, Visible as _},
};

/// The mutations of this file.
pub(crate) fn fields() -> Vec<MutationField> {
    vec![
        MutationField::new("signOut", "Ends the session that is asking.", Needs::Account, |input, ctx| {
            sign_out(input, ctx).boxed()
        })
        .again(Again::Once),
        MutationField::new(
            "revokeSession",
            "Ends a session; its tokens are refused from now on.",
            Needs::Account,
            |input, ctx| revoke(input, ctx).boxed(),
        )
        .again(Again::Once),
        MutationField::new(
            "revokeAllSessions",
            "Ends all sessions of an account.",
            Needs::Account,
            |input, ctx| revoke_all(input, ctx).boxed(),
        )
        .again(Again::Once),
        MutationField::new(
            "renameSession",
            "Gives one of the caller's own sessions another name, or takes the name away.",
            Needs::Account,
            |input, ctx| rename(input, ctx).boxed(),
        )
        .again(Again::Once),
    ]
}

/// A payload of one session.
macro_rules! session_payload {
    ($payload:ident, $name:literal, $mutation:literal, $null:literal, $errors:literal) => {
        #[doc = concat!("The answer of `", $mutation, "`.")]
        #[derive(Clone)]
        pub(crate) struct $payload {
            session: Option<SessionId>,
            errors: Vec<UserError>,
        }

        impl $payload {
            fn done(session: SessionId) -> Written<Self> {
                Self { session: Some(session), errors: Vec::new() }.into()
            }

            fn refused(error: UserError) -> Written<Self> {
                Self { session: None, errors: vec![error] }.into()
            }
        }

        impl Payload for $payload {
            fn of_stored(stored: &Stored) -> Option<Self> {
                Some(Self::done(SessionId(stored.subject?)).payload)
            }
        }

        impl Entity for $payload {
            fn object() -> &'static Object<Self> {
                static OBJECT: LazyLock<Object<$payload>> = LazyLock::new(|| {
                    Object::<$payload>::new($name, concat!("The answer of `", $mutation, "`."))
                        .of(Domain::Sessions)
                        .written("session", concat!("The session. ", $null), |payload| payload.session)
                        .edge("userErrors", $errors, UserErrors::new(|payload: &$payload| &payload.errors))
                });
                &OBJECT
            }
        }
    };
}

session_payload!(
    RenameSessionPayload,
    "RenameSessionPayload",
    "renameSession",
    "Null where it was not renamed.",
    "Why it was not renamed."
);
session_payload!(
    RevokeSessionPayload,
    "RevokeSessionPayload",
    "revokeSession",
    "Null where it does not exist.",
    "Why it was not ended."
);
session_payload!(
    SignOutPayload,
    "SignOutPayload",
    "signOut",
    "Null where the token does not belong to a session.",
    "Why nothing was ended."
);

/// Another name for a session.
#[derive(InputObject)]
pub(crate) struct RenameSessionInput {
    /// One of the caller's own sessions.
    id: ID,
    /// At most 100 characters. Null, or a blank one, takes the name away.
    name: Option<String>,
}

/// Characters of a session's name at most.
const MAX_NAME_CHARS: usize = 100;

/// A session's name in the form in which it is stored; a blank one is none.
pub(super) fn session_name(name: Option<&str>, at: &'static str) -> Result<Option<String>, UserError> {
    let Some(name) = name.map(str::trim).filter(|name| !unicode::is_blank(name)) else { return Ok(None) };
    let name = unicode::composed(name);
    let (code, message) = if name.chars().count() > MAX_NAME_CHARS {
        (UserErrorCode::TooLarge, "A session's name has at most 100 characters.")
    } else if !is_one_line(&name) {
        (UserErrorCode::Invalid, "A session's name is one line of text without invisible characters.")
    } else {
        return Ok(Some(name.into_owned()));
    };
    Err(UserError::new(code, &["input", at], message))
}

fn no_such_session() -> UserError {
    UserError::new(UserErrorCode::NotFound, &["input", "id"], "Session not found.")
}

fn failed(error: &entities::Error) -> FieldError {
    Database::field_error(error, "session.write")
}

/// `Mutation.renameSession`
async fn rename(
    Input(input): Input<RenameSessionInput>,
    ctx: &Context,
) -> MutationResult<RenameSessionPayload> {
    let (user, id) = (ctx.user()?, id("input.id", &input.id, SessionId::parse)?);
    let name = match session_name(input.name.as_deref(), "name") {
        Ok(name) => name,
        Err(error) => return Ok(RenameSessionPayload::refused(error)),
    };
    let renamed = session::rename(ctx.store(), user, id, name.as_deref()).await;
    Ok(if renamed.map_err(|error| failed(&error))? {
        RenameSessionPayload::done(id)
    } else {
        RenameSessionPayload::refused(no_such_session())
    })
}

/// `Mutation.signOut`
async fn sign_out(_: NoArguments, ctx: &Context) -> MutationResult<SignOutPayload> {
    let user = ctx.user()?;
    let Some(id) = ctx.viewer().session_id() else {
        let error = UserError::new(
            UserErrorCode::NotFound,
            &[],
            "Session not found: this token does not belong to one.",
        );
        return Ok(SignOutPayload::refused(error));
    };
    end(ctx, user, Which::One(id), EndReason::SignedOut).await?;
    Ok(SignOutPayload::done(id))
}

/// Which session to end.
#[derive(InputObject)]
pub(crate) struct RevokeSessionInput {
    /// One of the caller's own sessions; administrators may name anybody's.
    id: ID,
}

/// `Mutation.revokeSession`
async fn revoke(
    Input(input): Input<RevokeSessionInput>,
    ctx: &Context,
) -> MutationResult<RevokeSessionPayload> {
    ctx.user()?;
    let id = id("input.id", &input.id, SessionId::parse)?;
    let found = session::by_ids(ctx.store(), &[id]).await.map_err(|error| failed(&error))?;
    let Some(row) = found.get(&id).filter(|row| row.is_visible_to(&ctx.scope())) else {
        return Ok(RevokeSessionPayload::refused(no_such_session()));
    };
    end(ctx, row.user_id, Which::One(id), reason(ctx, row.user_id)).await?;
    Ok(RevokeSessionPayload::done(id))
}

/// Whose sessions to end.
#[derive(InputObject)]
pub(crate) struct RevokeAllSessionsInput {
    /// Whose; the caller's own by default. Others' are for administrators.
    user_id: Option<ID>,
    /// The session that is asking goes on.
    #[graphql(default = true)]
    except_current: bool,
}

/// The answer of `revokeAllSessions`.
#[derive(Clone)]
pub(crate) struct RevokeAllSessionsPayload {
    sessions: Vec<Session>,
    errors: Vec<UserError>,
}

/// It shows sessions, which are read anew.
impl Payload for RevokeAllSessionsPayload {}

impl Entity for RevokeAllSessionsPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<RevokeAllSessionsPayload>> = LazyLock::new(|| {
            let about = "The answer of `revokeAllSessions`.";
            Object::<RevokeAllSessionsPayload>::new("RevokeAllSessionsPayload", about)
                .of(Domain::Sessions)
                .edge(
                    "sessions",
                    "The sessions that were ended, newest first.",
                    Inline::new(|payload: &RevokeAllSessionsPayload| &payload.sessions),
                )
                .edge(
                    "userErrors",
                    "Why they were not ended.",
                    UserErrors::new(|payload: &RevokeAllSessionsPayload| &payload.errors),
                )
        });
        &OBJECT
    }
}

/// `Mutation.revokeAllSessions`
async fn revoke_all(
    Input(input): Input<RevokeAllSessionsInput>,
    ctx: &Context,
) -> MutationResult<RevokeAllSessionsPayload> {
    let actor = ctx.user()?;
    let owner = match &input.user_id {
        Some(owner) => id("input.userId", owner, UserId::parse)?,
        None => actor,
    };
    if owner != actor && !ctx.scope().administers() {
        let message = "Ending other people's sessions is for administrators.";
        let error = UserError::new(UserErrorCode::NotAllowed, &["input", "userId"], message);
        return Ok(RevokeAllSessionsPayload { sessions: Vec::new(), errors: vec![error] }.into());
    }
    let keep = ctx.viewer().session_id().filter(|_| input.except_current);
    let ended = match ctx.stored() {
        Some(stored) => serde_json::from_value::<Vec<Uuid>>(stored.result.clone())
            .map(|ids| ids.into_iter().map(SessionId).collect())
            .map_err(FieldError::internal_by)?,
        None => end(ctx, owner, Which::AllBut(keep), reason(ctx, owner)).await?,
    };
    let mut rows = session::by_ids(ctx.store(), &ended).await.map_err(|error| failed(&error))?;
    let sessions = ended.iter().filter_map(|id| Session::visible_to(ctx, rows.remove(id)?)).collect();
    Ok(RevokeAllSessionsPayload { sessions, errors: Vec::new() }.into())
}

async fn end(
    ctx: &Context,
    owner: UserId,
    which: Which,
    reason: EndReason,
) -> Result<Vec<SessionId>, FieldError> {
    session::revoke(ctx.store(), ctx.user()?, owner, which, reason).await.map_err(|error| failed(&error))
}

fn reason(ctx: &Context, owner: UserId) -> EndReason {
    if ctx.viewer().user_id() == Some(owner) { EndReason::RevokedByUser } else { EndReason::RevokedByAdmin }
}
