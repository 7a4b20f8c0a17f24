//! How many SQL statements a request takes: levels times edges, whatever the breadth.

use entities::NodeKind;
use serde_json::{Value, json};

use crate::{
    corpus,
    harness::{Reply, TestApp, text},
};

const W2: &str = "query($users: Int!) { users(first: $users) { nodes {
    id displayName
    sessions(first: 5) { nodes { id ipAddress userAgent isActive createdAt lastActivity } }
    forms(first: 3) { nodes { id title status submissionCount } }
} pageInfo { hasNextPage endCursor } } }";

const W3: &str = "query($representations: [_Any!]!) { _entities(representations: $representations) {
    ... on User { id displayName lastLocation { id timestamp latitude longitude accuracy } }
} }";

const W4: &str = "query($forms: Int!) { forms(first: $forms) { nodes {
    id title status
    submissions(first: 10) { nodes { id createdAt user { id displayName lastLocation { timestamp latitude } } } }
} pageInfo { hasNextPage endCursor } } }";

/// Asks as the administrator and checks the names of the statements, in any order.
async fn check(app: &TestApp, query: &str, variables: Value, wanted: &[&str]) -> Reply {
    let reply = app.as_admin().run(query, variables).await;
    assert!(reply.errors.is_empty(), "{}", reply.body);
    let (mut names, mut wanted) = (reply.statements(), wanted.to_vec());
    names.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(names, wanted, "on {}: {query}", if app.is_postgres() { "PostgreSQL" } else { "SQLite" });
    reply
}

fn users(ids: impl Iterator<Item = String>) -> Value {
    let users: Vec<Value> = ids.map(|id| json!({"__typename": "User", "id": id})).collect();
    json!({ "representations": users })
}

#[tokio::test]
async fn users_with_sessions_and_forms_take_four_statements_at_any_breadth() {
    for app in TestApp::both().await {
        let wanted = ["user.page", "session.pages_of_users", "form.pages_of_owners", "submission.counts_of"];
        // One user of many forms, so that every level is reached.
        let one = W2.replace("first: $users", "first: $users, filter: { search: \"Ada\" }");
        check(&app, &one, json!({"users": 1}), &wanted).await;
        for users in [5, 50, 100] {
            check(&app, W2, json!({"users": users}), &wanted).await;
        }
    }
}

#[tokio::test]
async fn each_total_count_adds_one_statement() {
    let counted = W2.replace("nodes {", "totalCount nodes {");
    for app in TestApp::both().await {
        let wanted = [
            "user.page",
            "user.count",
            "session.pages_of_users",
            "session.counts_of_users",
            "form.pages_of_owners",
            "form.counts_of_owners",
            "submission.counts_of",
        ];
        check(&app, &counted, json!({"users": 50}), &wanted).await;
        check(&app, "{ users { totalCount } }", json!({}), &["user.count"]).await;
    }
}

#[tokio::test]
async fn entities_take_one_statement_for_each_type_and_edge() {
    for app in TestApp::both().await {
        let known = app.as_admin().ask("{ users(first: 100) { nodes { id } } }").await;
        let known: Vec<String> =
            known["users"]["nodes"].as_array().expect("nodes").iter().map(|user| text(&user["id"])).collect();
        let absent = (0..).map(|number| format!("00000000-0000-7000-8000-{number:012x}"));
        let wanted = ["user.by_ids", "location.last_of_users"];
        let hundred = users(known.iter().cloned().chain(absent.clone()).take(100));
        let reply = check(&app, W3, hundred, &wanted).await;
        assert_eq!(reply.data["_entities"].as_array().expect("entities").len(), 100);
        let thousand = users(known.iter().cloned().chain(absent).take(1_000));
        let reply = check(&app, W3, thousand, &wanted).await;
        let entities = reply.data["_entities"].as_array().expect("entities");
        assert_eq!(entities.len(), 1_000);
        assert!(entities.iter().zip(&known).all(|(user, id)| user["id"] == **id), "in order");
        assert!(entities[known.len()..].iter().all(Value::is_null), "absent ones are null in their places");
        // The same key many times is loaded once.
        let same = users(std::iter::repeat_n(known[0].clone(), 1_000));
        let reply = check(&app, W3, same, &wanted).await;
        assert!(
            reply.data["_entities"].as_array().expect("entities").iter().all(|user| user["id"] == known[0])
        );
    }
}

#[tokio::test]
async fn entities_take_one_statement_per_key() {
    let representations = json!({"representations": [
        {"__typename": "User", "email": "admin@example.com"},
        {"__typename": "User", "id": "01890000-0000-7000-8000-000000000002"},
        {"__typename": "User", "email": "editor@example.com"},
        {"__typename": "User", "id": "01890000-0000-7000-8000-000000000003"},
    ]});
    let query = "query($representations: [_Any!]!) { _entities(representations: $representations) {
        ... on User { displayName } } }";
    for app in TestApp::both().await {
        let reply = app.as_admin().run(query, representations.clone()).await;
        let names = [("Ada Admin"), ("Minh Manager"), ("Emma Editor"), ("Emma Editor")];
        let wanted: Vec<Value> = names.map(|name| json!({"displayName": name})).to_vec();
        assert_eq!(reply.data["_entities"], json!(wanted), "{}", reply.body);
        let (names, most) = (reply.statements(), ["user.by_emails", "user.by_ids"]);
        assert!(names.iter().all(|name| most.contains(name)) && names.len() <= 2, "{names:?}");
    }
}

#[tokio::test]
async fn versions_of_submissions_take_one_statement() {
    let query = "query($forms: Int!) { forms(first: $forms) { nodes { versionByNumber(number: 1) { hash }
        submissions(first: 10) { nodes { version { number form { title } } } } } } }";
    for app in TestApp::both().await {
        let wanted = [
            "form.page",
            "form_version.by_numbers",
            "submission.pages_of",
            "form_version.by_numbers",
            "form.by_ids",
        ];
        for forms in [20, 50] {
            let reply = check(&app, query, json!({ "forms": forms }), &wanted).await;
            let forms = reply.data["forms"]["nodes"].as_array().expect("nodes").iter();
            let submissions = forms.flat_map(|form| form["submissions"]["nodes"].as_array().expect("nodes"));
            assert!(submissions.count() > 20);
        }
    }
}

#[tokio::test]
async fn forms_with_submissions_and_senders_take_four_statements() {
    for app in TestApp::both().await {
        let wanted = ["form.page", "submission.pages_of", "user.by_ids", "location.last_of_users"];
        for forms in [3, 20, 100] {
            check(&app, W4, json!({"forms": forms}), &wanted).await;
        }
    }
}

#[tokio::test]
async fn equal_aliased_pages_share_one_statement() {
    let query = "{ users(first: 5) { nodes {
        a: sessions(first: 2) { nodes { id } } b: sessions(first: 2) { nodes { userAgent } } c: sessions(first: 3) { nodes { id } }
    } } }";
    for app in TestApp::both().await {
        let wanted = ["user.page", "session.pages_of_users", "session.pages_of_users"];
        check(&app, query, json!({}), &wanted).await;
    }
}

#[tokio::test]
async fn unselected_fields_are_not_loaded() {
    for app in TestApp::both().await {
        check(&app, "{ __typename }", json!({}), &[]).await;
        check(&app, "{ _service { sdl } __schema { types { name } } }", json!({}), &[]).await;
        check(&app, "{ users @skip(if: true) { nodes { id } } me { id } }", json!({}), &["user.by_ids"])
            .await;
        let skipped = "{ me { id sessions @include(if: false) { totalCount } } }";
        check(&app, skipped, json!({}), &["user.by_ids"]).await;
        let reply = app.anonymous().run("{ me { id } currentSession { id } }", json!({})).await;
        assert_eq!(reply.statements(), Vec::<&str>::new(), "nobody is looked up for nobody");
    }
}

#[tokio::test]
async fn corpus_operations_take_one_statement_per_edge_at_most() {
    for app in TestApp::both().await {
        let variables = corpus::variables(&app).await;
        for (name, operation) in corpus::operations() {
            let reply = app.as_admin().run(operation, variables.clone()).await;
            // Fields that load: everything with a selection, counts, and the documents; `node` probes first, and
            // an edge to any type may read each type.
            let loads = operation.matches(['{', ':']).count()
                + operation.matches("totalCount").count()
                + operation.matches("submissionCount").count()
                + ["draft", "definition", "jsonSchema"]
                    .iter()
                    .filter(|name| operation.contains(**name))
                    .count();
            let is_any = operation.contains("subject") || operation.contains("odes(ids");
            let most = if is_any { loads + 2 + NodeKind::ALL.len() } else { loads };
            assert!(reply.sql.len() <= most, "{name}: {:?}", reply.statements());
        }
    }
}
