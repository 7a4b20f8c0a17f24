//! Locations: recorded positions, partitioned by month on device time. Lists walk
//! `user_locations (user_id, timestamp desc, id desc)` or `(session_id, …)` and prune by time; `latest` reads
//! `user_last_locations`, one row a user. Tracks are in `location/track.rs`,
//! recording in `location/record.rs`.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use futures_util::FutureExt as _;
use rustc_hash::FxHashMap;
use sea_orm::{IdenStatic as _, entity::prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    cache::{Cached, ReadContext, Retention, Tag},
    clock::{Time, TimeRange},
    database::{
        page::{Keyset, SortKey, Window, by_time},
        scope::Scope,
        sql::{Cells, Record as _, Sql, record},
    },
    error::Error,
    id::{LocationId, SessionId, UserId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, ById, Finder},
    },
};

pub mod area;
pub mod record;
pub mod track;

pub use area::Area;

/// The newest position of each user, kept beside the history.
pub mod last {
    use sea_orm::entity::prelude::*;

    use super::{LocationId, SessionId, Time, UserId, record};

    record! {
        /// A row of `user_last_locations`.
        #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
        #[sea_orm(table_name = "user_last_locations")]
        pub struct Model {
            /// Primary key.
            #[sea_orm(primary_key, auto_increment = false)]
            pub user_id: UserId,
            /// The position's own id.
            pub id: LocationId,
            /// On which device.
            pub session_id: Option<SessionId>,
            /// Device time.
            pub timestamp: Time,
            /// When the server got it.
            pub received_at: Time,
            /// Degrees north, -90 to 90.
            pub latitude: f64,
            /// Degrees east, -180 to 180.
            pub longitude: f64,
            /// Metres, 68 %.
            pub accuracy: Option<f64>,
            /// Metres.
            pub altitude: Option<f64>,
            /// Metres a second.
            pub speed: Option<f64>,
            /// Degrees from north, 0 to 360.
            pub heading: Option<f64>,
        }
    }

    /// Whose position it is. Positions outlive accounts and sessions, so the database does not keep these.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        /// The account that was there.
        #[sea_orm(
            belongs_to = "crate::user::Entity",
            from = "Column::UserId",
            to = "crate::user::Column::Id",
            skip_fk
        )]
        User,
        /// On which device.
        #[sea_orm(
            belongs_to = "crate::session::Entity",
            from = "Column::SessionId",
            to = "crate::session::Column::Id",
            skip_fk
        )]
        Session,
    }

    impl Related<crate::user::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::User.def()
        }
    }

    impl Related<crate::session::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Session.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}

record! {
    /// A row of `user_locations`.
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "user_locations")]
    pub struct Model {
        /// Primary key together with `timestamp`.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: LocationId,
        /// The account that was there.
        pub user_id: UserId,
        /// On which device.
        pub session_id: Option<SessionId>,
        /// Device time; decides the partition.
        #[sea_orm(primary_key, auto_increment = false)]
        pub timestamp: Time,
        /// When the server got it.
        pub received_at: Time,
        /// Degrees north, -90 to 90.
        pub latitude: f64,
        /// Degrees east, -180 to 180.
        pub longitude: f64,
        /// Metres, 68 %.
        pub accuracy: Option<f64>,
        /// Metres.
        pub altitude: Option<f64>,
        /// Metres a second.
        pub speed: Option<f64>,
        /// Degrees from north, 0 to 360.
        pub heading: Option<f64>,
    }
}

/// Whose position it is. Positions outlive accounts and sessions, so the database does not keep these.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The account that was there.
    #[sea_orm(
        belongs_to = "crate::user::Entity",
        from = "Column::UserId",
        to = "crate::user::Column::Id",
        skip_fk
    )]
    User,
    /// On which device.
    #[sea_orm(
        belongs_to = "crate::session::Entity",
        from = "Column::SessionId",
        to = "crate::session::Column::Id",
        skip_fk
    )]
    Session,
}

impl Related<crate::user::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::User.def()
    }
}

impl Related<crate::session::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Session.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

impl ById for Model {
    const ID: Column = Column::Id;
    const BY_IDS: &'static str = "location.by_ids";
    const IS_ANNOUNCED: bool = false;
    type Id = LocationId;

    fn id(&self) -> LocationId {
        self.id
    }
}

impl Model {
    /// Positions are seen by the one who was there and by managers.
    pub fn is_visible_to(&self, scope: &Scope) -> bool {
        scope.manages() || scope.user() == Some(self.user_id)
    }
}

/// Positions by id.
///
/// # Errors
/// The database's.
pub async fn by_ids(store: &Store, ids: &[LocationId]) -> Result<FxHashMap<LocationId, Arc<Model>>, Error> {
    row::by_ids(store, ids).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<LocationId, Model> = Finder::by_id();

/// The newest position of each user that has one.
///
/// # Errors
/// The database's.
pub async fn last_of_users(store: &Store, users: &[UserId]) -> Result<FxHashMap<UserId, Arc<Model>>, Error> {
    store.cached(LastOfUsers, users).await
}

/// `last_of_users`, as edges load it.
pub static LAST_OF_USERS: Finder<UserId, Model> =
    Finder::open("location.last_of_users", |store, _, users| last_of_users(store, users).boxed());

/// The newest position recorded on each device, as far as the scope reaches.
pub static LAST_OF_SESSIONS: Finder<SessionId, Model> =
    Finder::scoped("location.last_of_sessions", |store, scope, sessions| {
        last_of_sessions(store, scope, sessions).boxed()
    });

async fn last_of_sessions(
    store: &Store,
    scope: &Scope,
    sessions: &[SessionId],
) -> Result<FxHashMap<SessionId, Arc<Model>>, Error> {
    let newest = Window { limit: 1, backward: false, after: None, before: None };
    let all = OF_SESSIONS.part(*scope, Filter::default());
    let pages = all.pages(store, &KEYSET, &newest, sessions).await?;
    Ok(pages.into_iter().filter_map(|(id, page)| Some((id, Arc::clone(page.rows.first()?)))).collect())
}

#[derive(Clone)]
struct LastOfUsers;

impl Cached for LastOfUsers {
    type Key = UserId;
    type Value = Model;

    fn name(&self) -> &'static str {
        "location.last_of_users"
    }

    fn shape(&self) -> &'static str {
        Model::SHAPE
    }

    fn retention(&self) -> Retention {
        Retention::for_seconds(60)
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, user: UserId, _: Option<&Model>) -> Vec<Tag> {
        vec![Tag::List("Location", "user", user.0)]
    }

    async fn load(
        self,
        context: ReadContext,
        users: Arc<[UserId]>,
    ) -> Result<FxHashMap<UserId, Arc<Model>>, Error> {
        let mut sql = context.database().sql();
        // The same columns as those of the history.
        sql.push("SELECT ").push(Model::COLUMNS).from(last::Model::table());
        sql.filter(last::Column::UserId).any_id(&users);
        let read = |cells: &mut Cells<'_>| Model::read(cells).map(Arc::new);
        let rows = context.database().fetch(self.name(), last::Model::table(), sql, read).await?;
        Ok(rows.into_iter().map(|row| (row.user_id, row)).collect())
    }
}

/// Newest first, by device time.
pub static KEYSET: Keyset<Model> = Keyset { name: "locations.timestamp", descending: true, keys: &BY_TIME };

static BY_TIME: [SortKey<Model>; 2] = by_time!(Timestamp, timestamp);

/// Which positions a list has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Filter {
    /// Recorded in this time; prunes partitions.
    pub timestamp: TimeRange,
    /// Inside this area.
    pub area: Option<Area>,
    /// On any of these devices' sessions.
    pub session_ids: Option<Vec<SessionId>>,
    /// Known to be at least this accurate, metres.
    pub max_accuracy: Option<f64>,
}

/// No number in it is NaN: areas are checked when made, and accuracies come from JSON.
impl Eq for Filter {}

/// Numbers are left out: equal filters still hash alike.
impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.timestamp, &self.session_ids).hash(state);
    }
}

impl Filtering for Filter {}

impl Filter {
    fn push(&self, sql: &mut Sql, scope: &Scope) {
        scope.push_own(sql, Column::UserId, scope.manages());
        sql.within(Column::Timestamp, &self.timestamp);
        if let Some(area) = &self.area {
            area.push(sql);
        }
        if let Some(sessions) = &self.session_ids {
            sql.and(Column::SessionId).any_id(sessions);
            // Others' sessions are for administrators: to the rest, one of those is as good as none.
            if let (false, Some(user)) = (scope.administers(), scope.user()) {
                sql.and(Column::UserId).push(" = ").bind(user);
            }
        }
        if let Some(accuracy) = self.max_accuracy {
            sql.and(Column::Accuracy).push(" <= ").bind(accuracy);
        }
    }
}

/// Each user's positions.
pub static OF_USERS: List<Model, Filter> = List::new(
    Names {
        page: "location.pages_of",
        count: "location.counts_of",
        parent: Some(|| Column::UserId.as_str()),
    },
    Filter::push,
);

/// The positions recorded on each device.
pub static OF_SESSIONS: List<Model, Filter> = List::new(
    Names {
        page: "location.pages_of",
        count: "location.counts_of",
        parent: Some(|| Column::SessionId.as_str()),
    },
    Filter::push,
);

/// Which users' newest positions are wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LatestFilter {
    /// Inside this area.
    pub area: Option<Area>,
    /// Of these users.
    pub user_ids: Option<Vec<UserId>>,
}

/// No number in it is NaN: areas are checked when made.
impl Eq for LatestFilter {}

/// Numbers are left out: equal filters still hash alike.
impl Hash for LatestFilter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.user_ids.hash(state);
    }
}

impl Filtering for LatestFilter {}

impl LatestFilter {
    fn push(&self, sql: &mut Sql, scope: &Scope) {
        scope.push_own(sql, last::Column::UserId, scope.manages());
        if let Some(area) = &self.area {
            area.push_indexed(sql);
        }
        if let Some(users) = &self.user_ids {
            sql.and(last::Column::UserId).any_id(users);
        }
    }
}

/// Users' newest positions.
pub static LATEST: List<Model, LatestFilter> = List::new(
    Names { page: "location.latest", count: "location.latest_count", parent: None },
    LatestFilter::push,
)
.in_table_of::<last::Model>();
