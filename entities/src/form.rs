//! Forms: what is asked. Lists walk `forms (created_at desc, id desc)`, `(owner_id, …)` or the index of their
//! order. The draft may be half a megabyte, so it is no column of `Model`: it is read by itself, when asked for.
//! Published versions are in `form/version.rs`. Not here: answers (`submission`), editing (later).

use crate::{
    clock::Time,
    id::{FormId, UserId},
    sql::{table, text_enum},
};

pub mod version;

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
    /// A row of `forms`, without its draft.
    "forms" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: FormId,
        /// Who made it.
        owner_id: UserId,
        /// Shown to those who fill it in.
        title: String,
        /// `title` in lower case, made by the application so that both databases search alike.
        search_title: String,
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
