//! The fields of the schema as coordinates (`User.name`), numbered, and which of them an operation selects: by the type
//! that stands around the field in the document, an interface where it is one. What a selection leads to through
//! `_entities` counts like all else. Introspection and what is the federation's own (names that begin with `_`) has no
//! coordinate. What usage reports say of an operation is in `reported`. Not here: who asks for fields, and how often
//! (`src`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_graphql::{
    Name, Positioned,
    parser::types::{
        BaseType, FieldDefinition, FragmentDefinition, InputValueDefinition, Selection, SelectionSet,
        ServiceDocument, Type, TypeKind, TypeSystemDefinition,
    },
};
use rustc_hash::{FxHashMap, FxHashSet};

mod reported;

pub use reported::ReportedOperation;

/// Numbers of coordinates: their places in `Coordinates::all`, each once.
pub type CoordinateNumbers = Arc<[u32]>;

/// The coordinates of a schema.
#[derive(Debug, Default)]
pub struct Coordinates {
    all: Vec<FieldCoordinate>,
    types: FxHashMap<Name, FxHashMap<Name, NumberedField>>,
    /// The values of each enum.
    enums: FxHashMap<Name, Vec<Name>>,
    /// The fields of each input type, with their types.
    inputs: FxHashMap<Name, FxHashMap<Name, Name>>,
}

/// One field of one type.
#[derive(Debug)]
pub struct FieldCoordinate {
    /// As in `User.name`.
    pub name: String,
    /// Whether the schema marks it `@deprecated`.
    pub is_deprecated: bool,
    /// The coordinates of this field on the interfaces of its type: who selects one of these gets this field, too.
    pub of_interfaces: Vec<String>,
}

#[derive(Debug)]
struct NumberedField {
    number: u32,
    /// The type of the field, without lists and non-null.
    ty: Name,
    /// The types of its arguments.
    arguments: FxHashMap<Name, Name>,
}

impl Coordinates {
    /// Those of the schema of this SDL, in the order of their names.
    pub fn of(sdl: &ServiceDocument) -> Self {
        let mut found: Vec<(Name, &FieldDefinition, Vec<&Name>)> = Vec::new();
        let mut coordinates = Self::default();
        for definition in &sdl.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let definition = &definition.node;
            let (fields, interfaces) = match &definition.kind {
                TypeKind::Object(object) => (&object.fields, &object.implements),
                TypeKind::Interface(interface) => (&interface.fields, &interface.implements),
                TypeKind::Enum(of) => {
                    let values = of.values.iter().map(|value| value.node.value.node.clone());
                    coordinates.enums.insert(definition.name.node.clone(), values.collect());
                    continue;
                }
                TypeKind::InputObject(input) => {
                    let fields = types_of(&input.fields);
                    coordinates.inputs.insert(definition.name.node.clone(), fields);
                    continue;
                }
                TypeKind::Scalar | TypeKind::Union(_) => continue,
            };
            let name = &definition.name.node;
            if name.starts_with('_') {
                continue;
            }
            let interfaces: Vec<_> = interfaces.iter().map(|interface| &interface.node).collect();
            let fields = fields.iter().filter(|field| !field.node.name.node.starts_with('_'));
            found.extend(fields.map(|field| (name.clone(), &field.node, interfaces.clone())));
        }
        let coordinate = |ty: &Name, field: &FieldDefinition| format!("{ty}.{}", field.name.node);
        found.sort_by_cached_key(|(ty, field, _)| coordinate(ty, field));
        let names: FxHashSet<String> = found.iter().map(|(ty, field, _)| coordinate(ty, field)).collect();
        for (ty, field, interfaces) in found {
            let number = u32::try_from(coordinates.all.len()).unwrap_or(u32::MAX);
            let of_interfaces = interfaces.into_iter().map(|interface| coordinate(interface, field));
            coordinates.all.push(FieldCoordinate {
                name: coordinate(&ty, field),
                is_deprecated: field.directives.iter().any(|of| of.node.name.node == "deprecated"),
                of_interfaces: of_interfaces.filter(|name| names.contains(name)).collect(),
            });
            let arguments = types_of(&field.arguments);
            let numbered = NumberedField { number, ty: named(&field.ty.node).clone(), arguments };
            coordinates.types.entry(ty).or_default().insert(field.name.node.clone(), numbered);
        }
        coordinates
    }

    /// All of them, in the order of their names.
    pub fn all(&self) -> &[FieldCoordinate] {
        &self.all
    }

    /// What an operation selects, fields that it skips included.
    pub fn selected(
        &self,
        root: &str,
        selections: &SelectionSet,
        fragments: &HashMap<Name, Positioned<FragmentDefinition>>,
    ) -> CoordinateNumbers {
        let (followed, found) = (FxHashSet::default(), BTreeSet::new());
        let mut visitor = CoordinateVisitor { coordinates: self, fragments, followed, found };
        visitor.visit(Some(root), selections);
        visitor.found.into_iter().collect()
    }
}

/// By the names of arguments or of fields of an input type.
fn types_of(inputs: &[Positioned<InputValueDefinition>]) -> FxHashMap<Name, Name> {
    let inputs = inputs.iter().map(|input| &input.node);
    inputs.map(|input| (input.name.node.clone(), named(&input.ty.node).clone())).collect()
}

fn named(ty: &Type) -> &Name {
    match &ty.base {
        BaseType::Named(name) => name,
        BaseType::List(item) => named(item),
    }
}

struct CoordinateVisitor<'d> {
    coordinates: &'d Coordinates,
    fragments: &'d HashMap<Name, Positioned<FragmentDefinition>>,
    /// Each fragment is followed once: wherever it is spread, it selects the same of its type.
    followed: FxHashSet<&'d Name>,
    found: BTreeSet<u32>,
}

impl<'d> CoordinateVisitor<'d> {
    /// `ty` is the type around the selections; `None` where the schema does not say it, as below `_entities`.
    fn visit(&mut self, ty: Option<&'d str>, set: &'d SelectionSet) {
        for item in &set.items {
            match &item.node {
                Selection::Field(field) => {
                    let (name, set) = (field.node.name.node.as_str(), &field.node.selection_set.node);
                    // The schema's own schema is no part of what can be removed.
                    if name.starts_with("__") {
                        continue;
                    }
                    let field = ty.and_then(|ty| self.coordinates.types.get(ty)?.get(name));
                    self.found.extend(field.map(|field| field.number));
                    self.visit(field.map(|field| field.ty.as_str()), set);
                }
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    let ty = condition.map(|condition| condition.node.on.node.as_str()).or(ty);
                    self.visit(ty, &fragment.node.selection_set.node);
                }
                Selection::FragmentSpread(spread) => {
                    let found = self.fragments.get_key_value(&spread.node.fragment_name.node);
                    // A document with a fragment that it does not have is refused by validation.
                    let Some((name, fragment)) = found else { continue };
                    if self.followed.insert(name) {
                        let ty = fragment.node.type_condition.node.on.node.as_str();
                        self.visit(Some(ty), &fragment.node.selection_set.node);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::{parse_query, parse_schema, types::DocumentOperations};

    use super::*;

    const SDL: &str = "
        type Query { me: User node(id: ID!): Node found: [Found!]! _service: _Service! }
        type Mutation { rename(name: String!): User! }
        type _Service { sdl: String }
        interface Node { id: ID! }
        type User implements Node { id: ID! name: String nick: String @deprecated(reason: \"name\") forms: [Form!]! }
        type Form implements Node { id: ID! title: String owner: User! }
        union Found = User | Form
    ";

    fn of(root: &str, text: &str) -> Vec<String> {
        let coordinates = Coordinates::of(&parse_schema(SDL).expect("SDL"));
        let document = parse_query(text).expect("a document");
        let DocumentOperations::Single(operation) = &document.operations else { panic!("one operation") };
        let selected = coordinates.selected(root, &operation.node.selection_set.node, &document.fragments);
        selected.iter().map(|number| coordinates.all()[*number as usize].name.clone()).collect()
    }

    #[test]
    fn each_field_of_a_schema_has_a_coordinate() {
        let coordinates = Coordinates::of(&parse_schema(SDL).expect("SDL"));
        let names: Vec<_> = coordinates.all().iter().map(|coordinate| coordinate.name.as_str()).collect();
        let expected = "Form.id Form.owner Form.title Mutation.rename Node.id Query.found Query.me Query.node User.forms \
                        User.id User.name User.nick";
        assert_eq!(names.join(" "), expected);
        let deprecated = coordinates.all().iter().filter(|coordinate| coordinate.is_deprecated);
        assert_eq!(deprecated.map(|coordinate| &*coordinate.name).collect::<Vec<_>>(), ["User.nick"]);
        assert_eq!(coordinates.all()[0].of_interfaces, ["Node.id"]);
        assert!(coordinates.all()[2].of_interfaces.is_empty());
    }

    #[test]
    fn a_document_selects_coordinates_through_fragments_each_once() {
        for (text, expected) in [
            ("{ __typename __schema { types { name } } _service { sdl } }", ""),
            ("{ me { name } }", "Query.me User.name"),
            (
                "{ me { __typename a: name b: name ...F ...F } } fragment F on User { name nick }",
                "Query.me User.name User.nick",
            ),
            ("{ me { ... @include(if: false) { name } } }", "Query.me User.name"),
            (
                "{ node(id: 1) { id ... on User { name } ...G } } fragment G on Form { title owner { id } }",
                "Form.owner Form.title Node.id Query.node User.id User.name",
            ),
            (
                "{ found { ... on Node { id } ... on Form { ... { title } } } }",
                "Form.title Node.id Query.found",
            ),
            (
                "{ _entities(representations: []) { __typename ... on User { forms { title } } ...H } } fragment H on Form { id }",
                "Form.id Form.title User.forms",
            ),
            (
                "{ ...A } fragment A on Query { me { forms { owner { ...B } } } } fragment B on User { forms { ...C } } \
              fragment C on Form { title }",
                "Form.owner Form.title Query.me User.forms",
            ),
        ] {
            assert_eq!(of("Query", text).join(" "), expected, "{text}");
        }
        assert_eq!(
            of("Mutation", "mutation { a: rename(name: \"a\") { id } }"),
            ["Mutation.rename", "User.id"]
        );
    }
}
