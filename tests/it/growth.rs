//! Tables that grow for ever: the real program makes the partitions of the months to come while it serves,
//! one server at a time, and nobody waits behind it. Not here: how a partition is made (`migration/tests`).

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use chrono::{DateTime, Datelike as _, Months, Utc};
use entities::clock;
use serde_json::{Value, json};

use crate::harness::{
    Clock, TestApp, db,
    process::{self, Server},
};

const TABLES: [&str; 2] = ["user_locations", "user_activity_logs"];
/// The machine may be busy with all the other tests.
const PATIENCE: Duration = Duration::from_mins(3);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// So many months from now, on a day that all months have.
fn month(number: u32) -> DateTime<Utc> {
    let now = clock::now();
    now.with_day(10).and_then(|day| day.checked_add_months(Months::new(number))).expect("a month")
}

/// The offset of a clock that shows this time.
fn offset(time: DateTime<Utc>) -> String {
    format!("{:+}", (time - clock::now()).num_seconds())
}

fn partition(table: &str, number: u32) -> String {
    format!("{table}_{}", month(number).format("%Y_%m"))
}

/// A database, seen beside the servers.
struct Seen {
    runtime: tokio::runtime::Runtime,
    app: TestApp,
    url: String,
}

impl Seen {
    fn new() -> Self {
        let runtime = runtime();
        let url = runtime.block_on(db::own_postgres());
        let app = runtime.block_on(TestApp::over(&url));
        Self { runtime, app, url }
    }

    fn count(&self, table: &str) -> i64 {
        self.runtime.block_on(self.app.count(table))
    }

    fn has(&self, partition: &str) -> bool {
        self.count(&format!("pg_inherits where inhrelid = to_regclass('{partition}')")) == 1
    }

    /// Partitions of both tables, the default ones not counted.
    fn partitions(&self) -> i64 {
        self.count(
            "pg_inherits i join pg_class c on c.oid = i.inhrelid \
             where i.inhparent in ('user_locations'::regclass, 'user_activity_logs'::regclass) \
             and c.relname !~ 'default$'",
        )
    }

    /// This month's and those of the next three are there.
    fn wait_for_months_from(&self, number: u32) {
        for (table, number) in
            TABLES.iter().flat_map(|table| (number..=number + 3).map(move |at| (table, at)))
        {
            let partition = partition(table, number);
            wait_until(&partition, || self.has(&partition));
        }
    }

    fn default_rows(&self) -> i64 {
        TABLES.iter().map(|table| self.count(&format!("{table}_default"))).sum()
    }
}

fn wait_until(about: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{about}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn start(url: &str, clock: &Clock) -> Server {
    start_with(url, clock, &[])
}

fn start_with(url: &str, clock: &Clock, settings: &[(&str, &str)]) -> Server {
    let environment = clock.environment();
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    Server::start(url, &environment.chain(settings.iter().copied()).collect::<Vec<_>>())
}

/// The sum of a figure in the log's lines that begin so.
fn sum_in_log(server: &Server, message: &str, figure: &str) -> i64 {
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)))
        .filter_map(|line| line[figure].as_i64())
        .sum()
}

fn mint(url: &str, clock: &Clock) -> String {
    let environment = clock.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    process::mint(url, "collector@example.com", &environment)
}

const RECORD: &str = "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) {
    acceptedCount results { userErrors { code } } } }";

/// Records a position of this time, which also leaves an entry in the activity log.
fn record(server: &Server, token: &str, time: DateTime<Utc>) {
    let points = json!([{ "timestamp": time, "latitude": 52.5, "longitude": 13.4 }]);
    let answer = process::ask(&server.address, token, RECORD, &json!({ "input": { "points": points } }));
    let answer = answer.expect("the server is there");
    assert_eq!(answer["data"]["recordLocations"]["acceptedCount"], 1, "{answer}");
}

#[test]
fn a_server_that_runs_for_14_months_has_its_partitions() {
    let seen = Seen::new();
    assert_eq!(seen.default_rows(), 0);
    let clock = Clock::new("months", "+0");
    let server = start(&seen.url, &clock);
    for number in 1..=14 {
        let time = month(number);
        clock.set(&offset(time));
        seen.wait_for_months_from(number);
        let token = mint(&seen.url, &clock);
        // It is signed with a key that was made just now.
        wait_until("the key is known", || {
            let me = process::ask(&server.address, &token, "{ me { id } }", &json!({}));
            me.is_some_and(|answer| answer.get("errors").is_none())
        });
        let before = TABLES.map(|table| seen.count(&partition(table, number)));
        record(&server, &token, time);
        let after = TABLES.map(|table| seen.count(&partition(table, number)));
        assert_eq!(after, before.map(|rows| rows + 1), "month {number}");
    }
    assert_eq!(seen.default_rows(), 0, "what was written lies in the partition of its month");
    assert!(!seen.has(&partition(TABLES[0], 18)), "and no more is made than is asked for");
}

#[test]
fn two_servers_make_each_partition_once() {
    let seen = Seen::new();
    let before = seen.partitions();
    let clock = Clock::new("two", &offset(month(6)));
    let servers = [start(&seen.url, &clock), start(&seen.url, &clock)];
    seen.wait_for_months_from(6);
    assert_eq!(seen.partitions(), before + 8, "this month and three more, of two tables");
    let made = |server: &Server| sum_in_log(server, "partitions of", "made");
    wait_until("both say what they have made", || servers.iter().map(made).sum::<i64>() == 8);
    for server in &servers {
        assert!(!server.log().contains("could not be made"), "{}", server.log());
    }
}

/// Somebody reads both tables in a transaction that does not end. The partition is not made then; readers and
/// writers do not wait for long behind who tries, and when the transaction ends, it is made.
#[test]
fn a_held_table_makes_nobody_wait_and_is_tried_again() {
    let seen = Seen::new();
    let holder = seen.runtime.block_on(TestApp::over(&seen.url));
    let holding = async {
        use sea_orm::TransactionTrait as _;
        let transaction = holder.store.connection().begin().await.expect("it begins");
        for table in TABLES {
            let read = format!("select count(*) from {table}");
            sea_orm::ConnectionTrait::execute_unprepared(&transaction, &read).await.expect("read");
        }
        transaction
    };
    let transaction = seen.runtime.block_on(holding);
    let clock = Clock::new("held", &offset(month(6)));
    let server = start(&seen.url, &clock);
    let token = mint(&seen.url, &clock);
    let tries = || server.log().matches("it is tried again").count();
    let read = "{ me { locations(first: 1) { totalCount } activity(first: 1) { totalCount } } }";
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    wait_until("it is tried several times", || {
        let began = Instant::now();
        let answer = process::ask(&server.address, &token, read, &json!({})).expect("the server is there");
        assert_eq!(answer.get("errors"), None, "{answer}");
        record(&server, &token, clock::now() + (month(6) - clock::now()));
        slowest = slowest.max(began.elapsed());
        asked += 1;
        tries() >= 4
    });
    println!("{asked} reads and writes went on beside 4 tries, the slowest pair in {slowest:?}");
    assert!(asked > 4, "others went on");
    assert!(!seen.has(&partition(TABLES[0], 6)), "it is not made while it is held");
    seen.runtime.block_on(async { transaction.rollback().await.expect("it ends") });
    seen.wait_for_months_from(6);
    assert_eq!(seen.default_rows(), 0, "what came before its month lies there");
}

/// What `/metrics` says of a figure of positions.
fn figure(server: &Server, name: &str) -> Option<i64> {
    let (_, text) = process::send(&server.address, "/metrics", &[], "")?;
    let line = format!("{name}{{db_collection_name=\"user_locations\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).and_then(|value| value.parse().ok())
}

/// What `/metrics` says of how often upkeep came to this.
fn runs(server: &Server, task: &str, outcome: &str) -> Option<i64> {
    let (_, text) = process::send(&server.address, "/metrics", &[], "")?;
    let line = format!("upkeep_runs_total{{task=\"{task}\",outcome=\"{outcome}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).and_then(|value| value.parse().ok())
}

#[test]
fn operators_see_how_many_months_are_ready() {
    let seen = Seen::new();
    let clock = Clock::new("figures", "+0");
    let server = start_with(&seen.url, &clock, &[("XP_PARTITIONS_MONTHS_AHEAD", "5")]);
    wait_until("five months are ready", || figure(&server, "database_partition_months_ahead") == Some(5));
    for task in ["partitions", "retention"] {
        wait_until("upkeep was done", || runs(&server, task, "done") == Some(1));
    }
    wait_until("no row lies in none", || figure(&server, "database_partition_default_rows") == Some(0));
    for name in ["database_table_size_bytes", "database_index_size_bytes"] {
        wait_until(name, || figure(&server, name) > Some(8_192));
    }
    let doctor = |clock: &Clock, months: &str| {
        let environment = clock.environment();
        let mut doctor = process::xp(&seen.url);
        doctor.envs(environment).env("XP_PARTITIONS_MONTHS_AHEAD", months).arg("doctor");
        String::from_utf8_lossy(&doctor.output().expect("it can be started").stdout).into_owned()
    };
    let said = doctor(&clock, "5");
    assert!(said.contains("ok    partitions: 5 months ahead are ready, 0 rows lie in no month"), "{said}");
    let said = doctor(&clock, "6");
    assert!(said.contains("warn  partitions: 5 months ahead are ready"), "{said}");
    drop(server);
    let later = Clock::new("figures-later", &offset(month(7)));
    let said = doctor(&later, "5");
    assert!(
        said.contains("warn  partitions: this month has none") && said.contains("xp migrate up"),
        "{said}"
    );
}

/// Entries of the new month are on their way into the default partition while its partition is made: none of
/// them fails.
#[test]
fn what_is_written_while_its_month_is_made_is_stored() {
    let seen = Seen::new();
    let now = clock::now();
    let name = partition(TABLES[1], 0);
    seen.runtime.block_on(seen.app.sql(&format!("drop table {name}")));
    let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = "mutation { createForm(input: { title: \"Of a new month\" }) { form { id } } }";
    let server = Server::start(&seen.url, &[("XP_PARTITIONS_MONTHS_AHEAD", "1")]);
    let token = process::mint(&seen.url, "admin@example.com", &[]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = process::ask(&server.address, &token, write, &json!({})).expect("an answer");
                    assert_eq!(answer.get("errors"), None, "{answer}");
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..10 {
            let from = written.load(Ordering::Relaxed);
            wait_until("some are written", || written.load(Ordering::Relaxed) > from + 20);
            wait_until("the month is made", || {
                let made = migration::try_ensure_partitions(seen.app.store.connection(), now, 1);
                seen.runtime.block_on(made).expect("it can be made").is_some() && seen.has(&name)
            });
            let parent = TABLES[1];
            let unmake = format!(
                "begin; lock table only {parent} in access exclusive mode;
                 alter table {parent} detach partition {name};
                 insert into {parent}_default select * from {name}; drop table {name}; commit"
            );
            seen.runtime.block_on(seen.app.sql(&unmake));
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Two servers, and a clock that jumps by eight months: what is older than a hundred days goes once, and nothing else.
#[test]
fn two_servers_remove_old_months_once() {
    let seen = Seen::new();
    let clock = Clock::new("old", "+0");
    let kept = [("XP_RETENTION_LOCATIONS", "100d"), ("XP_RETENTION_ACTIVITY", "100d")];
    let servers = [start_with(&seen.url, &clock, &kept), start_with(&seen.url, &clock, &kept)];
    seen.wait_for_months_from(0);
    let users = seen.count("users");
    // Before the end of the months that are over then, and after it.
    let now = month(8);
    let limit = now - chrono::TimeDelta::days(100);
    clock.set(&offset(now));
    seen.wait_for_months_from(8);
    let token = mint(&seen.url, &clock);
    wait_until("the key is known", || {
        servers.iter().all(|server| {
            let me = process::ask(&server.address, &token, "{ me { id } }", &json!({}));
            me.is_some_and(|answer| answer.get("errors").is_none())
        })
    });
    for days in [1, 99] {
        record(&servers[0], &token, now - chrono::TimeDelta::days(days));
    }
    let old = |table: &str, column: &str| seen.count(&format!("{table} where \"{column}\" < '{limit}'"));
    wait_until("all that is old is gone", || {
        old("user_locations", "timestamp") == 0
            && old("user_activity_logs", "created_at") == 0
            && old("user_last_locations", "timestamp") == 0
    });
    let over = |table: &str| format!("{table}_{}", (limit - Months::new(1)).format("%Y_%m"));
    wait_until("and so are the months", || TABLES.iter().all(|table| !seen.has(&over(table))));
    assert_eq!(
        seen.count(&format!("user_locations where \"timestamp\" >= '{limit}'")),
        2,
        "what is not, stays"
    );
    assert_eq!(seen.count("users"), users);
    let dropped =
        || servers.iter().map(|server| server.log().matches("a month was removed").count()).sum::<usize>();
    let names: std::collections::BTreeSet<String> = servers
        .iter()
        .flat_map(|server| server.log().lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|line| line["message"] == "a month was removed")
        .filter_map(|line| line["partition"].as_str().map(str::to_owned))
        .collect();
    assert!(dropped() >= 2, "of both tables");
    assert_eq!(names.len(), dropped(), "each once");
    for server in &servers {
        assert!(!server.log().contains("could not be"), "{}", server.log());
    }
}
