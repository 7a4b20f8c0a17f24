//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a String of Structured Fields
//! (RFC 8941, section 3.3.3), or the same without its quotes, as many clients send it. Not here: what is done
//! with a key (`schema`).

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};

use crate::{http::params::GraphQLRequest, rejection::Rejection};

const HEADER: &str = "idempotency-key";
/// Characters of a key at most.
const LONGEST: usize = 255;

const INVALID: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "Invalid Idempotency-Key: expected one text of 1 to 255 ASCII characters, with or without quotes, \
     such as a UUID.",
);
const MANY: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "An Idempotency-Key is for one operation with one set of variables: send those of an array one by one, \
     each with a key of its own.",
);

/// The key of a request, if it has one.
pub(super) fn of(headers: &HeaderMap, requests: &GraphQLRequest) -> Result<Option<Arc<str>>, Rejection> {
    let mut given = headers.get_all(HEADER).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if requests.is_batch() {
        return Err(MANY);
    }
    let key = first.to_str().ok().and_then(|text| parse(text.trim_matches(' ')));
    key.filter(|_| given.next().is_none()).map(|key| Some(Arc::from(key))).ok_or(INVALID)
}

fn parse(given: &str) -> Option<String> {
    let key = match given.strip_prefix('"') {
        Some(rest) => quoted(rest.strip_suffix('"')?)?,
        None if given.contains(['"', ',']) => return None,
        None => given.to_owned(),
    };
    let is_ascii = key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (is_ascii && (1..=LONGEST).contains(&key.len())).then_some(key)
}

/// What is between two quotes: a quote or a backslash in it stands behind a backslash.
fn quoted(text: &str) -> Option<String> {
    let (mut key, mut characters) = (String::with_capacity(text.len()), text.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.push(characters.next().filter(|next| ['"', '\\'].contains(next))?),
            '"' => return None,
            _ => key.push(character),
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_and_without_quotes() {
        for (given, key) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            (r#""a \"b\" \\ c""#, Some(r#"a "b" \ c"#)),
            ("", None),
            ("\"\"", None),
            ("\"", None),
            ("\"a", None),
            ("a\"", None),
            (r#""a"b""#, None),
            (r#""a\n""#, None),
            (r#""a";b=1"#, None),
            ("a, b", None),
            ("é", None),
        ] {
            assert_eq!(parse(given).as_deref(), key, "{given}");
        }
        assert_eq!(parse(&"k".repeat(255)).map(|key| key.len()), Some(255));
        assert_eq!(parse(&"k".repeat(256)), None);
    }
}
