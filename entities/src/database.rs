//! The database: its connections, statements and transactions, the pages of lists, and who may read which rows. Not here:
//! what is read and written (the domains), what is remembered of it (`cache`).

pub(crate) mod history;
pub mod instance;
pub mod kind;
pub mod page;
pub(crate) mod pool;
pub mod role;
pub mod scope;
pub(crate) mod sql;
mod statement;
pub(crate) mod text_enum;
pub(crate) mod transaction;
