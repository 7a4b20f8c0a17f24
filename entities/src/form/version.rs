//! Published versions of forms: immutable. The definition and its JSON Schema are large, so they are read by
//! themselves. Lists walk `form_versions (form_id, number desc)`.

use crate::{
    clock::Time,
    id::{FormId, FormVersionId, UserId},
    sql::table,
};

table! {
    /// A row of `form_versions`, without `definition` and `json_schema`.
    "form_versions" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: FormVersionId,
        /// The form.
        form_id: FormId,
        /// 1, 2, 3 …
        number: i32,
        /// SHA-256 over the canonical definition (RFC 8785), hexadecimal.
        hash: String,
        /// When it was published.
        published_at: Time,
        /// By whom; none for removed accounts.
        published_by: Option<UserId>,
    }
}
