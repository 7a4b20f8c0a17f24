//! Tells a router what of its response cache is out of date, after each commit of this process: `POST` to the
//! address that Apollo Router calls `/invalidation`, with the same tags that
//! `extensions.apolloEntityCacheTags` has. Off unless there is an address. No request waits for it: changes
//! come by a channel that never blocks, what waits is bounded, and what does not fit becomes one order to
//! invalidate all of this subgraph. A router that is away gets everything when it is back. Not here: what a
//! change concerns (the crate `entities`).

use std::{collections::BTreeSet, time::Duration};

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use entities::events::{Changes, tags_of};
use opentelemetry::trace::SpanContext;
use serde_json::{Value, json};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::sleep,
};

use crate::{App, config::address::ServiceUrl};

/// How long changes are gathered into one message.
const GATHERED_FOR: Duration = Duration::from_millis(50);
/// Tags that wait at most.
const MOST_TAGS: usize = 1_000;
/// How long to wait after a failure; doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the router does not know yet.
#[derive(Debug, Default)]
struct PendingInvalidation {
    tags: BTreeSet<String>,
    /// Too much for single tags, or something was missed.
    everything: bool,
}

impl PendingInvalidation {
    fn add(&mut self, changes: &Changes) {
        if self.everything {
            return;
        }
        self.tags.extend(tags_of(changes).iter().map(ToString::to_string));
        if self.tags.len() > MOST_TAGS {
            self.add_everything();
        }
    }

    fn add_everything(&mut self) {
        *self = Self { everything: true, ..Self::default() };
    }

    fn is_empty(&self) -> bool {
        !self.everything && self.tags.is_empty()
    }

    /// As Apollo Router reads it.
    fn message(&self, subgraph: &str) -> Value {
        if self.everything {
            return json!([{ "kind": "subgraph", "subgraph": subgraph }]);
        }
        let tags = self.tags.iter();
        tags.map(|tag| json!({ "kind": "cache_tag", "subgraphs": [subgraph], "cache_tag": tag })).collect()
    }
}

/// Tells the router for ever. `changes` is listened to from before the first request on.
pub(crate) async fn run(app: App, mut changes: Receiver<Changes>) {
    let Some(url) = app.gateway.invalidation_url.as_ref().and_then(ServiceUrl::uri) else {
        return;
    };
    let (mut pending, mut pause) = (PendingInvalidation::default(), FIRST_PAUSE);
    // What was refused is not said again by itself, but what comes next has to make up for it.
    let mut was_refused = false;
    loop {
        if pending.is_empty() {
            match changes.recv().await {
                Ok(changes) => pending.add(&changes),
                Err(RecvError::Lagged(_)) => pending.add_everything(),
                Err(RecvError::Closed) => return,
            }
            sleep(GATHERED_FOR).await;
        }
        gather(&mut changes, &mut pending);
        if was_refused {
            pending.add_everything();
        }
        match deliver(&app, &url, &pending).await {
            DeliveryOutcome::Yes => {
                (pending, pause, was_refused) = (PendingInvalidation::default(), FIRST_PAUSE, false);
            }
            // As it is, it will not take it the next time either: its key has to be set right first.
            DeliveryOutcome::Refused(status) => {
                tracing::error!(%status, "the router refuses to be told what is out of date");
                (pending, pause, was_refused) = (PendingInvalidation::default(), FIRST_PAUSE, true);
            }
            DeliveryOutcome::NotNow => {
                tracing::warn!("the router cannot be told what is out of date; it is tried again");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn gather(changes: &mut Receiver<Changes>, pending: &mut PendingInvalidation) {
    use tokio::sync::broadcast::error::TryRecvError;
    loop {
        match changes.try_recv() {
            Ok(changes) => pending.add(&changes),
            Err(TryRecvError::Lagged(_)) => pending.add_everything(),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}

enum DeliveryOutcome {
    Yes,
    Refused(StatusCode),
    NotNow,
}

async fn deliver(app: &App, url: &Uri, pending: &PendingInvalidation) -> DeliveryOutcome {
    let mut headers = HeaderMap::new();
    let key = app.gateway.invalidation_key.as_ref().and_then(|key| HeaderValue::from_str(key.expose()).ok());
    if let Some(mut key) = key {
        key.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, key);
    }
    let json = pending.message(&app.gateway.subgraph).to_string().into();
    match app.outbound.post("invalidation", &SpanContext::NONE, url, headers, json).await {
        Ok((status, _)) if status.is_success() => DeliveryOutcome::Yes,
        Ok((status, _)) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            DeliveryOutcome::Refused(status)
        }
        Ok(_) | Err(_) => DeliveryOutcome::NotNow,
    }
}

#[cfg(test)]
mod tests {
    use entities::{events::ChangeEvent, id::UserId};

    use super::*;

    fn change_of(users: usize) -> Changes {
        (0..users).map(|_| ChangeEvent::User { id: UserId::new() }).collect::<Vec<_>>().into()
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut pending = PendingInvalidation::default();
        let changes = change_of(2);
        for _ in 0..3 {
            pending.add(&changes);
        }
        let message = pending.message("xp");
        assert_eq!(message.as_array().map(Vec::len), Some(3), "each tag once, and the type's: {message}");
        assert!(message.as_array().into_iter().flatten().all(|one| one["subgraphs"] == json!(["xp"])));
        pending.add(&change_of(MOST_TAGS));
        assert_eq!(pending.message("xp"), json!([{ "kind": "subgraph", "subgraph": "xp" }]));
        pending.add(&change_of(1));
        assert!(pending.tags.is_empty());
    }
}
