//! What an answer depends on, told where somebody asks for it.

use entities::Role;
use schema::{Request, Viewer};

use crate::harness::{TestApp, text};

/// The tags of an answer to an administrator, sorted, and whether they cover everything.
async fn dependencies(app: &TestApp, query: &str) -> (Vec<String>, bool) {
    let viewer = Viewer::User { id: TestApp::account(Role::Admin), role: Role::Admin, session: None };
    let request = Request { query: query.to_owned(), cache_tags: true, ..Request::default() };
    let reply = app.graph.execute(viewer, request).await;
    assert!(reply.codes.is_empty(), "{}", String::from_utf8_lossy(&reply.body.clone().into_vec()));
    let dependencies = reply.dependencies.expect("it was asked for");
    let mut tags: Vec<String> = dependencies.tags().map(ToString::to_string).collect();
    tags.sort();
    (tags, dependencies.is_complete())
}

#[tokio::test]
async fn answers_list_their_dependencies_with_and_without_cache() {
    let app = TestApp::postgres().await;
    let cached = app.with_cache().await;
    let data = app.as_admin().ask("{ forms(first: 2) { nodes { id owner { id } } } }").await;
    let forms: Vec<String> = (0..2).map(|index| text(&data["forms"]["nodes"][index]["id"])).collect();
    let owner = text(&data["forms"]["nodes"][0]["owner"]["id"]);
    let by_id =
        format!("{{ form(id: \"{}\") {{ title owner {{ displayName }} submissionCount }} }}", forms[0]);
    let mut expected =
        vec![format!("Form:{}", forms[0]), format!("User:{owner}"), format!("Submission#form:{}", forms[0])];
    expected.sort();
    // Cold and warm: what is found in the cache counts as much as what is loaded.
    for app in [&app, &cached, &cached] {
        assert_eq!(dependencies(app, &by_id).await, (expected.clone(), true));
        assert_eq!(
            dependencies(app, "{ forms(first: 2) { nodes { title } } }").await,
            (vec!["Form".to_owned()], true)
        );
    }
}

#[tokio::test]
async fn untagged_reads_are_reported_as_gaps() {
    let app = TestApp::postgres().await;
    for query in [
        "{ forms(first: 2, filter: {search: \"a\"}) { nodes { title } } }",
        "{ activityLogs(first: 2) { nodes { id } } }",
        "{ me { locations(first: 1) { nodes { id } } } }",
    ] {
        assert!(!dependencies(&app, query).await.1, "{query}");
    }
}

#[tokio::test]
async fn nothing_is_collected_where_nobody_asks() {
    let app = TestApp::postgres().await;
    let request = Request { query: "{ forms(first: 1) { nodes { id } } }".to_owned(), ..Request::default() };
    assert!(app.graph.execute(Viewer::Service, request).await.dependencies.is_none());
}
