//! Which cached values a change ends: the tags that it invalidates. Not here: the changes themselves (`events`), how an invalidation
//! ends a value (`cache`).

use super::ChangeEvent;
use crate::cache::Tag;

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
            ChangeEvent::Form { id, owner } => {
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
            // What other instances write, they invalidate themselves.
            ChangeEvent::Lagged | ChangeEvent::Unknown => {}
            ChangeEvent::LastLocation { user, .. } => {
                add(Tag::List("Location", "user", user.0));
            }
        }
    }
    tags
}
