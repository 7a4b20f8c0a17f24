//! Which addresses are called, through the graph and by whoever connects. Each network by itself is in the tests of
//! `entities::webhook::targets`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use entities::{
    Role,
    webhook::targets::{Lookup, TargetRules},
};
use futures_util::FutureExt as _;
use serde_json::json;
use xp::webhooks::WebhookSettings;

use super::{
    CREATE, create, deliver_from, deliveries,
    receiver::{Receiver, until},
    settings,
};
use crate::harness::{TestApp, text};

/// Finds this address for every name.
fn finding(address: &'static str) -> Lookup {
    Arc::new(move |_, port| {
        async move { Ok(vec![SocketAddr::new(address.parse().expect("an address"), port)]) }.boxed()
    })
}

#[tokio::test]
async fn names_are_looked_up_when_a_webhook_is_made_and_when_it_is_called() {
    for app in TestApp::both_own().await {
        // What the name leads to when the webhook is made is public, and another thing later.
        let public = app.that_calls(TargetRules::default().looking_up(finding("93.184.215.14")));
        let private = app.that_calls(TargetRules::default().looking_up(finding("127.0.0.1")));
        let receiver = Receiver::start().await;
        let port = receiver.url("").rsplit(':').next().map(|end| end.trim_end_matches('/').to_owned());
        let url = format!("https://rebind.example:{}/hook", port.expect("a port"));
        let form = app.as_role(Role::Editor).open_form("Visit").await;
        let input = json!({ "url": url, "events": ["SUBMISSION_CREATED"] });
        let refused = private.as_role(Role::Editor).run(CREATE, json!({ "input": input })).await;
        let error = &refused.expect_data(CREATE)["createWebhook"]["userErrors"][0];
        assert_eq!((&error["code"], &error["path"][1]), (&json!("INVALID"), &json!("url")), "{error}");
        assert!(text(&error["message"]).contains("not public"), "{error}");
        let (webhook, _) = create(&public.as_role(Role::Editor), input).await;
        let targets = TargetRules::default().looking_up(finding("127.0.0.1"));
        let running = deliver_from(&app, &app.store, WebhookSettings { targets, ..settings() });
        app.as_role(Role::Collector).submit(&form, "Ann").await;
        until(|| async { deliveries(&app, &webhook).await.iter().any(|row| row["attempts"] != 0) }).await;
        let noted = deliveries(&app, &webhook).await;
        let why = "Not sent: the address leads to a network that is not public.";
        assert_eq!((&noted[0]["status"], &noted[0]["lastError"]), (&json!("PENDING"), &json!(why)));
        assert_eq!(receiver.got("hook").len(), 0);
        running.stop().await;
    }
}

#[tokio::test]
async fn only_who_may_change_a_webhook_has_names_looked_up() {
    for app in TestApp::both_own().await {
        let looked_up = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&looked_up);
        let lookup: Lookup = Arc::new(move |_, port| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]) }.boxed()
        });
        let app = app.that_calls(TargetRules::default().looking_up(lookup));
        let editor = app.as_role(Role::Editor);
        let input = json!({ "url": "https://192.0.1.1/", "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let none = "00000000-0000-7000-8000-000000000000";
        let update = async |role: Role, id: &str, url: &str| {
            let query = "mutation($input: UpdateWebhookInput!) { updateWebhook(input: $input) {
                userErrors { code path } } }";
            let input = json!({ "id": id, "url": url });
            let data = app.as_role(role).run(query, json!({ "input": input })).await.expect_data(query);
            text(&data["updateWebhook"]["userErrors"][0]["code"])
        };
        for url in ["https://db.internal/", "https://10.0.0.1/", "https://192.0.1.1/", "nonsense"] {
            for (role, id) in [(Role::Viewer, none), (Role::Viewer, &webhook), (Role::Manager, &webhook)] {
                assert_eq!(update(role, id, url).await, "NOT_FOUND", "{role:?} {id} {url}");
            }
        }
        assert_eq!(looked_up.load(Ordering::SeqCst), 0);
        assert_eq!(update(Role::Editor, &webhook, "https://db.internal/").await, "INVALID");
        assert_eq!(looked_up.load(Ordering::SeqCst), 1);
        // Whoever may not make webhooks any more may not direct the one that is left elsewhere.
        let account = TestApp::account(Role::Viewer).to_string();
        let viewer = if app.is_postgres() {
            format!("'{account}'")
        } else {
            format!("x'{}'", account.replace('-', ""))
        };
        app.sql(&format!("update webhooks set owner_id = {viewer} where url = 'https://192.0.1.1/'")).await;
        assert_eq!(update(Role::Viewer, &webhook, "https://db.internal/").await, "NOT_ALLOWED");
        assert_eq!(looked_up.load(Ordering::SeqCst), 1);
    }
}

/// Whatever was stored: an address that was allowed once, or was written by other means.
#[tokio::test]
async fn stored_addresses_that_are_not_public_are_not_called() {
    for app in TestApp::both_own().await {
        let receiver = Receiver::start().await;
        let form = app.as_role(Role::Editor).open_form("Visit").await;
        let input = json!({ "url": "https://192.0.1.1/", "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&app.as_role(Role::Editor), input).await;
        let url = receiver.url("hook");
        app.sql(&format!("update webhooks set url = '{url}' where url = 'https://192.0.1.1/'")).await;
        let settings = WebhookSettings { targets: TargetRules::default(), ..settings() };
        let running = deliver_from(&app, &app.store, settings);
        app.as_role(Role::Collector).submit(&form, "Ann").await;
        until(|| async { deliveries(&app, &webhook).await.iter().any(|row| row["attempts"] != 0) }).await;
        let noted = deliveries(&app, &webhook).await;
        assert!(text(&noted[0]["lastError"]).starts_with("Not sent: "), "{}", noted[0]);
        assert_eq!(receiver.got("hook").len(), 0);
        running.stop().await;
    }
}

#[tokio::test]
async fn redirections_are_not_followed() {
    for app in super::apps().await {
        let receiver = Receiver::answering(|got, _| if got.path == "/hook" { 307 } else { 200 }).await;
        let form = app.as_role(Role::Editor).open_form("Visit").await;
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&app.as_role(Role::Editor), input).await;
        let running = super::deliver(&app);
        app.as_role(Role::Collector).submit(&form, "Ann").await;
        receiver.wait_for("hook", 1).await;
        until(|| async { deliveries(&app, &webhook).await[0]["attempts"] != 0 }).await;
        let noted = deliveries(&app, &webhook).await;
        assert_eq!(noted[0]["lastStatusCode"], 307);
        assert!(text(&noted[0]["lastError"]).contains("redirections are not followed"), "{}", noted[0]);
        assert_eq!(receiver.got("elsewhere").len(), 0);
        running.stop().await;
    }
}
