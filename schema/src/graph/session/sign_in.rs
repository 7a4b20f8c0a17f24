//! Getting in: signing up, signing in, and going on with a refresh token. Each answers with tokens or says why not, and
//! is read by the one who has just been let in. Not here: checking passwords (`credentials`), tokens (`token` and the
//! crate `entities`).

use std::{sync::LazyLock, time::Instant};

use async_graphql::InputObject;
use entities::{
    Role,
    auth::password::Verdict,
    clock::Time,
    id::{SessionId, UserId},
    session::{self, Device, Grant, Refreshed},
    user::{self, AccountRef, NewAccount},
};
use futures_util::FutureExt as _;

use super::mutation::session_name;
use crate::{
    auth::viewer::Viewer,
    context::{ContextExt as _, Database},
    graph::{
        credentials,
        edges::Edges as _,
        mutation::{Input, MutationField, MutationResult, Needs, Payload, Written},
        subgraph::Domain,
        user_error::{UserError, UserErrorCode, UserErrors},
    },
};
use engine::{
    batch::Source as _,
    context::Context,
    error::FieldError,
    object::{Entity, Object},
};

/// The mutations of this file.
pub(crate) fn fields() -> Vec<MutationField> {
    vec![
        MutationField::new(
            "signUp",
            "Makes an account that reads, and signs in to it, where the server lets people do that. Whether \
             an e-mail belongs to an account can be told from the answer. One such field in a document.",
            Needs::Nothing,
            |input, ctx| sign_up(input, ctx).boxed(),
        )
        .alone(),
        MutationField::new(
            "signIn",
            "Begins a session. Whether an e-mail belongs to an account cannot be told from the answer. One \
             such field in a document.",
            Needs::Nothing,
            |input, ctx| sign_in(input, ctx).boxed(),
        )
        .alone(),
        MutationField::new(
            "refreshSession",
            "Exchanges a refresh token for the next one and a new access token. An access token that has \
             ended may be sent along. A token that is used again gets the newest one, if it was exchanged \
             less than ten seconds ago; later, its use ends the session. One such field in a document.",
            Needs::Nothing,
            |input, ctx| refresh(input, ctx).boxed(),
        )
        .alone(),
    ]
}

/// Characters of a user agent that are kept.
const MAX_AGENT_CHARS: usize = 300;

/// A new account of one's own.
#[derive(InputObject)]
pub(crate) struct SignUpInput {
    /// Nobody else's. Case does not count.
    email: String,
    /// 8 to 256 bytes, and not one that everybody uses.
    password: String,
    /// The name that others see, at most 100 characters.
    display_name: String,
}

/// The account and its password.
#[derive(InputObject)]
pub(crate) struct SignInInput {
    /// The account's e-mail. Case does not count.
    email: String,
    /// The account's password.
    password: String,
    /// A name for the session, such as "Work phone"; at most 100 characters.
    session_name: Option<String>,
}

/// The refresh token to exchange.
#[derive(InputObject)]
pub(crate) struct RefreshSessionInput {
    /// The newest refresh token of the session.
    refresh_token: String,
}

/// The answer of `signUp`, `signIn` and `refreshSession`.
#[derive(Clone, Default)]
pub(crate) struct SignInPayload {
    access_token: Option<String>,
    refresh_token: Option<String>,
    access_token_expires_at: Option<Time>,
    session: Option<SessionId>,
    user: Option<UserId>,
    errors: Vec<UserError>,
}

/// It has tokens, which are kept nowhere.
impl Payload for SignInPayload {}

impl Entity for SignInPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<SignInPayload>> = LazyLock::new(|| {
            let about =
                "The answer of `signUp`, `signIn` and `refreshSession`: tokens, or why they were refused.";
            Object::<SignInPayload>::new("SignInPayload", about)
                .of(Domain::Sessions)
                .column(
                    "accessToken",
                    "Sent as `authorization: Bearer …`; good for some minutes.",
                    |payload| &payload.access_token,
                )
                .column(
                    "refreshToken",
                    "Exchanged for the next tokens by `refreshSession`. Keep it secret.",
                    |payload| &payload.refresh_token,
                )
                .column("accessTokenExpiresAt", "When the access token ends.", |payload| {
                    &payload.access_token_expires_at
                })
                .written("session", "The session.", |payload| payload.session)
                .written("user", "The account.", |payload| payload.user)
                .edge(
                    "userErrors",
                    "Why it was refused.",
                    UserErrors::new(|payload: &SignInPayload| &payload.errors),
                )
        });
        &OBJECT
    }
}

/// `Mutation.signUp`
async fn sign_up(Input(input): Input<SignUpInput>, ctx: &Context) -> MutationResult<SignInPayload> {
    credentials::throttle(ctx)?;
    if !ctx.access().options().sign_up {
        return Ok(refused(UserError::new(
            UserErrorCode::NotAllowed,
            &["input"],
            "Accounts are made by administrators.",
        )));
    }
    let (email, name) =
        match (credentials::email(&input.email), credentials::display_name(&input.display_name)) {
            (Ok(email), Ok(name)) => (email, name),
            (email, name) => {
                return Ok(refused_for(email.err().into_iter().chain(name.err()).collect()));
            }
        };
    if let Some(error) = credentials::unfit(&input.password, &[&email, &name], "password") {
        return Ok(refused(error));
    }
    let hash = credentials::hash(ctx, &input.password).await?;
    let new =
        NewAccount { email: &email, display_name: &name, role: Role::Viewer, password_hash: Some(&hash) };
    let made = user::sign_up(ctx.store(), &ctx.access().options().secret, new, device(ctx, None)).await;
    match made.map_err(|error| Database::field_error(&error, "user.sign_up"))? {
        Some(grant) => granted(ctx, grant),
        None => Ok(refused(UserError::new(
            UserErrorCode::AlreadyExists,
            &["input", "email"],
            "An account with this e-mail exists already.",
        ))),
    }
}

/// `Mutation.signIn`
async fn sign_in(Input(input): Input<SignInInput>, ctx: &Context) -> MutationResult<SignInPayload> {
    credentials::throttle(ctx)?;
    let name = match session_name(input.session_name.as_deref(), "sessionName") {
        Ok(name) => name,
        Err(error) => return Ok(refused(error)),
    };
    let email = input.email.trim().to_lowercase();
    let attempt = credentials::throttle_account(ctx, &email)?;
    let failed = |error: &entities::Error| Database::field_error(error, "session.sign_in");
    let account =
        user::credentials(ctx.store(), AccountRef::Email(&email)).await.map_err(|error| failed(&error))?;
    let verdict = credentials::check(ctx, attempt, account.as_ref(), &input.password).await?;
    let (Some(account), Verdict::Right | Verdict::RightButOutdated) = (account, verdict) else {
        return Ok(refused(wrong()));
    };
    let rehashed = match verdict {
        // Where there is no time for it now, it is renewed at another sign-in.
        Verdict::RightButOutdated => credentials::hash(ctx, &input.password).await.ok(),
        _ => None,
    };
    let (secret, who) = (&ctx.access().options().secret, (account.user, account.epoch));
    let begun =
        session::begin(ctx.store(), secret, who, rehashed.as_deref(), device(ctx, name.as_deref())).await;
    match begun.map_err(|error| failed(&error))? {
        Some(grant) => granted(ctx, grant),
        None => Ok(refused(wrong())),
    }
}

/// `Mutation.refreshSession`
async fn refresh(Input(input): Input<RefreshSessionInput>, ctx: &Context) -> MutationResult<SignInPayload> {
    let invalid = (UserErrorCode::Invalid, "Invalid refresh token.");
    let (code, message) = match session::named_by(&input.refresh_token) {
        None => invalid,
        Some(named) => {
            let exchange = ctx.access().throttle().try_refresh(named, Instant::now());
            let exchange = exchange.map_err(credentials::rate_limited)?;
            let secret = &ctx.access().options().secret;
            let refreshed = session::refresh(ctx.store(), secret, &input.refresh_token).await;
            match refreshed.map_err(|error| Database::field_error(&error, "session.refresh"))? {
                Refreshed::Granted(grant) => return granted(ctx, grant),
                Refreshed::Repeated(grant) => {
                    exchange.was_repeated();
                    return granted(ctx, grant);
                }
                Refreshed::Ended => (UserErrorCode::Expired, "This session has ended; sign in again."),
                Refreshed::Unknown => {
                    exchange.was_forged();
                    invalid
                }
            }
        }
    };
    Ok(refused(UserError::new(code, &["input", "refreshToken"], message)))
}

/// What a failed sign-in is answered, whether the e-mail is unknown, the password wrong, the account blocked
/// or without a password.
fn wrong() -> UserError {
    UserError::new(UserErrorCode::InvalidCredentials, &["input"], "Wrong e-mail or password.")
}

fn refused(error: UserError) -> Written<SignInPayload> {
    refused_for(vec![error])
}

fn refused_for(errors: Vec<UserError>) -> Written<SignInPayload> {
    SignInPayload { errors, ..SignInPayload::default() }.into()
}

fn granted(ctx: &Context, grant: Grant) -> MutationResult<SignInPayload> {
    let (access_token, expires_at) = ctx
        .access()
        .mint(&grant)
        .map_err(|error| FieldError::internal_by(format_args!("an access token cannot be made: {error}")))?;
    let viewer = Viewer::User { id: grant.user, role: grant.role, session: Some(grant.session) };
    let payload = SignInPayload {
        access_token: Some(access_token),
        refresh_token: Some(grant.refresh_token),
        access_token_expires_at: Some(expires_at),
        session: Some(grant.session),
        user: Some(grant.user),
        errors: Vec::new(),
    };
    Ok(Written { payload, viewer: Some(viewer) })
}

fn device<'a>(ctx: &'a Context, name: Option<&'a str>) -> Device<'a> {
    let agent =
        ctx.caller().user_agent.as_deref().map(|agent| match agent.char_indices().nth(MAX_AGENT_CHARS) {
            Some((end, _)) => &agent[..end],
            None => agent,
        });
    Device { name, address: ctx.caller().client_address(), user_agent: agent }
}
