//! How mutations run, whatever they do: one after the other, each seen by what follows, each with its entry in the
//! activity log, refusals as `userErrors`. Not here: what each of them does (its domain's file).

use entities::{Role, events::ChangeEvent, id::SessionId};
use serde_json::{Value, json};

use crate::harness::{TestApp, text};

const RENAME: &str = "mutation($input: RenameSessionInput!) { renameSession(input: $input) {
    session { id name user { displayName } } userErrors { __typename code path message } } }";

/// A session of the demo account of this role.
async fn session_of(app: &TestApp, role: Role) -> String {
    let data = app.as_role(role).ask("{ me { sessions(first: 1) { nodes { id } } } }").await;
    text(&data["me"]["sessions"]["nodes"][0]["id"])
}

#[tokio::test]
async fn written_rows_are_read_back_and_logged() {
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let id = session_of(&app, Role::Collector).await;
        let mut changes = app.store.events().subscribe();
        let reply = collector.run(RENAME, json!({"input": {"id": id, "name": "Work phone"}})).await;
        let names = [&["session.rename"], app.log_statements(), &["session.by_ids", "user.by_ids"]].concat();
        assert_eq!(reply.statements(), names);
        let data = reply.expect_data(RENAME);
        assert_eq!(data["renameSession"]["session"]["name"], "Work phone");
        assert_eq!(data["renameSession"]["userErrors"], json!([]));

        let (session, user) = (SessionId::parse(&id).expect("an id"), TestApp::account(Role::Collector));
        let announced = changes.try_recv().expect("the change is announced once it is committed");
        assert_eq!(*announced, [ChangeEvent::Session { id: session, user }]);
        let log =
            collector.ask("{ me { activity(first: 1) { nodes { actionType subject { id } } } } }").await;
        let entry = &log["me"]["activity"]["nodes"][0];
        assert_eq!(*entry, json!({"actionType": "session.rename", "subject": {"id": id}}));
    }
}

#[tokio::test]
async fn a_refusal_is_a_user_error_and_writes_nothing() {
    for app in TestApp::both_own().await {
        let foreign = session_of(&app, Role::Editor).await;
        let mut changes = app.store.events().subscribe();
        for (name, code, at) in [("x".to_owned(), "NOT_FOUND", "id"), ("x".repeat(101), "TOO_LARGE", "name")]
        {
            let input = json!({"input": {"id": foreign, "name": name}});
            let data = app.as_role(Role::Collector).run(RENAME, input).await.expect_data(RENAME);
            assert_eq!(data["renameSession"]["session"], Value::Null);
            let errors = data["renameSession"]["userErrors"].as_array().expect("a list");
            assert_eq!(errors.len(), 1);
            assert_eq!(errors[0]["__typename"], "InputError");
            assert_eq!((&errors[0]["code"], &errors[0]["path"]), (&json!(code), &json!(["input", at])));
        }
        assert!(changes.try_recv().is_err(), "nothing is announced");
    }
}

#[tokio::test]
async fn fields_run_one_after_the_other_and_see_what_was_written() {
    for app in TestApp::both_own().await {
        let id = session_of(&app, Role::Collector).await;
        let rename = |key: &str, name: &str| {
            format!("{key}: renameSession(input: {{id: \"{id}\", name: {name}}}) {{ session {{ name }} }}")
        };
        let query = format!(
            "mutation {{ {} __typename {} {} }}",
            rename("a", "\"one\""),
            rename("b", "\"two\""),
            rename("c", "null")
        );
        let reply = app.as_role(Role::Collector).run(&query, json!({})).await;
        let wanted = r#"{"data":{"a":{"session":{"name":"one"}},"__typename":"Mutation","b":{"session":{"name":"two"}},"c":{"session":{"name":null}}}}"#;
        assert_eq!(reply.body, wanted);
    }
}

#[tokio::test]
async fn a_mutation_that_fails_stops_the_rest() {
    for app in TestApp::both_own().await {
        let id = session_of(&app, Role::Collector).await;
        let query = format!(
            "mutation {{ a: renameSession(input: {{id: \"{id}\", name: \"first\"}}) {{ session {{ name }} }}
                b: renameSession(input: {{id: \"nonsense\"}}) {{ session {{ name }} }}
                c: renameSession(input: {{id: \"{id}\", name: \"never\"}}) {{ session {{ name }} }} }}"
        );
        let reply = app.as_role(Role::Collector).run(&query, json!({})).await;
        assert_eq!((reply.data, reply.codes), (Value::Null, vec!["BAD_USER_INPUT".to_owned()]));
        assert_eq!(reply.errors[0]["path"], json!(["b"]));
        let stored =
            app.as_role(Role::Collector).ask(&format!("{{ session(id: \"{id}\") {{ name }} }}")).await;
        assert_eq!(stored["session"]["name"], "first", "what ran before stays, what comes after did not run");
    }
}

#[tokio::test]
async fn writing_needs_an_account() {
    let app = TestApp::sqlite().await;
    let input = json!({"input": {"id": session_of(&app, Role::Collector).await, "name": "x"}});
    for client in [app.anonymous(), app.service()] {
        assert_eq!(client.run(RENAME, input.clone()).await.codes, ["UNAUTHENTICATED"]);
    }
}

#[tokio::test]
async fn a_mutation_with_a_wrong_selection_writes_nothing() {
    let [app, _] = TestApp::both_own().await;
    let id = session_of(&app, Role::Collector).await;
    let query = format!(
        "mutation {{ a: renameSession(input: {{id: \"{id}\", name: \"x\"}}) {{ session {{ name }} }}
            b: renameSession(input: {{id: \"{id}\", name: \"x\"}}) {{ session {{ x: name x: id }} }} }}"
    );
    let reply = app.as_role(Role::Collector).run(&query, json!({})).await;
    assert_eq!((reply.executed, reply.codes), (false, vec!["GRAPHQL_VALIDATION_FAILED".to_owned()]));
    let stored = app.as_role(Role::Collector).ask(&format!("{{ session(id: \"{id}\") {{ name }} }}")).await;
    assert_ne!(stored["session"]["name"], "x");
}
