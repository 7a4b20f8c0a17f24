//! Which cached values a change ends: the tags that it bumps. Not here: the changes themselves (`events`), how a bump
//! ends a value (`cache`).

use super::Change;
use crate::cache::Tag;

/// The tags that these changes bump, each once.
pub fn tags_of(changes: &[Change]) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut add = |tag: Tag| {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    };
    for change in changes {
        match *change {
            Change::User { id } => {
                add(Tag::Row("User", id.0));
                add(Tag::Type("User"));
            }
            Change::Session { id, user } | Change::SessionEnded { id, user } => {
                add(Tag::Row("Session", id.0));
                add(Tag::List("Session", "user", user.0));
            }
            Change::Form { id, owner } => {
                add(Tag::Row("Form", id.0));
                add(Tag::List("Form", "owner", owner.0));
                add(Tag::Type("Form"));
            }
            Change::Submission { id, form, user } => {
                add(Tag::Row("Submission", id.0));
                add(Tag::List("Submission", "form", form.0));
                if let Some(user) = user {
                    add(Tag::List("Submission", "user", user.0));
                }
            }
            // What other nodes write, they bump themselves.
            Change::Missed | Change::Unknown => {}
            Change::LastLocation { user, .. } => {
                add(Tag::List("Location", "user", user.0));
            }
        }
    }
    tags
}
