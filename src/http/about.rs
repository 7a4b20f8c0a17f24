//! What the log line and the span of an operation tell of who asked for what: names and ids, each short and
//! printable. Never a variable or a token; a text of a document only for usage reports (`hive`), without strings and
//! numbers. Metrics have none of this: their labels are closed lists, but for the names of a few clients
//! (`documents::field_usage`). Not here: when a line is written (`graphql`).

use std::{fmt::Write as _, sync::Arc};

use axum::http::{HeaderMap, HeaderName};
use entities::{id::UserId, unicode::is_invisible};
use schema::{
    OperationKind,
    engine::coordinates::{CoordinateNumbers, ReportedOperation},
};
use tracing::Span;

/// Characters of a name of the caller's own choice that are told.
const LONGEST_NAME: usize = 64;
/// Characters of an id that are told: `sha256:` and 64 digits are told whole.
const LONGEST_ID: usize = 128;
/// What clients say they are: Apollo's headers, then those of others.
static CLIENT_NAMES: [HeaderName; 2] =
    [HeaderName::from_static("apollographql-client-name"), HeaderName::from_static("graphql-client-name")];
static CLIENT_VERSIONS: [HeaderName; 2] = [
    HeaderName::from_static("apollographql-client-version"),
    HeaderName::from_static("graphql-client-version"),
];

/// What is known of a request.
#[derive(Debug, Default)]
pub(super) struct About {
    /// The name of the operation: as the document has it, else as the request has it.
    pub(super) operation_name: Option<String>,
    /// The id of the document, where it was asked for by its id.
    pub(super) document_id: Option<String>,
    /// The account that asks.
    pub(super) viewer: Option<UserId>,
    /// What kind of operation it is, once its document is found.
    pub(super) kind: Option<OperationKind>,
    /// The fields that it selects, where it is one of those whose fields are counted.
    pub(super) fields: Option<CoordinateNumbers>,
    /// What is reported of it, where it is one of those and usage is reported.
    pub(super) reported: Option<Arc<ReportedOperation>>,
}

impl About {
    /// What a request says of itself, and who asks.
    pub(super) fn new(
        operation_name: Option<&str>,
        document_id: Option<&str>,
        viewer: Option<UserId>,
    ) -> Self {
        Self {
            operation_name: operation_name.and_then(name),
            document_id: document_id.and_then(|id| printable(id, LONGEST_ID)),
            viewer,
            kind: None,
            fields: None,
            reported: None,
        }
    }

    /// The operation was found in its document.
    pub(super) fn found(&mut self, operation_name: Option<&str>, kind: Option<OperationKind>) {
        self.kind = kind;
        if let Some(name) = operation_name.and_then(name) {
            self.operation_name = Some(name);
        }
    }

    /// Onto a span that has fields for it.
    pub(super) fn record(&self, span: &Span, headers: &HeaderMap) {
        let texts = [
            ("graphql.operation.name", self.operation_name.clone()),
            ("graphql.document.id", self.document_id.clone()),
            ("enduser.id", self.viewer.map(|viewer| viewer.to_string())),
            ("graphql.client.name", client_name(headers)),
            ("graphql.client.version", client_version(headers)),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                span.record(field, text);
            }
        }
    }
}

/// What the client calls itself, as it is: documents may depend on it.
pub(super) fn client(headers: &HeaderMap) -> &str {
    let mut given = CLIENT_NAMES.iter().filter_map(|name| headers.get(name));
    given.next().and_then(|name| name.to_str().ok()).unwrap_or_default()
}

/// What the client calls itself, to be shown.
pub(super) fn client_name(headers: &HeaderMap) -> Option<String> {
    shown(headers, &CLIENT_NAMES)
}

/// Its version, to be shown.
pub(super) fn client_version(headers: &HeaderMap) -> Option<String> {
    shown(headers, &CLIENT_VERSIONS)
}

fn shown(headers: &HeaderMap, names: &[HeaderName; 2]) -> Option<String> {
    let given = names.iter().find_map(|name| headers.get(name))?;
    name(&String::from_utf8_lossy(given.as_bytes()))
}

fn name(text: &str) -> Option<String> {
    printable(text, LONGEST_NAME)
}

/// A text that stays on its line and shows what it is: short, what cannot be seen written as its number. `None` for
/// an empty one.
fn printable(text: &str, longest: usize) -> Option<String> {
    let mut told = String::with_capacity(text.len().min(longest));
    let mut rest = text.chars();
    for character in rest.by_ref().take(longest) {
        if character.is_control() || is_invisible(character) {
            // Writing into a String cannot fail.
            let _ = write!(told, "{}", character.escape_unicode());
        } else {
            told.push(character);
        }
    }
    if rest.next().is_some() {
        told.push('…');
    }
    (!told.is_empty()).then_some(told)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn reported_client_names_are_short_and_printable() {
        assert_eq!(name(""), None);
        assert_eq!(name("Größe ✓").as_deref(), Some("Größe ✓"));
        assert_eq!(
            name("a\nb\u{1b}[31m\u{202e}c\u{3164}").as_deref(),
            Some("a\\u{a}b\\u{1b}[31m\\u{202e}c\\u{3164}")
        );
        let long = name(&"x".repeat(65)).expect("not empty");
        assert_eq!(long, format!("{}…", "x".repeat(64)));
        assert_eq!(name(&"x".repeat(64)).map(|text| text.len()), Some(64));
        // The worst that 64 characters can become.
        assert!(name(&"\u{e0001}".repeat(1_000)).is_some_and(|text| text.len() <= LONGEST_NAME * 10 + 3));
        let id = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(printable(&id, LONGEST_ID), Some(id));
    }

    #[test]
    fn a_client_says_what_it_is_in_either_way() {
        let mut headers = HeaderMap::new();
        assert_eq!((client(&headers), client_name(&headers)), ("", None));
        headers.insert("graphql-client-name", HeaderValue::from_static("web"));
        headers.insert("graphql-client-version", HeaderValue::from_static("1.2"));
        assert_eq!((client(&headers), client_version(&headers).as_deref()), ("web", Some("1.2")));
        headers.insert("apollographql-client-name", HeaderValue::from_bytes(b"ios\xff").expect("a header"));
        assert_eq!((client(&headers), client_name(&headers).as_deref()), ("", Some("ios\u{fffd}")));
    }
}
