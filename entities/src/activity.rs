//! The activity log: who did what, partitioned by month. Lists walk
//! `user_activity_logs (created_at desc, id desc)`, `(user_id, …)` or `(user_id, action_type, …)`.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sea_orm::{IdenStatic as _, QueryTrait as _, Set, entity::prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    clock::{self, Time, TimeRange},
    database::{
        page::{Keyset, by_time},
        scope::Scope,
        sql::{Json, Sql, record},
        text_enum::text_enum,
    },
    error::Error,
    id::{ActivityLogId, NodeKind, UserId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, ById, Finder},
        transaction::Transaction,
    },
};

text_enum! {
    /// The verbs of the log: each mutation has one.
    Action {
        /// An account was made by its owner.
        UserSignUp = "user.sign_up",
        /// An account was made by an administrator.
        UserCreate = "user.create",
        /// Name, role or state of an account changed.
        UserUpdate = "user.update",
        /// The data of the person of an account was erased.
        UserErase = "user.erase",
        /// The password changed.
        UserChangePassword = "user.change_password",
        /// Somebody signed in.
        SessionCreate = "session.create",
        /// A session got new tokens.
        SessionRefresh = "session.refresh",
        /// A session got another name.
        SessionRename = "session.rename",
        /// A session was ended by itself.
        SessionSignOut = "session.sign_out",
        /// Sessions were ended from elsewhere.
        SessionRevoke = "session.revoke",
        /// The server ended a session.
        SessionEnd = "session.end",
        /// A form was made.
        FormCreate = "form.create",
        /// Title or description of a form changed.
        FormUpdate = "form.update",
        /// The draft of a form was saved.
        FormSaveDraft = "form.save_draft",
        /// A draft became a version.
        FormPublish = "form.publish",
        /// A form was opened, closed or archived.
        FormSetStatus = "form.set_status",
        /// A form was filled in.
        SubmissionCreate = "submission.create",
        /// Positions were recorded.
        LocationRecord = "location.record",
        /// A webhook was made.
        WebhookCreate = "webhook.create",
        /// A webhook was changed, enabled or disabled by somebody.
        WebhookUpdate = "webhook.update",
        /// A webhook was removed.
        WebhookDelete = "webhook.delete",
        /// A webhook got another secret.
        WebhookRotateSecret = "webhook.rotate_secret",
        /// Something is delivered to a webhook once more.
        WebhookRedeliver = "webhook.redeliver",
        /// The server disabled a webhook.
        WebhookDisable = "webhook.disable",
    }
}

record! {
    /// A row of `user_activity_logs`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "user_activity_logs")]
    pub struct Model {
        /// Primary key together with `created_at`.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: ActivityLogId,
        /// The account that did it; none for the system and for removed accounts.
        pub user_id: Option<UserId>,
        /// Dotted verb such as `form.publish`.
        pub action_type: String,
        /// What it was done to.
        pub subject_id: Option<Uuid>,
        /// The GraphQL type of the subject.
        pub subject_type: Option<String>,
        /// Details; never secrets, never answers.
        pub metadata: Json,
        /// When it was done; decides the partition.
        #[sea_orm(primary_key, auto_increment = false)]
        pub created_at: Time,
    }
}

/// Whose entry it is. The log outlives accounts, so the database does not keep this.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The account that did it.
    #[sea_orm(
        belongs_to = "crate::user::Entity",
        from = "Column::UserId",
        to = "crate::user::Column::Id",
        skip_fk
    )]
    User,
}

impl Related<crate::user::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::User.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

impl ById for Model {
    const ID: Column = Column::Id;
    const BY_IDS: &'static str = "activity.by_ids";
    const IS_ANNOUNCED: bool = false;
    type Id = ActivityLogId;

    fn id(&self) -> ActivityLogId {
        self.id
    }
}

impl Model {
    /// Entries are seen by the one who acted and by administrators.
    pub fn is_visible_to(&self, scope: &Scope) -> bool {
        scope.administers() || (self.user_id.is_some() && scope.user() == self.user_id)
    }
}

/// An entry about to be written: what a mutation did.
#[derive(Clone, Debug)]
pub struct ActivityEntry {
    /// The account that did it; none for the system and for callers without an account.
    pub user: Option<UserId>,
    /// What was done.
    pub action: Action,
    /// To what.
    pub subject: Option<(NodeKind, Uuid)>,
    /// Details. Never secrets, never answers.
    pub metadata: serde_json::Value,
}

impl Transaction {
    /// Writes the entry, commits, and announces the changes.
    ///
    /// # Errors
    /// The database's: nothing is stored. `OutcomeUnknown` where that was not said.
    pub(crate) async fn commit(mut self, entry: ActivityEntry) -> Result<(), Error> {
        self.note_for_repeats(entry.subject.map(|(_, id)| id)).await?;
        self.commit_with(Some(Entity::insert(entry.into_row()).into_query())).await
    }
}

impl ActivityEntry {
    /// The row that is stored of it.
    fn into_row(self) -> ActiveModel {
        ActiveModel {
            id: Set(ActivityLogId::new()),
            user_id: Set(self.user),
            action_type: Set(self.action.as_str().to_owned()),
            subject_id: Set(self.subject.map(|(_, id)| id)),
            subject_type: Set(self.subject.map(|(kind, _)| kind.as_str().to_owned())),
            metadata: Set(Json::from(&self.metadata)),
            created_at: Set(clock::now()),
        }
    }
}

/// Entries by id.
///
/// # Errors
/// The database's.
pub async fn by_ids(
    store: &Store,
    ids: &[ActivityLogId],
) -> Result<FxHashMap<ActivityLogId, Arc<Model>>, Error> {
    row::by_ids(store, ids).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<ActivityLogId, Model> = Finder::by_id();

/// Newest first.
pub static KEYSET: Keyset<Model> =
    Keyset { name: "activity.created_at", descending: true, keys: &by_time!(CreatedAt, created_at) };

/// Which entries a list has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Filter {
    /// Any of these verbs.
    pub action_types: Option<Vec<String>>,
    /// Done in this time.
    pub created_at: TimeRange,
}

impl Filtering for Filter {}

impl Filter {
    fn push(&self, sql: &mut Sql, scope: &Scope) {
        scope.push_own(sql, Column::UserId, scope.administers());
        if let Some(actions) = &self.action_types {
            sql.and(Column::ActionType).any_text(actions);
        }
        sql.within(Column::CreatedAt, &self.created_at);
    }
}

/// The whole log.
pub static ALL: List<Model, Filter> =
    List::new(Names { page: "activity.page", count: "activity.count", parent: None }, Filter::push);

/// Each user's entries.
pub static OF_USERS: List<Model, Filter> = List::new(
    Names {
        page: "activity.pages_of_users",
        count: "activity.counts_of_users",
        parent: Some(|| Column::UserId.as_str()),
    },
    Filter::push,
);
