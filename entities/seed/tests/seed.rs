//! Demo data on both databases: the same rows each time, as many as promised, and all of them consistent.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../../migration/tests/migrate/postgres.rs"]
mod postgres;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use chrono::{DateTime, Utc};
use entities::{DatabaseOptions, Store, activity, form, location, session, submission, user};
use postgres::Postgres;
use sea_orm::{ConnectionTrait, EntityTrait, ModelTrait, QueryOrder, Statement};
use seed::{Progress, Size, Summary};

async fn connect(url: &str) -> Store {
    let config = DatabaseOptions::at(url);
    let store = Store::connect(&config, &mut prometheus_client::registry::Registry::default()).await.unwrap();
    migration::up(store.connection()).await.unwrap();
    store
}

fn now() -> DateTime<Utc> {
    "2026-11-23T13:14:15Z".parse().unwrap()
}

async fn fill(store: &Store, size: Size) -> Summary {
    let (from, to) = seed::span(now());
    migration::ensure_partitions_between(store.connection(), from, to).await.unwrap();
    seed::run_at(store, size, now(), &mut |_| {}).await.unwrap()
}

async fn number(store: &Store, sql: &str) -> i64 {
    let db = store.connection();
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}

/// The rows of one table as the program reads them, in one number.
async fn hash_of<E>(store: &Store, id: E::Column) -> u64
where
    E: EntityTrait,
    E::Model: Debug + ModelTrait,
{
    let mut hasher = DefaultHasher::new();
    for row in E::find().order_by_asc(id).all(store.connection()).await.unwrap() {
        format!("{row:?}").hash(&mut hasher);
    }
    hasher.finish()
}

async fn hashes(store: &Store) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("users", hash_of::<user::Entity>(store, user::Column::Id).await),
        ("sessions", hash_of::<session::Entity>(store, session::Column::Id).await),
        ("forms", hash_of::<form::Entity>(store, form::Column::Id).await),
        ("versions", hash_of::<form::version::Entity>(store, form::version::Column::Id).await),
        ("submissions", hash_of::<submission::Entity>(store, submission::Column::Id).await),
        ("locations", hash_of::<location::Entity>(store, location::Column::Id).await),
        ("last", hash_of::<location::last::Entity>(store, location::last::Column::Id).await),
        ("activity", hash_of::<activity::Entity>(store, activity::Column::Id).await),
    ])
}

/// What must not be found.
const FAULTS: [&str; 24] = [
    "select count(*) from users where email <> lower(email) or updated_at < created_at",
    "select count(*) from users u where last_login is distinct from
         (select max(created_at) from user_sessions s where s.user_id = u.id)",
    "select count(*) from users u where not is_active and exists
         (select 1 from user_sessions s where s.user_id = u.id and s.is_active)",
    "select count(*) from user_sessions s join users u on u.id = s.user_id where s.created_at < u.created_at",
    "select count(*) from user_sessions where is_active <> (revoked_at is null) or is_active <> (end_reason is null)",
    "select count(*) from user_sessions where last_activity < created_at or expires_at < last_activity
         or revoked_at < last_activity",
    "select count(*) from (select user_id from user_sessions where is_active and expires_at > '2026-11-23T00:00:00+00:00'
         group by user_id having count(*) > 20) t",
    "select count(*) from forms f join users u on u.id = f.owner_id
         where u.role in ('COLLECTOR', 'VIEWER') or f.created_at < u.created_at or f.updated_at < f.created_at",
    "select count(*) from forms where (status = 'DRAFT') <> (version = 0) or (version = 0) <> (published_at is null)
         or (version = 0 and draft is null) or draft_revision < 1",
    "select count(*) from forms f where version <> (select count(*) from form_versions v where v.form_id = f.id)",
    "select count(*) from forms f where version > 0 and published_at is distinct from
         (select max(published_at) from form_versions v where v.form_id = f.id)",
    "select count(*) from form_versions where length(hash) <> 64",
    "select count(*) from form_submissions s left join form_versions v
         on v.form_id = s.form_id and v.number = s.form_version where v.id is null or v.published_at > s.created_at",
    "select count(*) from form_submissions where (user_id is null) <> (session_id is null)",
    "select count(*) from form_submissions f left join user_sessions s on s.id = f.session_id
         where f.session_id is not null and (s.id is null or s.user_id <> f.user_id or f.created_at < s.created_at)",
    "select count(*) from form_submissions f join users u on u.id = f.user_id where u.role = 'VIEWER'",
    "select count(*) from form_submissions f left join user_locations l on l.id = f.location_id
         where f.location_id is not null and (l.id is null or l.user_id <> f.user_id or l.session_id <> f.session_id)",
    "select count(*) from user_locations l left join user_sessions s on s.id = l.session_id
         where s.id is null or s.user_id <> l.user_id",
    "select count(*) from user_locations where latitude not between -90 and 90 or longitude not between -180 and 180
         or heading < 0 or heading >= 360 or speed < 0 or received_at < \"timestamp\"",
    "select count(*) from user_locations where received_at > '2026-11-23T00:00:00+00:00'",
    "select count(*) from (select user_id, max(\"timestamp\") as newest from user_locations group by user_id) h
         full join user_last_locations l on l.user_id = h.user_id and l.\"timestamp\" = h.newest
         where l.user_id is null or h.user_id is null",
    "select count(*) from user_last_locations l
         where not exists (select 1 from user_locations h where h.id = l.id and h.user_id = l.user_id)",
    "select count(*) from user_activity_logs where created_at > '2026-11-23T00:00:00+00:00'",
    "select count(*) from user_activity_logs a left join (
         select id, 'User' as type from users union all select id, 'Session' from user_sessions
         union all select id, 'Form' from forms union all select id, 'FormVersion' from form_versions
         union all select id, 'Submission' from form_submissions
         ) t on t.id = a.subject_id and t.type = a.subject_type where t.id is null",
];

/// How many different things must be found at least.
const VARIETY: [(i64, &str); 9] = [
    (6, "select count(distinct end_reason) from user_sessions"),
    (4, "select count(distinct status) from forms"),
    (5, "select count(distinct role) from users"),
    (5, "select count(distinct subject_type) from user_activity_logs"),
    (1, "select count(*) from users where last_login is null"),
    (1, "select count(*) from user_sessions where is_active"),
    (1, "select count(*) from form_submissions where user_id is null"),
    (1, "select count(*) from form_submissions where location_id is not null"),
    (1, "select count(*) from forms where version > 1"),
];

async fn is_consistent(store: &Store) {
    for sql in FAULTS {
        assert_eq!(number(store, sql).await, 0, "{sql}");
    }
    for (least, sql) in VARIETY {
        assert!(number(store, sql).await >= least, "{sql}");
    }
    let accounts = seed::demo_accounts();
    for account in accounts {
        let found = user::Entity::find_by_id(account.id).one(store.connection()).await.unwrap().unwrap();
        assert_eq!((found.email.as_str(), found.role, found.is_active), (account.email, account.role, true));
    }
}

fn assert_small(summary: &Summary) {
    let rows: BTreeMap<_, _> = summary.tables.iter().copied().collect();
    assert_eq!((rows["users"], rows["user_sessions"], rows["forms"]), (25, 60, 10));
    assert_eq!(
        (rows["form_submissions"], rows["user_locations"], rows["user_activity_logs"]),
        (120, 300, 80)
    );
}

#[tokio::test]
async fn the_same_day_gives_the_same_rows_on_both_databases() {
    let (one, two) = (connect("sqlite::memory:").await, connect("sqlite::memory:").await);
    assert!(seed::is_empty(&one).await.unwrap());
    let summary = fill(&one, Size::S).await;
    assert_small(&summary);
    assert!(summary.elapsed < Duration::from_secs(1), "{summary:?}");
    assert!(!seed::is_empty(&one).await.unwrap());
    is_consistent(&one).await;

    fill(&two, Size::S).await;
    let expected = hashes(&one).await;
    assert_eq!(hashes(&two).await, expected);

    let postgres = Postgres::start();
    let three = connect(&postgres.url("postgres")).await;
    assert_small(&fill(&three, Size::S).await);
    is_consistent(&three).await;
    assert_eq!(hashes(&three).await, expected);
    let strays = "select (select count(*) from user_locations_default) + (select count(*) from user_activity_logs_default)";
    assert_eq!(number(&three, strays).await, 0, "every row has a month");
}

#[tokio::test]
async fn demo_data_does_not_get_mixed_up_with_other_data() {
    let store = connect("sqlite::memory:").await;
    fill(&store, Size::S).await;
    let refusal = seed::run(&store, Size::S, &mut |_| {}).await.unwrap_err();
    assert_eq!(refusal.to_string(), "the database is not empty: demo data is only loaded into a new one");
}

#[tokio::test]
async fn months_have_to_be_made_first() {
    let postgres = Postgres::start();
    let store = connect(&postgres.url("postgres")).await;
    let refusal = seed::run_at(&store, Size::S, now(), &mut |_| {}).await.unwrap_err();
    assert!(refusal.to_string().contains("user_locations_2025_10"), "{refusal}");
    assert!(seed::is_empty(&store).await.unwrap());
}

#[tokio::test]
async fn progress_ends_at_the_number_of_rows() {
    let store = connect("sqlite::memory:").await;
    let mut last = BTreeMap::new();
    let mut note = |Progress { table, done, total }| {
        last.insert(table, (done, total));
    };
    let summary = seed::run_at(&store, Size::S, now(), &mut note).await.unwrap();
    for (table, rows) in summary.tables {
        assert_eq!(last[table], (rows, rows), "{table}");
    }
}
