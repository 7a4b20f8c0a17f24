//! Submissions: filled-in forms. Lists walk `form_submissions (form_id, created_at desc, id desc)`,
//! `(user_id, …)` or `(form_id, user_id, …)`. What answers go through
//! is in `submission/pipeline.rs`, how they are stored in `submission/write.rs`.

use std::sync::Arc;

use futures_util::FutureExt as _;
use rustc_hash::FxHashMap;
use sea_orm::{IdenStatic as _, entity::prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    cache::Tag,
    clock::{Time, TimeRange},
    database::{
        page::{Keyset, by_time},
        role::Role,
        scope::Scope,
        sql::{Json, Sql, record},
    },
    error::Error,
    form,
    id::{FormId, LocationId, NodeKind, SessionId, SubmissionId, UserId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{Find, Finder},
    },
};

pub mod write;

record! {
    /// A row of `form_submissions`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "form_submissions")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: SubmissionId,
        /// The form.
        pub form_id: FormId,
        /// The version it was filled in against.
        pub form_version: i32,
        /// By whom; none for removed accounts.
        pub user_id: Option<UserId>,
        /// On which device.
        pub session_id: Option<SessionId>,
        /// Chosen by the device: sending it again changes nothing. Unique on the form.
        pub client_id: Option<Uuid>,
        /// The answers.
        pub data: Json,
        /// Where it was filled in.
        pub location_id: Option<LocationId>,
        /// When it was stored.
        pub created_at: Time,
        /// Chosen by the device, where another account had used the same on the form before. Unique for the account.
        pub own_client_id: Option<Uuid>,
    }
}

/// What a submission belongs to. Submissions outlive accounts and sessions, so the database does not keep these.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The form.
    #[sea_orm(belongs_to = "crate::form::Entity", from = "Column::FormId", to = "crate::form::Column::Id")]
    Form,
    /// By whom.
    #[sea_orm(
        belongs_to = "crate::user::Entity",
        from = "Column::UserId",
        to = "crate::user::Column::Id",
        skip_fk
    )]
    User,
    /// On which device.
    #[sea_orm(
        belongs_to = "crate::session::Entity",
        from = "Column::SessionId",
        to = "crate::session::Column::Id",
        skip_fk
    )]
    Session,
}

impl Related<crate::form::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Form.def()
    }
}

impl Related<crate::user::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::User.def()
    }
}

impl Related<crate::session::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Session.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// What the device called it: unique among its account's submissions to the form.
    pub fn client_id(&self) -> Option<Uuid> {
        self.client_id.or(self.own_client_id)
    }
}

/// Managers see all submissions, editors those of their own forms and their own, the others their own. The row
/// does not say whose form it is, so every read is scoped by the database.
fn push_scope(sql: &mut Sql, scope: &Scope) {
    match scope {
        _ if scope.manages() => {}
        Scope::Of { user, role } => {
            sql.push(" AND (").column(Column::UserId).push(" = ").bind(*user);
            if *role == Role::Editor {
                sql.push(" OR EXISTS (SELECT 1 FROM forms f WHERE ").column_of("f", form::Column::Id);
                sql.push(" = ").column(Column::FormId).push(" AND ");
                sql.column_of("f", form::Column::OwnerId).push(" = ").bind(*user).push(")");
            }
            sql.push(")");
        }
        Scope::All | Scope::Nothing => {
            sql.push(" AND FALSE");
        }
    }
}

/// Submissions by id, as far as the scope reaches.
///
/// # Errors
/// The database's.
pub async fn by_ids(
    store: &Store,
    scope: &Scope,
    ids: &[SubmissionId],
) -> Result<FxHashMap<SubmissionId, Arc<Model>>, Error> {
    ROWS.rows(store, scope, ids).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<SubmissionId, Model> =
    Finder::scoped("submission.by_ids", |store, scope, ids| by_ids(store, scope, ids).boxed());

static ROWS: Find<SubmissionId, Model> = Find {
    name: "submission.by_ids",
    matching: |sql, ids, scope| {
        sql.filter(Column::Id).any_id(ids);
        push_scope(sql, scope);
    },
    key: |row| row.id,
    // Whose form it is, which decides who may see it, never changes.
    tags: |id, _| vec![Tag::Row(NodeKind::Submission.as_str(), id.0)],
    caches_absence: true,
};

/// Newest first.
pub static KEYSET: Keyset<Model> =
    Keyset { name: "submissions.created_at", descending: true, keys: &by_time!(CreatedAt, created_at) };

/// Which submissions a list has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Filter {
    /// To any of these forms.
    pub form_ids: Option<Vec<FormId>>,
    /// By any of these users.
    pub user_ids: Option<Vec<UserId>>,
    /// Against any of these versions.
    pub versions: Option<Vec<i32>>,
    /// Stored in this time.
    pub created_at: TimeRange,
}

impl Filtering for Filter {}

impl Filter {
    fn push(&self, sql: &mut Sql, scope: &Scope) {
        push_scope(sql, scope);
        if let Some(forms) = &self.form_ids {
            sql.and(Column::FormId).any_id(forms);
        }
        if let Some(users) = &self.user_ids {
            sql.and(Column::UserId).any_id(users);
        }
        if let Some(versions) = &self.versions {
            sql.and(Column::FormVersion).any_int(versions);
        }
        sql.within(Column::CreatedAt, &self.created_at);
    }
}

/// Each form's submissions.
pub static OF_FORMS: List<Model, Filter> = List::new(
    Names {
        page: "submission.pages_of",
        count: "submission.counts_of",
        parent: Some(|| Column::FormId.as_str()),
    },
    Filter::push,
)
.retention(|form, _| vec![Tag::List("Submission", "form", form)]);

/// Each user's submissions.
pub static OF_USERS: List<Model, Filter> = List::new(
    Names {
        page: "submission.pages_of",
        count: "submission.counts_of",
        parent: Some(|| Column::UserId.as_str()),
    },
    Filter::push,
)
.retention(|user, _| vec![Tag::List("Submission", "user", user)]);
