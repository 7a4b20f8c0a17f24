//! What a document costs, found once per document from the schema's own SDL: every object counts 1, times the
//! rows of the lists around it. How many rows a list counts stands on its field, as gateways read it too
//! (`@listSize` of the federation's v2.9): a page counts `first`, `last`, or the default of a page; sizes in
//! variables are put in for each request, without walking the document again. Leaves cost nothing, since they
//! are columns of rows that are there; but documents of JSON do, which are large and often loaded by
//! themselves. Inputs are free (`@cost(weight: 0)`), except for one that makes much be read: a track costs by
//! that, not by the points that are left of it. Not here: what `limits` counts without a schema, how long an
//! answer becomes (`bounds`).

use std::collections::{HashMap, HashSet};

use async_graphql::{
    Name, Positioned, Value, Variables,
    indexmap::IndexMap,
    parser::types::{
        BaseType, ConstDirective, Field, FieldDefinition, FragmentDefinition, Selection, SelectionSet,
        ServiceDocument, Type, TypeKind, TypeSystemDefinition,
    },
    registry::{MetaDirectiveInvocation, MetaField, MetaInputValue, MetaType, MetaTypeName, Registry},
};
use async_graphql_value::Value as InputValue;

/// The arguments that say how many rows a list has at most.
const SIZES: [&str; 3] = ["first", "last", "maxPoints"];
/// Rows of a page when neither `first` nor `last` is given.
pub const DEFAULT_ROWS: u32 = 20;
/// The rows counted for a list that nothing bounds.
const ASSUMED_ROWS: u64 = 10;
/// What a leaf costs that is a document of JSON.
const JSON_WEIGHT: u64 = 10;
/// Ids that a list of objects by their ids may be asked for with.
pub const MAX_IDS: usize = 100;
/// The fields of a connection that have its rows.
const ROWS: [&str; 2] = ["nodes", "edges"];

/// What costs more or less than its kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights {
    /// What fields cost by themselves, each time: type, field, weight.
    pub fields: &'static [(&'static str, &'static str, u64)],
    /// What arguments cost where they are given: type, field, argument, weight.
    pub arguments: &'static [(&'static str, &'static str, &'static str, u64)],
}

/// Declares what is counted.
pub fn declare(registry: &mut Registry, weights: &Weights) {
    let named = |wanted: fn(&MetaType) -> bool| {
        let types = registry.types.values().filter(|ty| wanted(ty)).map(|ty| ty.name().to_owned());
        types.collect::<HashSet<_>>()
    };
    let objects = named(|ty| ty.is_composite() && !ty.name().starts_with('_'));
    let inputs = named(|ty| matches!(ty, MetaType::InputObject { .. }));
    let free = |input: &mut MetaInputValue| {
        if inputs.contains(MetaTypeName::concrete_typename(&input.ty)) {
            input.directive_invocations.push(directive_of(0));
        }
    };
    for ty in registry.types.values_mut() {
        match ty {
            MetaType::Object { name, fields, .. } => {
                for field in fields.values_mut() {
                    for (argument, input) in &mut field.args {
                        let dear = weights.arguments.iter().find(|(ty, of, input, _)| {
                            (*ty, *of, *input) == (name.as_str(), field.name.as_str(), argument.as_str())
                        });
                        match dear {
                            Some((.., weight)) => input.directive_invocations.push(directive_of(*weight)),
                            None => free(input),
                        }
                    }
                    let own = weights
                        .fields
                        .iter()
                        .find(|(ty, of, _)| (*ty, *of) == (name.as_str(), field.name.as_str()));
                    let is_json = MetaTypeName::concrete_typename(&field.ty) == "JSON";
                    let weight = own.map(|(.., weight)| *weight).or(is_json.then_some(JSON_WEIGHT));
                    let is_weighed = field.directive_invocations.iter().any(|known| known.name == "cost");
                    field.directive_invocations.extend(weight.filter(|_| !is_weighed).map(directive_of));
                    let is_of_objects = objects.contains(MetaTypeName::concrete_typename(&field.ty));
                    if is_of_objects && !name.ends_with("Connection") {
                        field.directive_invocations.extend(list_size(field));
                    }
                }
            }
            MetaType::InputObject { input_fields, .. } => input_fields.values_mut().for_each(free),
            _ => {}
        }
    }
}

/// `@cost` with this weight.
pub(crate) fn directive_of(weight: u64) -> MetaDirectiveInvocation {
    directive("cost", [("weight", Value::from(weight))])
}

/// How many objects a field has, if it has several.
fn list_size(field: &MetaField) -> Option<MetaDirectiveInvocation> {
    let sizes: Vec<Value> = field
        .args
        .keys()
        .filter(|name| SIZES.contains(&name.as_str()))
        .map(|name| Value::from(name.as_str()))
        .collect();
    let is_list = MetaTypeName::create(&field.ty).is_list();
    if sizes.is_empty() {
        // As many as there are ids, or what is assumed.
        let assumed = if field.args.contains_key("ids") { MAX_IDS as u64 } else { ASSUMED_ROWS };
        return is_list.then(|| directive("listSize", [("assumedSize", Value::from(assumed))]));
    }
    let mut arguments = Vec::new();
    // An argument's default says it already; composers refuse both.
    if field.args.values().all(|argument| argument.default_value.is_none()) {
        arguments.push(("assumedSize", Value::from(DEFAULT_ROWS)));
    }
    arguments.push(("slicingArguments", Value::List(sizes)));
    if !is_list {
        arguments.push(("sizedFields", Value::List(ROWS.map(Value::from).to_vec())));
    }
    arguments.push(("requireOneSlicingArgument", Value::from(false)));
    Some(directive("listSize", arguments))
}

fn directive(
    name: &str,
    arguments: impl IntoIterator<Item = (&'static str, Value)>,
) -> MetaDirectiveInvocation {
    let args: IndexMap<_, _> = arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    MetaDirectiveInvocation { name: name.to_owned(), args }
}

/// The output types of the schema, as far as documents are judged by them.
pub struct OutputTypes(HashMap<Name, HashMap<Name, FieldInfo>>);

/// A field's type.
pub struct FieldInfo {
    /// The name of the type, without list and non-null.
    pub ty: Name,
    /// As in the schema: `[User!]!`.
    pub text: String,
    /// Whether it has fields of its own.
    pub is_composite: bool,
    /// What it costs by itself.
    weight: u64,
    /// What its arguments cost, where they are given.
    arguments: Vec<(Name, u64)>,
    rows: Option<ListSize>,
}

/// A field's `@listSize`.
struct ListSize {
    /// The rows where no argument says how many.
    assumed: u64,
    /// The arguments that do.
    arguments: Vec<String>,
    /// The fields of the field's type that have the rows; none: the field itself.
    fields: Vec<String>,
}

impl OutputTypes {
    /// Reads them from the schema's SDL.
    pub fn of(sdl: &ServiceDocument) -> Self {
        let definitions = sdl.definitions.iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(definition) => Some(&definition.node),
            _ => None,
        });
        let mut types = HashMap::new();
        for definition in definitions.clone() {
            let fields = match &definition.kind {
                TypeKind::Object(object) => object.fields.as_slice(),
                TypeKind::Interface(interface) => interface.fields.as_slice(),
                TypeKind::Union(_) => &[],
                _ => continue,
            };
            types.insert(definition.name.node.clone(), fields);
        }
        let infos = |fields: &[Positioned<FieldDefinition>]| {
            let info = |field: &Positioned<FieldDefinition>| {
                let ty = named(&field.node.ty.node);
                let is_composite = types.contains_key(ty);
                let arguments = field.node.arguments.iter().filter_map(|argument| {
                    let weight = weight(&argument.node.directives).filter(|weight| *weight > 0)?;
                    Some((argument.node.name.node.clone(), weight))
                });
                let info = FieldInfo {
                    weight: weight(&field.node.directives).unwrap_or(u64::from(is_composite)),
                    arguments: arguments.collect(),
                    ty: ty.clone(),
                    text: field.node.ty.node.to_string(),
                    is_composite,
                    rows: ListSize::of(&field.node),
                };
                (field.node.name.node.clone(), info)
            };
            fields.iter().map(info).collect()
        };
        Self(types.iter().map(|(name, fields)| (name.clone(), infos(fields))).collect())
    }

    /// A field of a type; `None` for what the library adds (`__typename`, `_service`, `_entities`).
    pub fn field(&self, ty: &str, field: &str) -> Option<&FieldInfo> {
        self.0.get(ty)?.get(field)
    }

    /// What one operation costs.
    pub fn cost(
        &self,
        root: &'static str,
        selections: &SelectionSet,
        fragments: &HashMap<Name, Positioned<FragmentDefinition>>,
    ) -> Cost {
        let mut cost = Cost::default();
        Measure { types: self, fragments }.add(&mut cost, root, selections, &NO_PAGE);
        cost
    }
}

/// What `@cost` says.
fn weight(directives: &[Positioned<ConstDirective>]) -> Option<u64> {
    let directive = directives.iter().find(|directive| directive.node.name.node == "cost")?;
    directive.node.get_argument("weight").and_then(|weight| rows(&weight.node))
}

impl FieldInfo {
    /// What the arguments of a field cost.
    fn arguments_of(&self, field: &Field) -> u64 {
        let given = self.arguments.iter().filter(|(name, _)| field.get_argument(name).is_some());
        given.map(|(_, weight)| weight).sum()
    }
}

fn named(ty: &Type) -> &Name {
    match &ty.base {
        BaseType::Named(name) => name,
        BaseType::List(item) => named(item),
    }
}

impl ListSize {
    fn of(field: &FieldDefinition) -> Option<Self> {
        let directive = field.directives.iter().find(|directive| directive.node.name.node == "listSize")?;
        let argument = |name: &str| directive.node.get_argument(name).map(|value| &value.node);
        let names = |name: &str| match argument(name) {
            Some(Value::List(names)) => names
                .iter()
                .filter_map(|name| if let Value::String(name) = name { Some(name.clone()) } else { None })
                .collect(),
            _ => Vec::new(),
        };
        let arguments: Vec<String> = names("slicingArguments");
        let mut sizes = field.arguments.iter().map(|argument| &argument.node);
        let default = sizes.find_map(|size| {
            let default = size.default_value.as_ref()?;
            arguments.iter().any(|known| *known == *size.name.node).then_some(&default.node)
        });
        let assumed = argument("assumedSize").or(default).and_then(rows).unwrap_or(ASSUMED_ROWS);
        Some(Self { assumed, arguments, fields: names("sizedFields") })
    }
}

fn rows(value: &Value) -> Option<u64> {
    match value {
        // A negative number is refused when the list is asked for.
        Value::Number(number) => Some(number.as_u64().unwrap_or(0)),
        Value::List(items) => Some(items.len() as u64),
        _ => None,
    }
}

/// A number of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Size {
    Fixed(u64),
    /// The largest of these variables, or `fixed`; `default` where nothing is given.
    FieldArgs {
        variables: Vec<Name>,
        fixed: Option<u64>,
        default: u64,
    },
}

impl Size {
    fn rows(&self, variables: &Variables) -> u64 {
        match self {
            Self::Fixed(rows) => *rows,
            Self::FieldArgs { variables: names, fixed, default } => {
                let given = names.iter().filter_map(|name| rows(variables.get(name)?));
                given.chain(*fixed).max().unwrap_or(*default)
            }
        }
    }
}

/// What an operation costs: a number, and a number for each row of lists whose size is known with the variables.
#[derive(Debug, Default)]
pub struct Cost {
    own: u64,
    lists: Vec<(Size, Cost)>,
}

impl Cost {
    /// With these variables.
    pub fn with(&self, variables: &Variables) -> u64 {
        self.lists.iter().fold(self.own, |sum, (size, row)| {
            sum.saturating_add(size.rows(variables).saturating_mul(row.with(variables)))
        })
    }

    fn add(&mut self, size: &Size, mut row: Self) {
        if let Size::Fixed(rows) = size {
            self.own = self.own.saturating_add(rows.saturating_mul(row.own));
            if row.lists.is_empty() {
                return;
            }
            row.own = 0;
        }
        self.lists.push((size.clone(), row));
    }
}

/// The rows that fields of a selection have, as the field around it says: those of a connection.
struct Page<'d> {
    size: Size,
    fields: &'d [String],
}

const ENTITIES: ListSize = ListSize { assumed: ASSUMED_ROWS, arguments: Vec::new(), fields: Vec::new() };
const ONE: Size = Size::Fixed(1);
const NO_PAGE: Page<'static> = Page { size: ONE, fields: &[] };

struct Measure<'d> {
    types: &'d OutputTypes,
    fragments: &'d HashMap<Name, Positioned<FragmentDefinition>>,
}

impl Measure<'_> {
    /// Adds a selection on a type.
    fn add(&self, cost: &mut Cost, ty: &str, selections: &SelectionSet, page: &Page<'_>) {
        for selection in &selections.items {
            match &selection.node {
                Selection::Field(field) => self.add_field(cost, ty, &field.node, page),
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    let ty = condition.map_or(ty, |condition| condition.node.on.node.as_str());
                    self.add(cost, ty, &fragment.node.selection_set.node, page);
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.fragments.get(&spread.node.fragment_name.node) {
                        let ty = &fragment.node.type_condition.node.on.node;
                        self.add(cost, ty, &fragment.node.selection_set.node, page);
                    }
                }
            }
        }
    }

    fn add_field(&self, cost: &mut Cost, ty: &str, field: &Field, page: &Page<'_>) {
        let name = field.name.node.as_str();
        let info = self.types.field(ty, name);
        let weight = info.map_or(1, |info| info.weight);
        cost.own = cost.own.saturating_add(info.map_or(0, |info| info.arguments_of(field)));
        let (ty, times, page) = match info {
            // As many as there are representations; the library's own declaration says no size.
            _ if name == "_entities" => ("_Entity", size(field, &ENTITIES), NO_PAGE),
            Some(info) if !info.is_composite => {
                cost.own = cost.own.saturating_add(weight);
                return;
            }
            Some(info) if page.fields.iter().any(|field| field == name) => {
                (&*info.ty, page.size.clone(), NO_PAGE)
            }
            Some(FieldInfo { ty, rows: Some(rows), .. }) => {
                let size = size(field, rows);
                if rows.fields.is_empty() {
                    (&**ty, size, NO_PAGE)
                } else {
                    (&**ty, ONE, Page { size, fields: &rows.fields })
                }
            }
            Some(info) => (&*info.ty, ONE, NO_PAGE),
            // The gate bounds introspection; what else has no shape is a name.
            None => return,
        };
        let mut row = Cost { own: weight, lists: Vec::new() };
        self.add(&mut row, ty, &field.selection_set.node, &page);
        cost.add(&times, row);
    }
}

/// How many rows the arguments of a field ask for: by its size, where it has one; else a list among them (`ids`).
fn size(field: &Field, list: &ListSize) -> Size {
    let (mut variables, mut fixed) = (Vec::new(), None);
    for (name, value) in &field.arguments {
        if !list.arguments.is_empty() && !list.arguments.iter().any(|known| *known == *name.node) {
            continue;
        }
        let rows = match &value.node {
            InputValue::Variable(name) => {
                variables.push(name.clone());
                None
            }
            InputValue::List(items) => Some(items.len() as u64),
            InputValue::Number(number) => Some(number.as_u64().unwrap_or(0)),
            _ => None,
        };
        fixed = fixed.max(rows);
    }
    let default = list.assumed;
    if variables.is_empty() {
        Size::Fixed(fixed.unwrap_or(default))
    } else {
        Size::FieldArgs { variables, fixed, default }
    }
}

#[cfg(test)]
mod tests;
