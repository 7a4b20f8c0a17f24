//! An account stops standing for a person: it is blocked, nothing in its row names anybody, and nobody can sign
//! in to it again. The row stays, because forms and submissions refer to it. Not here: what else is stored of the
//! person (`personal_data`).

use sea_orm::{
    ActiveValue::Unchanged, Condition, QueryOrder as _, QuerySelect as _, Set, entity::prelude::*,
};

use super::{ActiveModel, Column, ERASED_NAME, Entity, Row, account, email_of_erased};
use crate::{
    activity::{Action, ActivityEntry},
    auth::revocation::Revocation,
    clock::{self, Time},
    database::role::Role,
    error::Error,
    events::ChangeEvent,
    id::{NodeKind, UserId},
    session::EndReason,
    store::{Store, transaction::Transaction},
    unicode,
};

/// An account that may be erased, or is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasable {
    /// The e-mail; of an account that was erased what stands in its place.
    pub email: String,
    /// The display name.
    pub display_name: String,
    /// When the account was erased, if it was.
    pub erased_at: Option<Time>,
}

/// Whether an account may be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Erasability {
    /// There is no such account.
    NotFound,
    /// Nobody else could make another administrator.
    LastAdministrator,
    /// It may be.
    Erasable(Erasable),
}

/// Whether an account may be erased now.
///
/// # Errors
/// The database's.
pub async fn look(store: &Store, user: UserId) -> Result<Erasability, Error> {
    let rows = store.database().all("user.erasable", find(user)).await?;
    Ok(judge(&rows, user))
}

/// The account, and all who are administrators; in one order, in which they are locked.
fn find(user: UserId) -> Select<Entity> {
    let administers = Condition::all().add(Column::Role.eq(Role::Admin)).add(Column::IsActive.into_expr());
    let wanted = Condition::any().add(Column::Id.eq(user)).add(administers);
    Entity::find().filter(wanted).order_by_asc(Column::Id)
}

fn judge(rows: &[Row], user: UserId) -> Erasability {
    let Some(account) = rows.iter().find(|row| row.id == user) else { return Erasability::NotFound };
    let administers = account.is_active && account.role == Role::Admin;
    if administers && rows.len() == 1 {
        return Erasability::LastAdministrator;
    }
    Erasability::Erasable(Erasable {
        email: account.email.clone(),
        display_name: account.display_name.clone(),
        erased_at: account.is_erased().then_some(account.updated_at),
    })
}

/// Blocks the account, ends its sessions and tokens and takes the person's name out of its row, with an entry in the
/// activity log. An account that was erased before stays as it is. Says what the account was.
///
/// # Errors
/// The database's: nothing is stored.
pub async fn erase(store: &Store, user: UserId) -> Result<Erasability, Error> {
    let mut transaction = Transaction::begin(store).await?;
    // With the other administrators: two of them that are erased at once must not leave none.
    let rows: Vec<Row> = transaction.all("user.lock_erasable", find(user).lock_exclusive()).await?;
    let judged = judge(&rows, user);
    if !matches!(&judged, Erasability::Erasable(account) if account.erased_at.is_none()) {
        return Ok(judged);
    }
    let epochs = Entity::find_by_id(user).select_only().column(Column::Epoch);
    let epochs: Vec<i64> = transaction.column("user.epoch", Entity, &epochs).await?;
    let epoch = epochs.first().copied().unwrap_or_default() + 1;
    let erased = ActiveModel {
        id: Unchanged(user),
        email: Set(email_of_erased(user)),
        display_name: Set(ERASED_NAME.to_owned()),
        search_name: Set(unicode::searched(ERASED_NAME)),
        role: Set(Role::Viewer),
        is_active: Set(false),
        password_hash: Set(None),
        updated_at: Set(clock::now()),
        last_login: Set(None),
        epoch: Set(epoch),
        ..Default::default()
    };
    transaction.update("user.erase", erased).await?;
    transaction.revoke(Revocation::Rights { user, epoch });
    account::end_all_but(&mut transaction, user, None, EndReason::RevokedByAdmin).await?;
    transaction.changed(ChangeEvent::User { id: user });
    let (action, subject) = (Action::UserErase, Some((NodeKind::User, user.0)));
    transaction
        .commit(ActivityEntry { user: None, action, subject, metadata: serde_json::json!({}) })
        .await?;
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(role: Role, is_active: bool) -> Row {
        let (id, now) = (UserId::new(), clock::now());
        let (email, display_name) = ("a@example.com".to_owned(), "A".to_owned());
        Row { id, email, display_name, role, is_active, created_at: now, updated_at: now, last_login: None }
    }

    #[test]
    fn the_last_administrator_is_not_erased() {
        let (admin, other) = (account(Role::Admin, true), account(Role::Admin, true));
        let blocked = account(Role::Admin, false);
        assert_eq!(judge(std::slice::from_ref(&admin), admin.id), Erasability::LastAdministrator);
        let may = |rows: &[Row], id| matches!(judge(rows, id), Erasability::Erasable(_));
        assert!(may(&[admin.clone(), other], admin.id));
        assert!(
            may(&[admin.clone(), blocked.clone()], blocked.id),
            "one that is blocked administers nothing"
        );
        assert_eq!(judge(&[admin], UserId::new()), Erasability::NotFound);
    }

    #[test]
    fn only_its_own_address_says_that_an_account_was_erased() {
        let mut row = account(Role::Viewer, false);
        assert!(!row.is_erased());
        row.email = email_of_erased(UserId::new());
        assert!(!row.is_erased(), "that of another account");
        row.email = email_of_erased(row.id);
        assert!(row.is_erased());
    }
}
