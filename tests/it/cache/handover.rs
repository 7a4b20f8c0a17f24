//! Writes of an instance that cannot tell Redis: they are answered when another instance has told it, and
//! wait for nobody where nobody can. Not here: what else may happen to Redis (`outages`).

use std::time::{Duration, Instant};

use entities::{Role, session};
use prometheus_client::registry::Registry;
use serde_json::json;

use super::{Node, sessions, settle, version};
use crate::harness::{RedisServer, TestApp};

/// The outcomes of the writes of an instance that cannot tell Redis: those that another one took, and all others.
fn handovers(writer: &Node) -> (u64, u64) {
    let taken = writer.sum("cache_handovers_total", &["\"taken\""]);
    (taken, writer.sum("cache_handovers_total", &[]) - taken)
}

/// On both databases, with a Redis that cannot be connected to, and with one that never answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_of_an_instance_without_redis_is_answered_once_others_know_it() {
    const TURNS: u64 = 60;
    for app in TestApp::both_own().await {
        for is_refused in [true, false] {
            let redis = RedisServer::start().await;
            let proxy = redis.proxy().await;
            let mut registry = Registry::default();
            let handle = proxy.handle(&mut registry);
            let writer = Node::new(&app, Some(handle), registry).await;
            let reader = Node::with(&app, &redis).await.store;
            settle(&[writer.store.clone(), reader.clone()]).await;
            let registered =
                [&writer.store, &reader].map(|store| tokio::spawn(store.clone().stay_registered()));
            let (owner, keys) = sessions(&app, 1).await;
            let statements = async || {
                let viewer = app.over_store(writer.store.clone());
                let rename = format!(
                    "mutation {{ renameSession(input: {{id: \"{}\", name: \"0\"}}) {{ session {{ id }} }} }}",
                    keys[0]
                );
                let reply = viewer.as_role(Role::Collector).run(&rename, json!({})).await;
                assert!(reply.errors.is_empty(), "{:?}", reply.body);
                let names = reply.statements().into_iter().filter(|name| name.starts_with("outbox."));
                names.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(statements().await, ["outbox.insert"], "nobody is waited for while Redis is there");
            proxy.block(true);
            let proxy = (!is_refused).then_some(proxy);
            let (began, mut turn, mut longest) = (Instant::now(), 0, Duration::ZERO);
            let mut counted = handovers(&writer);
            while counted.0 < TURNS {
                assert!(began.elapsed() < Duration::from_mins(5), "taken and not taken: {counted:?}");
                turn += 1;
                // It has the old name, until it hears of the new one.
                version(&reader, keys[0]).await;
                let written = Instant::now();
                let renamed = session::rename(&writer.store, owner, keys[0], Some(&turn.to_string())).await;
                assert!(renamed.expect("a write never fails because of Redis"));
                let took = written.elapsed();
                let read = version(&reader, keys[0]).await;
                let now = handovers(&writer);
                // Before they know of each other nobody waits; on a busy machine it may take too long.
                if now.0 > counted.0 {
                    assert_eq!(read, turn, "the other instance had taken it");
                    longest = longest.max(took);
                }
                counted = now;
            }
            let explained = statements().await;
            assert!(explained.iter().any(|name| name == "outbox.is_there"), "{explained:?}");
            eprintln!("taken and not: {counted:?}; refused: {is_refused}; a write took {longest:?} at most");
            registered.iter().for_each(tokio::task::JoinHandle::abort);
            drop(proxy);
        }
    }
}

/// Nobody is there who could take what it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_wait_for_nobody_where_nobody_can_tell_redis() {
    let [_, app] = TestApp::both_own().await;
    let mut redis = RedisServer::start().await;
    let nodes = [Node::with(&app, &redis).await, Node::with(&app, &redis).await];
    let stores = nodes.each_ref().map(|node| node.store.clone());
    settle(&stores).await;
    let (owner, keys) = sessions(&app, 1).await;
    let write = async |number: u64| {
        let renamed = session::rename(&stores[0], owner, keys[0], Some(&number.to_string())).await;
        assert!(renamed.expect("a write never fails because of Redis"));
        assert_eq!(version(&stores[1], keys[0]).await, number, "without Redis nothing is cached");
    };
    redis.kill();
    for number in 1..=20 {
        write(number).await;
    }
    assert_eq!(handovers(&nodes[0]), (0, 0), "it is alone, as far as it knows");
    let registered = stores.each_ref().map(|store| tokio::spawn(store.clone().stay_registered()));
    let skipped = || nodes[0].sum("cache_handovers_total", &["skipped"]);
    let timeouts = || nodes[0].sum("cache_handovers_total", &["timeout"]);
    let began = Instant::now();
    while skipped() < 500 {
        assert!(began.elapsed() < Duration::from_mins(2), "{} skipped, {} in vain", skipped(), timeouts());
        write(100 + skipped()).await;
    }
    // The pauses become longer and longer; each wait is followed by one.
    assert!((1..=30).contains(&timeouts()), "{} in vain, {} skipped", timeouts(), skipped());
    assert_eq!(handovers(&nodes[0]).0, 0);
    // Operators see that what was written waits.
    let began = Instant::now();
    while nodes[1].sum("cache_outbox_oldest_seconds", &[]) == 0 {
        assert!(began.elapsed() < Duration::from_mins(1), "invalidations wait in the database");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    registered.iter().for_each(tokio::task::JoinHandle::abort);
}
