//! The engine's own time: W2's shape (50 users, each with five sessions and three forms) from rows in memory, by
//! this crate's executor and by the library's derives; documents by text and from the cache; the batcher; cursors.
//! No HTTP and no SQL. Run: `cargo bench -p schema --features bench --bench engine`.

use std::hint::black_box;

use async_graphql::Variables;
use criterion::{Criterion, criterion_group, criterion_main};
use entities::{DatabaseConfig, Store, auth::secret::Secret, database::page::CursorScope, user};
use prometheus_client::registry::Registry;
use schema::{Graph, Options, Request, Viewer, fake::Both};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

const W2: &str = "{
  users(first: 50) {
    nodes {
      id displayName email
      sessions(first: 5) {
        nodes { id ipAddress userAgent isActive createdAt lastActivity expiresAt }
      }
      forms(first: 3) {
        nodes { id title status version submissionCount createdAt }
      }
    }
  }
}";

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

fn w2(criterion: &mut Criterion) {
    let runtime = runtime();
    let both = runtime.block_on(Both::connect());
    let none = Variables::default;
    let document = runtime.block_on(both.read(W2, &none())).expect("W2 is valid");
    let ours = runtime.block_on(both.ours(&document, none()));
    let theirs = runtime.block_on(both.theirs(&document, none()));
    let value =
        |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).expect("JSON")["data"].clone();
    assert_eq!(value(&ours), value(&theirs));
    eprintln!("the answer has {} bytes", ours.len());
    let mut group = criterion.benchmark_group("w2");
    group.bench_function("executor", |bencher| {
        bencher.iter(|| runtime.block_on(both.ours(black_box(&document), none())));
    });
    group.bench_function("derives", |bencher| {
        bencher.iter(|| runtime.block_on(both.theirs(black_box(&document), none())));
    });
    group.finish();
}

/// Everything of a request but the execution: all root fields are skipped. By its text, new and known, and by its id,
/// which is what whoever looked it up has at hand.
fn documents(criterion: &mut Criterion) {
    let runtime = runtime();
    let graph = runtime.block_on(async {
        let config = DatabaseConfig {
            url: "sqlite::memory:".to_owned(),
            max_connections: 1,
            acquire_timeout: std::time::Duration::from_secs(5),
        };
        let mut registry = Registry::default();
        let store = Store::connect(&config, &mut registry).await.expect("SQLite opens a database in memory");
        Graph::new(store, Options::default(), &mut registry)
    });
    let text = W2.replacen("users(first: 50)", "users(first: 50) @skip(if: $never)", 1);
    let text = format!("query($never: Boolean = true) {text}");
    let execute = |query: String| {
        runtime.block_on(graph.execute(Viewer::Service, Request { query, ..Request::default() }))
    };
    let reply = execute(text.clone());
    assert_eq!(reply.body, b"{\"data\":{}}");
    let mut group = criterion.benchmark_group("document");
    group.bench_function("known", |bencher| bencher.iter(|| execute(black_box(text.clone()))));
    let by_id = runtime.block_on(graph.prepare(&text)).expect("W2 is valid");
    group.bench_function("by id", |bencher| {
        bencher.iter(|| {
            let document = std::sync::Arc::clone(black_box(&by_id));
            runtime.block_on(graph.execute_document(Viewer::Service, document, Request::default()))
        });
    });
    let mut number = 0_u64;
    group.bench_function("new", |bencher| {
        bencher.iter(|| {
            number += 1;
            execute(format!("{text}#{number}"))
        });
    });
    group.finish();
}

fn batcher(criterion: &mut Criterion) {
    let runtime = runtime();
    let both = runtime.block_on(Both::connect());
    let mut group = criterion.benchmark_group("batcher");
    group.bench_function("1000 loads", |bencher| {
        bencher.iter(|| runtime.block_on(both.load_one_by_one(1_000)));
    });
    group.bench_function("1 load", |bencher| bencher.iter(|| runtime.block_on(both.load_one_by_one(1))));
    group.finish();
}

fn cursors(criterion: &mut Criterion) {
    let keyset = user::keyset(user::OrderField::CreatedAt, true);
    let scope = CursorScope::new(Secret::new("of the benchmark").cursor_key(), "Query.users null".to_owned());
    let row = schema::fake::a_user();
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

criterion_group!(benches, w2, documents, batcher, cursors);
criterion_main!(benches);
