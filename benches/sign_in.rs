//! What signing in costs and tells: are accounts told from unknown ones by the time of the answer, and do
//! others still get in while somebody guesses? Run it with `cargo bench --bench sign_in`; on SQLite in a file
//! of its own, or on an empty database of `DATABASE_URL`. Not a test: it says how long things took.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use entities::{DatabaseOptions, Store};
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use schema::{Caller, Graph, Options, Request, Viewer};
use serde_json::{Value, json};

/// Samples of each kind of account.
const SAMPLES: usize = 400;
/// Guesses of the attacker at least, and how many are under way at once. It goes on until the others are done.
const GUESSES: (usize, usize) = (1_000, 40);
/// Between so many and the next.
const PAUSE: Duration = Duration::from_millis(25);
/// Others who sign in meanwhile.
const OTHERS: usize = 50;
const PASSWORD: &str = "correct horse battery staple";

#[tokio::main]
async fn main() {
    let file = std::env::temp_dir().join(format!("xp-sign-in-{}.db", std::process::id()));
    let own = format!("sqlite:{}", file.display());
    let url = std::env::var("DATABASE_URL").unwrap_or(own);
    let config = DatabaseOptions {
        max_connections: 8,
        acquire_timeout: Duration::from_secs(10),
        ..DatabaseOptions::at(url)
    };
    let store = Store::connect(&config, &mut Registry::default()).await.expect("a database");
    migration::up(store.connection()).await.expect("the steps run");
    let graph = Graph::new(store.clone(), Options::default(), &mut Registry::default());
    graph.access().open().await.expect("keys are made");
    for index in 0..OTHERS + 3 {
        assert!(sign_up(&graph, &format!("user-{index}@example.com")).await, "the database is not empty");
    }
    let sql = "update users set is_active = false where email = 'user-1@example.com'";
    sea_orm::ConnectionTrait::execute_unprepared(store.connection(), sql).await.expect("blocked");
    let sql = "update users set password_hash = null where email = 'user-2@example.com'";
    sea_orm::ConnectionTrait::execute_unprepared(store.connection(), sql).await.expect("without a password");

    timing(&graph).await;
    attack(&graph).await;
    store.close().await;
    let _ = std::fs::remove_file(file);
}

/// Interleaved, so that whatever else the machine does happens to all alike.
async fn timing(graph: &Graph) {
    const KINDS: [(&str, &str); 4] = [
        ("known", "user-0@example.com"),
        ("unknown", "nobody@example.com"),
        ("blocked", "user-1@example.com"),
        ("no password", "user-2@example.com"),
    ];
    let mut samples = vec![Vec::with_capacity(SAMPLES); KINDS.len()];
    for _ in 0..SAMPLES {
        for (kind, (_, email)) in KINDS.iter().enumerate() {
            samples[kind].push(sign_in(graph, email, "a wrong password", elsewhere()).await.0);
        }
    }
    say("Wrong password, by kind of account (ms)");
    for ((name, _), times) in KINDS.iter().zip(&samples) {
        let auc = auc(&samples[0], times);
        say(&format!(
            "  {name:12} p50 {:6.2}  p95 {:6.2}  AUC against known {auc:.3}",
            quantile(times, 0.5),
            quantile(times, 0.95)
        ));
    }
}

/// Fifty others, one after the other, at rest and while one address guesses at one account.
async fn attack(graph: &Graph) {
    say("Right password (ms)");
    let at_rest = others(graph).await;
    say(&format!(
        "  at rest              p50 {:7.2}  p95 {:7.2}",
        quantile(&at_rest, 0.5),
        quantile(&at_rest, 0.95)
    ));
    let (guesses, at_once) = GUESSES;
    let attacker = elsewhere();
    let done = Arc::new(AtomicBool::new(false));
    let guessing = {
        let (graph, done) = (graph.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut times = Vec::new();
            let mut checked = 0;
            while times.len() < guesses || !done.load(Ordering::Relaxed) {
                let round = join_all(
                    (0..at_once).map(|_| sign_in(&graph, "user-0@example.com", "a guess", attacker)),
                );
                for (time, answer) in round.await {
                    times.push(time);
                    checked += usize::from(answer["errors"].is_null());
                }
                tokio::time::sleep(PAUSE).await;
            }
            (times, checked)
        })
    };
    let meanwhile = others(graph).await;
    done.store(true, Ordering::Relaxed);
    let (times, checked) = guessing.await.expect("no panic");
    say(&format!(
        "  during {} guesses  p50 {:7.2}  p95 {:7.2}",
        times.len(),
        quantile(&meanwhile, 0.5),
        quantile(&meanwhile, 0.95)
    ));
    say(&format!(
        "  the guesses          p50 {:7.2}  p95 {:7.2}, {checked} were checked",
        quantile(&times, 0.5),
        quantile(&times, 0.95)
    ));
}

async fn others(graph: &Graph) -> Vec<f64> {
    let mut times = Vec::new();
    for index in 0..OTHERS {
        let (time, answer) =
            sign_in(graph, &format!("user-{}@example.com", index + 3), PASSWORD, elsewhere()).await;
        assert!(answer["data"]["signIn"]["accessToken"].is_string(), "{answer}");
        times.push(time);
    }
    times
}

/// Milliseconds, and the answer.
async fn sign_in(graph: &Graph, email: &str, password: &str, address: IpAddr) -> (f64, Value) {
    let query = "mutation($i: SignInInput!) { signIn(input: $i) { accessToken userErrors { code } } }";
    run(graph, query, json!({ "i": { "email": email, "password": password } }), address).await
}

async fn sign_up(graph: &Graph, email: &str) -> bool {
    let query = "mutation($i: SignUpInput!) { signUp(input: $i) { accessToken } }";
    let input = json!({ "i": { "email": email, "password": PASSWORD, "displayName": "Ann" } });
    run(graph, query, input, elsewhere()).await.1["data"]["signUp"]["accessToken"].is_string()
}

async fn run(graph: &Graph, query: &str, variables: Value, address: IpAddr) -> (f64, Value) {
    let request = Request {
        query: query.to_owned(),
        variables: serde_json::from_value(variables).expect("an object"),
        caller: Caller { address: Some(address), ..Caller::default() },
        ..Request::default()
    };
    let started = Instant::now();
    let reply = graph.execute(Viewer::Anonymous, request).await;
    let milliseconds = started.elapsed().as_secs_f64() * 1_000.0;
    (milliseconds, serde_json::from_slice(&reply.body.into_vec()).expect("JSON"))
}

/// An address of a network from which nobody has come yet.
fn elsewhere() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0x0a00_0000);
    Ipv4Addr::from_bits(NEXT.fetch_add(256, Ordering::Relaxed)).into()
}

fn quantile(times: &[f64], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// How often a sample of the one is longer than one of the other: 0.5 where they cannot be told apart.
fn auc(one: &[f64], other: &[f64]) -> f64 {
    let longer = one.iter().flat_map(|a| other.iter().map(move |b| if a > b { 1.0 } else { 0.0 }));
    longer.sum::<f64>() / (one.len() * other.len()) as f64
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
