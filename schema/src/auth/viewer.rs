//! Who is asking. Made once per request (or per WebSocket `connection_init`) by the server from the bearer token;
//! nothing below reads headers. What a viewer may see follows from `Viewer::scope`; the columns hidden from a
//! viewer are decided by each domain's `visible_to`.

use entities::{
    Role,
    database::scope::Scope,
    id::{SessionId, UserId},
};

/// What the accounts of some roles may do, whatever they do it to, and others may not: the `scope` of an access token
/// (RFC 9068), where gateways look for it. The role decides here; the claim only says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Makes and changes accounts.
    WriteAccounts,
    /// Makes and changes forms.
    WriteForms,
    /// Fills in forms and records positions.
    Collect,
}

impl Grant {
    const ALL: [Self; 3] = [Self::WriteAccounts, Self::WriteForms, Self::Collect];

    /// Its name in tokens and in the schema.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WriteAccounts => "accounts:write",
            Self::WriteForms => "forms:write",
            Self::Collect => "records:write",
        }
    }

    /// The `scope` of a role's tokens.
    pub fn scope(role: Role) -> String {
        Self::ALL
            .into_iter()
            .filter(|grant| grant.is_of(role))
            .map(Self::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(crate) const fn refusal(self) -> &'static str {
        match self {
            Self::WriteAccounts => "Making and changing accounts is for administrators",
            Self::WriteForms => "Making and changing forms is for editors, managers and administrators",
            Self::Collect => "Accounts of the role VIEWER only read",
        }
    }

    fn is_of(self, role: Role) -> bool {
        match self {
            Self::WriteAccounts => role == Role::Admin,
            Self::WriteForms => matches!(role, Role::Admin | Role::Manager | Role::Editor),
            Self::Collect => role != Role::Viewer,
        }
    }
}

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

    /// May this caller do it?
    pub fn holds(&self, grant: Grant) -> bool {
        matches!(self, Self::User { role, .. } if grant.is_of(*role))
    }

    /// Is it an account in the role `ADMIN`?
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::User { role: Role::Admin, .. })
    }

    /// Which rows this caller may read, as data for the crate `entities`.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Service => Scope::All,
            Self::Anonymous => Scope::Nothing,
            Self::User { id, role, .. } => Scope::of(*id, *role),
        }
    }
}
