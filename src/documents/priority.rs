//! Which requests may mean an operation with priority (`schema::PRIORITY_FIELDS`), told from the bytes of
//! their bodies: by the names of its fields, or by the ids of documents that have one. It is asked where
//! there is too much to do, of requests that nobody has read yet. Who is told yes is looked at again once the
//! document is known. Not here: what follows.

use std::{
    collections::VecDeque,
    sync::{PoisonError, RwLock},
};

use memchr::memmem;
use schema::PRIORITY_FIELDS;

/// Longer bodies than this are not looked at: what has priority is short.
const LONGEST_BODY: usize = 4 << 10;
/// So many ids are remembered of those that clients register, the last ones. A client has one or two documents for it.
const MOST_IDS: usize = 64;
/// What every short text has is no id to look for.
const SHORTEST_ID: usize = 8;

/// The ids of documents that have an operation with priority.
#[derive(Debug, Default)]
pub(super) struct PriorityDocuments {
    /// Those that the operator has published.
    trusted: RwLock<Vec<Box<str>>>,
    /// Those that clients have registered and asked for, whoever they are.
    registered: RwLock<VecDeque<Box<str>>>,
}

fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

impl PriorityDocuments {
    /// Remembers an id.
    pub(super) fn learn(&self, id: &str) {
        let id = bare(id);
        let is_known = |ids: &VecDeque<Box<str>>| ids.iter().any(|known| &**known == id);
        let trusted = self.trusted.read().unwrap_or_else(PoisonError::into_inner);
        if id.len() < SHORTEST_ID
            || trusted.iter().any(|known| &**known == id)
            || is_known(&self.registered.read().unwrap_or_else(PoisonError::into_inner))
        {
            return;
        }
        let mut ids = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        if !is_known(&ids) {
            if ids.len() >= MOST_IDS {
                ids.pop_front();
            }
            ids.push_back(id.into());
        }
    }

    /// Remembers the ids of trusted documents, and no others of such.
    pub(super) fn set_trusted<'t>(&self, ids: impl Iterator<Item = &'t str>) {
        let ids = ids.map(bare).filter(|id| id.len() >= SHORTEST_ID).map(Into::into).collect();
        *self.trusted.write().unwrap_or_else(PoisonError::into_inner) = ids;
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
            || self.trusted.read().unwrap_or_else(PoisonError::into_inner).iter().any(|id| names(id))
            || self.registered.read().unwrap_or_else(PoisonError::into_inner).iter().any(|id| names(id))
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
    fn the_last_registered_ids_are_remembered_and_all_trusted_ones() {
        let known = PriorityDocuments::default();
        let trusted: Vec<_> = (0..100).map(|number| format!("trusted-{number:03}")).collect();
        known.set_trusted(trusted.iter().map(String::as_str));
        for number in 0..70 {
            known.learn(&format!("document-{number:03}"));
            known.learn("document-069");
        }
        let is_known = |id: &str| known.are_named_in(id.as_bytes(), None);
        assert_eq!(known.registered.read().expect("not poisoned").len(), MOST_IDS);
        assert!(!is_known("document-000") && is_known("document-068") && is_known("document-069"));
        assert!(trusted.iter().all(|id| is_known(id)), "whoever registers others");
        known.set_trusted(std::iter::empty());
        assert!(!is_known("trusted-001"));
    }
}
