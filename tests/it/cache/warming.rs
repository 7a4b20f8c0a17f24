//! What an instance reads before its first request.

use entities::{Role, form, id::FormId, warmup};
use serde_json::json;

use super::{Node, settle};
use crate::harness::{RedisServer, TestApp, text};

#[tokio::test]
async fn a_warmed_instance_holds_open_forms_and_active_accounts() {
    let [_, app] = TestApp::both_own().await;
    let collector = TestApp::account(Role::Collector);
    app.sql(&format!(
        "update user_sessions set last_activity = now(), is_active = true where user_id = '{collector}'"
    ))
    .await;
    let data = app.as_admin().ask("{ forms(first: 1, filter: {statuses: OPEN}) { nodes { id } } }").await;
    let form = text(&data["forms"]["nodes"][0]["id"]);
    let query = format!(
        "{{ form(id: \"{form}\") {{ title }} user(id: \"{collector}\") {{ displayName lastLocation {{ id }} }} }}"
    );
    let instance = Node::alone(&app).await;
    let warmed = app.over_store(instance.store.clone());
    assert!(warmup::warm_up(&instance.store).await.expect("the database is there") > 1);
    let reply = warmed.as_admin().run(&query, json!({})).await;
    assert_eq!(reply.statements(), Vec::<&str>::new(), "{}", reply.body);
    // Without a cache there is nothing to fill.
    assert_eq!(warmup::warm_up(&app.store).await.expect("nothing is asked"), 0);
}

#[tokio::test]
async fn a_node_that_starts_reads_what_others_have_read_most() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let first = Node::with(&app, &redis).await;
    settle(std::slice::from_ref(&first.store)).await;
    // A form that is not open is warm for no other reason.
    app.sql("update forms set status = 'ARCHIVED' where status <> 'OPEN'").await;
    let data = app.as_admin().ask("{ forms(first: 1, filter: {statuses: ARCHIVED}) { nodes { id } } }").await;
    let id = FormId::parse(&text(&data["forms"]["nodes"][0]["id"])).expect("an id");
    for _ in 0..1_000 {
        form::by_ids(&first.store, &[id]).await.expect("it is there");
    }
    first.store.cache().publish_popular_keys().await;
    assert!(redis.cli(&["zrevrange", "hot:{xp}", "0", "9"]).contains(&format!("Form:{id}")));
    let second = Node::with(&app, &redis).await;
    warmup::warm_up(&second.store).await.expect("the database is there");
    let before =
        second.sum("cache_requests_total", &["tier=\"local\"", "type=\"form.by_ids\"", "result=\"hit\""]);
    form::by_ids(&second.store, &[id]).await.expect("it is there");
    let after =
        second.sum("cache_requests_total", &["tier=\"local\"", "type=\"form.by_ids\"", "result=\"hit\""]);
    assert_eq!(after, before + 1, "it is held");
}
