//! Accounts: row, finders and lists. Lists walk `users (created_at desc, id desc)` or the index of their
//! order; `search` uses the trigram index on `search_name`. Accounts are made and changed in `account`, and stop
//! standing for a person in `erase`. Not here: passwords and tokens, hidden columns (the crate `schema`'s
//! `visible_to`).

use std::sync::Arc;

use chrono::DateTime;
use rustc_hash::FxHashMap;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

mod account;
pub mod erase;
pub use account::{
    AccountChanges, AccountFilter, AccountRef, Credentials, NewAccount, change_password, create, credentials,
    give_password, list, sign_up, update,
};

use crate::{
    cache::Tag,
    clock::{Time, TimeRange},
    database::{
        page::{KeyKind, KeyValue, Keyset, SortKey, by_time, key},
        role::Role,
        scope::Scope,
        sql::{Hidden, Sql, record},
    },
    error::Error,
    id::UserId,
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, ById, Finder},
    },
    unicode,
};

record! {
    /// A row of `users`, whole.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: UserId,
        /// Unique, stored in lower case.
        #[sea_orm(unique)]
        pub email: String,
        /// The name that others see.
        pub display_name: String,
        /// The display name in lower case, for searching.
        pub search_name: String,
        /// What the account may do.
        pub role: Role,
        /// False once blocked.
        pub is_active: bool,
        /// The hash of its password; without one nobody can sign in to it.
        pub password_hash: Option<Hidden>,
        /// When the account was made.
        pub created_at: Time,
        /// Last change of the row.
        pub updated_at: Time,
        /// Last sign-in.
        pub last_login: Option<Time>,
        /// The epoch of its rights: tokens from before the current one are refused.
        #[sea_orm(default_value = 0)]
        pub epoch: i64,
    }
}

/// What refers to an account.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// Its sign-ins.
    #[sea_orm(has_many = "crate::session::Entity")]
    Sessions,
    /// The forms that it made.
    #[sea_orm(has_many = "crate::form::Entity")]
    Forms,
}

impl Related<crate::session::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Sessions.def()
    }
}

impl Related<crate::form::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Forms.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

record! {
    /// What is read of `users` for the graph: neither the password's hash nor what is searched.
    #[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel, Serialize, Deserialize)]
    #[sea_orm(entity = "Entity")]
    pub struct Row {
        /// Primary key.
        pub id: UserId,
        /// Unique, stored in lower case.
        pub email: String,
        /// The name that others see.
        pub display_name: String,
        /// What the account may do.
        pub role: Role,
        /// False once blocked.
        pub is_active: bool,
        /// When the account was made.
        pub created_at: Time,
        /// Last change of the row.
        pub updated_at: Time,
        /// Last sign-in.
        pub last_login: Option<Time>,
    }
}

impl ById for Row {
    const ID: Column = Column::Id;
    const BY_IDS: &'static str = "user.by_ids";
    const IS_STRONG: bool = true;
    type Id = UserId;

    fn id(&self) -> UserId {
        self.id
    }
}

impl Row {
    /// May a caller of this scope know that the account exists? Everybody signed in may.
    pub fn is_visible_to(&self, scope: &Scope) -> bool {
        *scope != Scope::Nothing
    }

    /// May a caller of this scope read e-mail, role, state and last sign-in?
    pub fn is_open_to(&self, scope: &Scope) -> bool {
        scope.manages() || scope.user() == Some(self.id)
    }
}

/// The domain of the e-mails of erased accounts: no account can be made with one of it, and no mail can be sent to it
/// (RFC 2606).
pub const ERASED_DOMAIN: &str = "erased.invalid";
/// The display name of erased accounts.
const ERASED_NAME: &str = "Erased account";

/// Stands in the place of the e-mail of an account that is erased.
fn email_of_erased(user: UserId) -> String {
    format!("erased-{user}@{ERASED_DOMAIN}")
}

/// Whether this is the e-mail of an account that was erased.
pub fn is_erased(user: UserId, email: &str) -> bool {
    email == email_of_erased(user)
}

impl Row {
    /// Whether the account was erased.
    pub fn is_erased(&self) -> bool {
        is_erased(self.id, &self.email)
    }
}

/// Accounts by id.
///
/// # Errors
/// The database's.
pub async fn by_ids(store: &Store, ids: &[UserId]) -> Result<FxHashMap<UserId, Arc<Row>>, Error> {
    row::by_ids(store, ids).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<UserId, Row> = Finder::by_id();

/// Accounts by e-mail, which is compared in lower case.
///
/// # Errors
/// The database's.
pub async fn by_emails(store: &Store, emails: &[String]) -> Result<FxHashMap<String, Arc<Row>>, Error> {
    let matching = |sql: &mut Sql| {
        sql.filter(Column::Email).any_text(emails);
    };
    store.by_keys("user.by_emails", matching, |row: &Row| row.email.clone()).await
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
            sql.push(" AND (").contains(Column::SearchName, &search);
            if scope.manages() {
                sql.push(" OR ").contains(Column::Email, &search);
            }
            sql.push(")");
        }
        if let Some(roles) = &self.roles {
            sql.and(Column::Role).any_text(roles);
        }
        if let Some(is_active) = self.is_active {
            sql.push(if is_active { " AND " } else { " AND NOT " }).column(Column::IsActive);
        }
        sql.within(Column::CreatedAt, &self.created_at).within(Column::LastLogin, &self.last_login);
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

const ID: SortKey<Row> = SortKey { sql: key!(Id), kind: KeyKind::Id, value: |row| KeyValue::Id(row.id.0) };
const CREATED_AT: [SortKey<Row>; 2] = by_time!(CreatedAt, created_at);
/// Sorts by the expression of the index `users_last_login`: written otherwise, the index would not be used.
const LAST_LOGIN: [SortKey<Row>; 2] = [
    SortKey {
        sql: |sql| {
            sql.push("coalesce(").column(Column::LastLogin).push(", '1970-01-01T00:00:00+00:00')");
        },
        kind: KeyKind::Time,
        value: |row| KeyValue::Time(row.last_login.unwrap_or(DateTime::UNIX_EPOCH)),
    },
    ID,
];
const DISPLAY_NAME: [SortKey<Row>; 2] = [
    SortKey {
        sql: key!(DisplayName),
        kind: KeyKind::Text,
        value: |row| KeyValue::Text(row.display_name.clone()),
    },
    ID,
];
const EMAIL: [SortKey<Row>; 2] =
    [SortKey { sql: key!(Email), kind: KeyKind::Text, value: |row| KeyValue::Text(row.email.clone()) }, ID];

/// The order of a list of accounts.
pub fn keyset(field: OrderField, descending: bool) -> &'static Keyset<Row> {
    static ORDERS: [[Keyset<Row>; 2]; 4] = [
        Keyset::both_ways("users.created_at", &CREATED_AT),
        Keyset::both_ways("users.last_login", &LAST_LOGIN),
        Keyset::both_ways("users.display_name", &DISPLAY_NAME),
        Keyset::both_ways("users.email", &EMAIL),
    ];
    &ORDERS[field as usize][usize::from(descending)]
}

/// All accounts.
pub static ALL: List<Row, Filter> =
    List::new(Names { page: "user.page", count: "user.count", parent: None }, Filter::push)
        .retention(|_, _| vec![Tag::Type("User")])
        .strong();
