//! Ids are newtypes over UUID, so that a session's id cannot be passed where a user's is meant. New ones are
//! version 7 (RFC 9562): they sort by creation time, which keeps primary-key inserts local.

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, made now.
            pub fn new() -> Self {
                Self(new())
            }

            /// Reads the canonical text form; anything else is no id.
            pub fn parse(text: &str) -> Option<Self> {
                parse(text).map(Self)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

ids! {
    /// An account.
    UserId,
    /// A sign-in on one device.
    SessionId,
    /// A form.
    FormId,
    /// One published version of a form.
    FormVersionId,
    /// A filled-in form.
    SubmissionId,
    /// A recorded position.
    LocationId,
    /// An entry of the activity log.
    ActivityLogId,
}

/// A new UUID, version 7.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn new() -> Uuid {
    Uuid::now_v7()
}

/// Reads a UUID in its canonical hyphenated form (either case). Braces, URNs and bare hex are refused, so that
/// one object has one id.
pub fn parse(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}
