//! Recording positions: which points are plausible, the id that a point keeps however often it is sent, and the insert
//! that stores each once. Any transaction that stores positions goes through `store`: a batch from a device does, and a
//! form that was filled in somewhere does. Not here: reading them (`location`).

use std::ops::RangeInclusive;

use chrono::{SubsecRound as _, TimeDelta};
use rustc_hash::FxHashSet;
use sea_orm::{
    EntityName as _, IdenStatic as _, Iterable as _, QueryTrait, Set, Value,
    entity::prelude::*,
    sea_query::{Alias, ArrayType, ExprTrait, OnConflict},
};

use super::{ActiveModel, Column, Entity, last};
use crate::{
    activity::{Action, ActivityEntry},
    clock::{self, Time},
    database::sql::{Cells, Sql},
    error::Error,
    events::ChangeEvent,
    id::{LocationId, NodeKind, SessionId, UserId},
    store::{Store, transaction::Transaction},
    unicode,
};

/// A point as a device sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPosition {
    /// The device's own name for the point; none: it is known by its time and position.
    pub client_id: Option<String>,
    /// Device time.
    pub timestamp: Time,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Metres, 68 %.
    pub accuracy: Option<f64>,
    /// Metres.
    pub altitude: Option<f64>,
    /// Metres a second.
    pub speed: Option<f64>,
    /// Degrees from north.
    pub heading: Option<f64>,
}

/// Whose positions they are, and on which device they were recorded.
#[derive(Clone, Copy, Debug)]
pub struct RecordedBy {
    /// The account.
    pub user: UserId,
    /// The device's session, if it has one.
    pub session: Option<SessionId>,
}

/// What is wrong with a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field, as it is called in the graph.
    pub field: &'static str,
    /// In which way.
    pub kind: FaultKind,
    /// The rule, in a sentence.
    pub rule: &'static str,
}

/// In which way a value cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It is no such value at all.
    Invalid,
    /// It is above, after or longer than what is possible.
    TooLarge,
    /// It is below what is possible.
    TooSmall,
}

/// How far a device's clock may be ahead.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// Bytes of a point's own name at most.
const MAX_CLIENT_ID_BYTES: usize = 200;
const LARGEST: f64 = f64::MAX;
/// The largest number below 360.
const BELOW_360: f64 = 360.0_f64.next_down();

impl NewPosition {
    /// Everything that is wrong with the point; nothing: it can be stored.
    pub fn faults(&self, now: Time) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |field, kind, rule| faults.push(Fault { field, kind, rule });
        match self.client_id.as_ref().map_or(1, String::len) {
            0 => fault("clientId", FaultKind::Invalid, "A client id is not empty."),
            1..=MAX_CLIENT_ID_BYTES => {}
            _ => fault("clientId", FaultKind::TooLarge, "A client id has at most 200 bytes."),
        }
        if self.timestamp > now + MAX_AHEAD {
            let rule = "A position is at most 5 minutes in the future.";
            fault("timestamp", FaultKind::TooLarge, rule);
        }
        let mut number = |field, value: Option<f64>, range: RangeInclusive<f64>, rule| {
            let Some(value) = value.filter(|value| !range.contains(value)) else { return };
            fault(
                field,
                if value > *range.end() {
                    FaultKind::TooLarge
                } else if value < *range.start() {
                    FaultKind::TooSmall
                } else {
                    FaultKind::Invalid
                },
                rule,
            );
        };
        number("latitude", Some(self.latitude), -90.0..=90.0, "Latitudes are from -90 to 90 degrees.");
        number("longitude", Some(self.longitude), -180.0..=180.0, "Longitudes are from -180 to 180 degrees.");
        number("accuracy", self.accuracy, 0.0..=LARGEST, "An accuracy is 0 metres or more.");
        number("altitude", self.altitude, -LARGEST..=LARGEST, "An altitude is a number.");
        number("speed", self.speed, 0.0..=LARGEST, "A speed is 0 metres a second or more.");
        number(
            "heading",
            self.heading,
            0.0..=BELOW_360,
            "Headings are 0 degrees or more, and less than 360.",
        );
        faults
    }

    /// The id of this point: the same whenever this user sends it again. Laid out like a UUID version 7 of the device's
    /// time, so that points are stored in the order in which they were recorded; its other 74 bits are a hash of the
    /// user, the exact time, and the device's own name for the point or else its position.
    fn id(&self, user: UserId) -> LocationId {
        let time = cut(self.timestamp);
        let mut hasher = blake3::Hasher::new_derive_key("XP Graph 2026-11 location id v1");
        hasher.update(user.0.as_bytes()).update(&time.timestamp_micros().to_be_bytes());
        match &self.client_id {
            Some(name) => hasher.update(b"n").update(unicode::composed(name).as_bytes()),
            None => hasher
                .update(b"p")
                .update(&plain(self.latitude).to_be_bytes())
                .update(&plain(self.longitude).to_be_bytes()),
        };
        let mut random = [0; 10];
        hasher.finalize_xof().fill(&mut random);
        // Before 1970 there is no version 7.
        let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
        LocationId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

/// To microseconds, as the database keeps it.
fn cut(time: Time) -> Time {
    time.trunc_subsecs(6)
}

/// There is one zero.
fn plain(number: f64) -> f64 {
    number + 0.0
}

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its id.
    pub id: LocationId,
    /// Stored now; otherwise it was there already, or stands further ahead in the same batch.
    pub is_new: bool,
}

/// Records points of a device; the outcomes are in the order of the points, each of which must be free of faults. If
/// all were there already, nothing is written.
///
/// # Errors
/// The database's.
pub async fn record(
    store: &Store,
    recorder: RecordedBy,
    points: &[NewPosition],
) -> Result<Vec<Recorded>, Error> {
    if points.is_empty() {
        return Ok(Vec::new());
    }
    let mut transaction = Transaction::begin(store).await?;
    let recorded = self::store(&mut transaction, recorder, points).await?;
    let accepted = recorded.iter().filter(|point| point.is_new).count();
    if accepted > 0 {
        let metadata = serde_json::json!({"accepted": accepted, "duplicates": recorded.len() - accepted});
        let (user, subject) = (Some(recorder.user), Some((NodeKind::User, recorder.user.0)));
        let results = || recorded.iter().map(|point| (point.id.0, point.is_new)).collect::<Vec<_>>();
        transaction.results_in(|| serde_json::json!(results()));
        transaction.commit(ActivityEntry { user, action: Action::LocationRecord, subject, metadata }).await?;
    }
    Ok(recorded)
}

/// Stores points inside a transaction, and says what became of each.
pub(crate) async fn store(
    transaction: &mut Transaction,
    recorder: RecordedBy,
    points: &[NewPosition],
) -> Result<Vec<Recorded>, Error> {
    let ids: Vec<LocationId> = points.iter().map(|point| point.id(recorder.user)).collect();
    let mut rows: Vec<LocationRow<'_>> =
        ids.iter().zip(points).map(|(id, point)| LocationRow { id: *id, point }).collect();
    // In one order: two batches with the same points that come at once wait for each other, and do not lock up.
    // Sorting is stable, so of equal points the first one counts.
    rows.sort_by_key(|row| row.id);
    rows.dedup_by_key(|row| row.id);
    let received = clock::now();
    let mut stored: FxHashSet<LocationId> = FxHashSet::default();
    let rows_a_statement = if transaction.sql().is_postgres() { rows.len() } else { SQLITE_ROWS };
    for rows in rows.chunks(rows_a_statement.max(1)) {
        let sql = insert(transaction, recorder, received, rows);
        let read = |cells: &mut Cells<'_>| cells.next::<LocationId>();
        stored.extend(transaction.fetch("location.insert", Entity.table_name(), sql, read).await?);
    }
    let new = rows.iter().filter(|row| stored.contains(&row.id));
    if let Some(newest) = new.max_by_key(|row| (cut(row.point.timestamp), row.id)) {
        let replace = replace_last(recorder, received, newest);
        if transaction.write("location.replace_last", last::Entity, &replace).await? > 0 {
            transaction.changed(ChangeEvent::LastLocation { id: newest.id, user: recorder.user });
        } else {
            transaction.changed(ChangeEvent::Locations { user: recorder.user });
        }
    }
    // Removing says which of equal points came first.
    Ok(ids.into_iter().map(|id| Recorded { id, is_new: stored.remove(&id) }).collect())
}

struct LocationRow<'a> {
    id: LocationId,
    point: &'a NewPosition,
}

/// Rows of a statement on SQLite, which has no arrays: 8 values each, of 32,766 at most.
const SQLITE_ROWS: usize = 500;

/// The columns in the order of the values of `unnested`.
const COLUMNS: [Column; 11] = [
    Column::Id,
    Column::UserId,
    Column::SessionId,
    Column::Timestamp,
    Column::ReceivedAt,
    Column::Latitude,
    Column::Longitude,
    Column::Accuracy,
    Column::Altitude,
    Column::Speed,
    Column::Heading,
];

/// A statement that stores rows that are not there yet, and answers the ids of those that it stored.
fn insert(transaction: &Transaction, recorder: RecordedBy, received: Time, rows: &[LocationRow<'_>]) -> Sql {
    let mut sql = transaction.sql();
    if !sql.is_postgres() {
        let rows = rows.iter().map(|row| row.values(recorder, received));
        let mut insert = Entity::insert_many(rows).on_conflict(OnConflict::new().do_nothing().to_owned());
        QueryTrait::query(&mut insert).returning_col(Column::Id);
        return transaction.build(&insert);
    }
    for (index, column) in COLUMNS.iter().enumerate() {
        sql.push(if index == 0 { "INSERT INTO user_locations (" } else { ", " }).push(column.as_str());
    }
    sql.push(") ");
    unnested(&mut sql, recorder, received, rows);
    sql.push(" ON CONFLICT DO NOTHING RETURNING ").push(Column::Id.as_str());
    sql
}

/// One array a column, which the builders do not know: one statement, prepared once, for every number of rows.
fn unnested(
    sql: &mut Sql,
    RecordedBy { user, session }: RecordedBy,
    received: Time,
    rows: &[LocationRow<'_>],
) {
    let array = |of, value: &dyn Fn(&LocationRow<'_>) -> Value| {
        Value::Array(of, Some(Box::new(rows.iter().map(value).collect())))
    };
    // An array as the driver takes it has no nulls; NaN is no measurement.
    let numbers = |value: &dyn Fn(&NewPosition) -> Option<f64>| {
        array(ArrayType::Double, &|row| value(row.point).unwrap_or(f64::NAN).into())
    };
    sql.push("SELECT p.id, ").bind(user).push("::uuid, ").bind(session).push("::uuid, p.time, ");
    sql.bind(received).push("::timestamptz, p.latitude, p.longitude, nullif(p.accuracy, 'NaN'), ");
    sql.push("nullif(p.altitude, 'NaN'), nullif(p.speed, 'NaN'), nullif(p.heading, 'NaN') FROM unnest(");
    let times = array(ArrayType::ChronoDateTimeUtc, &|row| cut(row.point.timestamp).into());
    sql.bind(array(ArrayType::Uuid, &|row| row.id.0.into())).push(", ").bind(times);
    for column in [
        numbers(&|point| Some(plain(point.latitude))),
        numbers(&|point| Some(plain(point.longitude))),
        numbers(&|point| point.accuracy),
        numbers(&|point| point.altitude),
        numbers(&|point| point.speed),
        numbers(&|point| point.heading),
    ] {
        sql.push(", ").bind(column);
    }
    sql.push(") AS p(id, time, latitude, longitude, accuracy, altitude, speed, heading)");
}

impl LocationRow<'_> {
    fn values(&self, RecordedBy { user, session }: RecordedBy, received: Time) -> ActiveModel {
        let Self { id, point } = self;
        ActiveModel {
            id: Set(*id),
            user_id: Set(user),
            session_id: Set(session),
            timestamp: Set(cut(point.timestamp)),
            received_at: Set(received),
            latitude: Set(plain(point.latitude)),
            longitude: Set(plain(point.longitude)),
            accuracy: Set(point.accuracy),
            altitude: Set(point.altitude),
            speed: Set(point.speed),
            heading: Set(point.heading),
        }
    }
}

/// Makes the point the newest of its user, unless there is a newer one by the device's time.
fn replace_last(recorder: RecordedBy, received: Time, row: &LocationRow<'_>) -> impl QueryTrait + use<> {
    let LocationRow { id, point } = row;
    let newest = last::ActiveModel {
        user_id: Set(recorder.user),
        id: Set(*id),
        session_id: Set(recorder.session),
        timestamp: Set(cut(point.timestamp)),
        received_at: Set(received),
        latitude: Set(plain(point.latitude)),
        longitude: Set(plain(point.longitude)),
        accuracy: Set(point.accuracy),
        altitude: Set(point.altitude),
        speed: Set(point.speed),
        heading: Set(point.heading),
    };
    let others = last::Column::iter().filter(|column| !matches!(column, last::Column::UserId));
    let place = |table| {
        Expr::tuple(
            [last::Column::Timestamp, last::Column::Id].map(|column| Expr::col((Alias::new(table), column))),
        )
    };
    let is_newer = ExprTrait::gt(place("excluded"), place(last::Entity.table_name()));
    let replace =
        OnConflict::column(last::Column::UserId).update_columns(others).action_and_where(is_newer).to_owned();
    last::Entity::insert(newest).on_conflict(replace)
}
