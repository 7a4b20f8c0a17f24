//! The engine's own time: 50 users, each with five sessions and three forms, from rows in memory, by the
//! engine and by the library's derives; documents by text and by id; the batcher. No HTTP and no SQL. Run:
//! `cargo bench -p engine --bench engine`.

use std::{hint::black_box, sync::Arc};

use async_graphql::Variables;
use criterion::{Criterion, criterion_group, criterion_main};
use engine::output::Errors;
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};

#[path = "../tests/derives/both.rs"]
mod both;
#[path = "../tests/derives/derived.rs"]
mod derived;
#[path = "../tests/derives/domain.rs"]
mod domain;

use both::Both;
use domain::{Query, UserById, user_id};

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

/// Beside its objects a document is nothing but this: all root fields are skipped.
const SKIPPED: &str = "query($never: Boolean = true) { users(first: 50) @skip(if: $never) ";

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

fn w2(criterion: &mut Criterion) {
    let (runtime, both) = (runtime(), Both::new());
    let document = both.executor.prepare(W2).expect("W2 is valid");
    let ours = || async {
        let ctx = both.context();
        let answer = both.executor.run(&document, None, Variables::default(), Query, &ctx, Errors::default());
        answer.await.expect("it runs").finished(&Arc::default(), &ctx.bounds).out.into_vec()
    };
    let theirs = || both.theirs(&document, Variables::default());
    let value =
        |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).expect("JSON")["data"].clone();
    assert_eq!(value(&runtime.block_on(ours())), value(&runtime.block_on(theirs())));
    eprintln!("the answer has {} bytes", runtime.block_on(ours()).len());
    let mut group = criterion.benchmark_group("w2");
    group.bench_function("executor", |bencher| bencher.iter(|| runtime.block_on(black_box(ours()))));
    group.bench_function("derives", |bencher| bencher.iter(|| runtime.block_on(black_box(theirs()))));
    group.finish();
}

/// Everything of a request but what it loads. By its text, new and known, and prepared, which is what whoever
/// looked it up by its id has at hand.
fn documents(criterion: &mut Criterion) {
    let (runtime, both) = (runtime(), Both::new());
    let text = W2.replacen("{\n  users(first: 50)", SKIPPED, 1);
    let execute = |text: &str| {
        runtime.block_on(both.executor.execute(text, Variables::default(), Query, &both.context()))
    };
    assert_eq!(execute(&text), b"{\"data\":{}}");
    let mut group = criterion.benchmark_group("document");
    group.bench_function("known", |bencher| bencher.iter(|| execute(black_box(&text))));
    let by_id = both.executor.prepare(&text).expect("W2 is valid");
    group.bench_function("by id", |bencher| {
        bencher.iter(|| {
            let ctx = both.context();
            let (variables, errors) = (Variables::default(), Errors::default());
            let answer = both.executor.run(black_box(&by_id), None, variables, Query, &ctx, errors);
            runtime.block_on(answer).expect("it runs").finished(&Arc::default(), &ctx.bounds).out
        });
    });
    let mut number = 0_u64;
    group.bench_function("new", |bencher| {
        bencher.iter(|| {
            number += 1;
            execute(&format!("{text}#{number}"))
        });
    });
    group.finish();
}

/// Loads in one request, each by a future of its own.
fn batcher(criterion: &mut Criterion) {
    let (runtime, both) = (runtime(), Both::new());
    let load = |count: usize| {
        let batcher = both.context().batcher;
        let loads = (0..count).map(|index| batcher.load(UserById, user_id(index)));
        runtime.block_on(batcher.drive(join_all(loads))).len()
    };
    let mut group = criterion.benchmark_group("batcher");
    group.bench_function("1000 loads", |bencher| bencher.iter(|| load(black_box(1_000))));
    group.bench_function("1 load", |bencher| bencher.iter(|| load(black_box(1))));
    group.finish();
}

criterion_group!(benches, w2, documents, batcher);
criterion_main!(benches);
