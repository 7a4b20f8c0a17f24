//! The cache between instances, with a real Redis and PostgreSQL: that no read which starts after a write was answered
//! gets older data, and that no failure of Redis becomes a failure of a request. Not here: the cache of one process
//! (unit tests of `entities::cache`).

use std::time::{Duration, Instant};

use entities::{
    CacheOptions, Role, Store, Tag, form,
    id::{FormId, SessionId, UserId},
    redis::Redis,
    session, user,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;

use crate::harness::{RedisServer, TestApp, db, process, text};

mod answers;
mod clocks;
mod connections;
mod handover;
mod outages;
mod races;
mod sentinel;
mod tags;
mod warming;

/// An instance of its own on the database of an app, and its figures.
struct Node {
    store: Store,
    registry: Registry,
}

impl Node {
    /// Without Redis.
    async fn alone(app: &TestApp) -> Self {
        Self::new(app, None, Registry::default()).await
    }

    async fn with(app: &TestApp, redis: &RedisServer) -> Self {
        let mut registry = Registry::default();
        let redis = Redis::new(&redis.url(), &mut registry);
        Self::new(app, Some(redis), registry).await
    }

    async fn new(app: &TestApp, redis: Option<Redis>, mut registry: Registry) -> Self {
        let store = app.another_store().await.with_cache(&CacheOptions::default(), redis, &mut registry);
        Self { store, registry }
    }

    /// The sum of a metric over all lines that have these texts.
    fn sum(&self, name: &str, parts: &[&str]) -> u64 {
        let mut metrics = String::new();
        encode(&mut metrics, &self.registry).expect("metrics are text");
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        let lines = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// Values of a type that were found valid.
    fn hits(&self, of: &str) -> u64 {
        self.sum("cache_requests_total", &[&format!("type=\"{of}\""), "result=\"hit\""])
    }
}

/// An instance of its own on the database of `app`.
async fn instance(app: &TestApp, redis: &RedisServer) -> Store {
    let config = CacheOptions::default();
    app.another_store().await.with_cache(&config, Some(redis.handle()), &mut Registry::default())
}

/// Waits until the instance follows the log.
async fn settle(instances: &[Store]) {
    for instance in instances {
        for _ in 0..500 {
            if instance.cache().has_lease() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(instance.cache().has_lease(), "the node follows the log after five seconds");
    }
}

/// Sessions of the demo collector, and whose they are.
async fn sessions(app: &TestApp, count: usize) -> (UserId, Vec<SessionId>) {
    let owner = TestApp::account(Role::Collector);
    let mut ids = Vec::new();
    let time = |time: &str| format!("strftime('%Y-%m-%dT%H:%M:%S', {time}) || '+00:00'");
    let (now, tomorrow) = if app.is_postgres() {
        ("now()".to_owned(), "now() + interval '1 day'".to_owned())
    } else {
        (time("'now'"), time("'now', '1 day'"))
    };
    let literal = |id: uuid::Uuid| {
        if app.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.simple()) }
    };
    for number in 0..count {
        let id = SessionId::new();
        let (row, user) = (literal(id.0), literal(owner.0));
        app.sql(&format!(
            "insert into user_sessions (id, user_id, is_active, name, created_at, last_activity, expires_at)
             values ({row}, {user}, true, '0', {now}, {now}, {tomorrow}) -- {number}"
        ))
        .await;
        ids.push(id);
    }
    (owner, ids)
}

/// Some form that the administrator sees.
async fn some_form(app: &TestApp) -> FormId {
    let data = app.as_admin().ask("{ forms(first: 1) { nodes { id } } }").await;
    FormId::parse(&text(&data["forms"]["nodes"][0]["id"])).expect("an id")
}

async fn title(store: &Store, id: FormId) -> String {
    form::by_ids(store, &[id]).await.expect("it is there")[&id].title.clone()
}

async fn version(store: &Store, id: SessionId) -> u64 {
    let found = session::by_ids(store, &[id]).await.expect("the read succeeds");
    found[&id].name.as_deref().and_then(|name| name.parse().ok()).expect("the name is a version")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bounded_types_are_at_most_a_quarter_second_old() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instances = [instance(&app, &redis).await, instance(&app, &redis).await];
    settle(&instances).await;
    let id = some_form(&app).await;
    let title = async |store: &Store| title(store, id).await;
    for turn in 0..50 {
        title(&instances[1]).await;
        let new = format!("title {turn}");
        app.sql(&format!("update forms set title = '{new}' where id = '{id}'")).await;
        instances[0].cache().invalidate_by_tag(&[Tag::Row("Form", id.0)]).await;
        let answered = Instant::now();
        assert_eq!(title(&instances[0]).await, new, "on the node that wrote: at once");
        while title(&instances[1]).await != new {
            assert!(answered.elapsed() < Duration::from_millis(250), "turn {turn}: still the old title");
        }
    }
}

#[tokio::test]
async fn rows_come_from_redis_and_a_hit_asks_no_database() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instances = [instance(&app, &redis).await, instance(&app, &redis).await];
    settle(&instances).await;
    let (owner, keys) = sessions(&app, 1).await;
    assert_eq!(version(&instances[0], keys[0]).await, 0);
    // Filled beside the request.
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A row that changes behind the cache's back shows who answered.
    app.sql(&format!("update user_sessions set name = '99' where id = '{}'", keys[0])).await;
    assert_eq!(version(&instances[1], keys[0]).await, 0, "the other node reads it from Redis");
    assert!(session::rename(&instances[0], owner, keys[0], Some("7")).await.expect("the write succeeds"));
    assert_eq!((version(&instances[1], keys[0]).await, version(&instances[0], keys[0]).await), (7, 7));
}

#[tokio::test]
async fn killing_freezing_or_flushing_redis_fails_no_read() {
    let [_, app] = TestApp::both_own().await;
    let mut redis = RedisServer::start().await;
    let instances = [instance(&app, &redis).await, instance(&app, &redis).await];
    settle(&instances).await;
    let (owner, keys) = sessions(&app, 3).await;
    let mut next = 0;
    let mut check = async |instances: &[Store; 2], about: &str| {
        for round in 0..10 {
            next += 1;
            let at = keys[round % keys.len()];
            let writer = &instances[round % 2];
            let renamed = session::rename(writer, owner, at, Some(&next.to_string())).await;
            assert!(renamed.expect("a write never fails because of Redis"), "{about}");
            for instance in instances {
                assert_eq!(version(instance, at).await, next, "{about}, round {round}");
            }
        }
    };
    check(&instances, "with Redis").await;
    redis.kill();
    check(&instances, "killed").await;
    redis.launch().await;
    settle(&instances).await;
    check(&instances, "started again, empty").await;
    redis.freeze();
    let start = Instant::now();
    check(&instances, "frozen").await;
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "the breaker spares the requests: {:?}",
        start.elapsed()
    );
    redis.thaw();
    settle(&instances).await;
    check(&instances, "thawed").await;
    redis.cli(&["flushall"]);
    check(&instances, "flushed").await;
    redis.cli(&["config", "set", "maxmemory", "1"]);
    check(&instances, "full").await;
}

#[tokio::test]
async fn an_instance_without_the_log_trusts_no_local_entry() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instances = [instance(&app, &redis).await];
    settle(&instances).await;
    let id = some_form(&app).await;
    let title = async || form::by_ids(&instances[0], &[id]).await.expect("it is there")[&id].title.clone();
    let old = title().await;
    app.sql(&format!("update forms set title = 'new' where id = '{id}'")).await;
    assert_eq!(title().await, old, "held, and nobody said that it changed");
    redis.freeze();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!instances[0].cache().has_lease());
    assert_eq!(title().await, "new", "without the log, what it holds may be old");
    redis.thaw();
}

#[tokio::test]
async fn every_node_drops_what_it_has_on_a_purge() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instances = [instance(&app, &redis).await, instance(&app, &redis).await];
    settle(&instances).await;
    let (_, keys) = sessions(&app, 1).await;
    for instance in &instances {
        version(instance, keys[0]).await;
    }
    app.sql(&format!("update user_sessions set name = '5' where id = '{}'", keys[0])).await;
    instances[0].cache().purge().await.expect("Redis is there");
    for instance in &instances {
        assert_eq!(version(instance, keys[0]).await, 5);
    }
}

#[tokio::test]
async fn what_one_node_writes_the_others_hear() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let one = app.another_store().await.with_relay(&redis.handle(), "test");
    let other = app.another_store().await.with_relay(&redis.handle(), "test");
    let mut heard = other.events().subscribe();
    // The subscription stands once its first gap is heard.
    let first =
        tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.expect("in time").expect("open");
    assert_eq!(*first, [entities::events::ChangeEvent::Lagged]);
    let (owner, keys) = sessions(&app, 1).await;
    session::rename(&one, owner, keys[0], Some("1")).await.expect("the write succeeds");
    let second =
        tokio::time::timeout(Duration::from_secs(1), heard.recv()).await.expect("in time").expect("open");
    assert_eq!(*second, [entities::events::ChangeEvent::Session { id: keys[0], user: owner }]);
}

#[tokio::test]
async fn a_warm_cache_answers_identically_without_the_database() {
    let query = "{ users(first: 20) { totalCount nodes { id displayName email lastLocation { latitude }
        sessions(first: 3) { nodes { id name } } forms(first: 2) { nodes { id title submissionCount } } } } }";
    for app in TestApp::both_own().await {
        let cached = app.with_cache().await;
        for role in [Role::Admin, Role::Editor, Role::Collector] {
            let plain = app.as_role(role).run(query, json!({})).await;
            let cold = cached.as_role(role).run(query, json!({})).await;
            let warm = cached.as_role(role).run(query, json!({})).await;
            assert_eq!((&cold.body, &warm.body), (&plain.body, &plain.body), "{role:?}");
            assert_eq!(warm.statements(), Vec::<&str>::new(), "{role:?}: everything is held");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_token_reads_its_write_on_every_instance() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let instances = [instance(&app, &redis).await, instance(&app, &redis).await];
    settle(&instances).await;
    let id = some_form(&app).await;
    let title = async |store: &Store| title(store, id).await;
    let mut old_without = 0;
    for turn in 0..200 {
        title(&instances[1]).await;
        let new = format!("title {turn}");
        app.sql(&format!("update forms set title = '{new}' where id = '{id}'")).await;
        let moment =
            instances[0].cache().invalidate_by_tag(&[Tag::Row("Form", id.0)]).await.expect("Redis is there");
        old_without += u32::from(title(&instances[1]).await != new);
        let token: entities::Version = moment.to_string().parse().expect("what is printed can be read");
        assert_eq!(title(&instances[1].not_before(token)).await, new, "turn {turn}");
    }
    assert!(old_without > 0, "without the token the other node is sometimes behind, or this shows nothing");
}

#[tokio::test]
async fn a_mutation_returns_its_cache_token_and_explains_reads() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let store = instance(&app, &redis).await;
    settle(std::slice::from_ref(&store)).await;
    let app = app.over_store(store);
    let collector = app.as_role(Role::Collector);
    let data = collector.ask("{ me { sessions(first: 1) { nodes { id } } } }").await;
    let id = text(&data["me"]["sessions"]["nodes"][0]["id"]);
    let rename = format!(
        "mutation {{ renameSession(input: {{id: \"{id}\", name: \"x\"}}) {{ session {{ name }} }} }}"
    );
    let written = collector.run(&rename, json!({})).await;
    let token = text(&written.extensions["cacheToken"]);
    assert!(token.parse::<entities::Version>().is_ok(), "{token}");

    let read = format!("{{ session(id: \"{id}\") {{ name }} }}");
    let first = collector.run(&read, json!({})).await;
    assert_eq!(first.extensions["explain"]["cache"][0]["tags"], json!([format!("Session:{id}")]));
    let second = collector.run(&read, json!({})).await;
    assert_eq!(second.extensions["explain"]["cache"][0]["keys"], json!({"hit": 1}));
    assert!(second.extensions.get("cacheToken").is_none(), "only writes have one");
}

#[tokio::test]
async fn a_cached_email_owner_is_verified() {
    for app in TestApp::both_own().await {
        let instance = Node::alone(&app).await;
        let instances = app.over_store(instance.store.clone());
        let by_email = async |email: &str| {
            let query = format!("{{ userBy(lookup: {{email: \"{email}\"}}) {{ id email }} }}");
            let reply = instances.as_admin().run(&query, json!({})).await;
            let statements = reply.statements().len();
            (reply.expect_data(&query)["userBy"]["id"].as_str().map(str::to_owned), statements)
        };
        let (editor, viewer) = (TestApp::account(Role::Editor), TestApp::account(Role::Viewer));
        let rename = async |account: UserId, old: &str, new: &str| {
            app.sql(&format!("update users set email = '{new}' where email = '{old}'")).await;
            let tags = [Tag::Row("User", account.0), Tag::Type("User")];
            instance.store.cache().invalidate_by_tag(&tags).await;
        };
        rename(editor, "editor@example.com", "one@example.com").await;
        rename(viewer, "viewer@example.com", "two@example.com").await;
        let (one, two) = (Some(editor.to_string()), Some(viewer.to_string()));
        assert_eq!(by_email("one@example.com").await, (one.clone(), 1));
        assert_eq!(by_email("one@example.com").await, (one.clone(), 1), "the row itself, by its id");
        assert_eq!(by_email("one@example.com").await, (one.clone(), 0));
        assert_eq!(by_email("nobody@example.com").await, (None, 1));
        // Another's account gets the e-mail.
        rename(editor, "one@example.com", "three@example.com").await;
        rename(viewer, "two@example.com", "one@example.com").await;
        assert_eq!(by_email("one@example.com").await.0, two);
        assert_eq!(by_email("two@example.com").await.0, None);
        assert_eq!(by_email("three@example.com").await.0, one);
    }
}

/// How long an answer takes, and what it reads, must not tell whether there is such an account.
#[tokio::test]
async fn email_lookups_reveal_nothing_to_unauthorized_viewers() {
    for app in TestApp::both_own().await {
        let instances = app.over_store(Node::alone(&app).await.store);
        let collector = instances.as_role(Role::Collector);
        let looked = async |email: &str| {
            let query = format!("{{ userBy(lookup: {{email: \"{email}\"}}) {{ email }} }}");
            let reply = collector.run(&query, json!({})).await;
            let statements: Vec<String> = reply.statements().iter().map(ToString::to_string).collect();
            (reply.expect_data(&query)["userBy"]["email"].as_str().map(str::to_owned), statements)
        };
        instances.as_admin().ask("{ userBy(lookup: {email: \"admin@example.com\"}) { id } }").await;
        looked("nobody@example.com").await;
        let nothing = (None, Vec::new());
        assert_eq!(looked("admin@example.com").await, nothing, "there is one");
        assert_eq!(looked("nobody@example.com").await, nothing, "there is none");
        let own = Some("collector@example.com".to_owned());
        assert_eq!(looked("collector@example.com").await, (own, Vec::new()));
    }
}

/// The operator's commands write past the servers, and are a write like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn account_changes_by_commands_reach_the_servers() {
    let redis = RedisServer::start().await;
    let account = TestApp::account(Role::Collector);
    // With Redis at once, and without it soon.
    for (redis, bound) in [(Some(&redis), Duration::ZERO), (None, Duration::from_secs(2))] {
        let url = db::own_postgres().await;
        let app = TestApp::over(&url).await;
        let instance = match redis {
            Some(redis) => Node::with(&app, redis).await.store,
            None => Node::alone(&app).await.store,
        };
        settle(std::slice::from_ref(&instance)).await;
        let redis = redis.map(RedisServer::address);
        let read = async || {
            let found = user::by_ids(&instance, &[account]).await.expect("the read succeeds");
            (found[&account].role, found[&account].is_active)
        };
        let run = async |arguments: &[&str]| {
            let mut command = process::xp(&url);
            command.arg("user").args(arguments).envs(redis.iter().map(|address| ("REDIS_URL", address)));
            let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
            let output = output.expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let becomes = async |wanted: (Role, bool)| {
            let since = Instant::now();
            while read().await != wanted {
                assert!(since.elapsed() < bound, "{:?} is not {wanted:?} with {redis:?}", read().await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let email = "collector@example.com";
        becomes((Role::Collector, true)).await;
        run(&["role", email, "EDITOR"]).await;
        becomes((Role::Editor, true)).await;
        run(&["disable", email]).await;
        becomes((Role::Editor, false)).await;
        run(&["enable", email]).await;
        run(&["role", email, "COLLECTOR"]).await;
        becomes((Role::Collector, true)).await;
    }
}
