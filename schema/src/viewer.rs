//! Who is asking. Made once per request (or per WebSocket `connection_init`) by the hall from the bearer token;
//! nothing below reads headers. What a viewer may see follows from `Viewer::scope`; the columns hidden from a
//! viewer are decided by each domain's `visible_to`.

use entities::{
    id::{SessionId, UserId},
    scope::Scope,
    user::Role,
};

/// The caller of one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Viewer {
    /// No token was sent.
    Anonymous,
    /// A signed-in account.
    User {
        /// The account.
        id: UserId,
        /// Its role, as the token states it.
        role: Role,
        /// The session that the token belongs to; none for minted service tokens of an account.
        session: Option<SessionId>,
    },
    /// A trusted machine caller (operator tooling); sees everything and is nobody.
    Service,
}

impl Viewer {
    /// The account that is asking, if any.
    pub fn user_id(&self) -> Option<UserId> {
        match self {
            Self::User { id, .. } => Some(*id),
            Self::Anonymous | Self::Service => None,
        }
    }

    /// The session that is asking, if any.
    pub fn session_id(&self) -> Option<SessionId> {
        match self {
            Self::User { session, .. } => *session,
            Self::Anonymous | Self::Service => None,
        }
    }

    /// May this caller fill in forms and record positions?
    pub fn collects(&self) -> bool {
        matches!(self, Self::User { role, .. } if *role != Role::Viewer)
    }

    /// Which rows this caller may read, as data for the store room.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Service => Scope::All,
            Self::Anonymous => Scope::Nothing,
            Self::User { id, role, .. } => Scope::of(*id, *role),
        }
    }
}
