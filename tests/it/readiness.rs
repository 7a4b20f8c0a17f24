//! `/readyz` of the real program says whether the database is there, not whether the server is busy: writes
//! that wait for a lock use up every connection, and the instance stays in service; a full disk takes it out.
//! Not here: what it says of a database that is away.

use std::{
    thread,
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::json;

use crate::harness::{
    TestApp, db,
    process::{self, Server},
};

const WRITE: &str = r#"mutation { createForm(input: {title: "Burst"}) { form { id } } }"#;

/// Longer than between two signs of life of a server.
const IDLE: Duration = Duration::from_secs(8);

/// A disk that is full refuses what is new and takes what changes a row in its place. Here a trigger refuses
/// the one: a submission, and the table by which a server looks whether there is room.
#[test]
fn an_instance_stays_out_of_service_while_the_disk_is_full() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = runtime.block_on(db::own_postgres());
    let token = process::mint(&url, "admin@example.com", &[]);
    let server = Server::start(&url, &[]);
    let sql = |text: &str| runtime.block_on(async { TestApp::over(&url).await.sql(text).await });
    let write = || process::ask(&server.address, &token, WRITE, &json!({})).expect("the server is there");
    let ready = || process::send(&server.address, "/readyz", &[], "").expect("the server is there");
    let wait_until_ready = || {
        let began = Instant::now();
        while ready().0 != 200 {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", ready().1);
            thread::sleep(Duration::from_millis(50));
        }
    };
    wait_until_ready();
    for statement in [
        "create function refuse() returns trigger language plpgsql as
         $$ begin raise exception 'no space left on device' using errcode = '53100'; end $$",
        "create function refuse_table() returns event_trigger language plpgsql as
         $$ begin raise exception 'no space left on device' using errcode = '53100'; end $$",
        "create trigger full_disk before insert on forms for each row execute function refuse()",
        "create event trigger full_disk on ddl_command_start when tag in ('CREATE TABLE AS')
         execute function refuse_table()",
    ] {
        sql(statement);
    }
    assert!(write()["errors"].is_array());
    let (status, body) = ready();
    assert!(status == 503 && body.contains("disk full"), "{status}: {body}");
    thread::sleep(IDLE);
    let (status, body) = ready();
    assert!(status == 503 && body.contains("disk full"), "nobody wrote meanwhile: {status}: {body}");
    sql("drop event trigger full_disk");
    sql("drop trigger full_disk on forms");
    wait_until_ready();
    assert!(write()["errors"].is_null());
}

#[test]
fn waiting_writes_take_no_instance_out_of_service() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for url in [runtime.block_on(db::own_sqlite()), runtime.block_on(db::own_postgres())] {
        let token = process::mint(&url, "admin@example.com", &[]);
        let server = Server::start(
            &url,
            &[("XP_DATABASE_MAX_CONNECTIONS", "3"), ("XP_DATABASE_ACQUIRE_TIMEOUT", "2s")],
        );
        let beside = runtime.block_on(TestApp::over(&url));
        let locked = runtime.block_on(async {
            let locked = beside.store.connection().begin().await.expect("begun");
            let lock = if beside.is_postgres() {
                "lock table forms in access exclusive mode"
            } else {
                "update users set epoch = epoch"
            };
            locked.execute_unprepared(lock).await.expect("locked");
            locked
        });
        let ready = || process::send(&server.address, "/readyz", &[], "").expect("the server is there");
        thread::scope(|scope| {
            let answers: Vec<_> = (0..24)
                .map(|_| scope.spawn(|| process::ask(&server.address, &token, WRITE, &json!({}))))
                .collect();
            thread::sleep(Duration::from_millis(300));
            let probes: Vec<_> = (0..40).map(|_| scope.spawn(ready)).collect();
            for probe in probes {
                let (status, body) = probe.join().expect("no panic");
                assert_eq!(status, 200, "{url}: {body}");
            }
            let failed = answers.into_iter().map(|answer| answer.join().expect("no panic"));
            let failed =
                failed.filter(|answer| answer.as_ref().is_some_and(|answer| answer["errors"].is_array()));
            assert!(failed.count() > 12, "{url}: the burst did wait");
        });
        runtime.block_on(locked.rollback()).expect("unlocked");
        assert_eq!(ready().0, 200);
    }
}
