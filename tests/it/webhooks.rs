//! Webhooks: who may have which, what is told to whom and in which order, and what becomes of receivers that
//! do not take it. Not here: clients of other makers (`tests/live/webhooks.test.mjs`), which addresses may be
//! called (`entities::webhook::targets`).

mod addresses;
mod failing;
mod instances;
mod receiver;
mod shares;

use std::time::Duration;

use entities::{Role, Store};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use xp::webhooks::{RunningWebhooks, WebhookSettings, Webhooks};

use crate::harness::{Client, TestApp, text};
use receiver::{Receiver, this_machine, until};

const CREATE: &str = "mutation($input: CreateWebhookInput!) { createWebhook(input: $input) {
    webhook { id url events formIds isEnabled owner { id } } secret userErrors { code path message } } }";
const DELIVERIES: &str = "query($id: ID) { webhookDeliveries(webhookId: $id, first: 100) { totalCount nodes {
    id event status attempts lastStatusCode lastError nextAttemptAt finishedAt submission { id } webhook { id } } } }";

/// Both databases, whose webhooks may be sent to this machine.
async fn apps() -> [TestApp; 2] {
    TestApp::both_own().await.map(|app| app.that_calls(this_machine()))
}

fn settings() -> WebhookSettings {
    WebhookSettings { targets: this_machine(), timeout: Duration::from_secs(10), concurrency: 16 }
}

/// An instance that tells webhooks.
fn deliver(app: &TestApp) -> RunningWebhooks {
    deliver_from(app, &app.store, settings())
}

fn deliver_from(app: &TestApp, store: &Store, settings: WebhookSettings) -> RunningWebhooks {
    let secret = &app.graph.access().options().secret;
    Webhooks::new(settings, &mut Registry::default()).start(store, secret)
}

/// Makes a webhook: its id and its secret.
async fn create(client: &Client<'_>, input: Value) -> (String, String) {
    let data = client.run(CREATE, json!({ "input": input })).await.expect_data(CREATE);
    let made = &data["createWebhook"];
    assert_eq!(made["userErrors"], json!([]), "{made}");
    (text(&made["webhook"]["id"]), text(&made["secret"]))
}

/// The deliveries of a webhook, newest first.
async fn deliveries(app: &TestApp, webhook: &str) -> Vec<Value> {
    let data = app.as_admin().run(DELIVERIES, json!({ "id": webhook })).await.expect_data(DELIVERIES);
    data["webhookDeliveries"]["nodes"].as_array().expect("a list").clone()
}

/// Waits until the log has an order for all that was written: what has none yet may be told to a webhook that
/// is enabled now.
async fn settled(app: &TestApp) {
    let unsettled = "events where transaction_id >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
    until(|| async { !app.is_postgres() || app.count(unsettled).await == 0 }).await;
}

/// Tries at once what would be tried again later.
async fn hurry(app: &TestApp) {
    app.sql("update webhook_lanes set due_at = '2020-01-01T00:00:00+00:00' where due_at is not null").await;
}

#[tokio::test]
async fn what_happens_to_a_form_is_told_and_signed() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::start().await;
        let form = editor.open_form("Visit").await;
        let before = collector.submit(&form, "before").await;
        settled(&app).await;
        let events = json!(["SUBMISSION_CREATED", "FORM_STATUS_CHANGED", "FORM_UPDATED"]);
        let input = json!({ "url": receiver.url("hook"), "events": events, "formIds": [form] });
        let (webhook, secret) = create(&editor, input).await;
        let running = deliver(&app);
        let submission = collector.submit(&form, "Ann").await;
        let close = format!(
            "mutation {{ setFormStatus(input: {{ id: \"{form}\", status: CLOSED }}) {{ form {{ id }} }} }}"
        );
        editor.ask(&close).await;
        let got = receiver.wait_until_taken("hook", 2).await;
        let types: Vec<_> = got.iter().map(|got| got.json()["type"].clone()).collect();
        assert_eq!(types, ["submission.created", "form.status_changed"], "in order, and not {before}");
        for got in &got {
            assert_eq!(got.signed_by(&secret), [0], "{got:?}");
            assert_eq!(got.header("webhook-signature").split(' ').count(), 1);
            assert_eq!(got.header("content-type"), "application/json");
        }
        let told = got[0].json();
        assert_eq!(told["data"]["id"], *submission);
        assert_eq!(told["data"]["form"]["id"], *form);
        assert_eq!(told["data"]["data"], json!({ "name": "Ann" }));
        assert_eq!(told["data"]["user"]["id"], TestApp::account(Role::Collector).to_string());
        assert_eq!(got[1].json()["data"]["status"], "CLOSED");
        until(|| async {
            deliveries(&app, &webhook).await.iter().all(|delivery| delivery["status"] == "DELIVERED")
        })
        .await;
        let noted = deliveries(&app, &webhook).await;
        assert_eq!(noted.len(), 2, "{noted:?}");
        assert_eq!(noted[1]["id"], *got[0].id(), "the id of the delivery is that of the message");
        assert_eq!((&noted[1]["attempts"], &noted[1]["lastStatusCode"]), (&json!(1), &json!(204)));
        assert_eq!(noted[1]["submission"]["id"], *submission);
        running.stop().await;
    }
}

#[tokio::test]
async fn only_owners_of_forms_and_administrators_have_webhooks() {
    for app in apps().await {
        let (admin, editor, manager) =
            (app.as_admin(), app.as_role(Role::Editor), app.as_role(Role::Manager));
        let (own, foreign) = (editor.open_form("Visit").await, manager.open_form("Visit").await);
        let ask = async |client: &Client<'_>, input: Value| {
            let data = client.run(CREATE, json!({ "input": input })).await.expect_data(CREATE);
            let error = &data["createWebhook"]["userErrors"][0];
            (error["code"].as_str().unwrap_or("DONE").to_owned(), text(&error["path"].to_string().into()))
        };
        let of = |form: &str| {
            let (url, events) = ("https://192.0.1.1/hooks", ["SUBMISSION_CREATED"]);
            json!({ "url": url, "events": events, "formIds": [form] })
        };
        assert_eq!(ask(&editor, of(&own)).await.0, "DONE");
        assert_eq!(ask(&manager, of(&foreign)).await.0, "DONE");
        assert_eq!(ask(&admin, of(&own)).await.0, "DONE");
        assert_eq!(ask(&admin, of(&foreign)).await.0, "DONE");
        assert_eq!(ask(&editor, of(&foreign)).await.0, "NOT_ALLOWED");
        assert_eq!(ask(&manager, of(&own)).await.0, "NOT_ALLOWED", "managers of forms, but of others");
        assert_eq!(ask(&editor, of("00000000-0000-7000-8000-000000000000")).await.0, "NOT_FOUND");
        let with = |field: &str, value: Value| {
            let mut input = of(&own);
            input[field] = value;
            input
        };
        for (field, value, code) in [
            ("url", json!("http://8.8.8.8/"), "INVALID"),
            ("url", json!("https://10.0.0.1/"), "INVALID"),
            ("url", json!("https://ann:secret@example.com/"), "INVALID"),
            ("events", json!([]), "TOO_SMALL"),
            ("formIds", json!([]), "TOO_SMALL"),
            ("formIds", json!(vec![own.clone(); 101]), "TOO_LARGE"),
            ("secret", json!("whsec_c2hvcnQ="), "INVALID"),
            ("secret", json!("hunter2"), "INVALID"),
        ] {
            let (found, path) = ask(&editor, with(field, value.clone())).await;
            assert_eq!(found, code, "{field} {value}");
            assert!(path.contains(field), "{field}: {path}");
        }
        let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert_eq!(create(&editor, with("secret", json!(given))).await.1, given);
        // An answer with a secret is not kept.
        let keyed = editor.keyed("once").run(CREATE, json!({ "input": of(&own) })).await;
        assert_eq!(keyed.codes, ["BAD_USER_INPUT"], "{}", keyed.body);
    }
}

#[tokio::test]
async fn an_account_has_at_most_a_hundred_webhooks() {
    for app in apps().await {
        let editor = app.as_role(Role::Editor);
        let input = json!({ "url": "https://192.0.1.1/hooks", "events": ["FORM_CREATED"] });
        // One is there already, and one may come besides.
        for _ in 2..100 {
            create(&editor, input.clone()).await;
        }
        let ask = async || editor.run(CREATE, json!({ "input": input })).await.expect_data(CREATE);
        let at_once = futures_util::future::join_all((0..6).map(|_| ask())).await;
        let codes = at_once.iter().map(|data| &data["createWebhook"]["userErrors"][0]["code"]);
        assert_eq!(codes.filter(|code| **code == "TOO_LARGE").count(), 5, "{at_once:?}");
    }
}

#[tokio::test]
async fn deliveries_of_one_form_are_in_order_and_others_do_not_wait() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        // The first of one form is refused at first.
        let receiver = Receiver::answering(|got, before| {
            let is_first = got.json()["data"]["data"]["name"] == "one 0";
            if is_first && before < 4 { 500 } else { 200 }
        })
        .await;
        let (one, other) = (editor.open_form("Visit").await, editor.open_form("Visit").await);
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let running = deliver(&app);
        let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
        for number in 0..5 {
            of_one.push(collector.submit(&one, &format!("one {number}")).await);
            of_other.push(collector.submit(&other, &format!("other {number}")).await);
        }
        let of = |form: &str| -> Vec<String> {
            let taken = receiver.taken("hook").into_iter();
            taken.filter(|got| got.json()["data"]["form"]["id"] == *form).map(|got| got.subject()).collect()
        };
        let other_form = other.clone();
        until(|| async { of(&other_form).len() == 5 }).await;
        until(|| async {
            hurry(&app).await;
            of(&one).len() == 5
        })
        .await;
        assert_eq!(of(&one), of_one, "the others waited for the first");
        assert_eq!(of(&other), of_other);
        let first = receiver.got("hook").into_iter().filter(|got| got.subject() == of_one[0]);
        let attempts: Vec<_> = first.map(|got| (got.id().to_owned(), got.status)).collect();
        assert!(
            attempts.len() > 1 && attempts.iter().all(|attempt| attempt.0 == attempts[0].0),
            "{attempts:?}"
        );
        until(|| async { deliveries(&app, &webhook).await.iter().all(|row| row["status"] == "DELIVERED") })
            .await;
        let noted = deliveries(&app, &webhook).await;
        let first = noted.iter().find(|row| row["submission"]["id"] == *of_one[0]).expect("it is there");
        assert_eq!(first["attempts"], attempts.len(), "{first}");
        assert_eq!(first["lastError"], Value::Null);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_slow_receiver_delays_nobody_else() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let slow = Receiver::answering_after(|_, _| (200, Duration::from_hours(1))).await;
        let quick = Receiver::start().await;
        let mut forms = Vec::new();
        for _ in 0..12 {
            forms.push(editor.open_form("Visit").await);
        }
        let events = json!(["SUBMISSION_CREATED"]);
        let (stuck, _) = create(&editor, json!({ "url": slow.url("hook"), "events": events })).await;
        create(&editor, json!({ "url": quick.url("hook"), "events": events })).await;
        let settings = WebhookSettings { timeout: Duration::from_mins(10), concurrency: 6, ..settings() };
        let running = deliver_from(&app, &app.store, settings);
        for form in &forms {
            collector.submit(form, "Ann").await;
        }
        quick.wait_until_taken("hook", 12).await;
        assert!(slow.got("hook").len() <= 4, "a webhook has its share of attempts");
        let waiting = deliveries(&app, &stuck).await;
        assert!(waiting.iter().all(|row| row["status"] == "PENDING"), "{waiting:?}");
        drop(running);
    }
}

#[tokio::test]
async fn a_receiver_that_is_gone_disables_its_webhook() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let gone = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let is_gone = std::sync::Arc::clone(&gone);
        let receiver =
            Receiver::answering(
                move |_, _| {
                    if is_gone.load(std::sync::atomic::Ordering::SeqCst) { 410 } else { 200 }
                },
            )
            .await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let state = format!("{{ webhook(id: \"{webhook}\") {{ isEnabled disabledAt disabledReason }} }}");
        let running = deliver(&app);
        let first = collector.submit(&form, "first").await;
        until(|| async { editor.ask(&state).await["webhook"]["isEnabled"] == false }).await;
        let state_now = editor.ask(&state).await;
        assert_eq!(state_now["webhook"]["disabledReason"], "The receiver answered 410 Gone.", "{state_now}");
        let noted = deliveries(&app, &webhook).await;
        assert_eq!((&noted[0]["status"], &noted[0]["lastStatusCode"]), (&json!("FAILED"), &json!(410)));
        // What happens now is not told, also not later.
        collector.submit(&form, "unheard").await;
        settled(&app).await;
        let redeliver = format!(
            "mutation {{ redeliverWebhook(input: {{ deliveryId: {} }}) {{ delivery {{ status }} userErrors {{ code }} }} }}",
            noted[0]["id"]
        );
        let refused = editor.ask(&redeliver).await;
        assert_eq!(refused["redeliverWebhook"]["userErrors"][0]["code"], "CONFLICT", "{refused}");
        gone.store(false, std::sync::atomic::Ordering::SeqCst);
        let enable = format!(
            "mutation {{ updateWebhook(input: {{ id: \"{webhook}\", isEnabled: true }}) {{ webhook {{ isEnabled disabledReason }} }} }}"
        );
        let enabled = editor.ask(&enable).await;
        assert_eq!(enabled["updateWebhook"]["webhook"], json!({ "isEnabled": true, "disabledReason": null }));
        let last = collector.submit(&form, "last").await;
        receiver.wait_until_taken("hook", 1).await;
        let again = editor.ask(&redeliver).await;
        assert_eq!(again["redeliverWebhook"]["userErrors"], json!([]), "{again}");
        let taken = receiver.wait_until_taken("hook", 2).await;
        assert_eq!(
            [taken[0].subject(), taken[1].subject()],
            [last, first],
            "and not what happened meanwhile"
        );
        assert_eq!(*taken[1].id(), noted[0]["id"], "under the id that it had");
        let disables = app.as_admin().ask("{ activityLogs(first: 1, filter: { actionTypes: [\"webhook.disable\"] }) { nodes { user { id } subject { id } metadata } } }").await;
        let entry = &disables["activityLogs"]["nodes"][0];
        assert_eq!(
            (&entry["subject"]["id"], &entry["metadata"]["reason"]),
            (&json!(webhook), &json!("GONE"))
        );
        running.stop().await;
    }
}

#[tokio::test]
async fn after_three_days_a_delivery_is_given_up_and_its_webhook_disabled() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::answering(|_, _| 503).await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let running = deliver(&app);
        collector.submit(&form, "Ann").await;
        until(|| async { deliveries(&app, &webhook).await.iter().any(|row| row["attempts"] == 1) }).await;
        let noted = deliveries(&app, &webhook).await;
        assert_eq!(noted[0]["status"], "PENDING");
        assert!(noted[0]["nextAttemptAt"].is_string(), "{}", noted[0]);
        let long_ago = "'2026-01-01T00:00:00+00:00'";
        app.sql(&format!("update webhook_deliveries set first_attempt_at = {long_ago} where attempts = 1 and status = 'PENDING'"))
            .await;
        app.sql(&format!("update webhooks set failing_since = {long_ago} where failing_since is not null"))
            .await;
        until(|| async {
            hurry(&app).await;
            deliveries(&app, &webhook).await[0]["status"] == "FAILED"
        })
        .await;
        let state = format!("{{ webhook(id: \"{webhook}\") {{ isEnabled disabledReason }} }}");
        let state = editor.ask(&state).await;
        let reason = "No delivery has succeeded for 3 days. The last one: The receiver answered 503 Service Unavailable.";
        assert_eq!(state["webhook"], json!({ "isEnabled": false, "disabledReason": reason }));
        running.stop().await;
    }
}

#[tokio::test]
async fn while_a_secret_is_new_both_sign() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::start().await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, before) = create(&editor, input).await;
        let rotate = format!(
            "mutation {{ rotateWebhookSecret(input: {{ id: \"{webhook}\" }}) {{ secret webhook {{ previousSecretUntil }} }} }}"
        );
        let rotated = editor.ask(&rotate).await;
        let new = text(&rotated["rotateWebhookSecret"]["secret"]);
        assert_ne!(new, before);
        assert!(rotated["rotateWebhookSecret"]["webhook"]["previousSecretUntil"].is_string());
        let running = deliver(&app);
        collector.submit(&form, "Ann").await;
        let got = receiver.wait_until_taken("hook", 1).await;
        assert_eq!((got[0].signed_by(&new), got[0].signed_by(&before)), (vec![0], vec![1]));
        app.sql("update webhooks set previous_secret_until = '2026-01-01T00:00:00+00:00'").await;
        collector.submit(&form, "Bob").await;
        let got = receiver.wait_until_taken("hook", 2).await;
        assert_eq!((got[1].signed_by(&new), got[1].signed_by(&before)), (vec![0], vec![]));
        // What is stored says nothing: neither of them is there in the clear.
        let stored = app.as_admin().ask(&format!("{{ webhook(id: \"{webhook}\") {{ url }} activityLogs(first: 20) {{ nodes {{ metadata }} }} }}")).await;
        for secret in [&new, &before] {
            assert!(!stored.to_string().contains(secret.as_str()));
        }
        assert_eq!(
            app.count("webhooks where secret like 'whsec%' or previous_secret like 'whsec%'").await,
            0
        );
        running.stop().await;
    }
}

#[tokio::test]
async fn what_its_owner_may_not_see_any_more_is_not_told() {
    for app in apps().await {
        let (admin, editor, collector) =
            (app.as_admin(), app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::start().await;
        let form = editor.open_form("Visit").await;
        let events = json!(["SUBMISSION_CREATED"]);
        let (webhook, _) = create(&editor, json!({ "url": receiver.url("editor"), "events": events })).await;
        create(&admin, json!({ "url": receiver.url("admin"), "events": events })).await;
        // Noted under the rights of then, sent under those of now.
        let mut expander = entities::webhook::expand::Expander::new(app.store.clone());
        collector.submit(&form, "Ann").await;
        until(|| async { app.count("events").await > 0 }).await;
        loop {
            use entities::webhook::expand::Expanded;
            match expander.step().await.expect("the log is read") {
                Expanded::Some(noted) if noted > 0 => break,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        let account = TestApp::account(Role::Editor);
        let demote = format!(
            "mutation {{ updateUser(input: {{ id: \"{account}\", role: VIEWER }}) {{ user {{ role }} }} }}"
        );
        admin.ask(&demote).await;
        let running = deliver(&app);
        receiver.wait_until_taken("admin", 1).await;
        until(|| async { deliveries(&app, &webhook).await[0]["status"] == "SKIPPED" }).await;
        collector.submit(&form, "Bob").await;
        receiver.wait_until_taken("admin", 2).await;
        assert_eq!(receiver.got("editor").len(), 0);
        assert_eq!(deliveries(&app, &webhook).await.len(), 1, "what happens afterwards is not even noted");
        running.stop().await;
    }
}
