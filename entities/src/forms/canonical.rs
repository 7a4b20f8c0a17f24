//! A definition as it is stored when it is published. Texts are composed (Unicode NFC), as answers are:
//! choices, texts in rules, patterns and labels then equal what people type, whatever made the file. The
//! values of choices have no white space around them, as answers have none. And of ways to write a rule that
//! `json-logic-engine` reads in two ways, the way that it reads in one. Not here: what may be published
//! (`compiled`).

use serde_json::{Map, Value, json};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use super::tidy::tidy_text;

/// The document with all its texts composed. Keys stay: those that count are ASCII, and the others are the author's.
pub(super) fn composed(document: &Value) -> Value {
    match document {
        Value::String(text) if !is_nfc(text) => Value::String(text.nfc().collect()),
        Value::Array(items) => items.iter().map(composed).collect(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| (key.clone(), composed(value))).collect::<Map<_, _>>().into()
        }
        value => value.clone(),
    }
}

/// The document with its rules written so that they mean the same everywhere: `{"cat": [x, ""]}` instead of
/// `{"cat": [x]}`. Alone, a list is joined by commas or by nothing, depending on how often the engine has
/// seen the rule.
pub(super) fn portable(mut document: Value) -> Value {
    if let Some(fields) = document.get_mut("fields") {
        rewrite_fields(fields);
    }
    document
}

/// The document with the values of its choices as answers are: without white space around them, and composed.
pub(super) fn with_tidy_choices(mut document: Value) -> Value {
    if let Some(fields) = document.get_mut("fields") {
        tidy_choices(fields);
    }
    document
}

fn tidy_choices(fields: &mut Value) {
    for field in fields.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        let choices = field.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten();
        for value in choices.filter_map(|choice| choice.get_mut("value")) {
            if let Some(tidy) = value.as_str().and_then(tidy_text) {
                *value = Value::String(tidy);
            }
        }
        field.get_mut("fields").into_iter().for_each(tidy_choices);
    }
}

fn rewrite_fields(fields: &mut Value) {
    for field in fields.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for rule in ["relevant", "required", "calculate"] {
            field.get_mut(rule).into_iter().for_each(rewrite_rule);
        }
        for valid in field.get_mut("valid").and_then(Value::as_array_mut).into_iter().flatten() {
            valid.get_mut("rule").into_iter().for_each(rewrite_rule);
        }
        field.get_mut("fields").into_iter().for_each(rewrite_fields);
    }
}

fn rewrite_rule(rule: &mut Value) {
    match rule {
        Value::Array(items) => items.iter_mut().for_each(rewrite_rule),
        Value::Object(operation) => {
            for (operator, given) in operation.iter_mut() {
                rewrite_rule(given);
                if operator == "cat" {
                    let only = match given {
                        Value::Array(items) if items.len() == 1 => items.pop(),
                        Value::Array(_) => None,
                        _ => Some(given.take()),
                    };
                    if let Some(only) = only {
                        *given = json!([only, ""]);
                    }
                }
            }
        }
        _ => {}
    }
}
