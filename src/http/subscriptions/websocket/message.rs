//! What a client says in `graphql-transport-ws`, read within the bounds that bodies of HTTP have: nothing is
//! built of what is not needed. Not here: what is done with it.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::close::{self, Close};
use crate::http::params::{self, Bounds};

/// Longest message that is no `subscribe`, bytes.
const LONGEST_OTHER: usize = 16 << 10;
/// Longest id of an operation, bytes: each of its answers repeats it.
const LONGEST_ID: usize = 256;

/// A message.
#[derive(Debug, Deserialize)]
pub(super) struct ClientMessage<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) id: Option<Cow<'a, str>>,
    /// Present and not null.
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
}

impl<'a> ClientMessage<'a> {
    /// Reads a message.
    pub(super) fn read(text: &'a str, bounds: Bounds) -> Result<Self, Close> {
        // serde would take an array for the fields of an object in their order.
        if !text.trim_start().starts_with('{') {
            return Err(close::INVALID_MESSAGE);
        }
        // The payload of `subscribe` is what a body is, one level further in.
        let bounds = Bounds { depth: bounds.depth + 1, ..bounds };
        params::check_json(text.as_bytes(), bounds).map_err(|_| close::TOO_MUCH_JSON)?;
        let message: Self = serde_json::from_str(text).map_err(|_| close::INVALID_MESSAGE)?;
        if message.kind != "subscribe" && text.len() > LONGEST_OTHER {
            return Err(close::TOO_LARGE);
        }
        if message.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > LONGEST_ID) {
            return Err(close::INVALID_MESSAGE);
        }
        if message.payload.is_some_and(|payload| !is_object(payload)) {
            return Err(close::INVALID_PAYLOAD);
        }
        Ok(message)
    }

    /// The value that would stand in a header of this name, where clients put it: in the payload under that
    /// name, or in its `headers`; the case of the name does not matter. `None`: there is none.
    pub(super) fn header(&self, name: &'static str) -> Result<Option<String>, Close> {
        let Some(payload) = self.payload else { return Ok(None) };
        let outer = ConnectionParams::of(payload, name)?;
        let mut given = outer.values;
        for headers in outer.headers {
            if !is_object(headers) {
                return Err(close::UNREADABLE);
            }
            given.extend(ConnectionParams::of(headers, name)?.values);
        }
        let mut texts = given.into_iter().map(|given| serde_json::from_str::<String>(given.get()));
        let first = texts.next().transpose().map_err(|_| close::UNREADABLE)?;
        // Of two that differ nobody can say which is meant.
        if texts.any(|other| other.ok() != first) {
            return Err(close::UNREADABLE);
        }
        Ok(first)
    }
}

fn is_object(json: &RawValue) -> bool {
    json.get().trim_start().starts_with('{')
}

fn is_null(json: &RawValue) -> bool {
    json.get().trim() == "null"
}

/// What is looked for in an object; the rest of it is skipped.
#[derive(Default)]
struct ConnectionParams<'a> {
    values: Vec<&'a RawValue>,
    headers: Vec<&'a RawValue>,
}

impl<'a> ConnectionParams<'a> {
    fn of(object: &'a RawValue, name: &'static str) -> Result<Self, Close> {
        let mut json = serde_json::Deserializer::from_str(object.get());
        json.deserialize_map(ConnectionParamsVisitor { name, of: PhantomData })
            .map_err(|_| close::INVALID_PAYLOAD)
    }
}

struct ConnectionParamsVisitor<'a> {
    /// The header that is looked for.
    name: &'static str,
    of: PhantomData<&'a ()>,
}

impl<'de: 'a, 'a> Visitor<'de> for ConnectionParamsVisitor<'a> {
    type Value = ConnectionParams<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ConnectionParams<'a>, A::Error> {
        let mut params = ConnectionParams::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let found = if name.eq_ignore_ascii_case(self.name) {
                &mut params.values
            } else if name.eq_ignore_ascii_case("headers") {
                &mut params.headers
            } else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &'de RawValue = map.next_value()?;
            if !is_null(value) {
                found.push(value);
            }
        }
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, depth: 4, values: 50, batch: 0, sets: 0 };

    fn authorization(payload: &str) -> Result<Option<String>, u16> {
        let text = format!(r#"{{"type":"connection_init","payload":{payload}}}"#);
        let message = ClientMessage::read(&text, BOUNDS).map_err(|close| close.code)?;
        message.header("authorization").map_err(|close| close.code)
    }

    #[test]
    fn the_authorization_is_found_or_refused() {
        let bearer = Ok(Some("Bearer x".to_owned()));
        for payload in [
            r#"{"authorization":"Bearer x"}"#,
            r#"{"AUTHORIZATION":"Bearer x","other":[1,{"a":{}}]}"#,
            r#"{"headers":{"Authorization":"Bearer x"}}"#,
            r#"{"headers":{"b":1},"Headers":{"authorization":"Bearer \u0078"}}"#,
            r#"{"authorization":"Bearer x","headers":{"Authorization":"Bearer x"}}"#,
            r#"{"authorization":null,"headers":{"Authorization":"Bearer x"}}"#,
        ] {
            assert_eq!(authorization(payload), bearer, "{payload}");
        }
        for payload in ["null", "{}", r#"{"authorization":null}"#, r#"{"headers":null}"#, r#"{"token":"x"}"#]
        {
            assert_eq!(authorization(payload), Ok(None), "{payload}");
        }
        for payload in [
            r#"{"authorization":5}"#,
            r#"{"authorization":["Bearer x"]}"#,
            r#"{"authorization":{"bearer":"x"}}"#,
            r#"{"authorization":true}"#,
            r#"{"authorization":"\ud800"}"#,
            r#"{"headers":"Bearer x"}"#,
            r#"{"headers":[["authorization","Bearer x"]]}"#,
            r#"{"headers":{"authorization":5}}"#,
            r#"{"authorization":"Bearer x","Authorization":"Bearer y"}"#,
            r#"{"authorization":"Bearer x","headers":{"authorization":"Bearer y"}}"#,
        ] {
            assert_eq!(authorization(payload), Err(4403), "{payload}");
        }
        for payload in [r#""str""#, "5", "[]", "true", r#"[{"authorization":"Bearer x"}]"#] {
            assert_eq!(authorization(payload), Err(4400), "{payload}");
        }
    }

    #[test]
    fn every_kind_of_message_has_the_bounds_of_bodies() {
        let code = |text: &str| ClientMessage::read(text, BOUNDS).err().map(|close| close.code);
        for kind in ["connection_init", "ping", "pong", "complete", "subscribe", "unknown"] {
            let of = |payload: &str| format!(r#"{{"type":"{kind}","id":"1","payload":{payload}}}"#);
            assert_eq!(code(&of(r#"{"a":[[[1]]]}"#)), None, "{kind}");
            assert_eq!(code(&of(r#"{"a":[[[[1]]]]}"#)), Some(4400), "{kind}: too deep");
            let wide = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(50));
            assert_eq!(code(&of(&wide)), Some(4400), "{kind}: too many values");
            let long = of(&format!(r#"{{"a":"{}"}}"#, "x".repeat(LONGEST_OTHER)));
            assert_eq!(code(&long), (kind != "subscribe").then_some(1009), "{kind}: too long");
            assert_eq!(code(&of("[1]")), Some(4400), "{kind}: no object");
        }
        let id = |id: &str| code(&format!(r#"{{"type":"complete","id":{id}}}"#));
        assert_eq!(id(r#""1""#), None);
        for bad in ["1", r#""""#, &format!("\"{}\"", "x".repeat(LONGEST_ID + 1))] {
            assert_eq!(id(bad), Some(4400), "{bad}");
        }
        for text in
            ["", "{", "[]", r#"["ping",null,null]"#, "5", "{}", r#"{"type":1}"#, r#"{"type":"a","type":"b"}"#]
        {
            assert_eq!(code(text), Some(4400), "{text}");
        }
    }
}
