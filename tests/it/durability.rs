//! The server killed in the middle of its work, again and again: every position that it acknowledged is in
//! the database, and none is there twice. Not here: the machine itself failing, which is up to the database.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    TestApp, db,
    process::{self, Server},
};

const KILLS: usize = 20;
const WRITERS: usize = 4;
const POINTS: usize = 20;

/// A batch of points, each of its own name.
fn batch(writer: usize, round: usize) -> Value {
    let point = |index: usize| {
        json!({
            "clientId": format!("{writer}-{round}-{index}"), "longitude": 13.4, "latitude": 52.5,
            "timestamp": format!("2026-01-{:02}T{:02}:{:02}:{:02}Z", writer + 1, round / 60 % 24, round % 60, index),
        })
    };
    json!({ "input": { "points": (0..POINTS).map(point).collect::<Vec<_>>() } })
}

const RECORD: &str = "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) {
    rejectedCount results { location { id } } } }";

/// Sends a batch; the ids of its points, once they are acknowledged.
fn send(address: &str, token: &str, variables: &Value) -> Option<Vec<String>> {
    let answer = process::ask(address, token, RECORD, variables)?;
    assert_eq!(answer["errors"], Value::Null, "{answer}");
    let recorded = &answer["data"]["recordLocations"];
    assert_eq!(recorded["rejectedCount"], 0, "{answer}");
    let results = recorded["results"].as_array()?.iter();
    results.map(|result| Some(result["location"]["id"].as_str()?.to_owned())).collect()
}

/// Writes batch after batch until the server is gone; a batch that was not acknowledged is sent again next time.
fn write(address: &str, token: &str, writer: usize, round: &mut usize, acknowledged: &mut Vec<String>) {
    while let Some(ids) = send(address, token, &batch(writer, *round)) {
        acknowledged.extend(ids);
        *round += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_server_and_is_there_once() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let app = TestApp::over(&url).await;
        let before = total(&app).await;
        let token = process::mint(&url, "collector@example.com", &[]);
        let mut writers: Vec<(usize, Vec<String>)> = vec![(0, Vec::new()); WRITERS];
        for kill in 0..KILLS {
            let mut server = Server::start(&url, &[]);
            let address = server.address.clone();
            thread::scope(|scope| {
                for (writer, (round, acknowledged)) in writers.iter_mut().enumerate() {
                    let (address, token) = (&address, &token);
                    scope.spawn(move || write(address, token, writer, round, acknowledged));
                }
                // At another moment of the work each time.
                thread::sleep(Duration::from_millis(150 + 37 * kill as u64));
                server.kill();
            });
        }
        let acknowledged: Vec<&String> = writers.iter().flat_map(|(_, ids)| ids).collect();
        assert!(acknowledged.len() > KILLS * POINTS, "{} points were acknowledged", acknowledged.len());
        for ids in acknowledged.chunks(100) {
            let query = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }";
            let data = app.as_admin().run(query, json!({ "ids": ids })).await.expect_data(query);
            let found = data["nodes"].as_array().expect("a list").iter().map(|node| node["id"].as_str());
            assert!(found.eq(ids.iter().map(|id| Some(id.as_str()))), "an acknowledged point is gone");
        }
        // Each writer has at most one batch of which it does not know what has become.
        let stored = total(&app).await - before;
        let sent: usize = writers.iter().map(|(round, _)| round * POINTS).sum();
        assert_eq!(acknowledged.len(), sent);
        assert!((sent..=sent + WRITERS * POINTS).contains(&stored), "{stored} stored of {sent} acknowledged");
    }
}

/// All positions of all accounts.
async fn total(app: &TestApp) -> usize {
    let query = "{ users(first: 100) { nodes { locations(first: 1) { totalCount } } } }";
    let data = app.as_admin().ask(query).await;
    let users = data["users"]["nodes"].as_array().expect("a list").iter();
    users.map(|user| user["locations"]["totalCount"].as_u64().expect("a count") as usize).sum()
}
