//! When a part of the database fails: only the fields that need it fail, each by itself, with a masked error; a
//! field that may not be null takes its parent along as the specification has it (October 2021, §6.4.4). Tables are
//! renamed under a graph with a database of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::harness::{Reply, TestApp};

/// The answer while a table is away.
async fn without(app: &TestApp, table: &str, query: &str) -> Reply {
    // A name of its own each time: SQLite's other connections may still know the last one.
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let away = format!("away_{}", TIMES.fetch_add(1, Ordering::Relaxed));
    app.sql(&format!("alter table {table} rename to {away}")).await;
    let reply = app.as_admin().run(query, json!({})).await;
    app.sql(&format!("alter table {away} rename to {table}")).await;
    for error in &reply.errors {
        assert_eq!(error["extensions"]["code"], "INTERNAL_SERVER_ERROR", "{}", reply.body);
        assert_eq!(error["message"], "Internal server error", "{}", reply.body);
        assert!(error["path"].is_array() && error["locations"][0]["line"].is_u64(), "{}", reply.body);
    }
    for secret in [table, "away", "relation", "no such", "SELECT", "sqlite", "postgres"] {
        let told =
            reply.errors.iter().any(|error| error["message"].as_str().is_some_and(|it| it.contains(secret)));
        assert!(!told, "{secret}: {}", reply.body);
    }
    reply
}

fn paths(reply: &Reply) -> Vec<Value> {
    reply.errors.iter().map(|error| error["path"].clone()).collect()
}

#[tokio::test]
async fn a_failing_nullable_edge_is_null_alone() {
    let query = "{ users(first: 3) { totalCount nodes { id lastLocation { id } sessions { totalCount } } } me { id } }";
    for app in TestApp::both_own().await {
        let whole = app.as_admin().ask(query).await;
        let reply = without(&app, "user_last_locations", query).await;
        let mut wanted = whole.clone();
        for user in wanted["users"]["nodes"].as_array_mut().expect("nodes") {
            user["lastLocation"] = Value::Null;
        }
        assert_eq!(reply.data, wanted, "{}", reply.body);
        let places = (0..3).map(|index| json!(["users", "nodes", index, "lastLocation"]));
        assert_eq!(paths(&reply), places.collect::<Vec<_>>());
        assert_eq!(app.as_admin().ask(query).await, whole, "it is back as soon as the table is");
    }
}

#[tokio::test]
async fn a_failing_required_edge_takes_its_nearest_nullable_parent() {
    // `User.sessions` is not nullable: `me` is null, what stands beside it is not.
    let query = "{ me { id displayName sessions { totalCount } } users(first: 2) { nodes { id } } }";
    for app in TestApp::both_own().await {
        let whole = app.as_admin().ask(query).await;
        let reply = without(&app, "user_sessions", query).await;
        assert_eq!(reply.data, json!({"me": null, "users": whole["users"]}));
        assert_eq!(paths(&reply), [json!(["me", "sessions"])]);
        // `edges`, `nodes` and their items are not nullable either: the whole answer goes.
        let all = "{ me { id } users(first: 2) { nodes { id sessions { nodes { id } } } } }";
        let reply = without(&app, "user_sessions", all).await;
        assert!(reply.executed && reply.data.is_null(), "{}", reply.body);
        assert_eq!(paths(&reply)[0], json!(["users", "nodes", 0, "sessions"]));
        assert_eq!(reply.errors.len(), 1, "one failure nulls the answer: the others have nowhere to stand");
    }
}

#[tokio::test]
async fn a_failing_count_and_a_failing_document_fail_alone() {
    for app in TestApp::both_own().await {
        let query = "{ me { id } form: nodes(ids: []) { id } forms(first: 1) { nodes { id } } }";
        app.as_admin().ask(query).await;
        let id = app.as_admin().ask("{ forms(first: 1) { nodes { id } } }").await["forms"]["nodes"][0]["id"]
            .clone();
        let counted = format!("{{ form(id: {id}) {{ id submissionCount }} me {{ id }} }}");
        let reply = without(&app, "form_submissions", &counted).await;
        assert!(reply.data["form"].is_null() && reply.data["me"]["id"].is_string(), "{}", reply.body);
        assert_eq!(paths(&reply), [json!(["form", "submissionCount"])]);
        let versions = format!("{{ form(id: {id}) {{ id draft currentVersion {{ hash }} }} }}");
        let reply = without(&app, "form_versions", &versions).await;
        assert_eq!(reply.data["form"]["id"], id, "{}", reply.body);
        assert!(reply.data["form"]["currentVersion"].is_null());
        assert_eq!(paths(&reply), [json!(["form", "currentVersion"])]);
    }
}

#[tokio::test]
async fn entities_and_nodes_of_one_failing_type_leave_the_others() {
    let user = "01890000-0000-7000-8000-000000000001";
    for app in TestApp::both_own().await {
        let form = app.as_admin().ask("{ forms(first: 1) { nodes { id } } }").await;
        let form = form["forms"]["nodes"][0]["id"].as_str().expect("a form").to_owned();
        let query = format!(
            "{{ _entities(representations: [{{ __typename: \"User\", id: \"{user}\" }}, {{ __typename: \"Form\", id: \"{form}\" }}]) {{
                __typename ... on User {{ id }} ... on Form {{ id }} }} }}"
        );
        let reply = without(&app, "forms", &query).await;
        assert_eq!(
            reply.data["_entities"],
            json!([{"__typename": "User", "id": user}, null]),
            "{}",
            reply.body
        );
        assert_eq!(paths(&reply), [json!(["_entities", 1])]);
        // The probe of ids reads every table.
        let reply =
            without(&app, "forms", &format!("{{ nodes(ids: [\"{user}\"]) {{ id }} me {{ id }} }}")).await;
        assert_eq!(reply.data["nodes"], json!([null]), "{}", reply.body);
        assert!(reply.data["me"]["id"].is_string());
    }
}

#[tokio::test]
async fn a_missing_table_fails_only_its_root_list() {
    for app in TestApp::both_own().await {
        let reply = without(&app, "users", "{ users { totalCount nodes { id } } }").await;
        assert!(reply.executed && reply.data.is_null(), "{}", reply.body);
        assert!(reply.body.starts_with("{\"data\":null,"), "{}", reply.body);
        app.as_admin().ask("{ users { totalCount nodes { id } } }").await;
        // Schema and types need no database.
        let reply = without(&app, "users", "{ __schema { queryType { name } } __typename me { id } }").await;
        assert_eq!(reply.data["__typename"], "Query");
        assert_eq!(reply.data["__schema"]["queryType"]["name"], "Query");
        assert!(reply.data["me"].is_null() && reply.errors.len() == 1, "{}", reply.body);
    }
}
