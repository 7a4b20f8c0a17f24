//! What is stored of one person: told as one document (`export`), and erased (`erase`). Both go through all tables; a
//! test keeps a list of every column and of what becomes of it here, so that none is forgotten. Not here: the account's
//! own row (`user::erase`), copies outside of the database.

use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter as _, QueryOrder as _, Select,
    sea_query::{Expr, ExprTrait as _, Value},
};

pub mod erase;
pub mod export;

/// The rows of a select in the order of these columns, from behind the last one that was read.
fn in_order<E: EntityTrait, C: ColumnTrait, const N: usize>(
    select: Select<E>,
    columns: [C; N],
    last: Option<[Value; N]>,
) -> Select<E> {
    let behind = select.filter(after(columns.map(col), last));
    columns.into_iter().fold(behind, Select::order_by_asc)
}

/// Rows after one, by the columns in whose order they are read; all, where there is none.
fn after<const N: usize>(columns: [Expr; N], last: Option<[Value; N]>) -> Condition {
    let Some(values) = last else { return Condition::all() };
    Condition::all().add(Expr::tuple(columns).gt(Expr::tuple(values.map(Expr::val))))
}

fn col(column: impl ColumnTrait) -> Expr {
    Expr::col(column.as_column_ref())
}
