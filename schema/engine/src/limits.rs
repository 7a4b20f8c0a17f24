//! Limits on documents, checked by a scanner of tokens: what a document amounts to, found out before async-graphql's parser sees it, and refused if it is
//! too much. It exists because that parser (8.0.0-rc.5) and the walks after it can be brought down by small
//! documents that no setting of theirs refuses:
//!
//! - nested values (`[[[[…`, `{a:{a:…`; 4 KiB) overflow the stack where the syntax tree is built and dropped: the
//!   process aborts. The parser's own stack guard and its limit of 64 cover the grammar and selection sets only.
//! - fragments that spread the next one twice (900 bytes) cost seconds, doubling per level.
//! - a block string without an end is looked for again at each of its quotes: 64 KiB cost 8 s.
//!
//! One pass over the bytes, no recursion, memory only for definitions, spreads and open brackets. The scanner is not a full
//! parser: it passes a lot that is not GraphQL. Two invariants: whatever passes is cheap and safe to parse, validate
//! and walk; whatever is valid and within the limits passes. So it reads structure as the parser does even where
//! that is laxer than the specification (`queryName{a}`, a fragment called `on`), since what the parser reads is
//! what runs. The one exception is the block string without an end, which no specification allows.
//!
//! What does not live here: cost in rows (it needs the schema and the variables), the size of a request's body.

mod expand;
mod lexer;
mod normal;
mod syntax;
#[cfg(test)]
mod tests;

use crate::document::OperationKind;
use expand::{Definition, Measures, Reach, Scope, Spread};
use lexer::{Class, Lexer};
pub use normal::normal;
pub use syntax::unexpected;

/// Brackets deeper than this are refused whatever the limits say: an unoptimised build needs 0.8 MiB of stack to
/// build a syntax tree of 128 levels, and threads have 2.
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

    /// For gateways: they write long documents, with the same shape.
    pub const fn gateway() -> Self {
        Self { bytes: 1 << 20, tokens: 15_000, ..Self::public() }
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

/// Reads a document and refuses it, or says what it amounts to.
pub fn check<'d>(document: &'d str, limits: &Limits) -> Result<DocumentStats<'d>, LimitError> {
    if document.len() > limits.bytes {
        return Err(excess(LimitErrorKind::Bytes, 0, "bytes", limits.bytes).locate(document));
    }
    let mut scanner = Scanner::new(document, limits);
    scanner.read().and_then(|()| scanner.conclude()).map_err(|violation| violation.locate(document))
}

/// A refusal that knows its place as an offset. Boxed, so that results of the hot path fit a register.
struct Violation(Box<(LimitErrorKind, usize, String, Option<&'static str>)>);

impl Violation {
    #[cold]
    fn new(code: LimitErrorKind, at: usize, message: String) -> Self {
        Self(Box::new((code, at, message, None)))
    }

    #[cold]
    fn locate(self, document: &str) -> LimitError {
        let (kind, at, message, limit) = *self.0;
        let (mut line, mut column, mut previous) = (1, 1, ' ');
        for (_, character) in document.char_indices().take_while(|(offset, _)| *offset < at) {
            match (previous, character) {
                ('\r', '\n') => {}
                (_, '\r' | '\n') => (line, column) = (line + 1, 1),
                _ => column += 1,
            }
            previous = character;
        }
        LimitError { kind, message, limit, line, column }
    }
}

fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHOED_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// An open bracket.
#[derive(Clone, Copy, Debug)]
enum Frame {
    Parenthesis,
    Bracket,
    /// `{` of an input object.
    Object,
    /// `{` of a selection set, and the place around it.
    Selections(Scope),
}

struct Scanner<'d, 'l> {
    lexer: Lexer<'d>,
    limits: &'l Limits,
    nesting: usize,
    tokens: usize,
    aliases: usize,
    directives: usize,
    operations: usize,
    fragments: usize,
    frames: Vec<Frame>,
    definitions: Vec<Definition<'d>>,
    spreads: Vec<Spread<'d>>,
    /// Between the keyword of a definition and its selection set.
    in_header: bool,
    /// Around the selection being read.
    here: Scope,
    /// Around the selections of the set that may open next: inside the last field or inline fragment.
    inside: Scope,
    /// Of the definition being read.
    measures: Measures,
}

impl<'d, 'l> Scanner<'d, 'l> {
    fn new(document: &'d str, limits: &'l Limits) -> Self {
        Self {
            lexer: Lexer::new(document),
            limits,
            nesting: limits.nesting.min(NESTING_CEILING),
            tokens: 0,
            aliases: 0,
            directives: 0,
            operations: 0,
            fragments: 0,
            frames: Vec::with_capacity(16),
            definitions: Vec::new(),
            spreads: Vec::new(),
            in_header: false,
            here: Scope::default(),
            inside: Scope::default(),
            measures: Measures::default(),
        }
    }

    fn read(&mut self) -> Result<(), Violation> {
        loop {
            self.lexer.skip_ignored();
            let Some(byte) = self.lexer.peek() else { break };
            self.count_token()?;
            match self.lexer.class() {
                Class::Name => self.read_name()?,
                Class::Punctuator => self.lexer.at += 1,
                Class::Open => self.open(byte)?,
                Class::Close => self.close(byte)?,
                Class::Digit | Class::Minus => self.lexer.take_number()?,
                Class::Quote => self.lexer.take_string()?,
                Class::Dot => self.read_spread()?,
                Class::At => self.read_directive()?,
                Class::Blank | Class::Comment | Class::Mark | Class::Other => {
                    return Err(self.lexer.unexpected());
                }
            }
        }
        if !self.frames.is_empty() {
            return Err(self.lexer.unexpected());
        }
        if self.lexer.ignored_bytes > self.limits.ignored_bytes {
            return Err(excess(
                LimitErrorKind::Cost,
                0,
                "bytes of comments, strings and white space",
                self.limits.ignored_bytes,
            ));
        }
        Ok(())
    }

    #[inline]
    fn read_name(&mut self) -> Result<(), Violation> {
        let at = self.lexer.at;
        let name = self.lexer.take_name();
        match self.frames.last() {
            Some(Frame::Selections(_)) => self.read_field(name, at),
            None if !self.in_header => self.begin_named(name, at),
            _ => Ok(()),
        }
    }

    /// A definition from its keyword. The parser's keywords need no boundary: `queryName` is `query Name`.
    fn begin_named(&mut self, word: &'d str, at: usize) -> Result<(), Violation> {
        let (kind, rest) = if let Some(rest) = word.strip_prefix("query") {
            (Some(OperationKind::Query), rest)
        } else if let Some(rest) = word.strip_prefix("mutation") {
            (Some(OperationKind::Mutation), rest)
        } else if let Some(rest) = word.strip_prefix("subscription") {
            (Some(OperationKind::Subscription), rest)
        } else if let Some(rest) = word.strip_prefix("fragment") {
            (None, rest)
        } else {
            let message = format!("Syntax Error: Unexpected Name \"{}\".", echo(word));
            return Err(Violation::new(LimitErrorKind::Parse, at, message));
        };
        let name = if rest.is_empty() { self.take_next_name()?.unwrap_or_default() } else { rest };
        self.begin(kind, name, at)
    }

    fn begin(&mut self, kind: Option<OperationKind>, name: &'d str, at: usize) -> Result<(), Violation> {
        let (count, limit, what) = match kind {
            Some(_) => (&mut self.operations, self.limits.operations, "operations"),
            None => (&mut self.fragments, self.limits.fragments, "fragments"),
        };
        *count += 1;
        if *count > limit {
            return Err(excess(LimitErrorKind::Cost, at, what, limit));
        }
        let spread = self.spreads.len();
        let measures = Measures::default();
        self.definitions.push(Definition {
            kind,
            name,
            at,
            measures,
            first_spread: spread,
            end_spread: spread,
        });
        self.in_header = true;
        self.here = Scope::default();
        self.inside = Scope::default();
        self.measures = measures;
        Ok(())
    }

    /// `name` or `alias: name`; what follows comes by itself.
    #[inline]
    fn read_field(&mut self, first: &'d str, at: usize) -> Result<(), Violation> {
        let mut name = first;
        self.lexer.skip_ignored();
        if self.lexer.peek() == Some(b':') {
            self.count_token()?;
            self.aliases += 1;
            if self.aliases > self.limits.aliases {
                return Err(excess(LimitErrorKind::Cost, at, "aliases", self.limits.aliases));
            }
            self.lexer.at += 1;
            name = self.take_next_name()?.unwrap_or_default();
        }
        let at_root = self.here.fields.depth == 0;
        let lists = matches!(name, "fields" | "interfaces" | "possibleTypes" | "inputFields");
        let reach =
            Reach { depth: self.here.fields.depth + 1, lists: self.here.fields.lists + u32::from(lists) };
        let introspection = self.here.introspection || (at_root && matches!(name, "__schema" | "__type"));
        self.inside = Scope { fields: reach, levels: self.here.levels, introspection };
        self.measures.selections += 1;
        self.measures.root_fields += usize::from(at_root);
        if introspection { &mut self.measures.introspection } else { &mut self.measures.plain }.raise(reach);
        Ok(())
    }

    /// `...Name`, `... on Type` or `...`; the parser takes `on` for a fragment's name unless a type follows.
    fn read_spread(&mut self) -> Result<(), Violation> {
        let at = self.lexer.at;
        self.lexer.take_spread()?;
        if !matches!(self.frames.last(), Some(Frame::Selections(_))) {
            return Ok(());
        }
        self.measures.selections += 1;
        self.inside = self.here;
        match self.take_next_name()? {
            None => Ok(()),
            Some("on") if self.lexer.take_type_condition() => self.count_token(),
            Some(fragment) => {
                self.spreads.push(Spread { fragment, scope: self.here, at });
                Ok(())
            }
        }
    }

    fn read_directive(&mut self) -> Result<(), Violation> {
        self.directives += 1;
        if self.directives > self.limits.directives {
            return Err(excess(LimitErrorKind::Cost, self.lexer.at, "directives", self.limits.directives));
        }
        self.lexer.at += 1;
        self.take_next_name().map(drop)
    }

    fn take_next_name(&mut self) -> Result<Option<&'d str>, Violation> {
        self.lexer.skip_ignored();
        if self.lexer.class() != Class::Name {
            return Ok(None);
        }
        self.count_token()?;
        Ok(Some(self.lexer.take_name()))
    }

    #[inline]
    fn count_token(&mut self) -> Result<(), Violation> {
        self.tokens += 1;
        if self.tokens > self.limits.tokens {
            return Err(excess(LimitErrorKind::Cost, self.lexer.at, "tokens", self.limits.tokens));
        }
        Ok(())
    }

    fn open(&mut self, bracket: u8) -> Result<(), Violation> {
        let at = self.lexer.at;
        if self.frames.len() >= self.nesting {
            return Err(excess(LimitErrorKind::Depth, at, "nested brackets", self.nesting));
        }
        let frame = match (bracket, self.frames.last()) {
            (b'(', _) => Frame::Parenthesis,
            (b'[', _) => Frame::Bracket,
            (_, Some(Frame::Parenthesis | Frame::Bracket | Frame::Object)) => Frame::Object,
            (_, Some(Frame::Selections(_))) => self.open_selections(),
            (_, None) => {
                if !self.in_header {
                    self.begin(Some(OperationKind::Query), "", at)?;
                }
                self.in_header = false;
                self.open_selections()
            }
        };
        self.frames.push(frame);
        self.lexer.at += 1;
        Ok(())
    }

    #[inline]
    fn open_selections(&mut self) -> Frame {
        self.inside.levels += 1;
        self.measures.levels = self.measures.levels.max(self.inside.levels);
        Frame::Selections(std::mem::replace(&mut self.here, self.inside))
    }

    fn close(&mut self, bracket: u8) -> Result<(), Violation> {
        match (bracket, self.frames.pop()) {
            (b')', Some(Frame::Parenthesis)) | (b']', Some(Frame::Bracket)) | (b'}', Some(Frame::Object)) => {
            }
            (b'}', Some(Frame::Selections(around))) => {
                self.here = around;
                self.inside = around;
                if let (true, Some(definition)) = (self.frames.is_empty(), self.definitions.last_mut()) {
                    definition.measures = self.measures;
                    definition.end_spread = self.spreads.len();
                }
            }
            _ => return Err(self.lexer.unexpected()),
        }
        self.lexer.at += 1;
        Ok(())
    }

    /// Puts the fragments in their places and checks what that makes of each definition.
    fn conclude(mut self) -> Result<DocumentStats<'d>, Violation> {
        expand::expand(&mut self.definitions, &self.spreads)?;
        let mut shape = DocumentStats {
            tokens: self.tokens,
            aliases: self.aliases,
            directives: self.directives,
            fragments: self.fragments,
            operations: Vec::with_capacity(self.operations),
            ..DocumentStats::default()
        };
        for definition in &self.definitions {
            self.check_expanded(definition)?;
            let (Some(kind), measures) = (definition.kind, &definition.measures) else { continue };
            shape.selections = shape.selections.saturating_add(measures.selections);
            if shape.selections > self.limits.selections {
                return Err(excess(
                    LimitErrorKind::Cost,
                    definition.at,
                    "selections",
                    self.limits.selections,
                ));
            }
            let depth = measures.plain.depth as usize;
            let introspection_depth = measures.introspection.depth as usize;
            shape.depth = shape.depth.max(depth);
            shape.introspection_depth = shape.introspection_depth.max(introspection_depth);
            shape.operations.push(OperationStats {
                kind,
                name: (!definition.name.is_empty()).then_some(definition.name),
                root_fields: measures.root_fields,
                selections: measures.selections,
                depth,
                introspection_depth,
            });
        }
        Ok(shape)
    }

    /// Size and levels bind fragments that nobody spreads, too: the framework walks them all the same.
    fn check_expanded(&self, definition: &Definition<'_>) -> Result<(), Violation> {
        let (limits, measures, at) = (self.limits, &definition.measures, definition.at);
        if measures.selections > limits.selections {
            return Err(excess(LimitErrorKind::Cost, at, "selections", limits.selections));
        }
        if measures.levels as usize > limits.nesting {
            return Err(excess(LimitErrorKind::Depth, at, "nested selection sets", limits.nesting));
        }
        if definition.kind.is_none() {
            return Ok(());
        }
        if measures.root_fields > limits.root_fields {
            return Err(excess(LimitErrorKind::Cost, at, "root fields", limits.root_fields));
        }
        if measures.plain.depth as usize > limits.depth {
            return Err(excess(LimitErrorKind::Depth, at, "nested fields", limits.depth));
        }
        if measures.introspection.depth as usize > limits.introspection_depth {
            return Err(excess(
                LimitErrorKind::Depth,
                at,
                "nested introspection fields",
                limits.introspection_depth,
            ));
        }
        if measures.introspection.lists as usize > limits.introspection_lists {
            return Err(excess(
                LimitErrorKind::Depth,
                at,
                "nested introspection lists",
                limits.introspection_lists,
            ));
        }
        Ok(())
    }
}

#[cold]
fn excess(code: LimitErrorKind, at: usize, what: &'static str, limit: usize) -> Violation {
    let message = format!("The document has too many {what}; {limit} are allowed.");
    Violation(Box::new((code, at, message, Some(what))))
}
