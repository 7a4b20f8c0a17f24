//! Submissions: filled-in forms. Lists walk `form_submissions (form_id, created_at desc, id desc)`,
//! `(user_id, …)` or `(form_id, user_id, …)`. What answers go through
//! is in `submission/pipeline.rs`, how they are stored in `submission/write.rs`.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    cache::Tag,
    clock::{Time, TimeRange},
    database::{
        kind::Kind,
        page::{Keyset, by_time},
        role::Role,
        scope::Scope,
        sql::{Json, Sql, table},
    },
    error::Error,
    id::{FormId, LocationId, SessionId, SubmissionId, UserId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::Find,
    },
};

pub mod write;

table! {
    /// A row of `form_submissions`.
    "form_submissions" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: SubmissionId,
        /// The form.
        form_id: FormId,
        /// The version it was filled in against.
        form_version: i32,
        /// By whom; none for removed accounts.
        user_id: Option<UserId>,
        /// On which device.
        session_id: Option<SessionId>,
        /// Chosen by the device: sending it again changes nothing. Unique on the form.
        client_id: Option<Uuid>,
        /// The answers.
        data: Json,
        /// Where it was filled in.
        location_id: Option<LocationId>,
        /// When it was stored.
        created_at: Time,
        /// Chosen by the device, where another account had used the same on the form before. Unique for the account.
        own_client_id: Option<Uuid>,
    }
}

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
            sql.push(" AND (t.user_id = ").bind(*user);
            if *role == Role::Editor {
                sql.push(" OR EXISTS (SELECT 1 FROM forms f WHERE f.id = t.form_id AND f.owner_id = ");
                sql.bind(*user).push(")");
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
    BY_IDS.rows(store, scope, ids).await
}

static BY_IDS: Find<SubmissionId, Model> = Find {
    name: "submission.by_ids",
    matching: |sql, ids, scope| {
        sql.push("t.id").any_id(ids);
        push_scope(sql, scope);
    },
    key: |row| row.id,
    // Whose form it is, which decides who may see it, never changes.
    tags: |id, _| vec![Tag::Row(Kind::Submission.as_str(), id.0)],
    keeps_absent: true,
};

/// Newest first.
pub static KEYSET: Keyset<Model> =
    Keyset { name: "submissions.created_at", descending: true, keys: &by_time!(created_at) };

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
            sql.push(" AND t.form_id").any_id(forms);
        }
        if let Some(users) = &self.user_ids {
            sql.push(" AND t.user_id").any_id(users);
        }
        if let Some(versions) = &self.versions {
            sql.push(" AND t.form_version").any_int(versions);
        }
        sql.within("t.created_at", &self.created_at);
    }
}

/// Each form's submissions.
pub static OF_FORMS: List<Model, Filter> = List::new(
    Names { page: "submission.pages_of", count: "submission.counts_of", parent: "form_id" },
    Filter::push,
)
.kept(|form, _| vec![Tag::List("Submission", "form", form)]);

/// Each user's submissions.
pub static OF_USERS: List<Model, Filter> = List::new(
    Names { page: "submission.pages_of", count: "submission.counts_of", parent: "user_id" },
    Filter::push,
)
.kept(|user, _| vec![Tag::List("Submission", "user", user)]);
