//! Which rows are read most: counted now and then on each instance, sent to Redis from time to time, and read
//! by an instance that starts (`warmup`). A hint and nothing more: what is lost costs a miss.

use std::{
    sync::{Mutex, MutexGuard, Weak},
    time::Duration,
};

use redis::pipe;
use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::{Cache, CacheInner};
use crate::{
    id::NodeKind,
    redis::{READ_TIMEOUT, WRITE_TIMEOUT},
};

/// One batch of so many is counted.
const SAMPLE: u32 = 32;
/// Rows counted at once at most.
const MAX_COUNTED: usize = 10_000;
/// Rows sent at once, and rows that Redis keeps.
const MAX_PUBLISHED: usize = 500;
const MAX_STORED: isize = 2_000;
/// Between two times that it is sent. What was read long ago counts less each time.
const PUBLISH_EVERY: Duration = Duration::from_secs(30);
const DECAY: &str = "0.9";
const WEEK_SECONDS: u32 = 7 * 24 * 3_600;

/// How often rows were read here, since it was last sent.
#[derive(Default)]
pub(super) struct PopularKeys(Mutex<FxHashMap<(NodeKind, Uuid), u32>>);

impl PopularKeys {
    /// Notes that a batch of rows was found; `any` picks one of them.
    pub(super) fn record(&self, kind: NodeKind, any: impl FnOnce() -> Option<Uuid>) {
        if fastrand::u32(..SAMPLE) == 0
            && let Some(id) = any()
        {
            let mut counts = self.counts();
            if counts.len() < MAX_COUNTED || counts.contains_key(&(kind, id)) {
                *counts.entry((kind, id)).or_default() += 1;
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, FxHashMap<(NodeKind, Uuid), u32>> {
        self.0.lock().expect("no panic happens under this lock")
    }

    /// The rows read most, with their counts; counting begins anew.
    fn take(&self) -> Vec<((NodeKind, Uuid), u32)> {
        let mut counts: Vec<_> = std::mem::take(&mut *self.counts()).into_iter().collect();
        counts.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.truncate(MAX_PUBLISHED);
        counts
    }
}

/// Publishes what is read most, for as long as the cache lives.
pub(super) async fn publish(cache: Weak<CacheInner>) {
    loop {
        tokio::time::sleep(PUBLISH_EVERY.mul_f64(0.5 + fastrand::f64())).await;
        let Some(cache) = cache.upgrade() else { return };
        cache.publish_popular_keys().await;
    }
}

impl CacheInner {
    async fn publish_popular_keys(&self) {
        let counts = self.popular_keys.take();
        let Some(shared) = self.shared.as_ref().filter(|_| !counts.is_empty()) else { return };
        let key = shared.popular_keys_key();
        let mut pipeline = pipe();
        pipeline.cmd("ZUNIONSTORE").arg(&key).arg(1).arg(&key).arg("WEIGHTS").arg(DECAY).ignore();
        for ((kind, id), count) in counts {
            pipeline.cmd("ZINCRBY").arg(&key).arg(count).arg(format!("{}:{id}", kind.as_str())).ignore();
        }
        pipeline.cmd("ZREMRANGEBYRANK").arg(&key).arg(0).arg(-MAX_STORED - 1).ignore();
        pipeline.cmd("EXPIRE").arg(&key).arg(WEEK_SECONDS).ignore();
        // Whoever starts without it reads less beforehand.
        let _ = shared.redis.pipeline::<()>("hottest", WRITE_TIMEOUT, &pipeline).await;
    }
}

impl Cache {
    /// The rows that all instances have read most; none where instances share no cache.
    pub(crate) async fn most_popular(&self) -> Vec<(NodeKind, Uuid)> {
        let Some(shared) = self.inner.as_ref().and_then(|inner| inner.shared.as_ref()) else {
            return Vec::new();
        };
        let mut command = redis::cmd("ZREVRANGE");
        command.arg(shared.popular_keys_key()).arg(0).arg(MAX_STORED);
        let found: Vec<String> =
            shared.redis.command("hottest", READ_TIMEOUT, &command).await.unwrap_or_default();
        let row = |name: &String| {
            let (kind, id) = name.split_once(':')?;
            Some((NodeKind::parse(kind)?, id.parse().ok()?))
        };
        found.iter().filter_map(row).collect()
    }

    /// Publishes at once what is read most here.
    pub async fn publish_popular_keys(&self) {
        if let Some(inner) = &self.inner {
            inner.publish_popular_keys().await;
        }
    }
}
