//! The types that have an id. Not here: which of them an id belongs to (`instance`).

use super::text_enum::text_enum;

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
