//! The SDL of a source schema of GraphQL Federation
//! (<https://graphql.github.io/graphql-federation-spec/draft>, once called Composite Schemas): entities are
//! found by ordinary fields at the root, which `@lookup` marks, and not by `_entities`. A field is marked
//! where it is nullable, gives an entity, and has one argument: a key of it (`@is` is not needed then), or a
//! one-of input with a key by which no other field finds it, as `userBy(lookup: {email: …})` has. Not here:
//! Apollo's federation (`sdl`).

use std::collections::{HashMap, HashSet};

use async_graphql::{
    ObjectType, Schema, SubscriptionType, Value,
    indexmap::IndexMap,
    registry::{MetaDirectiveInvocation, MetaField, MetaType, MetaTypeName, Registry},
};

use super::{Changed, GRAPHQL, plain, take_federation};

/// The directives of GraphQL Federation that are used here, with their definitions.
const DIRECTIVES: [(&str, &str); 4] = [
    (
        "key",
        "directive @key(fields: FieldSelectionSet!) repeatable on OBJECT | INTERFACE\n\n\
         scalar FieldSelectionSet",
    ),
    ("lookup", "directive @lookup on FIELD_DEFINITION"),
    ("is", "directive @is(field: FieldSelectionMap!) on ARGUMENT_DEFINITION\n\nscalar FieldSelectionMap"),
    ("shareable", "directive @shareable repeatable on OBJECT | FIELD_DEFINITION"),
];

/// The SDL of a source schema. `schema` was built with [`for_composition`].
pub fn with_lookups<Q, M, S>(schema: &Schema<Q, M, S>) -> String
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    let known: Vec<(&str, &str)> = DIRECTIVES.into_iter().chain(GRAPHQL).collect();
    plain(schema, &known)
}

/// Takes Apollo's federation from a schema, and marks keys and lookups.
pub fn for_composition<T>(factory: T) -> Changed<T> {
    Changed { factory, change: mark_lookups }
}

fn mark_lookups(registry: &mut Registry) {
    let keys = keys(registry);
    take_federation(registry);
    for (name, ty) in &mut registry.types {
        let MetaType::Object { fields, shareable, directive_invocations, .. } = ty else { continue };
        for key in keys.get(name).into_iter().flatten() {
            directive_invocations.push(directive("key", &[("fields", key)]));
        }
        if *shareable {
            directive_invocations.push(directive("shareable", &[]));
        }
        for field in fields.values_mut().filter(|field| field.shareable) {
            field.directive_invocations.push(directive("shareable", &[]));
        }
    }
    let one_of = one_of_inputs(registry);
    let root = registry.query_type.clone();
    if let Some(MetaType::Object { fields, .. }) = registry.types.get_mut(&root) {
        let mut lookups = Lookups { keys, one_of, found: HashSet::new() };
        fields.values_mut().for_each(|field| lookups.mark_by_key(field));
        fields.values_mut().for_each(|field| lookups.mark_by_choice(field));
    }
}

/// The keys of each entity.
fn keys(registry: &Registry) -> HashMap<String, Vec<String>> {
    let entities = registry.types.iter().filter_map(|(name, ty)| match ty {
        MetaType::Object { keys: Some(keys), .. } => Some((name.clone(), keys.clone())),
        _ => None,
    });
    entities.collect()
}

/// The fields of each one-of input.
fn one_of_inputs(registry: &Registry) -> HashMap<String, Vec<String>> {
    let inputs = registry.types.iter().filter_map(|(name, ty)| match ty {
        MetaType::InputObject { input_fields, oneof: true, .. } => {
            Some((name.clone(), input_fields.keys().cloned().collect()))
        }
        _ => None,
    });
    inputs.collect()
}

struct Lookups {
    keys: HashMap<String, Vec<String>>,
    /// The fields of each one-of input.
    one_of: HashMap<String, Vec<String>>,
    /// By which keys objects of which types can be looked up already: one way for each is enough.
    found: HashSet<(String, String)>,
}

impl Lookups {
    /// Marks a field whose argument is a key.
    fn mark_by_key(&mut self, field: &mut MetaField) {
        let Some((ty, keys)) = self.looked_up(field) else { return };
        let Some(name) = field.args.keys().next().filter(|name| keys.contains(name)) else { return };
        if self.found.insert((ty, name.clone())) {
            field.directive_invocations.push(directive("lookup", &[]));
        }
    }

    /// Marks a field whose argument is one of several keys, for those by which nothing else finds the object.
    fn mark_by_choice(&mut self, field: &mut MetaField) {
        let Some((ty, keys)) = self.looked_up(field) else { return };
        let Some(argument) = field.args.values_mut().next() else { return };
        let Some(choices) = self.one_of.get(MetaTypeName::concrete_typename(&argument.ty)) else { return };
        let mut maps = Vec::new();
        for choice in choices.iter().filter(|choice| keys.contains(choice)) {
            if self.found.insert((ty.clone(), choice.clone())) {
                maps.push(format!("{{ {choice} }}"));
            }
        }
        if !maps.is_empty() {
            argument.directive_invocations.push(directive("is", &[("field", &maps.join(" | "))]));
            field.directive_invocations.push(directive("lookup", &[]));
        }
    }

    /// The type that a field may look up, and its keys.
    fn looked_up(&self, field: &MetaField) -> Option<(String, Vec<String>)> {
        let ty = MetaTypeName::concrete_typename(&field.ty);
        // A list would have to be one for each key, and what is not there has to be null.
        let is_nullable_object = field.ty == ty;
        let keys = self.keys.get(ty).filter(|_| is_nullable_object && field.args.len() == 1)?;
        Some((ty.to_owned(), keys.clone()))
    }
}

fn directive(name: &str, arguments: &[(&str, &str)]) -> MetaDirectiveInvocation {
    let arguments = arguments.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text)));
    MetaDirectiveInvocation { name: name.to_owned(), args: arguments.collect::<IndexMap<_, _>>() }
}
