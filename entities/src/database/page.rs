//! Pages of lists: the order of a list, its cursor and the condition "after this row" come from ONE `Keyset`, so
//! they cannot drift apart. Not here: the statements that read pages (`store::list`), which rows a list has (the
//! domains), GraphQL connections.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use sea_orm::Value;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{clock::Time, database::sql::Sql};

mod cursor;
pub use cursor::{BadCursor, CursorKey, CursorScope};

/// One value of a row's position in a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum KeyValue {
    /// A time.
    Time(Time),
    /// A text, ordered bytewise.
    Text(String),
    /// A number.
    Int(i64),
    /// An id; the last value of a position where nothing before it is unique within the list.
    Id(Uuid),
}

impl From<KeyValue> for Value {
    fn from(value: KeyValue) -> Self {
        match value {
            KeyValue::Time(time) => time.into(),
            KeyValue::Text(text) => text.into(),
            KeyValue::Int(number) => number.into(),
            KeyValue::Id(id) => id.into(),
        }
    }
}

/// What kind of value a key column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `KeyValue::Time`.
    Time,
    /// `KeyValue::Text`.
    Text,
    /// `KeyValue::Int`.
    Int,
    /// `KeyValue::Id`.
    Id,
}

/// One column of an order.
pub struct SortKey<R> {
    /// Appends the column, or the expression over it that an index has.
    pub(crate) sql: fn(&mut Sql),
    pub(crate) kind: KeyKind,
    pub(crate) value: fn(&R) -> KeyValue,
}

/// What appends a column of the domain's entity to an order.
macro_rules! key {
    ($column:ident) => {
        |sql| {
            sql.column(Column::$column);
        }
    };
}
pub(crate) use key;

/// The columns of an order by a time (the entity's column, the row's field) and, where times are equal, by id.
macro_rules! by_time {
    ($column:ident, $field:ident) => {
        [
            $crate::database::page::SortKey {
                sql: $crate::database::page::key!($column),
                kind: $crate::database::page::KeyKind::Time,
                value: |row| $crate::database::page::KeyValue::Time(row.$field),
            },
            $crate::database::page::SortKey {
                sql: $crate::database::page::key!(Id),
                kind: $crate::database::page::KeyKind::Id,
                value: |row| $crate::database::page::KeyValue::Id(row.id.0),
            },
        ]
    };
}
pub(crate) use by_time;

/// The order of a list: columns from the most to the least significant, all in one direction, the last one unique.
pub struct Keyset<R: 'static> {
    /// Names the order inside cursors; never reused for another order.
    pub(crate) name: &'static str,
    pub(crate) descending: bool,
    pub(crate) keys: &'static [SortKey<R>],
}

/// A keyset is its name and direction, so that loaders can be compared.
impl<R> PartialEq for Keyset<R> {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.descending) == (other.name, other.descending)
    }
}

impl<R> Eq for Keyset<R> {}

impl<R> Hash for Keyset<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name, self.descending).hash(state);
    }
}

impl<R> Keyset<R> {
    /// An order and its reverse.
    pub(crate) const fn both_ways(name: &'static str, keys: &'static [SortKey<R>]) -> [Self; 2] {
        [Self { name, descending: false, keys }, Self { name, descending: true, keys }]
    }

    /// Where `row` stands in this order.
    pub fn position(&self, row: &R) -> Position {
        Position(self.keys.iter().map(|key| (key.value)(row)).collect())
    }

    /// `ORDER BY …`, turned round for reading backwards.
    pub(crate) fn push_order(&self, sql: &mut Sql, backward: bool) {
        let direction = if self.descending == backward { " ASC" } else { " DESC" };
        for (index, key) in self.keys.iter().enumerate() {
            sql.push(if index == 0 { " ORDER BY " } else { ", " });
            (key.sql)(sql);
            sql.push(direction);
        }
    }

    /// ` AND (a, b) < ($1, $2)`: rows strictly beyond `position` in the list's order (before it, if not `after`).
    pub(crate) fn push_beyond(&self, sql: &mut Sql, position: &Position, after: bool) {
        sql.push(" AND (");
        for (index, key) in self.keys.iter().enumerate() {
            sql.push(if index == 0 { "" } else { ", " });
            (key.sql)(sql);
        }
        sql.push(if self.descending == after { ") < (" } else { ") > (" });
        for (index, value) in position.0.iter().enumerate() {
            sql.push(if index == 0 { "" } else { ", " }).bind(value.clone());
        }
        sql.push(")");
    }
}

/// A row's place in a list's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Position(pub(crate) Vec<KeyValue>);

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Window {
    /// Rows at most, at least 1.
    pub limit: u32,
    /// The last rows of the range instead of the first.
    pub backward: bool,
    /// Only rows after this one.
    pub after: Option<Position>,
    /// Only rows before this one.
    pub before: Option<Position>,
}

/// One page of a list, in the list's order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page<R> {
    /// The rows.
    pub rows: Vec<Arc<R>>,
    /// Rows follow after the last one.
    pub has_next: bool,
    /// Rows stand before the first one.
    pub has_previous: bool,
}

impl Window {
    /// Range and order.
    pub(crate) fn push<R>(&self, sql: &mut Sql, keyset: &Keyset<R>) {
        self.push_range(sql, keyset);
        keyset.push_order(sql, self.backward);
    }

    /// ` AND …`: the rows after and before the positions that bound the window.
    pub(crate) fn push_range<R>(&self, sql: &mut Sql, keyset: &Keyset<R>) {
        if let Some(after) = &self.after {
            keyset.push_beyond(sql, after, true);
        }
        if let Some(before) = &self.before {
            keyset.push_beyond(sql, before, false);
        }
    }

    /// One row more than asked for tells whether there are more.
    pub(crate) fn push_limit(&self, sql: &mut Sql) {
        sql.push(" LIMIT ").bind(i64::from(self.limit) + 1);
    }

    /// Cuts the row too many, puts the rows in the list's order and says what lies beyond.
    pub(crate) fn cut<R>(&self, mut rows: Vec<Arc<R>>) -> Page<R> {
        let limit = self.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        if self.backward {
            rows.reverse();
            Page { rows, has_next: self.before.is_some(), has_previous: more }
        } else {
            Page { rows, has_next: more, has_previous: self.after.is_some() }
        }
    }
}
