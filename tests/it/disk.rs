//! SQLite on a disk that is full for a while, that fails, or that another process has locked: a write that is
//! acknowledged is stored, one that is not is answered by an error, and all is well again as soon as there is
//! room. The real program, killed and started again. Not here: the program killed while all is well
//! (`durability`).

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use entities::Role;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _, sqlx};
use serde_json::{Value, json};

use crate::harness::{
    TestApp, db,
    process::{self, Server},
    text,
};

const RECORD: &str = "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) {
    acceptedCount results { location { id } } } }";
const HAND_IN: &str = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) {
    submission { id } userErrors { code } } }";
/// Points in one batch: enough of them fill a page of the database.
const POINTS: usize = 40;

/// What was acknowledged, by the ids that were answered.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<String>,
    failed: usize,
    round: usize,
}

impl Ledger {
    /// Takes an answer down: it says either what is stored or what went wrong.
    fn note(&mut self, answer: &Value, ids: Vec<Option<String>>) {
        let has_failed = answer["errors"].as_array().is_some_and(|errors| !errors.is_empty());
        if has_failed {
            let extensions = &answer["errors"][0]["extensions"];
            let names = ["UNAVAILABLE", "TIMEOUT", "OUTCOME_UNKNOWN"];
            assert!(extensions["code"].as_str().is_some_and(|code| names.contains(&code)), "{answer}");
            assert!(extensions["retryable"].is_boolean(), "{answer}");
            self.failed += 1;
            return;
        }
        assert!(!ids.is_empty() && ids.iter().all(Option::is_some), "neither stored nor refused: {answer}");
        self.acknowledged.extend(ids.into_iter().flatten());
    }

    /// A batch of points and a submission.
    fn requests(&mut self, form: &str) -> [(&'static str, Value); 2] {
        self.round += 1;
        let round = self.round;
        let point = |index: usize| {
            json!({
                "clientId": format!("{round}-{index}"), "longitude": 13.4, "latitude": 52.5,
                "timestamp": format!("2026-01-{:02}T{:02}:{:02}:00Z", round / 24 + 1, round % 24, index),
            })
        };
        let points: Vec<_> = (0..POINTS).map(point).collect();
        let client = entities::id::new().to_string();
        let input = json!({ "formId": form, "clientId": client, "data": { "n": round } });
        [(RECORD, json!({ "input": { "points": points } })), (HAND_IN, json!({ "input": input }))]
    }

    /// What was answered to them.
    fn note_all(&mut self, [recorded, handed_in]: [Value; 2]) {
        let id = |stored: &Value| stored["id"].as_str().map(str::to_owned);
        let results = recorded["data"]["recordLocations"]["results"].as_array().cloned().unwrap_or_default();
        self.note(&recorded, results.iter().map(|result| id(&result["location"])).collect());
        self.note(&handed_in, vec![id(&handed_in["data"]["createSubmission"]["submission"])]);
    }

    fn write(&mut self, ask: impl Fn(&str, &Value) -> Value, form: &str) {
        let answers = self.requests(form).map(|(query, variables)| ask(query, &variables));
        self.note_all(answers);
    }
}

/// A form that takes submissions.
async fn open_form(url: &str) -> String {
    let app = TestApp::over(url).await;
    let editor = app.as_role(Role::Editor);
    let definition = json!({ "schema": 1, "fields": [{ "key": "n", "type": "INTEGER", "label": "N" }] });
    let create =
        "mutation($d: JSON!) { createForm(input: {title: \"Load\", definition: $d}) { form { id } } }";
    let created = editor.run(create, json!({ "d": definition })).await.expect_data(create);
    let form = text(&created["createForm"]["form"]["id"]);
    editor
        .ask(&format!(
            r#"mutation {{ publishForm(input: {{id: "{form}", baseRevision: 1}}) {{ form {{ id }} }} }}"#
        ))
        .await;
    app.store.clone().close().await;
    form
}

/// All that was acknowledged is there, in a database that another process opens.
async fn expect_stored(url: &str, ledger: &Ledger, about: &str) {
    let app = TestApp::over(url).await;
    for ids in ledger.acknowledged.chunks(100) {
        let query = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }";
        let data = app.as_admin().run(query, json!({ "ids": ids })).await.expect_data(query);
        let found = data["nodes"].as_array().expect("a list").iter().filter(|node| node["id"].is_string());
        assert_eq!(found.count(), ids.len(), "{about}: what was acknowledged is gone");
    }
}

fn file_of(url: &str) -> PathBuf {
    PathBuf::from(url.strip_prefix("sqlite:").expect("a SQLite file"))
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// Writes before the fault, while it lasts and after it; then the process is killed, and the next one looks
/// for everything.
async fn expect_nothing_lost(url: &str, about: &str, begin: impl FnOnce(&Server), end: impl FnOnce(&Server)) {
    let form = open_form(url).await;
    let token = process::mint(url, "collector@example.com", &[]);
    // A write beyond a limit of the process is an error, and not its end.
    let mut server = Server::start_prepared(url, "trap '' XFSZ");
    let address = server.address.clone();
    let ask = |query: &str, variables: &Value| {
        process::ask(&address, &token, query, variables).expect("the server is there")
    };
    let mut ledger = Ledger::default();
    for _ in 0..10 {
        ledger.write(ask, &form);
    }
    assert_eq!(ledger.failed, 0, "{about}: before the fault");
    begin(&server);
    for _ in 0..30 {
        ledger.write(ask, &form);
    }
    let (failed, stored) = (ledger.failed, ledger.acknowledged.len());
    assert!(failed > 10, "{about}: {failed} writes failed");
    end(&server);
    for _ in 0..20 {
        ledger.write(ask, &form);
    }
    eprintln!(
        "{about}: {failed} failed, {} acknowledged, {} of them since",
        ledger.acknowledged.len(),
        ledger.acknowledged.len() - stored
    );
    assert_eq!(ledger.failed, failed, "{about}: there is room again");
    let ready = process::send(&address, "/readyz", &[], "").expect("the server is there");
    assert_eq!(ready.0, 200, "{about}: {}", ready.1);
    server.kill();
    expect_stored(url, &ledger, about).await;
    let again = Server::start(url, &[]);
    let answer = process::ask(&again.address, &token, "{ me { id } }", &json!({})).expect("it starts again");
    assert!(answer["data"]["me"]["id"].is_string(), "{about}: {answer}");
}

/// Files of the process may not grow: what SQLite writes beyond is `SQLITE_IOERR`, mostly in COMMIT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_acknowledged_during_failures_are_stored() {
    let url = db::own_sqlite().await;
    let log = PathBuf::from(format!("{}-wal", file_of(&url).display()));
    let limit = |server: &Server, bytes: &str| {
        let ran = Command::new("prlimit")
            .args(["--pid", &server.id().to_string(), &format!("--fsize={bytes}:")])
            .status();
        assert!(ran.expect("prlimit comes with util-linux").success());
    };
    let begin = |server: &Server| limit(server, &(size_of(&log) + 16_384).to_string());
    expect_nothing_lost(&url, "limited", begin, |server| limit(server, "unlimited")).await;
}

/// As long as nothing can be stored, requests should go elsewhere: also where no client writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_says_that_nothing_can_be_stored() {
    let url = db::own_sqlite().await;
    let token = process::mint(&url, "collector@example.com", &[]);
    let server = Server::start_prepared(&url, "trap '' XFSZ");
    let limit = |bytes: &str| {
        let mut limiting = Command::new("prlimit");
        limiting.args(["--pid", &server.id().to_string(), &format!("--fsize={bytes}:")]);
        assert!(limiting.status().expect("prlimit comes with util-linux").success());
    };
    let until = |status: u16, writes: &str| {
        let asked = Instant::now();
        loop {
            let ready = process::send(&server.address, "/readyz", &[], "").expect("the server is there");
            let said: Value = serde_json::from_str(&ready.1).expect("JSON");
            if ready.0 == status && said["checks"]["writes"] == writes {
                return;
            }
            assert!(asked.elapsed() < Duration::from_mins(1), "{status} is not said: {ready:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    until(200, "ok");
    limit("0");
    until(503, "disk error");
    let read = process::ask(&server.address, &token, "{ me { id } }", &json!({})).expect("it is there");
    assert!(read["data"]["me"]["id"].is_string(), "who asks all the same may read: {read}");
    assert_eq!(process::send(&server.address, "/livez", &[], "").expect("it is there").0, 200);
    limit("unlimited");
    until(200, "ok");
}

/// A small file system that is filled, and then not: `SQLITE_FULL`. Only root may make one, and not everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_acknowledged_on_a_full_disk_are_stored() {
    let template = file_of(&db::own_sqlite().await);
    let disk = template.with_extension("disk");
    fs::create_dir(&disk).expect("a directory");
    let size = format!("size={}", size_of(&template) + (8 << 20));
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!(
            "no file system can be mounted here; the limit of the process and of the pages stand for it"
        );
        return;
    }
    let url = format!("sqlite:{}", disk.join("xp.db").display());
    fs::copy(&template, disk.join("xp.db")).expect("copied");
    let filler = disk.join("filler");
    let fill = |_: &Server| {
        let mut file = fs::File::create(&filler).expect("a file");
        while file.write_all(&[0; 4_096]).is_ok() {}
    };
    expect_nothing_lost(&url, "full", fill, |_| fs::remove_file(&filler).expect("removed")).await;
    let unmounted = Command::new("umount").arg("-l").arg(&disk).status();
    assert!(unmounted.expect("umount").success());
}

/// A full database, made by bounding the pages that the connections may use, in this process: `SQLITE_FULL`
/// in a statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_acknowledged_without_free_pages_are_stored() {
    let url = db::own_sqlite().await;
    let form = open_form(&url).await;
    let app = TestApp::over(&url).await;
    let pool = app.store.connection().get_sqlite_connection_pool();
    let pages: i64 = sqlx::query_scalar("pragma page_count").fetch_one(pool).await.expect("a count");
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut connection = pool.acquire().await.expect("there are four");
        let limit = sqlx::AssertSqlSafe(format!("pragma max_page_count = {}", pages + 2));
        sqlx::query(limit).execute(&mut *connection).await.expect("limited");
        all.push(connection);
    }
    drop(all);
    let collector = app.as_role(Role::Collector);
    let mut ledger = Ledger::default();
    for _ in 0..40 {
        let mut answers = Vec::new();
        for (query, variables) in ledger.requests(&form) {
            let reply = collector.run(query, variables).await;
            answers.push(serde_json::from_str(&reply.body).expect("JSON"));
        }
        ledger.note_all(answers.try_into().expect("two"));
    }
    println!("no pages: {} failed, {} acknowledged", ledger.failed, ledger.acknowledged.len());
    assert!(ledger.failed > 0 && !ledger.acknowledged.is_empty());
    // Without closing: what is not committed is not seen by others.
    expect_stored(&url, &ledger, "no pages").await;
}

/// A process beside this one has the lock: who cannot begin says so, and writes when it is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_blocked_by_another_process_fails_alone() {
    let url = db::own_sqlite().await;
    let (app, beside) = (TestApp::over(&url).await, TestApp::over(&url).await);
    let locked = beside.store.connection().begin().await.expect("begun");
    locked.execute_unprepared("update users set epoch = epoch").await.expect("locked");
    let create = r#"mutation { createForm(input: {title: "Waits"}) { form { id } } }"#;
    let reply = app.as_admin().run(create, json!({})).await;
    assert!(!reply.errors.is_empty(), "the lock is not free: {}", reply.body);
    locked.rollback().await.expect("unlocked");
    for _ in 0..6 {
        let form = app.as_admin().ask(create).await["createForm"]["form"]["id"].clone();
        let found = beside.as_admin().ask(&format!("{{ form(id: {form}) {{ id }} }}")).await;
        assert_eq!(found["form"]["id"], form, "another process sees what was acknowledged");
    }
}

#[tokio::test]
async fn new_sqlite_files_are_their_owners_alone() {
    let file = file_of(&db::own_sqlite().await).with_extension("private.db");
    let url = format!("sqlite:{}", file.display());
    let store = db::open(&url).await;
    migration::up(store.connection()).await.expect("the steps run");
    for beside in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{beside}", file.display()));
        let mode = fs::metadata(&path).expect("the file is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    store.close().await;
    // What the operator has decided stays.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("changed");
    db::open(&url).await.close().await;
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o640);
}
