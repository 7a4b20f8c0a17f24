//! Sessions end: signed out, revoked, by the way of a change of the account. Each end is in the list of revocations
//! within the same transaction, so that no node takes the session's tokens any more. Not here: ends by the clock, which
//! nothing has to write.

use super::{EndReason, Model};
use crate::{
    activity::{Action, Entry},
    auth::revocation::Revocation,
    clock,
    database::{
        kind::Kind,
        sql::{Record as _, Sql},
        transaction::Transaction,
    },
    error::Error,
    events::Change,
    id::{SessionId, UserId},
    store::Store,
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
        Which::One(id) => (Kind::Session, id.0),
        Which::AllBut(_) => (Kind::User, owner.0),
    };
    let metadata = serde_json::json!({ "sessions": ended.len() });
    transaction.commit(Entry { user: Some(actor), action, subject: Some(subject), metadata }).await?;
    Ok(ended)
}

/// The live sessions of an account, newest first.
pub(crate) async fn live(
    transaction: &Transaction,
    owner: UserId,
    which: Which,
) -> Result<Vec<SessionId>, Error> {
    let mut sql = transaction.sql();
    sql.push("SELECT t.id FROM user_sessions t WHERE t.is_active AND t.user_id = ").bind(owner);
    sql.push(" AND t.expires_at > ").bind(clock::now());
    match which {
        Which::One(id) => sql.push(" AND t.id = ").bind(id),
        Which::AllBut(Some(id)) => sql.push(" AND t.id <> ").bind(id),
        Which::AllBut(None) => &mut sql,
    };
    sql.push(" ORDER BY t.created_at DESC, t.id DESC").for_update("t");
    transaction.column::<SessionId>("session.live", Model::TABLE, sql).await
}

/// Ends these sessions of an account.
pub(crate) async fn end(
    transaction: &mut Transaction,
    owner: UserId,
    sessions: &[SessionId],
    reason: EndReason,
) -> Result<Vec<SessionId>, Error> {
    let mut sql: Sql = transaction.sql();
    sql.push("UPDATE user_sessions SET is_active = FALSE, revoked_at = ").bind(clock::now());
    sql.push(", end_reason = ").bind(reason.as_str()).push(" WHERE is_active AND id").any_id(sessions);
    transaction.execute("session.end", Model::TABLE, sql).await?;
    for session in sessions {
        transaction.changed(Change::SessionEnded { id: *session, user: owner });
        transaction.revoke(Revocation::Session(*session));
    }
    Ok(sessions.to_vec())
}
