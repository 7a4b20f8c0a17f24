//! The server is killed, again and again, while devices hand in forms and positions: what was acknowledged is in the
//! database, and nothing is there twice. The real program on a PostgreSQL database of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use entities::{Role, id};
use serde_json::{Value, json};

use crate::harness::{
    TestApp, db,
    process::{self, Server},
    text,
};

const KILLS: usize = 20;
const DEVICES: usize = 4;

/// What a device got an answer to: the client id of a submission and the id that it has.
type Acknowledged = Arc<Mutex<HashMap<String, String>>>;

#[test]
fn acknowledged_writes_survive_twenty_kills_exactly_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = runtime.block_on(db::own_postgres());
    let form = runtime.block_on(async {
        let app = TestApp::over(&url).await;
        let editor = app.as_role(Role::Editor);
        let definition = json!({ "schema": 1, "fields": [{ "key": "n", "type": "INTEGER", "label": "N" }] });
        let create = "mutation($d: JSON!) { createForm(input: {title: \"Load\", definition: $d}) { form { id } } }";
        let form = text(&editor.run(create, json!({ "d": definition })).await.expect_data(create)["createForm"]["form"]["id"]);
        editor.ask(&format!(r#"mutation {{ publishForm(input: {{id: "{form}", baseRevision: 1}}) {{ form {{ id }} }} }}"#)).await;
        form
    });
    let token = process::mint(&url, "collector@example.com", &[]);
    let acknowledged = Acknowledged::default();
    for _ in 0..KILLS {
        let mut server = Server::start(&url, &[]);
        let over = Arc::new(AtomicBool::new(false));
        let devices: Vec<_> = (0..DEVICES)
            .map(|_| {
                let (address, form, token) = (server.address.clone(), form.clone(), token.clone());
                let (acknowledged, over) = (Arc::clone(&acknowledged), Arc::clone(&over));
                thread::spawn(move || hand_in(&address, &form, &token, &acknowledged, &over))
            })
            .collect();
        let before = count(&acknowledged);
        // Killed in the middle of the work, not before it began.
        while count(&acknowledged) < before + 25 {
            assert!(server.runs(), "the server ended by itself");
            thread::sleep(Duration::from_millis(1));
        }
        server.kill();
        over.store(true, Ordering::Relaxed);
        for device in devices {
            device.join().expect("a device does not panic");
        }
    }
    runtime.block_on(async {
        let app = TestApp::over(&url).await;
        let stored = stored(&app, &form).await;
        let acknowledged = acknowledged.lock().expect("no device panicked");
        assert!(acknowledged.len() >= KILLS * 25);
        for (client, submission) in acknowledged.iter() {
            assert_eq!(stored.get(client), Some(&vec![submission.clone()]), "{client}");
        }
        assert!(stored.values().all(|ids| ids.len() == 1), "one row for each client id");
    });
}

fn count(acknowledged: &Acknowledged) -> usize {
    acknowledged.lock().expect("no device panicked").len()
}

/// Hands in forms until the server is gone; each one that fails is sent again at once, as a device does.
fn hand_in(address: &str, form: &str, token: &str, acknowledged: &Acknowledged, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let client = id::new().to_string();
        let query = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } userErrors { code } } }";
        let input = json!({ "formId": form, "clientId": client, "data": { "n": 1 } });
        for _ in 0..2 {
            let Some(answer) = process::ask(address, token, query, &json!({ "input": input })) else {
                continue;
            };
            if let Some(id) = answer["data"]["createSubmission"]["submission"]["id"].as_str() {
                acknowledged.lock().expect("no device panicked").insert(client, id.to_owned());
                break;
            }
        }
    }
}

/// Every submission of the form: the ids that each client id has.
async fn stored(app: &TestApp, form: &str) -> HashMap<String, Vec<String>> {
    let (mut stored, mut after) = (HashMap::<String, Vec<String>>::new(), Value::Null);
    loop {
        let query =
            "query($id: ID!, $after: String) { form(id: $id) { submissions(first: 100, after: $after) {
            nodes { id clientId } pageInfo { hasNextPage endCursor } } } }";
        let page = app.as_admin().run(query, json!({ "id": form, "after": after })).await.expect_data(query);
        let page = &page["form"]["submissions"];
        for node in page["nodes"].as_array().expect("a page") {
            stored.entry(text(&node["clientId"])).or_default().push(text(&node["id"]));
        }
        if page["pageInfo"]["hasNextPage"] != true {
            return stored;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
}
