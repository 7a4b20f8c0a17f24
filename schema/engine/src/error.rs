//! The errors a client can get: a code from the closed catalogue and a text that is safe by construction. Internal
//! failures keep their cause with them, which is logged once, with the request's id, where the error is written into an
//! answer (`write`); the client reads `INTERNAL_SERVER_ERROR` and no detail.

use std::{borrow::Cow, fmt::Display, sync::Arc, time::Duration};

macro_rules! codes {
    ($($(#[doc = $when:literal])+ $name:ident = $text:literal),+ $(,)?) => {
        /// The catalogue of `errors[].extensions.code`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $when])+ $name),+ }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The text that the client sees.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// When a client gets it: one sentence, for the documentation.
            pub const fn when(self) -> &'static str {
                match self { $(Self::$name => concat!($($when),+)),+ }
            }
        }
    };
}

codes! {
    /// The access token is not valid, or the field needs a caller who has signed in.
    Unauthenticated = "UNAUTHENTICATED",
    /// The caller's role may not do this at all.
    Forbidden = "FORBIDDEN",
    /// The request, a variable or an argument cannot be used.
    BadUserInput = "BAD_USER_INPUT",
    /// The cursor was not handed out by this list, or before `auth.secret` changed.
    BadCursor = "BAD_CURSOR",
    /// The document is not valid GraphQL syntax.
    ParseFailed = "GRAPHQL_PARSE_FAILED",
    /// The document does not fit the schema.
    ValidationFailed = "GRAPHQL_VALIDATION_FAILED",
    /// The document does not say which operation to run.
    OperationResolutionFailure = "OPERATION_RESOLUTION_FAILURE",
    /// Introspection is for gateways only on this server.
    IntrospectionDisabled = "INTROSPECTION_DISABLED",
    /// The document, or the JSON of the request, is nested too deep.
    DepthLimit = "DEPTH_LIMIT",
    /// Too much is asked for at once: tokens, aliases, objects that may be loaded, bytes of the answer.
    CostLimit = "COST_LIMIT",
    /// The body or the document is too long.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE",
    /// The caller has sent too many requests; `Retry-After` says when to try again.
    RateLimited = "RATE_LIMITED",
    /// The server has too many requests at once, or too much in them or in their answers; `Retry-After` says when to
    /// try again.
    Overloaded = "OVERLOADED",
    /// A request with this `Idempotency-Key` is under way; `Retry-After` says when to try again.
    Conflict = "CONFLICT",
    /// Something else was asked for with this `Idempotency-Key` before. Nothing was executed.
    IdempotencyMismatch = "IDEMPOTENCY_MISMATCH",
    /// What happened after `extensions.resumeAfter` is not kept any more (`retention.events`): read what you
    /// need again, then subscribe without it.
    ResumeExpired = "RESUME_EXPIRED",
    /// What is needed to answer cannot be reached now. Nothing was changed.
    Unavailable = "UNAVAILABLE",
    /// The request took too long, or its body did not arrive in time. Nothing was changed.
    Timeout = "TIMEOUT",
    /// A write was sent to the database, and whether it is stored was not said in time.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    /// The server failed; its log has the cause under the request's id.
    InternalServerError = "INTERNAL_SERVER_ERROR",
}

impl Code {
    /// Whether the same may be sent again, and will then most likely do what it is to do; `None` where the
    /// code alone does not say.
    pub const fn is_retryable(self) -> Option<bool> {
        match self {
            Self::RateLimited | Self::Overloaded | Self::Conflict | Self::Unavailable | Self::Timeout => {
                Some(true)
            }
            Self::IdempotencyMismatch | Self::OutcomeUnknown => Some(false),
            _ => None,
        }
    }
}

/// What a field that fails does to the rest of an answer: the request property `onError` (graphql-spec, pull
/// request 1163, as of August 2026).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// A field that cannot be null takes its parent with it, up to the nearest that can (§6.4.4). The default.
    #[default]
    Propagate,
    /// It is null in its own place, whatever its type says; everything beside it stays.
    Null,
    /// Nothing further is executed, and `data` is null beside the first error.
    Halt,
}

impl OnError {
    /// As requests and manifests write it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "PROPAGATE" => Some(Self::Propagate),
            "NULL" => Some(Self::Null),
            "HALT" => Some(Self::Halt),
            _ => None,
        }
    }

    /// As requests and manifests write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Propagate => "PROPAGATE",
            Self::Null => "NULL",
            Self::Halt => "HALT",
        }
    }
}

/// The message of what was not loaded because something else had failed before.
const HALTED: &str = "Halted";

/// Why a field has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Its code.
    pub code: Code,
    /// A sentence for the developer of the client.
    pub message: Cow<'static, str>,
    /// After how many seconds the same may be tried again, where that helps.
    pub retry_after_seconds: Option<u32>,
    /// Whether the same may be sent again (`extensions.retryable`), where that can be said.
    pub retryable: Option<bool>,
    /// How many times the server may run the same again by itself: nothing of it was done.
    pub repeats: u32,
    /// The id of what was stored and could not be read back (`extensions.stored`).
    pub stored: Option<Arc<str>>,
    /// What really happened, for the log; only of internal failures.
    pub cause: Option<Arc<str>>,
}

impl FieldError {
    /// A failure of this code.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(code, message.into())
    }

    const fn of(code: Code, message: Cow<'static, str>) -> Self {
        Self {
            code,
            message,
            retry_after_seconds: None,
            retryable: code.is_retryable(),
            repeats: 0,
            stored: None,
            cause: None,
        }
    }

    /// A failure that goes away by itself.
    pub fn not_now(code: Code, message: &'static str, retry_after: Duration) -> Self {
        let seconds = u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        Self { retry_after_seconds: Some(seconds), ..Self::new(code, message) }
    }

    /// This failure in a mutation that did something, as the sentence `done` tells. What goes away by itself, or says
    /// nothing of the caller, is then no longer a reason to send the whole request again.
    #[must_use]
    pub fn after(self, done: Option<&str>) -> Self {
        let says_so = self.retryable.is_some() || self.code == Code::InternalServerError;
        let Some(done) = done.filter(|_| says_so) else { return self };
        let message = format!("{}. {done}", self.message.trim_end_matches('.'));
        Self { message: message.into(), retry_after_seconds: None, retryable: Some(false), ..self }
    }

    /// This failure to read back what is stored under an id.
    #[must_use]
    pub fn of_stored(self, id: Arc<str>) -> Self {
        Self { stored: Some(id), retry_after_seconds: None, retryable: Some(false), repeats: 0, ..self }
    }

    /// An argument that cannot be used.
    pub fn bad_input(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadUserInput, message)
    }

    /// Only for callers who are signed in.
    pub const fn unauthenticated() -> Self {
        Self::of(Code::Unauthenticated, Cow::Borrowed("Sign in first"))
    }

    /// A failure of the server, without its cause.
    pub const fn internal() -> Self {
        Self::of(Code::InternalServerError, Cow::Borrowed("Internal server error"))
    }

    /// It was not loaded: something else had failed, and the request wants nothing further then.
    pub(crate) fn halted() -> Self {
        Self { message: Cow::Borrowed(HALTED), ..Self::internal() }
    }

    /// Whether it stands for a failure of something else.
    pub(crate) fn is_halted(&self) -> bool {
        self.message == HALTED
    }

    /// A failure of the server, with its cause for the log.
    pub fn internal_by(cause: impl Display) -> Self {
        Self { cause: Some(Arc::from(cause.to_string())), ..Self::internal() }
    }
}

/// A place in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl From<async_graphql::Pos> for SourceLocation {
    fn from(pos: async_graphql::Pos) -> Self {
        Self { line: pos.line, column: pos.column }
    }
}

/// An error before execution began: the answer has no `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// Its code.
    pub code: Code,
    /// A sentence for the developer of the client.
    pub message: String,
    /// Where in the document; empty where that cannot be told.
    pub locations: Vec<SourceLocation>,
}

/// Characters of one message at most.
const MOST_CHARACTERS: usize = 400;
/// Characters that are repeated of what a caller wrote: what stands in quotes, and words.
const MOST_ECHOED: usize = 64;

impl RequestError {
    /// A failure of this code, at no place.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), locations: Vec::new() }
    }

    /// Adds a place in the document.
    #[must_use]
    pub fn at(mut self, location: impl Into<SourceLocation>) -> Self {
        self.locations.push(location.into());
        self
    }

    /// An error of the library's parser or validator.
    pub fn of_engine(code: Code, error: async_graphql::ServerError) -> Self {
        let locations = error.locations.into_iter().map(SourceLocation::from).collect();
        Self { code, message: without_values(error.message), locations }
    }
}

/// A message of the library without the values that it repeats: they are what a caller wrote into a literal or a
/// variable, and may be a password. Names of types, fields and arguments stay.
pub fn without_values(mut message: String) -> String {
    for (mark, end) in [("does not contain the value ", "does not contain this value."), (", found ", ".")] {
        if let Some(at) = message.find(mark) {
            message.truncate(at);
            message.push_str(end);
        }
    }
    message
}

/// The message as clients get it: it repeats little of what they have sent.
pub fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MOST_ECHOED {
        return Cow::Borrowed(message);
    }
    let quoted = message.split('"').enumerate().map(|(index, part)| {
        if index % 2 == 1 {
            return cut(part, MOST_ECHOED);
        }
        let words = part.split(' ').map(|word| cut(word, MOST_ECHOED));
        Cow::Owned(words.collect::<Vec<_>>().join(" "))
    });
    let whole = quoted.collect::<Vec<_>>().join("\"");
    Cow::Owned(cut(&whole, MOST_CHARACTERS).into_owned())
}

fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completed_mutations_are_never_reported_as_retryable() {
        let busy = FieldError::not_now(Code::Overloaded, "Too many at once", Duration::from_secs(1));
        assert_eq!(busy.clone().after(None), busy);
        let after = busy.after(Some("What `a` did is done."));
        assert_eq!(
            (&*after.message, after.retry_after_seconds, after.retryable),
            ("Too many at once. What `a` did is done.", None, Some(false))
        );
        let internal = FieldError::internal().after(Some("What `a` did is done."));
        assert_eq!(internal.message, "Internal server error. What `a` did is done.");
        let forbidden = FieldError::new(Code::Forbidden, "No");
        assert_eq!(forbidden.clone().after(Some("What `a` did is done.")), forbidden);
    }

    #[test]
    fn a_message_of_the_library_repeats_no_value() {
        for (message, wanted) in [
            (
                r#"Invalid value for argument "a.role", enumeration type "Role" does not contain the value "hunter2""#,
                r#"Invalid value for argument "a.role", enumeration type "Role" does not contain this value."#,
            ),
            (r#"Expected input type "Int", found "hunter2"."#, r#"Expected input type "Int"."#),
            (r#"Unknown field "b" on type "Query"."#, r#"Unknown field "b" on type "Query"."#),
        ] {
            assert_eq!(without_values(message.to_owned()), wanted);
        }
    }

    #[test]
    fn a_message_repeats_little_of_the_document() {
        let long = "x".repeat(10_000);
        let kept = "x".repeat(64);
        assert_eq!(shortened("Unknown type \"A\"."), "Unknown type \"A\".");
        assert_eq!(
            shortened(&format!("Cannot query field \"{long}\" on type \"Query\".")),
            format!("Cannot query field \"{kept}…\" on type \"Query\".")
        );
        assert_eq!(shortened(&format!("no {long} here")), format!("no {kept}… here"));
        let spaced = shortened(&format!("Expected \"{}\", found it.", "a b ".repeat(1_000))).into_owned();
        assert!(spaced.ends_with("…\", found it.") && spaced.chars().count() < 100, "{spaced}");
        assert_eq!(shortened(&"ö\" ".repeat(1_000)).chars().count(), MOST_CHARACTERS + 1);
    }
}
