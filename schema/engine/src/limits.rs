//! How much a document may hold, counted while it is parsed (`syntax`), so that what is too much is refused before
//! anything is built from it, validated or walked:
//!
//! - nested brackets cost stack where trees are built, walked and dropped: they have a ceiling.
//! - fragments that spread the next one twice (900 bytes) cost seconds, doubling per level: what a document amounts to
//!   with its fragments in place of their spreads is computed without putting them there (`expand`).
//!
//! Invariant: whatever passes is cheap and safe to build, validate and walk, on any thread.
//!
//! What does not live here: cost in rows (it needs the schema and the variables), the size of a request's body.

mod cursor;
mod expand;
mod meter;
#[cfg(test)]
mod tests;

pub(crate) use cursor::LineCursor;
pub(crate) use meter::Meter;

/// What kind of operation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Reads.
    Query,
    /// Writes.
    Mutation,
    /// Waits for events.
    Subscription,
}

/// Brackets deeper than this are refused whatever the limits say: parsing, validation and all later walks recurse once
/// per level, and threads have 2 MiB of stack.
const NESTING_CEILING: usize = 128;

/// Names in messages are cut to this length.
const ECHOED_CHARACTERS: usize = 64;

/// How much one document may hold. Each is the most that still passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole document.
    pub bytes: usize,
    /// Names, punctuators, numbers and strings; the parser needs 1.5 µs for each.
    pub tokens: usize,
    /// Bytes of white space, and four for each byte of a comment, string or number: the parser reads white space up
    /// to six times, at 45 ns a byte, and text at up to 270 ns.
    pub ignored_bytes: usize,
    /// Brackets of all kinds open at once; also the selection sets within each other when fragments are put in
    /// place of their spreads. Never more than 128 for the former.
    pub nesting: usize,
    /// Aliases in the whole document.
    pub aliases: usize,
    /// Directives in the whole document.
    pub directives: usize,
    /// Fields at the root of one operation, those of spread fragments included.
    pub root_fields: usize,
    /// Operations.
    pub operations: usize,
    /// Fragment definitions.
    pub fragments: usize,
    /// Fields, spreads and inline fragments of all operations, each fragment counted where it is spread.
    pub selections: usize,
    /// Fields within each other, through fragments.
    pub depth: usize,
    /// Fields within each other below `__schema` and `__type`: the introspection query of GraphiQL goes 15 deep.
    pub introspection_depth: usize,
    /// `fields`, `interfaces`, `possibleTypes` and `inputFields` within each other below `__schema` and `__type`:
    /// each multiplies the answer by the schema's size. No tool needs two.
    pub introspection_lists: usize,
    /// Objects that one operation may load, by its page sizes; needs the schema and the variables, so it is not
    /// checked here but in `cost`.
    pub cost: u64,
}

impl Limits {
    /// For callers from the street.
    pub const fn public() -> Self {
        Self {
            bytes: 64 << 10,
            tokens: 2_000,
            ignored_bytes: 256 << 10,
            nesting: 64,
            aliases: 30,
            directives: 25,
            root_fields: 20,
            operations: 10,
            fragments: 50,
            selections: 10_000,
            depth: 12,
            introspection_depth: 20,
            introspection_lists: 2,
            cost: 10_000,
        }
    }

    /// For gateways: they write long documents, join what they ask for by aliases at the root, and reach by
    /// `_entities`, one level further down, what their clients ask for.
    pub const fn gateway() -> Self {
        Self { bytes: 1 << 20, tokens: 15_000, aliases: 600, root_fields: 200, depth: 16, ..Self::public() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::public()
    }
}

/// What was counted in a document that passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentStats<'d> {
    /// See `Limits::tokens`.
    pub tokens: usize,
    /// See `Limits::aliases`.
    pub aliases: usize,
    /// See `Limits::directives`.
    pub directives: usize,
    /// See `Limits::fragments`.
    pub fragments: usize,
    /// See `Limits::selections`.
    pub selections: usize,
    /// See `Limits::depth`; of the deepest operation.
    pub depth: usize,
    /// See `Limits::introspection_depth`; of the deepest operation, 0 if no operation asks for the schema.
    pub introspection_depth: usize,
    /// The operations in the order of the document. None at all is the parser's to refuse.
    pub operations: Vec<OperationStats<'d>>,
}

impl DocumentStats<'_> {
    /// The operation that a request means: the one of that name, or the only one.
    pub fn operation(&self, name: Option<&str>) -> Option<&OperationStats<'_>> {
        match (name, self.operations.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(_), operations) => operations.iter().find(|operation| operation.name == name),
        }
    }
}

/// One operation of a document, its fragments included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationStats<'d> {
    /// Query, mutation or subscription.
    pub kind: OperationKind,
    /// Its name, if it has one.
    pub name: Option<&'d str>,
    /// See `Limits::root_fields`.
    pub root_fields: usize,
    /// See `Limits::selections`.
    pub selections: usize,
    /// See `Limits::depth`.
    pub depth: usize,
    /// See `Limits::introspection_depth`.
    pub introspection_depth: usize,
}

/// Which kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitErrorKind {
    /// Not GraphQL: a character, string, number or bracket that has no place.
    Parse,
    /// A fragment that contains itself.
    Validation,
    /// Nested too deep.
    Depth,
    /// Too many of something.
    Cost,
    /// Too many bytes.
    Bytes,
}

impl LimitErrorKind {
    /// The error code that clients get.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parse => "GRAPHQL_PARSE_FAILED",
            Self::Validation => "GRAPHQL_VALIDATION_FAILED",
            Self::Depth => "DEPTH_LIMIT",
            Self::Cost => "COST_LIMIT",
            Self::Bytes => "PAYLOAD_TOO_LARGE",
        }
    }
}

/// Why a document was refused. Safe to show: it repeats at most 64 characters of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({line}:{column})")]
pub struct LimitError {
    /// Which kind of refusal.
    pub kind: LimitErrorKind,
    /// What was wrong, for the client.
    pub message: String,
    /// Of what there was too much, where that is it.
    pub limit: Option<&'static str>,
    /// The line where it was noticed, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
}

/// A refusal that knows its place as an offset. Boxed, so that results of the hot path fit a register.
pub(crate) struct Violation(Box<(LimitErrorKind, usize, String, Option<&'static str>)>);

impl Violation {
    #[cold]
    pub(crate) fn new(code: LimitErrorKind, at: usize, message: String) -> Self {
        Self(Box::new((code, at, message, None)))
    }

    #[cold]
    pub(crate) fn locate(self, document: &str) -> LimitError {
        let (kind, at, message, limit) = *self.0;
        let (line, column) = LineCursor::new(document).place(at);
        LimitError { kind, message, limit, line, column }
    }
}

/// A name as messages repeat it.
pub(crate) fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHOED_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cold]
pub(crate) fn excess(code: LimitErrorKind, at: usize, what: &'static str, limit: usize) -> Violation {
    let message = format!("The document has too many {what}; {limit} are allowed.");
    Violation(Box::new((code, at, message, Some(what))))
}
