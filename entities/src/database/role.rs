//! The roles of accounts. Not here: what each of them may do (`scope`, and the rules of the graph).

use super::text_enum::text_enum;

text_enum! {
    /// What an account may do.
    Role {
        /// Everything, accounts and other people's sessions included.
        Admin = "ADMIN",
        /// All forms, submissions and locations.
        Manager = "MANAGER",
        /// Own forms and their submissions.
        Editor = "EDITOR",
        /// Fills in open forms, records locations.
        Collector = "COLLECTOR",
        /// Reads open forms.
        Viewer = "VIEWER",
    }
}
