//! What thinning a track costs: 100,000 points, as many as a track may be thinned from. Besides a walk, the
//! shape that is worst for the algorithm: each split leaves all but one point on one side.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use entities::{
    id::LocationId,
    location::track::{self, Point},
};

/// A day and more of a device that says where it is once a second.
fn points(place: impl Fn(usize) -> (f64, f64)) -> Vec<Point> {
    let point = |index: usize| {
        let (latitude, longitude) = place(index);
        Point { id: LocationId::new(), latitude, longitude }
    };
    (0..track::MAX_POINTS as usize).map(point).collect()
}

/// Through streets: straight for a while, then round a corner, with the error of the measurement on top.
fn walk(index: usize) -> (f64, f64) {
    let noise = ((index * 7_919) % 101) as f64 / 1e7;
    let (block, step) = (index / 120, (index % 120) as f64 / 1e5);
    let corner = (block / 2) as f64 * 0.0012;
    let (along, across) =
        if block.is_multiple_of(2) { (corner + step, corner) } else { (corner + 0.0012, corner + step) };
    (20.0 + along / 10.0 + noise, 105.0 + across / 10.0 + noise)
}

/// To and fro, each time a little farther: each split leaves all but one point on one side.
fn zigzag(index: usize) -> (f64, f64) {
    let size = 10.0 + index as f64 / 2_000.0;
    (if index.is_multiple_of(2) { size } else { -size }, 0.0)
}

fn thin(criterion: &mut Criterion) {
    for (shape, points) in [("walk", points(walk)), ("worst shape", points(zigzag))] {
        for keep in [500, 10_000] {
            criterion.bench_function(&format!("100,000 points, {shape}, to {keep}"), |bencher| {
                bencher.iter(|| black_box(track::thin(black_box(&points), keep)));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = thin
}
criterion_main!(benches);
