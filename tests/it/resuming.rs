//! Subscriptions that lose nothing: clients come back with a token to any server, readers fall behind,
//! transactions commit out of order, the log is pruned, a backup is restored. Not here: how a token travels
//! (`tests/live`).

use std::time::{Duration, Instant};

use entities::{CacheOptions, Role, clock, id::SessionId};
use futures_util::StreamExt as _;
use prometheus_client::registry::Registry;
use schema::{Event, Events};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::json;

use crate::harness::{Client, Reply, TestApp, db, text};

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const CHANGED: &str = "subscription($form: ID!) { submissionChanged(formId: $form) { id data } }";
const ENDED: &str = "subscription { sessionEnded { id } }";

/// A form of the demo editor that takes a name.
async fn watch(client: &Client<'_>, form: &str) -> Events {
    client.subscribe(CHANGED, json!({ "form": form })).await.unwrap_or_else(|reply| panic!("{}", reply.body))
}

async fn resume(client: &Client<'_>, form: &str, token: &str) -> Events {
    let resumed = client.resume(CHANGED, json!({ "form": form }), token).await;
    resumed.unwrap_or_else(|reply| panic!("{}", reply.body))
}

async fn next(events: &mut Events) -> Reply {
    let next =
        tokio::time::timeout(PATIENCE, events.next()).await.expect("it comes").expect("one more event");
    match next {
        Event::Reply(reply) => Reply::of(*reply),
        Event::Interrupted => panic!("the subscription was interrupted"),
    }
}

/// The names of the next submissions, and the token of the last.
async fn names(events: &mut Events, count: usize) -> (Vec<String>, String) {
    let (mut names, mut token) = (Vec::new(), String::new());
    for _ in 0..count {
        let event = next(events).await;
        token = text(&event.extensions["resumeToken"]);
        names.push(text(&event.expect_data(CHANGED)["submissionChanged"]["data"]["name"]));
    }
    (names, token)
}

async fn expect_nothing(events: &mut Events) {
    let more = tokio::time::timeout(Duration::from_millis(600), events.next()).await;
    assert!(more.is_err(), "nothing else comes");
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_on_any_server() {
    for app in TestApp::both_own().await {
        let form = app.as_role(Role::Editor).open_form("Log").await;
        let editor = app.as_role(Role::Editor);
        let mut events = watch(&editor, &form).await;
        for name in ["a", "b", "c"] {
            app.as_role(Role::Collector).submit(&form, name).await;
        }
        let (first, token) = names(&mut events, 1).await;
        assert_eq!(first, ["a"]);
        drop(events);
        app.as_role(Role::Collector).submit(&form, "d").await;
        let cached = CacheOptions::default();
        let store = app.another_store().await.with_cache(&cached, None, &mut Registry::default());
        for there in [&app, &app.over_store(store)] {
            let mut events = resume(&there.as_role(Role::Editor), &form, &token).await;
            assert_eq!(names(&mut events, 3).await.0, ["b", "c", "d"]);
            expect_nothing(&mut events).await;
        }
        let mut events = resume(&editor, &form, &token).await;
        app.as_role(Role::Collector).submit(&form, "e").await;
        assert_eq!(names(&mut events, 4).await.0, ["b", "c", "d", "e"], "then it goes on");
        let hidden = app.as_role(Role::Viewer).resume(CHANGED, json!({ "form": form }), &token).await;
        expect_nothing(&mut hidden.expect("it begins")).await;
    }
}

#[tokio::test]
async fn a_transaction_with_several_changes_is_resumed_in_its_middle() {
    for app in TestApp::both_own().await {
        let user = TestApp::account(Role::Collector);
        let ids: Vec<String> = (0..3).map(|_| SessionId::new().to_string()).collect();
        let admin = app.as_admin();
        let subscribed = admin.subscribe(ENDED, json!({})).await;
        let mut events = subscribed.unwrap_or_else(|reply| panic!("{}", reply.body));
        let (now, later) = (clock::now(), clock::now() + chrono::TimeDelta::days(1));
        for id in &ids {
            let literal =
                |time: entities::clock::Time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, false);
            let blob = |id: &str| {
                if app.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.replace('-', "")) }
            };
            app.sql(&format!(
                "insert into user_sessions (id, user_id, is_active, created_at, last_activity, expires_at)
                 values ({}, {}, true, '{}', '{}', '{}')",
                blob(id),
                blob(&user.to_string()),
                literal(now),
                literal(now),
                literal(later)
            ))
            .await;
        }
        let query = "mutation { revokeAllSessions(input: {}) { userErrors { code } } }";
        app.as_role(Role::Collector).ask(query).await;
        let first = next(&mut events).await;
        let token = text(&first.extensions["resumeToken"]);
        let mut told = vec![text(&first.expect_data(ENDED)["sessionEnded"]["id"])];
        drop(events);
        let mut events = admin.resume(ENDED, json!({}), &token).await.expect("it goes on");
        while !ids.iter().all(|id| told.contains(id)) {
            told.push(text(&next(&mut events).await.expect_data(ENDED)["sessionEnded"]["id"]));
        }
        let mut once = told.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), told.len(), "each once: {told:?}");
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything_from_the_log() {
    for app in TestApp::both_own().await {
        let form = app.as_role(Role::Editor).open_form("Log").await;
        let mut slow = watch(&app.as_role(Role::Editor), &form).await;
        app.as_role(Role::Collector).submit(&form, "first").await;
        // More than is kept for those who do not read.
        let many = if app.is_postgres() {
            "insert into events (transaction_id, changes, created_at)
             select pg_current_xact_id()::text::bigint, '[{\"kind\":\"user\",\"id\":\"00000000-0000-0000-0000-000000000000\"}]', now()
             from generate_series(1, 6000)"
        } else {
            "with recursive many (n) as (select 1 union all select n + 1 from many where n < 6000)
             insert into events (transaction_id, number, changes, created_at)
             select 0, (select max(number) from events) + n,
                 '[{\"kind\":\"user\",\"id\":\"00000000-0000-0000-0000-000000000000\"}]', '2026-01-01T00:00:00.000000+00:00'
             from many"
        };
        app.sql(many).await;
        app.as_role(Role::Collector).submit(&form, "last").await;
        // The server's reader has told it all by the time that another subscriber hears of the next one.
        let mut other = watch(&app.as_role(Role::Editor), &form).await;
        app.as_role(Role::Collector).submit(&form, "after").await;
        assert_eq!(names(&mut other, 1).await.0, ["after"]);
        assert_eq!(names(&mut slow, 3).await.0, ["first", "last", "after"]);
        expect_nothing(&mut slow).await;
    }
}

/// PostgreSQL lets a later transaction commit before an earlier one.
#[tokio::test]
async fn what_commits_late_is_told_before_what_was_begun_after_it() {
    let app = TestApp::over(&db::own_postgres().await).await;
    let form = app.as_role(Role::Editor).open_form("Log").await;
    app.as_role(Role::Collector).submit(&form, "early").await;
    let editor = app.as_role(Role::Editor);
    let mut events = watch(&editor, &form).await;
    let list = "query($form: ID!) { form(id: $form) { submissions(first: 1) { nodes { id } } } }";
    let found = editor.run(list, json!({ "form": form })).await.expect_data(list);
    let id = text(&found["form"]["submissions"]["nodes"][0]["id"]);
    let slow = app.store.connection().begin().await.expect("begun");
    let change = json!([{ "kind": "submission", "id": id, "form": form, "user": null }]);
    slow.execute_unprepared(&format!(
        "insert into events (transaction_id, changes, created_at)
         values (pg_current_xact_id()::text::bigint, '{change}', now())"
    ))
    .await
    .expect("written");
    app.as_role(Role::Collector).submit(&form, "second").await;
    // Who comes now was told nothing, and has the second in what is read.
    let mut later = watch(&editor, &form).await;
    expect_nothing(&mut events).await;
    slow.commit().await.expect("committed");
    let (told, token) = names(&mut events, 1).await;
    assert_eq!(told, ["early"]);
    assert_eq!(names(&mut events, 1).await.0, ["second"]);
    assert_eq!(names(&mut later, 1).await.0, ["early"]);
    app.as_role(Role::Collector).submit(&form, "third").await;
    assert_eq!(names(&mut later, 1).await.0, ["third"], "what was there before does not come");
    let mut resumed = resume(&editor, &form, &token).await;
    assert_eq!(names(&mut resumed, 2).await.0, ["second", "third"]);
}

#[tokio::test]
async fn a_subscription_goes_on_after_what_was_read() {
    for app in TestApp::both_own().await {
        let form = app.as_role(Role::Editor).open_form("Log").await;
        app.as_role(Role::Collector).submit(&form, "read").await;
        let editor = app.as_role(Role::Editor);
        let list = "query($form: ID!) { form(id: $form) { submissions(first: 5) { nodes { data } } } }";
        for _ in 0..2 {
            let read = editor.run_with_token(list, json!({ "form": form })).await;
            let token = text(&read.extensions["resumeToken"]);
            let nodes = read.expect_data(list)["form"]["submissions"]["nodes"].clone();
            app.as_role(Role::Collector).submit(&form, "missed").await;
            let mut events = resume(&editor, &form, &token).await;
            // What was read may come again where a transaction was running that was begun before it.
            let mut told = names(&mut events, 1).await.0;
            while told.last().is_some_and(|name| name != "missed") {
                assert!(nodes.to_string().contains(&told[told.len() - 1]), "{told:?} after {nodes}");
                told.extend(names(&mut events, 1).await.0);
            }
            expect_nothing(&mut events).await;
        }
    }
}

#[tokio::test]
async fn tokens_that_are_too_old_or_made_up_are_refused() {
    for app in TestApp::both_own().await {
        let form = app.as_role(Role::Editor).open_form("Log").await;
        let editor = app.as_role(Role::Editor);
        let mut events = watch(&editor, &form).await;
        app.as_role(Role::Collector).submit(&form, "a").await;
        app.as_role(Role::Collector).submit(&form, "b").await;
        app.as_role(Role::Collector).submit(&form, "c").await;
        let (_, old) = names(&mut events, 1).await;
        names(&mut events, 1).await;
        let (_, last) = names(&mut events, 1).await;
        let times = entities::retention::RetentionTimes {
            locations: None,
            activity: None,
            sessions: PATIENCE * 60 * 24 * 365,
            outbox: PATIENCE,
            events: Duration::ZERO,
            deliveries: PATIENCE * 60 * 24 * 7,
        };
        let later = clock::now() + chrono::TimeDelta::seconds(5);
        let removed = entities::retention::remove_old(&app.store, &times, later, migration::LOCK).await;
        assert!(removed.expect("removed").is_some_and(|removed| removed.rows >= 2));
        assert_eq!(app.count("events").await, 2, "the last one stays, and that before it");
        let refused = async |token: &str| {
            let reply = editor.resume(CHANGED, json!({ "form": form }), token).await.err().expect("refused");
            (reply.executed, reply.codes[0].clone())
        };
        let code = |code: &str| (false, code.to_owned());
        assert_eq!(refused(&old).await, code("RESUME_EXPIRED"));
        for made_up in ["", "x", "1-2-3", "1-2-3-4-5", "-1-1-1-1"] {
            assert_eq!(refused(made_up).await, code("BAD_USER_INPUT"), "{made_up}");
        }
        assert_eq!(refused("7fffffffffff-1-1-0").await, code("RESUME_EXPIRED"), "from another database");
        let mut resumed = resume(&editor, &form, &last).await;
        app.as_role(Role::Collector).submit(&form, "d").await;
        assert_eq!(names(&mut resumed, 1).await.0, ["d"], "all that came after it is there");
    }
}

#[tokio::test]
async fn who_is_overtaken_by_retention_is_told() {
    let app = TestApp::over(&db::own_postgres().await).await;
    let form = app.as_role(Role::Editor).open_form("Log").await;
    let editor = app.as_role(Role::Editor);
    let mut events = watch(&editor, &form).await;
    app.as_role(Role::Collector).submit(&form, "a").await;
    let (_, token) = names(&mut events, 1).await;
    let filler = async || {
        app.sql(
            "insert into events (transaction_id, changes, created_at)
             select pg_current_xact_id()::text::bigint, '[{\"kind\":\"unknown\"}]', now() from generate_series(1, 250)",
        )
        .await;
    };
    app.as_role(Role::Collector).submit(&form, "b").await;
    filler().await;
    app.as_role(Role::Collector).submit(&form, "c").await;
    assert_eq!(names(&mut events, 2).await.0, ["b", "c"], "the log is settled up to here");
    let mut slow = resume(&editor, &form, &token).await;
    assert_eq!(names(&mut slow, 1).await.0, ["b"]);
    // What it has not read yet is removed, and what it has read with it.
    app.sql("delete from events where number < (select max(number) from events) - 1").await;
    let end = tokio::time::timeout(PATIENCE, slow.next()).await.expect("it ends");
    let Some(Event::Reply(last)) = end else { panic!("it is told: {end:?}") };
    assert_eq!(Reply::of(*last).codes, ["RESUME_EXPIRED"]);
    assert!(slow.next().await.is_none());
}

/// Data that was moved by a dump has rows with numbers that this cluster has not given out yet.
#[tokio::test]
async fn rows_of_another_cluster_are_passed_over_and_removed() {
    let app = TestApp::over(&db::own_postgres().await).await;
    let form = app.as_role(Role::Editor).open_form("Log").await;
    let foreign = json!([{ "kind": "form", "id": form, "owner": form }]);
    app.sql(&format!(
        "insert into events (transaction_id, changes, created_at) values (7000000000, '{foreign}', '2020-01-01')"
    ))
    .await;
    let editor = app.as_role(Role::Editor);
    let mut events = watch(&editor, &form).await;
    app.as_role(Role::Collector).submit(&form, "a").await;
    let (told, token) = names(&mut events, 1).await;
    assert_eq!(told, ["a"]);
    app.as_role(Role::Collector).submit(&form, "b").await;
    assert_eq!(names(&mut resume(&editor, &form, &token).await, 1).await.0, ["b"]);
    let times = entities::retention::RetentionTimes {
        locations: None,
        activity: None,
        sessions: PATIENCE * 60 * 24 * 365,
        outbox: PATIENCE,
        events: PATIENCE * 60 * 24 * 7,
        deliveries: PATIENCE * 60 * 24 * 7,
    };
    entities::retention::remove_old(&app.store, &times, clock::now(), migration::LOCK)
        .await
        .expect("removed");
    assert_eq!(app.count("events where transaction_id = 7000000000").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_interrupts_and_its_later_tokens_have_expired() {
    let url = db::own_postgres().await;
    let app = TestApp::over(&url).await;
    app.graph.access().open().await.expect("keys are made, or found");
    let access = app.graph.access().clone();
    let following = tokio::spawn(async move { access.follow().await });
    let admin = app.as_admin();
    let mut events = admin.subscribe(ENDED, json!({})).await.unwrap_or_else(|reply| panic!("{}", reply.body));
    let token = text(&admin.run_with_token("{ me { id } }", json!({})).await.extensions["resumeToken"]);
    let form = app.as_role(Role::Editor).open_form("Log").await;
    let mut seen = watch(&app.as_role(Role::Editor), &form).await;
    app.as_role(Role::Collector).submit(&form, "lost").await;
    let (_, lost) = names(&mut seen, 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    db::restore(&url).await;
    let end = tokio::time::timeout(PATIENCE, events.next()).await.expect("it ends");
    assert!(matches!(end, Some(Event::Interrupted)));
    assert!(events.next().await.is_none(), "nothing follows");
    let began = Instant::now();
    let code = loop {
        let reply = admin.resume(ENDED, json!({}), &lost).await;
        match reply {
            Err(reply) => break reply.codes[0].clone(),
            Ok(_) => assert!(began.elapsed() < PATIENCE, "it goes on after what never happened"),
        }
    };
    assert_eq!(code, "RESUME_EXPIRED");
    assert!(admin.resume(ENDED, json!({}), &token).await.is_ok(), "from before the backup");
    following.abort();
}
