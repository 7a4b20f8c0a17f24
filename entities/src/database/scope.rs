//! Which rows a caller may read, as data. Every list takes a `Scope`; each domain turns it into its own SQL condition
//! and its own check on a row (`Model::is_visible_to`), so the two stand side by side and are tested against each
//! other. Not here: hidden columns, which are the crate `schema`'s business.

use sea_orm::IdenStatic;
use serde::Serialize;
use uuid::Uuid;

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

    /// Where all who manage see every row, they have one scope. Rows that are read for one of them are read for all.
    #[must_use]
    pub fn of_managers(self) -> Self {
        if self.manages() { Self::All } else { self }
    }

    /// Where all administrators see every row, they have one scope.
    #[must_use]
    pub fn of_administrators(self) -> Self {
        if self.administers() { Self::All } else { self }
    }

    /// Where it only counts who manages, all others who are signed in have one scope, too.
    #[must_use]
    pub fn of_signed_in(self) -> Self {
        match self.of_managers() {
            Self::Of { .. } => Self::Of { user: UserId(Uuid::nil()), role: Role::Viewer },
            scope => scope,
        }
    }

    /// Where besides an editor's own rows count, all but editors have the scope of those who see what everybody sees.
    #[must_use]
    pub fn of_editors(self) -> Self {
        match self {
            Self::Of { role: Role::Editor, .. } => self,
            scope => scope.of_signed_in(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_one_where_the_rows_are_the_same() {
        let of = |role| Scope::of(UserId::new(), role);
        let same = |of: fn(Scope) -> Scope, one, other| {
            of(Scope::of(UserId::new(), one)) == of(Scope::of(UserId::new(), other))
        };
        let (admin, manager, editor, viewer) = (Role::Admin, Role::Manager, Role::Editor, Role::Viewer);
        assert!(same(Scope::of_managers, admin, manager) && !same(Scope::of_managers, viewer, viewer));
        assert!(
            same(Scope::of_administrators, admin, admin) && !same(Scope::of_administrators, admin, manager)
        );
        assert!(same(Scope::of_signed_in, editor, viewer) && !same(Scope::of_signed_in, manager, viewer));
        assert!(same(Scope::of_editors, Role::Collector, viewer) && !same(Scope::of_editors, editor, editor));
        for reach in [Scope::of_managers, Scope::of_administrators, Scope::of_signed_in, Scope::of_editors] {
            assert_eq!(reach(Scope::Nothing), Scope::Nothing);
            assert!(reach(of(admin)).administers());
            assert!(!reach(of(viewer)).manages());
            assert!(reach(of(manager)).manages());
        }
    }
}
