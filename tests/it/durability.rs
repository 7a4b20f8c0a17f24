//! The server killed in the middle of its work, again and again: every position that it acknowledged is in the database,
//! and none is there twice. Not here: the machine itself failing, which is up to the database.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use entities::user::Role;
use serde_json::{Value, json};

use crate::harness::{TestApp, db};

const KILLS: usize = 20;
const WRITERS: usize = 4;
const POINTS: usize = 20;
const SECRET: &str = "of the tests, and long enough for it";

/// `xp serve` on a free port.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(url: &str) -> Self {
        let mut command = command(url);
        command.arg("serve").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process =
            command.env("PORT", "0").env("RUST_LOG", "info").spawn().expect("it can be started");
        let log = BufReader::new(process.stderr.take().expect("a pipe"));
        let (tell, told) = mpsc::channel();
        // To the end: a full pipe would stop the server.
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("\"address\":\"") {
                    let _ = tell.send(rest.split('"').next().unwrap_or_default().to_owned());
                }
            }
        });
        let address = told.recv_timeout(Duration::from_secs(60)).expect("it says where it listens");
        Self { process, address }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it has ended");
    }
}

fn command(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xp"));
    command.env_clear().env("DATABASE_URL", url).env("XP_AUTH_SECRET", SECRET).current_dir("/");
    command
}

/// An access token of the collector.
fn mint(url: &str) -> String {
    let user = TestApp::account(Role::Collector).to_string();
    let minted = command(url).args(["token", "mint", "--ttl-seconds", "3600", "--user", &user]).output();
    let minted = minted.expect("it can be started");
    assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
    String::from_utf8(minted.stdout).expect("UTF-8").trim().to_owned()
}

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
    let body = json!({ "query": RECORD, "variables": variables }).to_string();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let head = format!(
        "POST /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).ok()?;
    let mut answer = Vec::new();
    // A killed server resets the connection, maybe in the middle of its answer.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).ok()?;
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
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
        let token = mint(&url);
        let mut writers: Vec<(usize, Vec<String>)> = vec![(0, Vec::new()); WRITERS];
        for kill in 0..KILLS {
            let server = Server::start(&url);
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
