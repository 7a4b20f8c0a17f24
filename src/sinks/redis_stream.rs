//! A Redis stream as a sink: each event is an entry with the fields `id`, `type`, `key` and `event` (the
//! CloudEvent as JSON). Not here: which events, and in what order.

use std::time::Duration;

use entities::redis::{Redis, RedisUrl};
use prometheus_client::registry::Registry;

use super::cloud_event::CloudEvent;

const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) struct RedisStream {
    redis: Redis,
    stream: String,
    max_length: u64,
}

impl RedisStream {
    /// Connects when it is needed.
    pub(super) fn new(url: &RedisUrl, stream: &str, max_length: u64) -> Self {
        // The metrics of Redis are those of the cache.
        let redis = Redis::new(url, &mut Registry::default());
        Self { redis, stream: stream.to_owned(), max_length }
    }

    pub(super) async fn publish(&self, event: &CloudEvent) -> Result<(), String> {
        let fields =
            [("id", &*event.id), ("type", &*event.kind), ("key", &*event.key), ("event", &*event.json)];
        let appended = self.redis.append(&self.stream, self.max_length, &fields, TIMEOUT).await;
        appended.map_err(|error| error.to_string())
    }
}
