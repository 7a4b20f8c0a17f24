//! What a version's answers look like, as JSON Schema (draft 2020-12), for clients and generators of code. For a form
//! without rules its verdict on tidy answers (no blanks, no white space around texts, NFC) is that of
//! `forms::pipeline`; what a schema cannot say (rules, limits of decimals that are sent as texts) stands in
//! annotations that begin with `x-`. Which telephone numbers a country has is checked by the server alone.

use serde_json::{Map, Value, json};

use super::{
    definition::{Definition, Field, FieldIndex, Kind, MAX_DECIMAL, Required},
    pattern::Format,
};

/// A text that is not blank.
const NOT_BLANK: &str =
    "[^\\t-\\r \\x85\\xA0\\u1680\\u2000-\\u200B\\u2028\\u2029\\u202F\\u205F\\u2060\\u3000\\uFEFF]";
/// A text that can be stored.
const NO_NUL: &str = "^[^\\x00]*$";

/// The schema of a form's answers.
pub(super) fn of(definition: &Definition) -> Value {
    let mut schema = object(definition, &definition.top);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema
}

fn object(definition: &Definition, fields: &[FieldIndex]) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for index in fields {
        let field = &definition.fields[*index];
        if matches!(field.kind, Kind::Note) {
            continue;
        }
        if is_needed(definition, field) {
            required.push(field.key.as_str());
        }
        properties.insert(field.key.clone(), property(definition, field));
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// Are there no answers without this one?
fn is_needed(definition: &Definition, field: &Field) -> bool {
    let inside = || field.kind.children().iter().map(|child| &definition.fields[*child]);
    field.relevant.is_none()
        && match field.kind {
            Kind::Group(_) => inside().any(|field| is_needed(definition, field)),
            _ => field.required == Required::Yes,
        }
}

fn property(definition: &Definition, field: &Field) -> Value {
    let is_required = field.required == Required::Yes;
    let mut schema = match &field.kind {
        Kind::Text { chars, pattern } => {
            let mut patterns = vec![NO_NUL];
            patterns.extend(is_required.then_some(NOT_BLANK));
            patterns.extend(pattern.as_ref().map(|pattern| pattern.text.as_str()));
            let patterns: Vec<Value> =
                patterns.into_iter().map(|pattern| json!({ "pattern": pattern })).collect();
            let (least, most) = (chars.start(), chars.end());
            json!({ "type": "string", "minLength": least, "maxLength": most, "allOf": patterns })
        }
        Kind::Format(format) => {
            json!({ "type": "string", "pattern": format.pattern(), "maxLength": format.max_chars() })
        }
        Kind::Integer(range) => {
            json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
        }
        Kind::Decimal(range) => decimal(*range.start(), *range.end()),
        Kind::Consent if is_required => json!({ "const": true }),
        Kind::Boolean | Kind::Consent => json!({ "type": "boolean" }),
        Kind::SelectOne(choices) => json!({ "enum": choices }),
        Kind::SelectMany { choices, items } => json!({
            "type": "array", "items": { "enum": choices }, "uniqueItems": true,
            "minItems": (*items.start()).max(usize::from(is_required)), "maxItems": items.end(),
        }),
        Kind::GeoPoint => json!({
            "type": "object",
            "properties": {
                "latitude": { "type": "number", "minimum": -90, "maximum": 90 },
                "longitude": { "type": "number", "minimum": -180, "maximum": 180 },
                "accuracy": { "type": "number", "minimum": 0 },
            },
            "required": ["latitude", "longitude"],
            "additionalProperties": false,
        }),
        Kind::Calculated(rule) => json!({ "readOnly": true, "x-calculate": rule }),
        Kind::Note => json!({}),
        Kind::Group(fields) => object(definition, fields),
        Kind::Repeat { fields, items } => json!({
            "type": "array", "items": object(definition, fields),
            "minItems": (*items.start()).max(usize::from(is_required)), "maxItems": items.end(),
        }),
    };
    if let Some(rule) = &field.relevant {
        schema["x-relevant"] = rule.clone();
    }
    if let Required::When(rule) = &field.required {
        schema["x-required"] = rule.clone();
    }
    if !field.valid.is_empty() {
        schema["x-valid"] = field.valid.iter().map(|valid| valid.rule.clone()).collect();
    }
    schema
}

fn decimal(min: f64, max: f64) -> Value {
    let mut text = json!({
        "type": "string", "pattern": Format::Decimal.pattern(), "maxLength": Format::Decimal.max_chars(),
    });
    if min > -MAX_DECIMAL {
        text["x-minimum"] = json!(min);
    }
    if max < MAX_DECIMAL {
        text["x-maximum"] = json!(max);
    }
    json!({ "anyOf": [{ "type": "number", "minimum": min, "maximum": max }, text] })
}
