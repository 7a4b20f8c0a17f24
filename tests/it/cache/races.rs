//! Reads and writes of a few busy rows on four instances, with a real Redis and a PostgreSQL that takes its
//! time between looking at a row and answering. A read is stale if it began after a write was answered and is
//! older than that write. The same race over a design that is common elsewhere must show stale reads, or this
//! one could not see any.

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use entities::{
    Store, Tag, Version, form,
    id::{FormId, SessionId},
    session,
};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;

use super::{Node, sessions, settle};
use crate::harness::{RedisServer, TestApp, text};

const ROWS: usize = 20;
const READERS: usize = 16;
const BETWEEN_WRITES: Duration = Duration::from_millis(5);
/// Writes of each kind at least.
const WRITES: u64 = 100;
const BOUND: Duration = Duration::from_millis(250);

/// Reads of each kind; `XP_RACE_READS` asks for more.
fn reads_each() -> u64 {
    env::var("XP_RACE_READS").ok().and_then(|reads| reads.parse().ok()).unwrap_or(350_000)
}

/// When each version of each row was answered for; version 0 was there before.
struct Answered(Vec<Mutex<Vec<Instant>>>);

impl Answered {
    fn new() -> Self {
        Self((0..ROWS).map(|_| Mutex::default()).collect())
    }

    fn row(&self, row: usize) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.0[row].lock().expect("no reader panics here")
    }
}

/// What the readers of one kind saw.
#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    stale: u64,
    oldest: Duration,
}

/// Reads all rows again and again until there were so many reads, beside a writer.
async fn race<R, W>(reads: u64, answered: &Answered, read: R, write: W) -> (Seen, u64)
where
    R: AsyncFn() -> Vec<usize>,
    W: AsyncFn(usize, usize),
{
    let (done, count, writes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let seen = Mutex::new(Seen::default());
    let reader = async || {
        while count.fetch_add(ROWS as u64, Ordering::Relaxed) < reads
            || writes.load(Ordering::Relaxed) < WRITES
        {
            // What is held is read without waiting: others would never get their turn.
            tokio::task::yield_now().await;
            let floors: Vec<usize> = (0..ROWS).map(|row| answered.row(row).len()).collect();
            let began = Instant::now();
            let versions = read().await;
            let mut seen = seen.lock().expect("no reader panics here");
            for (row, (version, floor)) in versions.into_iter().zip(floors).enumerate() {
                seen.reads += 1;
                if version < floor {
                    seen.stale += 1;
                    seen.oldest = seen.oldest.max(began.duration_since(answered.row(row)[version]));
                }
            }
        }
    };
    let writer = async {
        while !done.load(Ordering::Relaxed) {
            let row = fastrand::usize(..ROWS);
            let version = answered.row(row).len() + 1;
            write(row, version).await;
            answered.row(row).push(Instant::now());
            writes.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(BETWEEN_WRITES).await;
        }
    };
    let readers = async {
        join_all((0..READERS).map(|_| reader())).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(readers, writer);
    (seen.into_inner().expect("no reader panics here"), writes.into_inner())
}

/// From now on a read of this table answers up to four milliseconds after it has looked at the rows.
async fn slow_down(app: &TestApp, table: &str) {
    app.sql(&format!("alter table {table} rename to all_{table}")).await;
    let slow = "(select pg_sleep(random() * 0.004)::text) is not null";
    app.sql(&format!("create view {table} as select * from all_{table} where {slow}")).await;
}

async fn instances(app: &TestApp, redis: &RedisServer) -> Vec<Store> {
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(Node::with(app, redis).await.store);
    }
    settle(&instances).await;
    instances
}

fn any(instances: &[Store]) -> &Store {
    &instances[fastrand::usize(..instances.len())]
}

/// Twenty forms whose titles are versions.
async fn forms(app: &TestApp) -> Vec<FormId> {
    // There are ten in the demo data.
    let same = "owner_id, title, search_title, status, version, draft_revision, created_at, updated_at";
    app.sql(&format!("insert into forms (id, {same}) select gen_random_uuid(), {same} from forms")).await;
    let data = app.as_admin().ask(&format!("{{ forms(first: {ROWS}) {{ nodes {{ id }} }} }}")).await;
    let nodes = data["forms"]["nodes"].as_array().expect("nodes").clone();
    let ids: Vec<FormId> =
        nodes.iter().map(|node| FormId::parse(&text(&node["id"])).expect("an id")).collect();
    assert_eq!(ids.len(), ROWS);
    app.sql("update forms set title = '0'").await;
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_million_reads_on_four_nodes_see_nothing_stale() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let ids = forms(&app).await;
    let (owner, keys) = sessions(&app, ROWS).await;
    for table in ["user_sessions", "forms"] {
        slow_down(&app, table).await;
    }
    let instances = instances(&app, &redis).await;

    let answered = Answered::new();
    let read = async || {
        let found = session::by_ids(any(&instances), &keys).await.expect("the read succeeds");
        let version = |key: &SessionId| found[key].name.as_deref().and_then(|name: &str| name.parse().ok());
        keys.iter().map(|key| version(key).expect("the name is a version")).collect()
    };
    let write = async |row: usize, version: usize| {
        let name = version.to_string();
        let renamed = session::rename(any(&instances), owner, keys[row], Some(&name)).await;
        assert!(renamed.expect("the write succeeds"));
    };
    let (strong, strong_writes) = race(reads_each(), &answered, read, write).await;

    let answered = Answered::new();
    let titles = async |store: &Store| {
        let found = form::by_ids(store, &ids).await.expect("the read succeeds");
        ids.iter().map(|id| found[id].title.parse().expect("the title is a version")).collect::<Vec<usize>>()
    };
    let newest: Mutex<Option<Version>> = Mutex::default();
    let write = async |row: usize, version: usize| {
        app.sql(&format!("update all_forms set title = '{version}' where id = '{}'", ids[row])).await;
        let moment = any(&instances).cache().invalidate_by_tag(&[Tag::Row("Form", ids[row].0)]).await;
        *newest.lock().expect("nobody panics here") = Some(moment.expect("Redis is there"));
    };
    let with_token = async || {
        let token = *newest.lock().expect("nobody panics here");
        let store = token.map_or_else(|| any(&instances).clone(), |token| any(&instances).not_before(token));
        titles(&store).await
    };
    let (token, token_writes) = race(reads_each(), &answered, with_token, &write).await;
    let (bounded, bounded_writes) =
        race(reads_each(), &answered, async || titles(any(&instances)).await, &write).await;

    for (kind, seen, writes) in [
        ("strong", &strong, strong_writes),
        ("token", &token, token_writes),
        ("bounded", &bounded, bounded_writes),
    ] {
        eprintln!(
            "{kind}: {} reads beside {writes} writes, {} stale, at most {:?} old",
            seen.reads, seen.stale, seen.oldest
        );
        assert!(seen.reads >= reads_each() && writes >= WRITES, "{kind}: {seen:?}, {writes} writes");
    }
    assert_eq!((strong.stale, token.stale), (0, 0));
    assert!(bounded.oldest < BOUND, "{bounded:?}");
}

/// The control: values under keys that a write deletes, as most caches do it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_race_catches_a_cache_that_only_deletes_keys() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let (_, keys) = sessions(&app, ROWS).await;
    slow_down(&app, "user_sessions").await;
    let stores = [app.another_store().await, app.another_store().await];
    let client = redis::Client::open(redis.address()).expect("an address");
    let connection = client.get_multiplexed_async_connection().await.expect("Redis is there");
    let ask = async |command: &redis::Cmd| -> Vec<Option<String>> {
        let mut connection: MultiplexedConnection = connection.clone();
        command.query_async(&mut connection).await.expect("Redis is there")
    };
    let read = async || {
        let held =
            ask(redis::cmd("MGET").arg(keys.iter().map(ToString::to_string).collect::<Vec<_>>())).await;
        let missing: Vec<_> =
            keys.iter().zip(&held).filter(|(_, held)| held.is_none()).map(|(key, _)| *key).collect();
        let found = session::by_ids(any(&stores), &missing).await.expect("the read succeeds");
        let mut versions = Vec::new();
        for (key, held) in keys.iter().zip(held) {
            let version = if let Some(version) = held {
                version
            } else {
                let version = found[key].name.clone().expect("the name is a version");
                let (mut connection, name) = (connection.clone(), key.to_string());
                let set = redis::cmd("SET").arg(name).arg(&version).query_async::<()>(&mut connection).await;
                set.expect("Redis is there");
                version
            };
            versions.push(version.parse().expect("the name is a version"));
        }
        versions
    };
    let write = async |row: usize, version: usize| {
        app.sql(&format!("update all_user_sessions set name = '{version}' where id = '{}'", keys[row])).await;
        let mut connection = connection.clone();
        let deleted = redis::cmd("DEL").arg(keys[row].to_string()).query_async::<u64>(&mut connection).await;
        deleted.expect("Redis is there");
    };
    let (seen, writes) = race(100_000, &Answered::new(), read, write).await;
    eprintln!(
        "deleting keys: {} reads beside {writes} writes, {} stale, up to {:?} old",
        seen.reads, seen.stale, seen.oldest
    );
    assert!(seen.stale > 0, "{seen:?}: the race cannot see what it is looking for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_load_older_than_a_remote_write_is_discarded() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instances = instances(&app, &redis).await;
    let (owner, keys) = sessions(&app, 1).await;
    app.sql("alter table user_sessions rename to all_user_sessions").await;
    let slow = "(select pg_sleep(0.3)::text) is not null";
    app.sql(&format!("create view user_sessions as select * from all_user_sessions where {slow}")).await;
    let version = async |store: &Store| {
        let found = session::by_ids(store, &keys).await.expect("the read succeeds");
        found[&keys[0]].name.clone().expect("it has one")
    };
    let write = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.sql(&format!("update all_user_sessions set name = '1' where id = '{}'", keys[0])).await;
        let (row, list) = (Tag::Row("Session", keys[0].0), Tag::List("Session", "user", owner.0));
        instances[1].cache().invalidate_by_tag(&[row, list]).await
    };
    let (old, _) = tokio::join!(version(&instances[0]), write);
    assert_eq!(old, "0", "it had looked before the write");
    // It was stored, and is judged by its stamp.
    for _ in 0..100 {
        if redis.cli(&["keys", "c1:*"]).contains("c1:") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(redis.cli(&["keys", "c1:*"]).contains("c1:"), "the late value is in Redis");
    for instance in &instances {
        assert_eq!(version(instance).await, "1");
    }
}
