//! What is an id.

use super::*;

#[test]
fn ids_have_one_spelling() {
    let hash = "0123456789abcdef".repeat(4);
    for (id, normal) in [
        (hash.clone(), Some(hash.as_str())),
        (hash.to_uppercase(), Some(&hash)),
        (format!("sha256:{hash}"), Some(&hash)),
        (format!("sha256:{}", hash.to_uppercase()), Some(&hash)),
        (hash[..32].to_uppercase(), Some(&hash[..32])),
        ("x-mine:One~2.0_b".into(), Some("x-mine:One~2.0_b")),
        ("sha256:12".into(), None),
        (String::new(), None),
        ("a/b".into(), None),
        ("a b".into(), None),
        ("é".into(), None),
        ("a".repeat(256), Some(&"a".repeat(256))),
        ("a".repeat(257), None),
    ] {
        assert_eq!(normal_id(&id).as_deref(), normal, "{id}");
    }
    assert_eq!(sha256_of(&hash).map(hex::encode), Some(hash));
    assert_eq!(sha256_of(&"g".repeat(64)), None);
}
