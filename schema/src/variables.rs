//! Variables, coerced as the specification has it (October 2021, §6.1.2) before anything runs: required ones are
//! there, defaults are put in, values fit their types. The input types are read from the schema's own SDL, so there
//! is no second description of them.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned, Value, Variables,
    parser::types::{
        BaseType, EnumType, InputObjectType, ServiceDocument, Type, TypeKind, TypeSystemDefinition,
        VariableDefinition,
    },
};

use crate::error::{Code, RequestError};

mod read;
pub use read::read;

/// The types that a variable can have.
pub(crate) struct InputTypes {
    enums: HashMap<Name, EnumType>,
    objects: HashMap<Name, InputObject>,
}

struct InputObject {
    definition: InputObjectType,
    one_of: bool,
}

impl InputTypes {
    /// Reads them from the schema's SDL.
    pub(crate) fn of(sdl: &ServiceDocument) -> Self {
        let (mut enums, mut objects) = (HashMap::new(), HashMap::new());
        for definition in sdl.definitions.iter().cloned() {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let definition = definition.node;
            match definition.kind {
                TypeKind::Enum(kind) => drop(enums.insert(definition.name.node, kind)),
                TypeKind::InputObject(kind) => {
                    let one_of =
                        definition.directives.iter().any(|directive| directive.node.name.node == "oneOf");
                    objects.insert(definition.name.node, InputObject { definition: kind, one_of });
                }
                _ => {}
            }
        }
        Self { enums, objects }
    }

    /// The values of an operation's variables.
    pub(crate) fn coerce(
        &self,
        definitions: &[Positioned<VariableDefinition>],
        mut given: Variables,
    ) -> Result<Variables, RequestError> {
        let mut values = Variables::default();
        for definition in definitions {
            let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
            let refuse = |reason: String| {
                let message = format!("Variable \"${}\" {reason}", cut(&name.node));
                RequestError::new(Code::BadUserInput, message).at(definition.pos)
            };
            let default = default_value.as_ref().map(|value| value.node.clone());
            match given.remove(&name.node).or(default) {
                Some(mut value) => {
                    self.fit(&mut value, &var_type.node).map_err(refuse)?;
                    values.insert(name.node.clone(), value);
                }
                None if var_type.node.nullable => {}
                None => {
                    return Err(refuse(format!("of required type \"{}\" was not provided.", var_type.node)));
                }
            }
        }
        Ok(values)
    }

    /// Makes `value` one of type `wanted`, or says in a sentence that goes on after the variable's name why it is not.
    fn fit(&self, value: &mut Value, wanted: &Type) -> Result<(), String> {
        if *value == Value::Null {
            return if wanted.nullable {
                Ok(())
            } else {
                Err(format!("must not be null: it is a \"{wanted}\"."))
            };
        }
        match &wanted.base {
            BaseType::List(item) => match value {
                Value::List(items) => items.iter_mut().try_for_each(|value| self.fit(value, item)),
                // One value stands for a list of one (§3.11).
                single => {
                    self.fit(single, item)?;
                    *single = Value::List(vec![std::mem::take(single)]);
                    Ok(())
                }
            },
            BaseType::Named(name) => self.fit_named(value, name),
        }
    }

    fn fit_named(&self, value: &mut Value, name: &Name) -> Result<(), String> {
        if let Some(object) = self.objects.get(name) {
            return self.fit_object(value, name, object);
        }
        if let Some(kind) = self.enums.get(name) {
            // A string in the request's JSON, a name in a default of the document.
            let given = match value {
                Value::String(text) => Some(text.as_str()),
                Value::Enum(name) => Some(name.as_str()),
                _ => None,
            };
            let is = |known: &Name| given == Some(known.as_str());
            return if kind.values.iter().any(|known| is(&known.node.value.node)) {
                Ok(())
            } else {
                Err(format!("does not name a value of the enum \"{name}\"."))
            };
        }
        let fits = match (name.as_str(), &*value) {
            ("Int", Value::Number(number)) => {
                number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
            }
            ("Float", Value::Number(number)) => number.as_f64().is_some_and(f64::is_finite),
            ("String" | "ID", Value::String(_)) | ("Boolean", Value::Boolean(_)) => true,
            ("ID", Value::Number(number)) => number.is_i64() || number.is_u64(),
            ("DateTime", Value::String(text)) => chrono::DateTime::parse_from_rfc3339(text).is_ok(),
            ("Int" | "Float" | "String" | "Boolean" | "ID" | "DateTime", _) => false,
            // Custom scalars without a rule of their own, and types that validation will refuse.
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("does not fit the type \"{name}\".")) }
    }

    fn fit_object(&self, value: &mut Value, name: &Name, object: &InputObject) -> Result<(), String> {
        let Value::Object(fields) = value else {
            return Err(format!("must be an object of type \"{name}\"."));
        };
        let known = |name: &Name| object.definition.fields.iter().any(|field| field.node.name.node == *name);
        if let Some(unknown) = fields.keys().find(|name| !known(name)) {
            return Err(format!("has a field \"{}\" that \"{name}\" does not know.", cut(unknown)));
        }
        if object.one_of && (fields.len() != 1 || fields.values().any(|value| *value == Value::Null)) {
            return Err(format!("must have exactly one of the fields of \"{name}\"."));
        }
        for field in &object.definition.fields {
            let field = &field.node;
            match fields.get_mut(&field.name.node) {
                Some(value) => self
                    .fit(value, &field.ty.node)
                    .map_err(|reason| format!("in field \"{}\" {reason}", field.name.node))?,
                None => match &field.default_value {
                    Some(default) => drop(fields.insert(field.name.node.clone(), default.node.clone())),
                    None if field.ty.node.nullable => {}
                    None => return Err(format!("lacks the required field \"{}\".", field.name.node)),
                },
            }
        }
        Ok(())
    }
}

/// A name as it is echoed.
fn cut(name: &str) -> String {
    name.chars().take(64).collect()
}
