//! `/readyz` of the real program says whether the database is there, not whether the server is busy: writes that wait for a
//! lock use up every connection, and the instance stays in service. Not here: what it says of a database that is away.

use std::{thread, time::Duration};

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::json;

use crate::harness::{
    TestApp, db,
    process::{self, Server},
};

const WRITE: &str = r#"mutation { createForm(input: {title: "Burst"}) { form { id } } }"#;

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
