//! What is done to all answers before they are looked at: white space around texts goes, texts are composed (NFC), and
//! what is blank is left out. Clients that check answers by a version's JSON Schema, or evaluate rules, do the same
//! first; docs/forms.md says how. Not here: what only one type of field means by its answers (`pipeline::parse`).

use serde_json::Value;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

use crate::unicode::is_space;

/// Leaves out of an object, or of a list's objects, what is blank: `null`, a text of white space alone, a list of
/// nothing but those, and an object that is a member and has nothing left. The entries of lists keep their places.
pub(super) fn tidy(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(canonical) = tidy_text(text) {
                *text = canonical;
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(tidy),
        Value::Object(members) => members.retain(|_, member| {
            tidy(member);
            !is_blank(member) && !member.as_object().is_some_and(serde_json::Map::is_empty)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Is it as good as nothing, once it is tidy?
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(entries) => entries.iter().all(is_blank),
        Value::Object(_) | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Without white space around it, and composed; nothing where it is so already.
pub(crate) fn tidy_text(text: &str) -> Option<String> {
    let trimmed = text.trim_matches(is_space);
    if is_nfc_quick(trimmed.chars()) != IsNormalized::Yes {
        return Some(trimmed.nfc().collect());
    }
    (trimmed.len() < text.len()).then(|| trimmed.to_owned())
}
