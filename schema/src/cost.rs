//! What a document costs and how long its answer keeps, found once per document from the schema's own SDL: every
//! object counts 1, times the rows of the lists around it. A page counts as many rows as it may have: `first`, `last`,
//! or the default of a page; sizes in variables are put in for each request, without walking the document again.
//! Leaves cost nothing: they are columns of rows that are there. Not here: what the gate counts without a schema.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned, Value, Variables,
    parser::types::{
        BaseType, Field, FieldDefinition, FragmentDefinition, Selection, SelectionSet, ServiceDocument, Type,
        TypeKind, TypeSystemDefinition,
    },
};
use async_graphql_value::Value as InputValue;

use crate::connection::DEFAULT_ROWS;

/// The arguments that say how many rows a list has at most.
const SIZES: [&str; 3] = ["first", "last", "maxPoints"];
/// The rows counted for a list that nothing bounds.
const ASSUMED_ROWS: u64 = 10;

/// The output types of the schema, as far as documents are judged by them.
pub(crate) struct OutputTypes(HashMap<Name, HashMap<Name, Shape>>);

/// A field's type.
pub(crate) struct Shape {
    pub(crate) ty: Name,
    pub(crate) is_composite: bool,
    is_list: bool,
    /// Has `SIZES` among its arguments, and the rows if none is given.
    default_rows: Option<u64>,
}

impl OutputTypes {
    /// Reads them from the schema's SDL.
    pub(crate) fn of(sdl: &ServiceDocument) -> Self {
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
        let shapes = |fields: &[Positioned<FieldDefinition>]| {
            let shape = |field: &Positioned<FieldDefinition>| {
                let (ty, is_list) = named(&field.node.ty.node);
                let is_composite = types.contains_key(ty);
                let shape =
                    Shape { ty: ty.clone(), is_composite, is_list, default_rows: default_rows(&field.node) };
                (field.node.name.node.clone(), shape)
            };
            fields.iter().map(shape).collect()
        };
        Self(types.iter().map(|(name, fields)| (name.clone(), shapes(fields))).collect())
    }

    /// A field of a type; `None` for what the library adds (`__typename`, `_service`, `_entities`).
    pub(crate) fn field(&self, ty: &str, field: &str) -> Option<&Shape> {
        self.0.get(ty)?.get(field)
    }

    /// What one operation costs.
    pub(crate) fn cost(
        &self,
        root: &'static str,
        selections: &SelectionSet,
        fragments: &HashMap<Name, Positioned<FragmentDefinition>>,
    ) -> Cost {
        let mut cost = Cost::default();
        Measure { types: self, fragments }.add(&mut cost, root, selections, &Size::Fixed(1));
        cost
    }
}

fn named(ty: &Type) -> (&Name, bool) {
    match &ty.base {
        BaseType::Named(name) => (name, false),
        BaseType::List(item) => (named(item).0, true),
    }
}

fn default_rows(field: &FieldDefinition) -> Option<u64> {
    let size = field.arguments.iter().find(|argument| SIZES.contains(&argument.node.name.node.as_str()))?;
    Some(match &size.node.default_value {
        Some(default) => rows(&default.node).unwrap_or(ASSUMED_ROWS),
        None => u64::from(DEFAULT_ROWS),
    })
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
    Given {
        variables: Vec<Name>,
        fixed: Option<u64>,
        default: u64,
    },
}

impl Size {
    fn rows(&self, variables: &Variables) -> u64 {
        match self {
            Self::Fixed(rows) => *rows,
            Self::Given { variables: names, fixed, default } => {
                let given = names.iter().filter_map(|name| rows(variables.get(name)?));
                given.chain(*fixed).max().unwrap_or(*default)
            }
        }
    }
}

/// What an operation costs: a number, and a number for each row of lists whose size is known with the variables.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    own: u64,
    lists: Vec<(Size, Cost)>,
}

impl Cost {
    /// With these variables.
    pub(crate) fn with(&self, variables: &Variables) -> u64 {
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

struct Measure<'d> {
    types: &'d OutputTypes,
    fragments: &'d HashMap<Name, Positioned<FragmentDefinition>>,
}

impl Measure<'_> {
    /// Adds a selection on a type. `page` is the number of rows, where the type is a connection.
    fn add(&self, cost: &mut Cost, ty: &str, selections: &SelectionSet, page: &Size) {
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

    fn add_field(&self, cost: &mut Cost, ty: &str, field: &Field, page: &Size) {
        const ONE: Size = Size::Fixed(1);
        let (parent, name) = (ty, field.name.node.as_str());
        let (ty, times, page) = match self.types.field(parent, name) {
            Some(shape) if !shape.is_composite => return,
            // The rows of a connection, which has said how many they are.
            Some(shape) if shape.is_list && parent.ends_with("Connection") => (&*shape.ty, page.clone(), ONE),
            Some(shape) if shape.is_list => (&*shape.ty, size(field, shape.default_rows), ONE),
            Some(shape) if shape.default_rows.is_some() => (&*shape.ty, ONE, size(field, shape.default_rows)),
            Some(shape) => (&*shape.ty, ONE, ONE),
            None if name == "_entities" => ("_Entity", size(field, None), ONE),
            // The gate bounds introspection; what else has no shape is a name.
            None => return,
        };
        let mut row = Cost { own: 1, lists: Vec::new() };
        self.add(&mut row, ty, &field.selection_set.node, &page);
        cost.add(&times, row);
    }
}

/// How many rows the arguments of a field ask for: by its size, where it has one; else a list among them (`ids`).
fn size(field: &Field, default_rows: Option<u64>) -> Size {
    let (mut variables, mut fixed) = (Vec::new(), None);
    for (name, value) in &field.arguments {
        if default_rows.is_some() && !SIZES.contains(&name.node.as_str()) {
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
    let default = default_rows.unwrap_or(ASSUMED_ROWS);
    if variables.is_empty() {
        Size::Fixed(fixed.unwrap_or(default))
    } else {
        Size::Given { variables, fixed, default }
    }
}

#[cfg(test)]
mod tests;
