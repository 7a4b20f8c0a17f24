//! Ids are newtypes over UUID, so that a session's id cannot be passed where a user's is meant. New ones are
//! version 7 (RFC 9562): they sort by creation time, which keeps primary-key inserts local. The list below is the one
//! list of what has an id; which table it is in is said in `node`.

use std::{fmt, hash::Hash};

use sea_orm::DeriveValueType;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// An id of one kind of row.
pub trait Id: Copy + fmt::Debug + Eq + Ord + Hash + From<Uuid> + Into<Uuid> + Send + Sync + 'static {
    /// The kind of row that an id of this type names.
    const KIND: NodeKind;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $kind:ident: $name:ident),+ $(,)?) => {
        /// The types that have an id, under their names in the graph.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum NodeKind {
            $( $(#[$doc])* $kind ),+
        }

        impl NodeKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The name of the kind's type in the graph.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$kind => stringify!($kind) ),+ }
            }
        }

        $(
            $(#[$doc])*
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
                DeriveValueType,
            )]
            #[serde(transparent)]
            pub struct $name(pub Uuid);

            impl Id for $name {
                const KIND: NodeKind = NodeKind::$kind;
            }

            impl $name {
                /// A new id, made now.
                pub fn new() -> Self {
                    Self(new())
                }

                /// Reads the canonical text form; `None` for anything else.
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

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }
        )+
    };
}

ids! {
    /// An account.
    User: UserId,
    /// A sign-in on one device.
    Session: SessionId,
    /// A form.
    Form: FormId,
    /// One published version of a form.
    FormVersion: FormVersionId,
    /// A filled-in form.
    Submission: SubmissionId,
    /// A recorded position.
    Location: LocationId,
    /// An entry of the activity log.
    ActivityLog: ActivityLogId,
    /// An address that is told of events.
    Webhook: WebhookId,
    /// An event that a webhook is told of.
    WebhookDelivery: WebhookDeliveryId,
}

impl NodeKind {
    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|kind| kind.as_str() == name).copied()
    }
}

/// Its name, and not its place in the list: two versions of the program may share a cache.
impl Serialize for NodeKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for NodeKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <&str>::deserialize(deserializer)?;
        Self::parse(name).ok_or_else(|| D::Error::custom("unknown kind"))
    }
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
