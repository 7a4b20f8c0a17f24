//! One document with several sets of variables: one execution, whose sets share every batch. Not here: how
//! they are sent and told over HTTP (`src/http/tests/asking.rs`).

use std::fmt::Write as _;

use entities::Role;
use serde_json::{Value, json};

use crate::harness::{Client, Reply, TestApp, text};

const W1: &str = include_str!("../../benches/load/operations/w1.graphql");
const W2: &str = include_str!("../../benches/load/operations/w2.graphql");
/// The levels of W2, where each set is another user.
const W2_OF_ONE: &str = "query($id: ID!, $first: Int) { user(id: $id) {
    id displayName email
    sessions(first: $first) { nodes { id ipAddress userAgent isActive createdAt lastActivity expiresAt } }
    forms(first: 3) { nodes { id title status version submissionCount createdAt } }
} }";

/// So many ids of users, each once: those that there are, and then some that there are not.
async fn users(client: &Client<'_>, count: usize) -> Vec<String> {
    let known = client.ask("{ users(first: 100) { nodes { id } } }").await;
    let known = known["users"]["nodes"].as_array().expect("nodes").iter().map(|user| text(&user["id"]));
    let absent = (0..count).map(|number| format!("00000000-0000-7000-8000-{number:012x}"));
    known.chain(absent).take(count).collect()
}

fn sets(ids: &[String]) -> Vec<Value> {
    ids.iter().map(|id| json!({ "id": id })).collect()
}

/// The names of all statements, which the last answer tells.
fn statements(replies: &[Reply]) -> Vec<&str> {
    let (last, before) = replies.split_last().expect("there is one");
    assert!(before.iter().all(|reply| reply.sql.is_empty()), "told once");
    let mut names = last.statements();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn any_number_of_sets_takes_the_statements_of_one() {
    let mut table = String::from("| document | 1 set | 10 sets | 100 sets |\n|---|---|---|---|\n");
    for app in TestApp::both().await {
        let client = app.as_admin();
        for (name, query, wanted) in [
            ("W1", W1, &["user.by_ids"][..]),
            (
                "W2",
                W2,
                &["form.pages_of_owners", "session.pages_of_users", "submission.counts_of", "user.page"],
            ),
            (
                "W2's levels, each set another user",
                W2_OF_ONE,
                &["form.pages_of_owners", "session.pages_of_users", "submission.counts_of", "user.by_ids"],
            ),
        ] {
            let _ = write!(table, "| {name}, {} |", if app.is_postgres() { "PostgreSQL" } else { "SQLite" });
            for count in [1, 10, 100] {
                let sets = match name {
                    "W2" => vec![json!({}); count],
                    _ => sets(&users(&client, count).await),
                };
                let replies = client.run_sets(query, &sets).await.expect("they run");
                assert_eq!(replies.len(), count);
                assert_eq!(statements(&replies), wanted, "{name}: {count}");
                let _ = write!(table, " {} |", wanted.len());
            }
            table.push('\n');
        }
    }
    println!("{table}");
}

#[tokio::test]
async fn each_set_is_answered_as_if_it_were_alone() {
    for app in TestApp::both().await {
        let ids = users(&app.as_admin(), 60).await;
        let sets: Vec<Value> =
            ids.iter().enumerate().map(|(number, id)| json!({ "id": id, "first": number % 4 })).collect();
        for client in [app.as_admin(), app.as_role(Role::Manager), app.as_role(Role::Viewer), app.anonymous()]
        {
            let client = client.plain();
            let together = client.run_sets(W2_OF_ONE, &sets).await.expect("they run");
            for (index, (set, reply)) in sets.iter().zip(&together).enumerate() {
                let alone = client.run(W2_OF_ONE, set.clone()).await.body;
                let alone =
                    format!("{},\"variableIndex\":{index}}}", alone.strip_suffix('}').expect("an object"));
                assert_eq!(reply.body, alone);
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_set_is_told_in_its_place() {
    let app = TestApp::sqlite().await;
    let id = users(&app.as_admin(), 1).await.remove(0);
    let sets =
        [json!({ "id": id }), json!({}), json!({ "id": [] }), json!({ "id": "none" }), json!({ "id": id })];
    let replies = app.as_admin().run_sets(W1, &sets).await.expect("they run");
    let told: Vec<_> = replies.iter().map(|reply| (reply.executed, reply.codes.join(","))).collect();
    let wrong = (false, "BAD_USER_INPUT".to_owned());
    let right = (true, String::new());
    assert_eq!(told, [right.clone(), wrong.clone(), wrong, (true, "BAD_USER_INPUT".to_owned()), right]);
    assert_eq!((&replies[0].data["user"]["id"], &replies[4].data["user"]["id"]), (&json!(id), &json!(id)));
    assert_eq!(replies[3].errors[0]["path"], json!(["user"]));
    assert_eq!(statements(&replies), ["user.by_ids"]);
}

#[tokio::test]
async fn what_the_sets_cost_counts_together() {
    let app = TestApp::sqlite().await.with_default_limits();
    let query = "query($n: Int) { users(first: $n) { nodes { id sessions(first: 20) { nodes { id } } } } }";
    let set = json!({ "n": 100 });
    let alone = app.as_admin().run_sets(query, std::slice::from_ref(&set)).await.expect("it runs");
    assert!(alone[0].codes.is_empty(), "{:?}", alone[0]);
    let three = app.as_admin().run_sets(query, &vec![set.clone(); 3]).await.expect("they run");
    let told = |reply: &Reply| reply.extensions["explain"]["cost"].as_u64();
    assert_eq!(told(&three[0]), None, "once");
    assert_eq!(told(&three[2]), told(&alone[0]).map(|cost| 3 * cost));
    assert!(told(&three[2]) > Some(0));
    let refused = app.as_admin().run_sets(query, &vec![set; 100]).await.expect_err("too much");
    assert_eq!((refused.codes.as_slice(), refused.executed), (&["COST_LIMIT".to_owned()][..], false));
    let message = text(&refused.errors[0]["message"]);
    assert!(message.starts_with("All sets of variables together may load "), "{message}");
}

#[tokio::test]
async fn the_answers_of_all_sets_share_their_bytes() {
    let app = TestApp::sqlite().await;
    let sets = vec![json!({}); 20];
    let query = "{ users(first: 50) { nodes { id displayName email } } }";
    let one = app.as_admin().plain().run(query, json!({})).await.body.len();
    let few = app.that_answers_at_most(one * 3, 32 << 20);
    let replies = few.as_admin().plain().run_sets(query, &sets).await.expect("they run");
    let complete = replies.iter().filter(|reply| reply.codes.is_empty()).count();
    assert_eq!(complete, 3, "the rest is refused: {:?}", replies[3]);
    assert!(replies[3..].iter().all(|reply| reply.codes == ["COST_LIMIT"]));
}

#[tokio::test]
async fn mutations_run_one_set_after_the_other() {
    let query = "mutation($input: CreateFormInput!) { createForm(input: $input) {
        form { title owner { forms(first: 50) { totalCount } } } userErrors { code } } }";
    for app in TestApp::both_own().await {
        let client = app.as_role(Role::Editor).plain();
        let set = |title: &str| json!({ "input": { "title": title } });
        let sets = [set("one"), json!({ "input": { "name": 1 } }), set(""), set("three")];
        let replies = client.run_sets(query, &sets).await.expect("they run");
        let counts: Vec<_> = [0, 3]
            .map(|index: usize| {
                let form = &replies[index].data["createForm"]["form"];
                (text(&form["title"]), form["owner"]["forms"]["totalCount"].as_u64().expect("counted"))
            })
            .into();
        assert_eq!((counts[0].0.as_str(), counts[1].0.as_str()), ("one", "three"));
        assert_eq!(counts[0].1 + 1, counts[1].1, "each sees what those before it wrote");
        assert_eq!(
            (replies[1].executed, replies[1].codes.as_slice()),
            (false, &["BAD_USER_INPUT".to_owned()][..])
        );
        assert_ne!(replies[2].data["createForm"]["userErrors"], json!([]));
    }
}

#[tokio::test]
async fn a_subscription_takes_one_set() {
    let app = TestApp::sqlite().await;
    let query = "subscription($users: [ID!]) { locationUpdated(userIds: $users) { latitude } }";
    let refused = app.as_admin().run_sets(query, &[json!({}), json!({})]).await.expect_err("refused");
    assert_eq!(refused.codes, ["BAD_USER_INPUT"]);
    let refused =
        app.as_admin().run_sets("query A { __typename } query B { __typename }", &[json!({})]).await;
    assert_eq!(refused.expect_err("refused").codes, ["OPERATION_RESOLUTION_FAILURE"]);
}

/// Answers of trusted documents are kept for each set by itself, and shared with requests of one set.
#[tokio::test]
async fn kept_answers_are_given_again_set_by_set() {
    let [app, _] = TestApp::both_own().await;
    let cached = app.with_cache().await;
    let ids = users(&app.as_admin(), 3).await;
    cached.graph.prepare(W1).expect("it is valid").trust();
    let client = cached.as_admin().plain();
    let first = client.run_sets(W1, &sets(&ids[..2])).await.expect("they run");
    app.sql("update users set display_name = 'behind the back'").await;
    let again = client.run_sets(W1, &sets(&ids)).await.expect("they run");
    assert_eq!((&again[0].body, &again[1].body), (&first[0].body, &first[1].body), "kept");
    assert_eq!(again[2].data["user"]["displayName"], "behind the back", "not kept before");
    let alone = client.run(W1, json!({ "id": ids[1] })).await;
    assert_eq!(alone.data, first[1].data);
}
