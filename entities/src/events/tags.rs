//! What a change touches: which cached values it ends, by the tags that it invalidates, and which tables it
//! has written to. Not here: the changes themselves (`events`), how an invalidation ends a value (`cache`).

use std::hash::BuildHasher as _;

use rustc_hash::FxBuildHasher;

use super::{ChangeEvent, Removal};
use crate::cache::{DependencySet, Tag};

/// What an answer was made of, in little memory: to find out whether a change may have made it another one.
#[derive(Clone, Debug, Default)]
pub struct ReadSet {
    /// What stands for the tags, in order. Two that have the same number cost an execution.
    tags: Box<[u64]>,
    /// The types that the tags are of.
    types: Vec<&'static str>,
    /// Tables that were read by statements which no tag covers.
    tables: Vec<&'static str>,
    /// Something was looked for that is not there, and may come with any change.
    is_incomplete: bool,
}

impl ReadSet {
    /// The set of what a request has read, by the dependencies that it has collected.
    pub fn of(dependencies: &DependencySet) -> Self {
        let mut tags: Vec<u64> = dependencies.tags().map(number_of).collect();
        tags.sort_unstable();
        let mut types: Vec<&'static str> = dependencies.tags().filter_map(type_of).collect();
        types.sort_unstable();
        types.dedup();
        Self {
            tags: tags.into(),
            types,
            tables: dependencies.untracked_tables().collect(),
            is_incomplete: dependencies.is_incomplete(),
        }
    }

    /// Memory that the set takes, bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.tags)
    }

    /// Whether something was read that changes without an event: how deliveries of webhooks stand.
    pub fn has_unlogged(&self) -> bool {
        self.tables.contains(&"webhook_deliveries")
    }

    /// Whether what was made of these may be another one after this change.
    pub fn is_touched_by(&self, change: ChangeEvent) -> bool {
        if let ChangeEvent::Removed { of } = change {
            return self.types.contains(&of.kind().as_str()) || self.has_read_with(change);
        }
        // What a newer program has changed is not known here.
        change == ChangeEvent::Unknown
            || self.is_incomplete
            || tags_of(&[change]).iter().any(|tag| self.tags.binary_search(&number_of(tag)).is_ok())
            || self.has_read_with(change)
    }

    fn has_read_with(&self, change: ChangeEvent) -> bool {
        self.tables.iter().any(|table| is_read_with(change, table))
    }
}

fn number_of(tag: &Tag) -> u64 {
    FxBuildHasher.hash_one(tag)
}

fn type_of(tag: &Tag) -> Option<&'static str> {
    match tag {
        Tag::Row(of, _) | Tag::List(of, ..) | Tag::Type(of) => Some(of),
        Tag::Named(_) => None,
    }
}

/// Whether a statement about this table may read what the change has written.
fn is_read_with(change: ChangeEvent, table: &str) -> bool {
    // What is wrong here makes a live query miss a change: tables that are not listed are read with every change.
    let read: &[&str] = match table {
        "users" => &["users"],
        "user_sessions" => &["user_sessions"],
        "forms" => &["forms"],
        // Whoever may see a form may see what was filled in, and whoever has filled in a version may see that.
        "form_versions" | "form_submissions" => &["forms", "form_submissions"],
        "user_locations" | "user_last_locations" => &["user_locations"],
        "webhooks" => &["webhooks", "users"],
        _ => return true,
    };
    let written = match change {
        ChangeEvent::User { .. } => "users",
        ChangeEvent::Session { .. }
        | ChangeEvent::SessionEnded { .. }
        | ChangeEvent::Removed { of: Removal::Sessions } => "user_sessions",
        ChangeEvent::Form { .. } => "forms",
        ChangeEvent::Submission { .. } | ChangeEvent::Removed { of: Removal::Submissions } => {
            "form_submissions"
        }
        ChangeEvent::Webhook { .. } => "webhooks",
        ChangeEvent::LastLocation { .. }
        | ChangeEvent::Locations { .. }
        | ChangeEvent::Removed { of: Removal::Locations } => "user_locations",
        ChangeEvent::Activity | ChangeEvent::Removed { of: Removal::ActivityLogs } => return false,
        ChangeEvent::Lagged | ChangeEvent::Unknown => return true,
    };
    read.contains(&written)
}

/// The tags that these changes invalidate, each once.
pub fn tags_of(changes: &[ChangeEvent]) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut add = |tag: Tag| {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    };
    for change in changes {
        match *change {
            ChangeEvent::User { id } => {
                add(Tag::Row("User", id.0));
                add(Tag::Type("User"));
            }
            ChangeEvent::Session { id, user } | ChangeEvent::SessionEnded { id, user } => {
                add(Tag::Row("Session", id.0));
                add(Tag::List("Session", "user", user.0));
            }
            ChangeEvent::Form { id, owner, .. } => {
                add(Tag::Row("Form", id.0));
                add(Tag::List("Form", "owner", owner.0));
                add(Tag::Type("Form"));
            }
            ChangeEvent::Submission { id, form, user } => {
                add(Tag::Row("Submission", id.0));
                add(Tag::List("Submission", "form", form.0));
                if let Some(user) = user {
                    add(Tag::List("Submission", "user", user.0));
                }
            }
            ChangeEvent::Webhook { id } => {
                add(Tag::Row("Webhook", id.0));
                add(Tag::Type("Webhook"));
            }
            // What other instances write, they invalidate themselves; lists of positions and of the activity
            // log are not cached.
            ChangeEvent::Lagged
            | ChangeEvent::Unknown
            | ChangeEvent::Activity
            | ChangeEvent::Locations { .. } => {}
            ChangeEvent::Removed { of } => add(Tag::Type(of.kind().as_str())),
            ChangeEvent::LastLocation { user, .. } => {
                add(Tag::List("Location", "user", user.0));
            }
        }
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LocationId, UserId};

    #[test]
    fn submissions_that_are_removed_touch_what_was_made_of_any() {
        let removed = ChangeEvent::Removed { of: Removal::Submissions };
        let by_type = ReadSet { types: vec!["Submission"], ..ReadSet::default() };
        let by_table = ReadSet { tables: vec!["form_submissions"], ..ReadSet::default() };
        let others = ReadSet { types: vec!["Form"], tables: vec!["forms"], ..ReadSet::default() };
        assert!(by_type.is_touched_by(removed) && by_table.is_touched_by(removed));
        assert!(!others.is_touched_by(removed));
    }

    #[test]
    fn positions_that_are_not_the_newest_end_no_cached_value_but_what_has_read_their_table() {
        let user = UserId::new();
        let (late, newest) =
            (ChangeEvent::Locations { user }, ChangeEvent::LastLocation { id: LocationId::new(), user });
        assert_eq!(tags_of(&[late]), []);
        assert_eq!(tags_of(&[newest]), [Tag::List("Location", "user", user.0)]);
        let of_list = ReadSet { tables: vec!["user_locations"], ..ReadSet::default() };
        let of_newest = ReadSet { tags: [number_of(&tags_of(&[newest])[0])].into(), ..ReadSet::default() };
        assert!(of_list.is_touched_by(late) && of_list.is_touched_by(newest));
        assert!(!of_newest.is_touched_by(late) && of_newest.is_touched_by(newest));
    }
}
