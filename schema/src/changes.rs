//! What has changed from one SDL to another, and what of it breaks clients: GraphQL's rules of what may be sent and
//! expected, as graphql-js tells breaking changes from dangerous ones. Not here: whether a document still runs, which
//! validation says.

use std::{collections::BTreeMap, fmt};

use async_graphql::{
    Positioned,
    parser::{
        parse_schema,
        types::{BaseType, FieldDefinition, InputValueDefinition, Type, TypeKind, TypeSystemDefinition},
    },
};

/// What a change means for clients that were written before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impact {
    /// Some documents do not run any more, or are answered with what they do not expect.
    Breaking,
    /// All documents run, and some clients may meet what they do not know.
    Dangerous,
    /// Nobody has to know of it.
    Safe,
}

impl Impact {
    /// In small letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Breaking => "breaking",
            Self::Dangerous => "dangerous",
            Self::Safe => "safe",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it means for clients.
    pub impact: Impact,
    /// The schema coordinate of what has changed (GraphQL, September 2025, section 3.14), as in
    /// `User.sessions(first:)`.
    pub coordinate: String,
    /// A sentence.
    pub message: String,
}

/// The changes between two SDLs, those that break clients first.
///
/// # Errors
/// Which of them is no SDL, and why.
pub fn between(before: &str, now: &str) -> Result<Vec<Change>, String> {
    let read = |which: &str, sdl: &str| elements(sdl).map_err(|error| format!("{which}: {error}"));
    let (before, now) = (read("the released SDL", before)?, read("the SDL of now", now)?);
    let mut changes = Vec::new();
    for (coordinate, old) in &before {
        match now.get(coordinate) {
            Some(new) => changes.extend(old.change_to(new, coordinate)),
            // Where that is gone as a whole, or has become something else, this is told.
            None if !old.parent_stays(&before, &now) => {}
            None => changes.push(old.removed(coordinate)),
        }
    }
    for (coordinate, new) in now.iter().filter(|(coordinate, _)| !before.contains_key(*coordinate)) {
        if new.parent_stays(&before, &now) {
            changes.push(new.added(coordinate));
        }
    }
    changes.sort_by(|one, other| (one.impact, &one.coordinate).cmp(&(other.impact, &other.coordinate)));
    Ok(changes)
}

/// What has a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    Object,
    Interface,
    Union,
    Enum,
    Input,
    Field,
    Argument,
    InputField,
    EnumValue,
    /// A type of a union, or one that has an interface.
    Member,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Object => "object type",
            Self::Interface => "interface",
            Self::Union => "union",
            Self::Enum => "enum",
            Self::Input => "input type",
            Self::Field => "field",
            Self::Argument => "argument",
            Self::InputField => "input field",
            Self::EnumValue => "enum value",
            Self::Member => "possible type",
        })
    }
}

/// By their coordinates.
type Elements = BTreeMap<String, Element>;

/// One element of a schema.
struct Element {
    kind: Kind,
    /// The coordinate of what it is part of.
    parent: Option<String>,
    /// Of fields, arguments and input fields.
    ty: Option<Type>,
    /// Of arguments and input fields.
    default: Option<String>,
}

impl Element {
    fn of_type(kind: Kind) -> Self {
        Self { kind, parent: None, ty: None, default: None }
    }

    fn of_name(kind: Kind, parent: &str) -> Self {
        Self { parent: Some(parent.to_owned()), ..Self::of_type(kind) }
    }

    fn of_input(kind: Kind, parent: &str, input: &InputValueDefinition) -> Self {
        let default = input.default_value.as_ref().map(|value| value.node.to_string());
        Self { ty: Some(input.ty.node.clone()), default, ..Self::of_name(kind, parent) }
    }

    /// Whether clients have to give it.
    fn is_required(&self) -> bool {
        let is_input = matches!(self.kind, Kind::Argument | Kind::InputField);
        is_input && self.default.is_none() && self.ty.as_ref().is_some_and(|ty| !ty.nullable)
    }

    /// Whether what it is part of is of the same kind before and now.
    fn parent_stays(&self, before: &Elements, now: &Elements) -> bool {
        let kind = |elements: &Elements, of: &String| elements.get(of).map(|element| element.kind);
        self.parent.as_ref().is_none_or(|of| kind(before, of).is_some() && kind(before, of) == kind(now, of))
    }

    fn removed(&self, coordinate: &str) -> Change {
        let message = format!("the {} was removed", self.kind);
        Change { impact: Impact::Breaking, coordinate: coordinate.to_owned(), message }
    }

    fn added(&self, coordinate: &str) -> Change {
        let (impact, what) = match self.kind {
            _ if self.is_required() => (Impact::Breaking, "required "),
            Kind::EnumValue | Kind::Member => (Impact::Dangerous, ""),
            _ => (Impact::Safe, ""),
        };
        let message = format!("the {what}{} was added", self.kind);
        Change { impact, coordinate: coordinate.to_owned(), message }
    }

    fn change_to(&self, new: &Self, coordinate: &str) -> Option<Change> {
        let change = |impact, message| Some(Change { impact, coordinate: coordinate.to_owned(), message });
        if self.kind != new.kind {
            return change(Impact::Breaking, format!("the {} became the {}", self.kind, new.kind));
        }
        if let (Some(old_type), Some(new_type)) = (&self.ty, &new.ty)
            && old_type != new_type
        {
            let fits = match self.kind {
                Kind::Field => gives(old_type, new_type),
                _ => takes(old_type, new_type),
            };
            let impact = if fits { Impact::Safe } else { Impact::Breaking };
            return change(impact, format!("the type changed from {old_type} to {new_type}"));
        }
        if self.default == new.default {
            return None;
        }
        let shown = |default: &Option<String>| default.clone().unwrap_or_else(|| "none".to_owned());
        // Who left it out has to give it now.
        let impact = if new.is_required() { Impact::Breaking } else { Impact::Dangerous };
        change(
            impact,
            format!("the default changed from {} to {}", shown(&self.default), shown(&new.default)),
        )
    }
}

/// Whether who expects the old type of a field can take the new one.
fn gives(old: &Type, new: &Type) -> bool {
    (old.nullable || !new.nullable) && same_base(old, new, gives)
}

/// Whether what was sent for the old type can be sent for the new one.
fn takes(old: &Type, new: &Type) -> bool {
    (!old.nullable || new.nullable) && same_base(old, new, takes)
}

fn same_base(old: &Type, new: &Type, of_items: fn(&Type, &Type) -> bool) -> bool {
    match (&old.base, &new.base) {
        (BaseType::Named(old), BaseType::Named(new)) => old == new,
        (BaseType::List(old), BaseType::List(new)) => of_items(old, new),
        _ => false,
    }
}

/// Everything that has a coordinate; extensions of a type are part of it.
fn elements(sdl: &str) -> Result<Elements, String> {
    let document = parse_schema(sdl).map_err(|error| error.to_string())?;
    let mut found = Elements::new();
    for definition in document.definitions {
        let TypeSystemDefinition::Type(Positioned { node: definition, .. }) = definition else { continue };
        let name = definition.name.node.as_str();
        let kind = match definition.kind {
            TypeKind::Scalar => Kind::Scalar,
            TypeKind::Object(object) => {
                add_fields(&mut found, name, &object.fields);
                add_names(
                    &mut found,
                    Kind::Member,
                    object.implements.iter().map(|of| (of.node.as_str(), name)),
                );
                Kind::Object
            }
            TypeKind::Interface(interface) => {
                add_fields(&mut found, name, &interface.fields);
                Kind::Interface
            }
            TypeKind::Union(union) => {
                add_names(&mut found, Kind::Member, union.members.iter().map(|of| (name, of.node.as_str())));
                Kind::Union
            }
            TypeKind::Enum(values) => {
                let values = values.values.iter().map(|value| (name, value.node.value.node.as_str()));
                add_names(&mut found, Kind::EnumValue, values);
                Kind::Enum
            }
            TypeKind::InputObject(input) => {
                for Positioned { node: field, .. } in &input.fields {
                    let element = Element::of_input(Kind::InputField, name, field);
                    found.insert(format!("{name}.{}", field.name.node), element);
                }
                Kind::Input
            }
        };
        found.insert(name.to_owned(), Element::of_type(kind));
    }
    Ok(found)
}

fn add_fields(found: &mut Elements, of: &str, fields: &[Positioned<FieldDefinition>]) {
    for Positioned { node: field, .. } in fields {
        let coordinate = format!("{of}.{}", field.name.node);
        for Positioned { node: argument, .. } in &field.arguments {
            let element = Element::of_input(Kind::Argument, &coordinate, argument);
            found.insert(format!("{coordinate}({}:)", argument.name.node), element);
        }
        let element = Element { ty: Some(field.ty.node.clone()), ..Element::of_name(Kind::Field, of) };
        found.insert(coordinate, element);
    }
}

/// Elements that have nothing but their name, each with what it is part of.
fn add_names<'n>(found: &mut Elements, kind: Kind, names: impl Iterator<Item = (&'n str, &'n str)>) {
    found.extend(names.map(|(of, name)| (format!("{of}.{name}"), Element::of_name(kind, of))));
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "
        type Query { user(id: ID!, deep: Boolean = false): User, users(first: Int): [User!]!, old: Int }
        type User implements Node { id: ID!, name: String, role: Role! }
        interface Node { id: ID! }
        union Found = User
        enum Role { ADMIN VIEWER }
        input Filter { role: Role, first: Int = 20 }
        type Gone { a: Int }
        extend type User { email: String! }";

    fn changes(now: &[(&str, &str)]) -> Vec<(&'static str, String, String)> {
        let mut sdl = BEFORE.to_owned();
        for (from, to) in now {
            assert!(sdl.contains(from), "{from}");
            sdl = sdl.replace(from, to);
        }
        let changes = between(BEFORE, &sdl).expect("both are SDLs");
        changes
            .into_iter()
            .map(|change| (change.impact.as_str(), change.coordinate, change.message))
            .collect()
    }

    #[test]
    fn every_kind_of_change_is_judged() {
        assert_eq!(changes(&[]), []);
        for (from, to, impact, coordinate, message) in [
            (", old: Int", "", "breaking", "Query.old", "the field was removed"),
            ("type Gone { a: Int }", "", "breaking", "Gone", "the object type was removed"),
            ("type Gone { a: Int }", "scalar Gone", "breaking", "Gone", "the object type became the scalar"),
            (" VIEWER", "", "breaking", "Role.VIEWER", "the enum value was removed"),
            (" VIEWER", " VIEWER EDITOR", "dangerous", "Role.EDITOR", "the enum value was added"),
            ("= User\n", "= User | Gone\n", "dangerous", "Found.Gone", "the possible type was added"),
            (" implements Node", "", "breaking", "Node.User", "the possible type was removed"),
            ("name: String", "name: String!", "safe", "User.name", "the type changed from String to String!"),
            (
                "email: String!",
                "email: String",
                "breaking",
                "User.email",
                "the type changed from String! to String",
            ),
            ("[User!]!", "[User]!", "breaking", "Query.users", "the type changed from [User!]! to [User]!"),
            (
                "first: Int)",
                "first: Int!)",
                "breaking",
                "Query.users(first:)",
                "the type changed from Int to Int!",
            ),
            ("id: ID!, deep", "id: ID, deep", "safe", "Query.user(id:)", "the type changed from ID! to ID"),
            (
                "first: Int)",
                "first: Int, by: Role!)",
                "breaking",
                "Query.users(by:)",
                "the required argument was added",
            ),
            ("first: Int)", "first: Int, by: Role)", "safe", "Query.users(by:)", "the argument was added"),
            ("= false", "= true", "dangerous", "Query.user(deep:)", "the default changed from false to true"),
            (
                "{ role: Role,",
                "{ role: Role, of: ID!,",
                "breaking",
                "Filter.of",
                "the required input field was added",
            ),
            ("old: Int", "old: Int, new(a: Int!): Int", "safe", "Query.new", "the field was added"),
            (
                "type Gone",
                "type New { a(b: Int!): Int } type Gone",
                "safe",
                "New",
                "the object type was added",
            ),
        ] {
            assert_eq!(
                changes(&[(from, to)]),
                [(impact, coordinate.to_owned(), message.to_owned())],
                "{from} to {to}"
            );
        }
        let two = changes(&[("name: String", "name: String, nick: String"), (", old: Int", "")]);
        assert_eq!([two[0].0, two[1].0], ["breaking", "safe"], "what breaks comes first");
        assert!(between("type {", BEFORE).is_err_and(|why| why.starts_with("the released SDL: ")));
    }
}
