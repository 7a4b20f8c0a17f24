//! Variables as they come over the wire. A gateway sends hundreds of representations, objects with the same few names:
//! each name is made once and then pointed to, and an object gets its room at once, which is half of what the library's
//! own reading asks of the allocator. What is read is the same. Not here: whether values fit their types.

use std::fmt;

use async_graphql::{Name, Value, Variables, indexmap::IndexMap};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

/// Names that are remembered at most; further ones are made each time they come.
const MOST_NAMES: usize = 16;
/// Room that an object gets before its fields are read, at most.
const MOST_ROOM: usize = 8;

/// The values of the variables of one request.
#[derive(Debug)]
pub enum VariableSets {
    /// One set: the request has one answer.
    One(Variables),
    /// A list of sets: the document runs once for each of them, and each has its own answer.
    Many(Vec<Variables>),
}

impl Default for VariableSets {
    fn default() -> Self {
        Self::One(Variables::default())
    }
}

impl VariableSets {
    /// How many executions they ask for.
    pub fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(sets) => sets.len(),
        }
    }
}

/// Reads an object of variables, a list of such objects, or null.
///
/// # Errors
/// The deserializer's, and where there is something else.
pub fn read<'de, D: Deserializer<'de>>(from: D) -> Result<VariableSets, D::Error> {
    let set = |value| match value {
        value @ Value::Object(_) => Ok(Variables::from_value(value)),
        _ => Err(D::Error::custom("a set of variables is an object")),
    };
    match Reading(&mut Known::default()).deserialize(from)? {
        Value::Null => Ok(VariableSets::default()),
        Value::List(sets) => sets.into_iter().map(set).collect::<Result<_, _>>().map(VariableSets::Many),
        value => set(value).map(VariableSets::One),
    }
}

/// What was seen so far.
#[derive(Default)]
struct Known {
    names: Vec<Name>,
    /// Fields of the last object.
    room: usize,
}

impl Known {
    fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.iter().find(|name| name.as_str() == text) {
            return name.clone();
        }
        let name = Name::new(text);
        if self.names.len() < MOST_NAMES {
            self.names.push(name.clone());
        }
        name
    }
}

/// Reads one value.
struct Reading<'k>(&'k mut Known);

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Reading(&mut *self.0))? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = IndexMap::with_capacity(self.0.room.min(MOST_ROOM));
        while let Some(name) = fields.next_key_seed(FieldName(&mut *self.0))? {
            object.insert(name, fields.next_value_seed(Reading(&mut *self.0))?);
        }
        self.0.room = object.len();
        Ok(Value::Object(object))
    }
}

/// Reads the name of a field.
struct FieldName<'k>(&'k mut Known);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Name, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
        Ok(self.0.name(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_like_the_library_does() {
        let names: Vec<String> = (0..40).map(|number| format!("\"n{number}\":{number}")).collect();
        for text in [
            "null".to_owned(),
            "{}".to_owned(),
            r#"{"a":null,"b":[true,false,[]],"c":{"d":-1,"e":1.5,"f":"\u0041\n","f":"again"}}"#.to_owned(),
            r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":1e300,"d":-0.0,"e":9007199254740993}"#
                .to_owned(),
            r#"{"r":[{"__typename":"User","id":"1"},{"id":"2","__typename":"User"},{"x":{"id":{"id":1}}}]}"#
                .to_owned(),
            format!("{{{}, \"again\": {{{}}}}}", names.join(","), names.join(",")),
        ] {
            let theirs: Variables = serde_json::from_str(&text).expect("variables");
            let Ok(VariableSets::One(mine)) = read_text(&text) else { panic!("{text}") };
            assert_eq!(format!("{mine:?}"), format!("{theirs:?}"), "{text}");
            let listed = read_text(&format!("[{},{{}}]", text.replace("null", "{}")));
            assert!(matches!(listed, Ok(VariableSets::Many(sets)) if sets.len() == 2), "{text}");
        }
    }

    fn read_text(text: &str) -> serde_json::Result<VariableSets> {
        read(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn only_objects_and_lists_of_them_are_variables() {
        for text in ["1", "\"{}\"", "true", "[null]", "[[]]", "[{}, 1]", "[{}"] {
            assert!(read_text(text).is_err(), "{text}");
        }
        assert_eq!(read_text("[{},{},{}]").map(|sets| sets.count()).ok(), Some(3));
        assert_eq!(read_text("null").map(|sets| sets.count()).ok(), Some(1));
        assert_eq!(read_text("[]").map(|sets| sets.count()).ok(), Some(0));
    }
}
