//! Sessions: a sign-in on one device. Lists of a user walk `user_sessions (user_id, created_at desc, id desc)`.
//! Not here: tokens, rotation and revocation (they come with the access rules).

use crate::{
    clock::Time,
    id::{SessionId, UserId},
    sql::{table, text_enum},
};

text_enum! {
    /// Why a session ended.
    EndReason {
        /// Its user signed out.
        SignedOut = "SIGNED_OUT",
        /// Its user ended it from another device.
        RevokedByUser = "REVOKED_BY_USER",
        /// An administrator ended it.
        RevokedByAdmin = "REVOKED_BY_ADMIN",
        /// It was not used for too long, or reached its absolute end.
        Expired = "EXPIRED",
        /// The account's password or role changed.
        CredentialsChanged = "CREDENTIALS_CHANGED",
        /// A refresh token was used twice: a sign of theft.
        TokenReuse = "TOKEN_REUSE",
    }
}

table! {
    /// A row of `user_sessions`.
    "user_sessions" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: SessionId,
        /// Whose session it is.
        user_id: UserId,
        /// Not ended; it may still have expired.
        is_active: bool,
        /// Given by its user, such as "Work phone".
        name: Option<String>,
        /// The address of the sign-in.
        ip_address: Option<String>,
        /// The client's own description of itself.
        user_agent: Option<String>,
        /// When the user signed in.
        created_at: Time,
        /// Last use, to the minute.
        last_activity: Time,
        /// End without use.
        expires_at: Time,
        /// When it was ended.
        revoked_at: Option<Time>,
        /// Why it was ended.
        end_reason: Option<EndReason>,
    }
}
