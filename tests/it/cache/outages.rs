//! Redis killed, cut off, slow, emptied, and back with what it knew long ago, all under load: no request fails, none
//! waits long, and what is read is true.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use entities::{Role, Store, Tag, session};
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::{Node, sessions, settle, some_form, title, version};
use crate::harness::{
    RedisServer, TestApp, db,
    process::{self, Server},
    text,
};

/// Renames and reads sessions on any instance until `script` is over; how many reads there were, none of which failed
/// or was older than a write that was answered before.
async fn under_load(app: &TestApp, instances: &[Store], script: impl Future<Output = ()>) -> u64 {
    let (owner, keys) = sessions(app, 8).await;
    let answered: Vec<AtomicU64> = keys.iter().map(|_| AtomicU64::new(0)).collect();
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let any = || &instances[fastrand::usize(..instances.len())];
    let reader = async || {
        while !done.load(Ordering::SeqCst) {
            let at = fastrand::usize(..keys.len());
            let floor = answered[at].load(Ordering::SeqCst);
            let read = version(any(), keys[at]).await;
            assert!(read >= floor, "read {read} after {floor} was answered");
            reads.fetch_add(1, Ordering::Relaxed);
        }
    };
    let writer = async {
        let mut next = 0;
        while !done.load(Ordering::SeqCst) {
            next += 1;
            let at = fastrand::usize(..keys.len());
            let renamed = session::rename(any(), owner, keys[at], Some(&next.to_string())).await;
            assert!(renamed.expect("a write never fails because of Redis"));
            answered[at].store(next, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let script = async {
        script.await;
        done.store(true, Ordering::SeqCst);
    };
    let readers = join_all((0..8).map(|_| reader()));
    tokio::join!(readers, writer, script);
    reads.into_inner()
}

pub(super) async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killing_and_restarting_redis_under_load_fails_nothing() {
    let [_, app] = TestApp::both_own().await;
    let mut redis = RedisServer::start().await;
    let instances = [Node::with(&app, &redis).await, Node::with(&app, &redis).await];
    let stores = instances.each_ref().map(|instance| instance.store.clone());
    settle(&stores).await;
    let script = async {
        pause(500).await;
        redis.kill();
        pause(1_500).await;
        let open =
            instances[0].sum("circuit_breaker_state", &[]) + instances[1].sum("circuit_breaker_state", &[]);
        assert!(open > 0, "the breaker is open");
        redis.launch().await;
        settle(&stores).await;
        let before = instances[0].hits("session.by_ids");
        for _ in 0..1_000 {
            if instances[0].hits("session.by_ids") > before + 100 {
                return;
            }
            pause(10).await;
        }
        panic!("the cache is used again within ten seconds");
    };
    let reads = under_load(&app, &stores, script).await;
    let rejected = instances[0].sum("redis_commands_total", &["outcome=\"rejected\""]);
    assert!(reads > 100 && rejected > 0, "{reads} reads; the breaker spared {rejected} commands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flushing_redis_under_load_costs_only_misses() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let stores = [Node::with(&app, &redis).await.store, Node::with(&app, &redis).await.store];
    settle(&stores).await;
    let script = async {
        for turn in 0..20 {
            pause(100).await;
            redis.cli(if turn % 2 == 0 { &["flushall"] } else { &["del", "g:{xp}"] });
        }
    };
    assert!(under_load(&app, &stores, script).await > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_redis_restored_from_an_old_snapshot_is_distrusted() {
    let [_, app] = TestApp::both_own().await;
    let mut redis = RedisServer::start().await;
    let stores = [Node::with(&app, &redis).await.store, Node::with(&app, &redis).await.store];
    settle(&stores).await;
    let (owner, keys) = sessions(&app, 1).await;
    assert_eq!(version(&stores[0], keys[0]).await, 0);
    pause(100).await;
    assert_eq!(redis.cli(&["save"]), "OK");
    assert!(redis.cli(&["keys", "c1:*"]).contains("c1:"), "the value is in the snapshot");
    // What the snapshot lacks: a bump.
    assert!(session::rename(&stores[0], owner, keys[0], Some("1")).await.expect("the write succeeds"));
    redis.kill();
    redis.launch().await;
    assert!(redis.cli(&["keys", "c1:*"]).contains("c1:"), "the old value is back");
    settle(&stores).await;
    for store in &stores {
        assert_eq!(version(store, keys[0]).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_waits_twice_at_most_for_slow_redis() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let proxy = redis.proxy().await;
    let mut registry = Registry::default();
    let handle = proxy.handle(&mut registry);
    let instance = Node::new(&app, Some(handle), registry).await;
    settle(std::slice::from_ref(&instance.store)).await;
    let instances = app.over_store(instance.store.clone());
    // Five levels, each of which asks Redis.
    let query = "{ users(first: 5) { nodes { id sessions(first: 2) { nodes { id user { id forms(first: 1) { nodes { id owner { email } } } } } } } } }";
    let plain = app.as_admin().plain().run(query, json!({})).await;
    let waits = || instance.sum("redis_commands_total", &["outcome=\"failed\""]);
    for silent in [false, true] {
        if silent {
            proxy.block(true);
        } else {
            proxy.delay(Duration::from_millis(200));
            proxy.delay_log(Duration::from_millis(200));
        }
        // The lease is over; the breaker may be closed.
        pause(400).await;
        for _ in 0..10 {
            let (before, began) = (waits(), Instant::now());
            let reply = instances.as_admin().plain().run(query, json!({})).await;
            assert_eq!(reply.body, plain.body);
            let waited = waits() - before;
            eprintln!("silent: {silent}; waited {waited} times, {:?} in all", began.elapsed());
            // The upkeep of the instance waits beside the request, and seldom.
            assert!(waited <= 3, "{waited}");
        }
        proxy.block(false);
        proxy.delay(Duration::ZERO);
        proxy.delay_log(Duration::ZERO);
        settle(std::slice::from_ref(&instance.store)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lagging_instance_honours_cache_tokens() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let proxy = redis.proxy().await;
    let writer = Node::with(&app, &redis).await.store;
    let mut registry = Registry::default();
    let handle = proxy.handle(&mut registry);
    let reader = Node::new(&app, Some(handle), registry).await.store;
    settle(&[writer.clone(), reader.clone()]).await;
    let id = some_form(&app).await;
    let title = async |store: &Store| title(store, id).await;
    proxy.delay_log(Duration::from_millis(100));
    let mut old_without = 0;
    for turn in 0..10 {
        title(&reader).await;
        let new = format!("title {turn}");
        app.sql(&format!("update forms set title = '{new}' where id = '{id}'")).await;
        let token =
            writer.cache().invalidate_by_tag(&[Tag::Row("Form", id.0)]).await.expect("Redis is there");
        let answered = Instant::now();
        old_without += u32::from(title(&reader).await != new);
        assert_eq!(title(&reader.not_before(token)).await, new, "turn {turn}");
        loop {
            let asked = answered.elapsed();
            if title(&reader).await == new {
                break;
            }
            assert!(asked < Duration::from_millis(250), "turn {turn}: still the old title");
        }
    }
    assert!(old_without > 0, "without the token it is sometimes behind, or this shows nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_reads_after_a_flush_load_once_per_instance() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        alone.push(Node::alone(&app).await.store);
        together.push(Node::with(&app, &redis).await.store);
    }
    settle(&together).await;
    let data = app.as_admin().ask("{ forms(first: 50) { nodes { id } } }").await;
    let ids: Vec<String> =
        data["forms"]["nodes"].as_array().expect("nodes").iter().map(|node| text(&node["id"])).collect();
    // Loads take long enough for everybody to come while they are under way, and the database counts them.
    app.sql("create sequence loads minvalue 0").await;
    app.sql("alter table forms rename to all_forms").await;
    // Dear: it is asked about the rows only that are wanted.
    app.sql(
        "create function is_counted() returns boolean language plpgsql volatile cost 1000000
         as $$ begin return nextval('loads') >= 0; end $$",
    )
    .await;
    app.sql(
        "create view forms as select * from all_forms
         where (select pg_sleep(0.05)::text) is not null and is_counted()",
    )
    .await;
    for (stores, name) in [(alone, "alone"), (together, "with Redis")] {
        let instances: Vec<TestApp> = stores.iter().map(|store| app.over_store(store.clone())).collect();
        for store in &stores {
            store.cache().purge().await.expect("Redis is there");
        }
        redis.cli(&["flushall"]);
        app.sql("select setval('loads', 0)").await;
        let clients: Vec<_> = instances.iter().map(|instance| instance.as_admin().plain()).collect();
        let crowd = (0..2_000).map(|number| {
            let query = format!("{{ form(id: \"{}\") {{ id }} }}", ids[number % ids.len()]);
            let client = &clients[number % 3];
            async move { client.ask(&query).await["form"]["id"].is_string() }
        });
        assert!(join_all(crowd).await.into_iter().all(|found| found), "every request finds its form");
        let loads = app.count("generate_series(1, (select last_value from loads))").await;
        eprintln!("{name}: {loads} loads of {} rows on three nodes", ids.len());
        assert!(loads as usize <= 3 * ids.len(), "{name}: {loads} loads of {} rows", ids.len());
    }
}

/// The instance that wrote has the promise always; its stamps are of a table that is gone then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_writes_after_a_flush_reads_what_was_written() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instance = Node::with(&app, &redis).await.store;
    settle(std::slice::from_ref(&instance)).await;
    let id = some_form(&app).await;
    let title = async || title(&instance, id).await;
    // Numbers of a new table begin anew, and are less than those of the old one.
    for number in 0..100 {
        instance.cache().invalidate_by_tag(&[Tag::Named(number.to_string())]).await.expect("Redis is there");
    }
    for turn in 0..30 {
        settle(std::slice::from_ref(&instance)).await;
        title().await;
        redis.cli(&["flushall"]);
        let new = format!("title {turn}");
        app.sql(&format!("update forms set title = '{new}' where id = '{id}'")).await;
        instance.cache().invalidate_by_tag(&[Tag::Row("Form", id.0)]).await.expect("Redis is there");
        assert_eq!(title().await, new, "turn {turn}");
    }
}

/// What a server without these commands says is what one says that is older than they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unsupported_redis_fails_nothing_and_serves_nothing_stale() {
    let [_, app] = TestApp::both_own().await;
    for lacking in [&["BITFIELD_RO"][..], &["XADD", "XREAD"], &["EVAL"]] {
        let redis = RedisServer::without(lacking).await;
        let stores = [Node::with(&app, &redis).await.store, Node::with(&app, &redis).await.store];
        let reads = under_load(&app, &stores, pause(1_000)).await;
        assert!(reads > 100, "without {lacking:?}: {reads} reads");
    }
    let (redis, url) = (RedisServer::without(&["BITFIELD_RO"]).await, db::own_sqlite().await);
    let told = process::xp(&url).arg("doctor").env("REDIS_URL", redis.address()).output().expect("it runs");
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("refuses what the cache asks") && told.contains("6.2 or newer"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_instance_publishes_a_killed_instances_write() {
    let url = db::own_postgres().await;
    let app = TestApp::over(&url).await;
    let redis = RedisServer::start().await;
    let proxy = redis.proxy().await;
    let instance = Node::with(&app, &redis).await.store;
    settle(std::slice::from_ref(&instance)).await;
    let (_, keys) = sessions(&app, 1).await;
    let token = process::mint(&url, "collector@example.com", &[]);
    let mut server = Server::start(&url, &[("REDIS_URL", &proxy.address())]);
    let address = server.address.clone();
    assert_eq!(version(&instance, keys[0]).await, 0);
    proxy.block(true);
    let rename = format!(
        "mutation {{ renameSession(input: {{id: \"{}\", name: \"1\"}}) {{ session {{ id }} }} }}",
        keys[0]
    );
    let asking = thread::spawn(move || process::ask(&address, &token, &rename, &json!({})));
    while version(&app.store, keys[0]).await != 1 {
        assert!(server.runs(), "the server ended by itself");
        pause(1).await;
    }
    // It is committed, and nobody was told.
    server.kill();
    let (since, mut was_old) = (Instant::now(), false);
    while version(&instance, keys[0]).await != 1 {
        was_old = true;
        assert!(since.elapsed() < Duration::from_secs(10), "the other node still has the old name");
        pause(1).await;
    }
    eprintln!("killed before it told: old for {:?} (seen: {was_old})", since.elapsed());
    asking.join().expect("no panic");
    let waiting = async || app.count("cache_outbox").await;
    for _ in 0..500 {
        if waiting().await == 0 {
            return;
        }
        pause(10).await;
    }
    panic!("the bump is taken out once it is told");
}

/// Hash maps of tags grow for ever elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stamps_of_a_million_tags_take_eight_mebibytes() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instance = Node::with(&app, &redis).await.store;
    settle(std::slice::from_ref(&instance)).await;
    for part in 0..10_u128 {
        let tags: Vec<Tag> =
            (0..100_000).map(|number| Tag::Row("M1", uuid::Uuid::from_u128((part << 64) | number))).collect();
        assert!(instance.cache().invalidate_by_tag(&tags).await.is_some(), "it is told");
    }
    assert_eq!(redis.cli(&["strlen", "g:{xp}"]), (8 << 20).to_string());
    let log: u64 = redis.cli(&["xlen", "l:{xp}"]).parse().expect("a number");
    assert!(log <= 11_000, "the log is cut: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unpublished_write_is_published_later() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instance = Node::with(&app, &redis).await;
    settle(std::slice::from_ref(&instance.store)).await;
    let (owner, keys) = sessions(&app, 1).await;
    redis.freeze();
    assert!(session::rename(&instance.store, owner, keys[0], Some("1")).await.expect("the write succeeds"));
    redis.thaw();
    settle(std::slice::from_ref(&instance.store)).await;
    let viewer = app.over_store(instance.store.clone());
    let query = format!("{{ session(id: \"{}\") {{ name }} }}", keys[0]);
    for _ in 0..500 {
        let reply = viewer.as_role(Role::Collector).run(&query, json!({})).await;
        assert_eq!(reply.data["session"]["name"], "1");
        if reply.statements().is_empty() {
            return;
        }
        pause(10).await;
    }
    panic!("five seconds later the row is still read from the database each time");
}

/// The slot of a tag: what the log says of its bump.
async fn slot_of(redis: &RedisServer, instance: &Store, tag: Tag) -> String {
    instance.cache().invalidate_by_tag(&[tag]).await.expect("Redis is there");
    let last = redis.cli(&["xrevrange", "l:{xp}", "+", "-", "COUNT", "1"]);
    last.lines().last().expect("the slots").to_owned()
}

/// What a bump does, and then the log is gone: evicted, or deleted by somebody.
const BUMP_AND_LOSE_THE_LOG: &str = "
    local s = redis.call('BITFIELD', KEYS[1], 'INCRBY', 'i64', '#1', 1)[1]
    redis.call('BITFIELD', KEYS[1], 'SET', 'i64', '#' .. ARGV[1], s)
    redis.call('DEL', KEYS[2])
    return s";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_invalidation_missing_from_the_log_is_noticed_in_time() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instance = Node::with(&app, &redis).await.store;
    settle(std::slice::from_ref(&instance)).await;
    let id = some_form(&app).await;
    let title = async || title(&instance, id).await;
    let slot = slot_of(&redis, &instance, Tag::Row("Form", id.0)).await;
    for turn in 0..10 {
        settle(std::slice::from_ref(&instance)).await;
        title().await;
        let new = format!("title {turn}");
        app.sql(&format!("update forms set title = '{new}' where id = '{id}'")).await;
        redis.cli(&["eval", BUMP_AND_LOSE_THE_LOG, "2", "g:{xp}", "l:{xp}", &slot]);
        let answered = Instant::now();
        loop {
            let asked = answered.elapsed();
            if title().await == new {
                break;
            }
            assert!(asked < Duration::from_millis(250), "turn {turn}: still the old title");
        }
    }
}

/// A log in which stands what no bump can be is read no further, and followed again from the table on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nonsense_in_the_log_ends_nothing() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instance = Node::with(&app, &redis).await.store;
    settle(std::slice::from_ref(&instance)).await;
    instance.cache().invalidate_by_tag(&[Tag::Named("first".to_owned())]).await.expect("Redis is there");
    let bump = "local s = redis.call('BITFIELD', KEYS[1], 'INCRBY', 'i64', '#1', 1)[1]
        redis.call('XADD', KEYS[2], string.format('%.0f-0', s), 's', ARGV[1])";
    for slots in ["4000000000", "7", "no number"] {
        redis.cli(&["eval", bump, "2", "g:{xp}", "l:{xp}", slots]);
        pause(400).await;
        settle(std::slice::from_ref(&instance)).await;
    }
}

/// An instance that Redis refuses while others reach it tells nobody what it writes; the others find it in
/// the database, also where it does not know of them yet, and does not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_of_an_instance_without_redis_are_found() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let proxy = redis.proxy().await;
    let mut registry = Registry::default();
    let handle = proxy.handle(&mut registry);
    let writer = Node::new(&app, Some(handle), registry).await.store;
    let reader = Node::with(&app, &redis).await.store;
    settle(&[writer.clone(), reader.clone()]).await;
    let (owner, keys) = sessions(&app, 1).await;
    // Its connections lead nowhere, and it gets no new ones.
    proxy.block(true);
    drop(proxy);
    let mut longest = Duration::ZERO;
    for turn in 1..=10_u64 {
        assert!(version(&reader, keys[0]).await < turn);
        let renamed = session::rename(&writer, owner, keys[0], Some(&turn.to_string())).await;
        assert!(renamed.expect("a write never fails because of Redis"));
        let answered = Instant::now();
        assert_eq!(version(&writer, keys[0]).await, turn, "on the node that wrote: at once");
        while version(&reader, keys[0]).await != turn {
            assert!(answered.elapsed() < Duration::from_secs(2), "turn {turn}: still the old name");
            pause(1).await;
        }
        longest = longest.max(answered.elapsed());
    }
    eprintln!("written by a node that is cut off from Redis: old elsewhere for {longest:?} at most");
}
