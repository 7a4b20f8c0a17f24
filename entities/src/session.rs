//! Sessions: a sign-in on one device. Lists of a user walk `user_sessions (user_id, created_at desc, id desc)`.
//! They begin in `begin` and
//! end in `end`. Not here: passwords and access tokens.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    activity::{Action, Entry},
    cache::Tag,
    clock::Time,
    database::{
        kind::Kind,
        page::{Keyset, by_time},
        scope::Scope,
        sql::{Record as _, Sql, table},
        text_enum::text_enum,
        transaction::Transaction,
    },
    error::Error,
    events::Change,
    id::{SessionId, UserId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, Row},
    },
};

pub(crate) mod begin;
pub(crate) mod end;
mod token;
mod touch;
pub use begin::{Device, Grant, Refreshed, begin, named_by, refresh};
pub use end::{Which, revoke};
pub use touch::Uses;

text_enum! {
    /// Why a session ended.
    EndReason {
        /// Its user signed out.
        SignedOut = "SIGNED_OUT",
        /// Its user ended it from another device.
        RevokedByUser = "REVOKED_BY_USER",
        /// An administrator ended it.
        RevokedByAdmin = "REVOKED_BY_ADMIN",
        /// It was not used for too long, reached its absolute end, or made room for a newer one.
        Expired = "EXPIRED",
        /// The account's password or role changed.
        CredentialsChanged = "CREDENTIALS_CHANGED",
        /// A refresh token was used twice: a sign of theft.
        TokenReuse = "TOKEN_REUSE",
    }
}

table! {
    /// A row of `user_sessions`.
    "user_sessions" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: SessionId,
        /// Whose session it is.
        user_id: UserId,
        /// Not ended; it may still have expired.
        is_active: bool,
        /// Given by its user, such as "Work phone".
        name: Option<String>,
        /// The address of the sign-in.
        ip_address: Option<String>,
        /// The client's own description of itself.
        user_agent: Option<String>,
        /// When the user signed in.
        created_at: Time,
        /// Last use, to the minute.
        last_activity: Time,
        /// End without use.
        expires_at: Time,
        /// When it was ended.
        revoked_at: Option<Time>,
        /// Why it was ended.
        end_reason: Option<EndReason>,
    }
}

impl Row for Model {
    const KIND: Kind = Kind::Session;
    const BY_IDS: &'static str = "session.by_ids";
    const IS_STRONG: bool = true;
    type Id = SessionId;

    fn id(&self) -> SessionId {
        self.id
    }
}

impl Model {
    /// Sessions are seen by their user and by administrators.
    pub fn is_visible_to(&self, scope: &Scope) -> bool {
        scope.administers() || scope.user() == Some(self.user_id)
    }

    /// Neither ended nor expired.
    pub fn is_live(&self, now: Time) -> bool {
        self.is_active && self.expires_at > now
    }

    /// Why it ended; a session that nobody ended and that is past its time has expired.
    pub fn ended_because(&self, now: Time) -> Option<EndReason> {
        self.end_reason.or_else(|| (self.is_active && self.expires_at <= now).then_some(EndReason::Expired))
    }
}

/// Sessions by id.
///
/// # Errors
/// The database's.
pub async fn by_ids(store: &Store, ids: &[SessionId]) -> Result<FxHashMap<SessionId, Arc<Model>>, Error> {
    row::by_ids(store, ids).await
}

/// Newest first.
pub static KEYSET: Keyset<Model> =
    Keyset { name: "sessions.created_at", descending: true, keys: &by_time!(created_at) };

/// Which sessions a list has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Filter {
    /// Only those that are live at this moment.
    pub live_at: Option<Time>,
}

impl Filtering for Filter {
    fn is_repeatable(&self) -> bool {
        self.live_at.is_none()
    }
}

impl Filter {
    fn push(&self, sql: &mut Sql, scope: &Scope) {
        scope.push_own(sql, scope.administers());
        if let Some(now) = self.live_at {
            sql.push(" AND t.is_active AND t.expires_at > ").bind(now);
        }
    }
}

/// Each user's sessions.
pub static OF_USERS: List<Model, Filter> = List::new(
    Names { page: "session.pages_of_users", count: "session.counts_of_users", parent: "user_id" },
    Filter::push,
)
.kept(|user, _| vec![Tag::List("Session", "user", user)])
.strong();

/// Gives one of the caller's own sessions another name, or none. `false`: there is no such session of theirs.
///
/// # Errors
/// The database's.
pub async fn rename(store: &Store, owner: UserId, id: SessionId, name: Option<&str>) -> Result<bool, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let mut sql = transaction.sql();
    sql.push("UPDATE user_sessions SET name = ").bind(name).push(" WHERE id = ").bind(id);
    sql.push(" AND user_id = ").bind(owner);
    if transaction.execute("session.rename", Model::TABLE, sql).await? == 0 {
        return Ok(false);
    }
    transaction.changed(Change::Session { id, user: owner });
    let subject = Some((Kind::Session, id.0));
    let metadata = serde_json::json!({});
    transaction.commit(Entry { user: Some(owner), action: Action::SessionRename, subject, metadata }).await?;
    Ok(true)
}
