//! Accounts are made and changed: sign-up, by administrators, by their owners. What takes rights away (a role, a block,
//! a password) moves the account's epoch on, so that tokens from before are refused everywhere. Not here: checking
//! passwords, who may do what (the front room).

use crate::{
    activity::{Action, Entry},
    auth::{revocation::Revocation, secret::Secret},
    clock,
    database::{
        kind::Kind,
        sql::{Record as _, Sql},
        transaction::Transaction,
    },
    error::Error,
    events::Change,
    id::{SessionId, UserId},
    session::{Device, EndReason, Grant, Which, begin, end},
    store::Store,
    unicode,
};
use {super::Model, crate::database::role::Role};

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
pub enum Named<'a> {
    /// By id.
    Id(UserId),
    /// By e-mail, in lower case.
    Email(&'a str),
}

/// What signing in needs to know of an account, if there is one.
///
/// # Errors
/// The database's.
pub async fn credentials(store: &Store, which: Named<'_>) -> Result<Option<Credentials>, Error> {
    let mut sql = store.sql();
    sql.push("SELECT t.id, t.is_active, t.role, t.epoch, t.email, t.display_name, t.password_hash FROM users t WHERE ");
    match which {
        Named::Id(id) => sql.push("t.id = ").bind(id),
        Named::Email(email) => sql.push("t.email").any_text(&[email]),
    };
    let found = store.fetch("user.credentials", Model::TABLE, sql, |cells| {
        let (user, is_active, role, epoch) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
        let known = [cells.next::<String>()?, cells.next::<String>()?];
        Ok(Credentials { user, is_active, role, epoch, known, password_hash: cells.next()? })
    });
    Ok(found.await?.pop())
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
    let mut sql = transaction.sql();
    sql.push("INSERT INTO users (id, email, display_name, search_name, role, is_active, password_hash, created_at, updated_at) VALUES (");
    sql.bind(user).push(", ").bind(new.email).push(", ").bind(new.display_name).push(", ");
    sql.bind(unicode::searched(new.display_name)).push(", ").bind(new.role.as_str()).push(", TRUE, ");
    sql.bind(new.password_hash.map(str::to_owned)).push(", ").bind(now).push(", ").bind(now);
    sql.push(") ON CONFLICT (email) DO NOTHING");
    if transaction.execute("user.insert", Model::TABLE, sql).await? == 0 {
        return Ok(None);
    }
    transaction.changed(Change::User { id: user });
    Ok(Some(user))
}

/// What changes in an account; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// The name that others see.
    pub display_name: Option<&'a str>,
    /// What it may do.
    pub role: Option<Role>,
    /// False blocks it.
    pub is_active: Option<bool>,
}

/// Changes an account. `false`: there is none. Another role or a block ends the good of all tokens from before; a block
/// ends its sessions as well.
///
/// # Errors
/// The database's.
pub async fn update(
    store: &Store,
    actor: Option<UserId>,
    user: UserId,
    changes: Changes<'_>,
) -> Result<bool, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let mut sql = transaction.sql();
    sql.push("SELECT t.role, t.is_active, t.epoch FROM users t WHERE t.id = ").bind(user).for_update("t");
    let found = transaction.fetch("user.lock", Model::TABLE, sql, |cells| {
        Ok((cells.next::<Role>()?, cells.next::<bool>()?, cells.next::<i64>()?))
    });
    let Some((role, is_active, epoch)) = found.await?.pop() else { return Ok(false) };
    let blocks = is_active && changes.is_active == Some(false);
    let other_role = changes.role.is_some_and(|new| new != role);
    let mut sql = set(&transaction);
    if let Some(name) = changes.display_name {
        sql.push(", display_name = ").bind(name).push(", search_name = ").bind(unicode::searched(name));
    }
    if let Some(role) = changes.role {
        sql.push(", role = ").bind(role.as_str());
    }
    if let Some(is_active) = changes.is_active {
        sql.push(", is_active = ").bind(is_active);
    }
    if blocks || other_role {
        sql.push(", epoch = ").bind(epoch + 1);
        transaction.revoke(Revocation::Rights { user, epoch: epoch + 1 });
    }
    sql.push(" WHERE id = ").bind(user);
    transaction.execute("user.update", Model::TABLE, sql).await?;
    if blocks {
        end_all_but(&mut transaction, user, None, EndReason::RevokedByAdmin).await?;
    }
    transaction.changed(Change::User { id: user });
    let metadata = serde_json::json!({
        "displayName": changes.display_name.is_some(), "role": changes.role.map(Role::as_str),
        "isActive": changes.is_active,
    });
    transaction.commit(entry(actor, Action::UserUpdate, user, metadata)).await?;
    Ok(true)
}

/// Gives an account another password and ends all its sessions but `keep`, whose access token has to be refreshed.
/// `false`: the account was blocked, or its rights changed, since `epoch` was read.
///
/// # Errors
/// The database's.
pub async fn change_password(
    store: &Store,
    (user, epoch): (UserId, i64),
    password_hash: &str,
    keep: Option<SessionId>,
) -> Result<bool, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let mut sql = set(&transaction);
    sql.push(", password_hash = ").bind(password_hash).push(", epoch = ").bind(epoch + 1);
    sql.push(" WHERE is_active AND id = ").bind(user).push(" AND epoch = ").bind(epoch);
    if transaction.execute("user.change_password", Model::TABLE, sql).await? == 0 {
        return Ok(false);
    }
    transaction.revoke(Revocation::Rights { user, epoch: epoch + 1 });
    end_all_but(&mut transaction, user, keep, EndReason::CredentialsChanged).await?;
    transaction.changed(Change::User { id: user });
    transaction.commit(entry(Some(user), Action::UserChangePassword, user, serde_json::json!({}))).await?;
    Ok(true)
}

/// Gives accounts that have no password this one: the demo accounts, in development.
///
/// # Errors
/// The database's.
pub async fn give_password(store: &Store, users: &[UserId], password_hash: &str) -> Result<(), Error> {
    let transaction = Transaction::begin(store).await?;
    let mut sql = transaction.sql();
    sql.push("UPDATE users SET password_hash = ").bind(password_hash);
    sql.push(" WHERE password_hash IS NULL AND id").any_id(users);
    transaction.execute("user.give_password", Model::TABLE, sql).await?;
    transaction.commit_unlogged().await
}

fn set(transaction: &Transaction) -> Sql {
    let mut sql = transaction.sql();
    sql.push("UPDATE users SET updated_at = ").bind(clock::now());
    sql
}

async fn end_all_but(
    transaction: &mut Transaction,
    user: UserId,
    keep: Option<SessionId>,
    reason: EndReason,
) -> Result<(), Error> {
    let live = end::live(transaction, user, Which::AllBut(keep)).await?;
    end::end(transaction, user, &live, reason).await.map(drop)
}

fn entry(actor: Option<UserId>, action: Action, user: UserId, metadata: serde_json::Value) -> Entry {
    Entry { user: actor, action, subject: Some((Kind::User, user.0)), metadata }
}
