//! Which requests may mean an operation with priority (`schema::PRIORITY_FIELDS`), told from the bytes of their bodies: by the
//! names of its fields, or by the ids of documents that have one. It is asked where there is too much to do, of requests
//! that nobody has read yet. Who is told yes is looked at again once the document is known. Not here: what follows.

use std::sync::{PoisonError, RwLock};

use memchr::memmem;
use schema::PRIORITY_FIELDS;

/// Longer bodies than this are not looked at: what has priority is short.
const LONGEST_BODY: usize = 16 << 10;
/// So many ids are remembered. A client has one or two documents for it.
const MOST_IDS: usize = 64;
/// What every short text has is no id to look for.
const SHORTEST_ID: usize = 8;

/// The ids of documents that have an operation with priority.
#[derive(Debug, Default)]
pub(super) struct PriorityDocuments(RwLock<Vec<Box<str>>>);

impl PriorityDocuments {
    /// Remembers an id.
    pub(super) fn learn(&self, id: &str) {
        let id = id.strip_prefix("sha256:").unwrap_or(id);
        let is_new = |ids: &[Box<str>]| ids.len() < MOST_IDS && !ids.iter().any(|known| &**known == id);
        if id.len() >= SHORTEST_ID && is_new(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            let mut ids = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if is_new(&ids) {
                ids.push(id.into());
            }
        }
    }

    /// Whether a body, or the id in a request's path, names something with priority.
    pub(super) fn are_named_in(&self, body: &[u8], id_in_path: Option<&str>) -> bool {
        if body.len() > LONGEST_BODY {
            return false;
        }
        let names = |name: &str| {
            memmem::find(body, name.as_bytes()).is_some() || id_in_path.is_some_and(|id| id.contains(name))
        };
        PRIORITY_FIELDS.into_iter().any(names)
            || self.0.read().unwrap_or_else(PoisonError::into_inner).iter().any(|id| names(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_and_known_ids_are_found() {
        let known = PriorityDocuments::default();
        let (id, other) = ("a".repeat(64), "b".repeat(64));
        let named = |body: &str, id| known.are_named_in(body.as_bytes(), id);
        assert!(named(r#"{"query":"mutation { signOut { session { id } } }"}"#, None));
        assert!(!named(r#"{"query":"{ me { id } }"}"#, None));
        let by_id = format!(r#"{{"documentId":"sha256:{id}"}}"#);
        assert!(!named(&by_id, None) && !named("{}", Some(&id)));
        known.learn(&format!("sha256:{id}"));
        known.learn("short");
        assert!(named(&by_id, None) && named("{}", Some(&id)));
        assert!(!named(&format!(r#"{{"documentId":"{other}", "x": "short"}}"#), Some(&other)));
        let long = format!("{}signOut", " ".repeat(LONGEST_BODY));
        assert!(!named(&long, None));
    }

    #[test]
    fn so_many_ids_are_remembered() {
        let known = PriorityDocuments::default();
        for number in 0..100 {
            known.learn(&format!("document-{:03}", number % 70));
        }
        assert_eq!(known.0.read().expect("not poisoned").len(), MOST_IDS);
        assert!(known.are_named_in(b"document-000", None) && !known.are_named_in(b"document-069", None));
    }
}
