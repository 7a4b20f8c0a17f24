//! Redis behind sentinels: a master that is replaced, that is lost with what its replicas had not got yet,
//! and that goes on alone while another one has taken its place. Whatever happens, no request fails and what
//! is read is true.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use entities::{Store, redis::Redis, session};
use prometheus_client::registry::Registry;
use serde_json::json;

use super::{Node, outages::pause, sessions, settle, version};
use crate::harness::{
    EndWhenDropped, Proxy, SentinelGroup, TestApp, db,
    process::{self, Server},
};

async fn node(app: &TestApp, address: &str) -> Node {
    let mut registry = Registry::default();
    let redis = Redis::new(&address.parse().expect("a URL"), &mut registry);
    Node::new(app, Some(redis), registry).await
}

/// How many nodes follow the log on this server.
fn followers(group: &SentinelGroup, server: usize) -> usize {
    let clients = group.servers[server].cli(&["client", "list"]);
    clients.lines().filter(|client| client.contains("cmd=xread")).count()
}

/// The hard case: the replica has the value and not its invalidation.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn invalidations_that_a_promoted_replica_lacks_leave_nothing_stale() {
    let [_, app] = TestApp::both_own().await;
    let mut group = SentinelGroup::start(1).await;
    let address = group.address();
    let nodes = [node(&app, &address).await, node(&app, &address).await];
    let stores = nodes.each_ref().map(|node| node.store.clone());
    settle(&stores).await;
    let (owner, keys) = sessions(&app, 4).await;
    for store in &stores {
        for key in &keys {
            assert_eq!(version(store, *key).await, 0);
        }
    }
    let old = |group: &SentinelGroup| group.servers[1].cli(&["keys", "c1:*"]).lines().count();
    group.until("the values are on the replica", |group| old(group) >= keys.len()).await;
    group.stop_replication(0);
    for key in &keys {
        assert!(session::rename(&stores[0], owner, *key, Some("1")).await.expect("the write succeeds"));
        assert_eq!(version(&stores[1], *key).await, 1, "the other node is told by the master");
    }
    group.servers[0].kill();
    assert!(old(&group) >= keys.len(), "the replica has the old values, and nothing of the invalidations");
    let began = Instant::now();
    while group.master() != Some(1) || !stores.iter().all(|store| store.cache().has_lease()) {
        assert!(began.elapsed() < Duration::from_mins(1), "the replica takes over, and the nodes follow it");
        for store in &stores {
            assert_eq!(version(store, keys[0]).await, 1, "while the master is replaced");
        }
        pause(5).await;
    }
    eprintln!("the nodes use the new master {:?} after the old one was killed", began.elapsed());
    let changes = nodes.each_ref().map(|node| node.sum("redis_master_changes_total", &[]));
    assert_eq!(changes, [1, 1], "one change: the first master that was named does not count");
    for store in &stores {
        for key in &keys {
            assert_eq!(version(store, *key).await, 1);
        }
    }
}

/// The new master is used by one node while another one still reaches the old master, and the sentinels as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_isolated_old_master_is_given_up_within_a_second() {
    let [_, app] = TestApp::both_own().await;
    let group = SentinelGroup::start(1).await;
    // The node that writes hears of another master before the node that only reads.
    let mut ways = Vec::new();
    for sentinel in &group.sentinels {
        ways.push(sentinel.proxy().await);
        ways[ways.len() - 1].delay(Duration::from_millis(150));
    }
    let late = SentinelGroup::address_by(ways.iter().map(Proxy::port));
    let stores = [node(&app, &group.address()).await.store, node(&app, &late).await.store];
    settle(&stores).await;
    let script = async {
        pause(500).await;
        group.isolate(0);
        let isolated = Instant::now();
        group.master_after(0).await;
        let replaced = Instant::now();
        assert_eq!(group.servers[0].cli(&["ping"]), "PONG", "it lives, and its clients reach it");
        group.until("the old master is given up", |group| followers(group, 0) == 0).await;
        let given_up = replaced.elapsed();
        group.until("the new master is used", |group| followers(group, 1) == stores.len()).await;
        eprintln!(
            "isolated: replaced after {:?}, given up {given_up:?} and the new one used {:?} after that",
            replaced.duration_since(isolated),
            replaced.elapsed()
        );
        // A second on a machine that is not busy.
        assert!(given_up < Duration::from_secs(5), "{given_up:?}");
        pause(1_000).await;
    };
    let reads = load(&app, &stores, 1, script).await;
    assert!(reads > 100, "{reads} reads");
}

/// The worst case: one node is on the side of the old master and reaches no sentinel, when the others go on
/// with a new master.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_cut_off_from_the_sentinels_trusts_the_old_master_no_longer() {
    let [_, app] = TestApp::both_own().await;
    let group = SentinelGroup::start(1).await;
    // Of the one node to the sentinels.
    let mut ways = Vec::new();
    for sentinel in &group.sentinels {
        ways.push(sentinel.proxy().await);
    }
    let cut_off = node(&app, &SentinelGroup::address_by(ways.iter().map(Proxy::port))).await.store;
    let other = node(&app, &group.address()).await.store;
    let stores = [cut_off, other];
    settle(&stores).await;
    let script = async {
        pause(500).await;
        group.isolate(0);
        // The others hear of it in a moment, and this node does not any more.
        group.until("a sentinel names another master", SentinelGroup::names_another_than_the_first).await;
        for way in &ways {
            way.block(true);
        }
        let replaced = Instant::now();
        group.until("the old master is used by nobody", |group| followers(group, 0) == 0).await;
        eprintln!(
            "cut off from the sentinels: given up {:?} after the master was replaced",
            replaced.elapsed()
        );
        group.until("the new master is used by the other", |group| followers(group, 1) == 1).await;
        pause(2_000).await;
        assert!(!stores[0].cache().has_lease());
        for way in &ways {
            way.block(false);
        }
        group.until("the new master is used by both", |group| followers(group, 1) == 2).await;
        pause(500).await;
    };
    let reads = load(&app, &stores, 2, script).await;
    assert!(reads > 100, "{reads} reads");
}

/// Renames sessions at one of the first so many nodes, and reads them at all, until the script is over; how
/// many reads there were, none of which was older than a write that was answered before.
async fn load(app: &TestApp, stores: &[Store; 2], writers: usize, script: impl Future<Output = ()>) -> u64 {
    let (owner, keys) = sessions(app, 8).await;
    let answered: Vec<AtomicU64> = keys.iter().map(|_| AtomicU64::new(0)).collect();
    let (is_over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let reader = async |store: &Store| {
        while !is_over.load(Ordering::SeqCst) {
            let at = fastrand::usize(..keys.len());
            let floor = answered[at].load(Ordering::SeqCst);
            let read = version(store, keys[at]).await;
            assert!(read >= floor, "read {read} after {floor} was answered");
            reads.fetch_add(1, Ordering::Relaxed);
        }
    };
    let writer = async {
        for next in 1.. {
            if is_over.load(Ordering::SeqCst) {
                break;
            }
            let (at, store) = (fastrand::usize(..keys.len()), &stores[fastrand::usize(..writers)]);
            let renamed = session::rename(store, owner, keys[at], Some(&next.to_string())).await;
            assert!(renamed.expect("a write never fails because of Redis"));
            // A server that cannot reach Redis while others can is heard through the database, within half a second.
            let is_heard = writers == 1 || store.cache().has_lease();
            pause(if is_heard { 5 } else { 1_000 }).await;
            answered[at].store(next, Ordering::SeqCst);
        }
    };
    let script = async {
        script.await;
        is_over.store(true, Ordering::SeqCst);
    };
    let [one, other] = stores;
    let readers = futures_util::future::join_all([one, other, one, other, other].map(reader));
    tokio::join!(readers, writer, script);
    reads.into_inner()
}

/// Renames a session again and again at any server and reads it at both; the first thing that went wrong.
fn write_and_read(
    addresses: &[String; 2],
    token: &str,
    session: &str,
    is_over: &AtomicBool,
    written: &AtomicU64,
) -> Result<(), String> {
    let rename = "mutation($i: RenameSessionInput!) { renameSession(input: $i) { session { name } userErrors { code } } }";
    let read = "query($id: ID!) { session(id: $id) { name } }";
    for number in 1..10_000 {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let name = number.to_string();
        let at = &addresses[fastrand::usize(..2)];
        let input = json!({ "i": { "id": session, "name": name } });
        let answer = process::ask(at, token, rename, &input).ok_or("no answer to a write")?;
        if answer["data"]["renameSession"]["session"]["name"] != name {
            return Err(format!("write {name}: {answer}"));
        }
        for address in addresses {
            let answer =
                process::ask(address, token, read, &json!({ "id": session })).ok_or("no answer to a read")?;
            if answer["data"]["session"]["name"] != name {
                let place = if address == at { "where it was written" } else { "at the other server" };
                return Err(format!("read after write {name} was answered, {place}: {answer}"));
            }
        }
        written.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replacing_and_killing_the_master_fails_no_request_of_two_servers() {
    let url = db::own_postgres().await;
    let app = TestApp::over(&url).await;
    let (_, keys) = sessions(&app, 3).await;
    let mut group = SentinelGroup::start(2).await;
    let token = process::mint(&url, "collector@example.com", &[]);
    let redis = group.address();
    let servers = [0, 1].map(|_| Server::start(&url, &[("REDIS_URL", &redis)]));
    let addresses = servers.each_ref().map(|server| server.address.clone());
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let runtime = tokio::runtime::Handle::current();
    let results = thread::scope(|scope| {
        let end = EndWhenDropped(&is_over);
        let load = |key: &entities::id::SessionId| {
            let (session, token, addresses) = (key.to_string(), &token, &addresses);
            let (is_over, written) = (&is_over, &written);
            scope.spawn(move || write_and_read(addresses, token, &session, is_over, written))
        };
        let loads: Vec<_> = keys.iter().map(load).collect();
        let script = async {
            group.until("the master is used", |group| followers(group, 0) == 2).await;
            group.fail_over().await;
            let asked = Instant::now();
            let second = group.master_after(0).await;
            group.until("the second master is used", |group| followers(group, second) == 2).await;
            eprintln!("replaced: the new master is used after {:?}", asked.elapsed());
            pause(500).await;
            group.servers[second].kill();
            let killed = Instant::now();
            let third = group.master_after(second).await;
            group.until("the third master is used", |group| followers(group, third) == 2).await;
            eprintln!("killed: the new master is used after {:?}", killed.elapsed());
            pause(1_000).await;
        };
        tokio::task::block_in_place(|| runtime.block_on(script));
        drop(end);
        loads.into_iter().map(|load| load.join().expect("no panic")).collect::<Vec<_>>()
    });
    let logs = || servers.each_ref().map(Server::log).join("\n---\n");
    assert!(results.iter().all(Result::is_ok), "{results:?}\n{}", logs());
    let written = written.into_inner();
    eprintln!("{written} writes, each read at both servers");
    assert!(written > 50, "{written}");
}
