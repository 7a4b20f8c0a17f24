//! Sessions as clients see them: an account's sign-ins, one a device. They begin in `sign_in` and are
//! written in `mutation`. Not here: SQL (`entities::session`).

use std::sync::{Arc, LazyLock};

use async_graphql::{Enum, InputObject};
use entities::{
    clock::Time,
    database::{
        page::{Page, Window},
        scope::Scope,
    },
    events::ChangeEvent,
    id::{SessionId, UserId},
    session::{self, Filter, KEYSET, Row},
};

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        list::{ListArgs as _, WindowArgs as _, bound},
        location,
        node::NODE,
        scalar::enum_leaf,
        subgraph::Domain,
        subscription::Listen,
        user::{self, User},
    },
};
use engine::{
    batch::{Loaded, Loader},
    connection::{MAX_ROWS, PageArgs, Pages},
    context::Context,
    edge::{NoArguments, One},
    object::{Edge, Entity, Object, Visible},
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
                .edge(
                    "user",
                    "Whose session it is.",
                    One::<Session, NoArguments, user::ById, User>::required(
                        |_| Ok(user::ById),
                        |session, _| Ok(Some(session.row.user_id)),
                    ),
                )
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
                .edge(
                    "locations",
                    "The positions recorded on this device, newest first.",
                    location::locations_of_session(),
                )
                .edge(
                    "lastLocation",
                    "The newest position recorded on this device, by device time.",
                    location::last_of_session(),
                )
        });
        &OBJECT
    }
}

/// Sessions by id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ById;

impl Loader for ById {
    const NAME: &'static str = "session.by_ids";
    const SHARED: bool = true;
    type Source = Database;
    type Key = SessionId;
    type Value = Arc<Row>;

    async fn load(self, store: Database, keys: Arc<[SessionId]>) -> Loaded<Self> {
        session::by_ids(&store, &keys).await
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

#[derive(Clone, PartialEq, Eq, Hash)]
struct OfUsers {
    scope: Scope,
    filter: Filter,
    window: Window,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct CountsOfUsers {
    scope: Scope,
    filter: Filter,
}

impl Loader for OfUsers {
    const NAME: &'static str = "session.pages_of_users";
    const SHARED: bool = true;
    type Source = Database;
    type Key = UserId;
    type Value = Arc<Page<Row>>;

    async fn load(self, store: Database, keys: Arc<[UserId]>) -> Loaded<Self> {
        session::OF_USERS.pages(&store, &self.scope, &self.filter, &KEYSET, &self.window, &keys).await
    }
}

impl Loader for CountsOfUsers {
    const NAME: &'static str = "session.counts_of_users";
    const SHARED: bool = true;
    type Source = Database;
    type Key = UserId;
    type Value = i64;

    async fn load(self, store: Database, keys: Arc<[UserId]>) -> Loaded<Self> {
        session::OF_USERS.counts(&store, &self.scope, &self.filter, &keys).await
    }
}

/// `User.sessions`
pub(crate) fn sessions_of_user() -> impl Edge<User> {
    Pages::<User, SessionsArgs, OfUsers, CountsOfUsers, Session>::new(
        |given| {
            let scope = given.ctx.scope();
            let only_active = given.args.active_only.unwrap_or(false);
            let filter = Filter { live_at: only_active.then(|| given.ctx.now()) };
            // Not the filter: its moment is another one on each page.
            let mut cursors = given.list(&only_active);
            let window = given.args.page.window(&KEYSET, &mut cursors, MAX_ROWS)?;
            let counts = CountsOfUsers { scope, filter };
            Ok(bound(OfUsers { scope, filter, window }, counts, &KEYSET, cursors))
        },
        User::id,
    )
}

/// `Subscription.sessionEnded`
pub(crate) fn ended() -> Listen<NoArguments, Scope, ById, Session> {
    Listen {
        bind: |_, ctx| Ok(ctx.scope()),
        key: |scope, change| match *change {
            ChangeEvent::SessionEnded { id, user } if scope.administers() || scope.user() == Some(user) => {
                Some(id)
            }
            _ => None,
        },
        load: |_| ById,
        wants: |_, _, _| true,
    }
}
