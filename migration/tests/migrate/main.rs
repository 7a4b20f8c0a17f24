//! The steps on real databases: SQLite in memory and in a file, and a private PostgreSQL that each test starts.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod early_rows;
mod postgres;

use std::{env, fs, time::Duration};

use chrono::{TimeZone, Utc};
use postgres::Postgres;
use sea_orm_migration::sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement, TransactionTrait,
};

async fn connect(url: &str, connections: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false);
    Database::connect(options).await.expect("the database answers")
}

async fn count(db: &DatabaseConnection, sql: &str) -> i64 {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Tables of ours that are there.
async fn tables(db: &DatabaseConnection) -> i64 {
    let sql = match db.get_database_backend() {
        DbBackend::Postgres => {
            "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition"
        }
        _ => "select count(*) from sqlite_master where type = 'table' and name not like 'sqlite_%'",
    };
    count(db, sql).await
}

/// How many files have a step.
fn step_files() -> u32 {
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    u32::try_from(names.filter(|name| name.starts_with("m0")).count()).unwrap()
}

/// What both databases must do alike: up twice, status, all the way down, up again.
async fn goes_up_and_down(db: &DatabaseConnection) {
    let all = step_files();
    assert_eq!(migration::pending(db).await.unwrap(), all, "each file is a step");
    assert!(migration::status(db).await.unwrap().iter().all(|step| !step.applied));
    assert_eq!(tables(db).await, 0, "status and pending only read");

    migration::up(db).await.unwrap();
    migration::up(db).await.unwrap();
    migration::analyze(db).await.unwrap();
    assert_eq!(migration::pending(db).await.unwrap(), 0);
    let made = tables(db).await;
    let steps = migration::status(db).await.unwrap();
    assert_eq!(steps[0], migration::Step { name: "m0001_users".to_owned(), applied: true });

    migration::down(db, 2).await.unwrap();
    assert_eq!(migration::pending(db).await.unwrap(), 2);
    migration::down(db, 100).await.unwrap();
    assert_eq!(migration::pending(db).await.unwrap(), all);
    assert_eq!(tables(db).await, 1, "only the list of steps is left");

    migration::up(db).await.unwrap();
    assert_eq!(migration::pending(db).await.unwrap(), 0);
    assert_eq!(tables(db).await, made);
}

/// An old program meets a newer one's schema: it starts, and shows what it does not know.
async fn accepts_a_newer_schema(db: &DatabaseConnection) {
    db.execute_unprepared("insert into seaql_migrations values ('m9999_later', 0)").await.unwrap();
    migration::up(db).await.unwrap();
    assert_eq!(migration::pending(db).await.unwrap(), 0);
    assert_eq!(migration::status(db).await.unwrap().last().unwrap().name, "m9999_later");
}

#[tokio::test]
async fn sqlite_in_memory_goes_up_and_down() {
    let db = connect("sqlite::memory:", 1).await;
    goes_up_and_down(&db).await;
    accepts_a_newer_schema(&db).await;
    assert_eq!(migration::ensure_partitions(&db, 3).await.unwrap(), 0);
}

#[tokio::test]
async fn two_processes_may_migrate_one_sqlite_file() {
    let path = env::temp_dir().join(format!("xp-migrate-{}.db", std::process::id()));
    let url = format!("sqlite:{}?mode=rwc", path.display());
    let (one, two) = (connect(&url, 2).await, connect(&url, 2).await);
    let (first, second) = tokio::join!(migration::up(&one), migration::up(&two));
    first.unwrap();
    second.unwrap();
    assert_eq!(migration::pending(&one).await.unwrap(), 0);
    fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn postgres_goes_up_and_down() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 4).await;
    goes_up_and_down(&db).await;
    accepts_a_newer_schema(&db).await;
    let trigrams = "select count(*) from pg_indexes where indexdef like '%gin_trgm_ops%'";
    assert_eq!(count(&db, trigrams).await, 2);
}

/// Rows from before names and titles were composed.
async fn composes_what_is_stored(db: &DatabaseConnection, blob: fn(u32) -> String) {
    migration::up(db).await.unwrap();
    take_back_from(db, "m0010_composed").await;
    let now = "'2026-01-01T00:00:00+00:00'";
    // More than are read at once, and one of them in two thousand decomposed.
    let users: Vec<String> = (0..2_100)
        .map(|number| {
            let name = if number == 2_050 { "L\u{ea}\u{301} e\u{301}" } else { "\u{1ebf} plain" };
            let id = blob(number);
            format!("({id}, 'u{number}@example.com', '{name}', '{name}', 'VIEWER', true, {now}, {now})")
        })
        .collect();
    let insert = "insert into users (id, email, display_name, search_name, role, is_active, created_at, updated_at) values";
    db.execute_unprepared(&format!("{insert} {}", users.join(", "))).await.unwrap();
    let (form, owner, decomposed) = (blob(9_000), blob(0), "D\u{323}a\u{300}");
    db.execute_unprepared(&format!(
        "insert into forms (id, owner_id, title, search_title, description, status, version, draft_revision, created_at, updated_at)
         values ({form}, {owner}, '{decomposed}', '{decomposed}', null, 'DRAFT', 0, 0, {now}, {now})"
    ))
    .await
    .unwrap();
    migration::up(db).await.unwrap();
    for (table, column, composed, wanted) in [
        ("users", "display_name", "L\u{1ebf} \u{e9}", 1),
        ("users", "search_name", "L\u{1ebf} \u{e9}", 1),
        ("users", "display_name", "\u{1ebf} plain", 2_099),
        ("forms", "title", "\u{1e0c}\u{e0}", 1),
        ("forms", "search_title", "\u{1e0c}\u{e0}", 1),
    ] {
        let sql = format!("select count(*) from {table} where {column} = '{composed}'");
        assert_eq!(count(db, &sql).await, wanted, "{table}.{column}");
    }
    assert_eq!(count(db, "select count(*) from forms where description is null").await, 1);
}

#[tokio::test]
async fn sqlite_composes_what_is_stored() {
    let db = connect("sqlite::memory:", 1).await;
    composes_what_is_stored(&db, |number| format!("x'{number:032x}'")).await;
}

#[tokio::test]
async fn postgres_composes_what_is_stored() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 1).await;
    let id = |number| format!("'00000000-0000-7000-8000-{number:012x}'");
    composes_what_is_stored(&db, id).await;
}

#[tokio::test]
async fn many_processes_may_migrate_one_postgres() {
    let postgres = Postgres::start();
    let mut ups = Vec::new();
    for _ in 0..4 {
        let db = connect(&postgres.url("postgres"), 1).await;
        ups.push(tokio::spawn(async move { migration::up(&db).await }));
    }
    for up in ups {
        up.await.unwrap().unwrap();
    }
}

/// The first of the last steps that change submissions.
const OF_SUBMISSIONS: &str = "m0011_client_ids";

/// Takes this step and all later ones back; says how many those were.
async fn take_back_from(db: &DatabaseConnection, first: &str) -> u32 {
    let steps = migration::status(db).await.unwrap();
    let before = steps.iter().position(|step| step.name == first).expect("a step");
    let count = u32::try_from(steps.len() - before).unwrap();
    migration::down(db, count).await.unwrap();
    count
}

/// A long read, such as a dump's, holds a step up; it must not hold up those who come after the step.
#[tokio::test]
async fn others_go_on_while_a_step_waits_for_its_table() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 1).await;
    migration::up(&db).await.unwrap();
    let taken_back = take_back_from(&db, OF_SUBMISSIONS).await;
    let reader = connect(&postgres.url("postgres"), 1).await;
    let dump = reader.begin().await.unwrap();
    dump.execute_unprepared("select count(*) from form_submissions").await.unwrap();
    let up = tokio::spawn(async move { migration::up(&db).await });
    let other = connect(&postgres.url("postgres"), 1).await;
    let waiting =
        "select count(*) from pg_locks where not granted and relation = 'form_submissions'::regclass";
    for _ in 0..2 {
        within_seconds(20, async {
            while count(&other, waiting).await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        within_seconds(20, async { count(&other, "select count(*) from form_submissions").await }).await;
        within_seconds(20, async { other.execute_unprepared("delete from form_submissions").await.unwrap() })
            .await;
    }
    assert!(!up.is_finished(), "it is still tried");
    assert_eq!(
        migration::pending(&other).await.unwrap(),
        taken_back,
        "what is not done is not noted as done"
    );
    dump.rollback().await.unwrap();
    within_seconds(60, up).await.unwrap().unwrap();
    assert_eq!(migration::pending(&other).await.unwrap(), 0);
    assert_eq!(count(&other, INDEXES).await, 2);
}

/// Making a month's partition, which empties the default one, holds up neither reads nor writes while it waits.
#[tokio::test]
async fn others_go_on_while_a_month_waits_for_its_table() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 1).await;
    migration::up(&db).await.unwrap();
    let reader = connect(&postgres.url("postgres"), 1).await;
    let dump = reader.begin().await.unwrap();
    dump.execute_unprepared("select count(*) from user_locations").await.unwrap();
    let made = tokio::spawn(async move { migration::ensure_partitions(&db, 4).await });
    let other = connect(&postgres.url("postgres"), 1).await;
    let waiting =
        "select count(*) from pg_locks where not granted and relation = 'user_locations_default'::regclass";
    within_seconds(20, async {
        while count(&other, waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    within_seconds(20, async { count(&other, "select count(*) from user_locations").await }).await;
    dump.rollback().await.unwrap();
    assert_eq!(within_seconds(60, made).await.unwrap().unwrap(), 2);
}

/// The indexes that operators may build beforehand, where they are good.
const INDEXES: &str = "select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid where i.indisvalid and \
    c.relname in ('form_submissions_own_client', 'form_submissions_versions')";

#[tokio::test]
async fn indexes_that_were_built_beforehand_are_kept_and_broken_ones_are_built_anew() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 1).await;
    migration::up(&db).await.unwrap();
    take_back_from(&db, OF_SUBMISSIONS).await;
    db.execute_unprepared("alter table form_submissions add column own_client_id uuid").await.unwrap();
    db.execute_unprepared(
        "create index concurrently form_submissions_versions on form_submissions (form_id, user_id, form_version)",
    )
    .await
    .unwrap();
    db.execute_unprepared(
        "create unique index form_submissions_own_client on form_submissions (form_id, user_id, own_client_id) \
         where own_client_id is not null",
    )
    .await
    .unwrap();
    db.execute_unprepared(
        "update pg_index set indisvalid = false where indexrelid = 'form_submissions_own_client'::regclass",
    )
    .await
    .unwrap();
    let kept = "select 'form_submissions_versions'::regclass::oid::bigint";
    let before = count(&db, kept).await;
    migration::up(&db).await.unwrap();
    assert_eq!(count(&db, INDEXES).await, 2);
    assert_eq!(count(&db, kept).await, before, "not built twice");
}

async fn within_seconds<T>(seconds: u64, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), what).await.expect("in time")
}

#[tokio::test]
async fn a_role_without_trigrams_still_gets_a_schema() {
    let postgres = Postgres::start();
    let admin = connect(&postgres.url("postgres"), 1).await;
    // On PostgreSQL 13 and later `pg_trgm` is trusted: whoever may create in the database may create it.
    admin
        .execute_unprepared("create role plain login; grant create on schema public to plain")
        .await
        .unwrap();
    let db = connect(&postgres.url("plain"), 2).await;
    migration::up(&db).await.unwrap();
    assert_eq!(migration::pending(&db).await.unwrap(), 0);
    let trigrams = "select count(*) from pg_indexes where indexdef like '%gin_trgm_ops%'";
    assert_eq!(count(&db, trigrams).await, 0);
    migration::down(&db, 100).await.unwrap();
}

#[tokio::test]
async fn months_are_made_once_and_take_over_early_rows() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 2).await;
    migration::up(&db).await.unwrap();
    let months = "select count(*) from pg_inherits where inhparent = 'user_locations'::regclass";
    assert_eq!(count(&db, months).await, 5, "the default, this month and three more");
    assert_eq!(migration::ensure_partitions(&db, 3).await.unwrap(), 0);

    db.execute_unprepared(
        "insert into user_locations (id, user_id, \"timestamp\", received_at, latitude, longitude) values
         (gen_random_uuid(), gen_random_uuid(), '2020-02-29 23:59:59.999999+00', now(), 1, 2),
         (gen_random_uuid(), gen_random_uuid(), '2020-03-01 00:00:00+00', now(), 1, 2)",
    )
    .await
    .unwrap();
    assert_eq!(count(&db, "select count(*) from user_locations_default").await, 2);

    let (from, to) = (
        Utc.with_ymd_and_hms(2020, 1, 31, 23, 0, 0).unwrap(),
        Utc.with_ymd_and_hms(2020, 2, 1, 0, 0, 0).unwrap(),
    );
    assert_eq!(
        migration::ensure_partitions_between(&db, from, to).await.unwrap(),
        4,
        "two months, two tables"
    );
    assert_eq!(migration::ensure_partitions_between(&db, from, to).await.unwrap(), 0);
    assert_eq!(count(&db, "select count(*) from user_locations_default").await, 1);
    assert_eq!(count(&db, "select count(*) from user_locations_2020_02").await, 1);
    assert_eq!(count(&db, "select count(*) from user_locations").await, 2);
    let indexes = "select count(*) from pg_indexes where tablename = 'user_locations_2020_02'";
    assert_eq!(count(&db, indexes).await, 3, "the parent's indexes and key");
}

/// Every list of the graph and the index that runs in its whole order: no sort, and the page starts at once.
const LISTS: [(&str, &str); 18] = [
    ("users_email_id", "select id from users order by email, id limit 5"),
    ("users_display_name", "select id from users order by display_name, id limit 5"),
    ("users_created", "select id from users order by created_at desc, id desc limit 5"),
    (
        "user_sessions_of_user",
        "select id from user_sessions where user_id = $id order by created_at desc, id desc limit 5",
    ),
    (
        "user_sessions_active",
        "select id from user_sessions where user_id = $id and is_active and expires_at > $now",
    ),
    ("forms_of_owner", "select id from forms where owner_id = $id order by created_at desc, id desc limit 5"),
    ("forms_created", "select id from forms order by created_at desc, id desc limit 5"),
    ("forms_updated", "select id from forms order by updated_at desc, id desc limit 5"),
    ("forms_title", "select id from forms order by title, id limit 5"),
    ("forms_status", "select id from forms where status = 'OPEN' order by created_at desc, id desc limit 5"),
    (
        "form_versions_of_form",
        "select id from form_versions where form_id = $id order by number desc limit 5",
    ),
    (
        "form_submissions_of_form",
        "select id from form_submissions where form_id = $id order by created_at desc, id desc limit 5",
    ),
    (
        "form_submissions_of_user",
        "select id from form_submissions where user_id = $id order by created_at desc, id desc limit 5",
    ),
    (
        "form_submissions_of_both",
        "select id from form_submissions where form_id = $id and user_id = $id order by created_at desc, id desc limit 5",
    ),
    (
        "user_last_locations_newest",
        "select id from user_last_locations order by \"timestamp\" desc, id desc limit 5",
    ),
    (
        "user_locations",
        "select id from user_locations where user_id = $id order by \"timestamp\" desc, id desc limit 5",
    ),
    (
        "user_locations",
        "select id from user_locations where session_id = $id order by \"timestamp\" desc, id desc limit 5",
    ),
    (
        "user_activity_logs",
        "select id from user_activity_logs where user_id = $id and action_type = 'a' order by created_at desc, id desc limit 5",
    ),
];

/// The sorted list of accounts on both databases; the literal differs, since it has to be the index's own.
const BY_LAST_LOGIN: &str =
    "select id from users order by coalesce(last_login, $epoch) desc, id desc limit 5";

async fn plan(db: &DatabaseConnection, explain: &str, sql: &str) -> String {
    let statement = Statement::from_string(db.get_database_backend(), format!("{explain} {sql}"));
    let at = if db.get_database_backend() == DbBackend::Postgres { 0 } else { 3 };
    let rows = db.query_all_raw(statement).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.try_get_by_index(at).unwrap()).collect();
    lines.join("\n")
}

#[tokio::test]
async fn every_list_walks_its_index_on_postgres() {
    let postgres = Postgres::start();
    let db = connect(&postgres.url("postgres"), 1).await;
    migration::up(&db).await.unwrap();
    db.execute_unprepared("set enable_seqscan = off; set enable_bitmapscan = off").await.unwrap();
    let by_login = BY_LAST_LOGIN.replace("$epoch", "'1970-01-01 00:00:00+00'::timestamptz");
    for (index, sql) in LISTS.into_iter().chain([("users_last_login", by_login.as_str())]) {
        let sql = sql.replace("$id", "'00000000-0000-7000-8000-000000000000'").replace("$now", "now()");
        let plan = plan(&db, "explain (costs off)", &sql).await;
        assert!(plan.contains(index) && !plan.replace("Sort Key", "").contains("Sort"), "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn every_list_walks_its_index_on_sqlite() {
    let db = connect("sqlite::memory:", 1).await;
    migration::up(&db).await.unwrap();
    let by_login = BY_LAST_LOGIN.replace("$epoch", "'1970-01-01T00:00:00+00:00'");
    for (index, sql) in LISTS.into_iter().chain([("users_last_login", by_login.as_str())]) {
        let sql = sql.replace("$id", "x'00'").replace("$now", "'2026-01-01T00:00:00+00:00'");
        let plan = plan(&db, "explain query plan", &sql).await;
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}
