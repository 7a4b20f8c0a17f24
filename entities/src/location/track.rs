//! Thinning of a track by Ramer–Douglas–Peucker. The usual form takes a tolerance and leaves the number of points
//! to chance; a map wants "the 500 points that matter most". So the recursion runs as a queue that always splits at
//! the point that lies farthest off, until enough points are kept: the result is exactly that of the usual form
//! with the tolerance at which it stops.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::{Model, area::EARTH_RADIUS};

/// Points of one user that a track may be thinned from.
pub const MAX_POINTS: u32 = 100_000;
/// Points that are looked at, over and over, before shortcuts are taken: ten times what a real track needs. There are
/// shapes for which the algorithm is quadratic.
const MAX_LOOKS: usize = 10_000_000;
/// Points of a stretch that are looked at from then on.
const SAMPLE: usize = 1_000;
/// The square of a millimetre: what lies no farther off than this lies on the line.
const NOTHING: f64 = 1e-6;

/// The indexes of the `keep` points that matter most, ascending. The first and the last are always among them.
pub fn thin<P: AsRef<Model>>(points: &[P], keep: usize) -> Vec<usize> {
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
    use crate::id::{LocationId, UserId};

    fn at(latitude: f64, longitude: f64) -> std::sync::Arc<Model> {
        let time = crate::clock::now();
        std::sync::Arc::new(Model {
            id: LocationId::new(),
            user_id: UserId::new(),
            session_id: None,
            timestamp: time,
            received_at: time,
            latitude,
            longitude,
            accuracy: None,
            altitude: None,
            speed: None,
            heading: None,
        })
    }

    /// A walk, always the same, across the 180th meridian.
    fn walk(steps: usize) -> Vec<std::sync::Arc<Model>> {
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
    fn it_is_ramer_douglas_peucker_with_the_tolerance_at_which_it_stops() {
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
    fn what_adds_nothing_is_left_out_and_short_tracks_stay_as_they_are() {
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
