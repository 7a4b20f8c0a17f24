//! The entities say what the migrations made: every table, column, type, key and reference, on both
//! databases. Not here: what is in the tables (`seed`), how they are made (`migration`).

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../../migration/tests/migrate/postgres.rs"]
mod postgres;

use std::collections::{BTreeMap, BTreeSet};

use entities::{
    activity,
    auth::{key, revocation},
    cache::{instance, outbox},
    events::{consumer, log as event_log},
    form, idempotency, location, session, submission, user, webhook,
};
use postgres::Postgres;
use sea_orm::{
    ColumnTrait, ColumnType, ConnectionTrait, Database, DatabaseConnection, DbBackend, EntityTrait,
    IdenStatic, Iterable, PrimaryKeyToColumn, QueryResult, RelationDef, RelationTrait, RelationType,
    Statement, sea_query::TableRef,
};

/// A table as the database or its entity has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    /// Type, and whether it takes NULL.
    columns: BTreeMap<String, (String, bool)>,
    /// In their order.
    primary_key: Vec<String>,
    /// Column, table and column.
    references: BTreeSet<[String; 3]>,
}

type Tables = BTreeMap<String, Table>;

/// What all entities say. Relations that the database does not keep (`skip_fk`) are no references.
fn declared(backend: DbBackend) -> Tables {
    BTreeMap::from([
        table_of::<user::Entity>(backend),
        table_of::<session::Entity>(backend),
        table_of::<form::Entity>(backend),
        table_of::<form::version::Entity>(backend),
        table_of::<submission::Entity>(backend),
        table_of::<location::Entity>(backend),
        table_of::<location::last::Entity>(backend),
        table_of::<activity::Entity>(backend),
        table_of::<key::Entity>(backend),
        table_of::<revocation::Entity>(backend),
        table_of::<revocation::counter::Entity>(backend),
        table_of::<instance::Entity>(backend),
        table_of::<outbox::Entity>(backend),
        table_of::<idempotency::Entity>(backend),
        table_of::<event_log::Entity>(backend),
        table_of::<consumer::Entity>(backend),
        table_of::<webhook::Entity>(backend),
        table_of::<webhook::form::Entity>(backend),
        table_of::<webhook::lane::Entity>(backend),
        table_of::<webhook::delivery::Entity>(backend),
    ])
}

fn table_of<E: EntityTrait>(backend: DbBackend) -> (String, Table) {
    let columns = E::Column::iter().map(|column| {
        let def = column.def();
        let kind = type_in(backend, def.get_column_type()).to_owned();
        (column.as_str().to_owned(), (kind, def.is_null()))
    });
    let primary_key = E::PrimaryKey::iter().map(|key| key.into_column().as_str().to_owned());
    let kept = E::Relation::iter().map(|relation| relation.def());
    let kept = kept.filter(|def| def.rel_type == RelationType::HasOne && !def.skip_fk);
    let references = kept.map(|def| {
        let [_, column, table, of] = ends(&def);
        [column, table, of]
    });
    let name = E::default().table_name().to_owned();
    let table = Table {
        columns: columns.collect(),
        primary_key: primary_key.collect(),
        references: references.collect(),
    };
    (name, table)
}

/// Table, column, table, column.
fn ends(def: &RelationDef) -> [String; 4] {
    let name = |table: &TableRef| table.sea_orm_table().to_string();
    let column = |identity: &sea_orm::Identity| {
        let mut columns = identity.iter();
        let column = columns.next().unwrap().to_string();
        assert!(columns.next().is_none(), "{identity:?}");
        column
    };
    [name(&def.from_tbl), column(&def.from_col), name(&def.to_tbl), column(&def.to_col)]
}

/// The database's word for a type.
fn type_in(backend: DbBackend, kind: &ColumnType) -> &'static str {
    let [postgres, sqlite] = match kind {
        ColumnType::Uuid => ["uuid", "blob"],
        ColumnType::String(_) | ColumnType::Text => ["text", "text"],
        ColumnType::Boolean => ["boolean", "boolean"],
        ColumnType::Integer => ["integer", "integer"],
        ColumnType::BigInteger => ["bigint", "bigint"],
        ColumnType::Double => ["double precision", "real"],
        ColumnType::TimestampWithTimeZone => ["timestamp with time zone", "text"],
        ColumnType::JsonBinary => ["jsonb", "text"],
        other => panic!("no column has the type {other:?}"),
    };
    if backend == DbBackend::Postgres { postgres } else { sqlite }
}

const COLUMNS: &str = "select c.relname, a.attname, format_type(a.atttypid, null), not a.attnotnull
    from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    and a.attnum > 0 and not a.attisdropped and c.relname <> 'seaql_migrations'";
const COLUMNS_SQLITE: &str = "select m.name, p.name, lower(p.type), not p.\"notnull\"
    from sqlite_master m join pragma_table_info(m.name) p
    where m.type = 'table' and m.name not like 'sqlite_%' and m.name <> 'seaql_migrations'";
const KEYS: &str = "select c.relname, a.attname from pg_constraint k join pg_class c on c.oid = k.conrelid
    cross join unnest(k.conkey) with ordinality as p(number, place)
    join pg_attribute a on a.attrelid = c.oid and a.attnum = p.number
    where k.contype = 'p' and c.relnamespace = 'public'::regnamespace and not c.relispartition
    and c.relname <> 'seaql_migrations' order by c.relname, p.place";
const KEYS_SQLITE: &str = "select m.name, p.name from sqlite_master m join pragma_table_info(m.name) p
    where m.type = 'table' and p.pk > 0 and m.name <> 'seaql_migrations' order by m.name, p.pk";
const REFERENCES: &str = "select c.relname, a.attname, f.relname, b.attname
    from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_class f on f.oid = k.confrelid
    join pg_attribute a on a.attrelid = c.oid and a.attnum = k.conkey[1]
    join pg_attribute b on b.attrelid = f.oid and b.attnum = k.confkey[1]
    where k.contype = 'f' and cardinality(k.conkey) = 1";
const REFERENCES_SQLITE: &str = "select m.name, p.\"from\", p.\"table\", p.\"to\"
    from sqlite_master m join pragma_foreign_key_list(m.name) p where m.type = 'table'";

/// What the database has.
async fn migrated(db: &DatabaseConnection) -> Tables {
    let backend = db.get_database_backend();
    let rows = async |postgres: &'static str, sqlite: &'static str| {
        let sql = if backend == DbBackend::Postgres { postgres } else { sqlite };
        db.query_all_raw(Statement::from_string(backend, sql)).await.unwrap()
    };
    let text = |row: &QueryResult, at: usize| row.try_get_by_index::<String>(at).unwrap();
    let mut tables = Tables::new();
    for row in rows(COLUMNS, COLUMNS_SQLITE).await {
        let table = tables.entry(text(&row, 0)).or_default();
        table.columns.insert(text(&row, 1), (text(&row, 2), row.try_get_by_index(3).unwrap()));
    }
    for row in rows(KEYS, KEYS_SQLITE).await {
        tables.get_mut(&text(&row, 0)).unwrap().primary_key.push(text(&row, 1));
    }
    for row in rows(REFERENCES, REFERENCES_SQLITE).await {
        let reference = [text(&row, 1), text(&row, 2), text(&row, 3)];
        tables.get_mut(&text(&row, 0)).unwrap().references.insert(reference);
    }
    // There is one row, which needs no key; SeaORM's derive does.
    let counter = tables.get_mut("revocation_counter").unwrap();
    assert_eq!(counter.primary_key, Vec::<String>::new());
    counter.primary_key.push("seq".to_owned());
    tables
}

async fn agree(url: &str) {
    let db = Database::connect(url).await.unwrap();
    migration::up(&db).await.unwrap();
    let (declared, migrated) = (declared(db.get_database_backend()), migrated(&db).await);
    let names = |tables: &Tables| tables.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&declared), names(&migrated));
    for (name, table) in &declared {
        assert_eq!(*table, migrated[name], "{name}: its entity, and the database");
    }
}

#[tokio::test]
async fn entities_agree_with_the_tables_of_sqlite() {
    agree("sqlite::memory:").await;
}

#[tokio::test]
async fn entities_agree_with_the_tables_of_postgresql() {
    let postgres = Postgres::start();
    agree(&postgres.url("postgres")).await;
}

/// The relations of an entity: those to one row of another table, and, as seen from there, those to many of this one.
fn relations_of<E: EntityTrait>() -> [BTreeSet<[String; 4]>; 2] {
    let of = |kind: RelationType| {
        let relations = E::Relation::iter().map(|relation| relation.def());
        relations.filter(move |def| def.rel_type == kind).map(|def| ends(&def))
    };
    let to_many = of(RelationType::HasMany).map(|[table, column, other, of]| [other, of, table, column]);
    [of(RelationType::HasOne).collect(), to_many.collect()]
}

#[test]
fn relations_to_many_rows_have_their_counterpart() {
    let all = [
        relations_of::<user::Entity>(),
        relations_of::<session::Entity>(),
        relations_of::<form::Entity>(),
        relations_of::<form::version::Entity>(),
        relations_of::<submission::Entity>(),
    ];
    let [mut to_one, mut to_many] = [BTreeSet::new(), BTreeSet::new()];
    for [one, many] in all {
        to_one.extend(one);
        to_many.extend(many);
    }
    assert!(to_many.len() >= 4 && to_many.is_subset(&to_one), "{to_many:?} {to_one:?}");
}
