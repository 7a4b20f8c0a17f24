//! Variables, coerced as the specification has it (October 2021, §6.1.2) before anything runs: required ones
//! are there, defaults are put in, values fit their types. The input types are read from the schema's own
//! SDL, so there is no second description of them. What does not fit is named by its place and its type,
//! never by its value, which may be a password. One thing is laxer than the specification: what a device has
//! collected and sends in one batch is judged item by item (`item`), so that one bad item does not hold up
//! the others.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned, ScalarType as _, Value, Variables,
    parser::types::{
        BaseType, EnumType, InputObjectType, ServiceDocument, Type, TypeKind, TypeSystemDefinition,
        VariableDefinition,
    },
};

use crate::{
    error::{Code, RequestError},
    scalar::DateTime,
};

pub mod item;
mod read;

use item::Malformed;
pub use read::{VariableSets, read};

/// The types that a variable can have.
pub struct InputTypes {
    enums: HashMap<Name, EnumType>,
    objects: HashMap<Name, InputObject>,
    /// Input types whose lists are batches: each item is judged by itself.
    judged_alone: &'static [&'static str],
}

struct InputObject {
    definition: InputObjectType,
    one_of: bool,
}

impl InputTypes {
    /// Reads them from the schema's SDL. Items of lists of the types `judged_alone` are judged each by itself (`Item`).
    pub fn of(sdl: &ServiceDocument, judged_alone: &'static [&'static str]) -> Self {
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
        Self { enums, objects, judged_alone }
    }

    /// The values of an operation's variables.
    pub fn coerce(
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
                    self.fit(&mut value, &var_type.node).map_err(|misfit| {
                        refuse(if misfit.path.is_empty() {
                            format!("got an invalid value: {}", misfit.reason)
                        } else {
                            let place = misfit.path_of(&cut(&name.node));
                            format!("got an invalid value at \"{place}\": {}", misfit.reason)
                        })
                    })?;
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

    /// Makes `value` one of type `wanted`, or says where it is not, and why.
    fn fit(&self, value: &mut Value, wanted: &Type) -> Result<(), Misfit> {
        if *value == Value::Null {
            return if wanted.nullable { Ok(()) } else { Err(Misfit::missing(wanted)) };
        }
        match &wanted.base {
            BaseType::List(item) => match value {
                Value::List(items) => items.iter_mut().enumerate().try_for_each(|(index, value)| {
                    self.fit_item(value, item).map_err(|misfit| misfit.within(PathStep::Index(index)))
                }),
                // One value stands for a list of one (§3.11).
                single => {
                    self.fit_item(single, item)?;
                    *single = Value::List(vec![std::mem::take(single)]);
                    Ok(())
                }
            },
            BaseType::Named(name) => self.fit_named(value, name),
        }
    }

    /// An item of a list; of a list that is judged item by item, what is wrong takes the item's place.
    fn fit_item(&self, value: &mut Value, wanted: &Type) -> Result<(), Misfit> {
        match (self.fit(value, wanted), &wanted.base) {
            (Err(misfit), BaseType::Named(name)) if self.judged_alone.contains(&name.as_str()) => {
                *value = Malformed::from(misfit).into_value();
                Ok(())
            }
            (fits, _) => fits,
        }
    }

    fn fit_named(&self, value: &mut Value, name: &Name) -> Result<(), Misfit> {
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
                Err(Misfit::wrong(format!("Expected a value of the enum \"{name}\".")))
            };
        }
        if matches!(name.as_str(), "Int" | "ID") {
            make_whole(value, name == "ID");
        }
        let fits = match (name.as_str(), &*value) {
            ("Int", Value::Number(number)) => {
                number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
            }
            ("Float", Value::Number(number)) => number.as_f64().is_some_and(f64::is_finite),
            ("String" | "ID", Value::String(_)) | ("Boolean", Value::Boolean(_)) => true,
            ("ID", Value::Number(number)) => number.is_i64() || number.is_u64(),
            ("DateTime", value) => DateTime::is_valid(value),
            ("Int" | "Float" | "String" | "Boolean" | "ID", _) => false,
            // Custom scalars without a rule of their own, and types that validation will refuse.
            _ => true,
        };
        if fits { Ok(()) } else { Err(Misfit::wrong(expected(name))) }
    }

    fn fit_object(&self, value: &mut Value, name: &Name, object: &InputObject) -> Result<(), Misfit> {
        let Value::Object(fields) = value else {
            return Err(Misfit::wrong(format!("Expected an object of type \"{name}\".")));
        };
        let known = |name: &Name| object.definition.fields.iter().any(|field| field.node.name.node == *name);
        if let Some(unknown) = fields.keys().find(|name| !known(name)) {
            let reason = format!("Field \"{}\" is not defined by type \"{name}\".", cut(unknown));
            return Err(Misfit::wrong(reason));
        }
        if object.one_of && (fields.len() != 1 || fields.values().any(|value| *value == Value::Null)) {
            return Err(Misfit::wrong(format!("Expected exactly one of the fields of \"{name}\".")));
        }
        for field in &object.definition.fields {
            let field = &field.node;
            let within = |misfit: Misfit| misfit.within(PathStep::Field(field.name.node.clone()));
            match fields.get_mut(&field.name.node) {
                Some(value) => self.fit(value, &field.ty.node).map_err(within)?,
                None => match &field.default_value {
                    Some(default) => drop(fields.insert(field.name.node.clone(), default.node.clone())),
                    None if field.ty.node.nullable => {}
                    None => return Err(within(Misfit::missing(&field.ty.node))),
                },
            }
        }
        Ok(())
    }
}

/// Some clients write whole numbers as `1.0` or `1e3`: these are whole all the same. An id of more digits than integers
/// have becomes a text.
fn make_whole(value: &mut Value, is_id: bool) {
    let Value::Number(number) = &*value else { return };
    let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) else { return };
    if is_id {
        *value = Value::String(format!("{float:.0}"));
    } else if float.abs() <= f64::from(i32::MAX) + 1.0 {
        *value = Value::from(float as i64);
    }
}

/// What a scalar's values are.
fn expected(name: &Name) -> String {
    match name.as_str() {
        "Int" => "Expected a whole number from -2147483648 to 2147483647.".to_owned(),
        "Float" => "Expected a number.".to_owned(),
        "Boolean" => "Expected true or false.".to_owned(),
        "String" => "Expected a string.".to_owned(),
        "ID" => "Expected an id: a string.".to_owned(),
        "DateTime" => {
            "Expected a time such as \"2026-01-02T03:04:05Z\" (RFC 3339), in the years 0001 to 9999."
                .to_owned()
        }
        _ => format!("Expected a value of type \"{name}\"."),
    }
}

/// Where a value cannot be used, and why.
struct Misfit {
    /// From the inside out.
    path: Vec<PathStep>,
    /// Nothing is there.
    is_missing: bool,
    /// A sentence.
    reason: String,
}

/// One step into a value.
enum PathStep {
    Field(Name),
    Index(usize),
}

impl Misfit {
    fn wrong(reason: String) -> Self {
        Self { path: Vec::new(), is_missing: false, reason }
    }

    fn missing(wanted: &Type) -> Self {
        let reason = format!("A value of type \"{wanted}\" is required.");
        Self { path: Vec::new(), is_missing: true, reason }
    }

    fn within(mut self, step: PathStep) -> Self {
        self.path.push(step);
        self
    }

    /// `i.points[1].timestamp`
    fn path_of(&self, variable: &str) -> String {
        self.path.iter().rev().fold(variable.to_owned(), |place, step| match step {
            PathStep::Field(name) => format!("{place}.{name}"),
            PathStep::Index(index) => format!("{place}[{index}]"),
        })
    }
}

impl From<Misfit> for Malformed {
    fn from(misfit: Misfit) -> Self {
        let steps = misfit.path.into_iter().rev().map(|step| match step {
            PathStep::Field(name) => name.to_string(),
            PathStep::Index(index) => index.to_string(),
        });
        Self { path: steps.collect(), is_missing: misfit.is_missing, message: misfit.reason }
    }
}

/// A name as it is echoed.
fn cut(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::{parse_query, parse_schema, types::DocumentOperations};

    use super::*;

    const SDL: &str = "
        type Query { a: Int }
        enum Role { ADMIN VIEWER }
        scalar DateTime
        scalar JSON
        input LocationPointInput { timestamp: DateTime! latitude: Float! accuracy: Float }
        input Batch { points: [LocationPointInput!]! name: String }
        input Inner { role: Role! count: Int = 3 times: [DateTime!] }
        input Outer { inner: [[Inner!]!]! secret: String! }
    ";

    fn coerce(of: &str, given: &str) -> Result<Variables, String> {
        let types = InputTypes::of(&parse_schema(SDL).expect("SDL"), &["LocationPointInput"]);
        let document = parse_query(format!("query($i: {of}) {{ a }}")).expect("a document");
        let DocumentOperations::Single(operation) = document.operations else { panic!("one operation") };
        let given = serde_json::from_str(&format!("{{\"i\":{given}}}")).expect("variables");
        types.coerce(&operation.node.variable_definitions, given).map_err(|error| error.message)
    }

    #[test]
    fn invalid_variables_are_named_by_their_path() {
        let inner = |inner: &str| format!(r#"{{"inner":[[{inner}]],"secret":"hunter2"}}"#);
        for (of, given, wanted) in [
            ("Int!", "null", "got an invalid value: A value of type \"Int!\" is required."),
            (
                "Int",
                "3000000000",
                "got an invalid value: Expected a whole number from -2147483648 to 2147483647.",
            ),
            (
                "[Int!]",
                "[1, \"hunter2\"]",
                "got an invalid value at \"i[1]\": Expected a whole number from -2147483648 to 2147483647.",
            ),
            ("Role", "\"hunter2\"", "got an invalid value: Expected a value of the enum \"Role\"."),
            (
                "Outer!",
                &inner(r#"{"role":"ADMIN"},{"role":"hunter2"}"#),
                "got an invalid value at \"i.inner[0][1].role\": Expected a value of the enum \"Role\".",
            ),
            (
                "Outer!",
                &inner(r#"{"count":1}"#),
                "got an invalid value at \"i.inner[0][0].role\": A value of type \"Role!\" is required.",
            ),
            (
                "Outer!",
                &inner(r#"{"role":"ADMIN","other":1}"#),
                "got an invalid value at \"i.inner[0][0]\": Field \"other\" is not defined by type \
                 \"Inner\".",
            ),
            (
                "Outer!",
                &inner(r#"{"role":"ADMIN","times":"2026-01-02 03:04"}"#),
                "got an invalid value at \"i.inner[0][0].times\": Expected a time such as \
                 \"2026-01-02T03:04:05Z\" (RFC 3339), in the years 0001 to 9999.",
            ),
            ("Outer", "\"hunter2\"", "got an invalid value: Expected an object of type \"Outer\"."),
            (
                "LocationPointInput",
                r#"{"timestamp":"9999-12-31T23:59:59-01:00","latitude":1}"#,
                "got an invalid value at \"i.timestamp\": Expected a time such as \"2026-01-02T03:04:05Z\" \
                 (RFC 3339), in the years 0001 to 9999.",
            ),
        ] {
            assert_eq!(coerce(of, given), Err(format!("Variable \"$i\" {wanted}")), "{of}: {given}");
        }
    }

    #[test]
    fn a_batch_is_judged_item_by_item() {
        let good = r#"{"timestamp":"2026-01-02T03:04:05Z","latitude":1}"#;
        let bad = r#"{"timestamp":"2026-01-02T03:04:05Z","latitude":"north"}"#;
        for (of, given) in [
            ("Batch!", format!(r#"{{"points":[{good},{bad},null,{good}]}}"#)),
            ("[LocationPointInput!]!", format!("[{good},{bad},null,{good}]")),
        ] {
            let values = coerce(of, &given).expect("the batch itself is well-formed");
            let points = match &values[&Name::new("i")] {
                Value::Object(batch) => &batch["points"],
                points => points,
            };
            let Value::List(points) = points else { panic!("a list") };
            let malformed: Vec<_> = points.iter().map(Malformed::of_value).collect();
            let [None, Some(wrong), Some(missing), None] = malformed.as_slice() else {
                panic!("{malformed:?}")
            };
            assert_eq!((wrong.path.as_slice(), wrong.is_missing), (&["latitude".to_owned()][..], false));
            assert_eq!((missing.path.len(), missing.is_missing), (0, true));
        }
        let whole = coerce("Batch!", &format!(r#"{{"points":[{good}],"name":5}}"#));
        assert!(whole.is_err_and(|message| message.contains("at \"i.name\"")));
        assert!(coerce("LocationPointInput", bad).is_err(), "by itself it is no item");
    }
}
