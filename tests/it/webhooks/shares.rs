//! What one account, webhook or form takes of the deliveries, and what it leaves to others. Not here:
//! webhooks that fail (`failing`).

use std::time::Duration;

use entities::{
    Role,
    id::{FormId, WebhookId},
};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::json;
use xp::webhooks::WebhookSettings;

use super::{
    apps, create, deliver_from,
    failing::expand,
    hurry,
    receiver::{Receiver, until},
    settings,
};
use crate::harness::TestApp;

#[tokio::test]
async fn an_account_with_many_slow_webhooks_delays_no_other_account() {
    for app in apps().await {
        let (editor, manager) = (app.as_role(Role::Editor), app.as_role(Role::Manager));
        let slow = Receiver::answering_after(|_, _| (200, Duration::from_hours(1))).await;
        let quick = Receiver::start().await;
        let (one, other) = (editor.open_form("Visit").await, manager.open_form("Visit").await);
        let input =
            |url, form: &str| json!({ "url": url, "events": ["SUBMISSION_CREATED"], "formIds": [form] });
        for _ in 0..10 {
            create(&editor, input(slow.url("hook"), &one)).await;
        }
        create(&manager, input(quick.url("hook"), &other)).await;
        let settings = WebhookSettings { timeout: Duration::from_mins(10), concurrency: 8, ..settings() };
        let running = deliver_from(&app, &app.store, settings);
        let collector = app.as_role(Role::Collector);
        collector.submit(&one, "Ann").await;
        slow.wait_for("hook", 4).await;
        collector.submit(&other, "Bob").await;
        quick.wait_until_taken("hook", 1).await;
        assert_eq!(slow.got("hook").len(), 4, "half of all, since nobody else had anything to deliver");
        drop(running);
    }
}

#[tokio::test]
async fn a_form_with_many_deliveries_takes_turns_with_others() {
    const MANY: usize = 45;
    for app in apps().await {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let receiver = Receiver::start().await;
        let (busy, other) = (editor.open_form("Visit").await, editor.open_form("Visit").await);
        let input = |form: &str| json!({ "url": receiver.url("hook"), "events": ["SUBMISSION_CREATED"], "formIds": [form] });
        create(&editor, input(&busy)).await;
        for number in 0..MANY {
            collector.submit(&busy, &number.to_string()).await;
        }
        create(&editor, input(&other)).await;
        collector.submit(&other, "other").await;
        expand(&app, MANY + 1).await;
        // The busy one has waited longer.
        hurry(&app).await;
        let form = FormId::parse(&other).expect("an id").0;
        let later = "update webhook_lanes set due_at = '2021-01-01T00:00:00+00:00' where form_id = ";
        let other_id = if app.is_postgres() { format!("'{form}'") } else { format!("x'{}'", form.simple()) };
        app.sql(&format!("{later}{other_id}")).await;
        let running = deliver_from(&app, &app.store, WebhookSettings { concurrency: 1, ..settings() });
        let got = receiver.wait_until_taken("hook", MANY + 1).await;
        let place = got.iter().position(|got| got.json()["data"]["form"]["id"] == *other);
        assert!(place.is_some_and(|place| (1..=20).contains(&place)), "after one turn: {place:?}");
        running.stop().await;
    }
}

/// What the reader of the log locks one after the other, another instance's reader for instance.
#[tokio::test]
async fn who_changes_a_webhook_waits_for_deliveries_that_are_being_made() {
    for app in apps().await.into_iter().filter(TestApp::is_postgres) {
        let (editor, collector) = (app.as_role(Role::Editor), app.as_role(Role::Collector));
        let form = editor.open_form("Visit").await;
        let input = json!({ "url": "https://192.0.1.1/hooks", "events": ["SUBMISSION_CREATED"] });
        let (webhook, _) = create(&editor, input).await;
        collector.submit(&form, "Ann").await;
        expand(&app, 1).await;
        let id = WebhookId::parse(&webhook).expect("an id").0;
        let changes = [
            format!("updateWebhook(input: {{ id: \"{webhook}\", url: \"https://192.0.1.1/others\" }})"),
            format!("updateWebhook(input: {{ id: \"{webhook}\", isEnabled: false }})"),
            format!("updateWebhook(input: {{ id: \"{webhook}\", isEnabled: true }})"),
            format!("deleteWebhook(input: {{ id: \"{webhook}\" }})"),
        ];
        let waits = "pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        for change in &changes {
            let making = app.store.connection().begin().await.expect("begun");
            let steps = [
                "update event_consumers set number = number".to_owned(),
                // A lane of a form that had none: its webhook stays as it is until this is committed.
                format!("insert into webhook_lanes (webhook_id, form_id) values ('{id}', gen_random_uuid())"),
            ];
            for step in &steps {
                making.execute_unprepared(step).await.expect("it is done");
            }
            let query = format!("mutation {{ {change} {{ userErrors {{ code }} }} }}");
            let making = async {
                until(|| async { app.count(waits).await == 1 }).await;
                // Sooner than the database would look for a deadlock, and the server would try again.
                making.execute_unprepared("set local lock_timeout = '500ms'").await.expect("it is set");
                let wake = format!("update webhook_lanes set due_at = now() where webhook_id = '{id}'");
                making.execute_unprepared(&wake).await.unwrap_or_else(|error| panic!("{change}: {error}"));
                making.commit().await.expect("committed");
            };
            let (changed, ()) = tokio::join!(editor.run(&query, json!({})), making);
            assert!(changed.errors.is_empty(), "{change}: {}", changed.body);
        }
    }
}
