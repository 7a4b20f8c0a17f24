//! What a gateway that keeps answers is told of them: by which tags it can throw them away, as entries of
//! `extensions` in the form of Apollo Router's response cache, and how long it may keep them at most. What a
//! write throws away is told with the same tags (`src`, `invalidation`). Not here: what this server keeps
//! itself (`answers`).

use std::collections::BTreeSet;

use entities::{Recorder, cache::Tag};

use crate::{auth::viewer::Viewer, context::ContextExt as _, graph::query, request::Prepared};
use engine::{
    cache_control::{Audience, CachePolicy},
    context::Context,
};

/// Tags that all entities of one answer have together, at most. An answer with more is not to be kept.
const MOST_TAGS: usize = 4_000;

/// The tags of an answer.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// Of the whole answer, where no entities were asked for.
    pub(super) of_answer: Option<Vec<String>>,
    /// Of each entity, in the order of the representations.
    pub(super) of_entities: Option<Vec<Vec<String>>>,
    /// Each write that changes the answer invalidates one of them.
    are_complete: bool,
}

/// The tags of the answer to a query.
pub(super) fn labels(prepared: &Prepared, ctx: &Context, recorder: &Recorder) -> Labels {
    let Some(dependencies) = recorder.dependencies() else { return Labels::default() };
    let mut tags: BTreeSet<String> = dependencies.tags().map(ToString::to_string).collect();
    let has_read = !tags.is_empty();
    let are_complete = has_read && dependencies.is_complete();
    // What somebody may see changes with their role, and ends with their session.
    let viewer = viewer_tags(ctx.viewer());
    let Some(entities) = query::asked_entities(prepared) else {
        tags.extend(viewer);
        let of_answer = has_read.then(|| tags.into_iter().collect());
        return Labels { of_answer, of_entities: None, are_complete };
    };
    let own: Vec<Option<String>> =
        entities.tags.iter().map(|tag| tag.as_ref().map(ToString::to_string)).collect();
    // It is not known which entity has led to what else was read, so each gets the tags of all of it.
    if entities.are_independent {
        for tag in own.iter().flatten() {
            tags.remove(tag);
        }
    }
    tags.extend(viewer);
    let is_short = own.len().saturating_mul(tags.len() + 1) <= MOST_TAGS;
    let are_complete = are_complete && is_short;
    let of_entities = own.into_iter().map(|own| {
        let mut all: BTreeSet<String> = if are_complete { tags.clone() } else { BTreeSet::new() };
        all.extend(own);
        all.into_iter().collect()
    });
    Labels { of_answer: None, of_entities: Some(of_entities.collect()), are_complete }
}

fn viewer_tags(viewer: &Viewer) -> Vec<String> {
    let Viewer::User { id, session, .. } = viewer else { return Vec::new() };
    let session = session.as_ref().map(|session| Tag::Row("Session", session.0));
    [Tag::Row("User", id.0)].into_iter().chain(session).map(|tag| tag.to_string()).collect()
}

impl Labels {
    /// How long a gateway may keep the answer: for whom it was made, and as long as the clock allows. `None`:
    /// not at all.
    pub(super) fn policy(&self, most_seconds: u32, ctx: &Context) -> Option<CachePolicy> {
        let seconds = u32::try_from(ctx.is_true_for().as_secs()).unwrap_or(u32::MAX).min(most_seconds);
        let policy = CachePolicy { max_age_seconds: seconds, audience: Audience::Private };
        (self.are_complete && seconds > 0).then_some(policy)
    }
}
