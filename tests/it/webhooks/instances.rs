//! Several instances share the work: what one of them leaves behind, by its end or in its middle, another one
//! does; nothing is lost.

use std::{collections::BTreeSet, time::Duration};

use entities::{
    Role,
    id::WebhookId,
    webhook::{
        expand::{Expanded, Expander},
        lane,
    },
};
use serde_json::json;

use super::{apps, create, deliver_from, deliveries, settings};
use crate::harness::{TestApp, text};

use super::receiver::{Got, Receiver, until};

async fn webhook_id(app: &TestApp, webhook: &str) -> WebhookId {
    assert!(app.ids_of("Webhook").await.contains(&webhook.to_owned()));
    WebhookId::parse(webhook).expect("an id")
}

#[tokio::test]
async fn a_lease_that_runs_out_is_taken_over() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::start().await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let id = webhook_id(&app, &webhook).await;
        // One instance reads the log, takes the lease, and is gone.
        let mut expander = Expander::new(app.store.clone());
        let submission = collector.submit(&form, "Ann").await;
        while !matches!(expander.step().await, Ok(Expanded::Some(1))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let held = lane::claim(&app.store, id, 9, Duration::from_secs(4)).await.expect("leases");
        assert_eq!(held.len(), 1);
        assert_eq!(lane::claim(&app.store, id, 9, Duration::from_secs(4)).await.expect("none").len(), 0);
        let (of, head) = held[0].head(&app.store).await.expect("read").expect("it waits");
        let other = app.another_store().await;
        let running = deliver_from(&app, &other, settings());
        let got = receiver.wait_until_taken("hook", 1).await;
        assert_eq!(got[0].subject(), submission);
        until(|| async { deliveries(&app, &webhook).await[0]["status"] == "DELIVERED" }).await;
        // The first one comes to itself, and its result counts no more.
        let failed = lane::AttemptOutcome::Failed(lane::FailedAttempt::default());
        let settled = held[0].settle(&app.store, (&of, &head), &failed, Duration::from_secs(4)).await;
        assert_eq!(settled.expect("it is asked"), lane::Settled::Lost);
        assert_eq!(deliveries(&app, &webhook).await[0]["status"], "DELIVERED");
        running.stop().await;
    }
}

#[tokio::test]
async fn several_instances_note_each_event_once() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::start().await;
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        let stores = [app.another_store().await, app.another_store().await, app.another_store().await];
        let mut running: Vec<_> = stores.iter().map(|store| deliver_from(&app, store, settings())).collect();
        let mut submitted = Vec::new();
        for number in 0..60 {
            submitted.push(collector.submit(&form, &number.to_string()).await);
            if number == 20 {
                // Without a word, in the middle of whatever it does.
                drop(running.remove(0));
            }
        }
        until(|| async {
            let told: BTreeSet<_> = receiver.taken("hook").iter().map(Got::subject).collect();
            told.len() == submitted.len()
        })
        .await;
        let noted = deliveries(&app, &webhook).await;
        assert_eq!(noted.len(), submitted.len(), "each event is noted once");
        let mut firsts = Vec::new();
        for got in receiver.taken("hook") {
            if !firsts.contains(&got.subject()) {
                firsts.push(got.subject());
            }
        }
        assert_eq!(firsts, submitted, "in order");
        let ids: BTreeSet<_> = receiver.taken("hook").iter().map(|got| got.id().to_owned()).collect();
        assert_eq!(ids.len(), submitted.len(), "what comes twice has the id that it had");
        for running in running {
            running.stop().await;
        }
    }
}

#[tokio::test]
async fn the_log_is_kept_for_what_webhooks_have_yet_to_hear_but_not_for_ever() {
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": "https://192.0.1.1/hooks", "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        for name in ["one", "two", "three", "four"] {
            collector.submit(&form, name).await;
        }
        let left = async |days: i64| {
            let now = entities::clock::now() + chrono::TimeDelta::days(days);
            let kept = Duration::from_hours(24);
            let times = entities::retention::RetentionTimes {
                locations: None,
                activity: None,
                sessions: kept * 10_000,
                outbox: kept,
                events: kept * 7,
                deliveries: kept * 7,
            };
            let removed = entities::retention::remove_old(&app.store, &times, now, migration::LOCK).await;
            removed.expect("removed").expect("its turn");
            app.count("events").await
        };
        let unread = left(8).await;
        assert!(unread >= 5, "the row that was read last, and four that were not: {unread}");
        let mut expander = Expander::new(app.store.clone());
        let mut noted = 0;
        while noted < 4 {
            match expander.step().await.expect("the log is read") {
                Expanded::Some(more) => noted += more,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        assert!(left(8).await < unread, "what is read may go");
        for name in ["five", "six", "seven", "eight"] {
            collector.submit(&form, name).await;
        }
        let unread = left(13).await;
        assert!(left(15).await < unread, "nobody reads: after twice the time it goes");
        // Whoever comes back begins anew, and says so.
        collector.submit(&form, "nine").await;
        let again = create_again(&app, &webhook).await;
        assert!(again, "the webhook is still there");
    }
}

/// A consumer whose position is gone goes on with what is written from then on.
async fn create_again(app: &TestApp, webhook: &str) -> bool {
    let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
    let mut expander = Expander::new(app.store.clone());
    let form = editor.open_form("Visit").await;
    let before = deliveries(app, webhook).await.len();
    for _ in 0..200 {
        collector.submit(&form, "later").await;
        // The lease of the one before has to run out first.
        let _ = expander.step().await;
        if deliveries(app, webhook).await.len() > before {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

#[tokio::test]
async fn without_an_enabled_webhook_nobody_reads_the_log() {
    for app in apps().await {
        let editor = app.as_role(Role::Editor);
        app.sql("update webhooks set is_enabled = false").await;
        let mut expander = Expander::new(app.store.clone());
        assert_eq!(expander.step().await.expect("asked"), Expanded::Unused);
        let input = json!({ "url": "https://192.0.1.1/hooks", "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        assert_eq!(app.count("event_consumers").await, 1);
        assert_ne!(expander.step().await.expect("asked"), Expanded::Unused);
        let delete = format!(
            "mutation {{ deleteWebhook(input: {{ id: \"{webhook}\" }}) {{ deletedWebhookId userErrors {{ code }} }} }}"
        );
        let deleted = editor.ask(&delete).await;
        assert_eq!(text(&deleted["deleteWebhook"]["deletedWebhookId"]), webhook);
        until_unused(&mut expander).await;
        assert_eq!(app.count("event_consumers").await, 0);
    }
}

async fn until_unused(expander: &mut Expander) {
    for _ in 0..600 {
        if matches!(expander.step().await, Ok(Expanded::Unused)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the consumer does not end");
}
