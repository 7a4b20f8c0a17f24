//! Tracks: a stretch of time, thinned by Ramer–Douglas–Peucker. The usual form takes a tolerance and leaves
//! the number of points to chance; a map wants "the 500 points that matter most". So the recursion runs as a
//! queue that always splits at the point that lies farthest off, until enough points are kept: the result is
//! exactly that of the usual form with the tolerance at which it stops.
//!
//! Reading takes little memory, however long the track: first only what thinning needs of each point
//! (`Point`), then the rows of the points that are kept. A few tracks are thinned at a time, on a thread of
//! their own.

use std::{cmp::Ordering, collections::BinaryHeap, sync::Arc};

use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use super::{Column, Entity, Model, area::EARTH_RADIUS};
use crate::{
    clock::{Time, TimeRange},
    database::{
        scope::Scope,
        sql::{Cells, Record as _, Sql},
    },
    error::Error,
    id::{LocationId, UserId},
    store::Store,
};

/// Points that all tracks of one request together may be thinned from.
pub const MAX_POINTS: u32 = 100_000;
/// Tracks that are read and thinned at a time, all requests together; others wait.
static AT_ONCE: Semaphore = Semaphore::const_new(2);
/// Points in one statement at most where rows do not come one by one (SQLite). Each of its connections has a
/// thread, whose allocator keeps what the largest statement took.
const CHUNK: u32 = 1_000;
/// Rows of kept points in one statement.
const KEPT_CHUNK: usize = 1_000;
/// Points that are looked at, over and over, before shortcuts are taken: ten times what a real track needs. There are
/// shapes for which the algorithm is quadratic.
const MAX_LOOKS: usize = 10_000_000;
/// Points of a stretch that are looked at from then on.
const SAMPLE: usize = 1_000;
/// The square of a millimetre: what lies no farther off than this lies on the line.
const NOTHING: f64 = 1e-6;

/// What thinning needs of a position.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The row.
    pub id: LocationId,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

/// Which tracks are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Tracks<'a> {
    /// The viewer's.
    pub scope: &'a Scope,
    /// The stretch of time.
    pub range: &'a TimeRange,
    /// Whose.
    pub users: &'a [UserId],
    /// Points of each at most, at least 2.
    pub keep: usize,
    /// Points that may be read for all of them.
    pub most: u32,
}

impl Tracks<'_> {
    /// The points that matter most of each account's track, oldest first, and how many points were read for that.
    ///
    /// # Errors
    /// `Refused` where there are more points than may be read; else the database's.
    pub async fn read(&self, store: &Store) -> Result<(FxHashMap<UserId, Vec<Arc<Model>>>, u32), Error> {
        let turn = AT_ONCE.acquire().await.expect("it is never closed");
        let points = if store.sql().is_postgres() {
            self.points_at_once(store).await?
        } else {
            self.points_in_chunks(store).await?
        };
        let read = points.iter().map(|(_, points)| points.len() as u32).sum();
        let keep = self.keep;
        let thinned = move || {
            let thin = |(_, points): (UserId, Vec<Point>)| {
                let kept = thin(&points, keep);
                kept.into_iter().map(|index| points[index].id).collect::<Vec<_>>()
            };
            let kept: Vec<LocationId> = points.into_iter().flat_map(thin).collect();
            // Held until the points are gone, even where nobody waits for them any more.
            drop(turn);
            kept
        };
        let kept = tokio::task::spawn_blocking(thinned).await;
        let kept = kept.map_err(|_| Error::Refused("the track could not be thinned".to_owned()))?;
        Ok((self.rows(store, &kept).await?, read))
    }

    /// Rows arrive one by one, and only their points are kept. Text: the builders know no `unnest(…) AS p(id)`.
    async fn points_at_once(&self, store: &Store) -> Result<Vec<(UserId, Vec<Point>)>, Error> {
        let most = i64::from(self.most) + 1;
        let mut sql = store.sql();
        sql.push("SELECT p.id, c.* FROM ").parents(self.users);
        sql.push(" CROSS JOIN LATERAL (");
        sql.select::<Entity>(&[Column::Id, Column::Latitude, Column::Longitude]);
        sql.filter(Column::UserId).push(" = p.id");
        self.push(&mut sql);
        sql.push(" ORDER BY ")
            .column(Column::Timestamp)
            .push(", ")
            .column(Column::Id)
            .push(" LIMIT ")
            .bind(most)
            .push(") c LIMIT ")
            .bind(most);
        let read = |cells: &mut Cells<'_>| {
            let user = cells.next()?;
            let (id, latitude, longitude) = (cells.next()?, cells.next()?, cells.next()?);
            Ok((user, Point { id, latitude, longitude }))
        };
        let mut tracks = Gathered::of(self.most);
        for (user, point) in store.fetch(NAME, Model::table(), sql, read).await? {
            tracks.add(user, point);
        }
        tracks.finish()
    }

    /// A statement's rows are all in memory at once, so each reads a part: from the last account to the
    /// first. Text, as all batch reads (`benches/statements.rs`).
    async fn points_in_chunks(&self, store: &Store) -> Result<Vec<(UserId, Vec<Point>)>, Error> {
        let mut tracks = Gathered::of(self.most);
        let mut users = self.users.to_vec();
        let mut last: Option<(UserId, Time, LocationId)> = None;
        loop {
            let mut sql = store.sql();
            let position = [Column::UserId, Column::Timestamp, Column::Id];
            let columns = [&position[..], &[Column::Latitude, Column::Longitude]].concat();
            sql.select::<Entity>(&columns).filter(Column::UserId).any_id(&users);
            self.push(&mut sql);
            if let Some((user, time, id)) = last {
                sql.push(" AND (").column(Column::UserId).push(" <> ").bind(user).push(" OR (");
                sql.column(Column::Timestamp).push(", ").column(Column::Id).push(") > (").bind(time);
                sql.push(", ").bind(id).push("))");
            }
            sql.push(" ORDER BY ").column(Column::UserId).push(" DESC, ").column(Column::Timestamp);
            sql.push(", ").column(Column::Id).push(" LIMIT ").bind(i64::from(CHUNK));
            let read = |cells: &mut Cells<'_>| {
                let (user, time, id) = (cells.next()?, cells.next()?, cells.next()?);
                let (latitude, longitude) = (cells.next()?, cells.next()?);
                Ok((user, time, Point { id, latitude, longitude }))
            };
            let rows = store.fetch(NAME, Model::table(), sql, read).await?;
            let is_full = rows.len() == CHUNK as usize;
            for (user, time, point) in rows {
                last = Some((user, time, point.id));
                tracks.add(user, point);
            }
            let Some((user, ..)) = last.filter(|_| is_full && tracks.fits()) else {
                return tracks.finish();
            };
            users.retain(|other| other.0 <= user.0);
        }
    }

    /// The rows of the kept points, in the order of time.
    async fn rows(
        &self,
        store: &Store,
        kept: &[LocationId],
    ) -> Result<FxHashMap<UserId, Vec<Arc<Model>>>, Error> {
        let mut tracks: FxHashMap<UserId, Vec<Arc<Model>>> =
            self.users.iter().map(|user| (*user, Vec::new())).collect();
        for ids in kept.chunks(KEPT_CHUNK) {
            let mut sql = store.sql();
            sql.push("SELECT ").push(Model::COLUMNS).from(Model::table());
            sql.filter(Column::UserId).any_id(self.users).and(Column::Id).any_id(ids);
            self.push(&mut sql);
            let rows = store.fetch("location.track_points", Model::table(), sql, Model::read).await?;
            for row in rows {
                tracks.entry(row.user_id).or_default().push(Arc::new(row));
            }
        }
        for track in tracks.values_mut() {
            track.sort_unstable_by_key(|row| (row.timestamp, row.id.0));
        }
        Ok(tracks)
    }

    fn push(&self, sql: &mut Sql) {
        self.scope.push_own(sql, Column::UserId, self.scope.manages());
        sql.within(Column::Timestamp, self.range);
    }
}

const NAME: &str = "location.tracks";

/// The points that have come so far, by account.
struct Gathered {
    tracks: Vec<(UserId, Vec<Point>)>,
    left: Option<u32>,
}

impl Gathered {
    fn of(most: u32) -> Self {
        Self { tracks: Vec::new(), left: Some(most) }
    }

    /// The points of an account come one after the other.
    fn add(&mut self, user: UserId, point: Point) {
        self.left = self.left.and_then(|left| left.checked_sub(1));
        if !self.fits() {
            return;
        }
        match self.tracks.last_mut() {
            Some((last, points)) if *last == user => points.push(point),
            _ => self.tracks.push((user, vec![point])),
        }
    }

    fn fits(&self) -> bool {
        self.left.is_some()
    }

    fn finish(self) -> Result<Vec<(UserId, Vec<Point>)>, Error> {
        if self.fits() { Ok(self.tracks) } else { Err(too_many()) }
    }
}

/// What is said where tracks have more points than may be read for one request.
pub fn too_many() -> Error {
    Error::Refused(format!(
        "the tracks of this request have more than {MAX_POINTS} points: ask for shorter ranges"
    ))
}

/// The indexes of the `keep` points that matter most, ascending. The first and the last are always among them.
pub fn thin(points: &[Point], keep: usize) -> Vec<usize> {
    if points.len() <= keep.max(2) {
        return (0..points.len()).collect();
    }
    let mut spans = Spans { plane: project(points), queue: BinaryHeap::new(), looks: 0 };
    spans.thin(keep.max(2))
}

/// Stretches that may still be split.
struct Spans {
    plane: Vec<(f64, f64)>,
    queue: BinaryHeap<Span>,
    /// How many points were looked at.
    looks: usize,
}

impl Spans {
    fn thin(&mut self, keep: usize) -> Vec<usize> {
        let last = self.plane.len() - 1;
        let mut kept = vec![0, last];
        self.add(0, last);
        while kept.len() < keep {
            let Some(span) = self.queue.pop() else { break };
            kept.push(span.farthest);
            self.add(span.start, span.farthest);
            self.add(span.farthest, span.end);
        }
        kept.sort_unstable();
        kept
    }

    /// `end` lies after `start`.
    fn add(&mut self, start: usize, end: usize) {
        // Odd, or of what goes to and fro only one side would be seen.
        let step = if self.looks < MAX_LOOKS { 1 } else { (end - start).div_ceil(SAMPLE) | 1 };
        self.looks += (end - start) / step;
        self.queue.extend(Span::between(&self.plane, start, end, step));
    }
}

/// Metres on a plane that touches the globe at the first point. Longitudes are unrolled, so a track across the
/// 180th meridian stays in one piece.
fn project(points: &[Point]) -> Vec<(f64, f64)> {
    let origin = points[0];
    let scale = origin.latitude.to_radians().cos();
    points
        .iter()
        .map(|point| {
            let mut east = point.longitude - origin.longitude;
            if east > 180.0 {
                east -= 360.0;
            } else if east < -180.0 {
                east += 360.0;
            }
            (
                east.to_radians() * scale * EARTH_RADIUS,
                (point.latitude - origin.latitude).to_radians() * EARTH_RADIUS,
            )
        })
        .collect()
}

/// A stretch between two kept points, and the point in it that lies farthest off the straight line.
struct Span {
    start: usize,
    end: usize,
    farthest: usize,
    distance: f64,
}

impl Span {
    /// None when nothing lies off the line: such points add nothing. Looks at each `step`th point.
    fn between(plane: &[(f64, f64)], start: usize, end: usize, step: usize) -> Option<Self> {
        let line = (plane[start], plane[end]);
        let (farthest, distance) = (start + 1..end)
            .step_by(step)
            .map(|index| (index, distance_squared(plane[index], line)))
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
        (distance > NOTHING).then_some(Self { start, end, farthest, distance })
    }
}

fn distance_squared(point: (f64, f64), (a, b): ((f64, f64), (f64, f64))) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 { ((point.0 - a.0) * dx + (point.1 - a.1) * dy) / length } else { 0.0 };
    let along = along.clamp(0.0, 1.0);
    let (x, y) = (point.0 - a.0 - along * dx, point.1 - a.1 - along * dy);
    x * x + y * y
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Span {}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Span {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(other.farthest.cmp(&self.farthest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(latitude: f64, longitude: f64) -> Point {
        Point { id: LocationId::new(), latitude, longitude }
    }

    /// A walk, always the same, across the 180th meridian.
    fn walk(steps: usize) -> Vec<Point> {
        let (mut state, mut latitude, mut longitude) = (7_u64, 52.0, 179.9);
        let mut draw = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1_u32 << 31) - 0.45
        };
        (0..steps)
            .map(|_| {
                latitude += draw() / 1_000.0;
                longitude += draw() / 500.0;
                if longitude > 180.0 {
                    longitude -= 360.0;
                }
                at(latitude, longitude)
            })
            .collect()
    }

    /// The form of the textbook: recursive, by tolerance.
    fn by_tolerance(plane: &[(f64, f64)], start: usize, end: usize, squared: f64, kept: &mut Vec<usize>) {
        if let Some(span) = Span::between(plane, start, end, 1).filter(|span| span.distance > squared) {
            by_tolerance(plane, start, span.farthest, squared, kept);
            kept.push(span.farthest);
            by_tolerance(plane, span.farthest, end, squared, kept);
        }
    }

    #[test]
    fn thinning_is_ramer_douglas_peucker() {
        let points = walk(3_000);
        let plane = project(&points);
        for keep in [2, 3, 10, 100, 1_000] {
            let kept = thin(&points, keep);
            assert_eq!((kept.len(), kept[0], kept[kept.len() - 1]), (keep, 0, points.len() - 1));
            // The farthest that any point lies off is the tolerance.
            let spans = kept.windows(2).filter_map(|pair| Span::between(&plane, pair[0], pair[1], 1));
            let squared = spans.map(|span| span.distance).fold(0.0, f64::max);
            let mut wanted = vec![0];
            by_tolerance(&plane, 0, points.len() - 1, squared, &mut wanted);
            wanted.push(points.len() - 1);
            // What lay farther off when it was reached is kept by both; ours may keep points that lie nearer.
            assert!(wanted.iter().all(|index| kept.contains(index)), "{keep}");
            let longest = kept.windows(2).map(|pair| (plane[pair[1]].0 - plane[pair[0]].0).abs());
            assert!(longest.fold(0.0, f64::max) < 1_000_000.0, "no step leads round the globe");
        }
    }

    #[test]
    fn no_shape_makes_it_slow() {
        // To and fro, each time a little farther: each split leaves all but one point on one side.
        let points: Vec<_> = (0..30_000)
            .map(|step| at(if step % 2 == 0 { 1.0 } else { -1.0 } * (10.0 + f64::from(step) / 1_000.0), 0.0))
            .collect();
        let mut spans = Spans { plane: project(&points), queue: BinaryHeap::new(), looks: 0 };
        let kept = spans.thin(10_000);
        assert_eq!(kept.len(), 10_000);
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
        assert!((MAX_LOOKS..2 * MAX_LOOKS + points.len()).contains(&spans.looks), "{} looks", spans.looks);
    }

    #[test]
    fn thinning_drops_redundant_points_and_keeps_short_tracks() {
        let straight: Vec<_> = (0..100).map(|step| at(0.0, f64::from(step) / 100.0)).collect();
        assert_eq!(thin(&straight, 50), [0, 99]);
        let still: Vec<_> = (0..100).map(|_| at(10.0, 10.0)).collect();
        assert_eq!(thin(&still, 50), [0, 99]);
        assert_eq!(thin(&straight[..3], 3), [0, 1, 2]);
        assert_eq!(thin(&straight[..1], 2), [0]);
        assert!(thin(&straight[..0], 2).is_empty());
        let pole: Vec<_> = (0..100).map(|step| at(90.0, f64::from(step) * 3.6 - 180.0)).collect();
        assert!(thin(&pole, 50).len() <= 50);
    }
}
