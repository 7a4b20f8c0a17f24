//! Accounts are made and changed: sign-up, by administrators, by their owners. What takes rights away (a role, a block,
//! a password) moves the account's epoch on, so that tokens from before are refused everywhere. Not here: checking
//! passwords, who may do what (the crate `schema`).

use sea_orm::{
    ActiveValue::Unchanged,
    QueryOrder as _, QuerySelect as _, Set,
    entity::prelude::*,
    sea_query::{ExprTrait as _, LikeExpr, OnConflict},
};

use crate::{
    activity::{Action, ActivityEntry},
    auth::{revocation::Revocation, secret::Secret},
    clock,
    database::sql::{ESCAPE, Hidden, containing, is_storable},
    error::Error,
    events::ChangeEvent,
    id::{NodeKind, SessionId, UserId},
    session::{Device, EndReason, Grant, Which, begin, end},
    store::{Store, transaction::Transaction},
    unicode,
};
use {
    super::{ActiveModel, Column, Entity, Model, Row, is_erased},
    crate::database::role::Role,
};

/// What signing in needs to know of an account. Not for showing.
#[derive(Clone)]
pub struct Credentials {
    /// The account.
    pub user: UserId,
    /// False once blocked.
    pub is_active: bool,
    /// The role now.
    pub role: Role,
    /// The epoch of its rights.
    pub epoch: i64,
    /// What others know of it: e-mail and name.
    pub known: [String; 2],
    /// The hash of its password, if it has one.
    pub password_hash: Option<String>,
}

/// Names one account.
#[derive(Clone, Copy, Debug)]
pub enum AccountRef<'a> {
    /// By id.
    Id(UserId),
    /// By e-mail, in lower case.
    Email(&'a str),
}

/// What signing in needs to know of an account, if there is one.
///
/// # Errors
/// The database's.
pub async fn credentials(store: &Store, which: AccountRef<'_>) -> Result<Option<Credentials>, Error> {
    let find = match which {
        AccountRef::Id(id) => Entity::find_by_id(id),
        AccountRef::Email(email) => {
            Entity::find().filter(Column::Email.is_in(is_storable(email).then_some(email)))
        }
    };
    let found: Option<Model> = store.one("user.credentials", find).await?;
    Ok(found.map(|account| Credentials {
        user: account.id,
        is_active: account.is_active,
        role: account.role,
        epoch: account.epoch,
        known: [account.email, account.display_name],
        password_hash: account.password_hash.map(|hash| hash.0),
    }))
}

/// Which accounts an operator wants to see.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountFilter<'a> {
    /// Those with this role.
    pub role: Option<Role>,
    /// Those that are blocked, or those that are not.
    pub is_active: Option<bool>,
    /// Those with this text in their e-mail or in their name, in small or capital letters.
    pub search: Option<&'a str>,
}

/// Accounts, the newest first, so many at most.
///
/// # Errors
/// The database's.
pub async fn list(store: &Store, filter: AccountFilter<'_>, most: u64) -> Result<Vec<Row>, Error> {
    let AccountFilter { role, is_active, search } = filter;
    let mut find = Entity::find();
    if let Some(role) = role {
        find = find.filter(Column::Role.eq(role));
    }
    if let Some(is_active) = is_active {
        find = find.filter(Column::IsActive.eq(is_active));
    }
    if let Some(search) = search {
        // PostgreSQL stores no NUL, and refuses to look for one.
        if !is_storable(search) {
            return Ok(Vec::new());
        }
        let (name, email) = (unicode::searched(search), search.to_lowercase());
        let has = |column: Column, text: &str| column.like(LikeExpr::new(containing(text)).escape(ESCAPE));
        find = find.filter(has(Column::SearchName, &name).or(has(Column::Email, &email)));
    }
    let newest = find.order_by_desc(Column::CreatedAt).order_by_desc(Column::Id).limit(most);
    store.database().all("user.listed", newest).await
}

/// An account to be made.
#[derive(Clone, Copy)]
pub struct NewAccount<'a> {
    /// In lower case; nobody else's.
    pub email: &'a str,
    /// The name that others see.
    pub display_name: &'a str,
    /// What it may do.
    pub role: Role,
    /// The hash of its password. Without one nobody can sign in to it.
    pub password_hash: Option<&'a str>,
}

/// Makes an account. `None`: the e-mail belongs to another. No `actor`: the operator did it.
///
/// # Errors
/// The database's.
pub async fn create(
    store: &Store,
    actor: Option<UserId>,
    new: NewAccount<'_>,
) -> Result<Option<UserId>, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let Some(user) = insert(&mut transaction, new).await? else { return Ok(None) };
    let metadata = serde_json::json!({ "role": new.role.as_str() });
    transaction.commit(entry(actor, Action::UserCreate, user, metadata)).await?;
    Ok(Some(user))
}

/// Makes an account and its first session. `None`: the e-mail belongs to another.
///
/// # Errors
/// The database's.
pub async fn sign_up(
    store: &Store,
    secret: &Secret,
    new: NewAccount<'_>,
    device: Device<'_>,
) -> Result<Option<Grant>, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let Some(user) = insert(&mut transaction, new).await? else { return Ok(None) };
    let grant = begin::open(&mut transaction, secret, (user, new.role, 0), device).await?;
    transaction.commit(entry(Some(user), Action::UserSignUp, user, serde_json::json!({}))).await?;
    Ok(Some(grant))
}

async fn insert(transaction: &mut Transaction, new: NewAccount<'_>) -> Result<Option<UserId>, Error> {
    let (user, now) = (UserId::new(), clock::now());
    let account = ActiveModel {
        id: Set(user),
        email: Set(new.email.to_owned()),
        display_name: Set(new.display_name.to_owned()),
        search_name: Set(unicode::searched(new.display_name)),
        role: Set(new.role),
        is_active: Set(true),
        password_hash: Set(new.password_hash.map(hidden)),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    };
    let unless_taken = OnConflict::column(Column::Email).do_nothing().to_owned();
    let insert = Entity::insert(account).on_conflict(unless_taken);
    if transaction.write("user.insert", Entity, &insert).await? == 0 {
        return Ok(None);
    }
    transaction.changed(ChangeEvent::User { id: user });
    Ok(Some(user))
}

/// What changes in an account; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountChanges<'a> {
    /// The name that others see.
    pub display_name: Option<&'a str>,
    /// What it may do.
    pub role: Option<Role>,
    /// False blocks it.
    pub is_active: Option<bool>,
}

/// Changes an account. `false`: there is none, or it was erased. Another role or a block ends the good of all tokens
/// from before; a block ends its sessions as well.
///
/// # Errors
/// The database's.
pub async fn update(
    store: &Store,
    actor: Option<UserId>,
    user: UserId,
    changes: AccountChanges<'_>,
) -> Result<bool, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let found = transaction.one("user.lock", Entity::find_by_id(user).lock_exclusive()).await?;
    let Some(Model { role, is_active, epoch, email, .. }) = found else { return Ok(false) };
    if is_erased(user, &email) {
        return Ok(false);
    }
    let blocks = is_active && changes.is_active == Some(false);
    let other_role = changes.role.is_some_and(|new| new != role);
    let mut account =
        ActiveModel { id: Unchanged(user), updated_at: Set(clock::now()), ..Default::default() };
    if let Some(name) = changes.display_name {
        account.display_name = Set(name.to_owned());
        account.search_name = Set(unicode::searched(name));
    }
    if let Some(role) = changes.role {
        account.role = Set(role);
    }
    if let Some(is_active) = changes.is_active {
        account.is_active = Set(is_active);
    }
    if blocks || other_role {
        account.epoch = Set(epoch + 1);
        transaction.revoke(Revocation::Rights { user, epoch: epoch + 1 });
    }
    transaction.update("user.update", account).await?;
    if blocks {
        end_all_but(&mut transaction, user, None, EndReason::RevokedByAdmin).await?;
    }
    transaction.changed(ChangeEvent::User { id: user });
    let metadata = serde_json::json!({
        "displayName": changes.display_name.is_some(), "role": changes.role.map(Role::as_str),
        "isActive": changes.is_active,
    });
    transaction.commit(entry(actor, Action::UserUpdate, user, metadata)).await?;
    Ok(true)
}

/// Gives an account another password and ends all its sessions but `keep`, whose access token has to be refreshed.
/// `false`: the account was blocked, or its rights changed, since `epoch` was read. No `actor`: the operator did it.
///
/// # Errors
/// The database's.
pub async fn change_password(
    store: &Store,
    actor: Option<UserId>,
    (user, epoch): (UserId, i64),
    password_hash: &str,
    keep: Option<SessionId>,
) -> Result<bool, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let changed = ActiveModel {
        password_hash: Set(Some(hidden(password_hash))),
        epoch: Set(epoch + 1),
        updated_at: Set(clock::now()),
        ..Default::default()
    };
    let update = Entity::update_many()
        .set(changed)
        .filter(Column::IsActive.into_expr())
        .filter(Column::Id.eq(user))
        .filter(Column::Epoch.eq(epoch));
    if transaction.write("user.change_password", Entity, &update).await? == 0 {
        return Ok(false);
    }
    transaction.revoke(Revocation::Rights { user, epoch: epoch + 1 });
    end_all_but(&mut transaction, user, keep, EndReason::CredentialsChanged).await?;
    transaction.changed(ChangeEvent::User { id: user });
    transaction.commit(entry(actor, Action::UserChangePassword, user, serde_json::json!({}))).await?;
    Ok(true)
}

/// Gives accounts that have no password this one: the demo accounts, in development.
///
/// # Errors
/// The database's.
pub async fn give_password(store: &Store, users: &[UserId], password_hash: &str) -> Result<(), Error> {
    let transaction = Transaction::begin(store).await?;
    let given = ActiveModel { password_hash: Set(Some(hidden(password_hash))), ..Default::default() };
    // One that is blocked may have been erased.
    let update = Entity::update_many()
        .set(given)
        .filter(Column::IsActive.into_expr())
        .filter(Column::PasswordHash.is_null())
        .filter(transaction.is_any(Column::Id, users));
    transaction.write("user.give_password", Entity, &update).await?;
    transaction.commit_unlogged().await
}

fn hidden(password_hash: &str) -> Hidden {
    Hidden(password_hash.to_owned())
}

pub(super) async fn end_all_but(
    transaction: &mut Transaction,
    user: UserId,
    keep: Option<SessionId>,
    reason: EndReason,
) -> Result<(), Error> {
    let live = end::live(transaction, user, Which::AllBut(keep)).await?;
    end::end(transaction, user, &live, reason).await.map(drop)
}

fn entry(actor: Option<UserId>, action: Action, user: UserId, metadata: serde_json::Value) -> ActivityEntry {
    ActivityEntry { user: actor, action, subject: Some((NodeKind::User, user.0)), metadata }
}
