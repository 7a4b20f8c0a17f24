//! What a cached value depends on. A tag names a row, a list or a type; a write invalidates the tags of what
//! it changed. Tags have no memory of their own: each falls into one slot of a fixed table (`table`), so a
//! collision costs a miss and never a stale read.

use std::fmt;

use uuid::Uuid;

use super::table::{SLOTS, Slot};

/// What a cached value depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// `Form:0190…`: one row.
    Row(&'static str, Uuid),
    /// `Session#user:0190…`: the rows of a type that belong to something.
    List(&'static str, &'static str, Uuid),
    /// `Form`: every list of a type.
    Type(&'static str),
    /// Anything else; for resolvers that cache something of their own.
    Named(String),
}

impl Tag {
    /// Where the tag's last invalidation is noted.
    pub(crate) fn slot(&self) -> Slot {
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::Row(of, id) => hasher.update(of.as_bytes()).update(b":").update(id.as_bytes()),
            Self::List(of, by, id) => hasher
                .update(of.as_bytes())
                .update(b"#")
                .update(by.as_bytes())
                .update(b":")
                .update(id.as_bytes()),
            Self::Type(of) => hasher.update(of.as_bytes()),
            Self::Named(name) => hasher.update(b"=").update(name.as_bytes()),
        };
        let mut start = [0; 8];
        start.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        SLOTS.start + (u64::from_le_bytes(start) % u64::from(SLOTS.end - SLOTS.start)) as Slot
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(of, id) => write!(f, "{of}:{id}"),
            Self::List(of, by, id) => write!(f, "{of}#{by}:{id}"),
            Self::Type(of) => f.write_str(of),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_one_slot_behind_the_reserved_words() {
        let id = Uuid::from_u128(7);
        let tags = [
            Tag::Row("Form", id),
            Tag::List("Form", "owner", id),
            Tag::Type("Form"),
            Tag::Named("Form".to_owned()),
        ];
        for tag in &tags {
            assert_eq!(tag.slot(), tag.clone().slot());
            assert!(SLOTS.contains(&tag.slot()), "{tag}");
        }
        let slots: std::collections::HashSet<_> = tags.iter().map(Tag::slot).collect();
        assert_eq!(slots.len(), tags.len(), "kinds of tags do not run into each other");
    }
}
