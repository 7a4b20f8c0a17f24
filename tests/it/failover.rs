//! The primary is lost and a standby takes over: with both of them in `DATABASE_URL`, writes go on at the new
//! one within seconds, and everything that was acknowledged is there, once. Not here: standbys that are read
//! from (`replicas`), a server that says by itself that it takes no writes any more (`failures`).

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    EndWhenDropped, Primary,
    process::{self, Server},
};

/// What is promised is two seconds after the promotion; the machine may be busy with all the other tests.
const RECOVERED_WITHIN: Duration = Duration::from_secs(10);
const WRITERS: usize = 4;

const WRITE: &str = "mutation($title: String!) { createForm(input: {title: $title}) { form { id } } }";

/// Writes and reads it back until `over`; the titles that were acknowledged.
fn keep_writing(
    server: &Server,
    token: &str,
    writer: usize,
    over: &AtomicBool,
    done: &AtomicUsize,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let title = format!("failover{writer}x{number}");
        let answer = process::ask(&server.address, token, WRITE, &json!({ "title": title }));
        let form = answer.as_ref().map(|answer| &answer["data"]["createForm"]["form"]["id"]);
        let Some(Value::String(form)) = form else {
            // Refused, not failed: whoever asks knows that the same may be tried again.
            let code =
                answer.map(|answer| answer["errors"][0]["extensions"]["code"].clone()).unwrap_or_default();
            let known = ["UNAVAILABLE", "OUTCOME_UNKNOWN", "TIMEOUT", "OVERLOADED"];
            assert!(known.iter().any(|known| code == *known), "{code}\n{}", server.log());
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let query = "query($id: ID!) { form(id: $id) { title } }";
        let read = process::ask(&server.address, token, query, &json!({ "id": form })).unwrap_or_default();
        let is_there = read["data"]["form"]["title"] == title.as_str();
        assert!(is_there || read["errors"].is_array(), "acknowledged, and not there: {title}: {read}");
        acknowledged.push(title);
        done.fetch_add(1, Ordering::SeqCst);
    }
    acknowledged
}

#[test]
fn writes_go_on_where_a_standby_took_over() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut primary = runtime.block_on(Primary::start());
    let (mut first, second) = (primary.standby(), primary.standby());
    // What is acknowledged is on both standbys.
    primary.sql("alter system set synchronous_standby_names = '2 (*)'");
    primary.sql("select pg_reload_conf()");
    let hosts = format!("{},{},{}", primary.address(), first.name(), second.name());
    let url = format!("postgres://postgres@{hosts}/xp?target_session_attrs=read-write");
    let replicas = format!("{},{}", first.url(), second.url());
    let server =
        Server::start(&url, &[("DATABASE_REPLICA_URLS", &replicas), ("XP_DATABASE_ACQUIRE_TIMEOUT", "2s")]);
    let token = process::mint(&url, "admin@example.com", &[]);
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = Mutex::new(Vec::new());
    let wait_for_writes = |about: &str| {
        let (from, began) = (done.load(Ordering::SeqCst), Instant::now());
        while done.load(Ordering::SeqCst) < from + 20 {
            assert!(began.elapsed() < Duration::from_mins(1), "{about}\n{}", server.log());
            thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    };
    thread::scope(|scope| {
        let end = EndWhenDropped(&over);
        for writer in 0..WRITERS {
            let (server, token, over, done, all) = (&server, &token, &over, &done, &acknowledged);
            scope.spawn(move || {
                let titles = keep_writing(server, token, writer, over, done);
                all.lock().expect("nobody panics here").extend(titles);
            });
        }
        wait_for_writes("before");
        primary.stop();
        thread::sleep(Duration::from_millis(500));
        first.promote();
        let took = wait_for_writes("after");
        println!("20 writes {took:?} after the promotion");
        assert!(took < RECOVERED_WITHIN, "{took:?}\n{}", server.log());
        drop(end);
    });
    let titles = first.sql("select title from forms where title like 'failover%'");
    let mut stored: HashMap<&str, usize> = HashMap::new();
    for title in titles.lines() {
        *stored.entry(title).or_default() += 1;
    }
    for title in acknowledged.lock().expect("nobody panics here").iter() {
        assert_eq!(stored.get(title.as_str()), Some(&1), "{title}");
    }
    let ready = process::send(&server.address, "/readyz", &[], "").expect("the server is there");
    assert_eq!(ready.0, 200, "{}", ready.1);
    // The old primary comes back and does not know that it was replaced, just when the new one is away.
    primary.start_again();
    primary.sql("alter system reset synchronous_standby_names");
    primary.sql("select pg_reload_conf()");
    first.stop();
    let write = |title: &str| process::ask(&server.address, &token, WRITE, &json!({ "title": title }));
    for number in 0..5 {
        let answer = write(&format!("replaced {number}")).unwrap_or_default();
        assert!(answer["errors"].is_array(), "{answer}\n{}", server.log());
    }
    first.start_again();
    let began = Instant::now();
    while write("replaced").is_none_or(|answer| answer["errors"].is_array()) {
        assert!(began.elapsed() < RECOVERED_WITHIN, "{}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(primary.sql("select count(*) from forms where title like 'replaced%'"), "0");
    assert_eq!(first.sql("select count(*) from forms where title = 'replaced'"), "1");
}

/// A server that is no standby, and was told to take no writes, is not the one that is written to where
/// another one takes them.
#[test]
fn of_several_servers_the_one_that_takes_writes_is_used() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Not of one cluster: what is stored shows where it was written.
    let [closed, open] = [0, 1].map(|_| runtime.block_on(Primary::start()));
    let set_read_only = |server: &Primary, is_read_only: bool| {
        let value = if is_read_only { "on" } else { "off" };
        server.sql(&format!("alter system set default_transaction_read_only = {value}"));
        server.sql("select pg_reload_conf()");
        let began = Instant::now();
        while server.sql("show transaction_read_only").trim() != value {
            assert!(began.elapsed() < Duration::from_mins(1), "it is not {value}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    set_read_only(&closed, true);
    let url = format!("postgres://postgres@{},{}/xp", closed.address(), open.address());
    let token = process::mint(&url, "admin@example.com", &[]);
    let server = Server::start(&url, &[("XP_DATABASE_ACQUIRE_TIMEOUT", "2s")]);
    let write = |title: &str| {
        let answer =
            process::ask(&server.address, &token, WRITE, &json!({ "title": title })).expect("an answer");
        (
            answer["data"]["createForm"]["form"]["id"].is_string(),
            answer["errors"][0]["extensions"]["code"].clone(),
        )
    };
    for number in 0..20 {
        let (is_stored, code) = write(&format!("chosen{number}"));
        assert!(is_stored, "{code}\n{}", server.log());
    }
    let stored = |server: &Primary| {
        server.sql("select count(*) from forms where title like 'chosen%'").trim().to_owned()
    };
    assert_eq!((stored(&closed), stored(&open)), ("0".to_owned(), "20".to_owned()));
    // Where none takes writes, one of them is still read from.
    set_read_only(&open, true);
    let began = Instant::now();
    while write("refused").0 {
        assert!(began.elapsed() < Duration::from_mins(1), "it is stored all the same");
    }
    for _ in 0..10 {
        assert_eq!(write("refused"), (false, json!("UNAVAILABLE")));
        let read = process::ask(&server.address, &token, "{ forms(first: 1) { totalCount } }", &json!({}));
        assert!(read.as_ref().is_some_and(|read| read["errors"].is_null()), "{read:?}\n{}", server.log());
    }
    set_read_only(&open, false);
    let began = Instant::now();
    while !write("again").0 {
        assert!(began.elapsed() < Duration::from_mins(1), "writes do not go on\n{}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
}
