//! Failures of the database have names, and say whether to try again: what was not begun is `UNAVAILABLE`,
//! what took too long `TIMEOUT`, what may be stored `OUTCOME_UNKNOWN`. What may be run again without harm is,
//! without a word. Not here: a part of the database that is broken (`outage`), connections that lie
//! (`lost_connections`).

use std::{
    thread,
    time::{Duration, Instant},
};

use entities::{DatabaseOptions, Role, Store, id};
use prometheus_client::registry::Registry;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value, json};

use crate::harness::{
    MiddleBox, Reply, TestApp, db,
    process::{self, Server},
    text,
};

const WRITE: &str =
    r#"mutation { createForm(input: {title: "Named"}) { form { id title } userErrors { code } } }"#;

/// From now on storing a form fails `times` times with this SQLSTATE.
async fn fail_with(app: &TestApp, state: &str, times: u32) {
    app.sql("drop trigger if exists fails on forms; drop sequence if exists failed").await;
    app.sql("create sequence failed").await;
    app.sql(&format!(
        "create or replace function fail() returns trigger language plpgsql as $$ begin
           if nextval('failed') <= {times} then raise exception 'on purpose' using errcode = '{state}'; end if;
           return new; end $$"
    ))
    .await;
    app.sql("create trigger fails before insert on forms for each row execute function fail()").await;
}

fn expect_failure(reply: &Reply, code: &str, retryable: bool) {
    assert_eq!(reply.codes, [code], "{}", reply.body);
    assert_eq!(reply.errors[0]["extensions"]["retryable"], retryable, "{}", reply.body);
}

#[tokio::test]
async fn what_was_not_done_is_run_again_without_a_word() {
    let app = TestApp::over(&db::own_postgres().await).await;
    // Serialization failure and deadlock three times, a primary that is none any more once.
    for (state, times) in [("40001", 3), ("40P01", 3), ("25006", 1)] {
        let before = app.count("forms").await;
        fail_with(&app, state, times).await;
        let reply = app.as_role(Role::Editor).run(WRITE, json!({})).await;
        assert!(reply.errors.is_empty(), "{state}: {}", reply.body);
        assert_eq!(app.count("forms").await, before + 1, "{state}: stored once");
    }
    for (state, times, code) in [
        ("40001", 4, "UNAVAILABLE"),
        ("25006", 2, "UNAVAILABLE"),
        ("53100", 1, "UNAVAILABLE"),
        ("55P03", 1, "TIMEOUT"),
    ] {
        let before = app.count("forms").await;
        fail_with(&app, state, times).await;
        let reply = app.as_role(Role::Editor).run(WRITE, json!({})).await;
        expect_failure(&reply, code, true);
        assert_eq!(app.count("forms").await, before, "{state}: nothing is stored");
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_a_timeout() {
    let url = db::own_postgres().await;
    let beside = TestApp::over(&url).await;
    beside.sql("do $$ begin execute format('alter database %I set statement_timeout = 300', current_database()); end $$").await;
    let app = TestApp::over(&url).await;
    let locked = beside.store.connection().begin().await.expect("begun");
    locked.execute_unprepared("lock table forms in access exclusive mode").await.expect("locked");
    expect_failure(&app.as_role(Role::Editor).run(WRITE, json!({})).await, "TIMEOUT", true);
    let read = app.as_admin().run("{ forms { totalCount } }", json!({})).await;
    expect_failure(&read, "TIMEOUT", true);
    locked.rollback().await.expect("unlocked");
}

#[tokio::test]
async fn a_file_that_is_locked_for_long_is_a_timeout() {
    let url = db::own_sqlite().await;
    let (app, beside) = (TestApp::over(&url).await, TestApp::over(&url).await);
    let locked = beside.store.connection().begin().await.expect("begun");
    locked.execute_unprepared("update users set epoch = epoch").await.expect("locked");
    expect_failure(&app.as_role(Role::Editor).run(WRITE, json!({})).await, "TIMEOUT", true);
    locked.rollback().await.expect("unlocked");
    app.as_role(Role::Editor).ask(WRITE).await;
}

#[tokio::test]
async fn who_gets_no_connection_in_time_may_try_again() {
    let url = db::own_postgres().await;
    let beside = TestApp::over(&url).await;
    let few = DatabaseOptions {
        max_connections: 1,
        acquire_timeout: Duration::from_millis(300),
        ..DatabaseOptions::at(&url)
    };
    let app = beside.over_store(Store::connect(&few, &mut Registry::default()).await.expect("connected"));
    let locked = beside.store.connection().begin().await.expect("begun");
    locked.execute_unprepared("lock table forms in access exclusive mode").await.expect("locked");
    let (waits, editor) = (app.as_role(Role::Editor), app.as_role(Role::Editor));
    let waiting = waits.run(WRITE, json!({}));
    let coming = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let reply = editor.run(WRITE, json!({})).await;
        expect_failure(&reply, "UNAVAILABLE", true);
        locked.rollback().await.expect("unlocked");
    };
    let (waited, ()) = tokio::join!(waiting, coming);
    assert!(waited.errors.is_empty(), "{}", waited.body);
}

/// After a failover the server under the same name may be a standby; what is written goes to none of those.
#[tokio::test]
async fn a_server_that_takes_no_writes_gets_none() {
    let url = db::own_postgres().await;
    let (beside, app) = (TestApp::over(&url).await, TestApp::over(&url).await);
    let set = |value: &str| {
        let change = format!("set default_transaction_read_only = {value}");
        format!("do $$ begin execute format('alter database %I {change}', current_database()); end $$")
    };
    let end_all = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where datname = current_database() and pid <> pg_backend_pid()";
    app.as_role(Role::Editor).ask(WRITE).await;
    beside.sql(&set("on")).await;
    beside.sql(end_all).await;
    for _ in 0..3 {
        expect_failure(&app.as_role(Role::Editor).run(WRITE, json!({})).await, "UNAVAILABLE", true);
        app.as_admin().ask("{ users(first: 1) { nodes { id } } }").await;
    }
    assert!(app.store.database().write_fault().is_some(), "`/readyz` says so");
    beside.sql("set transaction_read_only = off").await;
    beside.sql(&format!("begin; set local transaction_read_only = off; {}; commit", set("off"))).await;
    // No connection was ended: those that cannot be written to are replaced.
    let began = Instant::now();
    loop {
        let reply = app.as_role(Role::Editor).run(WRITE, json!({})).await;
        if reply.errors.is_empty() {
            break;
        }
        expect_failure(&reply, "UNAVAILABLE", true);
        assert!(began.elapsed() < Duration::from_secs(20), "it takes writes again: {}", reply.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A form that takes submissions.
async fn open_form(app: &TestApp) -> String {
    let editor = app.as_role(Role::Editor);
    let definition = json!({ "schema": 1, "fields": [{ "key": "n", "type": "INTEGER", "label": "N" }] });
    let create = "mutation($d: JSON!) { createForm(input: {title: \"F\", definition: $d}) { form { id } } }";
    let created = editor.run(create, json!({ "d": definition })).await.expect_data(create);
    let form = text(&created["createForm"]["form"]["id"]);
    let publish = "{ form { id } userErrors { code } }";
    editor
        .ask(&format!(r#"mutation {{ publishForm(input: {{id: "{form}", baseRevision: 1}}) {publish} }}"#))
        .await;
    form
}

/// The answer to COMMIT is lost on its way: it is stored, and the client is told that nobody knows. The same
/// again, with its `clientId`, gives what is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_has_an_unknown_outcome() {
    let url = db::own_postgres().await;
    let beside = TestApp::over(&url).await;
    let form = open_form(&beside).await;
    let way = MiddleBox::to(&url);
    let app = TestApp::over(&way.url).await;
    let hand_in = "mutation($i: CreateSubmissionInput!) {
        createSubmission(input: $i) { submission { id } userErrors { code } } }";
    for (client, retryable) in [(Some(id::new().to_string()), true), (None, false)] {
        let input = json!({ "i": { "formId": form, "clientId": client, "data": { "n": 1 } } });
        let before = beside.count("form_submissions").await;
        way.swallow_the_answer_to_commit();
        let collector = app.as_role(Role::Collector);
        expect_failure(&collector.run(hand_in, input.clone()).await, "OUTCOME_UNKNOWN", retryable);
        assert_eq!(beside.count("form_submissions").await, before + 1, "it was stored");
        if retryable {
            let again = collector.run(hand_in, input).await.expect_data(hand_in);
            assert!(again["createSubmission"]["submission"]["id"].is_string(), "{again}");
            assert_eq!(beside.count("form_submissions").await, before + 1, "and not twice");
        }
    }
    let before = beside.count("forms").await;
    way.swallow_the_answer_to_commit();
    expect_failure(&app.as_role(Role::Editor).run(WRITE, json!({})).await, "OUTCOME_UNKNOWN", false);
    assert_eq!(beside.count("forms").await, before + 1, "not run again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_and_cannot_be_read_back_does_not_look_failed() {
    let url = db::own_postgres().await;
    let beside = TestApp::over(&url).await;
    let way = MiddleBox::to(&url);
    let app = TestApp::over(&way.url).await;
    way.refuse_after_commit();
    let reply = app.as_role(Role::Editor).run(WRITE, json!({})).await;
    expect_failure(&reply, "UNAVAILABLE", false);
    assert_eq!(reply.data["createForm"], json!({ "form": null, "userErrors": [] }), "{}", reply.body);
    let error = &reply.errors[0];
    assert!(text(&error["message"]).ends_with("What `createForm` did is done."), "{}", reply.body);
    let id = text(&error["extensions"]["stored"]);
    let found = beside.as_admin().ask(&format!("{{ form(id: \"{id}\") {{ title }} }}")).await;
    assert_eq!(found["form"]["title"], "Named");
}

/// One request on a connection of its own: status, head and body.
fn send(server: &Server, token: &str, query: &str) -> (u16, String, Value) {
    let bearer = format!("Bearer {token}");
    let body = json!({ "query": query }).to_string();
    let (status, head, body) =
        process::send_whole(&server.address, "/graphql", &[("authorization", &bearer)], &body)
            .expect("the server is there");
    (status, head.to_lowercase(), serde_json::from_str(&body).expect("JSON"))
}

/// One request with a body, for an answer of this media type: status, head and body.
fn post(server: &Server, token: &str, accept: &str, body: &Value) -> (u16, String, Value) {
    let bearer = format!("Bearer {token}");
    let accept = if accept.is_empty() { "application/json" } else { accept };
    let headers = [("authorization", bearer.as_str()), ("accept", accept)];
    let (status, head, body) = process::send_whole(&server.address, "/graphql", &headers, &body.to_string())
        .expect("the server is there");
    let body = serde_json::from_str(&body).unwrap_or_else(|_| json!(body));
    (status, head.to_lowercase(), body)
}

const CREATE: &str = "mutation($title: String!) { createForm(input: {title: $title}) { form { title } } }";

/// Forms by sets of variables, one set a title.
fn sets(titles: &[&str]) -> Value {
    let sets: Vec<_> = titles.iter().map(|title| json!({ "title": title })).collect();
    json!({ "query": CREATE, "variables": sets })
}

/// The code of the first error of each answer; empty where it has none.
fn codes(answers: &Value) -> Vec<String> {
    let code =
        |answer: &Value| answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_default().to_owned();
    answers.as_array().map_or_else(|| vec![code(answers)], |answers| answers.iter().map(code).collect())
}

/// Whose time is up while COMMIT is under way is told that it may be stored, in whatever way it was sent;
/// what was not begun may be sent again.
#[test]
fn time_that_is_up_during_commit_leaves_the_outcome_unknown() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = runtime.block_on(db::own_postgres());
    let token = process::mint(&url, "admin@example.com", &[]);
    let beside = runtime.block_on(TestApp::over(&url));
    runtime.block_on(beside.sql(
        "create function wait() returns trigger language plpgsql as $$ begin
           if new.title = 'slow' then perform pg_sleep(10); end if; return new; end $$",
    ));
    runtime.block_on(beside.sql(
        "create constraint trigger waits_at_commit after insert on forms deferrable initially deferred
         for each row execute function wait()",
    ));
    let server = Server::start(&url, &[("XP_HTTP_REQUEST_TIMEOUT", "3s"), ("XP_HTTP_MAX_BATCH", "2")]);
    let one = |title: &str| json!({ "query": CREATE, "variables": { "title": title } });
    let (status, _, body) = post(&server, &token, "", &one("slow"));
    assert_eq!((status, codes(&body)), (504, vec!["OUTCOME_UNKNOWN".to_owned()]), "{body}");
    assert_eq!(body["errors"][0]["extensions"]["retryable"], false, "{body}");
    let (status, _, body) = post(&server, &token, "", &json!([one("slow"), one("quick")]));
    assert_eq!((status, codes(&body)), (200, vec!["OUTCOME_UNKNOWN".to_owned(), String::new()]), "{body}");
    let (status, _, body) = post(&server, &token, "", &sets(&["quick", "slow", "quick"]));
    let told = ["", "OUTCOME_UNKNOWN", "TIMEOUT"].map(ToOwned::to_owned);
    assert_eq!((status, codes(&body)), (200, told.to_vec()), "{body}");
    assert_eq!(body[2]["errors"][0]["extensions"]["retryable"], true, "{body}");
    let (_, _, body) = post(&server, &token, "text/event-stream", &one("slow"));
    assert!(text(&body).contains("OUTCOME_UNKNOWN"), "{body}");
    let (_, _, lines) = post(&server, &token, "application/jsonl", &sets(&["quick", "slow"]));
    // Between them are the lengths of the chunks that they come in.
    let told =
        text(&lines).lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect::<Vec<_>>();
    let told: Vec<Value> = told.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(codes(&json!(told)), ["", "OUTCOME_UNKNOWN"], "{lines}");
    let quick = runtime.block_on(beside.count("forms where title = 'quick'"));
    assert_eq!(quick, 3, "those that were begun, and not the one behind the slow one");
}

/// While PostgreSQL is away nobody waits for it, what is cached is answered, and it is found as soon as it is back.
#[test]
fn nobody_waits_for_a_database_that_is_away() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = runtime.block_on(db::own_postgres());
    let token = process::mint(&url, "admin@example.com", &[]);
    let way = MiddleBox::to(&url);
    let environment = [("XP_DATABASE_ACQUIRE_TIMEOUT", "2s"), ("XP_HTTP_MAX_BATCH", "2")];
    let server = Server::start(&way.url, &environment);
    let cached = "{ me { displayName } }";
    let other = |number: u64| {
        format!("{{ forms(first: 1, filter: {{search: \"other {number}\"}}) {{ totalCount }} }}")
    };
    for hangs in [false, true] {
        assert!(send(&server, &token, cached).2["errors"].is_null());
        assert_eq!(send(&server, &token, WRITE).0, 200);
        if hangs {
            way.vanish();
        } else {
            way.refuse(true);
        }
        let began = Instant::now();
        let (status, head, body) = loop {
            let answer = send(&server, &token, WRITE);
            let code = text(&answer.2["errors"][0]["extensions"]["code"]);
            assert!(
                ["UNAVAILABLE", "TIMEOUT", "OUTCOME_UNKNOWN"].contains(&code.as_str()),
                "{hangs}: {}",
                answer.2
            );
            if answer.0 == 503 {
                break answer;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{hangs}: {}", answer.2);
        };
        assert_eq!(status, 503);
        assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
        assert!(body.get("data").is_none(), "nothing was executed: {body}");
        assert_eq!(body["errors"][0]["extensions"]["retryable"], true, "{body}");
        let (status, head, body) = post(&server, &token, "", &sets(&["a", "b"]));
        assert_eq!((status, codes(&body).as_slice()), (503, &["UNAVAILABLE".to_owned()][..]), "{body}");
        assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
        let array = json!([{ "query": WRITE }, { "query": WRITE }]);
        let (status, _, body) = post(&server, &token, "", &array);
        assert_eq!((status, codes(&body)), (200, vec!["UNAVAILABLE".to_owned(); 2]), "{body}");
        let mut times: Vec<Duration> = (0..21)
            .map(|number| {
                let began = Instant::now();
                let (status, head, body) = send(&server, &token, &other(number));
                assert_eq!(body["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{body}");
                assert_eq!((status, head.contains("\r\nretry-after: ")), (200, true), "{head}");
                began.elapsed()
            })
            .collect();
        times.sort();
        println!("hangs: {hangs}: refused within {:?}, at most {:?}", times[10], times[20]);
        assert!(times[10] < Duration::from_millis(100), "{times:?}");
        let (_, _, body) = send(&server, &token, cached);
        assert!(body["errors"].is_null() && body["data"]["me"].is_object(), "{body}");
        way.restore();
        let back = Instant::now();
        while send(&server, &token, WRITE).0 != 200 {
            assert!(back.elapsed() < Duration::from_secs(20), "{}", server.log());
            thread::sleep(Duration::from_millis(10));
        }
        println!("hangs: {hangs}: back after {:?}", back.elapsed());
    }
}
