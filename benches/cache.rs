//! What the cache is worth, and what it costs when Redis dies: the workloads with the cache off, cold and
//! warm, by turns in one run; the hit rate of a skewed load with writes; requests while Redis is killed and
//! started again; the memory of ten million tags. `benches/run cache` starts the PostgreSQL for it and fills
//! it; `redis-server` must be in the PATH. `benches/run cache zipf` runs one part. Not a test: it says how
//! long things took.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    io::Write as _,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use entities::{
    CacheOptions, DatabaseOptions, Store, Tag,
    id::LocationId,
    location,
    redis::{Redis, RedisUrl},
};
use futures_util::future::join_all;
use prometheus_client::{encoding::text::encode, registry::Registry};
use schema::{Graph, Options, Reply, Request, Viewer};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use uuid::Uuid;

/// Slices of each mode, and how long one takes.
const SLICES: usize = 5;
const SLICE: Duration = Duration::from_secs(1);
/// Accounts that the workloads draw from.
const ACCOUNTS: usize = 200;

const PARTS: [&str; 4] = ["workloads", "zipf", "outage", "tags"];

#[tokio::main]
async fn main() {
    let parts: Vec<String> = env::args().skip(1).filter(|part| PARTS.contains(&part.as_str())).collect();
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let url =
        env::var("DATABASE_URL").expect("DATABASE_URL names a seeded PostgreSQL; see `benches/run cache`");
    let config = DatabaseOptions {
        max_connections: 8,
        acquire_timeout: Duration::from_secs(10),
        ..DatabaseOptions::at(url)
    };
    let store = Store::connect(&config, &mut Registry::default()).await.expect("a database");
    if wants("workloads") {
        workloads(&store).await;
    }
    if wants("zipf") {
        zipf(&store).await;
    }
    if wants("outage") {
        outage(&store).await;
    }
    if wants("tags") {
        tags(&store).await;
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A Redis on a port of its own; ends with the run.
struct Server {
    port: u16,
    process: Option<Child>,
}

impl Server {
    async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let mut server = Self { port: free.port(), process: None };
        server.launch().await;
        server
    }

    async fn launch(&mut self) {
        let port = self.port.to_string();
        let process = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is in the PATH");
        self.process = Some(process);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An instance with a cache, and its figures.
struct Node {
    store: Store,
    registry: Registry,
}

impl Node {
    async fn on(store: &Store, server: &Server) -> Self {
        let mut registry = Registry::default();
        let url: RedisUrl = format!("redis://127.0.0.1:{}", server.port).parse().expect("a URL");
        let redis = Redis::new(&url, &mut registry);
        let store = store.clone().with_cache(&CacheOptions::default(), Some(redis), &mut registry);
        let instance = Self { store, registry };
        instance.settle().await;
        instance
    }

    async fn settle(&self) {
        while !self.store.cache().has_lease() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn sum(&self, name: &str, parts: &[&str]) -> u64 {
        let mut metrics = String::new();
        encode(&mut metrics, &self.registry).expect("metrics are text");
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        let lines = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

fn graph(store: &Store) -> Graph {
    Graph::new(store.clone(), Options::default(), &mut Registry::default())
}

async fn ids(store: &Store, sql: &str) -> Vec<Uuid> {
    let statement = Statement::from_string(store.connection().get_database_backend(), sql);
    let rows = store.connection().query_all_raw(statement).await.expect("the statement runs");
    rows.iter().map(|row| row.try_get_by_index(0).expect("an id")).collect()
}

fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let at = (times.len().saturating_sub(1) as f64 * share) as usize;
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// One workload: its document, and the variables of its requests.
struct Workload {
    name: &'static str,
    query: &'static str,
    variables: Vec<Value>,
    /// As a published document, whose whole answers are kept.
    is_trusted: bool,
}

async fn run(graph: &Graph, query: &str, variables: &Value, cache_tags: bool) -> Reply {
    let variables = serde_json::from_value(variables.clone()).expect("an object");
    let request = Request { query: query.to_owned(), variables, cache_tags, ..Request::default() };
    let reply = graph.execute(Viewer::Service, request).await;
    assert!(reply.executed && reply.codes.is_empty(), "{:?}", reply.codes);
    reply
}

async fn workloads(store: &Store) {
    let server = Server::start().await;
    let accounts = ids(store, &format!("select id from users order by id limit {ACCOUNTS}")).await;
    let w2 = include_str!("../playground/operations/w2.graphql");
    let everyone: Vec<Value> =
        accounts.iter().take(100).map(|id| json!({"__typename": "User", "id": id})).collect();
    let all = [
        Workload {
            name: "W1",
            query: include_str!("../playground/operations/w1.graphql"),
            variables: accounts.iter().map(|id| json!({ "id": id })).collect(),
            is_trusted: false,
        },
        Workload {
            name: "W2",
            query: w2,
            variables: vec![json!({ "users": 50, "sessions": 5, "forms": 3 })],
            is_trusted: false,
        },
        Workload {
            name: "W3",
            query: include_str!("../playground/operations/w3.graphql"),
            variables: vec![json!({ "representations": everyone })],
            is_trusted: false,
        },
        Workload {
            name: "W5",
            query: w2,
            variables: vec![json!({ "users": 50, "sessions": 5, "forms": 3 })],
            is_trusted: true,
        },
    ];
    say(
        "One request at a time, µs (p50 / p99), and its SQL statements; in process: rows held here; Redis: shared by nodes",
    );
    say("      cache off           in process, cold    in process, warm    Redis, cold         Redis, warm");
    let alone = store.clone().with_cache(&CacheOptions::default(), None, &mut Registry::default());
    for workload in all {
        let shared = Node::on(store, &server).await;
        let mut line = format!("{}  ", workload.name);
        let modes =
            [(store, false), (&alone, true), (&alone, false), (&shared.store, true), (&shared.store, false)];
        let modes: Vec<(Graph, &Store, bool)> =
            modes.into_iter().map(|(store, is_cold)| (graph(store), store, is_cold)).collect();
        let mut expected = None;
        for (graph, ..) in &modes {
            if workload.is_trusted {
                graph.prepare(workload.query).unwrap_or_else(|_| panic!("{}", workload.name)).trust();
            }
            for variables in &workload.variables {
                let body = run(graph, workload.query, variables, false).await.body.into_vec();
                if workload.variables.len() == 1 {
                    assert_eq!(expected.get_or_insert_with(|| body.clone()), &body, "all modes answer alike");
                }
            }
        }
        let mut times = vec![(Vec::new(), 0_u64); modes.len()];
        for _ in 0..SLICES {
            for ((graph, store, is_cold), (times, statements)) in modes.iter().zip(&mut times) {
                slice(graph, store, &workload, *is_cold, times, statements).await;
            }
        }
        for (mut times, statements) in times {
            let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
            let each = statements as f64 / times.len() as f64;
            let cell = format!("{p50:.0} / {p99:.0}, {each:.1}");
            write!(line, "{cell:20}").expect("texts take everything");
        }
        say(&line);
    }
}

async fn slice(
    graph: &Graph,
    store: &Store,
    workload: &Workload,
    is_cold: bool,
    times: &mut Vec<Duration>,
    statements: &mut u64,
) {
    let until = Instant::now() + SLICE;
    let mut next = 0;
    while Instant::now() < until {
        let variables = &workload.variables[next % workload.variables.len()];
        next += 1;
        if is_cold {
            let dependencies =
                run(graph, workload.query, variables, true).await.dependencies.expect("it was asked for");
            let tags: Vec<Tag> = dependencies.tags().cloned().collect();
            store.cache().invalidate_by_tag(&tags).await;
        }
        let began = Instant::now();
        let reply = run(graph, workload.query, variables, false).await;
        times.push(began.elapsed());
        *statements += u64::from(reply.statements);
    }
}

/// Reads of rows whose popularity falls with their rank, and writes to two in a hundred of the rows that are drawn.
async fn zipf(store: &Store) {
    const ROWS: usize = 100_000;
    const DRAWS: usize = 1_000_000;
    const BATCH: usize = 10;
    let server = Server::start().await;
    let rows: Vec<LocationId> = ids(store, &format!("select id from user_locations limit {ROWS}"))
        .await
        .into_iter()
        .map(LocationId)
        .collect();
    let mut sum = 0.0;
    let shares: Vec<f64> = (1..=rows.len())
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let draw = || rows[shares.partition_point(|share| *share < fastrand::f64() * sum).min(rows.len() - 1)];
    let instances = [Node::on(store, &server).await, Node::on(store, &server).await];
    say(&format!("Zipf 1.0 over {} rows on two nodes, 2 % writes, {BATCH} rows a read", rows.len()));
    for round in ["first million draws (nothing held before)", "second million draws"] {
        let before: Vec<_> = instances.iter().map(found).collect();
        let began = Instant::now();
        for _ in 0..DRAWS / BATCH {
            let instance = &instances[fastrand::usize(..2)].store;
            let keys: Vec<LocationId> = (0..BATCH).map(|_| draw()).collect();
            location::by_ids(instance, &keys).await.expect("the read succeeds");
            let written: Vec<Tag> = keys
                .iter()
                .filter(|_| fastrand::u8(..50) == 0)
                .map(|id| Tag::Row("Location", id.0))
                .collect();
            instance.cache().invalidate_by_tag(&written).await;
        }
        let after = instances.iter().map(found);
        let (mut asked, mut local, mut shared) = (0, 0, 0);
        for (before, after) in before.into_iter().zip(after) {
            asked += after.0 - before.0;
            local += after.1 - before.1;
            shared += after.2 - before.2;
        }
        let share = |part: u64| 100.0 * part as f64 / asked as f64;
        say(&format!(
            "  {round}: {:.1} % found ({:.1} % here, {:.1} % in Redis), in {:.0?}",
            share(local + shared),
            share(local),
            share(shared),
            began.elapsed()
        ));
    }
}

/// Rows asked for, found here, and found in Redis.
fn found(instance: &Node) -> (u64, u64, u64) {
    let count = |parts: &[&str]| instance.sum("cache_requests_total", parts);
    (
        count(&["tier=\"local\""]),
        count(&["tier=\"local\"", "result=\"hit\""]),
        count(&["tier=\"redis\"", "result=\"hit\""]),
    )
}

/// 500 requests a second while Redis is killed and started again.
async fn outage(store: &Store) {
    const CLIENTS: usize = 8;
    const PAUSE: Duration = Duration::from_millis(16);
    const PHASE: Duration = Duration::from_secs(10);
    let mut server = Server::start().await;
    let accounts = ids(store, &format!("select id from users order by id limit {ACCOUNTS}")).await;
    let instance = Node::on(store, &server).await;
    let (without, with) = (graph(store), graph(&instance.store));
    let query = "query($id: ID!) { user(id: $id) { displayName forms(first: 3) { nodes { title submissionCount } } sessions(first: 3) { nodes { id } } } }";
    let (phase, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let times: Mutex<BTreeMap<u64, Vec<Duration>>> = Mutex::default();
    let failed = AtomicU64::new(0);
    let client = async || {
        while !done.load(Ordering::Relaxed) {
            let variables =
                serde_json::from_value(json!({ "id": fastrand::choice(&accounts) })).expect("an object");
            let request = Request { query: query.to_owned(), variables, ..Request::default() };
            let now = phase.load(Ordering::Relaxed);
            let began = Instant::now();
            let graph = if now == 0 { &without } else { &with };
            let reply = graph.execute(Viewer::Service, request).await;
            let took = began.elapsed();
            failed.fetch_add(u64::from(!reply.executed || !reply.codes.is_empty()), Ordering::Relaxed);
            times.lock().expect("nobody panics here").entry(now).or_default().push(took);
            tokio::time::sleep(PAUSE.saturating_sub(took)).await;
        }
    };
    let (mut opened, mut back) = (None, None);
    let hits = || instance.sum("cache_requests_total", &["result=\"hit\""]);
    let script = async {
        tokio::time::sleep(PHASE).await;
        phase.store(1, Ordering::Relaxed);
        tokio::time::sleep(PHASE).await;
        phase.store(2, Ordering::Relaxed);
        let before = hits();
        tokio::time::sleep(PHASE).await;
        let a_phase = hits() - before;
        phase.store(3, Ordering::Relaxed);
        let killed = Instant::now();
        server.kill();
        while opened.is_none() && killed.elapsed() < PHASE {
            tokio::time::sleep(Duration::from_millis(1)).await;
            opened = (instance.sum("circuit_breaker_state", &[]) > 0).then(|| killed.elapsed());
        }
        tokio::time::sleep(PHASE.saturating_sub(killed.elapsed())).await;
        server.launch().await;
        phase.store(4, Ordering::Relaxed);
        let started = Instant::now();
        while started.elapsed() < 3 * PHASE {
            let before = hits();
            tokio::time::sleep(PHASE / 20).await;
            if back.is_none() && hits() - before >= a_phase / 20 * 9 / 10 {
                back = Some(started.elapsed());
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    let clients = join_all((0..CLIENTS).map(|_| client()));
    tokio::join!(clients, script);
    say(&format!("500 requests a second; failed: {}", failed.into_inner()));
    let names = ["without a cache", "cache fills", "before", "Redis is dead", "Redis is back"];
    for (phase, mut times) in times.into_inner().expect("nobody panics here") {
        let count = times.len();
        say(&format!(
            "  {:16} {count:6} requests, p50 {:6.0} µs, p99 {:6.0} µs",
            names[phase as usize],
            quantile(&mut times, 0.5),
            quantile(&mut times, 0.99)
        ));
    }
    say(&format!(
        "  the breaker opened after {opened:.0?}; nine tenths of the hits were back after {back:.1?}"
    ));
}

/// Ten million different tags.
async fn tags(store: &Store) {
    let server = Server::start().await;
    let instance = Node::on(store, &server).await;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::trim).map(ToOwned::to_owned));
        line.unwrap_or_else(|| "unknown".to_owned())
    };
    let (before, began) = (resident(), Instant::now());
    for part in 0..100_u128 {
        let tags: Vec<Tag> =
            (0..100_000).map(|number| Tag::Row("Bench", Uuid::from_u128((part << 64) | number))).collect();
        instance.store.cache().invalidate_by_tag(&tags).await.expect("Redis is there");
    }
    let cli = |arguments: &[&str]| {
        let output =
            Command::new("redis-cli").args(["-p", &server.port.to_string()]).args(arguments).output();
        String::from_utf8_lossy(&output.expect("redis-cli comes with redis-server").stdout).trim().to_owned()
    };
    say(&format!(
        "10 million tags in {:.1?}: table {} bytes, log {} entries of {} bytes; this process {before} before, {} after",
        began.elapsed(),
        cli(&["strlen", "g:{xp}"]),
        cli(&["xlen", "l:{xp}"]),
        cli(&["memory", "usage", "l:{xp}"]),
        resident()
    ));
}
