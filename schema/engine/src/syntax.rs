//! The text of a document, read in one pass that makes tokens, counts them against the limits and builds a
//! syntax tree (GraphQL, September 2025, section 2 and appendix B). The tree points into the text and stands
//! in a few flat lists, so that nothing hostile is costly to build, to walk or to drop; it keeps what
//! validation must see and the library's tree cannot hold, such as an input field that stands twice. `lower`
//! makes the library's tree of it. Type definitions are no part of what can be executed, and are refused. Not
//! here: what the limits are (`limits`), the schema (`validation`).

use std::ops::Range;

use crate::limits::{DocumentStats, LimitError, LimitErrorKind, Limits, OperationKind, excess};

mod lexer;
mod lower;
mod normal;
mod parser;
#[cfg(test)]
mod tests;
pub(crate) mod text;

pub(crate) use lexer::{Lexer, TokenKind};
pub use normal::normal;

/// Places in one of the tree's lists.
pub(crate) type IndexRange = Range<u32>;

/// A document.
#[derive(Debug)]
pub struct SyntaxTree<'d> {
    /// What it amounts to.
    pub shape: DocumentStats<'d>,
    pub(crate) text: &'d str,
    pub(crate) definitions: Vec<DefinitionNode<'d>>,
    /// Each selection is followed by those of its own selection set.
    pub(crate) selections: Vec<SelectionNode<'d>>,
    pub(crate) arguments: Vec<ArgumentNode<'d>>,
    pub(crate) directives: Vec<DirectiveNode<'d>>,
    pub(crate) variables: Vec<Variable<'d>>,
    /// Each list and object is followed by what it holds.
    pub(crate) values: Vec<Value<'d>>,
}

/// A name and the offset where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'d> {
    pub(crate) text: &'d str,
    pub(crate) at: u32,
}

/// `on Type`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition<'d> {
    pub(crate) ty: Named<'d>,
    /// Where `on` stands.
    pub(crate) at: u32,
}

/// An operation or a fragment.
#[derive(Debug)]
pub(crate) struct DefinitionNode<'d> {
    /// None: a fragment.
    pub(crate) kind: Option<OperationKind>,
    pub(crate) name: Option<Named<'d>>,
    /// Of a fragment.
    pub(crate) condition: Option<Condition<'d>>,
    /// Where it begins, after its description.
    pub(crate) at: u32,
    pub(crate) variables: IndexRange,
    pub(crate) directives: IndexRange,
    pub(crate) selections: IndexRange,
    /// Where its selection set opens.
    pub(crate) set_at: u32,
}

/// What a selection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelectionKind {
    Field,
    Spread,
    Inline,
}

/// A field, a fragment's spread or an inline fragment.
#[derive(Debug)]
pub(crate) struct SelectionNode<'d> {
    pub(crate) kind: SelectionKind,
    /// Of a field.
    pub(crate) alias: Option<Named<'d>>,
    /// Of the field or of the fragment; empty for an inline fragment.
    pub(crate) name: Named<'d>,
    /// Of an inline fragment.
    pub(crate) condition: Option<Condition<'d>>,
    /// Where it begins.
    pub(crate) at: u32,
    pub(crate) arguments: IndexRange,
    pub(crate) directives: IndexRange,
    /// Where its selection set opens, if it has one.
    pub(crate) set_at: Option<u32>,
    /// The place after its own selections in the list.
    pub(crate) end: u32,
}

impl<'d> SelectionNode<'d> {
    /// The key of a field in the answer.
    pub(crate) fn response_key(&self) -> &'d str {
        self.alias.map_or(self.name.text, |alias| alias.text)
    }
}

/// An argument; its value begins at a place in the list of values.
#[derive(Debug)]
pub(crate) struct ArgumentNode<'d> {
    pub(crate) name: Named<'d>,
    pub(crate) value: u32,
}

/// A directive.
#[derive(Debug)]
pub(crate) struct DirectiveNode<'d> {
    pub(crate) name: Named<'d>,
    /// Where its `@` stands.
    pub(crate) at: u32,
    pub(crate) arguments: IndexRange,
}

/// The definition of a variable.
#[derive(Debug)]
pub(crate) struct Variable<'d> {
    pub(crate) name: &'d str,
    /// Where its name stands.
    pub(crate) name_at: u32,
    /// Where its `$` stands.
    pub(crate) at: u32,
    pub(crate) ty: Wrapped<Named<'d>>,
    /// Where its type begins.
    pub(crate) ty_at: u32,
    pub(crate) default: Option<u32>,
    pub(crate) directives: IndexRange,
}

/// A type in its lists: `[[Int!]]!` has two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrapped<N> {
    pub(crate) name: N,
    pub(crate) lists: u8,
    /// Which levels are non-null, from the outermost, which is the lowest bit, to the named type.
    pub(crate) non_null: u128,
}

impl<N: Copy> Wrapped<N> {
    pub(crate) fn is_non_null(self) -> bool {
        self.non_null & 1 == 1
    }

    pub(crate) fn nullable(self) -> Self {
        Self { non_null: self.non_null & !1, ..self }
    }

    /// The type of a list's items; none: it is no list.
    pub(crate) fn item(self) -> Option<Self> {
        let lists = self.lists.checked_sub(1)?;
        Some(Self { lists, non_null: self.non_null >> 1, ..self })
    }

    /// The type as text, with its name.
    pub(crate) fn print(self, name: &str) -> String {
        let mark = |level: u8| if self.non_null >> level & 1 == 1 { "!" } else { "" };
        let mut text = "[".repeat(usize::from(self.lists)) + name + mark(self.lists);
        for level in (0..self.lists).rev() {
            text.push(']');
            text.push_str(mark(level));
        }
        text
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Variable,
    Int,
    Float,
    String,
    BlockString,
    Boolean,
    Null,
    Enum,
    List,
    Object,
}

/// A value.
#[derive(Debug)]
pub(crate) struct Value<'d> {
    pub(crate) kind: ValueKind,
    /// As it is written: a name without `$`, a string without its quotes.
    pub(crate) text: &'d str,
    /// Where it begins.
    pub(crate) at: u32,
    /// The input field that it is the value of.
    pub(crate) field: Option<Named<'d>>,
    /// The place after what it holds in the list.
    pub(crate) end: u32,
}

impl<'d> SyntaxTree<'d> {
    /// The selections directly in a place of the list.
    pub(crate) fn selections(&self, span: IndexRange) -> impl Iterator<Item = (u32, &SelectionNode<'d>)> {
        let mut next = span.start;
        std::iter::from_fn(move || {
            let at = next;
            let selection = (at < span.end).then(|| &self.selections[at as usize])?;
            next = selection.end;
            Some((at, selection))
        })
    }

    /// The places in the list of what stands in a selection's own set.
    pub(crate) fn inside(&self, at: u32) -> IndexRange {
        at + 1..self.selections[at as usize].end
    }

    /// What a list or an object holds.
    pub(crate) fn held(&self, at: u32) -> impl Iterator<Item = (u32, &Value<'d>)> {
        let (mut next, end) = (at + 1, self.values[at as usize].end);
        std::iter::from_fn(move || {
            let at = next;
            let value = (at < end).then(|| &self.values[at as usize])?;
            next = value.end;
            Some((at, value))
        })
    }

    pub(crate) fn value(&self, at: u32) -> &Value<'d> {
        &self.values[at as usize]
    }

    pub(crate) fn arguments(&self, span: &IndexRange) -> &[ArgumentNode<'d>] {
        &self.arguments[span.start as usize..span.end as usize]
    }

    pub(crate) fn directives(&self, span: &IndexRange) -> &[DirectiveNode<'d>] {
        &self.directives[span.start as usize..span.end as usize]
    }

    pub(crate) fn variables(&self, span: &IndexRange) -> &[Variable<'d>] {
        &self.variables[span.start as usize..span.end as usize]
    }
}

/// Reads a document, or refuses it where it is not GraphQL or more than the limits allow.
pub fn parse<'d>(text: &'d str, limits: &Limits) -> Result<SyntaxTree<'d>, LimitError> {
    // Offsets are `u32`.
    let most = limits.bytes.min(u32::MAX as usize);
    if text.len() > most {
        return Err(excess(LimitErrorKind::Bytes, 0, "bytes", most).locate(text));
    }
    parser::Parser::new(text, limits).document().map_err(|stop| stop.locate(text))
}
