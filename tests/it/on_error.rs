//! What a field that fails does to the rest of an answer (`onError`): it takes its parent with it, is null in
//! its own place, or ends everything. Not here: where a request says it (`src/http/tests/asking.rs`).

use entities::Role;
use schema::OnError;
use serde_json::{Value, json};

use crate::harness::{Reply, TestApp};

/// A page that is too long: its field cannot be null.
const QUERY: &str = "{ me { role forms(first: 1000) { totalCount } sessions(first: 1) { nodes { id } } } }";

fn names(reply: &Reply) -> Vec<&str> {
    let mut names = reply.statements();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_failed_field_takes_its_parent_its_place_or_everything() {
    for app in TestApp::both().await {
        let client = app.as_admin();
        let propagated = client.run(QUERY, json!({})).await;
        assert_eq!((&propagated.data, propagated.codes.len()), (&json!({ "me": null }), 1));
        let said = app.as_admin().on_error(OnError::Propagate).run(QUERY, json!({})).await;
        assert_eq!(said.data, propagated.data);

        let in_place = app.as_admin().on_error(OnError::Null).run(QUERY, json!({})).await;
        assert_eq!(
            (&in_place.data["me"]["role"], &in_place.data["me"]["forms"]),
            (&json!("ADMIN"), &Value::Null)
        );
        assert!(in_place.data["me"]["sessions"]["nodes"].is_array(), "{}", in_place.body);
        assert_eq!(in_place.errors, propagated.errors, "the same error at the same place");
        assert_eq!(names(&in_place), names(&propagated));

        let halted = app.as_admin().on_error(OnError::Halt).run(QUERY, json!({})).await;
        assert_eq!((&halted.data, &halted.errors), (&Value::Null, &propagated.errors));
        assert_eq!(
            names(&halted),
            ["user.by_ids"],
            "nothing is loaded once it is known that something fails"
        );
    }
}

#[tokio::test]
async fn halting_tells_the_first_failure_and_no_other() {
    let app = TestApp::sqlite().await;
    // What fails is behind what is not loaded any more.
    let query = "{ me { a: sessions(first: 1) { nodes { id } } b: forms(first: 1000) { totalCount }
        c: forms(first: 2000) { totalCount } } }";
    let halted = app.as_admin().on_error(OnError::Halt).run(query, json!({})).await;
    assert_eq!((halted.errors.len(), &halted.errors[0]["path"]), (1, &json!(["me", "b"])), "{}", halted.body);
    assert_eq!((&halted.data, halted.executed), (&Value::Null, true));
    let fine = app
        .as_admin()
        .on_error(OnError::Halt)
        .run("{ me { role sessions { totalCount } } }", json!({}))
        .await;
    assert_eq!((fine.errors.len(), &fine.data["me"]["role"]), (0, &json!("ADMIN")));
    // No place is left for the error: nothing has failed.
    let absent = "{ user(id: \"00000000-0000-7000-8000-000000000000\") { forms(first: 1000) { totalCount } } me { role } }";
    let fine = app.as_admin().on_error(OnError::Halt).run(absent, json!({})).await;
    assert_eq!((fine.errors.len(), &fine.data["me"]["role"]), (0, &json!("ADMIN")), "{}", fine.body);
}

#[tokio::test]
async fn entities_and_sets_of_variables_fail_in_their_own_places() {
    let app = TestApp::sqlite().await;
    let ids = app.as_admin().ask("{ users(first: 2) { nodes { id } } }").await["users"]["nodes"].clone();
    let entities: Vec<Value> =
        (0..2).map(|index| json!({ "__typename": "User", "id": ids[index]["id"] })).collect();
    let query = "query($all: [_Any!]!, $first: Int) { _entities(representations: $all) {
        ... on User { id forms(first: $first) { totalCount } } } }";
    let variables = json!({ "all": entities, "first": 1000 });
    let propagated = app.service().run(query, variables.clone()).await;
    assert_eq!(propagated.data["_entities"], json!([null, null]));
    let in_place = app.service().on_error(OnError::Null).run(query, variables.clone()).await;
    assert_eq!(
        in_place.data["_entities"],
        json!([{ "id": ids[0]["id"], "forms": null }, { "id": ids[1]["id"], "forms": null }])
    );
    assert_eq!(in_place.errors, propagated.errors);
    let sets = [variables, json!({ "all": entities, "first": 1 })];
    let replies = app.service().on_error(OnError::Null).run_sets(query, &sets).await.expect("they run");
    assert_eq!((&replies[0].data, replies[1].codes.len()), (&in_place.data, 0));
    assert!(replies[1].data["_entities"][1]["forms"]["totalCount"].is_number());
}

#[tokio::test]
async fn a_failed_mutation_stops_the_next_unless_its_place_is_null() {
    for app in TestApp::both_own().await {
        let query = "mutation { a: createForm(input: { title: \"a\" }) { form { id } } b: __typename }";
        let run = async |on_error| app.as_role(Role::Viewer).on_error(on_error).run(query, json!({})).await;
        let propagated = run(OnError::Propagate).await;
        assert_eq!(
            (&propagated.data, propagated.codes.as_slice()),
            (&Value::Null, &["FORBIDDEN".to_owned()][..])
        );
        assert_eq!(run(OnError::Halt).await.data, Value::Null);
        let in_place = run(OnError::Null).await;
        assert_eq!(
            (&in_place.data, &in_place.errors),
            (&json!({ "a": null, "b": "Mutation" }), &propagated.errors)
        );
    }
}
