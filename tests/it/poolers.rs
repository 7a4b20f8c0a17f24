//! `PgBouncer` between the real program and PostgreSQL, by session and by transaction: many clients write and
//! read at once, each sees what it wrote, statements end in time, and a pooler that starts anew costs no more
//! than what was under way. Not here: the database without one.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use entities::{CacheOptions, DatabaseOptions, Store, database::Pooler};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::harness::{
    EndWhenDropped, PgBouncer, Primary, RedisServer,
    process::{self, Server},
};

const CLIENTS: usize = 12;

const WRITE: &str = "mutation($title: String!) { createForm(input: {title: $title}) { form { id } } }";

fn primary() -> Primary {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(Primary::start())
}

/// Each of many clients writes and reads back by its own page of a list, which is not cached.
fn write_and_read(server: &Server, token: &str, client: usize, round: usize) -> Result<(), Value> {
    let title = format!("pooled{client}x{round}");
    let ask = |query: &str, variables: Value| {
        let answer = process::ask(&server.address, token, query, &variables).unwrap_or_default();
        if answer["errors"].is_null() && answer["data"].is_object() { Ok(answer) } else { Err(answer) }
    };
    let made = ask(WRITE, json!({ "title": title }))?;
    let id = made["data"]["createForm"]["form"]["id"].clone();
    let query = "query($word: String!) { forms(first: 2, filter: {search: $word}) { nodes { id title } } }";
    let found = ask(query, json!({ "word": title }))?;
    assert_eq!(found["data"]["forms"]["nodes"], json!([{ "id": id, "title": title }]));
    Ok(())
}

#[test]
fn requests_are_served_through_pgbouncer_by_session_and_by_transaction() {
    let primary = primary();
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    for mode in ["transaction", "session"] {
        let mut pooler = PgBouncer::start(&primary.address(), mode);
        let url = format!("postgres://postgres@{}/xp", pooler.address());
        let (direct, pooled) = (primary.url(), ("XP_DATABASE_POOLER", mode));
        let mut environment = vec![pooled, ("XP_DATABASE_ACQUIRE_TIMEOUT", "2s")];
        // By session everything may go through it.
        if mode == "transaction" {
            environment.push(("DATABASE_DIRECT_URL", direct.as_str()));
        }
        let server = Server::start(&url, &environment);
        let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let wait_for = |more: usize, about: &str| {
            let (from, began) = (done.load(Ordering::SeqCst), Instant::now());
            while done.load(Ordering::SeqCst) < from + more {
                assert!(began.elapsed() < Duration::from_mins(1), "{mode}: {about}\n{}", server.log());
                thread::sleep(Duration::from_millis(5));
            }
        };
        thread::scope(|scope| {
            let end = EndWhenDropped(&over);
            for client in 0..CLIENTS {
                let (server, token, over, done) = (&server, &token, &over, &done);
                scope.spawn(move || {
                    for round in 0.. {
                        if over.load(Ordering::SeqCst) {
                            break;
                        }
                        match write_and_read(
                            server,
                            token,
                            client + if mode == "session" { 100 } else { 0 },
                            round,
                        ) {
                            Ok(()) => drop(done.fetch_add(1, Ordering::SeqCst)),
                            Err(answer) => {
                                let code = &answer["errors"][0]["extensions"]["code"];
                                let known = ["UNAVAILABLE", "OUTCOME_UNKNOWN", "TIMEOUT", "OVERLOADED"];
                                assert!(
                                    known.iter().any(|known| code == *known),
                                    "{mode}: {answer}\n{}",
                                    server.log()
                                );
                                thread::sleep(Duration::from_millis(10));
                            }
                        }
                    }
                });
            }
            wait_for(200, "before");
            pooler.kill();
            thread::sleep(Duration::from_millis(300));
            pooler.launch();
            wait_for(200, "after");
            drop(end);
        });
    }
}

/// As without a pooler, a statement that takes too long ends, and what it held is free.
#[test]
fn statements_end_in_time_behind_a_pooler() {
    let primary = primary();
    let token = process::mint(&primary.url(), "admin@example.com", &[]);
    for mode in ["transaction", "session"] {
        let pooler = PgBouncer::start(&primary.address(), mode);
        let url = format!("postgres://postgres@{}/xp", pooler.address());
        let direct = primary.url();
        let environment = [
            ("DATABASE_DIRECT_URL", direct.as_str()),
            ("XP_DATABASE_POOLER", mode),
            ("XP_DATABASE_STATEMENT_TIMEOUT", "400ms"),
        ];
        let server = Server::start(&url, &environment);
        // Whoever looks at a form waits for a second and a half.
        primary.sql(
            "create function slow() returns trigger language plpgsql as
             $$ begin perform pg_sleep(1.5); return new; end $$;
             create trigger slow before insert on forms for each row execute function slow()",
        );
        let began = Instant::now();
        let answer =
            process::ask(&server.address, &token, WRITE, &json!({ "title": "slow" })).expect("an answer");
        assert_eq!(
            answer["errors"][0]["extensions"]["code"],
            "TIMEOUT",
            "{mode}: {answer}\n{}",
            server.log()
        );
        assert!(began.elapsed() < Duration::from_millis(1_400), "{mode}: {:?}", began.elapsed());
        primary.sql("drop function slow() cascade");
        let codes: HashSet<String> = (0..20)
            .filter_map(|round| write_and_read(&server, &token, usize::from(mode == "session"), round).err())
            .map(|answer| answer.to_string())
            .collect();
        assert!(codes.is_empty(), "{mode}: {codes:?}");
    }
}

/// A pooler that lends connections for one transaction would give to others what one of them is notified of:
/// servers listen around it, and nobody does where there is no way around.
#[test]
fn servers_listen_around_a_pooler_by_transaction() {
    let primary = primary();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let redis = runtime.block_on(RedisServer::start());
    let (direct, redis_url) = (primary.url(), redis.address());
    let listening = || {
        primary.sql("select count(*) from pg_stat_activity where query ilike 'listen %'").trim().to_owned()
    };
    let wait_for = |expected: &str, about: &str| {
        let began = Instant::now();
        while listening() != expected {
            assert!(began.elapsed() < Duration::from_mins(1), "{about}: {} listen", listening());
            thread::sleep(Duration::from_millis(20));
        }
    };
    for (mode, without_pooler) in [("transaction", "1"), ("session", "0")] {
        let mut pooler = PgBouncer::start(&primary.address(), mode);
        let url = format!("postgres://postgres@{}/xp", pooler.address());
        let mut environment = vec![("XP_DATABASE_POOLER", mode), ("REDIS_URL", redis_url.as_str())];
        if mode == "transaction" {
            environment.push(("DATABASE_DIRECT_URL", &direct));
        }
        let mut server = Server::start(&url, &environment);
        wait_for("1", mode);
        pooler.kill();
        wait_for(without_pooler, "without the pooler");
        assert!(server.stop(Duration::from_mins(1)).is_some());
        wait_for("0", "when the server has ended");
    }
    let listens = async |pooler| {
        let options = DatabaseOptions { pooler, ..DatabaseOptions::at(&direct) };
        let store = Store::connect(&options, &mut Registry::default()).await.expect("it is there");
        let redis = Some(redis.handle());
        let store = store.with_cache(&CacheOptions::default(), redis, &mut Registry::default());
        let (began, patience) = (Instant::now(), Duration::from_secs(2));
        while listening() == "0" && began.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let listens = listening() != "0";
        store.close().await;
        while listening() != "0" {
            assert!(began.elapsed() < Duration::from_mins(1), "it listens when it is closed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        listens
    };
    assert!(!runtime.block_on(listens(Pooler::Transaction)), "a connection behind this pooler cannot listen");
}
