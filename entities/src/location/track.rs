//! Thinning of a track by Ramer–Douglas–Peucker. The usual form takes a tolerance and leaves the number of points
//! to chance; a map wants "the 500 points that matter most". So the recursion runs as a queue that always splits at
//! the point that lies farthest off, until enough points are kept: the result is exactly that of the usual form
//! with the tolerance at which it stops.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::{Model, area::EARTH_RADIUS};

/// Points of one user that a track may be thinned from.
pub const MAX_POINTS: u32 = 100_000;

/// The indexes of the `keep` points that matter most, ascending. The first and the last are always among them.
pub fn thin<P: AsRef<Model>>(points: &[P], keep: usize) -> Vec<usize> {
    if points.len() <= keep.max(2) {
        return (0..points.len()).collect();
    }
    let plane = project(points);
    let mut kept = vec![0, points.len() - 1];
    let mut queue = BinaryHeap::new();
    queue.extend(Span::between(&plane, 0, points.len() - 1));
    while kept.len() < keep.max(2) {
        let Some(span) = queue.pop() else { break };
        kept.push(span.farthest);
        queue.extend(Span::between(&plane, span.start, span.farthest));
        queue.extend(Span::between(&plane, span.farthest, span.end));
    }
    kept.sort_unstable();
    kept
}

/// Metres on a plane that touches the globe at the first point. Longitudes are unrolled, so a track across the
/// 180th meridian stays in one piece.
fn project<P: AsRef<Model>>(points: &[P]) -> Vec<(f64, f64)> {
    let origin = points[0].as_ref();
    let scale = origin.latitude.to_radians().cos();
    points
        .iter()
        .map(|point| {
            let point = point.as_ref();
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
    /// None when nothing lies off the line: such points add nothing.
    fn between(plane: &[(f64, f64)], start: usize, end: usize) -> Option<Self> {
        let line = (plane[start], plane[end]);
        let (farthest, distance) = (start + 1..end)
            .map(|index| (index, distance_squared(plane[index], line)))
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
        (distance > 0.0).then_some(Self { start, end, farthest, distance })
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
