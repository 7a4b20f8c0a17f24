//! Writing accounts: by their owners and by administrators. Not here: signing up (`session::sign_in`).

use std::sync::LazyLock;

use async_graphql::{ID, InputObject};
use entities::{
    auth::password::Verdict,
    id::UserId,
    idempotency::Stored,
    user::{self, AccountChanges, AccountRef, NewAccount},
};
use futures_util::FutureExt as _;

use super::Role;
use crate::{
    auth::viewer::Grant,
    context::{ContextExt as _, Database},
    graph::{
        credentials,
        edges::Edges as _,
        input::id,
        mutation::{Again, Input, MutationField, MutationResult, Needs, Payload, Written},
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
            "updateProfile",
            "Changes what others see of the caller's account.",
            Needs::Account,
            |input, ctx| update_profile(input, ctx).boxed(),
        )
        .again(Again::Once),
        MutationField::new(
            "changePassword",
            "Gives the caller's account another password and ends all its other sessions. Access tokens from \
             before are refused: refresh the session afterwards.",
            Needs::Account,
            |input, ctx| change_password(input, ctx).boxed(),
        ),
        MutationField::new(
            "createUser",
            "Makes an account. For administrators.",
            Needs::Granted(Grant::WriteAccounts),
            |input, ctx| create(input, ctx).boxed(),
        ),
        MutationField::new(
            "updateUser",
            "Changes an account. Another role or a block takes effect at once; a block ends its sessions. \
             For administrators.",
            Needs::Granted(Grant::WriteAccounts),
            |input, ctx| update(input, ctx).boxed(),
        )
        .again(Again::Once),
    ]
}

/// What changes in the caller's own account; what is left out stays.
#[derive(InputObject)]
pub(crate) struct UpdateProfileInput {
    /// The name that others see, at most 100 characters.
    display_name: Option<String>,
}

/// Another password for the caller's own account.
#[derive(InputObject)]
pub(crate) struct ChangePasswordInput {
    /// The password until now.
    current_password: String,
    /// 8 to 256 bytes, and not one that everybody uses.
    new_password: String,
}

/// A new account for somebody else.
#[derive(InputObject)]
pub(crate) struct CreateUserInput {
    /// Nobody else's. Case does not count.
    email: String,
    /// The name that others see, at most 100 characters.
    display_name: String,
    /// What the account may do.
    role: Role,
    /// 8 to 256 bytes, and not one that everybody uses. Without one nobody can sign in to the account yet.
    password: Option<String>,
}

/// What changes in an account; what is left out stays.
#[derive(InputObject)]
pub(crate) struct UpdateUserInput {
    /// The account.
    id: ID,
    /// What it may do.
    role: Option<Role>,
    /// False blocks the account and ends its sessions.
    is_active: Option<bool>,
    /// The name that others see, at most 100 characters.
    display_name: Option<String>,
}

/// The answer of the mutations of an account.
#[derive(Clone)]
pub(crate) struct UpdateUserPayload {
    user: Option<UserId>,
    errors: Vec<UserError>,
}

impl Entity for UpdateUserPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<UpdateUserPayload>> = LazyLock::new(|| {
            let about = "The answer of `updateProfile`, `changePassword`, `createUser` and `updateUser`.";
            Object::<UpdateUserPayload>::new("UpdateUserPayload", about)
                .of(Domain::Users)
                .written("user", "The account. Null where nothing was written.", |payload| payload.user)
                .edge(
                    "userErrors",
                    "Why nothing was written.",
                    UserErrors::new(|payload: &UpdateUserPayload| &payload.errors),
                )
        });
        &OBJECT
    }
}

impl Payload for UpdateUserPayload {
    fn of_stored(stored: &Stored) -> Option<Self> {
        Some(done(UserId(stored.subject?)).payload)
    }
}

fn done(user: UserId) -> Written<UpdateUserPayload> {
    UpdateUserPayload { user: Some(user), errors: Vec::new() }.into()
}

fn refused(error: UserError) -> Written<UpdateUserPayload> {
    UpdateUserPayload { user: None, errors: vec![error] }.into()
}

fn failed(error: &entities::Error) -> FieldError {
    Database::field_error(error, "user.write")
}

fn no_such_account() -> UserError {
    UserError::new(UserErrorCode::NotFound, &["input", "id"], "Account not found.")
}

/// Changes an account; `None` in the changes is no change.
async fn change(
    ctx: &Context,
    actor: UserId,
    user: UserId,
    changes: AccountChanges<'_>,
) -> MutationResult<UpdateUserPayload> {
    let found =
        user::update(ctx.store(), Some(actor), user, changes).await.map_err(|error| failed(&error))?;
    Ok(if found { done(user) } else { refused(no_such_account()) })
}

/// `Mutation.updateProfile`
async fn update_profile(
    Input(input): Input<UpdateProfileInput>,
    ctx: &Context,
) -> MutationResult<UpdateUserPayload> {
    let user = ctx.user()?;
    let display_name = match input.display_name.as_deref().map(credentials::display_name).transpose() {
        Ok(name) => name,
        Err(error) => return Ok(refused(error)),
    };
    change(
        ctx,
        user,
        user,
        AccountChanges { display_name: display_name.as_deref(), ..AccountChanges::default() },
    )
    .await
}

/// `Mutation.changePassword`
async fn change_password(
    Input(input): Input<ChangePasswordInput>,
    ctx: &Context,
) -> MutationResult<UpdateUserPayload> {
    let user = ctx.user()?;
    credentials::throttle(ctx)?;
    let account =
        user::credentials(ctx.store(), AccountRef::Id(user)).await.map_err(|error| failed(&error))?;
    let Some(account) = account else { return Err(FieldError::unauthenticated()) };
    let [email, name] = &account.known;
    let attempt = credentials::throttle_account(ctx, email)?;
    let wrong = || {
        let at = ["input", "currentPassword"];
        refused(UserError::new(UserErrorCode::InvalidCredentials, &at, "This is not the current password."))
    };
    if credentials::check(ctx, attempt, Some(&account), &input.current_password).await? == Verdict::Wrong {
        return Ok(wrong());
    }
    if let Some(error) = credentials::unfit(&input.new_password, &[email, name], "newPassword") {
        return Ok(refused(error));
    }
    let hash = credentials::hash(ctx, &input.new_password).await?;
    let (who, keep) = ((user, account.epoch), ctx.viewer().session_id());
    let changed = user::change_password(ctx.store(), Some(user), who, &hash, keep)
        .await
        .map_err(|error| failed(&error))?;
    Ok(if changed { done(user) } else { wrong() })
}

/// `Mutation.createUser`
async fn create(Input(input): Input<CreateUserInput>, ctx: &Context) -> MutationResult<UpdateUserPayload> {
    let actor = ctx.user()?;
    let (email, name) =
        match (credentials::email(&input.email), credentials::display_name(&input.display_name)) {
            (Ok(email), Ok(name)) => (email, name),
            (Err(error), _) | (_, Err(error)) => return Ok(refused(error)),
        };
    let mut hash = None;
    if let Some(password) = &input.password {
        if let Some(error) = credentials::unfit(password, &[&email, &name], "password") {
            return Ok(refused(error));
        }
        hash = Some(credentials::hash(ctx, password).await?);
    }
    let new = NewAccount {
        email: &email,
        display_name: &name,
        role: input.role.into(),
        password_hash: hash.as_deref(),
    };
    Ok(match user::create(ctx.store(), Some(actor), new).await.map_err(|error| failed(&error))? {
        Some(user) => done(user),
        None => refused(UserError::new(
            UserErrorCode::AlreadyExists,
            &["input", "email"],
            "An account with this e-mail exists already.",
        )),
    })
}

/// `Mutation.updateUser`
async fn update(Input(input): Input<UpdateUserInput>, ctx: &Context) -> MutationResult<UpdateUserPayload> {
    let (actor, user) = (ctx.user()?, id("input.id", &input.id, UserId::parse)?);
    let display_name = match input.display_name.as_deref().map(credentials::display_name).transpose() {
        Ok(name) => name,
        Err(error) => return Ok(refused(error)),
    };
    let role = input.role.map(Into::into);
    // So that there is always an administrator left: the one who asks.
    let own = |at, message| refused(UserError::new(UserErrorCode::NotAllowed, &["input", at], message));
    if user == actor && role.is_some_and(|role| role != entities::Role::Admin) {
        return Ok(own("role", "Another administrator has to take this role away from you."));
    }
    if user == actor && input.is_active == Some(false) {
        return Ok(own("isActive", "Another administrator has to block you."));
    }
    let changes = AccountChanges { display_name: display_name.as_deref(), role, is_active: input.is_active };
    change(ctx, actor, user, changes).await
}
