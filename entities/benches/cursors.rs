//! What a cursor takes: made of a row, and read and checked again. No SQL.
//! Run: `cargo bench -p entities --bench cursors`.

use std::hint::black_box;

use chrono::DateTime;
use criterion::{Criterion, criterion_group, criterion_main};
use entities::{Role, auth::secret::Secret, database::page::CursorScope, id::UserId, user};
use uuid::Uuid;

fn cursors(criterion: &mut Criterion) {
    let keyset = user::keyset(user::OrderField::CreatedAt, true);
    let scope = CursorScope::new(Secret::new("of the benchmark").cursor_key(), "Query.users null".to_owned());
    let time = DateTime::from_timestamp_micros(1_790_000_000_123_456).expect("a time in 2026");
    let row = user::Row {
        id: UserId(Uuid::from_u128(1)),
        email: "user@example.org".to_owned(),
        display_name: "User".to_owned(),
        role: Role::Editor,
        is_active: true,
        created_at: time,
        updated_at: time,
        last_login: None,
    };
    let text = scope.encode(keyset, Uuid::nil(), &keyset.position(&row));
    let mut group = criterion.benchmark_group("cursor");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| scope.encode(keyset, Uuid::nil(), &keyset.position(black_box(&row))));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut scope = scope.clone();
            let position = scope.read(keyset, black_box(&text));
            (position, scope.check(keyset, Uuid::nil()))
        });
    });
    group.finish();
}

criterion_group!(benches, cursors);
criterion_main!(benches);
