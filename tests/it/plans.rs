//! How the databases read the lists of the graph: the statements that really ran, explained. Each connection walks
//! the index made for it, in its order, without a sort; a filter on time reads the months that it names. Sequential
//! scans are off, since on so few rows they would win. Not here: plans at size (the load runs).

use entities::Role;
use schema::Viewer;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement as Sql, TransactionTrait as _};
use serde_json::{Value, json};

use crate::{
    corpus,
    harness::{Statement, TestApp},
};

/// What is asked, the statement's name, and the index that has to serve it: on PostgreSQL (partitions have theirs
/// under names of their own) and on SQLite.
const LISTS: [(&str, &str, &str, &str); 18] = [
    ("{ users { nodes { id } } }", "user.page", "users_created", "users_created"),
    (
        "{ users(orderBy: { field: DISPLAY_NAME, direction: ASC }) { nodes { id } } }",
        "user.page",
        "users_display_name",
        "users_display_name",
    ),
    (
        "{ users(orderBy: { field: EMAIL, direction: DESC }) { nodes { id } } }",
        "user.page",
        "users_email_id",
        "users_email",
    ),
    (
        "{ users(orderBy: { field: LAST_LOGIN, direction: DESC }) { nodes { id } } }",
        "user.page",
        "users_last_login",
        "users_last_login",
    ),
    ("{ forms { nodes { id } } }", "form.page", "forms_created", "forms_created"),
    (
        "{ forms(orderBy: { field: UPDATED_AT, direction: DESC }) { nodes { id } } }",
        "form.page",
        "forms_updated",
        "forms_updated",
    ),
    (
        "{ forms(orderBy: { field: TITLE, direction: ASC }) { nodes { id } } }",
        "form.page",
        "forms_title",
        "forms_title",
    ),
    (
        "{ latestLocations { nodes { id } } }",
        "location.latest",
        "user_last_locations_newest",
        "user_last_locations_newest",
    ),
    (
        "{ activityLogs { nodes { id } } }",
        "activity.page",
        "_created_at_id_idx",
        "user_activity_logs_created",
    ),
    (
        "{ me { sessions { nodes { id } } } }",
        "session.pages_of_users",
        "user_sessions_of_user",
        "user_sessions_of_user",
    ),
    ("{ me { forms { nodes { id } } } }", "form.pages_of_owners", "forms_of_owner", "forms_of_owner"),
    (
        "{ me { submissions { nodes { id } } } }",
        "submission.pages_of",
        "form_submissions_of_user",
        "form_submissions_of_user",
    ),
    (
        "{ me { locations { nodes { id } } } }",
        "location.pages_of",
        "_user_id_timestamp_id_idx",
        "user_locations_of_user",
    ),
    (
        "{ me { track(range: {}) { id } } }",
        "location.tracks",
        "_user_id_timestamp_id_idx",
        "user_locations_of_user",
    ),
    (
        "{ me { activity { nodes { id } } } }",
        "activity.pages_of_users",
        "_user_id_created_at_id_idx",
        "user_activity_logs_of_user",
    ),
    (
        "{ users { nodes { sessions { nodes { locations { nodes { id } } } } } } }",
        "location.pages_of",
        "_session_id_timestamp_id_idx",
        "user_locations_of_session",
    ),
    (
        "{ forms { nodes { versions { nodes { id } } } } }",
        "form_version.pages_of_forms",
        "form_versions_of_form",
        "form_versions_of_form",
    ),
    (
        "{ forms { nodes { submissions { nodes { id } } } } }",
        "submission.pages_of",
        "form_submissions_of_form",
        "form_submissions_of_form",
    ),
];

/// The statement of this name that the query runs.
async fn ran(app: &TestApp, query: &str, variables: Value, name: &str) -> String {
    let reply = app.as_admin().run(query, variables).await;
    assert!(reply.errors.is_empty(), "{query}: {}", reply.body);
    let found = reply.sql.iter().find(|statement| statement.name == name);
    found.unwrap_or_else(|| panic!("{query}: {:?}", reply.statements())).text.clone()
}

async fn lines(db: &impl ConnectionTrait, sql: &str, column: usize) -> String {
    let statement = Sql::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let lines: Vec<String> = rows.iter().map(|row| row.try_get_by_index(column).expect("text")).collect();
    lines.join("\n")
}

/// The plan of a statement with placeholders. Without values it is the one for any values.
async fn plan(db: &DatabaseTransaction, sql: &str, values: Option<&str>) -> String {
    if db.get_database_backend() != DbBackend::Postgres {
        return lines(db, &format!("explain query plan {sql}"), 3).await;
    }
    let sql = sql.replace("unnest($1)", "unnest($1::uuid[])");
    let count = (1..100).take_while(|number| sql.contains(&format!("${number}"))).count();
    let any = vec!["null"; count].join(", ");
    let mode = if values.is_some() { "force_custom_plan" } else { "force_generic_plan" };
    let run =
        async |sql: &str| db.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    run(&format!("set local plan_cache_mode = {mode}")).await;
    run(&format!("prepare it as {sql}")).await;
    let values = values.unwrap_or(&any);
    let values = if count == 0 { String::new() } else { format!("({values})") };
    let plan = lines(db, &format!("explain (costs off) execute it{values}"), 0).await;
    run("deallocate it").await;
    plan
}

/// Does it read a whole table? On SQLite a table has the name `t`, and so has the relation of numbered rows.
fn scans(plan: &str) -> bool {
    let numbered = plan.lines().any(|line| line == "CO-ROUTINE t");
    plan.contains("Seq Scan") || (!numbered && plan.lines().any(|line| line == "SCAN t"))
}

async fn begin(app: &TestApp) -> DatabaseTransaction {
    let db = app.store.connection().begin().await.expect("a transaction begins");
    if app.is_postgres() {
        let only_indexes = "set local enable_seqscan = off; set local enable_bitmapscan = off";
        db.execute_unprepared(only_indexes).await.expect("settings");
    }
    db
}

#[tokio::test]
async fn every_list_walks_its_index_without_a_sort() {
    for app in TestApp::both().await {
        let db = begin(&app).await;
        for (query, name, on_postgres, on_sqlite) in LISTS {
            let sql = ran(&app, query, json!({}), name).await;
            let plan = plan(&db, &sql, None).await;
            let index = if app.is_postgres() { on_postgres } else { on_sqlite };
            assert!(plan.contains(index), "{query}: {index}\n{sql}\n{plan}");
            if app.is_postgres() {
                let sorts = plan.lines().any(|line| line.contains("Sort") && !line.contains("Sort Key"));
                assert!(!sorts && !plan.contains("Seq Scan"), "{query}\n{sql}\n{plan}");
            } else {
                // The pages of many parents are put in the order of the parents once they are cut.
                let nested = sql.contains("ROW_NUMBER");
                assert!(nested || !plan.contains("TEMP B-TREE"), "{query}\n{sql}\n{plan}");
                assert!(!scans(&plan), "{query}\n{sql}\n{plan}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_after_a_cursor_starts_in_the_index_at_the_cursor() {
    let query =
        "query($after: String) { users(first: 3, after: $after) { nodes { id } pageInfo { endCursor } } }";
    for app in TestApp::both().await {
        let first = app.as_admin().run(query, json!({})).await.expect_data(query);
        let after = json!({"after": first["users"]["pageInfo"]["endCursor"]});
        let sql = ran(&app, query, after, "user.page").await;
        assert!(sql.contains("(t.created_at, t.id) < ("), "{sql}");
        let plan = plan(&begin(&app).await, &sql, None).await;
        let starts =
            if app.is_postgres() { "Index Cond: (ROW(created_at, id) <" } else { "(created_at,id)<" };
        assert!(plan.contains("users_created") && plan.contains(starts), "{plan}");
    }
}

#[tokio::test]
async fn a_stretch_of_time_reads_the_months_that_it_touches() {
    let app = TestApp::postgres().await;
    let db = begin(&app).await;
    let partitions = |plan: &str, table: &str| {
        let words = plan.split_whitespace().filter(|word| word.starts_with(table) && !word.ends_with("idx"));
        words.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let id = TestApp::account(Role::Admin);
    let now = entities::clock::now();
    let (from, to) = (now - chrono::TimeDelta::days(65), now - chrono::TimeDelta::days(60));
    let variables = json!({"from": from.to_rfc3339(), "to": to.to_rfc3339()});
    let cases = [
        (
            "locations(filter: { timestamp: { from: $from, to: $to } }) { nodes { id } }",
            "locations { nodes { id } }",
            "location.pages_of",
            "user_locations_2",
        ),
        (
            "activity(filter: { createdAt: { from: $from, to: $to } }) { nodes { id } }",
            "activity { nodes { id } }",
            "activity.pages_of_users",
            "user_activity_logs_2",
        ),
    ];
    for (filtered, whole, name, table) in cases {
        let query = format!("query($from: DateTime, $to: DateTime) {{ me {{ {filtered} }} }}");
        let sql = ran(&app, &query, variables.clone(), name).await;
        let values = format!("'{{{id}}}', '{}', '{}', 21", from.to_rfc3339(), to.to_rfc3339());
        let few = partitions(&plan(&db, &sql, Some(&values)).await, table);
        let sql = ran(&app, &format!("{{ me {{ {whole} }} }}"), json!({}), name).await;
        let all = partitions(&plan(&db, &sql, Some(&format!("'{{{id}}}', 21"))).await, table);
        assert!((1..=2).contains(&few.len()), "{few:?}");
        assert!(all.len() >= 13, "{all:?}");
    }
}

/// Whatever the corpus asks can be prepared without its values.
#[tokio::test]
async fn every_list_of_the_corpus_reads_by_an_index() {
    for app in TestApp::both().await {
        let variables = corpus::variables(&app).await;
        let db = begin(&app).await;
        let mut seen = std::collections::BTreeSet::new();
        for (_, operation) in corpus::operations() {
            for Statement { name, text, .. } in app.as_admin().run(operation, variables.clone()).await.sql {
                let is_list =
                    ["page", "count", "latest", "tracks", "last_of"].iter().any(|part| name.contains(part));
                if !is_list || !seen.insert(text.clone()) {
                    continue;
                }
                let plan = plan(&db, &text, None).await;
                // Counts of everything, and searches (SQLite has no trigrams), may read everything.
                let counts = ["user.count", "form.count", "activity.count", "location.latest_count"];
                let reads_all = counts.contains(&name.as_str()) || text.contains(" LIKE ");
                // SQLite has counted the rows, and reads the smallest tables whole.
                assert!(!app.is_postgres() || reads_all || !scans(&plan), "{name}\n{text}\n{plan}");
            }
        }
        assert!(seen.len() > 40, "{}", seen.len());
    }
}

/// The plan is that of the very statement that ran, with its values; on PostgreSQL it is measured.
#[tokio::test]
async fn an_administrator_gets_the_plan_of_a_statement_that_ran() {
    for app in TestApp::both_own().await {
        let query = "{ users(first: 2, filter: { search: \"a\" }) { nodes { sessions(first: 1) { nodes { id } } } } }";
        let reply = app.as_admin().run(query, json!({})).await;
        let explain = &reply.extensions["explain"];
        let id = explain["plans"].as_u64().unwrap_or_else(|| panic!("{explain}"));
        let viewer = |role| Viewer::User { id: TestApp::account(role), role, session: None };
        let admin = viewer(Role::Admin);
        for (index, statement) in reply.sql.iter().enumerate() {
            let plan = app.graph.plan(&admin, id, index).await.expect("it is explained").expect("it is kept");
            let expected: &[&str] = if app.is_postgres() { &["actual time"] } else { &["SCAN", "SEARCH"] };
            let is_told = plan.iter().any(|line| expected.iter().any(|words| line.contains(words)));
            assert!(is_told, "{}: {plan:?}", statement.name);
        }
        assert_eq!(app.graph.plan(&admin, id, reply.sql.len()).await.expect("asked"), None);
        assert_eq!(
            app.graph.plan(&viewer(Role::Manager), id, 0).await.expect("asked"),
            None,
            "only for administrators"
        );

        // What writes does not run again.
        let write = "mutation($input: CreateUserInput!) { createUser(input: $input) { user { id } } }";
        let input = json!({"email": "plan@example.com", "displayName": "Plan", "role": "VIEWER"});
        let reply = app.as_admin().run(write, json!({"input": input})).await;
        let id = reply.extensions["explain"]["plans"].as_u64().expect("it is kept");
        let people = app.count("users").await;
        for (index, statement) in reply.sql.iter().enumerate() {
            let plan = app
                .graph
                .plan(&admin, id, index)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", statement.name));
            assert!(
                plan.is_some_and(|lines| lines.iter().all(|line| !line.contains("actual time"))),
                "{}",
                statement.name
            );
        }
        assert_eq!(app.count("users").await, people);
    }
}
