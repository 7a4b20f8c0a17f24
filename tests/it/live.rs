//! Subscriptions: who gets which events, and what an event shows. Not here: what becomes of those who come
//! back or fall behind (`resuming`), how events travel (the tests of `src`, and the outside clients of
//! `tests/live`).

use std::time::Duration;

use entities::{
    CacheOptions, Role, clock,
    events::ChangeEvent,
    id::{FormId, SessionId, SubmissionId},
};
use futures_util::{FutureExt as _, StreamExt as _};
use prometheus_client::registry::Registry;
use schema::{Event, Events};
use serde_json::{Value, json};

use crate::harness::{Client, RedisServer, Reply, TestApp, counted, db, text};

const UPDATED: &str = "subscription($users: [ID!], $area: AreaInput) {
    moved: locationUpdated(userIds: $users, area: $area) { latitude user { id displayName } } }";

async fn go_to(client: &Client<'_>, latitude: f64, longitude: f64) {
    let query =
        "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) { acceptedCount } }";
    let point = json!({"timestamp": clock::now(), "latitude": latitude, "longitude": longitude});
    let data = client.run(query, json!({"input": {"points": [point]}})).await.expect_data(query);
    assert_eq!(data["recordLocations"]["acceptedCount"], 1);
}

async fn subscribe(client: &Client<'_>, query: &str, variables: Value) -> Events {
    client.subscribe(query, variables).await.unwrap_or_else(|reply| panic!("{}", reply.body))
}

async fn next(events: &mut Events) -> Reply {
    match events.next().await.expect("one more event") {
        Event::Reply(reply) => Reply::of(*reply),
        Event::Interrupted => panic!("the subscription was interrupted"),
    }
}

/// What has come so far, as the latitudes of positions.
async fn latitudes(events: &mut Events, count: usize) -> Vec<f64> {
    let mut all = Vec::new();
    for _ in 0..count {
        let data = next(events).await.expect_data(UPDATED);
        all.push(data["moved"]["latitude"].as_f64().expect("a number"));
    }
    all
}

#[tokio::test]
async fn positions_reach_those_who_may_see_them() {
    for app in TestApp::both_own().await {
        let [collector, editor, manager] =
            [Role::Collector, Role::Editor, Role::Manager].map(|role| app.as_role(role));
        let mut own = subscribe(&collector, UPDATED, json!({})).await;
        let mut all = subscribe(&manager, UPDATED, json!({})).await;
        let of = json!({"users": [TestApp::account(Role::Collector)]});
        let mut some = subscribe(&manager, UPDATED, of.clone()).await;
        let mut foreign = subscribe(&editor, UPDATED, of).await;
        go_to(&collector, 1.0, 1.0).await;
        go_to(&editor, 2.0, 2.0).await;
        go_to(&collector, 3.0, 3.0).await;
        assert_eq!(latitudes(&mut own, 1).await, [3.0], "the first was overtaken before it was read");
        assert_eq!(latitudes(&mut all, 2).await, [2.0, 3.0]);
        assert_eq!(latitudes(&mut some, 1).await, [3.0]);
        go_to(&collector, 4.0, 4.0).await;
        let first = next(&mut own).await;
        let name = &first.data["moved"]["user"]["displayName"];
        assert!(name.as_str().is_some_and(|name| !name.is_empty()), "{}", first.body);
        for events in [&mut own, &mut foreign] {
            assert!(events.next().now_or_never().is_none(), "nothing else comes");
        }
    }
}

#[tokio::test]
async fn an_area_leaves_out_what_is_outside() {
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let across = json!({"area": {"box": {"west": 170, "south": -10, "east": -170, "north": 10}}});
        let around = json!({"area": {"circle": {"latitude": 0, "longitude": 180, "radius": 120_000}}});
        let mut in_box = subscribe(&collector, UPDATED, across).await;
        let mut in_circle = subscribe(&collector, UPDATED, around).await;
        for (latitude, longitude) in [(1.0, 179.9), (2.0, -175.0), (3.0, 0.0), (11.0, 175.0), (0.5, -179.5)] {
            go_to(&collector, latitude, longitude).await;
            // Read at once, or it is overtaken.
            if (-10.0..=10.0).contains(&latitude) && longitude.abs() >= 170.0 {
                assert_eq!(latitudes(&mut in_box, 1).await, [latitude]);
            } else {
                assert!(in_box.next().now_or_never().is_none());
            }
            if [1.0, 0.5].contains(&latitude) {
                assert_eq!(latitudes(&mut in_circle, 1).await, [latitude]);
            }
        }
    }
}

#[tokio::test]
async fn areas_hold_the_same_points_in_memory_and_in_sql() {
    use entities::location::Area;
    let areas = [
        ("{box: {west: 170, south: -60, east: -100, north: 60}}", Area::in_box(170.0, -60.0, -100.0, 60.0)),
        ("{box: {west: -20, south: 30, east: 40, north: 70}}", Area::in_box(-20.0, 30.0, 40.0, 70.0)),
        ("{circle: {latitude: 50, longitude: 10, radius: 900000}}", Area::circle(50.0, 10.0, 900_000.0)),
        ("{circle: {latitude: 0, longitude: 180, radius: 9000000}}", Area::circle(0.0, 180.0, 9_000_000.0)),
        ("{circle: {latitude: 85, longitude: 0, radius: 6000000}}", Area::circle(85.0, 0.0, 6_000_000.0)),
    ];
    for app in TestApp::both().await {
        let admin = app.as_admin();
        let list = async |area: &str| {
            let query =
                format!("{{ latestLocations(first: 1000 {area}) {{ nodes {{ id latitude longitude }} }} }}");
            admin.ask(&query).await["latestLocations"]["nodes"].as_array().expect("a list").clone()
        };
        let all = list("").await;
        for (text, area) in &areas {
            let area = area.as_ref().expect("an area");
            let number = |node: &Value, name: &str| node[name].as_f64().expect("a number");
            let inside = |node: &&Value| area.contains(number(node, "latitude"), number(node, "longitude"));
            let wanted: Vec<Value> = all.iter().filter(inside).cloned().collect();
            assert_eq!(list(&format!("area: {text}")).await, wanted, "{text}");
        }
    }
}

const CHANGED: &str = "subscription($form: ID!) { submissionChanged(formId: $form) { id form { id } } }";

#[tokio::test]
async fn submissions_reach_those_who_may_see_them() {
    for app in TestApp::both().await {
        let data = app
            .as_admin()
            .ask("{ forms(first: 20) { nodes { id submissions(first: 1) { nodes { id user { id } } } } } }")
            .await;
        let forms = data["forms"]["nodes"].as_array().expect("a list");
        let found = forms.iter().find(|form| form["submissions"]["nodes"][0]["user"].is_object());
        let form = found.expect("a form that was filled in");
        let submission = &form["submissions"]["nodes"][0];
        let variables = json!({"form": form["id"]});
        let mut seen = subscribe(&app.as_admin(), CHANGED, variables.clone()).await;
        let mut hidden = subscribe(&app.as_role(Role::Viewer), CHANGED, variables).await;
        let mut other = subscribe(&app.as_admin(), CHANGED, json!({"form": submission["id"]})).await;
        let change = ChangeEvent::Submission {
            id: SubmissionId::parse(&text(&submission["id"])).expect("an id"),
            form: FormId::parse(&text(&form["id"])).expect("an id"),
            user: None,
        };
        app.store.events().publish([change].into());
        let event = next(&mut seen).await.expect_data(CHANGED);
        let wanted = json!({"submissionChanged": {"id": submission["id"], "form": {"id": form["id"]}}});
        assert_eq!(event, wanted);
        for events in [&mut hidden, &mut other] {
            let waited = tokio::time::timeout(Duration::from_millis(100), events.next()).await;
            assert!(waited.is_err(), "nothing comes");
        }
    }
}

#[tokio::test]
async fn the_end_of_a_session_reaches_its_user_and_administrators() {
    let query = "subscription { sessionEnded { id isCurrent user { id } } }";
    for app in TestApp::both().await {
        let data =
            app.as_role(Role::Collector).ask("{ me { id sessions(first: 1) { nodes { id } } } }").await;
        let session = &data["me"]["sessions"]["nodes"][0]["id"];
        let (id, user) =
            (SessionId::parse(&text(session)).expect("an id"), TestApp::account(Role::Collector));
        let mut own = subscribe(&app.in_session(user, Role::Collector, id), query, json!({})).await;
        let mut all = subscribe(&app.as_admin(), query, json!({})).await;
        let mut foreign = subscribe(&app.as_role(Role::Manager), query, json!({})).await;
        app.store.events().publish([ChangeEvent::SessionEnded { id, user }].into());
        let event =
            |current| json!({"sessionEnded": {"id": session, "isCurrent": current, "user": {"id": user}}});
        assert_eq!(next(&mut own).await.expect_data(query), event(true));
        assert_eq!(next(&mut all).await.expect_data(query), event(false));
        assert!(foreign.next().now_or_never().is_none(), "managers do not see sessions of others");
    }
}

/// Two instances that share a database, a Redis, and what they have cached.
async fn two_nodes(redis: &RedisServer) -> [TestApp; 2] {
    let first = TestApp::over(&db::own_postgres().await).await;
    let node = async || {
        let store = first.another_store().await.with_relay(&redis.handle(), "test");
        let (config, registry) = (CacheOptions::default(), &mut Registry::default());
        first.over_store(store.with_cache(&config, Some(redis.handle()), registry))
    };
    let nodes = [node().await, node().await];
    for node in &nodes {
        // The relay listens once it has said that something may have been missed.
        let mut heard = node.store.events().subscribe();
        let ready =
            async { while !heard.recv().await.is_ok_and(|changes| *changes == [ChangeEvent::Lagged]) {} };
        // Unless that was before this began to listen.
        let _ = tokio::time::timeout(Duration::from_secs(1), ready).await;
    }
    nodes
}

/// The next event; one that does not come within ten seconds was lost.
async fn soon(events: &mut Events) -> Value {
    let next = tokio::time::timeout(Duration::from_secs(10), next(events));
    next.await.expect("the event comes").expect_data("an event")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_events_reach_subscribers_of_every_instance() {
    let redis = RedisServer::start().await;
    let [here, there] = two_nodes(&redis).await;
    let (collector, form) =
        (here.as_role(Role::Collector), here.as_role(Role::Editor).open_form("Live").await);
    let mut moved = [
        subscribe(&here.as_role(Role::Manager), UPDATED, json!({})).await,
        subscribe(&there.as_role(Role::Manager), UPDATED, json!({})).await,
    ];
    // Each event leaves its position in the caches; the next one must not find it there.
    for turn in 0..40 {
        let latitude = f64::from(turn) / 2.0;
        go_to(
            &if turn % 2 == 0 { here.as_role(Role::Collector) } else { there.as_role(Role::Collector) },
            latitude,
            1.0,
        )
        .await;
        for events in &mut moved {
            assert_eq!(soon(events).await["moved"]["latitude"], latitude, "turn {turn}");
        }
    }
    let mut handed_in = subscribe(&there.as_admin(), CHANGED, json!({ "form": form })).await;
    let submit = format!(
        "mutation {{ createSubmission(input: {{formId: \"{form}\", data: {{name: \"x\"}}}}) {{ submission {{ id }} }} }}"
    );
    let submission = &collector.ask(&submit).await["createSubmission"]["submission"]["id"];
    assert_eq!(soon(&mut handed_in).await["submissionChanged"]["id"], *submission);

    let ended = "subscription { sessionEnded { id isActive endReason } }";
    let mut ended = subscribe(&there.as_role(Role::Collector), ended, json!({})).await;
    let (session, user) = (SessionId::new(), TestApp::account(Role::Collector));
    here.sql(&format!(
        "insert into user_sessions (id, user_id, is_active, created_at, last_activity, expires_at)
         values ('{session}', '{user}', true, now(), now(), now() + interval '1 day')"
    ))
    .await;
    collector
        .ask(&format!("mutation {{ revokeSession(input: {{id: \"{session}\"}}) {{ session {{ id }} }} }}"))
        .await;
    let event = json!({"sessionEnded": {"id": session.to_string(), "isActive": false, "endReason": "REVOKED_BY_USER"}});
    assert_eq!(soon(&mut ended).await, event);
    for events in moved.iter_mut().chain([&mut handed_in, &mut ended]) {
        assert!(events.next().now_or_never().is_none(), "each event comes once");
    }
}

#[tokio::test]
async fn visibility_of_a_change_is_decided_once_per_scope() {
    const DECISIONS: &str = "graphql_server_subscription_decisions_total";
    const ROWS: &str = "dataloader_batch_size_sum{loader=\"submission.by_ids\"}";
    for app in TestApp::both_own().await {
        let (app, registry) = app.with_metrics();
        let form = app.as_role(Role::Editor).open_form("Live").await;
        let (viewer, editor) = (app.as_role(Role::Viewer), app.as_role(Role::Editor));
        let of = async |client: &Client<'_>, count| {
            let mut all = Vec::new();
            for _ in 0..count {
                all.push(subscribe(client, CHANGED, json!({ "form": form })).await);
            }
            all
        };
        let (mut hidden, mut seen) = (of(&viewer, 200).await, of(&editor, 20).await);
        let submit = format!(
            "mutation {{ createSubmission(input: {{formId: \"{form}\", data: {{name: \"x\"}}}}) {{ submission {{ id }} }} }}"
        );
        for turn in 1..=3 {
            let submitted = app.as_role(Role::Collector).ask(&submit).await;
            let all =
                seen.iter_mut().map(async |events| soon(events).await["submissionChanged"]["id"].clone());
            for id in futures_util::future::join_all(all).await {
                assert_eq!(id, submitted["createSubmission"]["submission"]["id"]);
            }
            let nothing = hidden
                .iter_mut()
                .map(|events| tokio::time::timeout(Duration::from_millis(300), events.next()));
            let nothing = futures_util::future::join_all(nothing).await;
            assert!(nothing.iter().all(Result::is_err), "nothing comes to those who may not see it");
            assert_eq!(counted(&registry, DECISIONS), turn * 2, "one for each of the two scopes");
        }
        let read = counted(&registry, ROWS);
        assert!(read <= 9, "{read} rows read for 3 writes that 220 subscriptions looked at");
    }
}

/// Waits until this instance knows that it has missed something; not long.
async fn until_missed(heard: &mut tokio::sync::broadcast::Receiver<entities::events::Changes>) -> bool {
    let missed =
        async { while !heard.recv().await.is_ok_and(|changes| changes.contains(&ChangeEvent::Lagged)) {} };
    tokio::time::timeout(Duration::from_secs(15), missed).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unpublished_invalidations_are_caught_up() {
    let redis = RedisServer::start().await;
    let [here, there] = two_nodes(&redis).await;
    let mut heard = there.store.events().subscribe();
    // Only the way out is shut: the connections on which instances hear each other stay.
    assert_eq!(redis.cli(&["ACL", "SETUSER", "default", "-publish"]), "OK");
    go_to(&here.as_role(Role::Collector), 1.0, 1.0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(heard.try_recv().is_err(), "nothing was heard");
    assert_eq!(redis.cli(&["ACL", "SETUSER", "default", "+publish"]), "OK");
    assert!(until_missed(&mut heard).await, "the other node is told that it has missed something");
    go_to(&here.as_role(Role::Collector), 2.0, 2.0).await;
    let next = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.expect("in time");
    assert!(matches!(
        next.expect("open")[..],
        [ChangeEvent::LastLocation { .. }, ..] | [ChangeEvent::Lagged]
    ));
}

/// What it has stored is known from the invalidations that it left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_a_process_that_told_nobody_are_a_gap() {
    let redis = RedisServer::start().await;
    let [here, there] = two_nodes(&redis).await;
    let mut heard = [&here, &there].map(|node| node.store.events().subscribe());
    let silent = here.over_store(here.another_store().await.with_outbox());
    go_to(&silent.as_role(Role::Collector), 1.0, 1.0).await;
    drop(silent);
    for heard in &mut heard {
        assert!(until_missed(heard).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_to_redis_is_a_gap() {
    let redis = RedisServer::start().await;
    let way = redis.proxy().await;
    let app = TestApp::sqlite().await;
    let node = app.another_store().await.with_relay(&way.handle(&mut Registry::default()), "test");
    let mut heard = node.events().subscribe();
    assert!(until_missed(&mut heard).await, "the first thing, once the node listens");
    // Nothing is closed, and nothing comes through.
    way.block(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(heard.try_recv().is_err());
    way.block(false);
    assert!(until_missed(&mut heard).await, "it had given the connection up, and made another");
}

#[tokio::test]
async fn a_subscription_selects_exactly_one_allowed_field() {
    let app = TestApp::sqlite().await;
    let refused = async |client: Client<'_>, query: &str| {
        let reply = client.subscribe(query, json!({})).await.err().expect("refused");
        (reply.executed, reply.codes[0].clone())
    };
    let code = |code: &str| (false, code.to_owned());
    for query in [
        "subscription { sessionEnded { id } more: sessionEnded { id } }",
        "subscription { __typename }",
        "subscription { nothing { id } }",
        "subscription { sessionEnded { x: id x: isActive } }",
    ] {
        assert_eq!(refused(app.as_admin(), query).await, code("GRAPHQL_VALIDATION_FAILED"), "{query}");
    }
    let bad_id = "subscription { submissionChanged(formId: \"x\") { id } }";
    assert_eq!(refused(app.as_admin(), bad_id).await, code("BAD_USER_INPUT"));
    let area = "subscription { locationUpdated(area: {box: {west: 0, south: 9, east: 0, north: 1}}) { id } }";
    assert_eq!(refused(app.as_admin(), area).await, code("BAD_USER_INPUT"));
    let query = "subscription { sessionEnded { id } }";
    assert_eq!(refused(app.anonymous(), query).await, code("UNAUTHENTICATED"));
    let reply = app.as_admin().run(query, json!({})).await;
    assert_eq!((reply.executed, reply.codes), (false, vec!["BAD_USER_INPUT".to_owned()]), "over plain HTTP");
}
