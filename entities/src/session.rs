//! Sessions: a sign-in on one device. Lists of a user walk `user_sessions (user_id, created_at desc, id desc)`.
//! They begin in `begin` and
//! end in `end`. Not here: passwords and access tokens.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sea_orm::{IdenStatic as _, Set, entity::prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    activity::{Action, ActivityEntry},
    cache::Tag,
    clock::Time,
    database::{
        page::{Keyset, by_time},
        scope::Scope,
        sql::{Hidden, Sql, record},
        text_enum::text_enum,
    },
    error::Error,
    events::ChangeEvent,
    id::{NodeKind, SessionId, UserId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, ById, Finder},
        transaction::Transaction,
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

record! {
    /// A row of `user_sessions`, whole.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "user_sessions")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: SessionId,
        /// The account of the session.
        pub user_id: UserId,
        /// Not ended; it may still have expired.
        pub is_active: bool,
        /// Given by its user, such as "Work phone".
        pub name: Option<String>,
        /// The address of the sign-in.
        pub ip_address: Option<String>,
        /// The client's own description of itself.
        pub user_agent: Option<String>,
        /// When the user signed in.
        pub created_at: Time,
        /// Last use, to the minute.
        pub last_activity: Time,
        /// End without use.
        pub expires_at: Time,
        /// When it was ended.
        pub revoked_at: Option<Time>,
        /// Why it was ended.
        pub end_reason: Option<EndReason>,
        /// What the key of its refresh tokens is made from; none: it has no such tokens.
        pub refresh_salt: Option<Hidden>,
        /// The counter of its current refresh token.
        pub refresh_counter: Option<i64>,
        /// When a refresh token was exchanged last.
        pub refreshed_at: Option<Time>,
        /// End in any case.
        pub ends_at: Option<Time>,
        /// The last exchanges of refresh tokens (`begin`).
        pub exchanges: Option<String>,
    }
}

/// What a session belongs to.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The account of the session.
    #[sea_orm(belongs_to = "crate::user::Entity", from = "Column::UserId", to = "crate::user::Column::Id")]
    User,
}

impl Related<crate::user::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::User.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

record! {
    /// What is read of `user_sessions` for the graph: nothing that its refresh tokens depend on.
    #[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel, Serialize, Deserialize)]
    #[sea_orm(entity = "Entity")]
    pub struct Row {
        /// Primary key.
        pub id: SessionId,
        /// The account of the session.
        pub user_id: UserId,
        /// Not ended; it may still have expired.
        pub is_active: bool,
        /// Given by its user, such as "Work phone".
        pub name: Option<String>,
        /// The address of the sign-in.
        pub ip_address: Option<String>,
        /// The client's own description of itself.
        pub user_agent: Option<String>,
        /// When the user signed in.
        pub created_at: Time,
        /// Last use, to the minute.
        pub last_activity: Time,
        /// End without use.
        pub expires_at: Time,
        /// When it was ended.
        pub revoked_at: Option<Time>,
        /// Why it was ended.
        pub end_reason: Option<EndReason>,
    }
}

impl ById for Row {
    const ID: Column = Column::Id;
    const BY_IDS: &'static str = "session.by_ids";
    const IS_STRONG: bool = true;
    type Id = SessionId;

    fn id(&self) -> SessionId {
        self.id
    }
}

impl Row {
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
pub async fn by_ids(store: &Store, ids: &[SessionId]) -> Result<FxHashMap<SessionId, Arc<Row>>, Error> {
    row::by_ids(store, ids).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<SessionId, Row> = Finder::by_id();

/// Newest first.
pub static KEYSET: Keyset<Row> =
    Keyset { name: "sessions.created_at", descending: true, keys: &by_time!(CreatedAt, created_at) };

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
        scope.push_own(sql, Column::UserId, scope.administers());
        if let Some(now) = self.live_at {
            sql.and(Column::IsActive).and(Column::ExpiresAt).push(" > ").bind(now);
        }
    }
}

/// Each user's sessions.
pub static OF_USERS: List<Row, Filter> = List::new(
    Names {
        page: "session.pages_of_users",
        count: "session.counts_of_users",
        parent: Some(|| Column::UserId.as_str()),
    },
    Filter::push,
)
.retention(|user, _| vec![Tag::List("Session", "user", user)])
.strong();

/// Gives one of the caller's own sessions another name, or none. `false`: there is no such session of theirs.
///
/// # Errors
/// The database's.
pub async fn rename(store: &Store, owner: UserId, id: SessionId, name: Option<&str>) -> Result<bool, Error> {
    let mut transaction = Transaction::begin(store).await?;
    let renamed = ActiveModel { name: Set(name.map(str::to_owned)), ..Default::default() };
    let update =
        Entity::update_many().set(renamed).filter(Column::Id.eq(id)).filter(Column::UserId.eq(owner));
    if transaction.write("session.rename", Entity, &update).await? == 0 {
        return Ok(false);
    }
    transaction.changed(ChangeEvent::Session { id, user: owner });
    let subject = Some((NodeKind::Session, id.0));
    let metadata = serde_json::json!({});
    transaction
        .commit(ActivityEntry { user: Some(owner), action: Action::SessionRename, subject, metadata })
        .await?;
    Ok(true)
}
