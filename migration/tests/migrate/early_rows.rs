//! Many rows of months that have no partition yet: they are copied a few at a time, and whoever reads
//! meanwhile sees each of them once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeZone, Utc};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection};

use super::{Postgres, connect, count, within_seconds};

/// Rows in each of two months, and in a month long ago that stays where it is.
const ROWS: i64 = 30_000;
const ROWS_LONG_AGO: i64 = 2_000;
/// More than that are not copied in one transaction: 64 pages of at most 90 rows.
const MOST_AT_ONCE: i64 = 64 * 90;

async fn fill(db: &DatabaseConnection) {
    for (month, rows) in [("2020-02-01", ROWS), ("2020-03-31 23:00", ROWS), ("1999-01-01", ROWS_LONG_AGO)] {
        let insert = format!(
            "insert into user_locations (id, user_id, \"timestamp\", received_at, latitude, longitude)
             select gen_random_uuid(), gen_random_uuid(), '{month}+00'::timestamptz + n * interval '1 millisecond', now(), 1, 2
             from generate_series(1, {rows}) n"
        );
        db.execute_unprepared(&insert).await.expect("inserted");
    }
}

/// Both months; the days are of no importance.
fn months() -> (DateTime<Utc>, DateTime<Utc>) {
    let day = |month| Utc.with_ymd_and_hms(2020, month, 9, 0, 0, 0).single().expect("a day");
    (day(2), day(3))
}

/// Everything is where it belongs, and nothing is left of the copying.
async fn expect_made(db: &DatabaseConnection, rows: i64) {
    assert_eq!(count(db, "select count(*) from user_locations").await, rows);
    assert_eq!(count(db, "select count(distinct id) from user_locations").await, rows);
    assert_eq!(count(db, "select count(*) from user_locations_default").await, ROWS_LONG_AGO);
    let made = rows - ROWS_LONG_AGO;
    let sum = "select (select count(*) from user_locations_2020_02) + (select count(*) from user_locations_2020_03)";
    assert_eq!(count(db, sum).await, made);
    let left = "select (select count(*) from pg_class where relname like '%next%' and relkind in ('r', 'p'))
        + (select count(*) from pg_proc where proname like '%_copy' and pronamespace = 'public'::regnamespace)
        + (select count(*) from pg_trigger where not tgisinternal)
        + (select count(*) from pg_constraint where contype = 'c' and conrelid::regclass::text like 'user_locations%')";
    assert_eq!(count(db, left).await, 0, "tables, functions, triggers and conditions of the copying");
    for table in ["user_locations_2020_02", "user_locations_default"] {
        let indexes = format!(
            "select count(*) from pg_index i join pg_inherits h on h.inhrelid = i.indexrelid
             where i.indrelid = '{table}'::regclass and i.indisvalid"
        );
        assert_eq!(count(db, &indexes).await, 3, "{table}: the parent's indexes and key");
    }
}

#[tokio::test]
async fn many_early_rows_are_copied_in_parts_and_seen_once_meanwhile() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 2).await;
    migration::up(&db).await.expect("the steps run");
    fill(&db).await;
    let before = 2 * ROWS + ROWS_LONG_AGO;
    let (begun, written, is_done) =
        (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = {
        let db = connect(&postgres.url("postgres"), 1).await;
        let (begun, written, is_done) = (Arc::clone(&begun), Arc::clone(&written), Arc::clone(&is_done));
        tokio::spawn(async move {
            while !is_done.load(Ordering::Acquire) {
                begun.fetch_add(1, Ordering::AcqRel);
                db.execute_unprepared(
                    "insert into user_locations (id, user_id, \"timestamp\", received_at, latitude, longitude)
                     values (gen_random_uuid(), gen_random_uuid(), '2020-02-29 23:59:59+00', now(), 1, 2)",
                )
                .await
                .expect("written");
                written.fetch_add(1, Ordering::AcqRel);
            }
        })
    };
    let reader = {
        let db = connect(&postgres.url("postgres"), 1).await;
        let (begun, written, is_done) = (Arc::clone(&begun), Arc::clone(&written), Arc::clone(&is_done));
        tokio::spawn(async move {
            let mut reads = 0;
            while !is_done.load(Ordering::Acquire) {
                let least = before + written.load(Ordering::Acquire);
                let seen = count(&db, "select count(*) from user_locations").await;
                let most = before + begun.load(Ordering::Acquire);
                assert!((least..=most).contains(&seen), "{seen} rows, {least} to {most} are there");
                reads += 1;
            }
            reads
        })
    };
    let (from, to) = months();
    let made = migration::ensure_partitions_between(&db, from, to);
    assert_eq!(within_seconds(120, made).await.expect("made"), 4, "two months, two tables");
    is_done.store(true, Ordering::Release);
    within_seconds(20, writer).await.expect("it writes");
    assert!(within_seconds(20, reader).await.expect("it reads") > 3, "it has read meanwhile");
    expect_made(&db, before + written.load(Ordering::Acquire)).await;
    // Rows that one transaction has copied have its number.
    let most =
        "select max(rows) from (select count(*) rows from user_locations_2020_03 group by xmin::text) copied";
    let most = count(&db, most).await;
    assert!((1..=MOST_AT_ONCE).contains(&most), "{most} rows in one transaction");
    assert_eq!(migration::ensure_partitions_between(&db, from, to).await.expect("made"), 0);
}

/// A process ends in the middle; two others go on at once.
#[tokio::test]
async fn copying_that_was_cut_off_is_completed() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 2).await;
    migration::up(&db).await.expect("the steps run");
    fill(&db).await;
    let (from, to) = months();
    let killed = {
        let db = connect(&postgres.url("postgres"), 1).await;
        tokio::spawn(async move { migration::ensure_partitions_between(&db, from, to).await })
    };
    let copied = "select count(*) from pg_class where relname = 'user_locations_2020_02' and relpages >= 0
        and pg_relation_size(oid) > 0";
    within_seconds(60, async {
        while count(&db, copied).await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    killed.abort();
    let _ = killed.await;
    assert_eq!(count(&db, "select count(*) from pg_class where relname = 'user_locations_next'").await, 1);
    // What comes between is repeated all the same.
    db.execute_unprepared(
        "insert into user_locations (id, user_id, \"timestamp\", received_at, latitude, longitude)
         values (gen_random_uuid(), gen_random_uuid(), '2020-02-29 23:59:59+00', now(), 1, 2)",
    )
    .await
    .expect("written");
    let others = [connect(&postgres.url("postgres"), 1).await, connect(&postgres.url("postgres"), 1).await];
    let [one, two] = others
        .map(|db| tokio::spawn(async move { migration::ensure_partitions_between(&db, from, to).await }));
    let made = within_seconds(120, async { [one.await, two.await] }).await;
    let made: u32 = made.into_iter().map(|made| made.expect("no panic").expect("made")).sum();
    assert_eq!(made, 4, "each once");
    expect_made(&db, 2 * ROWS + ROWS_LONG_AGO + 1).await;
}

/// A process that finds another one making partitions makes none itself.
#[tokio::test]
async fn a_process_whose_turn_it_is_not_does_nothing() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 1).await;
    migration::up(&db).await.expect("the steps run");
    let now = Utc.with_ymd_and_hms(2031, 5, 9, 0, 0, 0).single().expect("a day");
    let status = async |now| {
        let status = migration::partition_status(&db, now).await.expect("read");
        status.into_iter().map(|status| (status.months_ahead, status.default_rows)).collect::<Vec<_>>()
    };
    assert_eq!(status(now).await, [(-1, 0); 2]);
    let another = connect(&postgres.url("postgres"), 1).await;
    another
        .execute_unprepared("begin; select pg_advisory_xact_lock(8678550222901635073)")
        .await
        .expect("held");
    assert_eq!(migration::try_ensure_partitions(&db, now, 2).await.expect("asked"), None);
    assert_eq!(status(now).await, [(-1, 0); 2]);
    another.execute_unprepared("rollback").await.expect("let go");
    assert_eq!(migration::try_ensure_partitions(&db, now, 2).await.expect("made"), Some(6));
    assert_eq!(status(now).await, [(2, 0); 2]);
    assert_eq!(status(now + chrono::Months::new(2)).await, [(0, 0); 2]);
    assert_eq!(migration::try_ensure_partitions(&db, now, 2).await.expect("asked"), Some(0));
}
