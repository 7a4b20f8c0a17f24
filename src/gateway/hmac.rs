//! Hive Gateway's `hmacSignature`: `extensions["hmac-signature"]` is an HMAC-SHA256 over the document's text
//! and the variables, as JSON with sorted keys. It covers nothing else, and has no time: whoever has seen a
//! signed request can send the same document with the same variables again, with other claims or another
//! operation's name. So it vouches for the document only.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, verify};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use schema::Variables;
use serde::Serialize;
use serde_json::{Number, Value};

/// What is signed. Empty variables are left out.
#[derive(Serialize)]
struct Signed<'w> {
    query: &'w str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variables: Option<&'w Variables>,
}

/// The largest whole number of which no other one has the same double (IEEE 754), and so the same text in RFC 8785.
const MOST: u64 = 1 << 53;

/// What a signature of this document with these variables is over; RFC 8785 writes texts and numbers as
/// JavaScript does.
fn message(query: &str, variables: &Variables) -> Option<Vec<u8>> {
    let variables = (!variables.is_empty()).then_some(variables);
    serde_json_canonicalizer::to_vec(&Signed { query, variables }).ok()
}

/// The keys of these secrets.
pub(super) fn keys<'s>(secrets: impl Iterator<Item = &'s str>) -> Vec<Key> {
    secrets.map(|secret| Key::new(HMAC_SHA256, secret.as_bytes())).collect()
}

/// Is the signature one of a key of ours, of this document with these variables and no others?
///
/// # Errors
/// Why not, for the log.
pub(super) fn check(
    keys: &[Key],
    query: &str,
    variables: &Variables,
    signature: &str,
) -> Result<(), &'static str> {
    let signature = BASE64_STANDARD.decode(signature).map_err(|_| "hmac-signature is not base64")?;
    let values = serde_json::to_value(variables).map_err(|_| "the variables cannot be written as JSON")?;
    if !is_exact(&values) {
        return Err(
            "hmac-signature: a number in the variables is not safe in JavaScript (beyond 2^53, or -0), so \
             others have the same signature",
        );
    }
    let message = message(query, variables).ok_or("the variables cannot be written as JSON")?;
    let is_signed = keys.iter().any(|key| verify(key, &message, &signature).is_ok());
    if is_signed { Ok(()) } else { Err("hmac-signature is of another request or key") }
}

/// Whether all numbers in it are what RFC 8785 writes of them: JavaScript has doubles only.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => is_exact_number(number),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn is_exact_number(number: &Number) -> bool {
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(whole), ..) => whole <= MOST,
        (None, Some(whole), _) => whole.unsigned_abs() <= MOST,
        // A double is itself, but `-0`, which is written as `0`.
        (None, None, Some(double)) => double.is_finite() && !(double == 0.0 && double.is_sign_negative()),
        (None, None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "a secret of thirty-two characters";

    fn is_good(query: &str, variables: &serde_json::Value, signature: &str) -> bool {
        let variables = serde_json::from_value(variables.clone()).expect("variables");
        check(&keys([SECRET].into_iter()), query, &variables, signature).is_ok()
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
    fn numbers_that_share_a_signature_with_others_are_refused() {
        let signed = |variables: &str| {
            let parsed: Variables = serde_json::from_str(variables).expect("variables");
            let message = message("{a}", &parsed).expect("JSON");
            let key = Key::new(HMAC_SHA256, SECRET.as_bytes());
            let signature = BASE64_STANDARD.encode(aws_lc_rs::hmac::sign(&key, &message));
            check(&keys([SECRET].into_iter()), "{a}", &parsed, &signature)
        };
        for number in ["9007199254740992", "-9007199254740992", "0", "0.1", "1e21", "-1.5e-7", "2.0"] {
            assert_eq!(signed(&format!("{{\"n\": {number}}}")), Ok(()), "{number}");
        }
        for number in [
            "9007199254740993",
            "-9007199254740993",
            "9007199254740994",
            "18446744073709551615",
            "-9223372036854775808",
            "-0",
            "-0.0",
        ] {
            for variables in
                [format!("{{\"n\": {number}}}"), format!("{{\"n\": [1, {{\"deep\": [{number}]}}]}}")]
            {
                assert!(signed(&variables).is_err_and(|why| why.contains("2^53")), "{variables}");
            }
        }
    }

    #[test]
    fn empty_variables_are_left_out() {
        let message = message("{a}", &Variables::default());
        assert_eq!(message.expect("JSON"), br#"{"query":"{a}"}"#);
    }
}
