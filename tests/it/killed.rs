//! The server is killed, again and again, while devices hand in forms and positions: what was acknowledged is in the
//! database, and nothing is there twice. The real program on a PostgreSQL database of its own.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use entities::{id, user::Role};
use serde_json::{Value, json};

use crate::harness::{TestApp, db, text};

const KILLS: usize = 20;
const DEVICES: usize = 4;
const SECRET: &str = "of the tests, and long enough for it";

/// What a device got an answer to: the client id of a submission and the id that it has.
type Acknowledged = Arc<Mutex<HashMap<String, String>>>;

#[test]
fn what_is_acknowledged_survives_twenty_kills_and_nothing_is_stored_twice() {
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
    let token = mint(&url, &[]);
    let acknowledged = Acknowledged::default();
    for _ in 0..KILLS {
        let (mut server, address) = start(&url, &[]);
        let over = Arc::new(AtomicBool::new(false));
        let devices: Vec<_> = (0..DEVICES)
            .map(|_| {
                let (address, form, token) = (address.clone(), form.clone(), token.clone());
                let (acknowledged, over) = (Arc::clone(&acknowledged), Arc::clone(&over));
                thread::spawn(move || hand_in(&address, &form, &token, &acknowledged, &over))
            })
            .collect();
        let before = count(&acknowledged);
        // Killed in the middle of the work, not before it began.
        while count(&acknowledged) < before + 25 {
            assert!(server.try_wait().expect("its state").is_none(), "the server ended by itself");
            thread::sleep(Duration::from_millis(1));
        }
        server.kill().expect("it can be killed");
        server.wait().expect("it is gone");
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
        let body = json!({ "query": query, "variables": { "input": input } }).to_string();
        for _ in 0..2 {
            let Some(answer) = ask(address, token, &body) else { continue };
            if let Some(id) = answer["data"]["createSubmission"]["submission"]["id"].as_str() {
                acknowledged.lock().expect("no device panicked").insert(client, id.to_owned());
                break;
            }
        }
    }
}

/// One request on a connection of its own; nothing where the server is gone.
pub(crate) fn ask(address: &str, token: &str, body: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let length = body.len();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\naccept: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(&body[body.find('{')?..=body.rfind('}')?]).ok()
}

fn xp(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xp"));
    command.env_clear().env("DATABASE_URL", url).env("XP_AUTH_SECRET", SECRET).current_dir("/");
    command.env("XP_DATABASE_ACQUIRE_TIMEOUT", "30s").env("HOST", "127.0.0.1").stdin(Stdio::null());
    command
}

/// A token of a demo account, good for hours.
pub(crate) fn mint(url: &str, settings: &[(&str, &str)]) -> String {
    let mint = ["token", "mint", "--user", "collector@example.com", "--ttl-seconds", "21600"];
    let output =
        xp(url).envs(settings.iter().copied()).args(mint).output().expect("the program can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// Starts the server with more settings; it is ready when it answers.
pub(crate) fn start(url: &str, settings: &[(&str, &str)]) -> (Child, String) {
    let free =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let mut command = xp(url);
    command.arg("serve").env("PORT", free.port().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command.envs(settings.iter().copied());
    let mut server = command.spawn().expect("the program can be started");
    let address = free.to_string();
    let answers = (0..600).any(|_| {
        thread::sleep(Duration::from_millis(50));
        TcpStream::connect(&address).is_ok()
    });
    if !answers {
        let _ = server.kill();
        let _ = server.wait();
        panic!("the server does not get ready");
    }
    (server, address)
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
