//! The last number of a revocation, in a row of its own. Whoever writes revocations or keys locks it until
//! the commit, so the order of the numbers is the order of the commits. Not here: revocations themselves.

use sea_orm::entity::prelude::*;

/// The one row of `revocation_counter`. The table has no primary key: there is one row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "revocation_counter")]
pub struct Model {
    /// The last number that was given out.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
}

/// The counter belongs to nothing.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
