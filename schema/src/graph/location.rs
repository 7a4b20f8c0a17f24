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
    database::{page::Keyset, scope::Scope},
    id::{LocationId, SessionId, UserId},
    location::{self, Area, Filter, KEYSET, LatestFilter, Model, track},
};

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        edges::Edges as _,
        input::{TimeRangeInput, ids},
        list::{Listed, Lists, uuids},
        node::{NODE, node_id},
        query::Query,
        session::Session,
        subgraph::Domain,
        user::{User, user_ids},
    },
};
use engine::{
    batch::{Loaded, Loader},
    bounds::Taken,
    connection::PageArgs,
    context::Context,
    edge::{FieldArgs, Many},
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

node_id!(LocationId, Location, location::BY_IDS);

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
                .maybe(
                    "session",
                    "The device that recorded it. Null where the viewer may not see it.",
                    |location| location.row.session_id,
                )
                .one("user", "Who was there.", |location| location.row.user_id)
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

impl Lists for LocationsArgs {
    type Object = Location;
    type Filter = Filter;

    const MAX_ROWS: u32 = MAX_POSITIONS;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<Filter, FieldError> {
        Ok(self.filter.as_ref().map(LocationFilter::read).transpose()?.unwrap_or_default())
    }

    fn order(&self) -> &'static Keyset<Model> {
        &KEYSET
    }
}

impl Lists for LatestArgs {
    type Object = Location;
    type Filter = LatestFilter;

    const MAX_ROWS: u32 = MAX_POSITIONS;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<LatestFilter, FieldError> {
        let area = self.area.as_ref().map(AreaInput::read).transpose()?;
        Ok(LatestFilter { area, user_ids: user_ids("userIds", self.user_ids.as_deref())? })
    }

    fn order(&self) -> &'static Keyset<Model> {
        &KEYSET
    }
}

/// `User.locations`
pub(crate) static OF_USERS: Listed<User, LocationsArgs> =
    Listed::of(&location::OF_USERS, |user: &User| user.id().into());

/// `Session.locations`
pub(crate) static OF_SESSIONS: Listed<Session, LocationsArgs> =
    Listed::of(&location::OF_SESSIONS, |session: &Session| session.id().into())
        .naming(|filter: &mut Filter| uuids(filter.session_ids.take()));

/// `Query.latestLocations`
pub(crate) static LATEST: Listed<Query, LatestArgs> =
    Listed::whole(&location::LATEST).reaching(Scope::of_managers);

/// The arguments of `User.track`.
#[derive(InputObject)]
pub struct TrackArgs {
    /// The stretch of time. The tracks of one request may have 100000 points in all before they are thinned.
    range: TimeRangeInput,
    /// Points to keep at most, 2 to 10000.
    #[graphql(default_with = "Some(DEFAULT_TRACK_POINTS)")]
    max_points: Option<i32>,
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
