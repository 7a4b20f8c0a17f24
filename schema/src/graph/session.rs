//! Sessions as clients see them: an account's sign-ins, one a device. They begin in `sign_in` and are
//! written in `mutation`. Not here: SQL (`entities::session`).

use std::sync::{Arc, LazyLock};

use async_graphql::{Enum, InputObject};
use entities::{
    clock::Time,
    database::{page::Keyset, scope::Scope},
    events::ChangeEvent,
    id::SessionId,
    location::LAST_OF_SESSIONS,
    session::{self, Filter, KEYSET, Row},
};
use serde::Serialize;

use crate::{
    context::ContextExt as _,
    graph::{
        edges::{self, Edges as _, FindLoader},
        list::{Listed, Lists},
        location::{self, Location},
        node::{NODE, node_id},
        scalar::enum_leaf,
        subgraph::Domain,
        subscription::Listen,
        user::User,
    },
};
use engine::{
    connection::PageArgs,
    context::Context,
    edge::NoArguments,
    error::FieldError,
    object::{Entity, Object, Visible},
};

pub(crate) mod mutation;
pub(crate) mod sign_in;

/// Why a session ended. New reasons may be added.
#[derive(Enum, Copy, Clone, Eq, PartialEq)]
#[graphql(remote = "entities::session::EndReason")]
pub enum SessionEndReason {
    /// Its user signed out.
    SignedOut,
    /// Its user ended it from another device.
    RevokedByUser,
    /// An administrator ended it.
    RevokedByAdmin,
    /// It was not used for too long, reached its absolute end, or made room for a newer one.
    Expired,
    /// The account's password or role changed.
    CredentialsChanged,
    /// A refresh token was used twice: a sign of theft.
    TokenReuse,
}

enum_leaf!(entities::session::EndReason, SessionEndReason);

/// A session that the viewer may see.
#[derive(Clone)]
pub struct Session {
    row: Arc<Row>,
    now: Time,
    current: bool,
}

impl Visible for Session {
    type Row = Row;

    fn visible_to(ctx: &Context, row: Arc<Row>) -> Option<Self> {
        let current = ctx.viewer().session_id() == Some(row.id);
        let now = ctx.now_until(row.expires_at);
        row.is_visible_to(&ctx.scope()).then_some(Self { row, now, current })
    }
}

node_id!(SessionId, Session, session::BY_IDS);

impl Session {
    /// Its id: the key of every edge that starts at a session.
    pub(crate) fn id(&self) -> SessionId {
        self.row.id
    }
}

impl Entity for Session {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Session>> = LazyLock::new(|| {
            Object::<Session>::new("Session", "A sign-in on one device.")
                .of(Domain::Sessions)
                .implements(NODE)
                .key("id")
                .column("id", "A lower-case UUID, the same in every subgraph.", |session| &session.row.id)
                .one("user", "Whose session it is.", |session| session.row.user_id)
                .column("ipAddress", "The address of the sign-in.", |session| &session.row.ip_address)
                .column("userAgent", "The client's own description of itself.", |session| {
                    &session.row.user_agent
                })
                .column("name", "Given by its user, such as \"Work phone\".", |session| &session.row.name)
                .computed("isActive", "Neither ended nor expired.", |session| {
                    session.row.is_live(session.now)
                })
                .column("isCurrent", "The session that is asking.", |session| &session.current)
                .column("createdAt", "When the user signed in.", |session| &session.row.created_at)
                .column("lastActivity", "The last use, to the minute.", |session| &session.row.last_activity)
                .column("expiresAt", "When it ends without use.", |session| &session.row.expires_at)
                .column("revokedAt", "When it was ended. Null while it was not.", |session| {
                    &session.row.revoked_at
                })
                .computed("endReason", "Why it ended. Null while it is active.", |session| {
                    session.row.ended_because(session.now)
                })
                .fields_of(Domain::Locations)
                .page(
                    "locations",
                    "The positions recorded on this device, newest first.",
                    &location::OF_SESSIONS,
                )
                .find::<Location, _>(
                    "lastLocation",
                    "The newest position recorded on this device, by device time.",
                    &LAST_OF_SESSIONS,
                    |session| Some(session.row.id),
                )
        });
        &OBJECT
    }
}

/// The arguments of `User.sessions`.
#[derive(InputObject)]
pub struct SessionsArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Only sessions that are neither ended nor expired.
    active_only: Option<bool>,
}

impl Lists for SessionsArgs {
    type Object = Session;
    type Filter = Filter;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, ctx: &Context) -> Result<Filter, FieldError> {
        Ok(Filter { live_at: self.is_active_only().then(|| ctx.now()) })
    }

    fn order(&self) -> &'static Keyset<Row> {
        &KEYSET
    }

    /// Not the filter: its moment is another one on each page.
    fn name(&self, _: &Filter) -> impl Serialize {
        self.is_active_only()
    }
}

impl SessionsArgs {
    fn is_active_only(&self) -> bool {
        self.active_only.unwrap_or(false)
    }
}

/// `User.sessions`
pub(crate) static OF_USERS: Listed<User, SessionsArgs> =
    Listed::of(&session::OF_USERS, |user: &User| user.id().into()).reaching(Scope::of_administrators);

/// `Subscription.sessionEnded`
pub(crate) fn ended() -> Listen<NoArguments, Scope, FindLoader<SessionId, Row>, Session> {
    Listen {
        bind: |_, ctx| Ok(ctx.scope()),
        key: |scope, change| match *change {
            ChangeEvent::SessionEnded { id, user } if scope.administers() || scope.user() == Some(user) => {
                Some(id)
            }
            _ => None,
        },
        load: edges::by_id::<SessionId>,
        wants: |_, _, _| true,
    }
}
