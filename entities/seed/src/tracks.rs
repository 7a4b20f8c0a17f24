//! Positions: walks and drives around a few cities, and the newest position of each account. Some tracks arrive
//! days late, as from a phone that had no network.

use std::{collections::BTreeMap, f64::consts::TAU};

use entities::Error;
use uuid::Uuid;

use crate::{
    Counts, DAY, HOUR, Micros, SECOND,
    people::People,
    random::Random,
    sink::{Cell, Loader, Target},
};

/// A recorded position.
#[derive(Clone)]
pub(crate) struct Fix {
    pub(crate) id: Uuid,
    /// Index of the session, which knows the account.
    pub(crate) session: usize,
    pub(crate) at: Micros,
    pub(crate) received: Micros,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    pub(crate) accuracy: f64,
    pub(crate) altitude: Option<f64>,
    pub(crate) speed: Option<f64>,
    pub(crate) heading: Option<f64>,
}

/// One walk or drive.
struct Track {
    session: usize,
    start: Micros,
    points: usize,
    driving: bool,
}

/// Hà Nội, Đà Nẵng, Thành phố Hồ Chí Minh, Huế, Cần Thơ, London, Singapore.
const CITIES: [(f64, f64); 7] = [
    (21.0285, 105.8542),
    (16.0544, 108.2022),
    (10.7769, 106.7009),
    (16.4637, 107.5909),
    (10.0452, 105.7469),
    (51.5074, -0.1278),
    (1.3521, 103.8198),
];

const METRES_PER_DEGREE: f64 = 111_320.0;

const COLUMNS: [&str; 11] = [
    "user_id",
    "id",
    "session_id",
    "timestamp",
    "received_at",
    "latitude",
    "longitude",
    "accuracy",
    "altitude",
    "speed",
    "heading",
];

/// A point in one of the cities.
pub(crate) fn somewhere(random: &mut Random) -> (f64, f64) {
    near_home(random.below(CITIES.len()), random)
}

/// A point in the city where this account lives.
pub(crate) fn near_home(user: usize, random: &mut Random) -> (f64, f64) {
    let (latitude, longitude) = CITIES[user % CITIES.len()];
    let (angle, metres) = (random.float(0.0, TAU), 8_000.0 * random.unit());
    step(latitude, longitude, angle, metres)
}

/// Writes the positions of submissions, then tracks until there are as many positions as planned, then the newest
/// of each account.
pub(crate) async fn load(
    loader: &mut Loader<'_>,
    counts: Counts,
    people: &People,
    filled_in_at: Vec<Fix>,
) -> Result<(), Error> {
    const HISTORY: Target = Target { table: "user_locations", columns: &COLUMNS };
    const LAST: Target = Target { table: "user_last_locations", columns: &COLUMNS };

    let tracks = plan(counts.locations.saturating_sub(filled_in_at.len()), people);
    let mut random = Random::of("points");
    let mut newest: BTreeMap<usize, Fix> = BTreeMap::new();
    let fixes = filled_in_at
        .into_iter()
        .chain(tracks.iter().flat_map(|track| walk(track, people, &mut random)))
        .take(counts.locations);
    let rows = fixes.map(|fix| {
        let row = row(&fix, people);
        let last = newest.entry(people.sessions[fix.session].user).or_insert_with(|| fix.clone());
        if (last.at, last.id) < (fix.at, fix.id) {
            *last = fix;
        }
        row
    });
    loader.load(&HISTORY, counts.locations, rows).await?;
    loader.load(&LAST, newest.len(), newest.values().map(|fix| row(fix, people))).await
}

/// Every account that records at all gets one track; what is left goes to whoever is signed in most.
fn plan(mut points: usize, people: &People) -> Vec<Track> {
    let mut random = Random::of("tracks");
    let working = people.working();
    let mut seen = vec![false; people.users.len()];
    // In an order of no meaning, so that an account's one track may lie anywhere in its time.
    let mixed = (0..working.len()).map(|index| working[index * 7_919 % working.len()]);
    let one_of_each: Vec<usize> =
        mixed.filter(|index| !std::mem::replace(&mut seen[people.sessions[*index].user], true)).collect();
    let mut sessions = one_of_each.into_iter();
    let mut tracks = Vec::new();
    while points > 0 {
        let session = sessions.next().unwrap_or_else(|| *random.pick(&working));
        let (from, to) = (people.sessions[session].created, people.sessions[session].last_activity);
        let length = (random.between(8, 70) as usize).min(points);
        points -= length;
        tracks.push(Track {
            session,
            // Half an hour before the end of the data, so that the track ends in time.
            start: random.between(from, to).min(people.now - HOUR / 2),
            points: length,
            driving: random.chance(0.4),
        });
    }
    tracks.sort_by_key(|track| (track.start, track.session));
    tracks
}

fn walk(track: &Track, people: &People, random: &mut Random) -> Vec<Fix> {
    let interval = if track.driving { 5 * SECOND } else { 15 * SECOND };
    let (slowest, fastest) = if track.driving { (4.0, 17.0) } else { (0.7, 1.9) };
    let (mut latitude, mut longitude) = near_home(people.sessions[track.session].user, random);
    let (mut angle, mut at) = (random.float(0.0, TAU), track.start);
    let altitude = random.chance(0.8).then(|| random.float(2.0, 60.0));
    let late = random.chance(0.05).then(|| random.between(HOUR, 3 * DAY));
    (0..track.points)
        .map(|_| {
            at += interval + random.between(-SECOND, SECOND);
            let speed = random.float(slowest, fastest);
            angle = (angle + random.float(-0.4, 0.4)).rem_euclid(TAU);
            (latitude, longitude) = step(latitude, longitude, angle, speed * interval as f64 / SECOND as f64);
            let delay = late.unwrap_or_else(|| random.between(SECOND / 5, 5 * SECOND));
            Fix {
                id: random.id(at),
                session: track.session,
                at,
                received: (at + delay).min(people.now).max(at),
                latitude,
                longitude,
                accuracy: random.between(30, 250) as f64 / 10.0,
                altitude: altitude.map(|metres| tenths(metres + random.float(-1.0, 1.0))),
                speed: Some(tenths(speed)),
                heading: Some((angle.to_degrees() * 10.0).floor() / 10.0),
            }
        })
        .collect()
}

/// This many metres further on, to a millionth of a degree (11 cm).
fn step(latitude: f64, longitude: f64, angle: f64, metres: f64) -> (f64, f64) {
    let north = metres * angle.cos() / METRES_PER_DEGREE;
    let east = metres * angle.sin() / (METRES_PER_DEGREE * latitude.to_radians().cos());
    let round = |degrees: f64| (degrees * 1e6).round() / 1e6;
    (round(latitude + north), round(longitude + east))
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn row(fix: &Fix, people: &People) -> [Cell; 11] {
    let session = &people.sessions[fix.session];
    [
        people.users[session.user].id.into(),
        fix.id.into(),
        session.id.into(),
        Cell::Time(fix.at),
        Cell::Time(fix.received),
        fix.latitude.into(),
        fix.longitude.into(),
        fix.accuracy.into(),
        fix.altitude.into(),
        fix.speed.into(),
        fix.heading.into(),
    ]
}
