//! Who sees what: the table of the access rules, looked at from each side. What is hidden looks like what is not
//! there: null or not in the list, never an error, never in a count. Not here: tokens (`src`).

use std::collections::BTreeSet;

use entities::{Role, id::SessionId};
use serde_json::{Value, json};

use crate::{
    corpus,
    harness::{TestApp, text},
};

const ABSENT: &str = "00000000-0000-7000-8000-000000000000";

fn nodes(list: &Value) -> Vec<Value> {
    list["nodes"].as_array().expect("nodes").clone()
}

#[tokio::test]
async fn private_columns_of_others_are_null_but_for_managers() {
    let query = "{ users(first: 100) { totalCount nodes { id displayName email role isActive lastLogin } } }";
    for app in TestApp::both().await {
        let all = app.service().ask(query).await;
        for role in [Role::Admin, Role::Manager] {
            assert_eq!(app.as_role(role).ask(query).await, all, "{role:?} sees all");
        }
        for role in [Role::Editor, Role::Collector, Role::Viewer] {
            let seen = app.as_role(role).ask(query).await;
            let own = TestApp::account(role).to_string();
            assert_eq!(seen["users"]["totalCount"], all["users"]["totalCount"]);
            for (seen, whole) in nodes(&seen["users"]).iter().zip(nodes(&all["users"])) {
                if seen["id"] == *own {
                    assert_eq!(*seen, whole, "{role:?}: the own account is open");
                } else {
                    let mut hidden = whole;
                    for column in ["email", "role", "isActive", "lastLogin"] {
                        hidden[column] = Value::Null;
                    }
                    assert_eq!(*seen, hidden, "{role:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_email_lookup_respects_visibility() {
    let by_email = "query($email: String!, $r: [_Any!]!) {
        userBy(lookup: { email: $email }) { id } _entities(representations: $r) { ... on User { id } } }";
    for app in TestApp::both().await {
        let admin = TestApp::account(Role::Admin).to_string();
        for (role, found) in
            [(Role::Admin, true), (Role::Manager, true), (Role::Editor, false), (Role::Viewer, false)]
        {
            let r = json!([{"__typename": "User", "email": "admin@example.com"}]);
            let variables = json!({"email": "admin@example.com", "r": r});
            let data = app.as_role(role).run(by_email, variables).await.expect_data("by email");
            let wanted = if found { json!({"id": admin}) } else { Value::Null };
            assert_eq!((&data["userBy"], &data["_entities"][0]), (&wanted, &wanted), "{role:?}");
        }
        let r = json!([{"__typename": "User", "email": "viewer@example.com"}]);
        let own = json!({"email": "Viewer@Example.com", "r": r});
        let data = app.as_role(Role::Viewer).run(by_email, own).await.expect_data("own");
        assert_eq!(data["userBy"]["id"], data["_entities"][0]["id"]);
        assert_eq!(data["userBy"]["id"], TestApp::account(Role::Viewer).to_string());
        // Nor by searching: parts of an address find only those who may be found by them.
        let search = "{ users(filter: { search: \"@example.com\" }) { totalCount } }";
        let found = |data: Value| data["users"]["totalCount"].as_u64().expect("a count");
        assert!(found(app.as_admin().ask(search).await) >= 5);
        assert_eq!(found(app.as_role(Role::Collector).ask(search).await), 0);
    }
}

#[tokio::test]
async fn sessions_and_activity_of_others_are_for_administrators() {
    let query = "{ users(first: 100) { nodes {
        id sessions(first: 1) { totalCount nodes { id } } activity(first: 1) { totalCount nodes { id } } } }
        activityLogs(first: 100) { totalCount nodes { user { id } } } }";
    for app in TestApp::both().await {
        let all = app.service().ask(query).await;
        assert_eq!(app.as_admin().ask(query).await, all);
        for role in [Role::Manager, Role::Editor, Role::Collector, Role::Viewer] {
            let seen = app.as_role(role).ask(query).await;
            let own = TestApp::account(role).to_string();
            for (seen, whole) in nodes(&seen["users"]).iter().zip(nodes(&all["users"])) {
                if seen["id"] == *own {
                    assert_eq!(*seen, whole, "{role:?}");
                } else {
                    let empty = json!({"totalCount": 0, "nodes": []});
                    assert_eq!((&seen["sessions"], &seen["activity"]), (&empty, &empty), "{role:?}");
                }
            }
            let log = &seen["activityLogs"];
            assert!(nodes(log).iter().all(|entry| entry["user"]["id"] == *own), "{role:?}");
            assert_eq!(log["totalCount"], nodes(log).len(), "{role:?}: the count tells no more");
        }
    }
}

/// What the demo account of a role has handed in: form, number and id of each version.
async fn filled_in(app: &TestApp, role: Role) -> Vec<(String, i64, String)> {
    let query = "{ me { submissions(first: 100) { nodes { formVersion form { id } version { id } } } } }";
    let data = app.as_role(role).ask(query).await;
    let submissions = nodes(&data["me"]["submissions"]).into_iter();
    let version = |it: Value| {
        let number = it["formVersion"].as_i64().expect("a number");
        (text(&it["form"]["id"]), number, text(&it["version"]["id"]))
    };
    submissions.map(version).collect()
}

#[tokio::test]
async fn forms_are_open_or_ones_own() {
    let query = "{ forms(first: 100) { totalCount nodes {
        id status draft owner { id } currentVersion { number } versions { totalCount nodes { number } } } } }";
    for app in TestApp::both_own().await {
        let editor = "(select id from users where email = 'editor@example.com')";
        app.sql(&format!("update forms set owner_id = {editor} where status in ('DRAFT', 'ARCHIVED')")).await;
        let all = app.service().ask(query).await;
        assert!(nodes(&all["forms"]).iter().any(|form| !form["draft"].is_null()));
        for role in [Role::Admin, Role::Manager] {
            assert_eq!(app.as_role(role).ask(query).await, all, "{role:?}");
        }
        for role in [Role::Editor, Role::Collector, Role::Viewer] {
            let own = TestApp::account(role).to_string();
            let edits = |form: &Value| role == Role::Editor && form["owner"]["id"] == *own;
            let seen = app.as_role(role).ask(query).await;
            let filled_in = filled_in(&app, role).await;
            let expected: Vec<Value> = nodes(&all["forms"])
                .into_iter()
                .filter(|form| form["status"] == "OPEN" || edits(form))
                .map(|mut form| {
                    if !edits(&form) {
                        form["draft"] = Value::Null;
                        let current = form["currentVersion"].clone();
                        let mut versions = nodes(&form["versions"]);
                        let form_id = text(&form["id"]);
                        versions.retain(|version| {
                            let number = version["number"].as_i64();
                            *version == current
                                || filled_in.iter().any(|(of, n, _)| (of, Some(*n)) == (&form_id, number))
                        });
                        form["versions"] = json!({"totalCount": versions.len(), "nodes": versions});
                    }
                    form
                })
                .collect();
            assert_eq!(nodes(&seen["forms"]), expected, "{role:?}");
            assert_eq!(seen["forms"]["totalCount"], expected.len(), "{role:?}: the count tells no more");
        }
        let seen = app.as_role(Role::Editor).ask(query).await;
        let own = nodes(&seen["forms"]).iter().filter(|form| form["status"] != "OPEN").count();
        assert!(own > 0, "the editor sees own forms that are not open");
    }
}

#[tokio::test]
async fn submissions_are_of_own_forms_or_ones_own() {
    let query = "{ forms(first: 100) { nodes { id owner { id } submissionCount
        submissions(first: 100) { totalCount nodes { id user { id } } } } } }";
    for app in TestApp::both().await {
        let all = app.service().ask(query).await;
        for role in [Role::Editor, Role::Collector, Role::Viewer] {
            let own = TestApp::account(role).to_string();
            let seen = app.as_role(role).ask(query).await;
            for form in nodes(&seen["forms"]) {
                let whole =
                    nodes(&all["forms"]).into_iter().find(|whole| whole["id"] == form["id"]).expect("it");
                let all_of_it = role == Role::Editor && form["owner"]["id"] == *own;
                let mut wanted = nodes(&whole["submissions"]);
                wanted.retain(|submission| all_of_it || submission["user"]["id"] == *own);
                assert_eq!(nodes(&form["submissions"]), wanted, "{role:?}");
                // Counts of more than one page of the whole are checked by the page-through.
                if wanted.len() < 100 {
                    assert_eq!(form["submissionCount"], wanted.len(), "{role:?}");
                    assert_eq!(form["submissions"]["totalCount"], wanted.len(), "{role:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn positions_of_others_are_for_managers() {
    let query = "{ latestLocations(first: 100) { totalCount nodes { id user { id } session { id } } }
        users(first: 100) { nodes { id lastLocation { id } locations(first: 2) { totalCount nodes { id } }
            track(range: {}, maxPoints: 2) { id } } } }";
    for app in TestApp::both().await {
        let all = app.service().ask(query).await;
        assert_eq!(app.as_admin().ask(query).await, all);
        let managed = app.as_role(Role::Manager).ask(query).await;
        assert_eq!(managed["users"], all["users"]);
        let others = nodes(&managed["latestLocations"]);
        let mine = TestApp::account(Role::Manager).to_string();
        assert!(
            others.iter().all(|location| location["user"]["id"] == *mine || location["session"].is_null())
        );
        for role in [Role::Editor, Role::Collector, Role::Viewer] {
            let own = TestApp::account(role).to_string();
            let seen = app.as_role(role).ask(query).await;
            assert!(nodes(&seen["latestLocations"]).iter().all(|location| location["user"]["id"] == *own));
            assert_eq!(seen["latestLocations"]["totalCount"], nodes(&seen["latestLocations"]).len());
            for (seen, whole) in nodes(&seen["users"]).iter().zip(nodes(&all["users"])) {
                if seen["id"] == *own {
                    assert_eq!(*seen, whole, "{role:?}");
                } else {
                    let none = json!({"totalCount": 0, "nodes": []});
                    let hidden =
                        json!({"id": seen["id"], "lastLocation": null, "locations": none, "track": []});
                    assert_eq!(*seen, hidden, "{role:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn anonymous_callers_see_nothing() {
    for app in TestApp::both().await {
        let variables = corpus::variables(&app).await;
        let client = app.anonymous();
        let mut refused = BTreeSet::new();
        for (name, operation) in corpus::operations() {
            // A cursor that was given to somebody else tells by itself that there is a row before it.
            if ["Service", "Introspection"].contains(&name) || operation.contains("Cursor") {
                continue;
            }
            let reply = client.run(operation, variables.clone()).await;
            assert!(reply.executed, "{name}: {}", reply.body);
            if reply.errors.is_empty() {
                assert!(is_empty(&reply.data), "{name}: {}", reply.body);
            } else {
                assert!(reply.codes.iter().all(|code| code == "FORBIDDEN"), "{name}: {}", reply.body);
                assert!(reply.data.is_null(), "{name}: {}", reply.body);
                refused.insert(name);
            }
        }
        assert!(refused.len() < 10, "{refused:?}");
    }
}

/// Nothing but nulls, zeros, falsehoods, empty lists and names of types.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.ends_with("Connection") || text == "PageInfo",
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

/// By `node`, by its own field and by `_entities`, hidden and absent are the same bytes.
#[tokio::test]
async fn hidden_and_missing_objects_look_alike() {
    let everything = "{
        users(first: 100) { nodes { id sessions(first: 2) { nodes { id } } } }
        forms(first: 100) { nodes { id status owner { id } versions { nodes { id } } submissions(first: 2) { nodes { id user { id } } } } }
        activityLogs(first: 100) { nodes { id user { id } } } latestLocations(first: 100) { nodes { id user { id } } } }";
    let query = "query($id: ID!, $ids: [ID!]!, $r: [_Any!]!) { node(id: $id) { id } nodes(ids: $ids) { id }
        session(id: $id) { id } form(id: $id) { id } submission(id: $id) { id } _entities(representations: $r) { __typename } }";
    for app in TestApp::both().await {
        let own = TestApp::account(Role::Collector).to_string();
        let data = app.service().ask(everything).await;
        let mut hidden = Vec::new();
        for user in nodes(&data["users"]).iter().filter(|user| user["id"] != *own) {
            hidden.extend(nodes(&user["sessions"]).iter().map(|session| ("Session", text(&session["id"]))));
        }
        for form in nodes(&data["forms"]) {
            if form["status"] != "OPEN" {
                hidden.push(("Form", text(&form["id"])));
                hidden.extend(
                    nodes(&form["versions"]).iter().map(|version| ("FormVersion", text(&version["id"]))),
                );
            }
            // Of an open form, all versions but the current one.
            let old = nodes(&form["versions"]);
            hidden.extend(old.iter().skip(1).map(|version| ("FormVersion", text(&version["id"]))));
            let others = nodes(&form["submissions"]).into_iter().filter(|it| it["user"]["id"] != *own);
            hidden.extend(others.map(|submission| ("Submission", text(&submission["id"]))));
        }
        for (list, name) in [("activityLogs", "ActivityLog"), ("latestLocations", "Location")] {
            let others = nodes(&data[list]).into_iter().filter(|row| row["user"]["id"] != *own);
            hidden.extend(others.take(20).map(|row| (name, text(&row["id"]))));
        }
        // What was filled in is seen by who did it.
        let filled_in = filled_in(&app, Role::Collector).await;
        hidden.retain(|(_, id)| filled_in.iter().all(|(.., version)| version != id));
        let kinds: BTreeSet<_> = hidden.iter().map(|(name, _)| *name).collect();
        assert_eq!(kinds.len(), 6, "{kinds:?}");
        let client = app.as_role(Role::Collector);
        for (name, id) in hidden {
            let ask = |id: &str| json!({"id": id, "ids": [id], "r": [{"__typename": name, "id": id}]});
            let seen = client.run(query, ask(&id)).await;
            let absent = client.run(query, ask(ABSENT)).await;
            assert_eq!(seen.body, absent.body, "{name} {id}");
            assert!(seen.errors.is_empty(), "{}", seen.body);
        }
    }
}

#[tokio::test]
async fn the_session_that_asks_is_the_current_one() {
    let query = "{ currentSession { id isCurrent user { id } } me { sessions { nodes { id isCurrent } } } }";
    for app in TestApp::both().await {
        let (account, role) = (TestApp::account(Role::Admin), Role::Admin);
        let sessions = app.as_admin().ask("{ me { sessions { nodes { id } } } }").await;
        let id = text(&sessions["me"]["sessions"]["nodes"][1]["id"]);
        let session = SessionId::parse(&id).expect("an id");
        let data = app.in_session(account, role, session).ask(query).await;
        assert_eq!(
            data["currentSession"],
            json!({"id": id, "isCurrent": true, "user": {"id": account.to_string()}})
        );
        for session in nodes(&data["me"]["sessions"]) {
            assert_eq!(session["isCurrent"], session["id"] == *id);
        }
        let data = app.as_admin().ask(query).await;
        assert!(data["currentSession"].is_null());
        // A stranger's session does not become visible by being said to be the current one.
        let data = app
            .in_session(TestApp::account(Role::Viewer), Role::Viewer, session)
            .ask("{ currentSession { id } }")
            .await;
        assert!(data["currentSession"].is_null());
    }
}

/// Orders and filters on hidden columns would tell them.
#[tokio::test]
async fn hidden_columns_neither_sort_nor_filter() {
    for app in TestApp::both().await {
        for arguments in [
            "orderBy: { field: EMAIL, direction: ASC }",
            "orderBy: { field: LAST_LOGIN, direction: DESC }",
            "filter: { roles: [ADMIN] }",
            "filter: { isActive: true }",
            "filter: { lastLogin: { from: \"2026-01-01T00:00:00Z\" } }",
        ] {
            let query = format!("{{ users({arguments}) {{ totalCount }} }}");
            app.as_role(Role::Manager).ask(&query).await;
            for role in [Role::Editor, Role::Collector, Role::Viewer] {
                let reply = app.as_role(role).run(&query, json!({})).await;
                assert_eq!(reply.codes, ["FORBIDDEN"], "{role:?}: {query}");
                assert!(reply.data.is_null());
            }
        }
    }
}

/// A submission stays visible to its sender when its form closes.
#[tokio::test]
async fn own_submissions_to_closed_forms_are_listed() {
    let query = "{ me { submissions(first: 100) { totalCount nodes { id formVersion } } } }";
    for app in TestApp::both_own().await {
        let before = app.as_role(Role::Collector).ask(query).await;
        app.sql("update forms set status = 'CLOSED'").await;
        let after = app.as_role(Role::Collector).ask(query).await;
        assert_eq!(before, after);
        assert!(before["me"]["submissions"]["totalCount"].as_u64() > Some(0));
    }
}

/// Who sees a submission sees its form and the version that was filled in, but nothing more: neither the
/// form's draft nor its other versions nor what others have answered. By any other way the form is as hidden
/// as before.
#[tokio::test]
async fn a_submitter_reads_the_closed_form_of_their_submission() {
    let query = "{ me { id submissions(first: 100) { nodes { id form { id title status draft
        currentVersion { id } versions { totalCount nodes { id } } submissions(first: 100) { nodes { user { id } } } } } } } }";
    for app in TestApp::both_own().await {
        app.sql("update forms set status = 'CLOSED', draft = '{}'").await;
        let collector = app.as_role(Role::Collector);
        let data = collector.ask(query).await;
        let submissions = nodes(&data["me"]["submissions"]);
        assert!(!submissions.is_empty());
        let filled_in = filled_in(&app, Role::Collector).await;
        for submission in submissions {
            let form = &submission["form"];
            assert_eq!(form["status"], "CLOSED");
            assert!(form["title"].is_string());
            assert!(form["draft"].is_null(), "{form}");
            let own: BTreeSet<String> = filled_in
                .iter()
                .filter(|(of, ..)| form["id"] == **of)
                .map(|(.., version)| version.clone())
                .collect();
            let seen =
                nodes(&form["versions"]).iter().map(|version| text(&version["id"])).collect::<BTreeSet<_>>();
            assert_eq!((&seen, &form["versions"]["totalCount"]), (&own, &json!(own.len())));
            let current = form["currentVersion"]["id"].as_str();
            assert!(current.is_none_or(|current| own.contains(current)), "{form}");
            assert!(nodes(&form["submissions"]).iter().all(|other| other["user"]["id"] == data["me"]["id"]));
            let hidden = "query($id: ID!) { form(id: $id) { id } node(id: $id) { id } forms { totalCount } }";
            let data = collector.run(hidden, json!({"id": form["id"]})).await.expect_data("hidden");
            assert_eq!(data, json!({"form": null, "node": null, "forms": {"totalCount": 0}}));
        }
    }
}
