//! What goes out is bounded: the bytes of an answer, whichever way it is made, and the points that tracks are
//! thinned from; and every maximum that the schema promises can be asked for with the limits that a server
//! has by default. Not here: the prices themselves (`cost`), what is refused before anything runs (`limits`).

use chrono::{SecondsFormat, TimeDelta};
use entities::{Role, clock};
use futures_util::StreamExt as _;
use schema::{Event, Events, Request, Viewer};
use serde_json::{Value, json};

use crate::harness::{Reply, TestApp, text};

const EVERYBODY: &str = "{ users(first: 30) { nodes { id displayName createdAt updatedAt } } }";

/// An answer that has nothing but this one error.
#[track_caller]
fn expect_stopped(reply: &Reply) {
    assert_eq!(reply.codes, ["COST_LIMIT"], "{}", reply.body);
    assert!(reply.executed && reply.data.is_null() && reply.body.len() < 500, "{}", reply.body);
    assert!(text(&reply.errors[0]["message"]).starts_with("The answer is longer than "), "{}", reply.body);
}

#[tokio::test]
async fn an_answer_has_so_many_bytes_and_no_more() {
    for app in TestApp::both().await {
        let whole = app.as_admin().plain().run(EVERYBODY, json!({})).await;
        let length = whole.body.len();
        let enough = app.that_answers_at_most(length, usize::MAX);
        assert_eq!(enough.as_admin().plain().run(EVERYBODY, json!({})).await.body, whole.body);
        let less = app.that_answers_at_most(length - 1, usize::MAX);
        expect_stopped(&less.as_admin().plain().run(EVERYBODY, json!({})).await);
        // What stands beside `data` counts too.
        let explained = enough.as_admin().run(EVERYBODY, json!({})).await;
        assert_eq!((explained.codes, explained.data), (vec!["COST_LIMIT".to_owned()], Value::Null));
        let traced = enough.as_admin().plain().traced().run(EVERYBODY, json!({})).await;
        expect_stopped(&traced);
    }
}

#[tokio::test]
async fn errors_and_traces_count_while_they_are_gathered() {
    let app = TestApp::sqlite().await;
    let hidden: Vec<String> = (0..100).map(|n| format!("0190a0b0-0000-7000-8000-{n:012}")).collect();
    let fields: Vec<String> = (0..10).map(|n| format!("a{n}: users(first: 0) {{ totalCount }}")).collect();
    let bad = format!("{{ {} }}", fields.join(" "));
    let told = app.as_admin().plain().run(&bad, json!({})).await;
    assert!(told.body.len() > 150, "{}", told.body);
    let less = app.that_answers_at_most(150, usize::MAX);
    expect_stopped(&less.as_admin().plain().run(&bad, json!({})).await);
    let nodes = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }";
    let many = json!({ "ids": hidden });
    let answer = app.as_admin().plain().traced().run(nodes, many.clone()).await;
    assert!(answer.body.len() < 10_000, "{}", answer.body.len());
    // In memory a trace takes far more than in the answer.
    let small = app.that_answers_at_most(answer.body.len(), usize::MAX);
    small.as_admin().plain().run(nodes, many.clone()).await.expect_data(nodes);
    expect_stopped(&small.as_admin().plain().traced().run(nodes, many).await);
}

#[tokio::test]
async fn the_requests_of_an_array_share_the_bytes_of_one_answer() {
    let app = TestApp::sqlite().await;
    let length = app.as_admin().plain().run(EVERYBODY, json!({})).await.body.len();
    let bounded = app.that_answers_at_most(2 * length, usize::MAX);
    let array = bounded.as_admin().plain().in_one_array();
    for _ in 0..2 {
        array.run(EVERYBODY, json!({})).await.expect_data(EVERYBODY);
    }
    expect_stopped(&array.run("{ me { id } }", json!({})).await);
    bounded.as_admin().plain().run(EVERYBODY, json!({})).await.expect_data(EVERYBODY);
}

/// As long as somebody has a long answer in hand, it takes memory.
#[tokio::test]
async fn long_answers_share_the_memory_that_they_are_written_in() {
    let app = TestApp::sqlite().await;
    let long = "{ _service { sdl } a: _service { sdl } b: _service { sdl } }";
    let asked = Request { query: long.into(), ..Request::default() };
    let first = app.graph.execute(Viewer::Service, asked).await.body;
    let (length, allocated) = (first.len(), first.allocated());
    assert!(length > 128 << 10, "{length} bytes");
    // Half of it is two answers and a half: while one is written it takes a little more than in the end.
    let bounded = app.that_answers_at_most(2 * length, 5 * allocated);
    let ask = async |role| {
        let viewer = Viewer::User { id: TestApp::account(role), role, session: None };
        bounded.graph.execute(viewer, Request { query: long.into(), ..Request::default() }).await
    };
    let held = [ask(Role::Admin).await, ask(Role::Admin).await];
    assert!(held.iter().all(|reply| reply.codes.is_empty()));
    let refused = ask(Role::Admin).await;
    assert_eq!((refused.codes, refused.retry_after_seconds), (vec!["OVERLOADED"], Some(1)));
    assert!(ask(Role::Viewer).await.codes.is_empty(), "one account has half of it");
    drop(held);
    assert!(ask(Role::Admin).await.codes.is_empty());
}

#[tokio::test]
async fn a_mutation_with_too_long_an_answer_reports_success() {
    for app in TestApp::both_own().await {
        let small = app.that_answers_at_most(300, usize::MAX);
        let rename = "mutation($name: String!) { first: updateProfile(input: { displayName: $name }) { user { displayName a: displayName b: displayName } userErrors { code } }
            second: updateProfile(input: { displayName: \"Second\" }) { user { displayName } userErrors { code } } }";
        let long = "x".repeat(100);
        let reply = small.as_admin().plain().run(rename, json!({ "name": long })).await;
        expect_stopped(&reply);
        assert!(text(&reply.errors[0]["message"]).ends_with("What `first` did is done."), "{}", reply.body);
        let me = app.as_admin().ask("{ me { displayName } }").await;
        assert_eq!(me["me"]["displayName"], long, "and the second one did not run");
        // It is found too long when all of it is written.
        let whole = app.as_admin().plain().run(rename, json!({ "name": "First" })).await.body.len();
        let almost = app.that_answers_at_most(whole - 1, usize::MAX);
        let reply = almost.as_admin().plain().run(rename, json!({ "name": "First" })).await;
        expect_stopped(&reply);
        let message = text(&reply.errors[0]["message"]);
        assert!(message.ends_with("What `second` and the fields before it did is done."), "{}", reply.body);
    }
}

async fn next(events: &mut Events) -> Reply {
    match events.next().await {
        Some(Event::Reply(reply)) => Reply::of(*reply),
        _ => panic!("there is no event"),
    }
}

#[tokio::test]
async fn a_too_long_event_leaves_its_stream_open() {
    let [app, _] = TestApp::both_own().await;
    let bounded = app.that_answers_at_most(180, usize::MAX);
    let listens = |fields: &str| format!("subscription {{ locationUpdated {{ {fields} }} }}");
    let admin = bounded.as_admin().plain();
    let mut long =
        admin.subscribe(&listens("id a: id b: id c: id d: id e: id"), json!({})).await.expect("events");
    let mut short = admin.subscribe(&listens("id"), json!({})).await.expect("events");
    for age in [20, 10] {
        let time = (clock::now() - TimeDelta::seconds(age)).to_rfc3339_opts(SecondsFormat::Secs, true);
        let record = format!(
            "mutation {{ recordLocations(input: {{ points: [{{ timestamp: \"{time}\", latitude: 1, longitude: 2 }}] }}) {{ acceptedCount }} }}"
        );
        let recorded = app.as_role(Role::Collector).run(&record, json!({})).await.expect_data(&record);
        assert_eq!(recorded["recordLocations"]["acceptedCount"], 1, "{recorded}");
        let event = next(&mut long).await;
        assert_eq!((event.codes, event.data), (vec!["COST_LIMIT".to_owned()], Value::Null));
        next(&mut short).await.expect_data("a short event");
    }
}

#[tokio::test]
async fn copies_of_results_and_errors_are_limited() {
    for app in TestApp::both().await {
        let found = app
            .as_admin()
            .run("{ forms(first: 1, filter: { statuses: [OPEN] }) { nodes { id } } }", json!({}))
            .await;
        let form = found.expect_data("an open form")["forms"]["nodes"][0]["id"].clone();
        let wrong: Value =
            (0..100).map(|n| (format!("u{n}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
        let submissions: Vec<Value> = (0..200).map(|_| json!({ "formId": form, "data": wrong })).collect();
        let input = json!({ "i": { "submissions": submissions } });
        let create = |selected: &str| {
            format!(
                "mutation($i: CreateSubmissionsInput!) {{ createSubmissions(input: $i) {{ results {{ {selected} }} }} }}"
            )
        };
        let told = app.as_admin().run(&create("userErrors { code }"), input.clone()).await;
        let results = told.expect_data("what is wrong")["createSubmissions"]["results"]
            .as_array()
            .expect("results")
            .clone();
        let counts: Vec<usize> =
            results.iter().map(|result| result["userErrors"].as_array().map_or(0, Vec::len)).collect();
        assert_eq!((counts.len(), counts[0], counts[199]), (200, 100, 1), "{counts:?}");
        assert!(counts.iter().sum::<usize>() <= 2_200, "{counts:?}");
        let aliased =
            (0..28).map(|n| format!("a{n}: userErrors {{ __typename }}")).collect::<Vec<_>>().join(" ");
        let refused = app.as_admin().run(&create(&aliased), input).await;
        assert!(
            refused.codes.iter().all(|code| code == "COST_LIMIT") && !refused.codes.is_empty(),
            "{:?}",
            refused.codes
        );
        let points: Vec<Value> = (0..1_000).map(|_| json!({})).collect();
        let aliased = (0..28).map(|n| format!("a{n}: results {{ outcome }}")).collect::<Vec<_>>().join(" ");
        let record =
            format!("mutation($i: RecordLocationsInput!) {{ recordLocations(input: $i) {{ {aliased} }} }}");
        let refused = app.as_admin().run(&record, json!({ "i": { "points": points } })).await;
        assert!(
            refused.codes.iter().all(|code| code == "COST_LIMIT") && !refused.codes.is_empty(),
            "{:?}",
            refused.codes
        );
    }
}

#[tokio::test]
async fn equal_ids_are_loaded_once_and_repeated() {
    for app in TestApp::both().await {
        let (one, other) = (TestApp::account(Role::Admin), TestApp::account(Role::Viewer));
        let unknown = "0190a0b0-0000-7000-8000-000000000000";
        let of = |fields: &str| format!("query($ids: [ID!]!) {{ nodes(ids: $ids) {{ {fields} }} }}");
        let query = of("__typename id ... on User { displayName sessions(first: 2) { nodes { id } } }");
        let ids = json!([one, other, one, unknown, one, unknown, other]);
        let reply = app.as_admin().run(&query, json!({ "ids": ids })).await;
        let once = app.as_admin().run(&query, json!({ "ids": [one, other, unknown] })).await;
        assert_eq!(reply.statements(), once.statements());
        let (reply, once) = (reply.expect_data(&query), once.expect_data(&query));
        let [one, other, none] = [0, 1, 2].map(|at| &once["nodes"][at]);
        assert_eq!(reply["nodes"], json!([one, other, one, none, one, none, other]));
        // What fails, fails in each of its places, under its own path.
        let failing = of("... on User { id sessions(first: 0) { nodes { id } } }");
        let id = TestApp::account(Role::Admin);
        let reply = app.as_admin().run(&failing, json!({ "ids": [id, id, id] })).await;
        let paths: Vec<_> = reply.errors.iter().map(|error| error["path"].clone()).collect();
        assert_eq!(reply.data, json!({ "nodes": [null, null, null] }));
        assert_eq!(paths, [0, 1, 2].map(|at| json!(["nodes", at, "sessions"])), "{}", reply.body);
        // A gateway asks for entities in the same way.
        let entities =
            "query($of: [_Any!]!) { _entities(representations: $of) { ... on User { displayName } } }";
        let of = json!({ "__typename": "User", "id": id });
        let reply = app.as_admin().run(entities, json!({ "of": [of, of] })).await.expect_data(entities);
        assert_eq!(reply["_entities"][0], reply["_entities"][1]);
    }
}

/// Records so many points of the administrator's, a second each, from this year on.
async fn record(app: &TestApp, points: u32, year: u32) {
    let user = TestApp::account(Role::Admin);
    let columns = "user_locations (id, user_id, timestamp, received_at, latitude, longitude)";
    if app.is_postgres() {
        app.sql(&format!(
            "create table if not exists user_locations_of_{year} partition of user_locations for values from ('{year}-01-01') to ('{}-01-01')",
            year + 1
        ))
        .await;
        app.sql(&format!(
            "insert into {columns} select gen_random_uuid(), '{user}', timestamptz '{year}-01-01 00:00:00Z' + n * interval '1 second', now(),
                10 + cast((n * 7919) % 10007 as double precision) / 10007, 20 + cast(n as double precision) / 100000 from generate_series(0, {}) n",
            points - 1
        ))
        .await;
    } else {
        let hex = user.to_string().replace('-', "");
        app.sql(&format!(
            "with recursive n(n) as (select 0 union all select n + 1 from n where n < {})
             insert into {columns} select randomblob(16), x'{hex}', strftime('%Y-%m-%dT%H:%M:%S', '{year}-01-01', '+' || n || ' seconds') || '+00:00',
                strftime('%Y-%m-%dT%H:%M:%S', '{year}-01-01') || '+00:00', 10 + cast((n * 7919) % 10007 as double precision) / 10007, 20 + cast(n as double precision) / 100000 from n",
            points - 1
        ))
        .await;
    }
}

const YEARS: [u32; 3] = [2040, 2041, 2042];

fn range(year: u32) -> String {
    format!("range: {{ from: \"{year}-01-01T00:00:00Z\", to: \"{}-01-01T00:00:00Z\" }}", year + 1)
}

#[tokio::test]
async fn tracks_of_one_request_share_the_points_that_are_read() {
    let apps = TestApp::both_own().await;
    let mut kept = Vec::new();
    for app in &apps {
        for (year, points) in YEARS.into_iter().zip([60_000, 40_000, 1]) {
            record(app, points, year).await;
        }
        let track = |name: &str, year: u32, most: u32| {
            format!("{name}: track({}, maxPoints: {most}) {{ timestamp latitude longitude }} ", range(year))
        };
        let tracks = format!("{{ me {{ {} {} }} }}", track("a", YEARS[0], 50), track("b", YEARS[1], 2));
        let reply = app.as_admin().run(&tracks, json!({})).await;
        let data = reply.expect_data(&tracks);
        let [a, b] = ["a", "b"].map(|name| data["me"][name].as_array().expect("a list").clone());
        assert_eq!((a.len(), b.len()), (50, 2), "100,000 points in all");
        let times: Vec<_> = a.iter().map(|point| text(&point["timestamp"])).collect();
        assert!(times.is_sorted() && times[0].starts_with("2040-01-01T00:00:00"), "{times:?}");
        assert!(times[49].starts_with("2040-01-01T16:39:59"), "the last of 60,000 seconds: {times:?}");
        kept.push((a, b));
        let more = tracks.replace("me { ", &format!("me {{ {}", track("c", YEARS[2], 2)));
        let reply = app.as_admin().run(&more, json!({})).await;
        assert_eq!(reply.codes, ["BAD_USER_INPUT"], "{}", reply.body);
        assert!(text(&reply.errors[0]["message"]).contains("more than 100000 points"), "{}", reply.body);
        let array = app.as_admin().plain().in_one_array();
        array.run(&tracks, json!({})).await.expect_data(&tracks);
        let one_more = format!("{{ me {{ {} }} }}", track("c", YEARS[2], 2));
        assert_eq!(
            array.run(&one_more, json!({})).await.codes,
            ["BAD_USER_INPUT"],
            "an array is one request"
        );
        // The same stretch twice is read once for each number of points, with others beside it.
        let both = format!(
            "{{ a: user(id: \"{}\") {{ {} }} users(first: 5) {{ nodes {{ {} }} }} }}",
            TestApp::account(Role::Admin),
            track("t", YEARS[1], 3),
            track("t", YEARS[1], 3)
        );
        let data = app.as_admin().run(&both, json!({})).await.expect_data(&both);
        assert_eq!(data["a"]["t"].as_array().map(Vec::len), Some(3));
    }
    assert_eq!(kept[0], kept[1], "SQLite and PostgreSQL keep the same points");
}

/// Every maximum that the schema writes down, with the leaves that one would ask for.
#[tokio::test]
async fn default_limits_allow_all_documented_maxima() {
    let app = TestApp::sqlite().await;
    let strict = app.with_default_limits();
    let sdl = strict.graph.sdl();
    for promise in ["of the range, at most 100.", "of the range, at most 1000.", "2 to 10000", "At most 100."]
    {
        assert!(sdl.contains(promise), "the schema promises something else than {promise}");
    }
    let ids = vec![TestApp::account(Role::Admin); 100];
    let nodes = json!({ "ids": ids });
    let mut asked: Vec<(String, Value)> = vec![
        ("query($ids: [ID!]!) { nodes(ids: $ids) { id ... on User { email } ... on Submission { data } ... on FormVersion { definition jsonSchema } ... on ActivityLog { metadata } } }".into(), nodes),
        (format!("{{ me {{ track({}, maxPoints: 10000) {{ id timestamp latitude longitude }} }} }}", range(2040)), json!({})),
        ("{ users(first: 5) { nodes { id locations(first: 1000) { nodes { id } } } } }".into(), json!({})),
    ];
    let lists = [
        ("users", 100, "id email"),
        ("forms", 100, "id title draft currentVersion { definition jsonSchema }"),
        ("latestLocations", 1_000, "id latitude user { displayName }"),
        ("activityLogs", 100, "id metadata"),
        ("me { sessions", 100, "id lastLocation { id }"),
        ("me { forms", 100, "id draft"),
        ("me { submissions", 100, "id data"),
        ("me { locations", 1_000, "id session { id }"),
        ("me { activity", 100, "id metadata"),
        ("me { sessions(first: 1) { nodes { locations", 1_000, "id"),
        ("forms(first: 1) { nodes { versions", 100, "id definition jsonSchema"),
        ("forms(first: 1) { nodes { submissions", 100, "id data"),
        ("webhooks", 100, "id url"),
        ("webhookDeliveries", 100, "id status"),
        ("webhooks(first: 1) { nodes { deliveries", 100, "id status"),
    ];
    for (list, most, fields) in lists {
        let closing = "}".repeat(list.matches('{').count());
        for (size, rows) in
            [("first", "nodes { % } pageInfo { endCursor }"), ("last", "edges { cursor node { % } }")]
        {
            let rows = rows.replace('%', fields);
            asked
                .push((format!("{{ {list}({size}: {most}) {{ totalCount {rows} }} {closing} }}"), json!({})));
        }
    }
    // Each list of the schema is among them.
    let listed = sdl.matches("sizedFields: [\"").count();
    let roots = lists.len();
    assert!(listed <= roots, "{listed} lists in the schema, {roots} asked for");
    for (query, variables) in asked {
        strict.as_admin().plain().run(&query, variables).await.expect_data(&query);
    }
}
