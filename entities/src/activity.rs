//! The activity log: who did what, partitioned by month. Lists walk
//! `user_activity_logs (created_at desc, id desc)`, `(user_id, …)` or `(user_id, action_type, …)`.

use crate::{
    clock::Time,
    id::{ActivityLogId, UserId},
    sql::{Json, table},
};
use uuid::Uuid;

table! {
    /// A row of `user_activity_logs`.
    "user_activity_logs" {
        /// Primary key together with `created_at`.
        #[sea_orm(primary_key, auto_increment = false)]
        id: ActivityLogId,
        /// Who did it; none for the system and for removed accounts.
        user_id: Option<UserId>,
        /// Dotted verb such as `form.publish`.
        action_type: String,
        /// What it was done to.
        subject_id: Option<Uuid>,
        /// The GraphQL type of the subject.
        subject_type: Option<String>,
        /// Details; never secrets, never answers.
        metadata: Json,
        /// When it was done; decides the partition.
        created_at: Time,
    }
}
