//! Live queries: the answer, and again when it has changed, for those who may see it. Not here: how answers travel
//! (`tests/live`).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use entities::{Role, clock};
use futures_util::{FutureExt as _, StreamExt as _, future::join_all};
use prometheus_client::registry::Registry;
use schema::{Event, Events};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    corpus,
    harness::{Client, Reply, TestApp, counted},
};

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const FORM: &str = "query($id: ID!) @live(throttle: 50) { form(id: $id) { title submissionCount } }";

async fn live(client: &Client<'_>, query: &str, variables: Value) -> Events {
    client.subscribe(query, variables).await.unwrap_or_else(|reply| panic!("{}", reply.body))
}

async fn next(events: &mut Events) -> Reply {
    let next =
        tokio::time::timeout(PATIENCE, events.next()).await.expect("it comes").expect("one more answer");
    match next {
        Event::Reply(reply) => Reply::of(*reply),
        Event::Interrupted => panic!("it was interrupted"),
    }
}

async fn expect_nothing(events: &mut Events) {
    let more = tokio::time::timeout(Duration::from_millis(800), events.next()).await;
    assert!(more.is_err(), "nothing else comes");
}

async fn go_to(app: &TestApp, latitude: f64) {
    let query =
        "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) { acceptedCount } }";
    let point = json!({ "timestamp": clock::now(), "latitude": latitude, "longitude": 1.0 });
    app.as_role(Role::Collector)
        .run(query, json!({ "input": { "points": [point] } }))
        .await
        .expect_data(query);
}

#[tokio::test]
async fn an_answer_comes_at_once_and_again_when_it_has_changed() {
    for app in TestApp::both_own().await {
        for app in [&app, &app.with_cache().await] {
            let form = app.as_role(Role::Editor).open_form("Live").await;
            let mut events = live(&app.as_role(Role::Editor), FORM, json!({ "id": form })).await;
            let count = async |events: &mut Events| {
                next(events).await.expect_data(FORM)["form"]["submissionCount"].clone()
            };
            assert_eq!(count(&mut events).await, 0);
            app.as_role(Role::Collector).submit(&form, "a").await;
            assert_eq!(count(&mut events).await, 1);
            // Written elsewhere, and beside it.
            go_to(app, 1.0).await;
            expect_nothing(&mut events).await;
            app.as_role(Role::Collector).submit(&form, "b").await;
            app.as_role(Role::Collector).submit(&form, "c").await;
            let mut last = count(&mut events).await;
            while last != 3 {
                last = count(&mut events).await;
            }
            expect_nothing(&mut events).await;
        }
    }
}

#[tokio::test]
async fn every_viewer_gets_what_they_may_see() {
    let query = "query($id: ID!) @live { form(id: $id) { submissions(first: 5) { nodes { data } } } }";
    for app in TestApp::both_own().await {
        let form = app.as_role(Role::Editor).open_form("Live").await;
        let mut seen = live(&app.as_role(Role::Editor), query, json!({ "id": form })).await;
        let mut hidden = live(&app.as_role(Role::Viewer), query, json!({ "id": form })).await;
        for events in [&mut seen, &mut hidden] {
            assert_eq!(next(events).await.expect_data(query)["form"]["submissions"]["nodes"], json!([]));
        }
        app.as_role(Role::Collector).submit(&form, "a").await;
        let nodes = next(&mut seen).await.expect_data(query)["form"]["submissions"]["nodes"].clone();
        assert_eq!(nodes, json!([{ "data": { "name": "a" } }]));
        expect_nothing(&mut hidden).await;
    }
}

#[tokio::test]
async fn what_cannot_be_live_is_refused() {
    for app in TestApp::both().await {
        let admin = app.as_admin();
        for (query, executed, code) in [
            ("query @live(throttle: 10) { me { id } }", false, "BAD_USER_INPUT"),
            ("query @live(throttle: 60001) { me { id } }", false, "BAD_USER_INPUT"),
            ("query @live(throttle: \"1\") { me { id } }", false, "GRAPHQL_VALIDATION_FAILED"),
            ("query @live(often: 1) { me { id } }", false, "GRAPHQL_VALIDATION_FAILED"),
            ("mutation @live { signOut { session { id } } }", false, "GRAPHQL_VALIDATION_FAILED"),
            ("{ me @live { id } }", false, "GRAPHQL_VALIDATION_FAILED"),
        ] {
            let reply = admin.subscribe(query, json!({})).await.err().expect("refused");
            assert_eq!((reply.executed, reply.codes[0].as_str()), (executed, code), "{query}");
        }
        let stranger = app.anonymous().subscribe("query @live { __typename }", json!({})).await;
        assert_eq!(stranger.err().expect("refused").codes, ["UNAUTHENTICATED"]);
        let once = admin.ask("query @live { me { id } }").await;
        assert!(once["me"]["id"].is_string(), "over plain HTTP it is answered once");
    }
}

/// Executions of live queries so far.
fn executions(registry: &Registry) -> u64 {
    counted(registry, "graphql_server_live_executions_total")
}

#[tokio::test]
async fn equal_viewers_share_an_execution() {
    for app in TestApp::both_own().await {
        let (app, registry) = app.with_metrics();
        let form = app.as_role(Role::Editor).open_form("Live").await;
        let (editor, admin) = (app.as_role(Role::Editor).plain(), app.as_admin().plain());
        let mut all = Vec::new();
        for client in [&editor, &admin] {
            for _ in 0..50 {
                all.push(live(client, FORM, json!({ "id": form })).await);
            }
        }
        let first = join_all(all.iter_mut().map(next)).await;
        assert!(first.into_iter().all(|reply| reply.expect_data(FORM)["form"]["submissionCount"] == 0));
        for count in 1..=5 {
            let before = executions(&registry);
            app.as_role(Role::Collector).submit(&form, "a").await;
            let told = join_all(all.iter_mut().map(next)).await;
            assert!(
                told.into_iter().all(|reply| reply.expect_data(FORM)["form"]["submissionCount"] == count)
            );
            let executed = executions(&registry) - before;
            assert!(executed <= 6, "{executed} executions for a hundred that are of two kinds");
        }
    }
}

#[tokio::test]
async fn changes_are_told_as_a_patch_where_that_is_asked_for() {
    const LIST: &str = "query($id: ID!) @live(throttle: 50) { form(id: $id) { title submissions(first: 9) { nodes { data } } } }";
    for app in TestApp::both_own().await {
        let form = app.as_role(Role::Editor).open_form("Live").await;
        let editor = app.as_role(Role::Editor).plain();
        let mut events = editor.live_with_patches(LIST, json!({ "id": form })).await;
        let mut told = async || {
            let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("it comes");
            let Some(Event::Reply(reply)) = event else { panic!("it goes on") };
            let body: Value = serde_json::from_slice(&reply.body.into_vec()).expect("JSON");
            body
        };
        let whole = json!({ "form": { "title": "Live", "submissions": { "nodes": [] } } });
        assert_eq!(told().await, json!({ "data": whole, "revision": 1 }));
        for (name, revision) in [("a", 2), ("b", 3)] {
            app.as_role(Role::Collector).submit(&form, name).await;
            let added = json!({ "op": "add", "path": "/form/submissions/nodes/0", "value": { "data": { "name": name } } });
            assert_eq!(told().await, json!({ "patch": [added], "revision": revision }));
        }
    }
}

#[tokio::test]
async fn writes_elsewhere_execute_nothing() {
    for app in TestApp::both_own().await {
        let (app, registry) = app.with_metrics();
        let (form, other) = (
            app.as_role(Role::Editor).open_form("Live").await,
            app.as_role(Role::Editor).open_form("Live").await,
        );
        let (editor, viewer) = (app.as_role(Role::Editor).plain(), app.as_role(Role::Viewer).plain());
        let mine = "query @live(throttle: 50) { me { displayName sessions(first: 3) { totalCount } } }";
        let mut all = [
            live(&editor, FORM, json!({ "id": form })).await,
            live(&editor, mine, json!({})).await,
            live(&viewer, mine, json!({})).await,
        ];
        for events in &mut all {
            next(events).await.expect_data("the first");
        }
        let before = executions(&registry);
        app.as_role(Role::Collector).submit(&other, "a").await;
        go_to(&app, 1.0).await;
        let title = "mutation($id: ID!) { updateForm(input: { id: $id, title: \"Other\" }) { form { id } } }";
        app.as_role(Role::Editor).run(title, json!({ "id": other })).await.expect_data(title);
        app.as_role(Role::Collector)
            .ask("mutation { updateProfile(input: { displayName: \"Else\" }) { user { id } } }")
            .await;
        for events in &mut all {
            expect_nothing(events).await;
        }
        assert_eq!(executions(&registry), before, "nothing of that was read");
        app.as_role(Role::Collector).submit(&form, "a").await;
        next(&mut all[0]).await.expect_data(FORM);
        assert_eq!(executions(&registry), before + 1, "one has read it");
    }
}

/// What a live query has told, and when.
type Heard = Arc<Mutex<Vec<(Instant, Value)>>>;

/// A live query under way, and by what the same is asked once.
struct Listener<'a> {
    client: Client<'a>,
    name: &'static str,
    operation: &'static str,
    heard: Heard,
}

/// Makes a query live.
fn made_live(operation: &str) -> String {
    let end = operation.find('{').expect("a selection");
    // Behind the variables, where there are some.
    let end = match operation.find('(').filter(|begin| *begin < end) {
        Some(_) => operation.find(") {").expect("they end") + 1,
        None => end,
    };
    format!("{} @live(throttle: 50) {}", &operation[..end], &operation[end..])
}

/// All operations of the corpus, made live, for an administrator, an editor, and a collector.
async fn listeners<'a>(app: &'a TestApp, variables: &Value) -> Vec<Listener<'a>> {
    let mut listeners = Vec::new();
    for role in [Role::Admin, Role::Editor, Role::Collector] {
        for (name, operation) in corpus::operations() {
            let client = app.as_role(role).plain();
            let mut events = live(&client, &made_live(operation), variables.clone()).await;
            let first = next(&mut events).await;
            assert!(first.executed, "{name}: {}", first.body);
            let heard = Heard::new(Mutex::new(vec![(Instant::now(), first.data)]));
            let listening = Arc::clone(&heard);
            tokio::spawn(async move {
                while let Some(Event::Reply(reply)) = events.next().await {
                    let reply = Reply::of(*reply);
                    listening.lock().expect("not poisoned").push((Instant::now(), reply.data));
                }
            });
            listeners.push(Listener { client, name, operation, heard });
        }
    }
    listeners
}

/// After each write of many kinds every live answer becomes what is answered to the same query now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_write_every_live_answer_is_a_fresh_one() {
    for app in TestApp::both_own().await {
        let (app, registry) = app.with_cache().await.with_metrics();
        let variables = corpus::variables(&app).await;
        let listeners = listeners(&app, &variables).await;
        assert!(listeners.len() > 200, "{} are live", listeners.len());
        let own = app.as_role(Role::Editor).open_form("Live").await;
        let (mut delays, mut executed, mut changed) = (Vec::new(), 0, 0);
        for (role, write, input) in writes(&variables, &own) {
            let before = (executions(&registry), Instant::now());
            let operation = format!("mutation($input: {}! ) {{ {write} }}", input.0);
            app.as_role(role).run(&operation, json!({ "input": input.1 })).await.expect_data(&operation);
            let written = Instant::now();
            tokio::time::sleep(Duration::from_millis(500)).await;
            for Listener { client, name, operation, heard } in &listeners {
                let fresh = client.run(operation, variables.clone()).await.data;
                let until = Instant::now() + PATIENCE;
                let (at, last) = loop {
                    let last = heard.lock().expect("not poisoned").last().cloned().expect("the first");
                    if last.1 == fresh || Instant::now() > until {
                        break last;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                };
                assert_eq!(last, fresh, "{name} after {write}");
                if at > before.1 {
                    changed += 1;
                    delays.push(at.saturating_duration_since(written).as_millis());
                }
            }
            executed += executions(&registry) - before.0;
        }
        delays.sort_unstable();
        let (median, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
        println!(
            "{} live queries: {changed} changed answers by {executed} executions, told after {median} ms \
             (median), {longest} ms (longest)",
            listeners.len()
        );
        assert!(changed > 100 && executed < changed * 8, "{changed} changes by {executed} executions");
    }
}

type Write = (Role, &'static str, (&'static str, Value));

/// Writes of each kind, to what the corpus reads.
fn writes(variables: &Value, own: &str) -> Vec<Write> {
    let point = |latitude: f64| json!({ "timestamp": clock::now(), "latitude": latitude, "longitude": 1.0 });
    let profile = "updateProfile(input: $input) { user { id } }";
    let form = &variables["form"];
    vec![
        (Role::Collector, profile, ("UpdateProfileInput", json!({ "displayName": "Someone Else" }))),
        (Role::Admin, profile, ("UpdateProfileInput", json!({ "displayName": "An Ada" }))),
        (
            Role::Collector,
            "recordLocations(input: $input) { acceptedCount }",
            ("RecordLocationsInput", json!({ "points": [point(1.0), point(2.0)] })),
        ),
        (
            Role::Collector,
            "createSubmission(input: $input) { submission { id } }",
            (
                "CreateSubmissionInput",
                json!({ "formId": own, "data": { "name": "n" }, "location": point(3.0) }),
            ),
        ),
        (
            Role::Admin,
            "updateForm(input: $input) { form { id } }",
            ("UpdateFormInput", json!({ "id": form, "title": "Another title" })),
        ),
        (
            Role::Editor,
            "updateForm(input: $input) { form { id } }",
            ("UpdateFormInput", json!({ "id": own, "title": "Mine" })),
        ),
        (
            Role::Editor,
            "createForm(input: $input) { form { id } }",
            ("CreateFormInput", json!({ "title": "New", "definition": { "schema": 1, "fields": [] } })),
        ),
        (
            Role::Admin,
            "createUser(input: $input) { user { id } }",
            (
                "CreateUserInput",
                json!({ "email": "new@example.com", "displayName": "New", "role": "VIEWER", "password": "a long enough secret" }),
            ),
        ),
        (
            Role::Admin,
            "updateUser(input: $input) { user { id } }",
            ("UpdateUserInput", json!({ "id": variables["users"][3], "role": "EDITOR" })),
        ),
        (
            Role::Admin,
            "revokeSession(input: $input) { session { id } }",
            ("RevokeSessionInput", json!({ "id": variables["session"] })),
        ),
    ]
}

#[tokio::test]
async fn each_answer_has_the_bounds_of_one_request() {
    let [app, _] = TestApp::both_own().await;
    let form = app.as_role(Role::Editor).open_form("Live").await;
    let bounded = app.that_answers_at_most(1_000, 1 << 20);
    let mut events = live(&bounded.as_role(Role::Editor).plain(), FORM, json!({ "id": form })).await;
    next(&mut events).await.expect_data(FORM);
    for count in 1..=30 {
        app.as_role(Role::Collector).submit(&form, "a").await;
        let told = next(&mut events).await.expect_data(FORM);
        assert_eq!(told["form"]["submissionCount"], count, "about 60 bytes each");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_when_it_comes() {
    for app in TestApp::both_own().await {
        let app = app.with_cache().await;
        let form = app.as_role(Role::Editor).open_form("Live").await;
        let editor = app.as_role(Role::Editor).plain();
        let versions = "query($id: ID!) { form(id: $id) { currentVersion { id } } }";
        let found = editor.run(versions, json!({ "id": form })).await.expect_data(versions);
        let version = &found["form"]["currentVersion"]["id"];
        let set = "mutation($id: ID!, $to: FormStatus!) { setFormStatus(input: { id: $id, status: $to }) { form { status } } }";
        editor.run(set, json!({ "id": form, "to": "CLOSED" })).await.expect_data(set);
        let query = "query($id: ID!) @live(throttle: 50) { formVersion(id: $id) { number } }";
        let collector = app.as_role(Role::Collector).plain();
        let mut events = live(&collector, query, json!({ "id": version })).await;
        assert_eq!(next(&mut events).await.expect_data(query)["formVersion"], Value::Null);
        editor.run(set, json!({ "id": form, "to": "OPEN" })).await.expect_data(set);
        assert_eq!(next(&mut events).await.expect_data(query)["formVersion"]["number"], 1);
    }
}

/// More than may be executed at a time, each left before its first answer.
#[tokio::test]
async fn those_who_leave_keep_nobody_waiting() {
    for app in TestApp::both_own().await {
        let form = app.as_role(Role::Editor).open_form("Live").await;
        let editor = app.as_role(Role::Editor).plain();
        for number in 0..100 {
            let query = format!("query($id: ID!) @live {{ form(id: $id) {{ a{number}: title }} }}");
            let mut events = live(&editor, &query, json!({ "id": form })).await;
            // One look: enough to begin, and on PostgreSQL too little to end.
            drop(events.next().now_or_never());
        }
        let mut events = live(&editor, FORM, json!({ "id": form })).await;
        next(&mut events).await.expect_data(FORM);
    }
}
