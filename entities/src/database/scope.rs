//! Which rows a caller may read, as data. Every list takes a `Scope`; each domain turns it into its own SQL condition
//! and its own check on a row (`Model::is_visible_to`), so the two stand side by side and are tested against each
//! other. Not here: hidden columns, which are the crate `schema`'s business.

use sea_orm::IdenStatic;
use serde::Serialize;

use crate::{
    database::{role::Role, sql::Sql},
    id::UserId,
};

/// The rows a caller may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Scope {
    /// Every row: services.
    All,
    /// What this account may see in this role.
    Of {
        /// The account.
        user: UserId,
        /// Its role.
        role: Role,
    },
    /// No row: nobody is signed in.
    Nothing,
}

impl Scope {
    /// The scope of a signed-in account.
    pub fn of(user: UserId, role: Role) -> Self {
        Self::Of { user, role }
    }

    /// The account that is asking, if any.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::Of { user, .. } => Some(*user),
            Self::All | Self::Nothing => None,
        }
    }

    /// Sees every account's private columns, forms, submissions and locations.
    pub fn manages(&self) -> bool {
        matches!(self, Self::All | Self::Of { role: Role::Admin | Role::Manager, .. })
    }

    /// Sees every account's sessions and activity as well.
    pub fn administers(&self) -> bool {
        matches!(self, Self::All | Self::Of { role: Role::Admin, .. })
    }

    /// ` AND …` over the column of whose a row is: the caller's own rows, unless `sees_all`.
    pub(crate) fn push_own(&self, sql: &mut Sql, owner: impl IdenStatic, sees_all: bool) {
        match self {
            _ if sees_all => {}
            Self::Of { user, .. } => {
                sql.and(owner).push(" = ").bind(*user);
            }
            Self::All | Self::Nothing => {
                sql.push(" AND FALSE");
            }
        }
    }
}
