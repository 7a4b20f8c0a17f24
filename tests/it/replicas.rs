//! Reads on standbys: what the real program answers is never older than what was acknowledged, whatever a
//! standby does: it is behind, ends, stands still, is promoted, is of another database; and reads go back to
//! it. Not here: the primary (`outage`, `lost_connections`).

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use entities::{
    CacheOptions, DatabaseOptions, ReplicaOptions, Store, Tag, cache::Retention, form, id::FormId,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    EndWhenDropped, Primary, RedisServer, Standby, TestApp,
    process::{self, Server},
};

/// How long taking a standby out of rotation, or back, may take on a busy machine.
const REACTED_WITHIN: Duration = Duration::from_secs(15);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn primary() -> Primary {
    runtime().block_on(Primary::start())
}

/// A server that reads from these standbys.
fn serve(primary: &Primary, standbys: &[&Standby], environment: &[(&str, &str)]) -> Server {
    let urls: Vec<String> = standbys.iter().map(|standby| standby.url()).collect();
    let urls = urls.join(",");
    let mut all = vec![("DATABASE_REPLICA_URLS", urls.as_str())];
    all.extend(environment);
    Server::start(&primary.url(), &all)
}

/// A figure of a server, summed up over its labels that have this text.
fn figure(server: &Server, name: &str, label: &str) -> f64 {
    let (_, text) = process::send(&server.address, "/metrics", &[], "").expect("the server is there");
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn reads(server: &Server, standby: &Standby) -> f64 {
    figure(server, "database_replica_reads_total", &standby.name())
}

fn fallbacks(server: &Server, reason: &str) -> f64 {
    figure(server, "database_replica_fallbacks_total", &format!("reason=\"{reason}\""))
}

fn is_in_rotation(server: &Server, standby: &Standby) -> bool {
    figure(server, "database_replica_in_rotation", &standby.name()) > 0.0
}

fn wait_for(what: &str, server: &Server, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < REACTED_WITHIN, "{what}: not within {REACTED_WITHIN:?}\n{}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Somebody who asks a server.
struct Client<'a> {
    server: &'a Server,
    token: &'a str,
}

impl Client<'_> {
    fn ask(&self, query: &str, variables: &Value) -> Value {
        let answer = process::ask(&self.server.address, self.token, query, variables).expect("an answer");
        assert_eq!(answer["errors"], Value::Null, "{query}: {answer}\n{}", self.server.log());
        answer
    }

    /// A form of this title; its id.
    fn create(&self, title: &str) -> String {
        let query = "mutation($title: String!) { createForm(input: {title: $title}) { form { id } } }";
        let made = self.ask(query, &json!({ "title": title }));
        made["data"]["createForm"]["form"]["id"].as_str().expect("an id").to_owned()
    }

    /// Gives a form a title, and does not read it; by what others can see that it has it.
    fn rename(&self, id: &str, title: &str) -> Value {
        let query = "mutation($id: ID!, $title: String!) {
            updateForm(input: {id: $id, title: $title}) { userErrors { code } } }";
        let answer = self.ask(query, &json!({ "id": id, "title": title }));
        assert_eq!(answer["data"]["updateForm"]["userErrors"], json!([]), "{answer}");
        answer["extensions"]["cacheToken"].clone()
    }

    fn title(&self, id: &str) -> String {
        let answer = self.ask("query($id: ID!) { form(id: $id) { title } }", &json!({ "id": id }));
        answer["data"]["form"]["title"].as_str().unwrap_or("(none)").to_owned()
    }

    /// The title, as of this token at least.
    fn title_since(&self, id: &str, token: &str) -> String {
        let body =
            json!({ "query": "query($id: ID!) { form(id: $id) { title } }", "variables": { "id": id } });
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("x-cache-token", token)];
        let (_, answer) = process::send(&self.server.address, "/graphql", &headers, &body.to_string())
            .expect("the server is there");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["errors"], Value::Null, "{answer}");
        answer["data"]["form"]["title"].as_str().unwrap_or("(none)").to_owned()
    }

    /// How many forms there are whose title has this word.
    fn count(&self, word: &str) -> u64 {
        let query = "query($word: String!) { forms(first: 1, filter: {search: $word}) { totalCount } }";
        let answer = self.ask(query, &json!({ "word": word }));
        answer["data"]["forms"]["totalCount"].as_u64().expect("a count")
    }
}

/// Writes and reads what was written, `rounds` times: forms by id, new ones, and lists of them.
fn write_and_read(writer: &Client<'_>, reader: &Client<'_>, rounds: usize, word: &str) {
    let id = writer.create(&format!("{word} first"));
    for round in 0..rounds {
        let title = format!("{word} {round}");
        let since = writer.rename(&id, &title);
        let read = match since.as_str() {
            Some(since) => reader.title_since(&id, since),
            None => reader.title(&id),
        };
        assert_eq!(read, title, "round {round}: older than what was acknowledged");
        if round % 5 == 0 {
            let new = writer.create(&title);
            assert_eq!(writer.title(&new), title, "round {round}: what was made is not there");
        }
    }
}

#[test]
fn nothing_read_is_older_than_what_was_acknowledged() {
    let primary = primary();
    let standbys = [primary.standby(), primary.standby()];
    // Nothing is answered before the standby was asked, or could have been.
    let server = serve(&primary, &[&standbys[0], &standbys[1]], &[("XP_DATABASE_REPLICA_WAIT", "200ms")]);
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    let client = Client { server: &server, token: &token };
    for standby in &standbys {
        wait_for("in rotation", &server, || is_in_rotation(&server, standby));
    }
    write_and_read(&client, &client, 50, "near");
    for standby in &standbys {
        assert!(reads(&server, standby) > 0.0, "{} was asked\n{}", standby.name(), server.log());
    }
    // Behind by more than anybody waits: each read of what was just written runs on the primary.
    for standby in &standbys {
        standby.delay("1s");
    }
    let before = fallbacks(&server, "behind");
    write_and_read(&client, &client, 10, "late");
    assert!(fallbacks(&server, "behind") >= before + 10.0);
    // What was not written meanwhile is read from them.
    let before: f64 = standbys.iter().map(|standby| reads(&server, standby)).sum();
    client.ask("{ users(first: 7) { nodes { email sessions(first: 3) { totalCount } } } }", &json!({}));
    assert!(standbys.iter().map(|standby| reads(&server, standby)).sum::<f64>() > before);
}

/// Two servers and their Redis: what one of them was told is not older than what the other one has acknowledged.
#[test]
fn tokens_of_one_server_count_at_another() {
    let runtime = runtime();
    let (primary, redis) = (primary(), runtime.block_on(RedisServer::start()));
    let standby = primary.standby();
    let redis_url = redis.address();
    let environment = [("REDIS_URL", redis_url.as_str())];
    let servers = [(); 2].map(|()| serve(&primary, &[&standby], &environment));
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    let [writer, reader] = [&servers[0], &servers[1]].map(|server| Client { server, token: &token });
    for server in &servers {
        wait_for("in rotation", server, || is_in_rotation(server, &standby));
    }
    for (delay, rounds) in [("0", 60), ("30ms", 20), ("1s", 5)] {
        standby.delay(delay);
        write_and_read(&writer, &reader, rounds, &format!("over {delay}"));
    }
    assert!(reads(&servers[0], &standby) + reads(&servers[1], &standby) > 0.0);
}

/// Reads and writes go on, and are right, whatever becomes of a standby.
#[test]
fn a_standby_that_fails_costs_no_request() {
    let primary = primary();
    let mut standby = primary.standby();
    let server = serve(&primary, &[&standby], &[]);
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    let client = Client { server: &server, token: &token };
    wait_for("in rotation", &server, || is_in_rotation(&server, &standby));
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let wait_for_work = || {
        let from = done.load(Ordering::SeqCst);
        wait_for("requests are answered", &server, || done.load(Ordering::SeqCst) >= from + 20);
    };
    thread::scope(|scope| {
        let end = EndWhenDropped(&over);
        for number in 0..4 {
            let (client, over, done) = (&client, &over, &done);
            scope.spawn(move || {
                let word = format!("worker{number}");
                let mut made = 0;
                while !over.load(Ordering::SeqCst) {
                    write_and_read(client, client, 1, &word);
                    made += 2;
                    assert_eq!(client.count(&word), made, "what was made is in the list");
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        wait_for_work();
        // It ends, and comes back.
        standby.stop();
        wait_for_work();
        wait_for("out of rotation", &server, || !is_in_rotation(&server, &standby));
        standby.start_again();
        wait_for("back in rotation", &server, || is_in_rotation(&server, &standby));
        wait_for_work();
        // It stands still in the middle of what it does.
        standby.signal("STOP");
        wait_for("out of rotation", &server, || !is_in_rotation(&server, &standby));
        wait_for_work();
        standby.signal("CONT");
        wait_for("back in rotation", &server, || is_in_rotation(&server, &standby));
        wait_for_work();
        // Somebody promotes it by mistake: it takes writes of its own, and none of the primary's.
        standby.promote();
        wait_for("out of rotation", &server, || !is_in_rotation(&server, &standby));
        wait_for_work();
        drop(end);
    });
}

#[test]
fn a_standby_that_is_too_far_behind_is_not_read_from() {
    let primary = primary();
    let standby = primary.standby();
    let server = serve(&primary, &[&standby], &[("XP_DATABASE_REPLICA_MAX_LAG", "1s")]);
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    let client = Client { server: &server, token: &token };
    wait_for("in rotation", &server, || is_in_rotation(&server, &standby));
    standby.pause();
    let id = client.create("before");
    wait_for("out of rotation", &server, || !is_in_rotation(&server, &standby));
    assert!(figure(&server, "database_replica_lag_seconds", &standby.name()) > 1.0);
    client.rename(&id, "after");
    assert_eq!(client.title(&id), "after");
    standby.resume();
    wait_for("back in rotation", &server, || is_in_rotation(&server, &standby));
    assert_eq!(client.title(&id), "after");
}

/// A primary that starts anew goes on with the same standbys.
#[test]
fn standbys_are_read_from_again_after_the_primary_was_away() {
    let mut primary = primary();
    let standby = primary.standby();
    let server = serve(&primary, &[&standby], &[]);
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    let client = Client { server: &server, token: &token };
    wait_for("in rotation", &server, || is_in_rotation(&server, &standby));
    let id = client.create("before");
    let title = client.title(&id);
    assert_eq!(title, "before");
    primary.stop();
    // Nobody writes, and what was read from a standby before still is.
    let users = "{ users(first: 9) { nodes { email } } }";
    assert_eq!(client.ask(users, &json!({}))["errors"], Value::Null);
    primary.start_again();
    wait_for("writes again", &server, || {
        let query = "mutation { createForm(input: {title: \"again\"}) { form { id } } }";
        process::ask(&server.address, &token, query, &json!({}))
            .is_some_and(|answer| answer["errors"].is_null())
    });
    let before = reads(&server, &standby);
    wait_for("read from again", &server, || {
        write_and_read(&client, &client, 1, "again");
        reads(&server, &standby) > before
    });
}

/// A standby of another database says that it has replayed everything, and has nothing of it.
#[test]
fn a_standby_of_another_database_is_not_read_from() {
    let (primary, other) = (primary(), self::primary());
    let (own, foreign) = (primary.standby(), other.standby());
    // Far ahead of anything that the primary writes.
    other.sql("create table filler as select repeat(random()::text, 20) from generate_series(1, 100000)");
    let position = "select pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')";
    let written = other.sql("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')");
    let server = serve(&primary, &[&own, &foreign], &[]);
    wait_for("it has replayed all", &server, || {
        foreign.sql(position).parse::<f64>().expect("a number") >= written.parse::<f64>().expect("a number")
    });
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    let client = Client { server: &server, token: &token };
    wait_for("in rotation", &server, || is_in_rotation(&server, &own));
    write_and_read(&client, &client, 20, "own");
    assert!(reads(&server, &own) > 0.0);
    assert!(!is_in_rotation(&server, &foreign) && reads(&server, &foreign) == 0.0, "{}", server.log());
}

/// A store in this process that reads from these standbys.
async fn store(primary: &Primary, standbys: &[&Standby], wait: Duration) -> Store {
    let replicas = ReplicaOptions {
        urls: standbys.iter().map(|standby| standby.url()).collect(),
        wait,
        ..ReplicaOptions::default()
    };
    let config = DatabaseOptions { replicas, ..DatabaseOptions::at(primary.url()) };
    let store = Store::connect(&config, &mut Registry::default()).await.expect("it connects");
    let store = store.with_cache(&CacheOptions::default(), None, &mut Registry::default());
    tokio::spawn(store.clone().stay_registered());
    store
}

/// `extensions.explain` names the standby of each statement that ran on one; the number of statements is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_names_the_standby_of_each_statement() {
    let primary = Primary::start().await;
    let standby = primary.standby();
    let store = store(&primary, &[&standby], Duration::from_secs(1)).await;
    let app = TestApp::over(&primary.url()).await.over_store(store);
    let (began, mut number) = (Instant::now(), 1);
    let reply = loop {
        // Another page each time, which is not cached.
        number += 1;
        let query = format!("{{ forms(first: {number}) {{ nodes {{ title owner {{ email }} }} }} }}");
        let reply = app.as_admin().run(&query, json!({})).await;
        assert_eq!(reply.errors, Vec::<Value>::new());
        if reply.sql.iter().any(|statement| statement.server.is_some()) {
            break reply;
        }
        assert!(began.elapsed() < REACTED_WITHIN, "nothing is read from the standby");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for statement in &reply.sql {
        let is_plain_read = ["form.page", "user.by_ids"].contains(&statement.name.as_str());
        let server = statement.server.clone();
        assert_eq!(server, is_plain_read.then(|| standby.name()), "{}", statement.name);
    }
}

/// A value that a standby may give is made of another one that it may not give: that one comes from the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_within_a_read_on_a_standby_is_as_new_as_any() {
    let primary = Primary::start().await;
    let standby = primary.standby();
    let store = store(&primary, &[&standby], Duration::from_millis(5)).await;
    let app = TestApp::over(&primary.url()).await.over_store(store.clone());
    let made =
        app.as_admin().ask("mutation { createForm(input: {title: \"before\"}) { form { id } } }").await;
    let id = primary.sql("select id from forms where title = 'before'");
    let id = FormId(Uuid::parse_str(&id).expect("an id"));
    let began = Instant::now();
    let is_shown = || standby.sql("select count(*) from forms where title = 'before'") == "1";
    while !is_shown() || !store.database().replica_names().iter().all(|(_, is_in_rotation)| *is_in_rotation) {
        assert!(began.elapsed() < REACTED_WITHIN, "nothing is read from the standby");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    standby.pause();
    let rename =
        "mutation($id: ID!) { updateForm(input: {id: $id, title: \"after\"}) { userErrors { code } } }";
    let renamed = app.as_admin().run(rename, json!({ "id": made["createForm"]["form"]["id"] })).await;
    renamed.expect_data(rename);
    let title = move |store: Store| async move {
        let found = form::by_ids(&store, &[id]).await?;
        Ok::<_, entities::Error>(found.get(&id).map(|form| form.title.clone()))
    };
    let tags = vec![Tag::Named("titles".to_owned())];
    let read = store.get_or_set("a title", Retention::for_seconds(60), tags, title).await.expect("read");
    assert_eq!(read.as_deref(), Some("after"));
}

/// What docs/operations.md says under "Sizing".
fn documented_connections() -> usize {
    let text = include_str!("../../docs/operations.md");
    let (_, after) = text.split_once("(`database.max_connections` + ").expect("the formula");
    after.split_once(')').and_then(|(number, _)| number.parse().ok()).expect("a number")
}

/// Under load, with statements that are cancelled, a Redis, a standby, and somebody who asks whether it is ready.
#[test]
fn an_instance_has_no_more_connections_than_documented() {
    const MOST: usize = 3;
    let (primary, redis) = (primary(), runtime().block_on(RedisServer::start()));
    let standby = primary.standby();
    let (most, redis_url) = (MOST.to_string(), redis.address());
    let environment = [
        ("XP_DATABASE_MAX_CONNECTIONS", most.as_str()),
        ("XP_DATABASE_POOLER", "none"),
        ("XP_HTTP_REQUEST_TIMEOUT", "500ms"),
        ("REDIS_URL", redis_url.as_str()),
    ];
    let server = serve(&primary, &[&standby], &environment);
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    primary.sql(
        "create function slow() returns trigger language plpgsql as
         $$ begin if new.title like 'slow%' then perform pg_sleep(1); end if; return new; end $$;
         create trigger slow before insert on forms for each row execute function slow()",
    );
    let (over, slow) = (AtomicBool::new(false), AtomicUsize::new(0));
    let count = |condition: &str| -> usize {
        let text = format!("select count(*) from pg_stat_activity where application_name = 'xp' {condition}");
        primary.sql(&text).trim().parse().expect("a number")
    };
    let (mut seen, mut own) = (0, 0);
    thread::scope(|scope| {
        let end = EndWhenDropped(&over);
        for client in 0..12 {
            let (server, token, over, slow) = (&server, &token, &over, &slow);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let title = if client == 0 { "slow" } else { "fast" };
                    let write = "mutation($t: String!) { createForm(input: {title: $t}) { form { id } } }";
                    process::ask(&server.address, token, write, &json!({ "t": title }));
                    slow.fetch_add(usize::from(client == 0), Ordering::SeqCst);
                    process::ask(&server.address, token, "{ users(first: 5) { totalCount } }", &json!({}));
                    process::send(&server.address, "/readyz", &[], "");
                }
            });
        }
        let began = Instant::now();
        let kinds = ["and query ilike 'listen %'", "and query like '%pg_cancel_backend%'"];
        while slow.load(Ordering::SeqCst) < 10
            || own < kinds.len()
            || began.elapsed() < Duration::from_secs(5)
        {
            assert!(
                began.elapsed() < Duration::from_mins(1),
                "{seen} seen, {own} of its own\n{}",
                server.log()
            );
            seen = seen.max(count(""));
            own = own.max(kinds.iter().filter(|kind| count(kind) > 0).count());
        }
        drop(end);
    });
    eprintln!("{seen} connections at most, of which {MOST} serve requests");
    assert!(seen > MOST && seen <= MOST + documented_connections(), "{seen}");
}

/// What was measured last says nothing of a standby that is away.
#[test]
fn the_lag_of_a_standby_that_is_away_is_not_shown() {
    let primary = primary();
    let mut standby = primary.standby();
    let server = serve(&primary, &[&standby], &[]);
    wait_for("the lag of a standby", &server, || shows_lag(&server, &standby));
    standby.stop();
    wait_for("no lag of one that is away", &server, || !shows_lag(&server, &standby));
    standby.start_again();
    wait_for("its lag when it is back", &server, || shows_lag(&server, &standby));
}

fn shows_lag(server: &Server, standby: &Standby) -> bool {
    let (_, text) = process::send(&server.address, "/metrics", &[], "").expect("the server is there");
    let is_lag =
        |line: &str| line.starts_with("database_replica_lag_seconds{") && line.contains(&standby.name());
    text.lines().any(is_lag)
}
