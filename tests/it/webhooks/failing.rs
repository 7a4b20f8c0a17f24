//! Webhooks that fail, for a while or for good: what others notice of it, what their owner can do, and what
//! is given up. Not here: the pauses between attempts (`entities::webhook::lane`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use entities::{
    Role,
    id::WebhookId,
    retention::{RetentionTimes, remove_old},
    webhook::{
        expand::{Expanded, Expander},
        lane::{self, AttemptOutcome, DisableCode, FailedAttempt, Settled},
    },
};
use serde_json::{Value, json};
use xp::webhooks::WebhookSettings;

use super::{apps, create, deliver, deliver_from, deliveries, hurry, settings};
use crate::harness::{Client, TestApp, text};

use super::receiver::{Receiver, until};

const LONG_AGO: &str = "'2026-01-01T00:00:00+00:00'";

/// Changes a webhook: as it is then.
async fn update(client: &Client<'_>, webhook: &str, values: &str) -> Value {
    let query = format!(
        "mutation {{ updateWebhook(input: {{ id: \"{webhook}\", {values} }}) {{ userErrors {{ code message }}
         webhook {{ isEnabled disabledReason }} }} }}"
    );
    let data = client.ask(&query).await;
    assert_eq!(data["updateWebhook"]["userErrors"], json!([]), "{data}");
    data["updateWebhook"]["webhook"].clone()
}

/// Reads the log until so many deliveries are noted.
pub(super) async fn expand(app: &TestApp, count: usize) {
    let (mut expander, mut noted) = (Expander::new(app.store.clone()), 0);
    while noted < count {
        match expander.step().await.expect("the log is read") {
            Expanded::Some(more) => noted += more,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test]
async fn many_webhooks_that_fail_leave_room_for_one_that_does_not() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let stuck = Receiver::answering_after(|_, _| (200, Duration::from_hours(1))).await;
        let quick = Receiver::start().await;
        let (one, other) = (editor.open_form("Visit").await, editor.open_form("Visit").await);
        let input = |url: String, form: &str| json!({ "url": url, "events": ["SUBMISSION_CREATED"], "formIds": [form] });
        for _ in 0..8 {
            create(&editor, input(stuck.url("stuck"), &one)).await;
        }
        create(&editor, input(quick.url("hook"), &other)).await;
        app.sql(&format!("update webhooks set failing_since = {LONG_AGO} where url like '%/stuck'")).await;
        let settings = WebhookSettings { timeout: Duration::from_mins(10), concurrency: 4, ..settings() };
        let running = deliver_from(&app, &app.store, settings);
        // Those that fail have waited longer than the other one.
        collector.submit(&one, "Ann").await;
        stuck.wait_for("stuck", 2).await;
        collector.submit(&other, "Bob").await;
        quick.wait_until_taken("hook", 1).await;
        assert_eq!(stuck.got("stuck").len(), 2, "half of all attempts");
        drop(running);
    }
}

#[tokio::test]
async fn a_webhook_whose_secret_cannot_be_opened_recovers_with_another_one() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::start().await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        // As after a change of auth.secret.
        app.sql("update webhooks set secret = 'sealed' where url like '%/hook'").await;
        let running = deliver(&app);
        let submission = collector.submit(&form, "Ann").await;
        let state = format!("{{ webhook(id: \"{webhook}\") {{ isEnabled disabledReason }} }}");
        until(|| async { editor.ask(&state).await["webhook"]["isEnabled"] == false }).await;
        let state = editor.ask(&state).await;
        assert!(text(&state["webhook"]["disabledReason"]).contains("rotate"), "{state}");
        let noted = deliveries(&app, &webhook).await;
        assert_eq!(
            (&noted[0]["status"], &noted[0]["attempts"]),
            (&json!("PENDING"), &json!(0)),
            "nothing was sent"
        );
        let rotate =
            format!("mutation {{ rotateWebhookSecret(input: {{ id: \"{webhook}\" }}) {{ secret }} }}");
        let secret = text(&editor.ask(&rotate).await["rotateWebhookSecret"]["secret"]);
        let unusable = "webhooks where url like '%/hook' and previous_secret is not null";
        assert_eq!(app.count(unusable).await, 0, "what cannot be opened is not kept");
        // Also where it was kept.
        app.sql(
            "update webhooks set previous_secret = 'sealed', previous_secret_until = '2100-01-01T00:00:00+00:00'
             where url like '%/hook'",
        )
        .await;
        update(&editor, &webhook, "isEnabled: true").await;
        let got = receiver.wait_until_taken("hook", 1).await;
        assert_eq!((got[0].subject(), got[0].signed_by(&secret)), (submission, vec![0]));
        running.stop().await;
    }
}

#[tokio::test]
async fn an_answer_counts_however_its_body_ends() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::answering(|_, _| 200).await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("endless"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let running = deliver(&app);
        collector.submit(&form, "Ann").await;
        until(|| async { deliveries(&app, &webhook).await.iter().any(|row| row["attempts"] != 0) }).await;
        let noted = deliveries(&app, &webhook).await;
        assert_eq!((&noted[0]["status"], &noted[0]["lastError"]), (&json!("DELIVERED"), &Value::Null));
        running.stop().await;
    }
}

#[tokio::test]
async fn what_has_waited_for_a_delivery_that_is_given_up_is_given_up_with_it() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::answering(|_, _| 503).await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let running = deliver(&app);
        for name in ["first", "second", "third"] {
            collector.submit(&form, name).await;
        }
        until(|| async { deliveries(&app, &webhook).await.len() == 3 }).await;
        app.sql(&format!("update webhook_deliveries set created_at = {LONG_AGO} where finished_at is null"))
            .await;
        collector.submit(&form, "new").await;
        until(|| async { deliveries(&app, &webhook).await.len() == 4 }).await;
        until(|| async { deliveries(&app, &webhook).await.iter().any(|row| row["attempts"] != 0) }).await;
        app.sql(&format!(
            "update webhook_deliveries set first_attempt_at = {LONG_AGO} where attempts > 0 and finished_at is null"
        ))
        .await;
        until(|| async {
            hurry(&app).await;
            deliveries(&app, &webhook).await.iter().filter(|row| row["status"] == "FAILED").count() >= 3
        })
        .await;
        let mut noted = deliveries(&app, &webhook).await;
        noted.retain(|row| row["status"] != "FAILED");
        assert_eq!(noted.len(), 1, "the new one is tried for three days, too");
        assert_eq!(noted[0]["status"], "PENDING");
        let state = editor.ask(&format!("{{ webhook(id: \"{webhook}\") {{ isEnabled }} }}")).await;
        assert_eq!(state["webhook"]["isEnabled"], true, "others may have succeeded");
        running.stop().await;
    }
}

#[tokio::test]
async fn what_waits_for_too_long_or_for_a_webhook_that_was_removed_goes() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let form = editor.open_form("Visit").await;
        for url in ["https://192.0.1.1/kept", "https://192.0.1.1/removed"] {
            create(&editor, json!({ "url": url, "events": ["SUBMISSION_CREATED"] })).await;
        }
        for name in ["old", "tried", "new"] {
            collector.submit(&form, name).await;
        }
        expand(&app, 6).await;
        let kept = "webhook_id in (select id from webhooks where url like '%/kept')";
        let nth = |place: usize| {
            format!(
                "sequence in (select sequence from webhook_deliveries where {kept} order by sequence limit 1 offset {place})"
            )
        };
        for place in [0, 1] {
            app.sql(&format!(
                "update webhook_deliveries set created_at = {LONG_AGO} where {kept} and {}",
                nth(place)
            ))
            .await;
        }
        let now = "'2099-01-01T00:00:00+00:00'";
        app.sql(&format!(
            "update webhook_deliveries set last_attempt_at = {now} where {kept} and {}",
            nth(1)
        ))
        .await;
        app.sql("delete from webhooks where url like '%/removed'").await;
        let kept_for = Duration::from_hours(24 * 7);
        let times = RetentionTimes {
            locations: None,
            activity: None,
            sessions: kept_for,
            outbox: kept_for,
            events: kept_for,
            deliveries: kept_for,
        };
        let removed = remove_old(&app.store, &times, entities::clock::now(), migration::LOCK).await;
        removed.expect("removed").expect("its turn");
        assert_eq!(
            app.count(&format!("webhook_deliveries where {kept}")).await,
            2,
            "not what was tried of late"
        );
        let orphans = "webhook_deliveries where webhook_id not in (select id from webhooks)";
        assert_eq!(app.count(orphans).await, 0);
    }
}

#[tokio::test]
async fn lanes_of_a_disabled_webhook_rest_until_it_is_enabled() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let status = Arc::new(AtomicU16::new(503));
        let answer = Arc::clone(&status);
        let receiver = Receiver::answering(move |_, _| answer.load(Ordering::SeqCst)).await;
        let (one, other) = (editor.open_form("Visit").await, editor.open_form("Visit").await);
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let running = deliver(&app);
        let due = "webhook_lanes where due_at is not null";
        let submitted = [collector.submit(&one, "Ann").await, collector.submit(&other, "Bob").await];
        until(|| async {
            deliveries(&app, &webhook).await.iter().filter(|row| row["attempts"] != 0).count() == 2
        })
        .await;
        update(&editor, &webhook, "isEnabled: false").await;
        assert_eq!(app.count(due).await, 0);
        update(&editor, &webhook, "isEnabled: true").await;
        assert_eq!(app.count(due).await, 2);
        // The server disables it, by one of its lanes.
        status.store(410, Ordering::SeqCst);
        until(|| async {
            let state = editor.ask(&format!("{{ webhook(id: \"{webhook}\") {{ isEnabled }} }}")).await;
            state["webhook"]["isEnabled"] == false
        })
        .await;
        until(|| async { app.count(due).await == 0 }).await;
        status.store(200, Ordering::SeqCst);
        update(&editor, &webhook, "isEnabled: true").await;
        receiver.wait_until_taken("hook", 1).await;
        assert!(submitted.contains(&receiver.taken("hook")[0].subject()));
        running.stop().await;
    }
}

#[tokio::test]
async fn an_attempt_does_not_undo_what_was_changed_meanwhile() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": "https://192.0.1.1/hooks", "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        collector.submit(&form, "Ann").await;
        expand(&app, 1).await;
        let id = WebhookId::parse(&webhook).expect("an id");
        let lease = Duration::from_mins(2);
        let held = lane::claim(&app.store, id, 1, lease).await.expect("leases").remove(0);
        let (before, head) = held.head(&app.store).await.expect("read").expect("it waits");
        update(&editor, &webhook, "url: \"https://192.0.1.1/elsewhere\"").await;
        let gone = AttemptOutcome::Failed(FailedAttempt {
            status: Some(410),
            why: "The receiver answered 410 Gone.".to_owned(),
            disables: Some(DisableCode::Gone),
            ..FailedAttempt::default()
        });
        let settled = held.settle(&app.store, (&before, &head), &gone, lease).await.expect("settled");
        assert_eq!(settled, Settled::Rests { is_tried_again: true, disabled: None });
        assert_eq!(deliveries(&app, &webhook).await[0]["status"], "PENDING");
        let state = update(&editor, &webhook, "isEnabled: false").await;
        assert_eq!(state["disabledReason"], Value::Null);
    }
}

#[tokio::test]
async fn another_address_is_tried_at_once() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::answering(|got, _| if got.path == "/old" { 503 } else { 200 }).await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("old"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let running = deliver(&app);
        collector.submit(&form, "Ann").await;
        until(|| async { deliveries(&app, &webhook).await.iter().any(|row| row["attempts"] != 0) }).await;
        app.sql("update webhook_lanes set due_at = '2100-01-01T00:00:00+00:00' where due_at is not null")
            .await;
        update(&editor, &webhook, &format!("url: \"{}\"", receiver.url("new"))).await;
        assert_eq!(app.count("webhooks where url like '%/new' and failing_since is not null").await, 0);
        receiver.wait_until_taken("new", 1).await;
        running.stop().await;
    }
}
