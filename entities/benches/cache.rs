//! What the cache costs: a row that is held in this process, with its stamps checked; a hundred rows from Redis, with
//! theirs; a bump. Run it with `cargo bench -p entities --bench cache`; it starts a Redis of its own (`redis-server`
//! must be in the PATH). The database is SQLite in memory, and is not asked.

use std::{
    hint::black_box,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use entities::{
    CacheOptions, DatabaseOptions, Store, Tag,
    id::LocationId,
    location,
    redis::{Redis, RedisUrl},
};
use prometheus_client::registry::Registry;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::runtime::Runtime;

/// A Redis that ends with the run.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn redis() -> (Server, RedisUrl) {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let port = free.port().to_string();
    let server = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is in the PATH");
    (Server(server), format!("redis://127.0.0.1:{port}").parse().expect("a URL"))
}

/// A seeded database in memory, and the ids of a hundred accounts' newest positions and of some forms.
async fn seeded() -> (Store, Vec<LocationId>) {
    let config = DatabaseOptions::at("sqlite::memory:");
    let store = Store::connect(&config, &mut Registry::default()).await.expect("memory is there");
    migration::up(store.connection()).await.expect("the steps run");
    seed::run(&store, seed::Size::S, &mut |_| {}).await.expect("the demo data is loaded");
    let sql = "select id from user_locations limit 100";
    let statement = Statement::from_string(DbBackend::Sqlite, sql);
    let rows = store.connection().query_all_raw(statement).await.expect("there are positions");
    let ids = rows.iter().map(|row| LocationId(row.try_get_by_index(0).expect("an id"))).collect();
    (store, ids)
}

fn with_cache(store: &Store, redis: Option<&RedisUrl>, max_bytes: u64) -> Store {
    let mut registry = Registry::default();
    let redis = redis.map(|url| Redis::new(url, &mut registry));
    let config = CacheOptions { max_bytes, ..CacheOptions::default() };
    store.clone().with_cache(&config, redis, &mut registry)
}

async fn timed<T>(times: u64, run: impl AsyncFn() -> T) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        black_box(run().await);
    }
    began.elapsed()
}

async fn settled(store: Store) -> Store {
    while !store.cache().has_lease() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store
}

fn cache(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (_server, url) = redis();
    let (store, ids) = runtime.block_on(seeded());
    assert_eq!(ids.len(), 100);
    let held = runtime.block_on(async {
        let held = with_cache(&store, None, 64 << 20);
        location::by_ids(&held, &ids).await.expect("they are there");
        held
    });
    let mut group = criterion.benchmark_group("cache");
    for count in [1, 100] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("held here, {count} rows"), |bencher| {
            let ids = &ids[..count];
            bencher.iter_custom(|times| {
                runtime.block_on(timed(times, async || {
                    location::by_ids(&held, ids).await.expect("they are held").len()
                }))
            });
        });
    }
    let shared = runtime.block_on(async { settled(with_cache(&store, Some(&url), 0)).await });
    runtime.block_on(async {
        location::by_ids(&shared, &ids).await.expect("they are there");
        // They are stored beside the request.
        tokio::time::sleep(Duration::from_millis(200)).await;
    });
    group.throughput(Throughput::Elements(100));
    // An instance that has no room, and a reader whose token is of another table: everything comes from Redis, with its
    // stamps.
    let reader = shared.not_before("1.1".parse().expect("a moment"));
    group.bench_function("from Redis, 100 rows and their stamps", |bencher| {
        bencher.iter_custom(|times| {
            runtime.block_on(timed(times, async || {
                location::by_ids(&reader, &ids).await.expect("Redis is there").len()
            }))
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("bump of three tags", |bencher| {
        let tags = [Tag::Type("Bench"), Tag::Named("one".to_owned()), Tag::Named("two".to_owned())];
        bencher
            .to_async(&runtime)
            .iter(async || shared.cache().invalidate_by_tag(&tags).await.expect("told"));
    });
    group.finish();
}

criterion_group!(benches, cache);
criterion_main!(benches);
