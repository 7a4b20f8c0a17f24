//! Whether a document fits the schema (GraphQL, September 2025, section 5): all rules, in one walk over the
//! syntax tree and one look at each operation with its fragments. No rule is more than linear in the document
//! but for fields that share a response key (`overlap`), which has a bound. Messages are in the words of
//! graphql-js and repeat no value: what a caller wrote into a literal may be a password. Not here: the syntax
//! (`syntax`), how much a document may hold (`limits`), values of variables (`variables`).

use rustc_hash::FxHashMap;

use crate::{
    error::{Code, RequestError, SourceLocation},
    limits::{LineCursor, echo},
    syntax::SyntaxTree,
};

mod directives;
mod fragments;
mod operations;
mod overlap;
mod selections;
mod suggestions;
#[cfg(test)]
mod tests;
mod types;
mod values;

pub use types::SchemaTypes;
use types::{SchemaField, Type, TypeId};

/// Errors in one answer.
const MOST_ERRORS: usize = 10;

/// The errors of a document; none: it is valid. `suggests`: whether they say what may have been meant, which
/// tells names of the schema.
pub fn validate(tree: &SyntaxTree<'_>, types: &SchemaTypes, suggests: bool) -> Vec<RequestError> {
    let mut validator = Validator::new(tree, types, suggests);
    validator.definitions();
    validator.operations();
    validator.unused_fragments();
    validator.overlaps();
    let mut cursor = LineCursor::new(tree.text);
    let errors = validator.problems.into_iter().map(|problem| {
        let locations = problem.places.iter().map(|&at| {
            let (line, column) = cursor.place(at as usize);
            SourceLocation { line, column }
        });
        let locations = locations.collect();
        RequestError { locations, ..RequestError::new(problem.code, problem.message) }
    });
    errors.collect()
}

/// What is wrong, and the offsets where.
struct Problem {
    code: Code,
    message: String,
    places: Vec<u32>,
}

/// A variable where it is used.
struct Usage<'d> {
    name: &'d str,
    at: u32,
    /// The type that its place has; none: unknown, or any.
    ty: Option<Type>,
    /// Whether its place has a default.
    has_default: bool,
    /// The input type of which exactly one field is given, if its place is such a field.
    one_of: Option<TypeId>,
}

/// What the walk over one definition has found.
#[derive(Default)]
struct Found {
    /// Its usages of variables: from here to there in the list of all.
    usages: std::ops::Range<usize>,
    /// The definitions of the fragments that it spreads.
    spreads: Vec<usize>,
}

struct Validator<'t, 'd> {
    tree: &'t SyntaxTree<'d>,
    types: &'t SchemaTypes,
    suggests: bool,
    problems: Vec<Problem>,
    /// The fragments' places among the definitions.
    fragments: FxHashMap<&'d str, usize>,
    /// Of each selection: the type around it.
    parents: Vec<Option<TypeId>>,
    /// Of each selection: the field, if it is one that exists.
    fields: Vec<Option<&'t SchemaField>>,
    usages: Vec<Usage<'d>>,
    /// For each definition.
    found: Vec<Found>,
}

impl<'t, 'd> Validator<'t, 'd> {
    fn new(tree: &'t SyntaxTree<'d>, types: &'t SchemaTypes, suggests: bool) -> Self {
        let definitions = tree.definitions.iter().enumerate();
        let fragments = definitions.filter(|(_, definition)| definition.kind.is_none());
        let fragments =
            fragments.filter_map(|(index, fragment)| Some((fragment.name?.text, index))).collect();
        Self {
            tree,
            types,
            suggests,
            problems: Vec::new(),
            fragments,
            parents: vec![None; tree.selections.len()],
            fields: vec![None; tree.selections.len()],
            usages: Vec::new(),
            found: Vec::with_capacity(tree.definitions.len()),
        }
    }

    /// Notes an error; of very many the first are told.
    fn report(&mut self, places: &[u32], message: impl FnOnce(&Self) -> String) {
        if self.problems.len() < MOST_ERRORS {
            let message = message(self);
            self.problems.push(Problem { code: Code::ValidationFailed, message, places: places.to_vec() });
        }
    }

    fn name(&self, ty: TypeId) -> &'t str {
        self.types.name(ty)
    }

    /// A type as text.
    fn print(&self, ty: Type) -> String {
        ty.print(self.name(ty.name))
    }

    /// ` Did you mean "a" or "b"?`
    fn suggest<'n>(&self, given: &str, known: impl Iterator<Item = &'n str>) -> String {
        if self.suggests { suggestions::did_you_mean(given, known) } else { String::new() }
    }
}

/// The names that stand more than once, each where it stands again, with the place where it stood first.
fn repeated<'d>(names: impl ExactSizeIterator<Item = (&'d str, u32)>) -> Vec<(&'d str, [u32; 2])> {
    let mut again = Vec::new();
    if names.len() < 2 {
        return again;
    }
    let mut first = FxHashMap::with_capacity_and_hasher(names.len(), rustc_hash::FxBuildHasher);
    for (name, at) in names {
        match first.entry(name) {
            std::collections::hash_map::Entry::Occupied(known) => again.push((name, [*known.get(), at])),
            std::collections::hash_map::Entry::Vacant(free) => drop(free.insert(at)),
        }
    }
    again
}

/// `There can be only one … named "…".`
fn only_one(what: &str, name: &str) -> String {
    format!("There can be only one {what} named \"{}\".", echo(name))
}
