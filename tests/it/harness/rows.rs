//! What is in the tables beside the graph: the ids of every type's objects, and how a row is copied. Both
//! follow from the entities and the migrated tables, so that a new entity needs no line here.

use entities::{NodeKind, node};
use sea_orm::{ConnectionTrait as _, QueryResult, Statement};
use uuid::Uuid;

use super::TestApp;

/// The names of the types that have ids.
pub(crate) fn node_types() -> impl Iterator<Item = &'static str> {
    NodeKind::ALL.iter().map(|kind| kind.as_str())
}

/// The field of the root that has one object of a type by its id: `formVersion` for `FormVersion`.
pub(crate) fn field_of(type_name: &str) -> String {
    let mut name = type_name.to_owned();
    name[..1].make_ascii_lowercase();
    name
}

/// A column that a copy of a row must not share with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UniqueColumn {
    pub(crate) name: String,
    /// Its type in SQLite.
    pub(crate) kind: String,
}

/// The columns of a table but its id, by how a copy gets them. What is unique and may be absent is in neither.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    /// Those that are copied as they are.
    pub(crate) copied: Vec<String>,
    pub(crate) unique: Vec<UniqueColumn>,
}

impl TestApp {
    /// The table of a type's objects, and the column of their ids.
    pub(crate) fn table_of(type_name: &str) -> (&'static str, &'static str) {
        let found = node::tables().find(|(kind, ..)| kind.as_str() == type_name);
        let (_, table, id) = found.unwrap_or_else(|| panic!("{type_name} has no table"));
        (table, id)
    }

    /// The ids of all objects of a type, smallest first.
    pub(crate) async fn ids_of(&self, type_name: &str) -> Vec<String> {
        let (table, id) = Self::table_of(type_name);
        let rows = self.rows(&format!("select {id} from {table} order by {id}")).await;
        let id = |row: &QueryResult| row.try_get_by_index::<Uuid>(0).expect("an id").to_string();
        rows.iter().map(id).collect()
    }

    async fn rows(&self, sql: &str) -> Vec<QueryResult> {
        let connection = self.store.connection();
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        connection.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The columns of a table, as SQLite has them; the other database has the same.
    pub(crate) async fn columns_of(&self, table: &str) -> Columns {
        assert!(!self.is_postgres(), "asked of SQLite");
        let text = |row: &QueryResult, at: usize| row.try_get_by_index::<String>(at).expect("a text");
        // Of each unique index without the id, the last column is the one that differs.
        let unique = self
            .rows(&format!(
                "select (select name from pragma_index_info(i.name) order by seqno desc limit 1)
                 from pragma_index_list('{table}') i
                 where i.\"unique\" and 'id' not in (select name from pragma_index_info(i.name))"
            ))
            .await;
        let unique: Vec<String> = unique.iter().map(|row| text(row, 0)).collect();
        let mut columns = Columns::default();
        let all = format!("select name, lower(type), \"notnull\" from pragma_table_info('{table}')");
        for row in self.rows(&all).await {
            let (name, is_needed) = (text(&row, 0), row.try_get_by_index::<bool>(2).expect("a flag"));
            match name.as_str() {
                "id" => {}
                _ if !unique.contains(&name) => columns.copied.push(format!("\"{name}\"")),
                _ if is_needed => columns.unique.push(UniqueColumn { name, kind: text(&row, 1) }),
                _ => {}
            }
        }
        columns
    }
}
