//! Several servers on one database: without Redis, or with different ones, none answers what is older than a
//! second, and a database that went back in time is noticed by all. The real program where it matters who
//! lives. Not here: servers that share a Redis (`cluster`, `cache`).

use std::{
    thread,
    time::{Duration, Instant},
};

use entities::{CacheOptions, Role};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::harness::{
    Clock, RedisServer, TestApp, db,
    process::{self, Server},
};

/// What is promised is a second; the machine may be busy with all the other tests.
const PATIENCE: Duration = Duration::from_mins(1);

const NAME: &str = "{ me { displayName } }";

fn rename(name: &str) -> String {
    format!(
        "mutation {{ updateProfile(input: {{displayName: \"{name}\"}}) {{ user {{ displayName }} userErrors {{ code }} }} }}"
    )
}

fn wait_until(about: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{about}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Each tells how far the other one's clock is off, and which way.
#[test]
fn clocks_that_differ_are_told_of() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = runtime.block_on(db::own_postgres());
    let ahead = Clock::new("ahead", "+90");
    let environment = ahead.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let servers = [Server::start(&url, &[]), Server::start(&url, &environment)];
    let skew = |server: &Server| -> Option<f64> {
        let (_, text) = process::send(&server.address, "/metrics", &[], "")?;
        let found = text.lines().find_map(|line| line.strip_prefix("instance_clock_skew_seconds "));
        found.and_then(|seconds| seconds.parse().ok())
    };
    for (server, least) in servers.iter().zip([60.0, -120.0]) {
        wait_until("the difference is shown", || {
            skew(server).is_some_and(|seconds| (least..least + 60.0).contains(&seconds))
        });
        let told = "the clock of another server of this database differs";
        wait_until("it is logged", || server.log().matches(told).count() == 1);
    }
    let alone = Server::start(&runtime.block_on(db::own_postgres()), &[]);
    assert_eq!(skew(&alone), Some(0.0));
}

/// A second server comes, both write and read, one is killed.
#[test]
fn two_servers_without_redis_are_never_stale_and_say_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for url in [runtime.block_on(db::own_sqlite()), runtime.block_on(db::own_postgres())] {
        let token = process::mint(&url, "collector@example.com", &[]);
        let ask = |server: &Server, query: &str| -> Value {
            let answer =
                process::ask(&server.address, &token, query, &json!({})).expect("the server is there");
            assert_eq!(answer["errors"], Value::Null, "{answer}");
            answer["data"].clone()
        };
        let name = |server: &Server| ask(server, NAME)["me"]["displayName"].clone();
        let first = Server::start(&url, &[]);
        name(&first);
        let mut second = Server::start(&url, &[]);
        name(&second);
        // It takes the first one half a second to notice; what is read again and again is in its cache until then.
        for round in 0..10 {
            let (wanted, writer, reader) = if round % 2 == 0 {
                (format!("Even {round}"), &second, &first)
            } else {
                (format!("Odd {round}"), &first, &second)
            };
            name(reader);
            ask(writer, &rename(&wanted));
            if round == 0 {
                wait_until("the first server never hears of the second", || name(reader) == json!(wanted));
                thread::sleep(Duration::from_secs(2));
            }
            assert_eq!(name(reader), json!(wanted), "{url}, round {round}");
        }
        wait_until("nothing is said", || first.log().contains("another server serves this database"));
        let doctor = process::xp(&url).args(["doctor"]).output().expect("it can be started");
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(
            said.contains("warn  servers: 2 servers serve this database, 2 of them without Redis"),
            "{said}"
        );
        // Who ends well takes its row along, and the other one caches again; that is seen by its log.
        assert!(second.stop(PATIENCE).is_some_and(|status| status.success()));
        wait_until("it is alone again", || first.log().contains("serves the database alone again"));
        let doctor = process::xp(&url).args(["doctor"]).output().expect("it can be started");
        assert!(String::from_utf8_lossy(&doctor.stdout).contains("ok    servers: 1 serving"), "{doctor:?}");
        ask(&first, &rename("Alone"));
        assert_eq!(name(&first), json!("Alone"));
    }
}

/// Both have a Redis, but not the same namespace of it; then the second one is started again with that of the first.
#[test]
fn servers_with_different_caches_are_never_stale_and_say_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = runtime.block_on(db::own_postgres());
    let redis = runtime.block_on(RedisServer::start());
    let address = redis.address();
    let token = process::mint(&url, "collector@example.com", &[]);
    let ask = |server: &Server, query: &str| -> Value {
        let answer = process::ask(&server.address, &token, query, &json!({})).expect("the server is there");
        assert_eq!(answer["errors"], Value::Null, "{answer}");
        answer["data"].clone()
    };
    let name = |server: &Server| ask(server, NAME)["me"]["displayName"].clone();
    let start =
        |namespace: &str| Server::start(&url, &[("REDIS_URL", &address), ("XP_REDIS_NAMESPACE", namespace)]);
    let doctor = || {
        let run = process::xp(&url).env("REDIS_URL", &address).args(["doctor"]).output();
        String::from_utf8_lossy(&run.expect("it can be started").stdout).into_owned()
    };
    let first = start("blue");
    name(&first);
    let mut second = start("green");
    wait_until("nothing is said by the first", || first.log().contains("uses another Redis or another"));
    wait_until("nothing is said by the second", || second.log().contains("uses another Redis or another"));
    for round in 0..10 {
        let (writer, reader) = if round % 2 == 0 { (&second, &first) } else { (&first, &second) };
        name(reader);
        ask(writer, &rename(&format!("Round {round}")));
        assert_eq!(name(reader), json!(format!("Round {round}")));
    }
    let said = doctor();
    assert!(
        said.contains("warn  servers: 2 servers serve this database, and not all with the same Redis"),
        "{said}"
    );
    assert!(second.stop(PATIENCE).is_some_and(|status| status.success()));
    let second = start("blue");
    assert_eq!(name(&second), json!("Round 9"), "nothing from before is used");
    wait_until("they share one cache again", || {
        first.log().contains("use the same Redis and redis.namespace again")
    });
    ask(&second, &rename("Shared"));
    wait_until("the first never hears of it", || name(&first) == json!("Shared"));
    let said = doctor();
    assert!(said.contains("ok    servers: 2 serving this database"), "{said}");
}

/// The last revocations are lost and their numbers given out again, as by a failover that lost the tail of the log.
#[tokio::test]
async fn revocations_after_a_rollback_reach_the_other_instance() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let (here, there) = (TestApp::over(&url).await, TestApp::over(&url).await);
        for app in [&here, &there] {
            app.graph.access().open().await.expect("keys are made, or found");
        }
        let following = tokio::spawn(there.graph.access().follow());
        let token_of = |tokens: &Value| tokens["accessToken"].as_str().expect("a token").to_owned();
        for email in ["a@example.com", "b@example.com", "c@example.com"] {
            let tokens = sign_up(&here, email).await;
            sign_out(&here, &tokens).await;
            wait_for(|| there.bearing(&token_of(&tokens)).is_err()).await;
        }
        let (first, second) = (sign_up(&here, "d@example.com").await, sign_up(&here, "e@example.com").await);
        // Two of three are lost: one is given out again, then both, so that the number is the same as before.
        here.sql("delete from revocations where seq > (select seq - 2 from revocation_counter)").await;
        here.sql("update revocation_counter set seq = seq - 2").await;
        assert!(there.bearing(&token_of(&first)).is_ok());
        sign_out(&here, &first).await;
        sign_out(&here, &second).await;
        for tokens in [&first, &second] {
            wait_for(|| there.bearing(&token_of(tokens)).is_err()).await;
        }
        following.abort();
    }
}

/// A backup is restored under a server that has what came after it in its cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_is_discarded_after_a_database_rollback() {
    let url = db::own_postgres().await;
    let app = TestApp::over(&url).await;
    let store =
        app.another_store().await.with_cache(&CacheOptions::default(), None, &mut Registry::default());
    let node = app.over_store(store);
    node.graph.access().open().await.expect("keys are made, or found");
    let following = tokio::spawn(node.graph.access().follow());
    let client = node.as_role(Role::Collector);
    let before = client.ask(NAME).await;
    client.ask(&rename("After the backup")).await;
    let name =
        async || node.as_role(Role::Collector).run(NAME, json!({})).await.data["me"]["displayName"].clone();
    for _ in 0..3 {
        assert_eq!(name().await, json!("After the backup"));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    db::restore(&url).await;
    let began = Instant::now();
    while name().await != before["me"]["displayName"] {
        assert!(began.elapsed() < PATIENCE, "it answers what never happened");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    following.abort();
}

/// A backup is restored while no server runs; Redis has what came after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_has_from_before_a_restore_is_not_used_by_a_server_that_starts() {
    let redis = RedisServer::start().await;
    let url = db::own_postgres().await;
    let app = TestApp::over(&url).await;
    let start = async || {
        let (options, handle) = (CacheOptions::default(), Some(redis.handle()));
        let store = app.another_store().await.with_cache(&options, handle, &mut Registry::default());
        let node = app.over_store(store);
        node.graph.access().open().await.expect("keys are made, or found");
        let following = node.graph.access().clone();
        (node, tokio::spawn(async move { following.follow().await }))
    };
    let name = async |node: &TestApp| {
        node.as_role(Role::Collector).run(NAME, json!({})).await.data["me"]["displayName"].clone()
    };
    let (first, following) = start().await;
    let before = name(&first).await;
    first.as_role(Role::Collector).ask(&rename("After the backup")).await;
    let began = Instant::now();
    while !redis.cli(&["get", "db:{xp}"]).contains('/') {
        assert!(began.elapsed() < PATIENCE, "it is told where the database is");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..20 {
        assert_eq!(name(&first).await, json!("After the backup"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    following.abort();
    drop(first);
    db::restore(&url).await;
    let (second, following) = start().await;
    for _ in 0..20 {
        assert_eq!(name(&second).await, before, "Redis has what never happened");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    following.abort();
}

async fn sign_up(app: &TestApp, email: &str) -> Value {
    let query = "mutation($e: String!) { signUp(input: {email: $e, displayName: \"Ann\", password: \"long enough to pass\"}) {
        accessToken userErrors { code message } } }";
    let data = app.anonymous().run(query, json!({ "e": email })).await.expect_data(query);
    data["signUp"].clone()
}

async fn sign_out(app: &TestApp, tokens: &Value) {
    let client = app.bearing(tokens["accessToken"].as_str().expect("a token")).expect("it is good");
    client.ask("mutation { signOut { session { id } } }").await;
}

async fn wait_for(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "the other node accepts what was revoked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
