//! Sessions end: signed out, revoked, by the way of a change of the account. Each end is in the list of
//! revocations within the same transaction, so that no instance takes the session's tokens any more. Not
//! here: ends by the clock, which nothing has to write.

use sea_orm::{QueryOrder as _, QuerySelect as _, Set, entity::prelude::*};

use super::{ActiveModel, Column, EndReason, Entity};
use crate::{
    activity::{Action, ActivityEntry},
    auth::revocation::Revocation,
    clock,
    error::Error,
    events::ChangeEvent,
    id::{NodeKind, SessionId, UserId},
    store::{Store, transaction::Transaction},
};

/// Which sessions are to end.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// This one.
    One(SessionId),
    /// All of an account but this one.
    AllBut(Option<SessionId>),
}

/// Ends live sessions of an account, all at once, and says which. Those that had ended before stay as they are.
///
/// # Errors
/// The database's.
pub async fn revoke(
    store: &Store,
    actor: UserId,
    owner: UserId,
    which: Which,
    reason: EndReason,
) -> Result<Vec<SessionId>, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let live = live(&transaction, owner, which).await?;
    if live.is_empty() {
        return Ok(live);
    }
    let ended = end(&mut transaction, owner, &live, reason).await?;
    let action = if reason == EndReason::SignedOut { Action::SessionSignOut } else { Action::SessionRevoke };
    let subject = match which {
        Which::One(id) => (NodeKind::Session, id.0),
        Which::AllBut(_) => (NodeKind::User, owner.0),
    };
    let metadata = serde_json::json!({ "sessions": ended.len() });
    transaction.results_in(|| serde_json::json!(ended.iter().map(|id| id.0).collect::<Vec<_>>()));
    transaction.commit(ActivityEntry { user: Some(actor), action, subject: Some(subject), metadata }).await?;
    Ok(ended)
}

/// The live sessions of an account, newest first.
pub(crate) async fn live(
    transaction: &Transaction,
    owner: UserId,
    which: Which,
) -> Result<Vec<SessionId>, Error> {
    let live = find_live(owner);
    let live = match which {
        Which::One(id) => live.filter(Column::Id.eq(id)),
        Which::AllBut(Some(id)) => live.filter(Column::Id.ne(id)),
        Which::AllBut(None) => live,
    };
    let live = live.order_by_desc(Column::CreatedAt).order_by_desc(Column::Id).lock_exclusive();
    transaction.column("session.live", Entity, &live).await
}

/// The ids of an account's live sessions.
pub(super) fn find_live(owner: UserId) -> Select<Entity> {
    Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::IsActive.into_expr())
        .filter(Column::UserId.eq(owner))
        .filter(Column::ExpiresAt.gt(clock::now()))
}

/// Ends these sessions of an account.
pub(crate) async fn end(
    transaction: &mut Transaction,
    owner: UserId,
    sessions: &[SessionId],
    reason: EndReason,
) -> Result<Vec<SessionId>, Error> {
    let ended = ActiveModel {
        is_active: Set(false),
        revoked_at: Set(Some(clock::now())),
        end_reason: Set(Some(reason)),
        ..Default::default()
    };
    let update = Entity::update_many()
        .set(ended)
        .filter(Column::IsActive.into_expr())
        .filter(transaction.is_any(Column::Id, sessions));
    transaction.write("session.end", Entity, &update).await?;
    for session in sessions {
        transaction.changed(ChangeEvent::SessionEnded { id: *session, user: owner });
        transaction.revoke(Revocation::Session(*session));
    }
    Ok(sessions.to_vec())
}
