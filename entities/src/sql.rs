//! SQL text with its values, and rows read by position. The batch reads of the domains build their statements
//! here, run them through SeaORM's connection, and decode by column number: a name look-up per cell would cost as
//! much as the query. Values are always bound, never spliced. Not here: which rows (the domains), paging (`page`).

use std::fmt::Write as _;

use sea_orm::{
    DbBackend, QueryResult, Value,
    sea_query::{ArrayType, Nullable, ValueType, ValueTypeErr},
    sqlx::{self, Decode, Postgres, Row as _, Sqlite, ValueRef as _, postgres::PgRow, sqlite::SqliteRow},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Time, TimeRange};

/// A statement in the making.
pub(crate) struct Sql {
    backend: DbBackend,
    text: String,
    values: Vec<Value>,
}

impl Sql {
    pub(crate) fn new(backend: DbBackend) -> Self {
        Self { backend, text: String::with_capacity(512), values: Vec::new() }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.backend == DbBackend::Postgres
    }

    /// Appends text as it is. Only literals of this crate and column names of `Record` come here.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a placeholder for `value`.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let mark = if self.is_postgres() { '$' } else { '?' };
        let _ = write!(self.text, "{mark}{}", self.values.len());
        self
    }

    /// Appends ` = ANY($n)` (one array, one prepared statement for every length) or, on SQLite, ` IN (…)`.
    pub(crate) fn any_of<T: Into<Value> + Clone>(&mut self, element: ArrayType, values: &[T]) -> &mut Self {
        if self.is_postgres() {
            let array = values.iter().cloned().map(Into::into).collect();
            self.push(" = ANY(").bind(Value::Array(element, Some(Box::new(array)))).push(")")
        } else {
            self.push(" IN (").list(values).push(")")
        }
    }

    /// ` = ANY($n)` over ids.
    pub(crate) fn any_id<I: Into<Uuid> + Copy>(&mut self, ids: &[I]) -> &mut Self {
        let ids: Vec<Uuid> = ids.iter().map(|id| (*id).into()).collect();
        self.any_of(ArrayType::Uuid, &ids)
    }

    /// ` = ANY($n)` over texts.
    pub(crate) fn any_text<S: AsRef<str>>(&mut self, texts: &[S]) -> &mut Self {
        let texts = texts.iter().map(AsRef::as_ref).filter(|text| is_storable(text));
        let texts: Vec<String> = texts.map(str::to_owned).collect();
        self.any_of(ArrayType::String, &texts)
    }

    /// ` = ANY($n)` over numbers.
    pub(crate) fn any_int(&mut self, numbers: &[i32]) -> &mut Self {
        self.any_of(ArrayType::Int, numbers)
    }

    /// The parents of a page as a relation `p(id)`: one array on PostgreSQL, rows of VALUES on SQLite.
    pub(crate) fn parents<I: Into<Uuid> + Copy>(&mut self, parents: &[I]) -> &mut Self {
        let array = parents.iter().map(|id| Value::from((*id).into())).collect();
        self.push("unnest(").bind(Value::Array(ArrayType::Uuid, Some(Box::new(array)))).push(") AS p(id)")
    }

    /// ` AND column >= $1 AND column < $2`, as far as the ends are given.
    pub(crate) fn within(&mut self, column: &str, range: &TimeRange) -> &mut Self {
        if let Some(from) = range.from {
            self.push(" AND ").push(column).push(" >= ").bind(from);
        }
        if let Some(to) = range.to {
            self.push(" AND ").push(column).push(" < ").bind(to);
        }
        self
    }

    /// `column LIKE '%text%'`, with the pattern's own signs taken literally.
    pub(crate) fn contains(&mut self, column: &str, text: &str) -> &mut Self {
        if !is_storable(text) {
            return self.push("FALSE");
        }
        let literal = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        self.push(column).push(" LIKE ").bind(format!("%{literal}%")).push(" ESCAPE '\\'")
    }

    fn list<T: Into<Value> + Clone>(&mut self, values: &[T]) -> &mut Self {
        if values.is_empty() {
            return self.push("NULL");
        }
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            self.bind(value.clone());
        }
        self
    }

    pub(crate) fn into_parts(self) -> (String, Vec<Value>) {
        (self.text, self.values)
    }
}

/// PostgreSQL stores no NUL in a text and refuses a value with one, so nothing stored can be equal to it.
fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

/// A row type that knows its columns in order. `table!` writes the implementation.
pub(crate) trait Record: Sized + Send + Sync + 'static {
    const TABLE: &'static str;
    /// The select list over the alias `t`.
    const COLUMNS: &'static str;
    /// Names and types of the columns.
    const SHAPE: &'static str;
    fn read(cells: &mut Cells<'_>) -> Result<Self, sqlx::Error>;
}

/// The cells of one row, read from left to right.
pub(crate) struct Cells<'a> {
    row: Source<'a>,
    next: usize,
}

#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Postgres(&'a PgRow),
    Sqlite(&'a SqliteRow),
}

impl<'a> Cells<'a> {
    pub(crate) fn of(row: &'a QueryResult) -> Self {
        let row = match (row.try_as_pg_row(), row.try_as_sqlite_row()) {
            (Some(row), _) => Source::Postgres(row),
            (_, Some(row)) => Source::Sqlite(row),
            _ => unreachable!("`Store::connect` opens PostgreSQL and SQLite only"),
        };
        Self { row, next: 0 }
    }

    pub(crate) fn next<T: Cell>(&mut self) -> Result<T, sqlx::Error> {
        let at = self.next;
        self.next += 1;
        T::read(self.row, at)
    }
}

/// A value that can be read from a cell of either database.
pub(crate) trait Cell: Sized {
    fn read(row: Source<'_>, at: usize) -> Result<Self, sqlx::Error>;
}

/// Reads without the driver's type check by name: the migrations and `table!` agree, and a test reads every table.
fn read_plain<'a, T>(row: Source<'a>, at: usize) -> Result<T, sqlx::Error>
where
    T: Decode<'a, Postgres> + Decode<'a, Sqlite>,
{
    match row {
        Source::Postgres(row) => row.try_get_unchecked(at),
        Source::Sqlite(row) => row.try_get_unchecked(at),
    }
}

macro_rules! plain_cells {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            fn read(row: Source<'_>, at: usize) -> Result<Self, sqlx::Error> {
                read_plain(row, at)
            }
        }
        impl Cell for Option<$type> {
            fn read(row: Source<'_>, at: usize) -> Result<Self, sqlx::Error> {
                read_plain(row, at)
            }
        }
    )+};
}
plain_cells!(bool, i32, i64, f64, String, Uuid, Time);

/// Cells of newtypes and enums, by way of the type that is stored.
macro_rules! cells_via {
    ($stored:ty => $($type:ty : $from:expr),+ $(,)?) => {$(
        impl $crate::sql::Cell for $type {
            fn read(row: $crate::sql::Source<'_>, at: usize) -> Result<Self, sea_orm::sqlx::Error> {
                let stored: $stored = $crate::sql::Cell::read(row, at)?;
                ($from)(stored).map_err(|error: String| sea_orm::sqlx::Error::ColumnDecode {
                    index: at.to_string(), source: error.into(),
                })
            }
        }
        impl $crate::sql::Cell for Option<$type> {
            fn read(row: $crate::sql::Source<'_>, at: usize) -> Result<Self, sea_orm::sqlx::Error> {
                let stored: Option<$stored> = $crate::sql::Cell::read(row, at)?;
                stored.map($from).transpose().map_err(|error: String| sea_orm::sqlx::Error::ColumnDecode {
                    index: at.to_string(), source: error.into(),
                })
            }
        }
    )+};
}
pub(crate) use cells_via;

cells_via!(Uuid =>
    crate::id::UserId: |id| Ok(crate::id::UserId(id)),
    crate::id::SessionId: |id| Ok(crate::id::SessionId(id)),
    crate::id::FormId: |id| Ok(crate::id::FormId(id)),
    crate::id::FormVersionId: |id| Ok(crate::id::FormVersionId(id)),
    crate::id::SubmissionId: |id| Ok(crate::id::SubmissionId(id)),
    crate::id::LocationId: |id| Ok(crate::id::LocationId(id)),
    crate::id::ActivityLogId: |id| Ok(crate::id::ActivityLogId(id)),
);

/// A JSON document (RFC 8259) kept as the text that the database sent: most are only passed on, and parsing a
/// form's definition to print it again would be the dearest part of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(String);

impl Json {
    /// The document's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string())
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        Self::Json(serde_json::from_str(&json.0).ok().map(Box::new))
    }
}

impl sea_orm::TryGetable for Json {
    fn try_get_by<I: sea_orm::ColIdx>(row: &QueryResult, index: I) -> Result<Self, sea_orm::TryGetError> {
        serde_json::Value::try_get_by(row, index).map(|value| Self::from(&value))
    }
}

impl ValueType for Json {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        match value {
            Value::Json(Some(value)) => Ok(Self::from(&*value)),
            _ => Err(ValueTypeErr),
        }
    }

    fn type_name() -> String {
        "Json".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::Json
    }

    fn column_type() -> sea_orm::ColumnType {
        sea_orm::ColumnType::JsonBinary
    }
}

impl Nullable for Json {
    fn null() -> Value {
        Value::Json(None)
    }
}

impl Cell for Json {
    fn read(row: Source<'_>, at: usize) -> Result<Self, sqlx::Error> {
        <Option<Self> as Cell>::read(row, at)?.ok_or_else(|| sqlx::Error::ColumnDecode {
            index: at.to_string(),
            source: "unexpected NULL".into(),
        })
    }
}

impl Cell for Option<Json> {
    fn read(row: Source<'_>, at: usize) -> Result<Self, sqlx::Error> {
        match row {
            Source::Postgres(row) => {
                let cell = row.try_get_raw(at)?;
                if cell.is_null() {
                    return Ok(None);
                }
                let bytes = cell.as_bytes().map_err(sqlx::Error::Decode)?;
                // The binary form of `jsonb` is one version byte and the text.
                let text = bytes.strip_prefix(&[1]).unwrap_or(bytes);
                let text = std::str::from_utf8(text).map_err(|error| sqlx::Error::Decode(error.into()))?;
                Ok(Some(Json(text.to_owned())))
            }
            Source::Sqlite(row) => Ok(row.try_get_unchecked::<Option<String>, _>(at)?.map(Json)),
        }
    }
}

/// Declares a table once: SeaORM's entity (writes, column names) and `Record` (batch reads) from one list.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $table:literal {
            $( $(#[$column_meta:meta])* $column:ident : $type:ty ),+ $(,)?
        }
    ) => {
        // What SeaORM's derive refers to by bare name.
        use sea_orm::entity::prelude::*;

        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, DeriveEntityModel, serde::Serialize, serde::Deserialize)]
        #[sea_orm(table_name = $table)]
        pub struct Model {
            $( $(#[$column_meta])* pub $column: $type ),+
        }

        /// No relations are declared: edges are batched reads, written out in the domain.
        #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
        pub enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}

        impl $crate::sql::Record for Model {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static str = $crate::sql::select_list!($($column),+);
            const SHAPE: &'static str =
                concat!($table $(, " ", stringify!($column), ":", stringify!($type))+);

            fn read(cells: &mut $crate::sql::Cells<'_>) -> Result<Self, sea_orm::sqlx::Error> {
                Ok(Self { $( $column: cells.next()? ),+ })
            }
        }
    };
}
pub(crate) use table;

macro_rules! select_list {
    ($first:ident $(, $rest:ident)*) => {
        concat!("t.", stringify!($first) $(, ", t.", stringify!($rest))*)
    };
}
pub(crate) use select_list;

/// An enum stored as its upper-case GraphQL name.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal ),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, sea_orm::EnumIter, sea_orm::DeriveActiveEnum,
            serde::Serialize, serde::Deserialize,
        )]
        #[sea_orm(rs_type = "String", db_type = "Text")]
        pub enum $name {
            $( $(#[$variant_doc])* #[sea_orm(string_value = $text)] $variant ),+
        }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name under which it is stored and sent.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text ),+ }
            }

            /// Reads the stored name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $( $text => Some(Self::$variant), )+ _ => None }
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        $crate::sql::cells_via!(String => $name: |text: String| {
            $name::parse(&text).ok_or_else(|| format!("`{text}` is no {}", stringify!($name)))
        });
    };
}
pub(crate) use text_enum;
