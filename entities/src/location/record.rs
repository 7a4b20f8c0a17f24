//! Recording positions: which points are plausible, the id that a point keeps however often it is sent, and the insert
//! that stores each once. Any transaction that stores positions goes through `store`: a batch from a device does, and a
//! form that was filled in somewhere does. Not here: reading them (`location`).

use std::ops::RangeInclusive;

use chrono::{SubsecRound as _, TimeDelta};
use rustc_hash::FxHashSet;
use sea_orm::{Value, sea_query::ArrayType};

use super::LAST;
use crate::{
    activity::{Action, Entry},
    clock::{self, Time},
    database::{
        kind::Kind,
        sql::{Cells, Record as _, Sql},
        transaction::Transaction,
    },
    error::Error,
    events::Change,
    id::{LocationId, SessionId, UserId},
    store::Store,
    unicode,
};

/// A point as a device sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
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
pub struct Recorder {
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

impl Point {
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
pub async fn record(store: &Store, recorder: Recorder, points: &[Point]) -> Result<Vec<Recorded>, Error> {
    if points.is_empty() {
        return Ok(Vec::new());
    }
    let mut transaction = Transaction::begin(store).await?;
    let recorded = self::store(&mut transaction, recorder, points).await?;
    let accepted = recorded.iter().filter(|point| point.is_new).count();
    if accepted > 0 {
        let metadata = serde_json::json!({"accepted": accepted, "duplicates": recorded.len() - accepted});
        let (user, subject) = (Some(recorder.user), Some((Kind::User, recorder.user.0)));
        transaction.commit(Entry { user, action: Action::LocationRecord, subject, metadata }).await?;
    }
    Ok(recorded)
}

/// The same inside a transaction.
pub(crate) async fn store(
    transaction: &mut Transaction,
    recorder: Recorder,
    points: &[Point],
) -> Result<Vec<Recorded>, Error> {
    let ids: Vec<LocationId> = points.iter().map(|point| point.id(recorder.user)).collect();
    let mut rows: Vec<Row<'_>> = ids.iter().zip(points).map(|(id, point)| Row { id: *id, point }).collect();
    // In one order: two batches with the same points that come at once wait for each other, and do not lock up.
    // Sorting is stable, so of equal points the first one counts.
    rows.sort_by_key(|row| row.id);
    rows.dedup_by_key(|row| row.id);
    let received = clock::now();
    let mut stored: FxHashSet<LocationId> = FxHashSet::default();
    let rows_a_statement = if transaction.sql().is_postgres() { rows.len() } else { SQLITE_ROWS };
    for rows in rows.chunks(rows_a_statement.max(1)) {
        let sql = insert(transaction.sql(), recorder, received, rows);
        let read = |cells: &mut Cells<'_>| cells.next::<LocationId>();
        stored.extend(transaction.fetch("location.insert", super::Model::TABLE, sql, read).await?);
    }
    let new = rows.iter().filter(|row| stored.contains(&row.id));
    if let Some(newest) = new.max_by_key(|row| (cut(row.point.timestamp), row.id)) {
        let sql = replace_last(transaction.sql(), recorder, received, newest);
        if transaction.execute("location.replace_last", LAST, sql).await? > 0 {
            transaction.changed(Change::LastLocation { id: newest.id, user: recorder.user });
        }
    }
    // Removing says which of equal points came first.
    Ok(ids.into_iter().map(|id| Recorded { id, is_new: stored.remove(&id) }).collect())
}

struct Row<'a> {
    id: LocationId,
    point: &'a Point,
}

/// Rows of a statement on SQLite, which has no arrays: 8 values each, of 32,766 at most.
const SQLITE_ROWS: usize = 500;

const COLUMNS: &str = "id, user_id, session_id, \"timestamp\", received_at, latitude, longitude, accuracy, altitude, speed, heading";

fn insert(mut sql: Sql, recorder: Recorder, received: Time, rows: &[Row<'_>]) -> Sql {
    sql.push("INSERT INTO user_locations (").push(COLUMNS).push(") ");
    if sql.is_postgres() {
        unnested(&mut sql, recorder, received, rows);
    } else {
        sql.push("VALUES ");
        for (index, row) in rows.iter().enumerate() {
            sql.push(if index > 0 { ", (" } else { "(" });
            row.bind(&mut sql, recorder, received);
            sql.push(")");
        }
    }
    sql.push(" ON CONFLICT DO NOTHING RETURNING id");
    sql
}

/// One array a column: one statement, prepared once, for every number of rows.
fn unnested(sql: &mut Sql, Recorder { user, session }: Recorder, received: Time, rows: &[Row<'_>]) {
    let array = |of, value: &dyn Fn(&Row<'_>) -> Value| {
        Value::Array(of, Some(Box::new(rows.iter().map(value).collect())))
    };
    // An array as the driver takes it has no nulls; NaN is no measurement.
    let numbers = |value: &dyn Fn(&Point) -> Option<f64>| {
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

impl Row<'_> {
    /// The values in the order of `COLUMNS`.
    fn bind(&self, sql: &mut Sql, Recorder { user, session }: Recorder, received: Time) {
        let Self { id, point } = self;
        sql.bind(*id).push(", ").bind(user).push(", ").bind(session).push(", ");
        sql.bind(cut(point.timestamp)).push(", ").bind(received);
        let measured = [point.accuracy, point.altitude, point.speed, point.heading];
        for value in [Some(plain(point.latitude)), Some(plain(point.longitude))].into_iter().chain(measured) {
            sql.push(", ").bind(value);
        }
    }
}

/// Makes the point the newest of its user, unless there is a newer one by the device's time.
fn replace_last(mut sql: Sql, recorder: Recorder, received: Time, row: &Row<'_>) -> Sql {
    sql.push("INSERT INTO user_last_locations (").push(COLUMNS).push(") VALUES (");
    row.bind(&mut sql, recorder, received);
    sql.push(") ON CONFLICT (user_id) DO UPDATE SET id = excluded.id, session_id = excluded.session_id, ");
    sql.push("\"timestamp\" = excluded.\"timestamp\", received_at = excluded.received_at, ");
    sql.push("latitude = excluded.latitude, longitude = excluded.longitude, accuracy = excluded.accuracy, ");
    sql.push("altitude = excluded.altitude, speed = excluded.speed, heading = excluded.heading ");
    sql.push("WHERE (excluded.\"timestamp\", excluded.id) > (user_last_locations.\"timestamp\", user_last_locations.id)");
    sql
}
