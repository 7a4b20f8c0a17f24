//! Which type an id belongs to: one probe of all primary keys, for `node(id)` and `nodes(ids)`. The rows themselves
//! are then read by their domain, under its rules.

use rustc_hash::FxHashMap;
use uuid::Uuid;

use crate::{error::Error, sql::text_enum, store::Store};

text_enum! {
    /// The types that have an id, under their names in the graph.
    Kind {
        /// `user`
        User = "User",
        /// `session`
        Session = "Session",
        /// `form`
        Form = "Form",
        /// `form::version`
        FormVersion = "FormVersion",
        /// `submission`
        Submission = "Submission",
        /// `location`
        Location = "Location",
        /// `activity`
        ActivityLog = "ActivityLog",
    }
}

const TABLES: [(Kind, &str); 7] = [
    (Kind::User, "users"),
    (Kind::Session, "user_sessions"),
    (Kind::Form, "forms"),
    (Kind::FormVersion, "form_versions"),
    (Kind::Submission, "form_submissions"),
    (Kind::Location, "user_locations"),
    (Kind::ActivityLog, "user_activity_logs"),
];

/// The type of each id that exists. Says nothing about who may see it.
///
/// # Errors
/// The database's.
pub async fn kinds(store: &Store, ids: &[Uuid]) -> Result<FxHashMap<Uuid, Kind>, Error> {
    let mut sql = store.sql();
    for (index, (_, table)) in TABLES.iter().enumerate() {
        sql.push(if index == 0 { "" } else { " UNION ALL " });
        sql.push("SELECT t.id, CAST(")
            .bind(index as i64)
            .push(" AS bigint) FROM ")
            .push(table)
            .push(" t WHERE t.id")
            .any_id(ids);
    }
    let found =
        store.fetch("node.kinds", "nodes", sql, |cells| Ok((cells.next::<Uuid>()?, cells.next::<i64>()?)));
    Ok(found.await?.into_iter().map(|(id, index)| (id, TABLES[index as usize].0)).collect())
}
