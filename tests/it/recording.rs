//! Recording positions: each point of a batch by itself, each stored once however often and in whatever order it comes,
//! the newest by the device's clock kept beside the history. Not here: reading positions (`corpus`, `pages`).

use entities::{Role, clock, events::ChangeEvent};
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, text};

const RECORD: &str = "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) {
    acceptedCount duplicateCount rejectedCount
    results { outcome location { id timestamp latitude longitude heading user { id } session { id } }
        userErrors { code path message } } } }";

/// A point so many minutes ago.
fn point(minutes_ago: i64, latitude: f64) -> Value {
    let time = clock::now() - chrono::TimeDelta::minutes(minutes_ago);
    json!({"timestamp": time, "latitude": latitude, "longitude": 13.5})
}

async fn record(client: &Client<'_>, points: &[Value]) -> Value {
    let input = json!({"input": {"points": points}});
    client.run(RECORD, input).await.expect_data(RECORD)["recordLocations"].take()
}

/// Accepted, duplicate and rejected points.
fn counts(answer: &Value) -> [u64; 3] {
    ["acceptedCount", "duplicateCount", "rejectedCount"].map(|name| answer[name].as_u64().expect("a count"))
}

async fn stored(client: &Client<'_>) -> u64 {
    let data = client.ask("{ me { locations(first: 1) { totalCount } } }").await;
    data["me"]["locations"]["totalCount"].as_u64().expect("a count")
}

#[tokio::test]
async fn points_are_stored_once_and_leave_one_entry() {
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let before = stored(&collector).await;
        let first = point(3, 52.5);
        let points = [first.clone(), point(2, 52.6), first, point(1, 52.7)];
        let reply = collector.run(RECORD, json!({"input": {"points": points}})).await;
        let points_stored = ["location.insert", "location.replace_last"];
        let writes = [&points_stored, app.log_statements(), &["location.by_ids"]].concat();
        assert_eq!(reply.statements()[..writes.len()], writes);
        let answer = &reply.expect_data(RECORD)["recordLocations"];
        assert_eq!(counts(answer), [3, 1, 0]);
        let outcomes: Vec<&Value> =
            answer["results"].as_array().expect("a list").iter().map(|result| &result["outcome"]).collect();
        assert_eq!(outcomes, ["ACCEPTED", "ACCEPTED", "DUPLICATE", "ACCEPTED"]);
        assert_eq!(answer["results"][2]["location"], answer["results"][0]["location"]);
        assert_eq!(answer["results"][1]["location"]["latitude"], 52.6);

        let again = record(&collector, &points).await;
        assert_eq!(counts(&again), [0, 4, 0]);
        assert_eq!(again["results"][3]["location"], answer["results"][3]["location"]);
        assert_eq!(stored(&collector).await, before + 3);
        let log = collector
            .ask("{ me { activity(first: 2, filter: {actionTypes: [\"location.record\"]}) { nodes { metadata } } } }")
            .await;
        let wanted = json!([{"metadata": {"accepted": 3, "duplicates": 1}}]);
        assert_eq!(log["me"]["activity"]["nodes"], wanted, "what stores nothing leaves no entry");
    }
}

#[tokio::test]
async fn the_newest_position_is_the_one_of_the_latest_device_time() {
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let last = async || {
            let data = collector.ask("{ me { lastLocation { id latitude } } }").await;
            data["me"]["lastLocation"]["latitude"].as_f64()
        };
        let mut changes = app.store.events().subscribe();
        record(&collector, &[point(-2, 1.5)]).await;
        assert_eq!(last().await, Some(1.5));
        assert_eq!(changes.try_recv().expect("announced").len(), 1);
        record(&collector, &[point(60, 2.5), point(50, 3.5)]).await;
        assert_eq!(last().await, Some(1.5), "what comes late is history");
        let history = changes.try_recv().expect("those who show it are told");
        assert!(matches!(history[..], [ChangeEvent::Locations { .. }]), "and no news");
        record(&collector, &[point(40, 4.5), point(-4, 5.5), point(-3, 6.5)]).await;
        assert_eq!(last().await, Some(5.5));
    }
}

#[tokio::test]
async fn points_of_any_month_are_stored_and_found() {
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let times = [
            "0001-01-01T00:00:00Z",
            "1969-12-31T23:59:59.9Z",
            "1999-07-01T00:00:00+14:00",
            "2015-02-28T12:00:00Z",
        ];
        let points: Vec<Value> =
            times.iter().map(|time| json!({"timestamp": time, "latitude": 1, "longitude": -180})).collect();
        assert_eq!(counts(&record(&collector, &points).await), [4, 0, 0]);
        let again = record(&collector, &points).await;
        assert_eq!(counts(&again), [0, 4, 0]);
        for result in again["results"].as_array().expect("a list") {
            let id = text(&result["location"]["id"]);
            let found = collector.ask(&format!("{{ node(id: \"{id}\") {{ id }} }}")).await;
            assert_eq!(found["node"]["id"], result["location"]["id"]);
        }
    }
}

#[tokio::test]
async fn a_batch_of_a_thousand_is_judged_point_by_point() {
    type Bad = (&'static str, Value, &'static str);
    let bad: [Bad; 15] = [
        ("latitude", json!(90.000_001), "TOO_LARGE"),
        ("latitude", json!(-91), "TOO_SMALL"),
        ("latitude", json!(1e300), "TOO_LARGE"),
        ("longitude", json!(180.5), "TOO_LARGE"),
        ("longitude", json!(-180.5), "TOO_SMALL"),
        ("accuracy", json!(-0.1), "TOO_SMALL"),
        ("speed", json!(-1), "TOO_SMALL"),
        ("heading", json!(360), "TOO_LARGE"),
        ("heading", json!(-0.5), "TOO_SMALL"),
        ("timestamp", json!("9999-12-31T23:59:59Z"), "TOO_LARGE"),
        ("timestamp", json!(clock::now() + chrono::TimeDelta::minutes(6)), "TOO_LARGE"),
        ("clientId", json!(""), "INVALID"),
        ("clientId", json!("x".repeat(201)), "TOO_LARGE"),
        ("heading", json!(-1e9), "TOO_SMALL"),
        ("longitude", json!(1e9), "TOO_LARGE"),
    ];
    let mut points: Vec<Value> = (0..1_000).map(|index| point(index, 10.0 + index as f64 / 100.0)).collect();
    for (index, (field, value, _)) in bad.iter().enumerate() {
        points[index * 60][*field] = value.clone();
    }
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let before = stored(&collector).await;
        let answer = record(&collector, &points).await;
        assert_eq!(counts(&answer), [985, 0, 15]);
        for (index, result) in answer["results"].as_array().expect("a list").iter().enumerate() {
            let wanted = bad.get(index / 60).filter(|_| index % 60 == 0);
            let Some((field, _, code)) = wanted else {
                assert_eq!((&result["outcome"], &result["userErrors"]), (&json!("ACCEPTED"), &json!([])));
                assert_eq!(result["location"]["latitude"], points[index]["latitude"]);
                continue;
            };
            assert_eq!((&result["outcome"], &result["location"]), (&json!("REJECTED"), &Value::Null));
            let error = &result["userErrors"][0];
            let path = json!(["input", "points", index.to_string(), field]);
            assert_eq!((&error["code"], &error["path"]), (&json!(code), &path));
        }
        assert_eq!(counts(&record(&collector, &points).await), [0, 985, 15]);
        assert_eq!(stored(&collector).await, before + 985);
    }
}

/// What a device cannot send otherwise must not keep the rest in its outbox.
#[tokio::test]
async fn a_point_that_cannot_be_read_is_refused_by_itself_and_named() {
    type Bad = (&'static str, Option<Value>, &'static str, &'static [&'static str]);
    let bad: [Bad; 9] = [
        ("timestamp", Some(json!("2026-11-01 01:00")), "INVALID", &["timestamp"]),
        ("timestamp", Some(json!("9999-12-31T23:59:59-01:00")), "INVALID", &["timestamp"]),
        ("timestamp", Some(Value::Null), "REQUIRED", &["timestamp"]),
        ("timestamp", None, "REQUIRED", &["timestamp"]),
        ("latitude", Some(json!("10.5")), "INVALID", &["latitude"]),
        ("longitude", Some(json!([1])), "INVALID", &["longitude"]),
        ("clientId", Some(json!(true)), "INVALID", &["clientId"]),
        ("lattitude", Some(json!(1)), "INVALID", &[]),
        ("", None, "REQUIRED", &[]),
    ];
    let mut points: Vec<Value> = (0..1_000).map(|index| point(index, 10.0)).collect();
    for (index, (field, value, ..)) in bad.iter().enumerate() {
        let point = &mut points[index * 100 + 7];
        match (value, field.is_empty()) {
            (Some(value), _) => point[*field] = value.clone(),
            (None, false) => drop(point.as_object_mut().expect("an object").remove(*field)),
            (None, true) => *point = Value::Null,
        }
    }
    let list = RECORD.replace("$input: RecordLocationsInput!", "$points: [LocationPointInput!]!");
    let list = list.replace("input: $input", "input: { points: $points }");
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let before = stored(&collector).await;
        for counted in [[991, 0, 9], [0, 991, 9]] {
            let answer = if counted[0] > 0 {
                record(&collector, &points).await
            } else {
                let reply = collector.run(&list, json!({ "points": points })).await;
                reply.expect_data(&list)["recordLocations"].take()
            };
            assert_eq!(counts(&answer), counted);
            for (index, (_, _, code, path)) in bad.iter().enumerate() {
                let at = index * 100 + 7;
                let result = &answer["results"][at];
                assert_eq!((&result["outcome"], &result["location"]), (&json!("REJECTED"), &Value::Null));
                let at = at.to_string();
                let path: Vec<&str> =
                    ["input", "points", &at].into_iter().chain(path.iter().copied()).collect();
                let error = &result["userErrors"][0];
                assert_eq!((&error["code"], &error["path"]), (&json!(code), &json!(path)));
            }
        }
        assert_eq!(stored(&collector).await, before + 991);

        // What is no batch is named by its place, and nothing of it is repeated.
        for (input, place) in [
            (json!({ "points": 5 }), "input.points"),
            (json!({ "points": null }), "input.points"),
            (json!({}), "input.points"),
        ] {
            let reply = collector.run(RECORD, json!({ "input": input })).await;
            if input["points"] == 5 {
                // One value stands for a list of one.
                assert_eq!(counts(&reply.expect_data(RECORD)["recordLocations"]), [0, 0, 1]);
                continue;
            }
            let message = text(&reply.errors[0]["message"]);
            let wanted = format!(
                "Variable \"$input\" got an invalid value at \"{place}\": A value of type \"[LocationPointInput!]!\" is required."
            );
            assert_eq!((message, reply.codes), (wanted, vec!["BAD_USER_INPUT".to_owned()]));
        }
    }
}

/// Both spellings of a name are the same name.
#[tokio::test]
async fn a_point_is_known_by_its_name_in_either_normal_form() {
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let mut points = [point(1, 52.5), point(1, 52.5)];
        points[1]["timestamp"] = points[0]["timestamp"].clone();
        points[0]["clientId"] = json!("\u{e9}tape");
        points[1]["clientId"] = json!("e\u{301}tape");
        assert_eq!(counts(&record(&collector, &points).await), [1, 1, 0]);
    }
}

#[tokio::test]
async fn too_many_points_and_readers_are_refused() {
    let [app, _] = TestApp::both_own().await;
    let points = |count| json!({"input": {"points": vec![point(1, 1.0); count]}});
    let codes = async |client: Client<'_>, count| client.run(RECORD, points(count)).await.codes;
    assert_eq!(codes(app.as_role(Role::Collector), 1_001).await, ["BAD_USER_INPUT"]);
    assert_eq!(codes(app.as_role(Role::Viewer), 1).await, ["FORBIDDEN"]);
    assert_eq!(codes(app.anonymous(), 1).await, ["UNAUTHENTICATED"]);
    assert_eq!(codes(app.service(), 1).await, ["UNAUTHENTICATED"]);
    for role in [Role::Admin, Role::Manager, Role::Editor, Role::Collector] {
        assert!(codes(app.as_role(role), 0).await.is_empty(), "an empty batch is no mistake");
        assert!(codes(app.as_role(role), 2).await.is_empty());
    }
}

#[tokio::test]
async fn the_same_point_belongs_to_each_user_and_name_apart() {
    for app in TestApp::both_own().await {
        let unnamed = point(1, 52.5);
        let mut named = unnamed.clone();
        named["clientId"] = json!("a");
        let mut moved = named.clone();
        moved["latitude"] = json!(53);
        let points = [unnamed, named, moved];
        let answer = record(&app.as_role(Role::Collector), &points).await;
        assert_eq!(counts(&answer), [2, 1, 0], "a named point is known by its name, wherever it is");
        assert_eq!(answer["results"][2]["location"]["latitude"], 52.5, "the first one counts");
        assert_eq!(counts(&record(&app.as_role(Role::Editor), &points).await), [2, 1, 0]);
    }
}

#[tokio::test]
async fn batches_that_overlap_and_come_at_once_store_each_point_once() {
    for app in TestApp::both_own().await {
        let collector = app.as_role(Role::Collector);
        let before = stored(&collector).await;
        let points: Vec<Value> = (0..50).map(|index| point(index, 1.0)).collect();
        let reversed: Vec<Value> = points.iter().rev().cloned().collect();
        let batches =
            (0..16).map(|index| record(&collector, if index % 2 == 0 { &points } else { &reversed }));
        let answers = futures_util::future::join_all(batches).await;
        let sum = |at: usize| answers.iter().map(|answer| counts(answer)[at]).sum::<u64>();
        assert_eq!((sum(0), sum(1)), (50, 15 * 50));
        assert_eq!(stored(&collector).await, before + 50);
    }
}
