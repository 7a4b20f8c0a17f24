//! Accounts: row, finders and lists. Lists walk `users (created_at desc, id desc)` or the index of their order;
//! `search` uses the trigram index on `search_name`. Not here: passwords and tokens (the access rooms), hidden
//! columns (the front room's `visible_to`).

use crate::{
    clock::Time,
    id::UserId,
    sql::{table, text_enum},
};

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

table! {
    /// A row of `users`.
    "users" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: UserId,
        /// Unique, stored in lower case.
        email: String,
        /// The name that others see.
        display_name: String,
        /// `display_name` in lower case, made by the application so that both databases search alike.
        search_name: String,
        /// What the account may do.
        role: Role,
        /// False once blocked.
        is_active: bool,
        /// Argon2id in PHC form; none for accounts without a password. Never leaves the store room.
        password_hash: Option<String>,
        /// When the account was made.
        created_at: Time,
        /// Last change of the row.
        updated_at: Time,
        /// Last sign-in.
        last_login: Option<Time>,
    }
}
