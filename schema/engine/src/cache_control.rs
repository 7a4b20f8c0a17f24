//! How long an answer keeps, and for whom, by the rules of Apollo's `@cacheControl`: the lowest age of all fields wins,
//! `PRIVATE` sticks, and a field at the root or of an object type without a hint is 0. The hints are found
//! once per document. What reads the viewer makes its answer private by itself (`Watched`), whatever a hint says:
//! a hint that is forgotten or wrong can make an answer slow, never public. Not here: the header's text (`src`).

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use async_graphql::{
    Name, Positioned,
    parser::types::{Field, FragmentDefinition, Selection, SelectionSet},
};

use crate::cost::OutputTypes;

/// The owner of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// Everybody gets this answer.
    Public,
    /// It depends on who asks.
    Private,
}

/// How long an answer keeps. `None` where nothing keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// Seconds, at least 1.
    pub max_age_seconds: u32,
    /// The owner of the answer.
    pub audience: Audience,
}

impl CachePolicy {
    /// This policy, for one viewer only where the answer looked at who asks.
    #[must_use]
    pub fn for_one_if(self, viewer_was_read: bool) -> Self {
        if viewer_was_read { Self { audience: Private, ..self } } else { self }
    }
}

use Audience::{Private, Public};

/// How long objects of a type keep, and for whom: the type's name, seconds, the audience.
pub type Hint = (&'static str, u32, Audience);

/// The hints on what each schema has.
const OWN: [Hint; 3] = [("__Schema", 60, Public), ("__Type", 60, Public), ("_Service", 60, Public)];
/// Root fields that return any type: the types that are asked for give the hint.
const BY_TYPE: [&str; 3] = ["node", "nodes", "_entities"];

fn hint(hints: &[Hint], ty: &str) -> Option<(u32, Audience)> {
    let hint = hints.iter().chain(&OWN).find(|(name, ..)| *name == ty)?;
    Some((hint.1, hint.2))
}

/// The policy of one operation.
pub(crate) fn policy(
    types: &OutputTypes,
    hints: &[Hint],
    selections: &SelectionSet,
    fragments: &HashMap<Name, Positioned<FragmentDefinition>>,
) -> Option<CachePolicy> {
    let mut visitor = PolicyVisitor { types, hints, fragments, age: None, audience: Public };
    visitor.selections("Query", selections, true);
    let max_age_seconds = visitor.age.filter(|age| *age > 0)?;
    Some(CachePolicy { max_age_seconds, audience: visitor.audience })
}

struct PolicyVisitor<'d> {
    types: &'d OutputTypes,
    hints: &'d [Hint],
    fragments: &'d HashMap<Name, Positioned<FragmentDefinition>>,
    age: Option<u32>,
    audience: Audience,
}

impl PolicyVisitor<'_> {
    fn restrict(&mut self, hint: Option<(u32, Audience)>) {
        let (age, audience) = hint.unwrap_or((0, Public));
        self.age = Some(self.age.map_or(age, |known| known.min(age)));
        self.audience = self.audience.max(audience);
    }

    fn selections(&mut self, ty: &str, selections: &SelectionSet, is_root: bool) {
        for selection in &selections.items {
            match &selection.node {
                Selection::Field(field) => self.field(ty, &field.node, is_root),
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    let inner = condition.map_or(ty, |condition| condition.node.on.node.as_str());
                    self.fragment(ty, inner, &fragment.node.selection_set.node, is_root);
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.fragments.get(&spread.node.fragment_name.node) {
                        let inner = &fragment.node.type_condition.node.on.node;
                        self.fragment(ty, inner, &fragment.node.selection_set.node, is_root);
                    }
                }
            }
        }
    }

    fn fragment(&mut self, outer: &str, inner: &str, selections: &SelectionSet, is_root: bool) {
        if !is_root && inner != outer {
            self.restrict(hint(self.hints, inner));
        }
        self.selections(inner, selections, is_root);
    }

    fn field(&mut self, ty: &str, field: &Field, is_root: bool) {
        let selections = &field.selection_set.node;
        match field.name.node.as_str() {
            "__typename" => {}
            // Their fields are the library's, and all of one kind.
            "__schema" => self.restrict(hint(self.hints, "__Schema")),
            "__type" => self.restrict(hint(self.hints, "__Type")),
            "_service" if is_root => self.restrict(hint(self.hints, "_Service")),
            name if is_root && BY_TYPE.contains(&name) => {
                let bare = |selection: &Positioned<Selection>| match &selection.node {
                    Selection::Field(field) => field.node.name.node != "__typename",
                    Selection::InlineFragment(fragment) => fragment.node.type_condition.is_none(),
                    Selection::FragmentSpread(_) => false,
                };
                if selections.items.is_empty() || selections.items.iter().any(bare) {
                    self.restrict(None);
                }
                self.selections("Node", selections, false);
            }
            name => match self.types.field(ty, name) {
                Some(shape) if shape.is_composite => {
                    self.restrict(hint(self.hints, &shape.ty));
                    self.selections(&shape.ty, selections, false);
                }
                Some(_) if !is_root => {}
                Some(_) | None => self.restrict(None),
            },
        }
    }
}

/// A part of the request that makes its answer private when it is read.
pub struct Watched<T> {
    value: T,
    level: u8,
    /// The highest level that was read.
    read: Arc<AtomicU8>,
}

/// How far a request has looked at who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Looked {
    /// Not at all.
    Nowhere,
    /// At what they may read.
    AtScope,
    /// At who they are.
    AtViewer,
}

impl<V> Watched<V> {
    /// Who asks and what they may read, under one watch.
    pub fn pair<R>(viewer: V, rights: R) -> (Self, Watched<R>) {
        let read = Arc::default();
        let rights = Watched { value: rights, level: Looked::AtScope as u8, read: Arc::clone(&read) };
        (Self { value: viewer, level: Looked::AtViewer as u8, read }, rights)
    }
}

impl<T> Watched<T> {
    /// Another value under this watch.
    #[must_use]
    pub fn with(&self, value: T) -> Self {
        Self { value, level: self.level, read: Arc::clone(&self.read) }
    }

    /// Whether anything under this watch was read so far.
    pub fn was_read(&self) -> bool {
        self.looked() != Looked::Nowhere
    }

    /// How far anything under this watch was read so far.
    pub fn looked(&self) -> Looked {
        match self.read.load(Ordering::Relaxed) {
            0 => Looked::Nowhere,
            1 => Looked::AtScope,
            _ => Looked::AtViewer,
        }
    }
}

impl<T: Clone> Clone for Watched<T> {
    fn clone(&self) -> Self {
        self.with(self.value.clone())
    }
}

impl<T> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // Read once for each row; written once or twice.
        if self.read.load(Ordering::Relaxed) < self.level {
            self.read.fetch_max(self.level, Ordering::Relaxed);
        }
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::{parse_query, parse_schema, types::DocumentOperations};

    use super::*;

    const SDL: &str = "
        type Query { node(id: ID!): Node form(id: ID!): Form version: FormVersion count: Int }
        interface Node { id: ID! }
        type Form implements Node { id: ID! versions: [FormVersion!]! }
        type FormVersion implements Node { id: ID! schema: String form: Form! }
    ";

    fn of(text: &str) -> Option<(u32, Audience)> {
        let types = OutputTypes::of(&parse_schema(SDL).expect("SDL"));
        let document = parse_query(text).expect("a document");
        let DocumentOperations::Single(operation) = &document.operations else { panic!("one operation") };
        let hints = [("FormVersion", 300, Private)];
        let policy = policy(&types, &hints, &operation.node.selection_set.node, &document.fragments);
        policy.map(|policy| (policy.max_age_seconds, policy.audience))
    }

    #[test]
    fn the_lowest_age_wins_and_private_sticks() {
        for (text, expected) in [
            ("{ __typename }", None),
            ("{ __schema { types { name } } }", Some((60, Public))),
            ("{ __type(name: \"Form\") { name } _service { sdl } }", Some((60, Public))),
            ("{ __schema { types { name } } count }", None),
            ("{ version { id schema } }", Some((300, Private))),
            ("{ version { id } __schema { types { name } } }", Some((60, Private))),
            ("{ version { id form { id } } }", None),
            ("{ form(id: 1) { id } }", None),
            ("{ node(id: 1) { ... on FormVersion { id } } }", Some((300, Private))),
            ("{ node(id: 1) { __typename ...F } } fragment F on FormVersion { id }", Some((300, Private))),
            ("{ node(id: 1) { id ... on FormVersion { schema } } }", None),
            ("{ node(id: 1) { ... on FormVersion { id } ... on Form { id } } }", None),
            ("{ node(id: 1) { __typename } }", None),
            ("{ _entities(representations: []) { ... on FormVersion { id } } }", Some((300, Private))),
            ("{ _entities(representations: []) { ... on FormVersion { id } ... on Other { id } } }", None),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
