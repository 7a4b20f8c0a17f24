//! Recorded positions as clients see them, areas and tracks; recording them is in `location/mutation.rs`,
//! waiting for them in `location/live.rs`. Not here: SQL
//! (`entities::location`).

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};

use async_graphql::{ID, InputObject, OneofObject};
use entities::{
    clock::TimeRange,
    database::{
        page::{Page, Window},
        scope::Scope,
    },
    id::{LocationId, SessionId, UserId},
    location::{self, Area, Filter, KEYSET, LatestFilter, Model, track},
    store::list::List,
};
use uuid::Uuid;

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        input::{TimeRangeInput, ids},
        list::{ListArgs as _, WindowArgs as _, bound},
        node::NODE,
        query::Query,
        session::{self, Session},
        subgraph::Domain,
        user::{self, User, user_ids},
    },
};
use engine::{
    batch::{Loaded, Loader},
    bounds::Taken,
    connection::{BoundPage, PageArgs, Pages},
    context::Context,
    edge::{FieldArgs, Many, NoArguments, One},
    error::FieldError,
    object::{Edge, Entity, Object, Visible},
};

pub mod live;
pub mod mutation;

/// Rows of a page of positions at most: a device sends many.
const MAX_POSITIONS: u32 = 1_000;

/// A position that the viewer may see.
#[derive(Clone)]
pub struct Location {
    row: Arc<Model>,
}

impl Visible for Location {
    type Row = Model;

    fn visible_to(ctx: &Context, row: Arc<Model>) -> Option<Self> {
        row.is_visible_to(&ctx.scope()).then_some(Self { row })
    }
}

impl Entity for Location {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Location>> = LazyLock::new(|| {
            Object::<Location>::new("Location", "A recorded position of a person.")
                .of(Domain::Locations)
                .implements(NODE)
                .key("id")
                .column("id", "A lower-case UUID, the same in every subgraph.", |location| &location.row.id)
                .column("timestamp", "When the device was there, by its own clock.", |location| {
                    &location.row.timestamp
                })
                .column("receivedAt", "When the server got it.", |location| &location.row.received_at)
                .column("latitude", "Degrees north, -90 to 90 (WGS 84).", |location| &location.row.latitude)
                .column("longitude", "Degrees east, -180 to 180 (WGS 84).", |location| {
                    &location.row.longitude
                })
                .column(
                    "accuracy",
                    "Radius in metres in which the device was with 68 % confidence.",
                    |location| &location.row.accuracy,
                )
                .column("altitude", "Metres above the ellipsoid.", |location| &location.row.altitude)
                .column("speed", "Metres a second.", |location| &location.row.speed)
                .column("heading", "Degrees clockwise from north, 0 <= heading < 360.", |location| {
                    &location.row.heading
                })
                .edge(
                    "session",
                    "The device that recorded it. Null where the viewer may not see it.",
                    One::<Location, NoArguments, session::ById, Session>::nullable(
                        |_| Ok(session::ById),
                        |location, _| Ok(location.row.session_id),
                    ),
                )
                .edge(
                    "user",
                    "Who was there.",
                    One::<Location, NoArguments, user::ById, User>::required(
                        |_| Ok(user::ById),
                        |location, _| Ok(Some(location.row.user_id)),
                    ),
                )
        });
        &OBJECT
    }
}

/// A part of the globe: exactly one of the fields.
#[derive(OneofObject)]
pub enum AreaInput {
    /// Between two meridians and two parallels.
    Box(BoxInput),
    /// Within a distance of a point.
    Circle(CircleInput),
}

/// Between two meridians and two parallels, in degrees, edges included.
#[derive(InputObject)]
pub struct BoxInput {
    /// The western edge.
    west: f64,
    /// The southern edge.
    south: f64,
    /// The eastern edge; smaller than `west` when the box crosses the 180th meridian.
    east: f64,
    /// The northern edge.
    north: f64,
}

/// Within a great-circle distance of a point.
#[derive(InputObject)]
pub struct CircleInput {
    /// The centre, degrees north.
    latitude: f64,
    /// The centre, degrees east.
    longitude: f64,
    /// Metres, more than 0 and at most 20015114, which is half way round the Earth.
    radius: f64,
}

impl AreaInput {
    fn read(&self) -> Result<Area, FieldError> {
        let area = match self {
            Self::Box(area) => Area::in_box(area.west, area.south, area.east, area.north),
            Self::Circle(area) => Area::circle(area.latitude, area.longitude, area.radius),
        };
        area.map_err(|reason| FieldError::bad_input(format!("area: {reason}")))
    }
}

/// Which positions a list has.
#[derive(InputObject, Default)]
pub struct LocationFilter {
    /// Recorded in this time, by the device's clock.
    timestamp: Option<TimeRangeInput>,
    /// Inside this area.
    area: Option<AreaInput>,
    /// On any of these devices' sessions, at most 1000.
    session_ids: Option<Vec<ID>>,
    /// Known to be at least this accurate, in metres.
    max_accuracy: Option<f64>,
}

impl LocationFilter {
    fn read(&self) -> Result<Filter, FieldError> {
        Ok(Filter {
            timestamp: TimeRangeInput::read(self.timestamp.as_ref())?,
            area: self.area.as_ref().map(AreaInput::read).transpose()?,
            session_ids: ids("sessionIds", self.session_ids.as_deref(), SessionId::parse)?,
            max_accuracy: self.max_accuracy,
        })
    }
}

/// The arguments of lists of positions.
#[derive(InputObject)]
pub struct LocationsArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Which positions.
    filter: Option<LocationFilter>,
}

/// The arguments of `Query.latestLocations`.
#[derive(InputObject)]
pub struct LatestArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Only positions inside this area.
    area: Option<AreaInput>,
    /// Only of these accounts, at most 1000.
    user_ids: Option<Vec<ID>>,
}

/// The arguments of `User.track`.
#[derive(InputObject)]
pub struct TrackArgs {
    /// The stretch of time. The tracks of one request may have 100000 points in all before they are thinned.
    range: TimeRangeInput,
    /// Points to keep at most, 2 to 10000.
    #[graphql(default_with = "Some(DEFAULT_TRACK_POINTS)")]
    max_points: Option<i32>,
}

/// Positions by id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ById;

impl Loader for ById {
    const NAME: &'static str = "location.by_ids";
    const SHARED: bool = true;
    type Source = Database;
    type Key = LocationId;
    type Value = Arc<Model>;

    async fn load(self, store: Database, keys: Arc<[LocationId]>) -> Loaded<Self> {
        location::by_ids(&store, &keys).await
    }
}

/// The newest position of users.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct LastOfUsers;

impl Loader for LastOfUsers {
    const NAME: &'static str = "location.last_of_users";
    const SHARED: bool = true;
    type Source = Database;
    type Key = UserId;
    type Value = Arc<Model>;

    async fn load(self, store: Database, keys: Arc<[UserId]>) -> Loaded<Self> {
        location::last_of_users(&store, &keys).await
    }
}

/// The newest position of sessions.
#[derive(Clone, PartialEq, Eq, Hash)]
struct LastOfSessions {
    scope: Scope,
}

impl Loader for LastOfSessions {
    const NAME: &'static str = "location.last_of_sessions";
    type Source = Database;
    type Key = Uuid;
    type Value = Arc<Model>;

    async fn load(self, store: Database, keys: Arc<[Uuid]>) -> Loaded<Self> {
        let newest = Window { limit: 1, backward: false, after: None, before: None };
        let all = Filter::default();
        let pages = location::OF_SESSIONS.pages(&store, &self.scope, &all, &KEYSET, &newest, &keys).await?;
        Ok(pages.into_iter().filter_map(|(id, page)| Some((id, Arc::clone(page.rows.first()?)))).collect())
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct PagesOf {
    list: Positions,
    window: Window,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct CountsOf {
    list: Positions,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Positions {
    of: &'static List<Model, Filter>,
    scope: Scope,
    filter: Filter,
}

impl Loader for PagesOf {
    const NAME: &'static str = "location.pages_of";
    type Source = Database;
    type Key = Uuid;
    type Value = Arc<Page<Model>>;

    async fn load(self, store: Database, keys: Arc<[Uuid]>) -> Loaded<Self> {
        let Positions { of, scope, filter } = &self.list;
        of.pages(&store, scope, filter, &KEYSET, &self.window, &keys).await
    }
}

impl Loader for CountsOf {
    const NAME: &'static str = "location.counts_of";
    type Source = Database;
    type Key = Uuid;
    type Value = i64;

    async fn load(self, store: Database, keys: Arc<[Uuid]>) -> Loaded<Self> {
        let Positions { of, scope, filter } = &self.list;
        of.counts(&store, scope, filter, &keys).await
    }
}

fn bind(
    of: &'static List<Model, Filter>,
    given: &FieldArgs<'_, LocationsArgs>,
    parents: fn(&mut Filter) -> Option<Vec<SessionId>>,
) -> Result<BoundPage<PagesOf, CountsOf, Model>, FieldError> {
    let LocationsArgs { page, filter } = &given.args;
    let filter = filter.as_ref().map(LocationFilter::read).transpose()?.unwrap_or_default();
    let mut cursors = given.lists_of(&filter, parents);
    let window = page.window(&KEYSET, &mut cursors, MAX_POSITIONS)?;
    let list = Positions { of, scope: given.ctx.scope(), filter };
    let (counts, pages) = (CountsOf { list: list.clone() }, PagesOf { list, window });
    Ok(bound(pages, counts, &KEYSET, cursors))
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Latest {
    scope: Scope,
    filter: LatestFilter,
    window: Window,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct LatestCount {
    scope: Scope,
    filter: LatestFilter,
}

impl Loader for Latest {
    const NAME: &'static str = "location.latest";
    type Source = Database;
    type Key = ();
    type Value = Arc<Page<Model>>;

    async fn load(self, store: Database, _: Arc<[()]>) -> Loaded<Self> {
        let page = location::LATEST.page(&store, &self.scope, &self.filter, &KEYSET, &self.window).await?;
        Ok([((), page)].into_iter().collect())
    }
}

impl Loader for LatestCount {
    const NAME: &'static str = "location.latest_count";
    type Source = Database;
    type Key = ();
    type Value = i64;

    async fn load(self, store: Database, _: Arc<[()]>) -> Loaded<Self> {
        Ok([((), location::LATEST.count(&store, &self.scope, &self.filter).await?)].into_iter().collect())
    }
}

/// Tracks, thinned. Those of one request share the points that may be read.
#[derive(Clone)]
struct Tracks {
    scope: Scope,
    range: TimeRange,
    keep: usize,
    taken: Taken,
}

impl Tracks {
    fn asked(&self) -> (Scope, TimeRange, usize) {
        (self.scope, self.range, self.keep)
    }
}

/// A request has one `Taken`, so that does not count.
impl PartialEq for Tracks {
    fn eq(&self, other: &Self) -> bool {
        self.asked() == other.asked()
    }
}

impl Eq for Tracks {}

impl Hash for Tracks {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asked().hash(state);
    }
}

impl Loader for Tracks {
    const NAME: &'static str = "location.tracks";
    type Source = Database;
    type Key = UserId;
    type Value = Arc<[Arc<Model>]>;

    async fn load(self, store: Database, keys: Arc<[UserId]>) -> Loaded<Self> {
        let mut read = self.taken.points().lock().await;
        let most = track::MAX_POINTS.checked_sub(*read).ok_or_else(track::too_many)?;
        let tracks =
            track::Tracks { scope: &self.scope, range: &self.range, users: &keys, keep: self.keep, most };
        let tracks = tracks.read(&store).await;
        // What was too much stays so for the other tracks of the request.
        *read += tracks.as_ref().map_or(most + 1, |(_, points)| *points);
        Ok(tracks?.0.into_iter().map(|(user, rows)| (user, Arc::from(rows))).collect())
    }
}

/// Points that a track may be thinned to at most.
const MAX_TRACK_POINTS: i32 = 10_000;
/// Points that it is thinned to when nothing, or null, is asked for.
const DEFAULT_TRACK_POINTS: i32 = 500;

fn max_points(given: &FieldArgs<'_, TrackArgs>) -> i32 {
    given.args.max_points.unwrap_or(DEFAULT_TRACK_POINTS)
}

/// `User.track`
pub(crate) fn track_of_user() -> impl Edge<User> {
    Many::<User, TrackArgs, Tracks, Location>::new(
        |given| {
            if !(2..=MAX_TRACK_POINTS).contains(&max_points(given)) {
                return Err(FieldError::bad_input(format!(
                    "`maxPoints` must be from 2 to {MAX_TRACK_POINTS}"
                )));
            }
            let range = TimeRangeInput::read(Some(&given.args.range))?;
            let keep = max_points(given).unsigned_abs() as usize;
            Ok(Tracks { scope: given.ctx.scope(), range, keep, taken: given.ctx.bounds.taken.clone() })
        },
        |user, _| Ok(Some(user.id())),
        |rows, _| Ok(rows.to_vec()),
    )
}

/// `User.lastLocation`
pub(crate) fn last_of_user() -> impl Edge<User> {
    One::<User, NoArguments, LastOfUsers, Location>::nullable(
        |_| Ok(LastOfUsers),
        |user, _| Ok(Some(user.id())),
    )
}

/// `Session.lastLocation`
pub(crate) fn last_of_session() -> impl Edge<Session> {
    One::<Session, NoArguments, LastOfSessions, Location>::nullable(
        |given| Ok(LastOfSessions { scope: given.ctx.scope() }),
        |session, _| Ok(Some(session.id().0)),
    )
}

/// `User.locations`
pub(crate) fn locations_of_user() -> impl Edge<User> {
    Pages::<User, LocationsArgs, PagesOf, CountsOf, Location>::new(
        |given| bind(&location::OF_USERS, given, |_| None),
        |user| user.id().0,
    )
    .at_most(MAX_POSITIONS)
}

/// `Session.locations`
pub(crate) fn locations_of_session() -> impl Edge<Session> {
    Pages::<Session, LocationsArgs, PagesOf, CountsOf, Location>::new(
        |given| bind(&location::OF_SESSIONS, given, |filter| filter.session_ids.take()),
        |session| session.id().0,
    )
    .at_most(MAX_POSITIONS)
}

/// `Query.latestLocations`
pub(crate) fn latest_locations() -> impl Edge<Query> {
    Pages::<Query, LatestArgs, Latest, LatestCount, Location>::new(
        |given| {
            let LatestArgs { page, area, user_ids: users } = &given.args;
            let scope = given.ctx.scope();
            let area = area.as_ref().map(AreaInput::read).transpose()?;
            let filter = LatestFilter { area, user_ids: user_ids("userIds", users.as_deref())? };
            let mut cursors = given.list(&filter);
            let window = page.window(&KEYSET, &mut cursors, MAX_POSITIONS)?;
            let counts = LatestCount { scope, filter: filter.clone() };
            Ok(bound(Latest { scope, filter, window }, counts, &KEYSET, cursors))
        },
        |_| (),
    )
    .at_most(MAX_POSITIONS)
}
