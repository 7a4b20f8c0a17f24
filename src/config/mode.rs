//! What the configuration is for, and what that makes different: defaults and values that must be given. Not here: the
//! keys.

/// The secret of development: everybody knows it, and production refuses it.
pub(super) const DEVELOPMENT_SECRET: &str = "development: everybody knows this secret";

/// The file that `xp dev` makes where it is started, and takes where no database is set.
pub const DEVELOPMENT_FILE: &str = "xp-dev.db";
const DEVELOPMENT_URL: &str = "sqlite:xp-dev.db";

/// What the configuration is for: decides the development defaults and what is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `xp dev`: embedded defaults, nothing required.
    Development,
    /// `xp serve`: a database and a secret are required.
    Production,
    /// A command that works on the database and needs its URL.
    Database,
    /// A command that makes tokens or keys: needs the database and the secret.
    Keys,
    /// A command that checks for itself what it needs.
    Tool,
}

impl Mode {
    /// Defaults of this mode that differ from the table.
    pub(super) fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Development => &[
                ("database.url", DEVELOPMENT_URL),
                ("auth.secret", DEVELOPMENT_SECRET),
                ("auth.sign_up", "true"),
                ("webhooks.allow_networks", "127.0.0.0/8, ::1"),
            ],
            Self::Production => &[("http.drain_delay", "5s")],
            Self::Database | Self::Keys | Self::Tool => &[],
        }
    }

    /// Keys that must have a value, with the way to get one.
    pub(super) fn required(self) -> &'static [(&'static str, &'static str)] {
        const URL: (&str, &str) = (
            "database.url",
            "set DATABASE_URL (or DATABASE_URL_FILE) to postgres://user:password@host/name or sqlite:path",
        );
        const SECRET: (&str, &str) = (
            "auth.secret",
            "make one with `openssl rand -base64 32`, keep it, and set XP_AUTH_SECRET (or \
             XP_AUTH_SECRET_FILE) to it",
        );
        match self {
            Self::Development | Self::Tool => &[],
            Self::Database => &[URL],
            Self::Production | Self::Keys => &[URL, SECRET],
        }
    }
}
