//! What usage reports say of an operation: its text without aliases, strings and numbers, which may be a person's,
//! and the coordinates that it uses. These are, as in the reports of GraphQL Hive's own client
//! (`@graphql-hive/core`), besides fields: arguments, fields of input types, values of enums and scalars. Otherwise
//! than there, the text keeps the order of what it selects, and an argument from a variable counts as given (`!`)
//! where the type of the variable says so, since no value is looked at. Not here: how reports are sent (`src`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use async_graphql::{
    Name, Positioned,
    parser::types::{
        Directive, FragmentDefinition, OperationDefinition, OperationType, Selection, SelectionSet,
        VariableDefinition,
    },
};
use async_graphql_value::Value;
use rustc_hash::FxHashSet;

use super::{Coordinates, NumberedField, named};

/// One operation of a document, with the fragments that it uses.
#[derive(Debug, PartialEq)]
pub struct ReportedOperation {
    /// What operations with another text or another name do not have.
    pub key: String,
    /// The name of the operation.
    pub name: Option<String>,
    /// The text that is reported.
    pub text: String,
    /// The coordinates that it uses, in the order of their names.
    pub coordinates: Vec<String>,
}

impl ReportedOperation {
    pub(crate) fn of(
        coordinates: &Coordinates,
        name: Option<&str>,
        operation: &OperationDefinition,
        fragments: &HashMap<Name, Positioned<FragmentDefinition>>,
    ) -> Self {
        let variables: HashMap<&Name, &VariableDefinition> = operation
            .variable_definitions
            .iter()
            .map(|variable| (&variable.node.name.node, &variable.node))
            .collect();
        let mut reader = Reader {
            coordinates,
            fragments,
            variables,
            text: String::new(),
            used: BTreeSet::new(),
            used_whole: FxHashSet::default(),
            texts_of_fragments: BTreeMap::new(),
        };
        reader.operation(name, operation);
        let mut text = reader.text;
        text.extend(reader.texts_of_fragments.into_values());
        Self {
            // The text begins with the name.
            key: blake3::hash(text.as_bytes()).to_hex()[..32].to_owned(),
            name: name.map(ToOwned::to_owned),
            text,
            coordinates: reader.used.into_iter().collect(),
        }
    }
}

/// Writes the text and collects the coordinates in one pass.
struct Reader<'d> {
    coordinates: &'d Coordinates,
    fragments: &'d HashMap<Name, Positioned<FragmentDefinition>>,
    variables: HashMap<&'d Name, &'d VariableDefinition>,
    text: String,
    used: BTreeSet<String>,
    /// Types of which all is used.
    used_whole: FxHashSet<&'d str>,
    /// Of those that are spread, each once.
    texts_of_fragments: BTreeMap<&'d Name, String>,
}

impl<'d> Reader<'d> {
    fn operation(&mut self, name: Option<&str>, operation: &'d OperationDefinition) {
        let (kind, root) = match operation.ty {
            OperationType::Query => ("query", "Query"),
            OperationType::Mutation => ("mutation", "Mutation"),
            OperationType::Subscription => ("subscription", "Subscription"),
        };
        self.text.push_str(kind);
        if let Some(name) = name {
            self.write(format_args!(" {name}"));
        }
        for (index, variable) in operation.variable_definitions.iter().enumerate() {
            let variable = &variable.node;
            let ty = &variable.var_type.node;
            self.text.push(if index == 0 { '(' } else { ' ' });
            self.write(format_args!("${}:{ty}", variable.name.node));
            self.use_all_of(named(ty));
            if let Some(default) = &variable.default_value {
                self.text.push('=');
                self.value(&default.node.clone().into_value());
            }
            self.directives(&variable.directives);
        }
        if !operation.variable_definitions.is_empty() {
            self.text.push(')');
        }
        self.directives(&operation.directives);
        self.selections(Some(root), &operation.selection_set.node);
    }

    /// `ty` is the type around the selections; `None` where the schema does not say it, as below `_entities`.
    fn selections(&mut self, ty: Option<&'d str>, set: &'d SelectionSet) {
        self.text.push('{');
        for (index, item) in set.items.iter().enumerate() {
            if index > 0 {
                self.text.push(' ');
            }
            match &item.node {
                Selection::Field(field) => {
                    let (name, set) = (&field.node.name.node, &field.node.selection_set.node);
                    let known = ty.and_then(|ty| self.coordinates.types.get(ty)?.get(name));
                    self.text.push_str(name);
                    self.arguments(&field.node.arguments);
                    self.directives(&field.node.directives);
                    if let Some(ty) = ty
                        && (known.is_some() || name == "__typename")
                    {
                        self.used.insert(format!("{ty}.{name}"));
                        self.used_arguments(&format!("{ty}.{name}"), known, &field.node.arguments);
                    }
                    let field_type = known.map(|known| known.ty.as_str());
                    if let Some(ty) = field_type.filter(|ty| self.coordinates.enums.contains_key(*ty)) {
                        self.use_all_of(ty);
                    }
                    if !set.items.is_empty() {
                        self.selections(field_type, set);
                    }
                }
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    let condition = condition.map(|condition| condition.node.on.node.as_str());
                    self.text.push_str("...");
                    if let Some(condition) = condition {
                        self.write(format_args!("on {condition}"));
                    }
                    self.directives(&fragment.node.directives);
                    self.selections(condition.or(ty), &fragment.node.selection_set.node);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    self.write(format_args!("...{name}"));
                    self.directives(&spread.node.directives);
                    self.fragment(name);
                }
            }
        }
        self.text.push('}');
    }

    /// Each fragment is read once: wherever it is spread, it selects the same of its type.
    fn fragment(&mut self, name: &Name) {
        let Some((name, fragment)) = self.fragments.get_key_value(name) else { return };
        if self.texts_of_fragments.contains_key(name) {
            return;
        }
        self.texts_of_fragments.insert(name, String::new());
        let around = std::mem::take(&mut self.text);
        let condition = fragment.node.type_condition.node.on.node.as_str();
        self.write(format_args!(" fragment {name} on {condition}"));
        self.directives(&fragment.node.directives);
        self.selections(Some(condition), &fragment.node.selection_set.node);
        let text = std::mem::replace(&mut self.text, around);
        self.texts_of_fragments.insert(name, text);
    }

    fn directives(&mut self, directives: &[Positioned<Directive>]) {
        for directive in directives {
            self.write(format_args!("@{}", directive.node.name.node));
            self.arguments(&directive.node.arguments);
        }
    }

    fn arguments(&mut self, arguments: &[(Positioned<Name>, Positioned<Value>)]) {
        for (index, (name, value)) in arguments.iter().enumerate() {
            self.text.push(if index == 0 { '(' } else { ' ' });
            self.write(format_args!("{}:", name.node));
            self.value(&value.node);
        }
        if !arguments.is_empty() {
            self.text.push(')');
        }
    }

    /// A value without what it is: names that the schema does not have may be a person's, too.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Variable(name) => self.write(format_args!("${name}")),
            Value::Null => self.text.push_str("null"),
            Value::Boolean(is) => self.write(format_args!("{is}")),
            Value::Number(_) => self.text.push('0'),
            Value::Enum(name) if self.coordinates.enums.values().any(|values| values.contains(name)) => {
                self.text.push_str(name);
            }
            Value::String(_) | Value::Binary(_) | Value::Enum(_) => self.text.push_str("\"\""),
            Value::List(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.text.push(' ');
                    }
                    self.value(item);
                }
                self.text.push(']');
            }
            Value::Object(fields) => {
                self.text.push('{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        self.text.push(' ');
                    }
                    let is_known = self.coordinates.inputs.values().any(|input| input.contains_key(name));
                    self.text.push_str(if is_known { name } else { "_" });
                    self.text.push(':');
                    self.value(value);
                }
                self.text.push('}');
            }
        }
    }

    fn used_arguments(
        &mut self,
        field: &str,
        known: Option<&'d NumberedField>,
        arguments: &[(Positioned<Name>, Positioned<Value>)],
    ) {
        for (name, value) in arguments {
            let Some(ty) = known.and_then(|known| known.arguments.get(&name.node)) else { continue };
            self.used_input(&format!("{field}.{}", name.node), ty, &value.node);
        }
    }

    /// An argument or a field of an input type, which is given this value.
    fn used_input(&mut self, coordinate: &str, ty: &'d Name, value: &Value) {
        self.used.insert(coordinate.to_owned());
        let is_given = match value {
            Value::Null => false,
            Value::Variable(name) => {
                self.variables.get(name).is_some_and(|variable| !variable.var_type.node.nullable)
            }
            _ => true,
        };
        if is_given {
            self.used.insert(format!("{coordinate}!"));
        }
        self.used_value(ty, value);
    }

    fn used_value(&mut self, ty: &'d Name, value: &Value) {
        match value {
            Value::List(items) => items.iter().for_each(|item| self.used_value(ty, item)),
            Value::Object(fields) => {
                let Some(input) = self.coordinates.inputs.get(ty) else { return self.use_all_of(ty) };
                for (name, value) in fields {
                    if let Some(field_type) = input.get(name) {
                        self.used_input(&format!("{ty}.{name}"), field_type, value);
                    }
                }
            }
            Value::Enum(name) if self.coordinates.enums.contains_key(ty) => {
                self.used.insert(format!("{ty}.{name}"));
            }
            _ => self.use_all_of(ty),
        }
    }

    /// All values of an enum, all fields of an input type and of those within it, or a scalar.
    fn use_all_of(&mut self, ty: &'d str) {
        // Once: lists of values name a type again and again, and input types may have fields of their own type.
        if !self.used_whole.insert(ty) {
            return;
        }
        if let Some(values) = self.coordinates.enums.get(ty) {
            self.used.extend(values.iter().map(|value| format!("{ty}.{value}")));
        } else if let Some(fields) = self.coordinates.inputs.get(ty) {
            for (name, field_type) in fields {
                self.used.insert(format!("{ty}.{name}"));
                self.use_all_of(field_type);
            }
        } else {
            self.used.insert(ty.to_owned());
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::{parse_query, parse_schema, types::DocumentOperations};

    use super::*;

    const SDL: &str = "
        scalar JSON
        type Query { me: User users(first: Int, filter: Filter, order: [Order!]): [User!]! }
        type Mutation { save(id: ID!, data: JSON): User }
        type User { name: String role: Role friends(first: Int): [User!]! }
        enum Role { ADMIN USER }
        enum Order { NEWEST OLDEST }
        input Filter { role: Role name: String all: [Filter!] }
    ";

    fn of(text: &str) -> ReportedOperation {
        let coordinates = Coordinates::of(&parse_schema(SDL).expect("SDL"));
        let document = parse_query(text).expect("a document");
        let (name, operation) = match &document.operations {
            DocumentOperations::Single(operation) => (None, operation),
            DocumentOperations::Multiple(operations) => {
                let (name, operation) = operations.iter().next().expect("an operation");
                (Some(name.as_str()), operation)
            }
        };
        ReportedOperation::of(&coordinates, name, &operation.node, &document.fragments)
    }

    #[test]
    fn reported_text_has_no_aliases_and_no_values_and_can_be_read_again() {
        for (text, expected) in [
            ("{ ann: me { s3cret: name } }", "query{me{name}}"),
            (
                "query Q($a: Int! = 7, $b: [Filter!]) @live(throttle: 200) { users(first: $a, filter: {name: \"s3cret\"}) { name } }",
                "query Q($a:Int!=0 $b:[Filter!])@live(throttle:0){users(first:$a filter:{name:\"\"}){name}}",
            ),
            (
                "mutation { save(id: \"\"\"s3cret\"\"\", data: {s3cret: [S3CRET, ADMIN, 1.5, true, null]}) { name } }",
                "mutation{save(id:\"\" data:{_:[\"\" ADMIN 0 true null]}){name}}",
            ),
            (
                "{ me { ...F ... on User @skip(if: true) { role } ... { name } } } fragment F on User { friends { ...G } } \
                 fragment G on User { name }",
                "query{me{...F ...on User@skip(if:true){role} ...{name}}} fragment F on User{friends{...G}} \
                 fragment G on User{name}",
            ),
        ] {
            let reported = of(text);
            assert_eq!(reported.text, expected);
            assert_eq!(of(&reported.text).text, expected, "it is a document itself");
        }
        assert_eq!(of("query A { me { name } }").name.as_deref(), Some("A"));
        assert_eq!(of("{ me { a: name } }"), of("{me{name}}"));
        let keys =
            ["{ me { name } }", "query A { me { name } }", "query B { me { name } }", "{ me { role } }"];
        assert_eq!(keys.map(|text| of(text).key).into_iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn coordinates_are_those_that_the_client_of_hive_finds() {
        for (text, expected) in [
            ("{ __typename me { name } }", "Query.__typename Query.me User.name"),
            ("{ me { role } }", "Query.me Role.ADMIN Role.USER User.role"),
            (
                "{ users(first: 3, order: [NEWEST], filter: {role: ADMIN, name: null}) { ...F } } \
                 fragment F on User { friends(first: 1) { name } }",
                "Filter.name Filter.role Filter.role! Int Order.NEWEST Query.users Query.users.filter Query.users.filter! \
                 Query.users.first Query.users.first! Query.users.order Query.users.order! Role.ADMIN String User.friends \
                 User.friends.first User.friends.first! User.name",
            ),
            (
                "query($f: Filter, $n: Int!) { users(filter: $f, first: $n) { name } }",
                "Filter.all Filter.name Filter.role Int Query.users Query.users.filter Query.users.first \
                 Query.users.first! Role.ADMIN Role.USER String User.name",
            ),
            (
                "mutation { save(id: 1, data: {a: 1}) { name } }",
                "ID JSON Mutation.save Mutation.save.data Mutation.save.data! Mutation.save.id Mutation.save.id! User.name",
            ),
            ("{ _entities(representations: []) { ... on User { name } } }", "User.name"),
        ] {
            assert_eq!(of(text).coordinates.join(" "), expected, "{text}");
        }
    }
}
