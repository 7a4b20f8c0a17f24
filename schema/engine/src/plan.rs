//! What a document asks for: field collection and merging as the specification has it (October 2021, §6.3.2 and
//! §5.3.2), with variables put in and `@skip`/`@include` decided. The library's engine runs a field once for each
//! time it is written; here equal fields are merged first. Not here: what a field does (`object`).

use std::{borrow::Cow, collections::HashMap};

use async_graphql::{
    Name, Positioned, Value, Variables,
    parser::types::{Directive, Field, FragmentDefinition, Selection, SelectionSet},
};
use async_graphql_value::Value as InputValue;

use crate::error::{Code, RequestError, SourceLocation};

/// The parts of a request that selections refer to.
#[derive(Clone, Copy)]
pub struct Planner<'q> {
    /// The document's fragments.
    pub fragments: &'q HashMap<Name, Positioned<FragmentDefinition>>,
    /// The values of the variables, coerced.
    pub variables: &'q Variables,
}

/// One field of an object, merged from every place that asks for it under the same response key.
pub struct Selected<'q> {
    /// The first of the fields that are merged.
    pub field: &'q Field,
    /// Where it is in the document.
    pub location: SourceLocation,
    /// The selections of all places.
    pub sets: Vec<&'q SelectionSet>,
}

impl<'q> Selected<'q> {
    /// The name of the field.
    pub fn name(&self) -> &'q str {
        &self.field.name.node
    }

    /// Its key in the answer: the alias, or the name.
    pub fn key(&self) -> &'q str {
        &self.field.response_key().node
    }
}

impl<'q> Planner<'q> {
    /// The fields asked of an object of type `type_name`. `is` tells whether a fragment on a type applies to it.
    pub fn collect(
        &self,
        is: &dyn Fn(&str) -> bool,
        sets: &[&'q SelectionSet],
    ) -> Result<Vec<Selected<'q>>, RequestError> {
        let mut fields = Vec::new();
        for set in sets {
            self.collect_into(is, set, &mut fields)?;
        }
        Ok(fields)
    }

    fn collect_into(
        &self,
        is: &dyn Fn(&str) -> bool,
        set: &'q SelectionSet,
        fields: &mut Vec<Selected<'q>>,
    ) -> Result<(), RequestError> {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    if self.is_included(&field.node.directives) {
                        merge(fields, field)?;
                    }
                }
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    let applies = condition.is_none_or(|condition| is(&condition.node.on.node));
                    if applies && self.is_included(&fragment.node.directives) {
                        self.collect_into(is, &fragment.node.selection_set.node, fields)?;
                    }
                }
                Selection::FragmentSpread(spread) => {
                    // Validation has seen to it that the fragment exists and that there are no cycles.
                    let fragment = self.fragments.get(&spread.node.fragment_name.node);
                    let applies = fragment.filter(|fragment| is(&fragment.node.type_condition.node.on.node));
                    if let Some(fragment) = applies.filter(|_| self.is_included(&spread.node.directives)) {
                        self.collect_into(is, &fragment.node.selection_set.node, fields)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn is_included(&self, directives: &[Positioned<Directive>]) -> bool {
        directives.iter().all(|directive| {
            let wanted = match directive.node.name.node.as_str() {
                "skip" => false,
                "include" => true,
                _ => return true,
            };
            let condition = directive.node.arguments.iter().find(|(name, _)| name.node == "if");
            let value = condition.and_then(|(_, value)| self.value(&value.node));
            value.is_none_or(|value| value == Value::Boolean(wanted))
        })
    }

    /// The arguments of a field with variables put in. An argument whose variable is absent is absent.
    pub fn arguments(&self, field: &Field) -> Value {
        let given = field.arguments.iter();
        Value::Object(
            given.filter_map(|(name, value)| Some((name.node.clone(), self.value(&value.node)?))).collect(),
        )
    }

    /// One argument of a field. The value of a variable is not copied.
    pub fn argument(&self, field: &Field, name: &str) -> Option<Cow<'q, Value>> {
        let (_, value) = field.arguments.iter().find(|(given, _)| given.node == name)?;
        match &value.node {
            InputValue::Variable(name) => self.variables.get(name).map(Cow::Borrowed),
            value => self.value(value).map(Cow::Owned),
        }
    }

    fn value(&self, value: &InputValue) -> Option<Value> {
        Some(match value {
            InputValue::Variable(name) => return self.variables.get(name).cloned(),
            InputValue::Null => Value::Null,
            InputValue::Number(number) => Value::Number(number.clone()),
            InputValue::String(text) => Value::String(text.clone()),
            InputValue::Boolean(boolean) => Value::Boolean(*boolean),
            InputValue::Binary(bytes) => Value::Binary(bytes.clone()),
            InputValue::Enum(name) => Value::Enum(name.clone()),
            InputValue::List(items) => {
                Value::List(items.iter().map(|item| self.value(item).unwrap_or_default()).collect())
            }
            InputValue::Object(fields) => Value::Object(
                fields.iter().filter_map(|(name, value)| Some((name.clone(), self.value(value)?))).collect(),
            ),
        })
    }
}

/// Adds a field, or its selections to the one that has its response key already.
fn merge<'q>(fields: &mut Vec<Selected<'q>>, field: &'q Positioned<Field>) -> Result<(), RequestError> {
    let key = &field.node.response_key().node;
    let Some(known) = fields.iter_mut().find(|known| known.key() == key.as_str()) else {
        fields.push(Selected {
            field: &field.node,
            location: field.pos.into(),
            sets: vec![&field.node.selection_set.node],
        });
        return Ok(());
    };
    if known.field.name.node != field.node.name.node || !same_arguments(known.field, &field.node) {
        let message = format!(
            "Fields \"{key}\" conflict: they ask for different things. Use different aliases on the fields \
             to fetch both."
        );
        return Err(RequestError::new(Code::ValidationFailed, message).at(known.location).at(field.pos));
    }
    known.sets.push(&field.node.selection_set.node);
    Ok(())
}

fn same_arguments(a: &Field, b: &Field) -> bool {
    a.arguments.len() == b.arguments.len()
        && a.arguments.iter().all(|(name, value)| {
            b.arguments.iter().any(|(other, given)| name.node == other.node && value.node == given.node)
        })
}
