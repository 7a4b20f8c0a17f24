//! What is wrong with a document, and where: a definition that cannot be published, answers that break a rule. All
//! problems are collected, not only the first. Not here: which rules there are.

use std::borrow::Cow;

use serde_json::Value;

/// Problems that are told at most; a document can have as many as it has values.
pub const MAX_PROBLEMS: usize = 100;
/// Bytes of a misspelt word at most, to which a known one is sought.
const MAX_GUESSED: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the document, as a JSON Pointer (RFC 6901).
    pub pointer: String,
    /// The rule that is broken: a keyword of JSON Schema where there is one, else one of our own.
    pub rule: &'static str,
    /// A sentence for the person who wrote the document.
    pub message: Cow<'static, str>,
}

impl Problem {
    /// A problem at a place.
    pub fn new(
        pointer: impl Into<String>,
        rule: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { pointer: pointer.into(), rule, message: message.into() }
    }
}

/// What belongs here, and the type of what came instead. A number that came for one is just not right.
pub(crate) fn expected(wanted: &str, given: &Value) -> String {
    let came = match given {
        Value::Number(_) if wanted.contains("number") => return format!("Expected {wanted}, not {given}."),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("Expected {wanted}, but {came} came.")
}

/// Appends a segment to a JSON Pointer, escaped.
pub(crate) fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for letter in segment.chars() {
        match letter {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            letter => pointer.push(letter),
        }
    }
}

/// `pointer` with a segment appended.
pub(crate) fn below(pointer: &str, segment: &str) -> String {
    let mut below = String::with_capacity(pointer.len() + segment.len() + 1);
    below.push_str(pointer);
    push_segment(&mut below, segment);
    below
}

/// The known word that was probably meant, as a sentence with a space before it; empty where none is near.
pub(super) fn did_you_mean<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    if given.len() > MAX_GUESSED {
        return String::new();
    }
    let given = given.to_lowercase();
    let distance = |word: &str| {
        let word = word.to_lowercase();
        // Part of a name is near, however long the rest is: INT, select.
        let begins = given.len() > 2 && word.starts_with(&given);
        if begins { 1 } else { strsim::osa_distance(&given, &word) }
    };
    let most = 1 + given.len() / 4;
    let near = known.into_iter().map(|word| (distance(word), word)).filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, _)| *distance)
        .map_or_else(String::new, |(_, word)| format!(" Did you mean `{word}`?"))
}
