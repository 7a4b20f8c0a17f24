//! Hive Gateway's `hmacSignature`: `extensions["hmac-signature"]` is an HMAC-SHA256 over the document's text and the
//! variables, as JSON with sorted keys. It covers nothing else, and has no time: whoever has seen a signed request can send
//! the same document with the same variables again, with other claims or another operation's name. So it vouches for the
//! document only.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, verify};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use schema::Variables;
use serde::Serialize;

/// What is signed. Empty variables are left out.
#[derive(Serialize)]
struct Signed<'w> {
    query: &'w str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variables: Option<&'w Variables>,
}

/// What a signature of this document with these variables is over; RFC 8785 writes texts and numbers as JavaScript does.
fn message(query: &str, variables: &Variables) -> Option<Vec<u8>> {
    let variables = (!variables.is_empty()).then_some(variables);
    serde_json_canonicalizer::to_vec(&Signed { query, variables }).ok()
}

/// The keys of these secrets.
pub(super) fn keys<'s>(secrets: impl Iterator<Item = &'s str>) -> Vec<Key> {
    secrets.map(|secret| Key::new(HMAC_SHA256, secret.as_bytes())).collect()
}

/// Is the signature one of a key of ours?
pub(super) fn is_signed(keys: &[Key], query: &str, variables: &Variables, signature: &str) -> bool {
    let Ok(signature) = BASE64_STANDARD.decode(signature) else { return false };
    let Some(message) = message(query, variables) else { return false };
    keys.iter().any(|key| verify(key, &message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "a secret of thirty-two characters";

    fn is_good(query: &str, variables: &serde_json::Value, signature: &str) -> bool {
        let variables = serde_json::from_value(variables.clone()).expect("variables");
        is_signed(&keys([SECRET].into_iter()), query, &variables, signature)
    }

    /// Made by `@graphql-mesh/hmac-upstream-signature`'s own serializer and Node's `crypto`.
    const BY_HIVE: &str = "T/CdqMti1oLY2pN9G2UkPLtDUF9jWfgkwXCuOjIcnNk=";
    const QUERY: &str = "query($b: Float, $a: [In!]) {\n  x(a: $a, b: $b)\n}";

    #[test]
    fn hives_signature_is_understood() {
        let variables =
            json!({ "b": 1e21, "a": [{ "z": "ä\u{1}\"", "A": null }, { "n": 0.1, "€": [1, 2.0] }] });
        assert!(is_good(QUERY, &variables, BY_HIVE));
        for (query, variables) in [
            (QUERY, json!({})),
            ("query { y }", variables.clone()),
            (QUERY, json!({ "b": 1, "a": variables["a"].clone() })),
        ] {
            assert!(!is_good(query, &variables, BY_HIVE), "altered: {query} {variables}");
        }
        for forged in ["", "=", "AAAA", &BY_HIVE[..40]] {
            assert!(!is_good(QUERY, &variables, forged), "{forged}");
        }
    }

    #[test]
    fn empty_variables_are_left_out() {
        let message = message("{a}", &Variables::default());
        assert_eq!(message.expect("JSON"), br#"{"query":"{a}"}"#);
    }
}
