//! The text of the batch reads, and rows read by position. Writes and reads of single rows are SeaORM's
//! statements (`statement`); the batch reads, which every request waits for, are written here, because
//! building them costs a multiple with the builders (`benches/statements.rs`). Their columns are those of the
//! entities all the same, so that a column which is renamed does not compile, and values are always bound,
//! never spliced. Rows are decoded by column number: a name look-up per cell would cost as much as the query.
//! Not here: which rows (the domains), paging (`page`).

use std::{fmt::Write as _, time::Duration};

use chrono::TimeDelta;
use sea_orm::{
    DbBackend, DeriveValueType, EntityName as _, EntityTrait, IdenStatic, PartialModelTrait, QueryResult,
    Statement, StatementBuilder, Value,
    sea_query::{ArrayType, Nullable, ValueType, ValueTypeErr},
    sqlx::{self, Decode, Row as _, Sqlite, ValueRef as _, postgres::PgRow, sqlite::SqliteRow},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    clock::{self, Time, TimeRange},
    id::Id,
};

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

    /// A statement of SeaORM's or sea-query's builders.
    pub(crate) fn built(backend: DbBackend, statement: &impl StatementBuilder) -> Self {
        let Statement { sql, values, .. } = statement.build(&backend);
        Self { backend, text: sql, values: values.map(|values| values.0).unwrap_or_default() }
    }

    /// `SELECT …` these columns ` FROM …` the entity's table, which is called `t` in what follows.
    pub(crate) fn select<E: EntityTrait>(&mut self, columns: &[E::Column]) -> &mut Self {
        for (index, column) in columns.iter().enumerate() {
            self.push(if index == 0 { "SELECT " } else { ", " }).column(*column);
        }
        self.from(E::default().table_name())
    }

    /// ` FROM …` a table, which is called `t`.
    pub(crate) fn from(&mut self, table: &'static str) -> &mut Self {
        self.push(" FROM ").push(table).push(" t")
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.backend == DbBackend::Postgres
    }

    /// Appends text as it is. Only literals of this crate and names of the entities come here.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a column of the table that is called `t`.
    pub(crate) fn column(&mut self, column: impl IdenStatic) -> &mut Self {
        self.column_of("t", column)
    }

    /// Appends a column of the table of this alias.
    pub(crate) fn column_of(&mut self, alias: &str, column: impl IdenStatic) -> &mut Self {
        self.push(alias).push(".").push(column.as_str())
    }

    /// ` WHERE …`: the first condition is about this column.
    pub(crate) fn filter(&mut self, column: impl IdenStatic) -> &mut Self {
        self.push(" WHERE ").column(column)
    }

    /// ` AND …`: the next condition is about this column.
    pub(crate) fn and(&mut self, column: impl IdenStatic) -> &mut Self {
        self.push(" AND ").column(column)
    }

    /// Appends a placeholder for `value`.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let mark = if self.is_postgres() { '$' } else { '?' };
        let _ = write!(self.text, "{mark}{}", self.values.len());
        self
    }

    /// Appends this moment and so much more, by the database's clock: what several processes have to agree
    /// upon. SQLite has none but that of its one machine.
    pub(crate) fn now_and(&mut self, later: Duration) -> &mut Self {
        if self.is_postgres() {
            self.push("(clock_timestamp() + make_interval(secs => ").bind(later.as_secs_f64()).push("))")
        } else {
            let later = TimeDelta::from_std(later).unwrap_or_default();
            self.bind(clock::now() + later)
        }
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

    /// A list of pairs of an id and a number: two arrays on PostgreSQL, rows of VALUES on SQLite.
    pub(crate) fn pairs<I: Into<Uuid> + Copy>(&mut self, pairs: &[(I, i32)]) -> &mut Self {
        if self.is_postgres() {
            let ids = pairs.iter().map(|(id, _)| Value::from((*id).into())).collect();
            let numbers = pairs.iter().map(|(_, number)| Value::from(*number)).collect();
            self.push("(SELECT * FROM unnest(").bind(Value::Array(ArrayType::Uuid, Some(Box::new(ids))));
            self.push(", ").bind(Value::Array(ArrayType::Int, Some(Box::new(numbers))));
            return self.push("))");
        }
        self.push("(VALUES ");
        for (index, (id, number)) in pairs.iter().enumerate() {
            self.push(if index == 0 { "(" } else { ", (" }).bind((*id).into());
            self.push(", ").bind(*number).push(")");
        }
        self.push(")")
    }

    /// ` AND column >= $1 AND column < $2`, as far as the ends are given.
    pub(crate) fn within(&mut self, column: impl IdenStatic, range: &TimeRange) -> &mut Self {
        if let Some(from) = range.from {
            self.and(column).push(" >= ").bind(from);
        }
        if let Some(to) = range.to {
            self.and(column).push(" < ").bind(to);
        }
        self
    }

    /// `column LIKE '%text%'`, with the pattern's own signs taken literally.
    pub(crate) fn contains(&mut self, column: impl IdenStatic, text: &str) -> &mut Self {
        if !is_storable(text) {
            return self.push("FALSE");
        }
        self.column(column).push(" LIKE ").bind(containing(text)).push(" ESCAPE '!'")
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

    /// Appends a whole statement with the values of its placeholders; before it no value was bound.
    pub(super) fn with(mut self, text: &str, values: Vec<Value>) -> Self {
        debug_assert!(self.values.is_empty(), "placeholders are numbered from the first value on");
        self.push(text);
        self.values = values;
        self
    }

    pub(crate) fn into_parts(self) -> (String, Vec<Value>) {
        (self.text, self.values)
    }
}

/// PostgreSQL stores no NUL in a text and refuses a value with one, so nothing stored can be equal to it.
pub(crate) fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

/// What stands before a sign of a pattern that is meant as it is. Not a backslash: what one means in a
/// literal depends on PostgreSQL's `standard_conforming_strings`.
pub(crate) const ESCAPE: char = '!';

/// The pattern (`LIKE … ESCAPE '!'`) of texts that have this one in them, with the pattern's own signs taken literally.
pub(crate) fn containing(text: &str) -> String {
    format!("%{}%", text.replace('!', "!!").replace('%', "!%").replace('_', "!_"))
}

/// A row of an entity's table, or what is read of it: its columns in order. `record!` writes the implementation.
pub(crate) trait Record: PartialModelTrait + Sized + Send + Sync + 'static {
    /// The table's entity.
    type Entity: EntityTrait;
    /// The select list over the alias `t`.
    const COLUMNS: &'static str;
    /// Names and types of the columns.
    const SHAPE: &'static str;

    /// The table's name.
    fn table() -> &'static str {
        Self::Entity::default().table_name()
    }

    /// Reads a row whose first cells are the columns in their order.
    fn read(cells: &mut Cells<'_>) -> Result<Self, sqlx::Error>;
}

/// The cells of one row, read from left to right.
pub(crate) struct Cells<'a> {
    row: RowSource<'a>,
    next: usize,
}

#[derive(Clone, Copy)]
pub(crate) enum RowSource<'a> {
    Postgres(&'a PgRow),
    Sqlite(&'a SqliteRow),
}

impl<'a> RowSource<'a> {
    pub(crate) fn of(row: &'a QueryResult) -> Self {
        match (row.try_as_pg_row(), row.try_as_sqlite_row()) {
            (Some(row), _) => Self::Postgres(row),
            (_, Some(row)) => Self::Sqlite(row),
            _ => unreachable!("`Store::connect` opens PostgreSQL and SQLite only"),
        }
    }
}

impl<'a> Cells<'a> {
    pub(crate) fn of(row: RowSource<'a>) -> Self {
        Self { row, next: 0 }
    }

    /// The row that they are of.
    pub(super) fn row(&self) -> RowSource<'a> {
        self.row
    }

    pub(crate) fn next<T: Cell>(&mut self) -> Result<T, sqlx::Error> {
        let at = self.next;
        self.next += 1;
        T::read(self.row, at)
    }
}

/// A value that can be read from a cell of either database.
pub(crate) trait Cell: Sized {
    fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error>;
}

/// A type that is stored as itself. PostgreSQL's binary form is read here: the driver's way, over a type that it looks
/// up for each cell, costs several times as much. The migrations and the entities agree on the types, as a test says
/// (`tests/tables`).
trait Plain: Sized + for<'a> Decode<'a, Sqlite> {
    fn of_bytes(bytes: &[u8]) -> Option<Self>;
}

macro_rules! plain_cells {
    ($($type:ty: $read:expr),+ $(,)?) => {$(
        impl Plain for $type {
            fn of_bytes(bytes: &[u8]) -> Option<Self> {
                let read: fn(&[u8]) -> Option<Self> = $read;
                read(bytes)
            }
        }
        impl Cell for $type {
            fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error> {
                match row {
                    RowSource::Postgres(row) => postgres_bytes(row, at)?
                        .and_then(Self::of_bytes)
                        .ok_or_else(|| misread(at, concat!("expected ", stringify!($type)))),
                    RowSource::Sqlite(row) => row.try_get_unchecked(at),
                }
            }
        }
        impl Cell for Option<$type> {
            fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error> {
                match row {
                    RowSource::Postgres(row) => {
                        let Some(bytes) = postgres_bytes(row, at)? else { return Ok(None) };
                        let value = <$type>::of_bytes(bytes);
                        value.map(Some).ok_or_else(|| misread(at, concat!("expected ", stringify!($type))))
                    }
                    RowSource::Sqlite(row) => row.try_get_unchecked(at),
                }
            }
        }
    )+};
}
plain_cells! {
    bool: |bytes| bytes.first().map(|byte| *byte != 0),
    i32: |bytes| bytes.try_into().ok().map(Self::from_be_bytes),
    i64: |bytes| bytes.try_into().ok().map(Self::from_be_bytes),
    f64: |bytes| bytes.try_into().ok().map(Self::from_be_bytes),
    String: |bytes| std::str::from_utf8(bytes).ok().map(str::to_owned),
    Uuid: |bytes| Self::from_slice(bytes).ok(),
    Time: |bytes| {
        let micros = i64::of_bytes(bytes)?.checked_add(POSTGRES_EPOCH_MICROS)?;
        Self::from_timestamp_micros(micros)
    },
}

/// 2000-01-01, from which PostgreSQL counts, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A cell in binary form; every statement is prepared, so PostgreSQL sends no other.
fn postgres_bytes(row: &PgRow, at: usize) -> Result<Option<&[u8]>, sqlx::Error> {
    let cell = row.try_get_raw(at)?;
    if cell.is_null() { Ok(None) } else { cell.as_bytes().map(Some).map_err(sqlx::Error::Decode) }
}

pub(crate) fn misread(at: usize, what: impl Into<sqlx::error::BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: at.to_string(), source: what.into() }
}

/// A text, not copied.
pub(crate) fn text_at(row: RowSource<'_>, at: usize) -> Result<Option<&str>, sqlx::Error> {
    match row {
        RowSource::Postgres(row) => {
            let text = postgres_bytes(row, at)?.map(std::str::from_utf8);
            text.transpose().map_err(|error| misread(at, error))
        }
        RowSource::Sqlite(row) => row.try_get_unchecked(at),
    }
}

impl<I: Id> Cell for I {
    fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error> {
        <Uuid as Cell>::read(row, at).map(Self::from)
    }
}

impl<I: Id> Cell for Option<I> {
    fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error> {
        Ok(<Option<Uuid> as Cell>::read(row, at)?.map(I::from))
    }
}

/// A text that is stored and not shown: a hash, a salt, a sealed key.
#[derive(Clone, PartialEq, Eq, DeriveValueType)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden")
    }
}

impl Cell for Hidden {
    fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error> {
        Cell::read(row, at).map(Self)
    }
}

impl Cell for Option<Hidden> {
    fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error> {
        Ok(<Option<String> as Cell>::read(row, at)?.map(Hidden))
    }
}

/// A JSON document (RFC 8259) kept as the text that the database sent: most are only passed on, and parsing a
/// form's definition to print it again would be the most expensive part of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(String);

impl Json {
    /// The document's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The document itself.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).expect("the database holds JSON")
    }

    /// Can the databases store this value? PostgreSQL takes every character but NUL.
    pub fn can_hold(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::String(text) => is_storable(text),
            serde_json::Value::Array(items) => items.iter().all(Self::can_hold),
            serde_json::Value::Object(fields) => {
                fields.iter().all(|(name, value)| is_storable(name) && Self::can_hold(value))
            }
            _ => true,
        }
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
    fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error> {
        <Option<Self> as Cell>::read(row, at)?.ok_or_else(|| misread(at, "unexpected NULL"))
    }
}

impl Cell for Option<Json> {
    fn read(row: RowSource<'_>, at: usize) -> Result<Self, sqlx::Error> {
        match row {
            RowSource::Postgres(row) => {
                let Some(bytes) = postgres_bytes(row, at)? else { return Ok(None) };
                // The binary form of `jsonb` is one version byte and the text.
                let text = bytes.strip_prefix(&[1]).unwrap_or(bytes);
                let text = std::str::from_utf8(text).map_err(|error| misread(at, error))?;
                Ok(Some(Json(text.to_owned())))
            }
            RowSource::Sqlite(row) => Ok(row.try_get_unchecked::<Option<String>, _>(at)?.map(Json)),
        }
    }
}

/// Makes a model, or a part of one (`DerivePartialModel`, which ties its fields to the entity's columns), a `Record`:
/// batch reads of it are written and decoded without the builders.
macro_rules! record {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$column_meta:meta])* pub $column:ident : $type:ty ),+ $(,)? }
    ) => {
        $(#[$meta])*
        pub struct $name { $( $(#[$column_meta])* pub $column: $type ),+ }

        impl $crate::database::sql::Record for $name {
            type Entity = Entity;

            const COLUMNS: &'static str = $crate::database::sql::select_list!($($column),+);
            const SHAPE: &'static str = concat!($(stringify!($column), ":", stringify!($type), " "),+);

            fn read(cells: &mut $crate::database::sql::Cells<'_>) -> Result<Self, sea_orm::sqlx::Error> {
                Ok(Self { $( $column: cells.next()? ),+ })
            }
        }
    };
}
pub(crate) use record;

macro_rules! select_list {
    ($first:ident $(, $rest:ident)*) => {
        concat!("t.", stringify!($first) $(, ", t.", stringify!($rest))*)
    };
}
pub(crate) use select_list;
