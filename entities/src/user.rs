//! Accounts: row, finders and lists. Lists walk `users (created_at desc, id desc)` or the index of their order;
//! `search` uses the trigram index on `search_name`. Accounts are made and changed in `account`. Not here: passwords and tokens, hidden
//! columns (the front room's `visible_to`).

use std::sync::Arc;

use chrono::DateTime;
use rustc_hash::FxHashMap;
use serde::Serialize;

mod account;
pub use account::{
    Changes, Credentials, Named, NewAccount, change_password, create, credentials, give_password, sign_up,
    update,
};

use crate::{
    cache::Tag,
    clock::{Time, TimeRange},
    database::{
        kind::Kind,
        page::{Key, KeyKind, KeyValue, Keyset, by_time},
        role::Role,
        scope::Scope,
        sql::{Sql, table},
    },
    error::Error,
    id::UserId,
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, Row},
    },
    unicode,
};

table! {
    /// A row of `users`, without the password's hash, which no read of the graph needs, and without `search_name`.
    "users" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: UserId,
        /// Unique, stored in lower case.
        email: String,
        /// The name that others see.
        display_name: String,
        /// What the account may do.
        role: Role,
        /// False once blocked.
        is_active: bool,
        /// When the account was made.
        created_at: Time,
        /// Last change of the row.
        updated_at: Time,
        /// Last sign-in.
        last_login: Option<Time>,
    }
}

impl Row for Model {
    const KIND: Kind = Kind::User;
    const BY_IDS: &'static str = "user.by_ids";
    const IS_STRONG: bool = true;
    type Id = UserId;

    fn id(&self) -> UserId {
        self.id
    }
}

impl Model {
    /// May a caller of this scope know that the account exists? Everybody signed in may.
    pub fn is_visible_to(&self, scope: &Scope) -> bool {
        *scope != Scope::Nothing
    }

    /// May a caller of this scope read e-mail, role, state and last sign-in?
    pub fn is_open_to(&self, scope: &Scope) -> bool {
        scope.manages() || scope.user() == Some(self.id)
    }
}

/// Accounts by id.
///
/// # Errors
/// The database's.
pub async fn by_ids(store: &Store, ids: &[UserId]) -> Result<FxHashMap<UserId, Arc<Model>>, Error> {
    row::by_ids(store, ids).await
}

/// Accounts by e-mail, which is compared in lower case.
///
/// # Errors
/// The database's.
pub async fn by_emails(store: &Store, emails: &[String]) -> Result<FxHashMap<String, Arc<Model>>, Error> {
    let matching = |sql: &mut Sql| {
        sql.push("t.email").any_text(emails);
    };
    store.by_keys("user.by_emails", matching, |row: &Model| row.email.clone()).await
}

/// Which accounts a list has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Filter {
    /// Part of the display name, and of the e-mail for those who may see it; case does not count.
    pub search: Option<String>,
    /// Any of these roles.
    pub roles: Option<Vec<Role>>,
    /// Blocked or not.
    pub is_active: Option<bool>,
    /// Made in this time.
    pub created_at: TimeRange,
    /// Last signed in in this time.
    pub last_login: TimeRange,
}

impl Filtering for Filter {
    fn is_repeatable(&self) -> bool {
        self.search.is_none()
    }
}

impl Filter {
    /// Uses a column that is hidden from those who do not manage accounts.
    pub fn reads_private_columns(&self) -> bool {
        self.roles.is_some() || self.is_active.is_some() || self.last_login != TimeRange::default()
    }

    fn push(&self, sql: &mut Sql, scope: &Scope) {
        if *scope == Scope::Nothing {
            sql.push(" AND FALSE");
        }
        if let Some(search) = &self.search {
            let search = unicode::searched(search);
            sql.push(" AND (").contains("t.search_name", &search);
            if scope.manages() {
                sql.push(" OR ").contains("t.email", &search);
            }
            sql.push(")");
        }
        if let Some(roles) = &self.roles {
            sql.push(" AND t.role").any_text(roles);
        }
        if let Some(is_active) = self.is_active {
            sql.push(if is_active { " AND t.is_active" } else { " AND NOT t.is_active" });
        }
        sql.within("t.created_at", &self.created_at).within("t.last_login", &self.last_login);
    }
}

/// What a list of accounts is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderField {
    /// When the account was made.
    CreatedAt,
    /// Last sign-in; accounts that never signed in count as 1970.
    LastLogin,
    /// Bytewise.
    DisplayName,
    /// Bytewise.
    Email,
}

impl OrderField {
    /// Is this column hidden from those who do not manage accounts?
    pub fn is_private(self) -> bool {
        matches!(self, Self::LastLogin | Self::Email)
    }
}

const ID: Key<Model> = Key { sql: "t.id", kind: KeyKind::Id, value: |row| KeyValue::Id(row.id.0) };
const CREATED_AT: [Key<Model>; 2] = by_time!(created_at);
/// The same expression as in the index `users_last_login`.
const LAST_LOGIN: [Key<Model>; 2] = [
    Key {
        sql: "coalesce(t.last_login, '1970-01-01T00:00:00+00:00')",
        kind: KeyKind::Time,
        value: |row| KeyValue::Time(row.last_login.unwrap_or(DateTime::UNIX_EPOCH)),
    },
    ID,
];
const DISPLAY_NAME: [Key<Model>; 2] = [
    Key { sql: "t.display_name", kind: KeyKind::Text, value: |row| KeyValue::Text(row.display_name.clone()) },
    ID,
];
const EMAIL: [Key<Model>; 2] =
    [Key { sql: "t.email", kind: KeyKind::Text, value: |row| KeyValue::Text(row.email.clone()) }, ID];

/// The order of a list of accounts.
pub fn keyset(field: OrderField, descending: bool) -> &'static Keyset<Model> {
    static ORDERS: [[Keyset<Model>; 2]; 4] = [
        Keyset::both_ways("users.created_at", &CREATED_AT),
        Keyset::both_ways("users.last_login", &LAST_LOGIN),
        Keyset::both_ways("users.display_name", &DISPLAY_NAME),
        Keyset::both_ways("users.email", &EMAIL),
    ];
    &ORDERS[field as usize][usize::from(descending)]
}

/// All accounts.
pub static ALL: List<Model, Filter> =
    List::new(Names { page: "user.page", count: "user.count", parent: "" }, Filter::push)
        .kept(|_, _| vec![Tag::Type("User")])
        .strong();
