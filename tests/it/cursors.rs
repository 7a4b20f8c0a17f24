//! Cursors and the lists that they belong to. Not here: pages (`pages`), cursors that are refused (`limits`).

use entities::Role;
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, text};

/// What means the same is the same list, however it is written: nothing, null and an empty filter; a filter
/// that names all there is; the order that a list has anyway; sets in any order, with repetitions, and as one
/// value; ids and times in other spellings; texts in other cases and normal forms.
#[tokio::test]
async fn a_cursor_holds_for_the_same_list_in_other_words() {
    const USER: &str = "0190aBcd-0000-7000-8000-00000000000F";
    let lower = USER.to_lowercase();
    let same: [&[&str]; 10] = [
        &[
            "users(first: 1",
            "users(first: 2, filter: {}",
            "users(last: 1, filter: null",
            "users(first: 1, filter: { search: null, roles: null, createdAt: {} }",
            "users(first: 1, filter: { search: \"\", lastLogin: { from: null } }",
            "users(first: 1, orderBy: { direction: DESC, field: CREATED_AT }",
            "users(first: 1, orderBy: null",
            "users(first: 1, filter: { roles: [ADMIN, MANAGER, EDITOR, COLLECTOR, VIEWER] }",
        ],
        &[
            "forms(first: 1",
            "forms(first: 1, filter: { statuses: [DRAFT, OPEN, CLOSED, ARCHIVED] }",
            "forms(first: 1, filter: { statuses: [ARCHIVED, CLOSED, OPEN, DRAFT, OPEN] }",
        ],
        &[
            "users(first: 1, filter: { roles: [ADMIN, COLLECTOR] }",
            "users(first: 1, filter: { roles: [COLLECTOR, ADMIN], search: null }",
            "users(first: 1, filter: { roles: [COLLECTOR, ADMIN, ADMIN, COLLECTOR] }",
        ],
        &["users(first: 1, filter: { roles: ADMIN }", "users(first: 1, filter: { roles: [ADMIN] }"],
        &["users(first: 1, filter: { search: \"A\" }", "users(first: 1, filter: { search: \"a\" }"],
        &[
            "users(first: 1, filter: { createdAt: { from: \"2020-01-01T00:00:00Z\" } }",
            "users(first: 1, filter: { createdAt: { to: null, from: \"2020-01-01T07:00:00.000+07:00\" } }",
        ],
        &[
            "forms(first: 1, filter: { statuses: [OPEN, CLOSED] }",
            "forms(first: 1, filter: { statuses: [CLOSED, OPEN, CLOSED] }, orderBy: { field: CREATED_AT, direction: DESC }",
        ],
        &[
            "forms(first: 1, filter: { ownerIds: [$A, $B] }",
            "forms(first: 1, filter: { ownerIds: [$B, $a, $A] }",
        ],
        &[
            "latestLocations(first: 1, area: { box: { west: -170, south: -80, east: 170, north: 80 } }",
            "latestLocations(first: 1, area: { box: { north: 80.0, east: 170, south: -80, west: -170 } }, userIds: null",
        ],
        &[
            "activityLogs(first: 1, filter: { actionTypes: [\"session.create\", \"form.publish\"] }",
            "activityLogs(first: 1, filter: { actionTypes: [\"form.publish\", \"session.create\"] }",
        ],
    ];
    for app in TestApp::both().await {
        let (admin, other) = (app.as_admin(), TestApp::account(Role::Admin).to_string());
        let names = |list: &str| {
            let list = list.replace("$A", &format!("{USER:?}")).replace("$a", &format!("{lower:?}"));
            list.replace("$B", &format!("{other:?}"))
        };
        for spellings in same {
            let mut cursor = None;
            for list in spellings.iter().map(|list| names(list)) {
                let (field, _) = list.split_once('(').expect("it has arguments");
                let query = format!("{{ {list}) {{ pageInfo {{ startCursor }} }} }}");
                let data = admin.ask(&query).await;
                let first = data[field]["pageInfo"]["startCursor"].as_str().map(str::to_owned);
                let cursor = cursor.get_or_insert_with(|| first.unwrap_or_else(|| panic!("{list} has rows")));
                let side = if list.contains("last:") { "before" } else { "after" };
                admin.ask(&format!("{{ {list}, {side}: {cursor:?}) {{ totalCount }} }}")).await;
            }
        }
        let sessions = |arguments: &str| {
            format!("{{ me {{ sessions(first: 1{arguments}) {{ pageInfo {{ endCursor }} }} }} }}")
        };
        let data = admin.ask(&sessions("")).await;
        let cursor = text(&data["me"]["sessions"]["pageInfo"]["endCursor"]);
        for arguments in [", activeOnly: false", ", activeOnly: null"] {
            admin.ask(&sessions(&format!("{arguments}, after: {cursor:?}"))).await;
        }
    }
}

/// Lists that have a parent: where they are, the argument that names parents, and a list within.
const OF_PARENTS: [(&str, &str, &str); 4] = [
    ("forms", "formIds", "submissions"),
    ("users", "ownerIds", "forms"),
    ("users", "userIds", "submissions"),
    ("sessions", "sessionIds", "locations"),
];

/// Two parents with something in the list, each with the cursor of its first row.
async fn parents(client: &Client<'_>, (of, list): (&str, &str)) -> Vec<(String, String)> {
    let page = |list: &str| format!("{list}(first: 1) {{ pageInfo {{ endCursor }} }}");
    let query = match of {
        "sessions" => {
            format!(
                "{{ users(first: 50) {{ nodes {{ sessions(first: 5) {{ nodes {{ id {} }} }} }} }} }}",
                page(list)
            )
        }
        of => format!("{{ {of}(first: 50) {{ nodes {{ id {} }} }} }}", page(list)),
    };
    let data = client.ask(&query).await;
    let nodes = |value: &Value| value["nodes"].as_array().expect("nodes").clone();
    let parents = match of {
        "sessions" => nodes(&data["users"]).iter().flat_map(|user| nodes(&user["sessions"])).collect(),
        of => nodes(&data[of]),
    };
    let found = parents.iter().filter_map(|parent| {
        let cursor = parent[list]["pageInfo"]["endCursor"].as_str()?;
        Some((text(&parent["id"]), cursor.to_owned()))
    });
    found.take(2).collect()
}

fn field_of(of: &str) -> &str {
    of.trim_end_matches('s')
}

#[tokio::test]
async fn a_filter_by_the_own_parent_changes_nothing() {
    for app in TestApp::both().await {
        let admin = app.as_admin();
        for (of, argument, list) in OF_PARENTS {
            let [(one, cursor), (other, _)] = &parents(&admin, (of, list)).await[..] else {
                panic!("{of}.{list}")
            };
            for ids in [format!("{one:?}"), format!("[{other:?}, {one:?}]"), "null".to_owned()] {
                let query = format!(
                    "{{ {}(id: {one:?}) {{ {list}(first: 3, filter: {{ {argument}: {ids} }}, after: {cursor:?}) {{ totalCount }} }} }}",
                    field_of(of)
                );
                admin.ask(&query).await;
            }
            let query = format!(
                "{{ {}(id: {one:?}) {{ {list}(first: 3, filter: {{ {argument}: {other:?} }}, after: {cursor:?}) {{ totalCount }} }} }}",
                field_of(of)
            );
            assert_eq!(admin.run(&query, json!({})).await.codes, ["BAD_CURSOR"], "{query}");
        }
    }
}

/// One field with one cursor under several parents: it is of the list of one of them.
#[tokio::test]
async fn a_cursor_of_another_parent_s_list_is_refused() {
    for app in TestApp::both().await {
        let admin = app.as_admin();
        for (of, _, list) in OF_PARENTS {
            let [(one, cursor), (other, _)] = &parents(&admin, (of, list)).await[..] else {
                panic!("{of}.{list}")
            };
            for part in ["nodes { id }", "totalCount", "pageInfo { endCursor }", "__typename"] {
                let query = format!(
                    "query($c: String) {{ own: {field}(id: {one:?}) {{ id {list}(first: 3, after: $c) {{ {part} }} }}
                     foreign: {field}(id: {other:?}) {{ id {list}(first: 3, after: $c) {{ {part} }} }} }}",
                    field = field_of(of)
                );
                let reply = admin.run(&query, json!({ "c": cursor })).await;
                assert_eq!(reply.codes, ["BAD_CURSOR"], "{query}: {}", reply.body);
                assert_eq!(reply.errors[0]["path"], json!(["foreign", list]), "{}", reply.body);
                assert_eq!(reply.data["own"]["id"], json!(one), "{}", reply.body);
            }
        }
        let (of, _, list) = OF_PARENTS[0];
        let [(one, cursor), _] = &parents(&admin, (of, list)).await[..] else { panic!("two forms") };
        let query = format!(
            "query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on Form {{ submissions(first: 1, after: {cursor:?}) {{ totalCount }} }} }} }}"
        );
        let all = parents(&admin, (of, list)).await;
        let ids: Vec<&String> = all.iter().map(|(id, _)| id).collect();
        let reply = admin.run(&query, json!({ "ids": ids })).await;
        assert_eq!(reply.codes, ["BAD_CURSOR"], "{}", reply.body);
        let whole = reply.data["nodes"].as_array().expect("nodes").iter().filter(|node| !node.is_null());
        assert_eq!(whole.count(), 1, "{one}: {}", reply.body);
    }
}
