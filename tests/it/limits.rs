//! What is refused: wrong arguments, foreign cursors, bad ids, documents that do not fit the schema, and documents
//! made to bring a server down. Every refusal has a code; the latter are refused at once.

use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use schema::{Graph, Options, Request, Viewer};
use serde_json::{Value, json};

use crate::harness::{Reply, TestApp, text};

/// Asks as the administrator on both databases; both must refuse with these codes and the same words.
async fn refused(apps: &[TestApp; 2], query: &str, variables: Value, codes: &[&str]) -> Reply {
    let [sqlite, postgres] = apps;
    let one = sqlite.as_admin().run(query, variables.clone()).await;
    let other = postgres.as_admin().run(query, variables).await;
    assert_eq!(one.codes, codes, "{}: {}", cut(query), cut(&one.body));
    assert_eq!(one.body, other.body, "{}", cut(query));
    one
}

fn cut(text: &str) -> String {
    text.chars().take(600).collect()
}

const INVALID: &[&str] = &["GRAPHQL_VALIDATION_FAILED"];
const BAD_INPUT: &[&str] = &["BAD_USER_INPUT"];

#[tokio::test]
async fn a_page_has_from_1_to_100_rows_and_one_direction() {
    let apps = TestApp::both().await;
    for wrong in
        ["first: 0", "first: -1", "first: 101", "first: 2147483647", "last: 0", "last: -5", "last: 101"]
    {
        let lists =
            ["users", "forms", "activityLogs"].map(|list| format!("{{ {list}({wrong}) {{ totalCount }} }}"));
        for list in lists {
            let reply = refused(&apps, &list, json!({}), BAD_INPUT).await;
            assert!(reply.executed && reply.data.is_null(), "the list is not nullable: {}", reply.body);
            assert!(text(&reply.errors[0]["message"]).contains("must be from 1 to 100"), "{}", reply.body);
        }
    }
    for both in ["first: 1, last: 1", "first: 101, last: 0"] {
        refused(&apps, &format!("{{ users({both}) {{ totalCount }} }}"), json!({}), BAD_INPUT).await;
    }
    // Nested: the nearest parent that may be null takes the error.
    let nested = "{ me { id sessions(first: 101) { totalCount } } users(first: 1) { totalCount } }";
    let reply = refused(&apps, nested, json!({}), BAD_INPUT).await;
    assert_eq!(reply.data["me"], Value::Null);
    assert!(reply.data["users"]["totalCount"].is_u64(), "what stands beside it is answered: {}", reply.body);
    assert_eq!(reply.errors[0]["path"], json!(["me", "sessions"]));
}

#[tokio::test]
async fn a_page_of_positions_has_up_to_1000_rows() {
    let apps = TestApp::both().await;
    for app in &apps {
        app.as_admin()
            .ask(
                "{ latestLocations(first: 1000) { totalCount } me { locations(last: 1000) { totalCount } } }",
            )
            .await;
    }
    refused(&apps, "{ latestLocations(first: 1001) { totalCount } }", json!({}), BAD_INPUT).await;
    refused(&apps, "{ me { locations(last: 1001) { totalCount } } }", json!({}), BAD_INPUT).await;
    let nested = "{ me { sessions { nodes { locations(first: 0) { totalCount } } } } }";
    let reply = refused(&apps, "{ me { locations(first: 0) { totalCount } } }", json!({}), BAD_INPUT).await;
    assert_eq!(reply.data, json!({"me": null}));
    let [app, _] = &apps;
    let reply = app.as_admin().run(nested, json!({})).await;
    assert!(reply.codes.iter().all(|code| code == "BAD_USER_INPUT") && !reply.codes.is_empty());
}

#[tokio::test]
async fn a_cursor_belongs_to_its_list_its_filter_and_its_order() {
    let apps = TestApp::both().await;
    let [app, _] = &apps;
    let data = app.as_admin().ask("{
        users(first: 2) { pageInfo { endCursor } }
        active: users(first: 2, filter: { isActive: true }) { pageInfo { endCursor } }
        named: users(first: 2, orderBy: { field: DISPLAY_NAME, direction: ASC }) { pageInfo { endCursor } }
        forms(first: 2) { pageInfo { endCursor } }
        me { sessions(first: 2) { pageInfo { endCursor } } live: sessions(first: 1, activeOnly: true) { pageInfo { endCursor } } }
    }").await;
    let cursor = |list: &Value| text(&list["pageInfo"]["endCursor"]);
    let own = cursor(&data["users"]);
    let query = |list: &str, cursor: &str| format!("{{ {list}, after: {cursor:?}) {{ totalCount }} }}");
    let users = "users(first: 1";
    app.as_admin().ask(&query(users, &own)).await;
    // Equal arguments in other words are the same list.
    app.as_admin().ask(&query("users(first: 7, filter: null", &own)).await;

    for foreign in [&data["active"], &data["named"], &data["forms"], &data["me"]["sessions"]] {
        refused(&apps, &query(users, &cursor(foreign)), json!({}), &["BAD_CURSOR"]).await;
    }
    for list in [
        "forms(first: 1",
        "activityLogs(first: 1",
        "latestLocations(first: 1",
        "users(first: 1, filter: { isActive: false }",
        "users(first: 1, filter: { search: \"a\" }",
        "users(first: 1, orderBy: { field: CREATED_AT, direction: ASC }",
    ] {
        refused(&apps, &query(list, &own), json!({}), &["BAD_CURSOR"]).await;
    }
    let sessions = |arguments: &str| format!("{{ me {{ sessions({arguments}) {{ totalCount }} }} }}");
    let other = cursor(&data["me"]["sessions"]);
    refused(&apps, &sessions(&format!("activeOnly: true, after: {other:?}")), json!({}), &["BAD_CURSOR"])
        .await;

    // Altered: every character, the ends, and what was never a cursor.
    for at in 0..own.len() {
        let mut bytes = own.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).expect("ASCII");
        let reply = app.as_admin().run(&query(users, &altered), json!({})).await;
        assert_eq!(reply.codes, ["BAD_CURSOR"], "{altered}");
    }
    let long = "A".repeat(10_000);
    let (short, longer) = (own[..own.len() - 1].to_owned(), format!("{own}A"));
    for wrong in [
        "",
        "A",
        "null",
        "🐟",
        "====",
        own.trim_end_matches('A').to_lowercase().as_str(),
        &short,
        &longer,
        &long,
    ] {
        refused(&apps, &query(users, wrong), json!({}), &["BAD_CURSOR"]).await;
        refused(&apps, &query(users, wrong).replace("after", "before"), json!({}), &["BAD_CURSOR"]).await;
    }
}

#[tokio::test]
async fn an_id_is_a_uuid_in_its_canonical_form() {
    let apps = TestApp::both().await;
    let long = "0".repeat(5_000);
    let wrong = [
        "",
        "1",
        "x",
        "0189000000007000800000000000000",
        "01890000000070008000000000000001",
        "{01890000-0000-7000-8000-000000000001}",
        "urn:uuid:01890000-0000-7000-8000-000000000001",
        " 01890000-0000-7000-8000-000000000001",
        "01890000-0000-7000-8000-00000000000g",
        "01890000-0000-7000-8000-000000000001\u{0}",
        "' or 1=1 --",
        long.as_str(),
    ];
    for id in wrong {
        for field in ["node", "user", "session", "form", "submission"] {
            let query = format!("query($id: ID!) {{ {field}(id: $id) {{ id }} me {{ id }} }}");
            let [app, _] = &apps;
            let reply = app.as_admin().run(&query, json!({ "id": id })).await;
            assert_eq!(reply.codes, BAD_INPUT, "{field} {id:?}");
            assert!(reply.data[field].is_null() && reply.data["me"]["id"].is_string(), "{}", reply.body);
            assert!(reply.body.len() < 1_000, "the id is not echoed at length");
        }
    }
    let query = "query($id: ID!) { userBy(lookup: { id: $id }) { id } }";
    refused(&apps, query, json!({"id": "x"}), BAD_INPUT).await;
    for filter in ["ownerIds: [\"x\"]", "ownerIds: \"x\""] {
        refused(
            &apps,
            &format!("{{ forms(filter: {{ {filter} }}) {{ totalCount }} }}"),
            json!({}),
            BAD_INPUT,
        )
        .await;
    }
    let many = vec!["01890000-0000-7000-8000-000000000001"; 1_001];
    let query = "query($ids: [ID!]) { latestLocations(userIds: $ids) { totalCount } }";
    refused(&apps, query, json!({ "ids": many }), BAD_INPUT).await;
    for app in &apps {
        app.as_admin().run(query, json!({ "ids": many[..1_000] })).await.expect_data("1000 ids");
    }
}

#[tokio::test]
async fn nodes_answers_up_to_100_ids_in_order() {
    let apps = TestApp::both().await;
    let query = "query($ids: [ID!]!) { nodes(ids: $ids) { id } me { id } }";
    let id = "01890000-0000-7000-8000-000000000001";
    let reply = refused(&apps, query, json!({"ids": vec![id; 101]}), BAD_INPUT).await;
    assert!(reply.data.is_null(), "the list is not nullable: {}", reply.body);
    for app in &apps {
        let reply = app.as_admin().run(query, json!({"ids": vec![id; 100]})).await;
        assert_eq!(reply.expect_data("100")["nodes"], json!(vec![json!({"id": id}); 100]));
        let reply = app.as_admin().run(query, json!({"ids": []})).await;
        assert_eq!(reply.expect_data("none")["nodes"], json!([]));
        let reply = app.as_admin().run(query, json!({"ids": [id, "bad", id]})).await;
        assert_eq!(reply.data["nodes"], json!([{"id": id}, null, {"id": id}]), "one bad id is one null");
        assert_eq!(reply.codes, BAD_INPUT);
        assert_eq!(reply.errors[0]["path"], json!(["nodes", 1]));
    }
}

#[tokio::test]
async fn representations_are_judged_one_by_one() {
    let apps = TestApp::both().await;
    let query = "query($r: [_Any!]!) { _entities(representations: $r) { ... on User { id } } }";
    let id = "01890000-0000-7000-8000-000000000001";
    let wrong = [
        json!({"__typename": "Nope", "id": id}),
        json!({"__typename": "Query"}),
        json!({"id": id}),
        json!({"__typename": "User"}),
        json!({"__typename": "User", "id": "x"}),
        json!({"__typename": "User", "id": 7}),
        json!({"__typename": "Form", "email": "admin@example.com"}),
        json!({"__typename": 1, "id": id}),
        json!({}),
    ];
    for wrong in wrong {
        let r = json!([{"__typename": "User", "id": id}, wrong, {"__typename": "User", "id": id}]);
        let reply = refused(&apps, query, json!({ "r": r }), BAD_INPUT).await;
        assert_eq!(reply.data["_entities"], json!([{"id": id}, null, {"id": id}]), "{wrong}");
    }
    let r = vec![json!({"__typename": "User", "id": id}); 1_001];
    refused(&apps, query, json!({ "r": r }), BAD_INPUT).await;
}

#[tokio::test]
async fn values_out_of_range_are_refused() {
    let apps = TestApp::both().await;
    let reply = refused(&apps, "{ users(first: 99999999999) { totalCount } }", json!({}), INVALID).await;
    assert!(
        !reply.body.contains("Args"),
        "names of the server's own types are nobody's business: {}",
        reply.body
    );
    for area in [
        "box: { west: -181, south: 0, east: 0, north: 1 }",
        "box: { west: 0, south: 2, east: 1, north: 1 }",
        "box: { west: 0, south: -91, east: 1, north: 1 }",
        "circle: { latitude: 91, longitude: 0, radius: 1 }",
        "circle: { latitude: 0, longitude: 181, radius: 1 }",
        "circle: { latitude: 0, longitude: 0, radius: -1 }",
    ] {
        refused(
            &apps,
            &format!("{{ latestLocations(area: {{ {area} }}) {{ totalCount }} }}"),
            json!({}),
            BAD_INPUT,
        )
        .await;
        let nested = format!("{{ me {{ locations(filter: {{ area: {{ {area} }} }}) {{ totalCount }} }} }}");
        refused(&apps, &nested, json!({}), BAD_INPUT).await;
    }
    let late = "{ from: \"2026-02-01T00:00:00Z\", to: \"2026-01-01T00:00:00Z\" }";
    refused(
        &apps,
        &format!("{{ users(filter: {{ createdAt: {late} }}) {{ totalCount }} }}"),
        json!({}),
        BAD_INPUT,
    )
    .await;
    refused(&apps, &format!("{{ me {{ track(range: {late}) {{ id }} }} }}"), json!({}), BAD_INPUT).await;
    for points in [-1, 0, 1, 10_001] {
        let track = format!("{{ me {{ track(range: {{}}, maxPoints: {points}) {{ id }} }} }}");
        refused(&apps, &track, json!({}), BAD_INPUT).await;
    }
}

#[tokio::test]
async fn documents_that_do_not_fit_the_schema_are_request_errors() {
    let app = TestApp::sqlite().await;
    for query in [
        "{ nope }",
        "{ users { nope } }",
        "{ users }",
        "{ me { id { x } } }",
        "{ users(nope: 1) { totalCount } }",
        "{ users(first: \"1\") { totalCount } }",
        "{ users(filter: { nope: 1 }) { totalCount } }",
        "{ users(filter: { roles: [KING] }) { totalCount } }",
        "{ users(orderBy: { field: CREATED_AT }) { totalCount } }",
        "{ user { id } }",
        "{ user(id: null) { id } }",
        "{ userBy(lookup: { id: \"a\", email: \"b\" }) { id } }",
        "{ userBy(lookup: {}) { id } }",
        "{ userBy(lookup: { id: null }) { id } }",
        "{ latestLocations(area: { box: { west: 1 } }) { totalCount } }",
        "{ users(filter: { createdAt: { from: \"yesterday\" } }) { totalCount } }",
        "{ ... on Form { id } }",
        "{ ...Nobody }",
        "{ me { id @nope } }",
        "query($a: Nope) { me { id } }",
        "query($a: User) { me { id } }",
        "query { users(first: $n) { totalCount } }",
        "fragment F on User { id } { me { id } }",
        "{ users(first: 1) { totalCount } users(first: 2) { totalCount } }",
    ] {
        let reply = app.as_admin().run(query, json!({})).await;
        assert!(!reply.executed && !reply.codes.is_empty(), "{query}: {}", reply.body);
        assert!(reply.codes.iter().all(|code| INVALID.contains(&code.as_str())), "{query}: {}", reply.body);
        assert!(reply.errors[0]["locations"][0]["line"].is_u64(), "{query}: {}", reply.body);
    }
    for query in [
        "",
        " ",
        "#",
        "{",
        "}",
        "{}",
        "{ me }}",
        "nope { me }",
        "{ me(: 1) }",
        "{ me { id }",
        "\u{feff}{",
        "{ \"me\" }",
        "query ($n: ) { me { id } }",
        "{ me { id } } trailing",
    ] {
        let reply = app.as_admin().run(query, json!({})).await;
        assert_eq!(reply.codes, ["GRAPHQL_PARSE_FAILED"], "{query:?}: {}", reply.body);
        assert!(!reply.executed);
    }
    for query in ["mutation { nope }", "subscription { nope }"] {
        let reply = app.as_admin().run(query, json!({})).await;
        assert!(!reply.executed && !reply.codes.is_empty(), "{query}: {}", reply.body);
    }
}

#[tokio::test]
async fn the_operation_to_run_must_be_clear() {
    let app = TestApp::sqlite().await;
    let client = app.as_admin();
    let two = "query A { me { id } } query B { users { totalCount } }";
    for (query, name) in
        [(two, None), (two, Some("C")), ("{ me { id } }", Some("A")), ("query A { me { id } }", Some("B"))]
    {
        let reply = client.run_named(query, name, json!({})).await;
        assert_eq!(reply.codes, ["OPERATION_RESOLUTION_FAILURE"], "{query} {name:?}: {}", reply.body);
        assert!(!reply.executed);
    }
    let reply = client.run_named(two, Some("B"), json!({})).await;
    assert!(reply.expect_data(two)["users"]["totalCount"].is_u64());
    let reply = client.run_named(two, Some("A"), json!({})).await;
    assert!(reply.expect_data(two)["me"]["id"].is_string());
}

#[tokio::test]
async fn variables_are_coerced_before_anything_runs() {
    let apps = TestApp::both().await;
    let n = "query($n: Int!) { users(first: $n) { totalCount } }";
    let roles = "query($r: [Role!]) { users(filter: { roles: $r }) { totalCount } }";
    let lookup = "query($l: UserLookup!) { userBy(lookup: $l) { id } }";
    let filter = "query($f: UserFilter) { users(filter: $f) { totalCount } }";
    let area = "query($a: AreaInput) { latestLocations(area: $a) { totalCount } }";
    let wrong = [
        (n, json!({})),
        (n, json!({"n": null})),
        (n, json!({"n": "1"})),
        (n, json!({"n": 1.5})),
        (n, json!({"n": 4_294_967_296_u64})),
        (n, json!({"n": [1]})),
        (roles, json!({"r": ["KING"]})),
        (roles, json!({"r": "king"})),
        (roles, json!({"r": [null]})),
        (roles, json!({"r": [1]})),
        (lookup, json!({"l": {"id": "a", "email": "b"}})),
        (lookup, json!({"l": {"id": "a", "email": null}})),
        (lookup, json!({"l": {}})),
        (lookup, json!({"l": {"email": null}})),
        (lookup, json!({"l": "a"})),
        (filter, json!({"f": {"nope": 1}})),
        (filter, json!({"f": {"isActive": "true"}})),
        (filter, json!({"f": {"createdAt": {"from": "yesterday"}}})),
        (filter, json!({"f": {"createdAt": {"from": 5}}})),
        (filter, json!({"f": []})),
        (area, json!({"a": {"box": {"west": 1}}})),
        (area, json!({"a": {"box": {"west": 0, "south": 0, "east": 1, "north": 1}, "circle": null}})),
        (area, json!({"a": {"circle": {"latitude": "0", "longitude": 0, "radius": 1}}})),
    ];
    for (query, variables) in wrong {
        let reply = refused(&apps, query, variables.clone(), BAD_INPUT).await;
        assert!(!reply.executed && reply.sql.is_empty(), "{variables}: {}", reply.body);
    }
    let [app, _] = &apps;
    for (query, variables) in [
        (n, json!({"n": 1, "unknown": {"x": [1]}})),
        (roles, json!({"r": "ADMIN"})),
        (roles, json!({"r": []})),
        (roles, json!({"r": null})),
        (filter, json!({"f": {"createdAt": {"from": "2026-01-01T00:00:00+07:00"}}})),
        (area, json!({"a": {"circle": {"latitude": 0, "longitude": 0, "radius": 1}}})),
    ] {
        app.as_admin().run(query, variables).await.expect_data(query);
    }
}

#[tokio::test]
async fn documents_made_to_hurt_are_refused_at_once() {
    let deep = |levels: usize| {
        format!(
            "{}{}{}",
            "{ me { sessions { nodes { user ".repeat(levels),
            "{ id }",
            " } } } }".repeat(levels)
        )
    };
    let nested = |open: &str, close: &str, levels: usize| {
        format!("{{ users(filter: {}1{}) {{ totalCount }} }}", open.repeat(levels), close.repeat(levels))
    };
    let fragment = |n: usize| format!("fragment F{n} on User {{ ...F{} ...F{} }}", n + 1, n + 1);
    let fragments = (0..40).map(fragment).collect::<Vec<_>>().join(" ");
    let aliases = (0..1_000).map(|n| format!("a{n}: me {{ id }}")).collect::<Vec<_>>().join(" ");
    let cost = |levels: usize| "users { nodes { ".repeat(levels);
    let bombs = [
        ("deep selections", deep(40), "DEPTH_LIMIT"),
        ("very deep selections", "{a".repeat(20_000), "DEPTH_LIMIT"),
        ("very deep and closed", format!("{}{}", "{a".repeat(10_000), "}".repeat(10_000)), "DEPTH_LIMIT"),
        ("nested lists", nested("[", "]", 10_000), "DEPTH_LIMIT"),
        ("nested objects", nested("{a:", "}", 8_000), "DEPTH_LIMIT"),
        ("nested lists without an end", "{ users(first: ".to_owned() + &"[".repeat(50_000), "DEPTH_LIMIT"),
        (
            "fragments that double",
            format!("{{ me {{ ...F0 }} }} {fragments} fragment F40 on User {{ id }}"),
            "COST_LIMIT",
        ),
        (
            "a fragment of itself",
            "{ me { ...F } } fragment F on User { id ...F }".to_owned(),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "fragments of each other",
            "{ me { ...F } } fragment F on User { ...G } fragment G on User { ...F }".to_owned(),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("aliases", format!("{{ {aliases} }}"), "COST_LIMIT"),
        ("directives", format!("{{ me {{ id {} }} }}", "@include(if: true) ".repeat(1_000)), "COST_LIMIT"),
        ("root fields", format!("{{ {} }}", "__typename ".repeat(1_000)), "COST_LIMIT"),
        ("a long document", format!("{{ me {{ id }} }} #{}", "x".repeat(70_000)), "PAYLOAD_TOO_LARGE"),
        ("white space", format!("{{ me {{ id }} }}{}", " ".repeat(70_000)), "PAYLOAD_TOO_LARGE"),
        (
            "a block string without an end",
            format!("{{ users(after: \"\"\"{}", "\\\"\"\"".repeat(12_000)),
            "GRAPHQL_PARSE_FAILED",
        ),
        (
            "introspection in depth",
            format!(
                "{{ __schema {{ types {}{{ name }}{} }} }}",
                "{ fields { type ".repeat(12),
                "} } ".repeat(12)
            ),
            "DEPTH_LIMIT",
        ),
        (
            "connections in connections",
            format!(
                "{{ users {{ nodes {{ forms {{ nodes {{ owner {{ {} id {} }} }} }} }} }} }}",
                cost(10),
                "} } ".repeat(10)
            ),
            "DEPTH_LIMIT",
        ),
    ];
    let app = TestApp::sqlite().await;
    for (name, bomb, code) in bombs {
        let start = Instant::now();
        let reply = app.as_admin().run(&bomb, json!({})).await;
        let elapsed = start.elapsed();
        assert!(!reply.executed && reply.sql.is_empty(), "{name}: {}", cut(&reply.body));
        let known = ["DEPTH_LIMIT", "COST_LIMIT", "PAYLOAD_TOO_LARGE", "GRAPHQL_PARSE_FAILED"];
        assert!(
            reply.codes[0] == code || known.contains(&reply.codes[0].as_str()),
            "{name}: {}",
            cut(&reply.body)
        );
        assert_eq!(reply.codes, [code], "{name}: {}", cut(&reply.body));
        assert!(elapsed < Duration::from_millis(500), "{name} took {elapsed:?}");
        assert!(reply.body.len() < 2_000, "{name}: the answer is {} bytes", reply.body.len());
    }
}

#[tokio::test]
async fn values_of_variables_made_to_hurt_are_refused_at_once() {
    let app = TestApp::sqlite().await;
    let query = "query($r: [_Any!]!) { _entities(representations: $r) { __typename } }";
    let mut value = json!(1);
    for _ in 0..100 {
        value = json!([value]);
    }
    let long = "x".repeat(1 << 20);
    for variables in [
        json!({"r": [{"__typename": "User", "id": value}]}),
        json!({"r": [{"__typename": "User", "id": long}]}),
        json!({"r": [{"__typename": long, "id": "1"}]}),
        json!({"r": [{"__typename": "User", "email": long}]}),
    ] {
        let start = Instant::now();
        let reply = app.as_admin().run(query, variables).await;
        assert!(
            reply.body.len() < 2_000 && start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
    let postgres = TestApp::postgres().await;
    let search = "query($s: String!, $r: [_Any!]!) {
        users(filter: { search: $s }) { totalCount } forms(filter: { search: $s }) { totalCount }
        userBy(lookup: { email: $s }) { id } _entities(representations: $r) { __typename }
        activityLogs(filter: { actionTypes: [$s, \"form.publish\"] }) { totalCount }
    }";
    for text in ["%", "_", "\\", "'", "\u{0}", "a\u{0}", "%%%%", "ş", "İ", &"%a".repeat(5_000)] {
        let variables = json!({"s": text, "r": [{"__typename": "User", "email": text}]});
        let one = app.as_admin().run(search, variables.clone()).await;
        let other = postgres.as_admin().run(search, variables).await;
        assert_eq!(one.body, other.body, "{:?}", cut(text));
        assert!(one.errors.is_empty(), "{:?}: {}", cut(text), one.body);
    }
}

#[tokio::test]
async fn too_expensive_operations_are_refused_before_running() {
    let app = TestApp::sqlite().await;
    let graph = Graph::new(app.store.clone(), Options::default(), &mut Registry::default());
    let ask = async |query: &str, variables: Value| {
        let variables = serde_json::from_value(variables).expect("an object");
        let request = Request { query: query.to_owned(), variables, ..Request::default() };
        graph.execute(Viewer::Service, request).await
    };
    let pages = "query($n: Int) { users(first: $n) { nodes { sessions(first: 100) { nodes { id } } } } }";
    for (n, refused) in [(1, false), (90, false), (100, true)] {
        let reply = ask(pages, json!({ "n": n })).await;
        assert_eq!(reply.codes, if refused { vec!["COST_LIMIT"] } else { vec![] }, "{n}");
        assert_eq!(reply.executed, !refused);
    }
    let by_default = "{ users { nodes { sessions { nodes { locations { nodes { user { id } } } } } } } }";
    let reply = ask(by_default, json!({})).await;
    assert_eq!((reply.codes, reply.statements), (vec!["COST_LIMIT"], 0), "20 rows where none are said");
}

#[tokio::test]
async fn search_texts_are_bounded() {
    let apps = TestApp::both().await;
    let long = "x".repeat(10_001);
    for query in [
        "query($s: String) { users(filter: { search: $s }) { totalCount } }",
        "query($s: String) { forms(filter: { search: $s }) { totalCount } }",
    ] {
        refused(&apps, query, json!({ "s": long }), BAD_INPUT).await;
    }
}
