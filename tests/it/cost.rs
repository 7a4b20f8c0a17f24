//! What operations cost by the SDL alone: a small calculator after the specification of `@cost` and `@listSize`, which
//! knows nothing of the server's own reckoning, must come to the number that the server refuses by. Not here: that
//! too expensive operations are refused (`limits`).

use std::collections::BTreeMap;

use async_graphql::Positioned;
use async_graphql::parser::{
    parse_query, parse_schema,
    types::{
        BaseType, ConstDirective, ExecutableDocument, Field, FieldDefinition, InputValueDefinition,
        Selection, SelectionSet, Type, TypeKind, TypeSystemDefinition,
    },
};
use async_graphql_value::Value as Ast;
use serde_json::{Value, json};

use crate::{corpus, harness::TestApp};

/// What the SDL says of prices.
struct Prices {
    /// Fields of objects and interfaces.
    fields: BTreeMap<String, BTreeMap<String, FieldDefinition>>,
    inputs: BTreeMap<String, Vec<InputValueDefinition>>,
}

/// The base of a type: lists and non-nulls fall away.
fn named(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name,
        BaseType::List(item) => named(item),
    }
}

fn argument(directives: &[Positioned<ConstDirective>], name: &str, argument: &str) -> Option<Value> {
    let directive = directives.iter().find(|directive| directive.node.name.node == name)?;
    directive.node.get_argument(argument)?.node.clone().into_json().ok()
}

fn names(value: Option<Value>) -> Vec<String> {
    value.map(|value| serde_json::from_value(value).expect("names")).unwrap_or_default()
}

impl Prices {
    fn of(sdl: &str) -> Self {
        let (mut all, mut inputs) = (BTreeMap::new(), BTreeMap::new());
        for definition in parse_schema(sdl).expect("the SDL parses").definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let name = definition.node.name.node.to_string();
            let fields = match definition.node.kind {
                TypeKind::Object(object) => object.fields,
                TypeKind::Interface(interface) => interface.fields,
                TypeKind::InputObject(input) => {
                    inputs.insert(name, input.fields.into_iter().map(|field| field.node).collect());
                    continue;
                }
                _ => continue,
            };
            let fields = fields.into_iter().map(|field| (field.node.name.node.to_string(), field.node));
            all.insert(name, fields.collect());
        }
        Self { fields: all, inputs }
    }

    /// The price of a selection on a type. `sized` are fields whose lists the field around them has sized.
    fn selection(&self, op: &Operation<'_>, on: &str, set: &SelectionSet, sized: &Sized) -> u64 {
        let items = set.items.iter().map(|selection| match &selection.node {
            Selection::Field(field) => self.field(op, on, &field.node, sized),
            Selection::FragmentSpread(spread) => {
                let fragment = &op.document.fragments[&spread.node.fragment_name.node].node;
                self.selection(op, &fragment.type_condition.node.on.node, &fragment.selection_set.node, sized)
            }
            Selection::InlineFragment(inline) => {
                let condition = inline.node.type_condition.as_ref();
                let on = condition.map_or(on, |condition| &condition.node.on.node);
                self.selection(op, on, &inline.node.selection_set.node, sized)
            }
        });
        items.sum()
    }

    fn field(&self, op: &Operation<'_>, on: &str, field: &Field, sized: &Sized) -> u64 {
        // Meta-fields are not in the SDL, and free.
        let Some(declared) = self.fields.get(on).and_then(|fields| fields.get(field.name.node.as_str()))
        else {
            return 0;
        };
        let of = named(&declared.ty.node);
        let is_list = matches!(&declared.ty.node.base, BaseType::List(_));
        let is_object = self.fields.contains_key(of);
        let weight = argument(&declared.directives, "cost", "weight").and_then(|weight| weight.as_u64());
        let weight = weight.unwrap_or(u64::from(is_object));
        let size = |name| argument(&declared.directives, "listSize", name);
        let fields = names(size("sizedFields"));
        let given =
            names(size("slicingArguments")).into_iter().filter_map(|name| op.number(field, declared, &name));
        let rows = given.max().or(size("assumedSize").and_then(|size| size.as_u64()));
        let (times, sized) = match rows {
            Some(rows) if fields.is_empty() => (rows, Sized::default()),
            Some(rows) => (1, Sized { fields, rows }),
            None if sized.fields.iter().any(|sized| *sized == *field.name.node) => {
                (sized.rows, Sized::default())
            }
            None => {
                assert!(!(is_list && is_object), "nothing sizes {on}.{}", field.name.node);
                (1, Sized::default())
            }
        };
        let inputs: u64 = declared
            .arguments
            .iter()
            .filter_map(|declared| {
                Some(self.input(&declared.node, &op.value(field, &declared.node.name.node)?))
            })
            .sum();
        times * (weight + self.selection(op, of, &field.selection_set.node, &sized)) + inputs
    }

    /// The price of an argument or of a field of an input: an object costs 1, unless it says otherwise.
    fn input(&self, declared: &InputValueDefinition, value: &Value) -> u64 {
        let fields = self.inputs.get(named(&declared.ty.node));
        let weight = argument(&declared.directives, "cost", "weight").and_then(|weight| weight.as_u64());
        let own = weight.unwrap_or(u64::from(fields.is_some()));
        let within = fields.into_iter().flatten().filter_map(|field| {
            let value = value.get(field.name.node.as_str())?;
            Some(self.input(field, value))
        });
        own + within.sum::<u64>()
    }
}

/// Fields whose lists have this many rows.
#[derive(Default)]
struct Sized {
    fields: Vec<String>,
    rows: u64,
}

struct Operation<'d> {
    document: &'d ExecutableDocument,
    variables: &'d Value,
}

impl Operation<'_> {
    /// The value of an argument.
    fn value(&self, field: &Field, argument: &str) -> Option<Value> {
        self.json(&field.get_argument(argument)?.node)
    }

    fn json(&self, value: &Ast) -> Option<Value> {
        match value {
            Ast::Variable(name) => self.variables.get(name.as_str()).cloned(),
            Ast::List(items) => Some(items.iter().filter_map(|item| self.json(item)).collect()),
            Ast::Object(fields) => {
                let fields =
                    fields.iter().filter_map(|(name, value)| Some((name.to_string(), self.json(value)?)));
                Some(Value::Object(fields.collect()))
            }
            Ast::Enum(name) => Some(json!(name.as_str())),
            other => other.clone().into_const()?.into_json().ok(),
        }
    }

    /// The value of an argument that is a number, or its default.
    fn number(&self, field: &Field, declared: &FieldDefinition, argument: &str) -> Option<u64> {
        let declared = declared.arguments.iter().find(|declared| declared.node.name.node == argument);
        let default = || declared?.node.default_value.as_ref()?.node.clone().into_json().ok()?.as_u64();
        self.value(field, argument).and_then(|value| value.as_u64()).or_else(default)
    }
}

/// What the server says that an operation costs.
fn told(body: &str) -> u64 {
    let after = body.split_once("may load ").map_or("0", |(_, after)| after);
    after.split(' ').next().expect("a number").parse().expect("a number")
}

const MUTATIONS: [&str; 4] = [
    "mutation { signIn(input: { email: \"a@example.com\", password: \"x\" }) { accessToken user { id } session { user { id } } userErrors { code } } }",
    "mutation($f: ID!) { createSubmission(input: { formId: $f, data: {}, location: { timestamp: \"2026-01-01T00:00:00Z\", latitude: 1, longitude: 2 } }) { submission { form { owner { id } } } userErrors { code } } }",
    "mutation { recordLocations(input: { points: [] }) { acceptedCount results { outcome location { user { id } } userErrors { code } } } }",
    "mutation { revokeAllSessions(input: {}) { sessions { user { id } } userErrors { code } } }",
];

#[tokio::test]
async fn the_sdl_prices_every_operation_as_the_server_does() {
    let app = TestApp::sqlite().await;
    let (prices, dear) = (Prices::of(app.graph.sdl()), app.that_only_tells_costs());
    let mut variables = corpus::variables(&app).await;
    variables["f"] = variables["form"].clone();
    let operations = corpus::operations().into_iter().map(|(_, operation)| operation).chain(MUTATIONS);
    let (mut compared, mut most) = (0, 0);
    for operation in operations {
        let document = parse_query(operation).expect("a document");
        let (_, parsed) = document.operations.iter().next().expect("an operation");
        let root = if operation.starts_with("mutation") { "Mutation" } else { "Query" };
        let mut given = variables.clone();
        for variable in parsed.node.variable_definitions.iter().map(|variable| &variable.node) {
            let name = variable.name.node.as_str();
            if let (None, Some(default)) = (variables.get(name), &variable.default_value) {
                given[name] = default.node.clone().into_json().expect("JSON");
            }
        }
        let op = Operation { document: &document, variables: &given };
        let price = prices.selection(&op, root, &parsed.node.selection_set.node, &Sized::default());
        let told = told(&dear.as_admin().run(operation, variables.clone()).await.body);
        if operation.contains("_service") {
            // The federation's own fields are not in the SDL.
        } else if operation.contains("_entities") {
            // A gateway knows how many it asks for.
            let asked = ["everything", "everyone", "byEmail"].map(|name| (name, variables[name].as_array()));
            let asked = asked.iter().find(|(name, _)| operation.contains(&format!("${name}")));
            let count = asked.and_then(|(_, asked)| *asked).map_or(0, Vec::len) as u64;
            assert!(told >= count, "{operation}: {told} for {count} entities");
        } else if operation.contains(" nodes(ids") {
            // No argument of `@listSize` is a list: gateways reckon with the most.
            assert!(told <= price, "{operation}: {told} for {price}");
        } else {
            assert_eq!(told, price, "{operation}");
            compared += 1;
            most = most.max(price);
        }
    }
    assert!(compared > 60 && most > 1_000, "{compared} operations, the dearest at {most}");
}
