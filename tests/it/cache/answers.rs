//! Whole answers of trusted documents: given again without executing anything as long as they are true, and to nobody
//! whom another answer is due.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use entities::{
    Role, Tag,
    id::{FormId, SessionId},
};
use serde_json::json;

use super::{Node, sessions, settle};
use crate::{
    corpus,
    harness::{Client, RedisServer, TestApp, text},
};

fn trust(app: &TestApp, query: &str) {
    app.graph.prepare(query).unwrap_or_else(|_| panic!("{query}")).trust();
}

/// Some form, and a document that reads it.
async fn form(app: &TestApp) -> (FormId, String) {
    let data = app.as_admin().ask("{ forms(first: 1, filter: {statuses: OPEN}) { nodes { id } } }").await;
    let id = text(&data["forms"]["nodes"][0]["id"]);
    (FormId::parse(&id).expect("an id"), format!("{{ form(id: \"{id}\") {{ title }} }}"))
}

/// Changes rows behind the cache's back: who answers now?
async fn rename_all(app: &TestApp, title: &str) {
    app.sql(&format!("update forms set title = '{title}'")).await;
}

#[tokio::test]
async fn a_cached_answer_is_reused_until_a_dependency_changes() {
    for app in TestApp::both_own().await {
        let cached = app.with_cache().await;
        let (id, query) = form(&app).await;
        trust(&cached, &query);
        let ask = async || cached.as_admin().plain().run(&query, json!({})).await.body;
        let first = ask().await;
        rename_all(&app, "renamed").await;
        // The row too: only a whole answer does not ask for it.
        cached.store.cache().invalidate_by_tag(&[Tag::Named("another".to_owned())]).await;
        assert_eq!(ask().await, first, "nobody said that it changed");
        cached.store.cache().invalidate_by_tag(&[Tag::Row("Form", id.0)]).await;
        assert!(ask().await.contains("renamed"));
    }
}

#[tokio::test]
async fn only_complete_answers_of_trusted_documents_are_cached() {
    let [_, app] = TestApp::both_own().await;
    let (id, _) = form(&app).await;
    let owner = TestApp::account(Role::Collector);
    for (query, is_trusted) in [
        (format!("{{ form(id: \"{id}\") {{ id title }} }}"), false),
        (
            format!(
                "{{ form(id: \"{id}\") {{ title }} users(first: 1, filter: {{isActive: true}}) {{ nodes {{ id }} }} }}"
            ),
            true,
        ),
        (
            format!(
                "{{ form(id: \"{id}\") {{ title }} forms(first: 1, filter: {{search: \"e\"}}) {{ nodes {{ id }} }} }}"
            ),
            true,
        ),
        (
            format!(
                "{{ form(id: \"{id}\") {{ title }} user(id: \"{owner}\") {{ sessions(first: 1, activeOnly: true) {{ nodes {{ id }} }} }} }}"
            ),
            true,
        ),
    ] {
        let instance = Node::alone(&app).await;
        let cached = app.over_store(instance.store.clone());
        if is_trusted {
            trust(&cached, &query);
        }
        // A collector may not filter by state: that answer has an error.
        let client =
            if query.contains("sessions") { cached.as_admin() } else { cached.as_role(Role::Collector) };
        let client = client.plain();
        client.run(&query, json!({})).await;
        client.run(&query, json!({})).await;
        assert_eq!(instance.hits("answer"), 0, "{query}");
    }
}

/// What each asker is told of each operation, with the asker's name.
fn askers(app: &TestApp) -> Vec<(String, Client<'_>)> {
    let mut askers = vec![("nobody".to_owned(), app.anonymous()), ("a machine".to_owned(), app.service())];
    for role in [Role::Admin, Role::Manager, Role::Editor, Role::Collector, Role::Viewer] {
        let account = TestApp::account(role);
        askers.push((format!("{role:?}"), app.as_role(role)));
        // Another session of the same account, and another account of the same role.
        askers.push((format!("{role:?} elsewhere"), app.in_session(account, role, SessionId::new())));
        let other = TestApp::account(if role == Role::Viewer { Role::Editor } else { Role::Viewer });
        askers.push((format!("another {role:?}"), app.as_user(other, role)));
    }
    askers.into_iter().map(|(name, client)| (name, client.plain())).collect()
}

#[tokio::test]
async fn cached_answers_are_separated_by_viewer() {
    let app = TestApp::postgres().await;
    let instance = Node::alone(&app).await;
    let cached = app.over_store(instance.store.clone());
    let variables = corpus::variables(&app).await;
    let operations = corpus::operations();
    for (_, query) in &operations {
        trust(&cached, query);
    }
    let (plain, kept) = (askers(&app), askers(&cached));
    let mut due: HashMap<(usize, usize), String> = HashMap::new();
    for (asker, (_, client)) in plain.iter().enumerate() {
        for (operation, (_, query)) in operations.iter().enumerate() {
            due.insert((asker, operation), client.run(query, variables.clone()).await.body);
        }
    }
    // Twice, in random order: whoever comes first leaves something to be found by the others.
    for _ in 0..2 {
        let mut turns: Vec<_> = due.keys().copied().collect();
        fastrand::shuffle(&mut turns);
        for (asker, operation) in turns {
            let ((who, client), (name, query)) = (&kept[asker], operations[operation]);
            let got = client.run(query, variables.clone()).await.body;
            assert_eq!(got, due[&(asker, operation)], "{name} for {who}");
        }
    }
    assert!(instance.hits("answer") > 200, "answers were given again: {}", instance.hits("answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_begun_before_a_write_is_discarded() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let stores = [Node::with(&app, &redis).await.store, Node::with(&app, &redis).await.store];
    settle(&stores).await;
    let (id, query) = form(&app).await;
    let instances = stores.clone().map(|store| app.over_store(store));
    for instance in &instances {
        trust(instance, &query);
    }
    // Every read of a form takes a while after it has seen the row.
    app.sql("alter table forms rename to all_forms").await;
    app.sql("create view forms as select t.* from all_forms t, (select pg_sleep(0.3)) as slow").await;
    let ask = async |instance: &TestApp| instance.as_admin().plain().run(&query, json!({})).await.body;
    let write = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        app.sql(&format!("update all_forms set title = 'written' where id = '{id}'")).await;
        stores[1].cache().invalidate_by_tag(&[Tag::Row("Form", id.0)]).await
    };
    let (_, moment) = tokio::join!(ask(&instances[0]), write);
    let moment = moment.expect("Redis is there");
    for store in &stores {
        let instance = app.over_store(store.not_before(moment));
        trust(&instance, &query);
        assert!(ask(&instance).await.contains("written"));
    }
}

#[tokio::test]
async fn answers_of_accounts_are_checked_against_redis_each_time() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let (instance, other) = (Node::with(&app, &redis).await, Node::with(&app, &redis).await);
    settle(&[instance.store.clone(), other.store.clone()]).await;
    let account = TestApp::account(Role::Collector);
    let query = format!("{{ user(id: \"{account}\") {{ displayName }} }}");
    let reader = app.over_store(instance.store.clone());
    trust(&reader, &query);
    let ask = async || reader.as_admin().plain().run(&query, json!({})).await.body;
    // Kept once this instance's mirror has heard of the write before; until then the answer is stamped too
    // old to be used.
    let is_kept = async || {
        for _ in 0..500 {
            let before = instance.hits("answer");
            ask().await;
            if instance.hits("answer") == before + 1 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    };
    for turn in 0..50 {
        assert!(is_kept().await, "turn {turn}");
        app.sql(&format!("update users set display_name = 'name {turn}' where id = '{account}'")).await;
        other.store.cache().invalidate_by_tag(&[Tag::Row("User", account.0)]).await;
        assert!(ask().await.contains(&format!("name {turn}")), "written on the other node");
    }
    redis.freeze();
    app.sql(&format!("update users set display_name = 'frozen' where id = '{account}'")).await;
    assert!(ask().await.contains("frozen"), "without Redis nobody knows whether it is true");
    redis.thaw();
}

/// What a clock decides is kept until the clock decides otherwise, however long it took to make the answer.
#[tokio::test]
async fn a_slow_answer_reports_no_expired_session_as_active() {
    let [_, app] = TestApp::both_own().await;
    let instance = Node::alone(&app).await;
    let cached = app.over_store(instance.store.clone());
    let (_, keys) = sessions(&app, 1).await;
    let query = format!("{{ session(id: \"{}\") {{ isActive }} }}", keys[0]);
    trust(&cached, &query);
    app.sql("alter table user_sessions rename to all_sessions").await;
    app.sql("create view user_sessions as select t.* from all_sessions t, (select pg_sleep(1)) as slow")
        .await;
    app.sql(&format!(
        "update all_sessions set expires_at = now() + interval '1500 milliseconds' where id = '{}'",
        keys[0]
    ))
    .await;
    let began = Instant::now();
    let ask = async || cached.as_admin().plain().run(&query, json!({})).await.body;
    assert!(ask().await.contains("true"));
    tokio::time::sleep(Duration::from_millis(1_700).saturating_sub(began.elapsed())).await;
    assert!(ask().await.contains("false"), "{:?} after it was read", began.elapsed());
}

#[tokio::test]
async fn without_a_cache_trusted_documents_are_executed() {
    let [app, _] = TestApp::both_own().await;
    let (_, query) = form(&app).await;
    trust(&app, &query);
    app.as_admin().plain().run(&query, json!({})).await;
    rename_all(&app, "renamed").await;
    assert!(app.as_admin().plain().run(&query, json!({})).await.body.contains("renamed"));
}

/// Questions about the schema can be put in any number of words, and each has an answer of its own.
#[tokio::test]
async fn what_is_said_about_the_schema_is_not_stored_where_servers_share_it() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let node = app.over_store(Node::with(&app, &redis).await.store);
    let stored = || redis.cli(&["dbsize"]).parse::<usize>().expect("a number");
    // What is asked about forms is stored, so the Redis is in use.
    let (_, query) = form(&node).await;
    while stored() == 0 {
        node.as_admin().run(&query, json!({})).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = stored();
    for number in 0..20 {
        let answer =
            node.as_admin().ask(&format!("{{ a{number}: __schema {{ queryType {{ name }} }} }}")).await;
        assert_eq!(answer[format!("a{number}")]["queryType"]["name"], "Query");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stored(), before);
}
