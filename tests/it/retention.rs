//! What is too old goes, and nothing else: positions, the activity log, ended sessions and untaken
//! invalidations, on both databases, with caches that never show what is gone. Not here: when a server does
//! it (`growth`).

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entities::{
    Role,
    clock::{self, Time},
    id,
    retention::{Removed, RetentionTimes, remove_old},
};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, text};

const DAY: Duration = Duration::from_hours(24);
const FOR_EVER: RetentionTimes = RetentionTimes {
    locations: None,
    activity: None,
    sessions: Duration::from_hours(100 * 365 * 24),
    outbox: Duration::from_hours(100 * 365 * 24),
    events: Duration::from_hours(100 * 365 * 24),
    deliveries: Duration::from_hours(100 * 365 * 24),
};

async fn remove(app: &TestApp, times: RetentionTimes) -> Option<Removed> {
    remove_old(&app.store, &times, clock::now(), migration::LOCK).await.expect("removed")
}

fn days_ago(days: i64) -> Time {
    clock::now() - TimeDelta::days(days)
}

/// A time as each database has it in SQL.
fn literal(app: &TestApp, time: Time) -> String {
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, false);
    if app.is_postgres() { format!("'{time}'::timestamptz") } else { format!("'{time}'") }
}

const RECORD: &str = "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) {
    acceptedCount results { location { id } } } }";

/// Records positions of these ages in days; their ids.
async fn record(client: &Client<'_>, ages: &[i64]) -> Vec<String> {
    let point = |age: &i64| json!({ "timestamp": days_ago(*age), "latitude": 52.5, "longitude": 13.4 });
    let points: Vec<Value> = ages.iter().map(point).collect();
    let answer = client.run(RECORD, json!({ "input": { "points": points } })).await.expect_data(RECORD);
    let results = answer["recordLocations"]["results"].as_array().expect("a list").clone();
    results.iter().map(|result| text(&result["location"]["id"])).collect()
}

/// Positions of the oldest ages lie in months of their own on PostgreSQL, but for the very oldest.
const AGES: [i64; 7] = [900, 130, 100, 62, 58, 10, 1];
const KEPT_DAYS: u32 = 60;

/// How many rows a table has from before and after so many days ago.
async fn by_age(app: &TestApp, table: &str, column: &str) -> [i64; 2] {
    let limit = literal(app, days_ago(i64::from(KEPT_DAYS)));
    let count = async |sign: &str| app.count(&format!("{table} where \"{column}\" {sign} {limit}")).await;
    [count("<").await, count(">=").await]
}

#[tokio::test]
async fn old_positions_go_and_no_cache_shows_them() {
    for app in TestApp::both_own().await {
        let months =
            migration::ensure_partitions_between(app.store.connection(), days_ago(140), clock::now());
        months.await.expect("made");
        let app = app.with_cache().await;
        // One who has newer positions, and one who has only old ones.
        let (collector, editor) = (app.as_role(Role::Collector), app.as_role(Role::Editor));
        for table in ["user_locations", "user_last_locations"] {
            let of = TestApp::account(Role::Editor).0;
            let of = if app.is_postgres() { format!("'{of}'") } else { format!("x'{}'", of.simple()) };
            app.sql(&format!("delete from {table} where user_id = {of}")).await;
        }
        let ids = record(&collector, &AGES).await;
        let as_manager = app.as_role(Role::Manager);
        record(&editor, &[300, 90]).await;
        let location = async |id: &str| {
            let query = format!("{{ location(id: \"{id}\") {{ id }} }}");
            as_manager.ask(&query).await["location"].clone()
        };
        let last = async |client: &Client<'_>| {
            client.ask("{ me { lastLocation { id } } }").await["me"]["lastLocation"].clone()
        };
        let page = async |arguments: &str| {
            let query = format!(
                "{{ me {{ locations({arguments}) {{ totalCount nodes {{ id }} pageInfo {{ endCursor hasNextPage \
                 hasPreviousPage }} }} }} }}"
            );
            collector.ask(&query).await["me"]["locations"].clone()
        };
        // All of it twice, so that it is in the caches.
        for _ in 0..2 {
            for id in &ids {
                assert_eq!(location(id).await["id"], json!(id));
            }
            assert_eq!(last(&collector).await["id"], json!(ids[6]));
            assert!(!last(&editor).await.is_null());
        }
        let oldest = page("last: 2").await;
        assert_eq!(oldest["nodes"][0]["id"], json!(ids[1]), "the second oldest");
        let cursor = text(&page("last: 2").await["pageInfo"]["endCursor"]);
        let (positions, log) =
            (by_age(&app, "user_locations", "timestamp").await, app.count("user_activity_logs").await);
        let users = app.count("users").await;

        let kept = DAY * KEPT_DAYS;
        let removed =
            remove(&app, RetentionTimes { locations: Some(kept), ..FOR_EVER }).await.expect("its turn");
        println!("{removed:?} of {positions:?}");
        assert_eq!(removed.months > 0, app.is_postgres(), "{removed:?}");
        assert!(removed.rows > 0, "and what is not a whole month: {removed:?}");
        for (index, id) in ids.iter().enumerate() {
            let wanted = if index < 4 { Value::Null } else { json!({ "id": id }) };
            assert_eq!(location(id).await, wanted, "{} days ago", AGES[index]);
        }
        assert_eq!(last(&collector).await["id"], json!(ids[6]));
        assert_eq!(
            last(&editor).await,
            Value::Null,
            "the newest of an account goes, too, when it is too old"
        );
        assert_eq!(by_age(&app, "user_locations", "timestamp").await, [0, positions[1]]);
        assert_eq!(by_age(&app, "user_last_locations", "timestamp").await[0], 0);
        assert_eq!(app.count("user_activity_logs").await, log, "the log is kept");
        assert_eq!(app.count("users").await, users);
        // A cursor into what is gone: nothing comes after it, and all that is left before it.
        let after = page(&format!("first: 5, after: \"{cursor}\"")).await;
        assert_eq!(
            (&after["nodes"], &after["pageInfo"]["hasNextPage"]),
            (&json!([]), &json!(false)),
            "{after}"
        );
        let left = after["totalCount"].as_u64().expect("a count");
        let before = page(&format!("last: 100, before: \"{cursor}\"")).await;
        assert_eq!(
            before["nodes"].as_array().map(|nodes| nodes.len() as u64),
            Some(left.min(100)),
            "{before}"
        );
        assert_eq!(before["totalCount"], json!(left));
        // Again, there is nothing.
        let again = remove(&app, RetentionTimes { locations: Some(kept), ..FOR_EVER }).await;
        assert_eq!(again, Some(Removed::default()));
    }
}

#[tokio::test]
async fn old_entries_of_the_log_go() {
    for app in TestApp::both_own().await {
        let app = app.with_cache().await;
        let admin = app.as_admin();
        // More than go in one transaction, of months without a partition.
        let (old, new) = (literal(&app, days_ago(61)), literal(&app, days_ago(1)));
        for (age, rows) in [(&old, 2_500), (&new, 10)] {
            let insert = if app.is_postgres() {
                format!(
                    "insert into user_activity_logs (id, action_type, metadata, created_at)
                     select gen_random_uuid(), 'form.create', '{{}}', {age} from generate_series(1, {rows})"
                )
            } else {
                format!(
                    "with recursive n (i) as (select 1 union all select i + 1 from n where i < {rows})
                     insert into user_activity_logs (id, action_type, metadata, created_at)
                     select randomblob(16), 'form.create', '{{}}', {age} from n"
                )
            };
            app.sql(&insert).await;
        }
        let before = by_age(&app, "user_activity_logs", "created_at").await;
        assert!(before[0] >= 2_500 && before[1] >= 10, "{before:?}");
        let locations = app.count("user_locations").await;
        let oldest = "{ activityLogs(last: 1) { totalCount nodes { id } } }";
        let id = text(&admin.ask(oldest).await["activityLogs"]["nodes"][0]["id"]);
        let by_id = format!("{{ activityLog(id: \"{id}\") {{ id }} }}");
        assert_eq!(admin.ask(&by_id).await["activityLog"]["id"], json!(id));
        let removed = remove(&app, RetentionTimes { activity: Some(DAY * KEPT_DAYS), ..FOR_EVER }).await;
        assert!(removed.is_some_and(|removed| !removed.is_empty()), "{removed:?}");
        assert_eq!(by_age(&app, "user_activity_logs", "created_at").await, [0, before[1]]);
        assert_eq!(app.count("user_locations").await, locations, "positions are kept");
        assert_eq!(admin.ask(&by_id).await["activityLog"], Value::Null, "no cache shows it");
        assert_eq!(admin.ask(oldest).await["activityLogs"]["totalCount"], json!(before[1]));
    }
}

#[tokio::test]
async fn sessions_go_some_time_after_their_end() {
    for app in TestApp::both_own().await {
        let app = app.with_cache().await;
        let collector = app.as_role(Role::Collector);
        let list = "{ me { sessions(first: 100) { totalCount nodes { id } } } }";
        let ids = async |sessions: &Value| -> Vec<String> {
            let nodes = sessions["me"]["sessions"]["nodes"].as_array().expect("a list").clone();
            nodes.iter().map(|node| text(&node["id"])).collect()
        };
        let all = ids(&collector.ask(list).await).await;
        assert!(all.len() >= 3, "{all:?}");
        let (long_ago, lately, later) =
            (literal(&app, days_ago(100)), literal(&app, days_ago(80)), literal(&app, days_ago(-80)));
        let blob = |id: &String| {
            if app.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.replace('-', "")) }
        };
        app.sql(&format!("update user_sessions set revoked_at = null, ends_at = null, expires_at = {later}"))
            .await;
        app.sql(&format!("update user_sessions set expires_at = {long_ago} where id = {}", blob(&all[0])))
            .await;
        app.sql(&format!("update user_sessions set revoked_at = {lately} where id = {}", blob(&all[1])))
            .await;
        // What the tables say is read anew, and kept.
        let app = app.with_cache().await;
        let collector = app.as_role(Role::Collector);
        for _ in 0..2 {
            assert_eq!(ids(&collector.ask(list).await).await, all);
        }
        let count = app.count("user_sessions").await;
        let removed = remove(&app, RetentionTimes { sessions: DAY * 90, ..FOR_EVER }).await;
        assert_eq!(removed, Some(Removed { months: 0, rows: 1 }));
        assert_eq!(app.count("user_sessions").await, count - 1);
        assert_eq!(ids(&collector.ask(list).await).await, all[1..], "no cache shows it");
    }
}

#[tokio::test]
async fn invalidations_that_nobody_took_go() {
    for app in TestApp::both_own().await {
        let old = uuid::Builder::from_unix_timestamp_millis(days_ago(2).timestamp_millis() as u64, &[7; 10]);
        for id in [old.into_uuid(), id::new()] {
            let id = if app.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.simple()) };
            app.sql(&format!("insert into cache_outbox values ({id}, '16')")).await;
        }
        let removed = remove(&app, RetentionTimes { outbox: DAY, ..FOR_EVER }).await;
        assert_eq!(removed, Some(Removed { months: 0, rows: 1 }));
        assert_eq!(app.count("cache_outbox").await, 1);
    }
}

/// An old month with many rows, which somebody reads in a transaction that does not end.
#[tokio::test]
async fn a_month_that_is_read_makes_nobody_wait_and_goes_at_last() {
    let app = TestApp::over(&crate::harness::db::own_postgres().await).await;
    let long_ago = days_ago(900);
    let made = migration::ensure_partitions_between(app.store.connection(), long_ago, long_ago).await;
    assert_eq!(made.expect("made"), 2);
    let month = format!("user_locations_{}", long_ago.format("%Y_%m"));
    app.sql(&format!(
        "insert into user_locations (id, user_id, \"timestamp\", received_at, latitude, longitude)
         select gen_random_uuid(), gen_random_uuid(), '{long_ago}'::timestamptz, now(), 1, 2
         from generate_series(1, 100000)"
    ))
    .await;
    let is_there = async || app.count(&format!("pg_class where relname = '{month}'")).await == 1;
    let times = RetentionTimes { locations: Some(DAY * 300), ..FOR_EVER };

    // Others have their turn, or are at the partitions.
    let another = app.over_store(app.another_store().await);
    let holder = another.store.connection().begin().await.expect("it begins");
    let lock = format!("select pg_advisory_xact_lock({})", migration::LOCK);
    holder.execute_unprepared(&lock).await.expect("held");
    assert_eq!(remove(&app, times).await, None);
    holder.rollback().await.expect("let go");
    app.sql("create table user_locations_next (id uuid)").await;
    assert_eq!(remove(&app, times).await, None, "while rows are copied none is removed");
    app.sql("drop table user_locations_next").await;
    assert!(is_there().await);

    let holder = another.store.connection().begin().await.expect("it begins");
    holder.execute_unprepared(&format!("select count(*) from {month}")).await.expect("read");
    let removing = {
        let store = app.store.clone();
        tokio::spawn(async move { remove_old(&store, &times, clock::now(), migration::LOCK).await })
    };
    let (began, mut reads) = (Instant::now(), 0);
    let collector = another.as_role(Role::Collector);
    while began.elapsed() < Duration::from_secs(4) {
        let using = async {
            collector.ask("{ me { locations(first: 1) { totalCount } } }").await;
            record(&collector, &[0]).await;
        };
        tokio::time::timeout(Duration::from_secs(20), using).await.expect("nobody waits for long");
        reads += 1;
    }
    assert!(reads > 4, "others go on: {reads}");
    assert!(is_there().await && !removing.is_finished(), "it is still tried");
    holder.rollback().await.expect("it ends");
    let removed = tokio::time::timeout(Duration::from_mins(1), removing).await.expect("in time");
    let removed = removed.expect("no panic").expect("removed").expect("its turn");
    assert!(removed.months >= 1 && !is_there().await, "{removed:?}");
}
