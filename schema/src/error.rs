//! The errors a client can get: a code from the closed catalogue and a text that is safe by construction. Internal
//! failures are logged once, where they happen, and reach the client as `INTERNAL_SERVER_ERROR` with no detail.

use std::{borrow::Cow, time::Duration};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// The catalogue of `errors[].extensions.code`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name),+ }

        impl Code {
            /// The text that the client sees.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

codes! {
    /// The caller has to sign in first.
    Unauthenticated = "UNAUTHENTICATED",
    /// The caller may not ask for this.
    Forbidden = "FORBIDDEN",
    /// A variable or an argument has a value that cannot be used.
    BadUserInput = "BAD_USER_INPUT",
    /// A cursor that this list did not hand out.
    BadCursor = "BAD_CURSOR",
    /// The document is no GraphQL.
    ParseFailed = "GRAPHQL_PARSE_FAILED",
    /// The document does not fit the schema.
    ValidationFailed = "GRAPHQL_VALIDATION_FAILED",
    /// The document does not say which operation to run.
    OperationResolutionFailure = "OPERATION_RESOLUTION_FAILURE",
    /// Too deep.
    DepthLimit = "DEPTH_LIMIT",
    /// Too much.
    CostLimit = "COST_LIMIT",
    /// The document is too long.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE",
    /// Too many tries; `Retry-After` says when the next one is worth it.
    RateLimited = "RATE_LIMITED",
    /// Too much at once; `Retry-After` says when to try again.
    Overloaded = "OVERLOADED",
    /// Something failed on the server; the log has the cause under the request's id.
    InternalServerError = "INTERNAL_SERVER_ERROR",
}

/// Why a field has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Its code.
    pub code: Code,
    /// A sentence for the developer of the client.
    pub message: Cow<'static, str>,
    /// After how many seconds the same may be tried again, where that helps.
    pub retry_after_seconds: Option<u32>,
}

impl FieldError {
    /// A failure of this code.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after_seconds: None }
    }

    /// A failure that goes away by itself.
    pub fn not_now(code: Code, message: &'static str, retry_after: Duration) -> Self {
        let seconds = u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        Self { retry_after_seconds: Some(seconds), ..Self::new(code, message) }
    }

    /// An argument that cannot be used.
    pub fn bad_input(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadUserInput, message)
    }

    /// Only for callers who are signed in.
    pub const fn unauthenticated() -> Self {
        Self {
            code: Code::Unauthenticated,
            message: Cow::Borrowed("Sign in first"),
            retry_after_seconds: None,
        }
    }

    /// Not for callers of this role.
    pub const fn forbidden(message: &'static str) -> Self {
        Self { code: Code::Forbidden, message: Cow::Borrowed(message), retry_after_seconds: None }
    }

    /// A failure of the server, without its cause.
    pub const fn internal() -> Self {
        let message = Cow::Borrowed("Internal server error");
        Self { code: Code::InternalServerError, message, retry_after_seconds: None }
    }

    /// Maps and, for internal failures, logs an error of the store room.
    pub(crate) fn of_store(error: &entities::Error, loader: &'static str) -> Self {
        if let entities::Error::Refused(message) = error {
            return Self::bad_input(message.clone());
        }
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(loader, %error, cause, "a batch failed");
        Self::internal()
    }
}

/// A place in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl From<async_graphql::Pos> for Place {
    fn from(pos: async_graphql::Pos) -> Self {
        Self { line: pos.line, column: pos.column }
    }
}

/// An error before execution began: the answer has no `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestError {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) places: Vec<Place>,
}

/// Texts that echo the document are cut to this many characters.
const MAX_MESSAGE_CHARS: usize = 200;

impl RequestError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), places: Vec::new() }
    }

    pub(crate) fn at(mut self, place: impl Into<Place>) -> Self {
        self.places.push(place.into());
        self
    }

    /// An error of the library's parser or validator.
    pub(crate) fn of_engine(code: Code, error: async_graphql::ServerError) -> Self {
        let mut message = error.message;
        if let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(cut);
            message.push('…');
        }
        let places = error.locations.into_iter().map(Place::from).collect();
        Self { code, message, places }
    }
}
