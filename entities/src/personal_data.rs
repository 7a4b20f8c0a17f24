//! What is stored of one person: told as one document (`export`), and erased (`erase`). Both go through all tables; a
//! test keeps a list of every column and of what becomes of it here, so that none is forgotten. Not here: the account's
//! own row (`user::erase`), copies outside of the database.

use sea_orm::{
    ColumnTrait, Condition,
    sea_query::{Expr, ExprTrait as _, Value},
};

pub mod erase;
pub mod export;

/// Rows after one, by the columns in whose order they are read; all, where there is none.
fn after<const N: usize>(columns: [Expr; N], last: Option<[Value; N]>) -> Condition {
    let Some(values) = last else { return Condition::all() };
    Condition::all().add(Expr::tuple(columns).gt(Expr::tuple(values.map(Expr::val))))
}

fn col(column: impl ColumnTrait) -> Expr {
    Expr::col(column.as_column_ref())
}
