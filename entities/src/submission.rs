//! Submissions: filled-in forms. Lists walk `form_submissions (form_id, created_at desc, id desc)`,
//! `(user_id, …)` or `(form_id, user_id, …)`. Not here: validation of answers (it comes with writing).

use crate::{
    clock::Time,
    id::{FormId, LocationId, SessionId, SubmissionId, UserId},
    sql::{Json, table},
};
use uuid::Uuid;

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
        /// Chosen by the device: sending it again changes nothing.
        client_id: Option<Uuid>,
        /// The answers.
        data: Json,
        /// Where it was filled in.
        location_id: Option<LocationId>,
        /// When it was stored.
        created_at: Time,
    }
}
