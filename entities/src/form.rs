//! Forms: what is asked. Lists walk `forms (created_at desc, id desc)`, `(owner_id, …)` or the index of their
//! order. The draft may be half a megabyte, so it is no column of `Row`: it is read by itself, when asked for.
//! Published versions are in `form/version.rs`. Changes are in `form/write.rs`. Not here: answers (`submission`).

use std::sync::Arc;

use futures_util::FutureExt as _;
use rustc_hash::FxHashMap;
use sea_orm::{IdenStatic as _, entity::prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    cache::Tag,
    clock::{Time, TimeRange},
    database::{
        page::{KeyKind, KeyValue, Keyset, SortKey, by_time, key},
        role::Role,
        scope::Scope,
        sql::{Json, Record as _, Sql, record},
        text_enum::text_enum,
    },
    error::Error,
    id::{FormId, UserId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, ById, Finder},
    },
    unicode,
};

pub mod version;
pub mod write;

text_enum! {
    /// Where a form is in its life.
    Status {
        /// Not yet open.
        Draft = "DRAFT",
        /// Takes submissions.
        Open = "OPEN",
        /// Takes no submissions for now.
        Closed = "CLOSED",
        /// Kept for its answers only.
        Archived = "ARCHIVED",
    }
}

record! {
    /// A row of `forms`, whole.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "forms")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: FormId,
        /// The account that made it.
        pub owner_id: UserId,
        /// Shown to those who fill it in.
        pub title: String,
        /// The title in lower case, for searching.
        pub search_title: String,
        /// What it is for.
        pub description: Option<String>,
        /// Where it is in its life.
        pub status: Status,
        /// The published version; 0 before the first publication.
        pub version: i32,
        /// What was saved since the last publication.
        pub draft: Option<Json>,
        /// Grows with each save of the draft.
        pub draft_revision: i32,
        /// When the form was made.
        pub created_at: Time,
        /// Last change of the row.
        pub updated_at: Time,
        /// Last publication.
        pub published_at: Option<Time>,
    }
}

/// What a form belongs to, and what refers to it.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The account that made it.
    #[sea_orm(belongs_to = "crate::user::Entity", from = "Column::OwnerId", to = "crate::user::Column::Id")]
    Owner,
    /// Its published versions.
    #[sea_orm(has_many = "version::Entity")]
    Versions,
    /// What was handed in.
    #[sea_orm(has_many = "crate::submission::Entity")]
    Submissions,
}

impl Related<crate::user::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Owner.def()
    }
}

impl Related<version::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Versions.def()
    }
}

impl Related<crate::submission::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Submissions.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

record! {
    /// What is read of `forms` in lists and by id: neither the draft nor what is searched.
    #[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel, Serialize, Deserialize)]
    #[sea_orm(entity = "Entity")]
    pub struct Row {
        /// Primary key.
        pub id: FormId,
        /// The account that made it.
        pub owner_id: UserId,
        /// Shown to those who fill it in.
        pub title: String,
        /// What it is for.
        pub description: Option<String>,
        /// Where it is in its life.
        pub status: Status,
        /// The published version; 0 before the first publication.
        pub version: i32,
        /// Grows with each save of the draft.
        pub draft_revision: i32,
        /// When the form was made.
        pub created_at: Time,
        /// Last change of the row.
        pub updated_at: Time,
        /// Last publication.
        pub published_at: Option<Time>,
    }
}

impl ById for Row {
    const ID: Column = Column::Id;
    const BY_IDS: &'static str = "form.by_ids";
    type Id = FormId;

    fn id(&self) -> FormId {
        self.id
    }
}

impl Row {
    /// Managers see all forms, editors their own and open ones, the others open ones.
    pub fn is_visible_to(&self, scope: &Scope) -> bool {
        match scope {
            _ if scope.manages() => true,
            Scope::Of { .. } => self.status == Status::Open || self.is_edited_by(scope),
            Scope::All | Scope::Nothing => false,
        }
    }

    /// May a caller of this scope see the draft and the history of versions?
    pub fn is_edited_by(&self, scope: &Scope) -> bool {
        scope.manages() || matches!(scope, Scope::Of { user, role: Role::Editor } if *user == self.owner_id)
    }
}

/// The condition of `Row::is_visible_to`; `forms` is the table's alias.
pub(crate) fn push_scope(sql: &mut Sql, scope: &Scope, forms: &str) {
    match scope {
        _ if scope.manages() => {}
        Scope::Of { user, role: Role::Editor } => {
            sql.push(" AND (").column_of(forms, Column::Status).push(" = 'OPEN' OR ");
            sql.column_of(forms, Column::OwnerId).push(" = ").bind(*user).push(")");
        }
        Scope::Of { .. } => {
            sql.push(" AND ").column_of(forms, Column::Status).push(" = 'OPEN'");
        }
        Scope::All | Scope::Nothing => {
            sql.push(" AND FALSE");
        }
    }
}

/// Forms by id.
///
/// # Errors
/// The database's.
pub async fn by_ids(store: &Store, ids: &[FormId]) -> Result<FxHashMap<FormId, Arc<Row>>, Error> {
    row::by_ids(store, ids).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<FormId, Row> = Finder::by_id();

/// The drafts of forms; a form without one has none here. Who may see them is decided by the caller, who holds the form
/// (`Row::is_edited_by`).
pub static DRAFTS: Finder<FormId, Json> =
    Finder::open("form.drafts", |store, _, forms| drafts(store, forms).boxed());

async fn drafts(store: &Store, ids: &[FormId]) -> Result<FxHashMap<FormId, Arc<Json>>, Error> {
    let mut sql = store.sql();
    sql.select::<Entity>(&[Column::Id, Column::Draft]);
    sql.filter(Column::Draft).push(" IS NOT NULL").and(Column::Id).any_id(ids);
    let rows = store.fetch("form.drafts", Row::table(), sql, |cells| {
        Ok((cells.next::<FormId>()?, Arc::new(cells.next::<Json>()?)))
    });
    Ok(rows.await?.into_iter().collect())
}

/// Which forms a list has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Filter {
    /// Part of the title; case does not count.
    pub search: Option<String>,
    /// Any of these.
    pub statuses: Option<Vec<Status>>,
    /// Made by any of these.
    pub owner_ids: Option<Vec<UserId>>,
    /// Made in this time.
    pub created_at: TimeRange,
}

impl Filtering for Filter {
    fn is_repeatable(&self) -> bool {
        self.search.is_none()
    }
}

impl Filter {
    fn push(&self, sql: &mut Sql, scope: &Scope) {
        push_scope(sql, scope, "t");
        if let Some(search) = &self.search {
            sql.push(" AND ").contains(Column::SearchTitle, &unicode::searched(search));
        }
        if let Some(statuses) = &self.statuses {
            sql.and(Column::Status).any_text(statuses);
        }
        if let Some(owners) = &self.owner_ids {
            sql.and(Column::OwnerId).any_id(owners);
        }
        sql.within(Column::CreatedAt, &self.created_at);
    }
}

/// What a list of forms is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderField {
    /// When the form was made.
    CreatedAt,
    /// Last change.
    UpdatedAt,
    /// Bytewise.
    Title,
}

const CREATED_AT: [SortKey<Row>; 2] = by_time!(CreatedAt, created_at);
const UPDATED_AT: [SortKey<Row>; 2] = by_time!(UpdatedAt, updated_at);
const TITLE: [SortKey<Row>; 2] = [
    SortKey { sql: key!(Title), kind: KeyKind::Text, value: |row| KeyValue::Text(row.title.clone()) },
    SortKey { sql: key!(Id), kind: KeyKind::Id, value: |row| KeyValue::Id(row.id.0) },
];

/// The order of a list of forms.
pub fn keyset(field: OrderField, descending: bool) -> &'static Keyset<Row> {
    static ORDERS: [[Keyset<Row>; 2]; 3] = [
        Keyset::both_ways("forms.created_at", &CREATED_AT),
        Keyset::both_ways("forms.updated_at", &UPDATED_AT),
        Keyset::both_ways("forms.title", &TITLE),
    ];
    &ORDERS[field as usize][usize::from(descending)]
}

/// All forms.
pub static ALL: List<Row, Filter> =
    List::new(Names { page: "form.page", count: "form.count", parent: None }, Filter::push)
        .retention(|_, _| vec![Tag::Type("Form")]);

/// Each account's own forms.
pub static OF_OWNERS: List<Row, Filter> = List::new(
    Names {
        page: "form.pages_of_owners",
        count: "form.counts_of_owners",
        parent: Some(|| Column::OwnerId.as_str()),
    },
    Filter::push,
)
.retention(|owner, _| vec![Tag::List("Form", "owner", owner)]);
