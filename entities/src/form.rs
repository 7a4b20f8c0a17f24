//! Forms: what is asked. Lists walk `forms (created_at desc, id desc)`, `(owner_id, …)` or the index of their
//! order. The draft may be half a megabyte, so it is no column of `Model`: it is read by itself, when asked for.
//! Published versions are in `form/version.rs`. Changes are in `form/write.rs`. Not here: answers (`submission`).

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    cache::Tag,
    clock::{Time, TimeRange},
    database::{
        kind::Kind,
        page::{Key, KeyKind, KeyValue, Keyset, by_time},
        role::Role,
        scope::Scope,
        sql::{Json, Record as _, Sql, table},
        text_enum::text_enum,
    },
    error::Error,
    id::{FormId, UserId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, Row},
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

table! {
    /// A row of `forms`, without its draft and `search_title`.
    "forms" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: FormId,
        /// Who made it.
        owner_id: UserId,
        /// Shown to those who fill it in.
        title: String,
        /// What it is for.
        description: Option<String>,
        /// Where it is in its life.
        status: Status,
        /// The published version; 0 before the first publication.
        version: i32,
        /// Grows with each save of the draft.
        draft_revision: i32,
        /// When the form was made.
        created_at: Time,
        /// Last change of the row.
        updated_at: Time,
        /// Last publication.
        published_at: Option<Time>,
    }
}

impl Row for Model {
    const KIND: Kind = Kind::Form;
    const BY_IDS: &'static str = "form.by_ids";
    type Id = FormId;

    fn id(&self) -> FormId {
        self.id
    }
}

impl Model {
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

/// The condition of `Model::is_visible_to`; `forms` is the table's alias.
pub(crate) fn push_scope(sql: &mut Sql, scope: &Scope, forms: &str) {
    match scope {
        _ if scope.manages() => {}
        Scope::Of { user, role: Role::Editor } => {
            sql.push(" AND (").push(forms).push(".status = 'OPEN' OR ").push(forms).push(".owner_id = ");
            sql.bind(*user).push(")");
        }
        Scope::Of { .. } => {
            sql.push(" AND ").push(forms).push(".status = 'OPEN'");
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
pub async fn by_ids(store: &Store, ids: &[FormId]) -> Result<FxHashMap<FormId, Arc<Model>>, Error> {
    row::by_ids(store, ids).await
}

/// The drafts of these forms; a form without one is left out. Who may see them is decided by the caller, who holds
/// the form (`Model::is_edited_by`).
///
/// # Errors
/// The database's.
pub async fn drafts(store: &Store, ids: &[FormId]) -> Result<FxHashMap<FormId, Arc<Json>>, Error> {
    let mut sql = store.sql();
    sql.push("SELECT t.id, t.draft FROM forms t WHERE t.draft IS NOT NULL AND t.id").any_id(ids);
    let rows = store.fetch("form.drafts", Model::TABLE, sql, |cells| {
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
            sql.push(" AND ").contains("t.search_title", &unicode::searched(search));
        }
        if let Some(statuses) = &self.statuses {
            sql.push(" AND t.status").any_text(statuses);
        }
        if let Some(owners) = &self.owner_ids {
            sql.push(" AND t.owner_id").any_id(owners);
        }
        sql.within("t.created_at", &self.created_at);
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

const CREATED_AT: [Key<Model>; 2] = by_time!(created_at);
const UPDATED_AT: [Key<Model>; 2] = by_time!(updated_at);
const TITLE: [Key<Model>; 2] = [
    Key { sql: "t.title", kind: KeyKind::Text, value: |row| KeyValue::Text(row.title.clone()) },
    Key { sql: "t.id", kind: KeyKind::Id, value: |row| KeyValue::Id(row.id.0) },
];

/// The order of a list of forms.
pub fn keyset(field: OrderField, descending: bool) -> &'static Keyset<Model> {
    static ORDERS: [[Keyset<Model>; 2]; 3] = [
        Keyset::both_ways("forms.created_at", &CREATED_AT),
        Keyset::both_ways("forms.updated_at", &UPDATED_AT),
        Keyset::both_ways("forms.title", &TITLE),
    ];
    &ORDERS[field as usize][usize::from(descending)]
}

/// All forms.
pub static ALL: List<Model, Filter> =
    List::new(Names { page: "form.page", count: "form.count", parent: "" }, Filter::push)
        .kept(|_, _| vec![Tag::Type("Form")]);

/// Each account's own forms.
pub static OF_OWNERS: List<Model, Filter> = List::new(
    Names { page: "form.pages_of_owners", count: "form.counts_of_owners", parent: "owner_id" },
    Filter::push,
)
.kept(|owner, _| vec![Tag::List("Form", "owner", owner)]);
