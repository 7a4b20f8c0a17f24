//! Which rows are read most: counted now and then on each node, told to Redis from time to time, and read by a node that
//! starts (`warm`). A hint and nothing more: what is lost costs a miss.

use std::{
    sync::{Mutex, MutexGuard, Weak},
    time::Duration,
};

use redis::pipe;
use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::{Cache, Inner};
use crate::{
    database::kind::Kind,
    redis::{READ_TIMEOUT, WRITE_TIMEOUT},
};

/// One batch of so many is counted.
const SAMPLE: u32 = 32;
/// Rows counted at once at most.
const MOST_COUNTED: usize = 10_000;
/// Rows told at once, and rows that Redis keeps.
const MOST_TOLD: usize = 500;
const MOST_KEPT: isize = 2_000;
/// Between two times that it is told. What was read long ago counts less each time.
const TELL: Duration = Duration::from_secs(30);
const FADING: &str = "0.9";
const WEEK_SECONDS: u32 = 7 * 24 * 3_600;

/// How often rows were read here, since it was last told.
#[derive(Default)]
pub(super) struct Hot(Mutex<FxHashMap<(Kind, Uuid), u32>>);

impl Hot {
    /// Notes that a batch of rows was found; `any` picks one of them.
    pub(super) fn note(&self, kind: Kind, any: impl FnOnce() -> Option<Uuid>) {
        if fastrand::u32(..SAMPLE) == 0
            && let Some(id) = any()
        {
            let mut counts = self.counts();
            if counts.len() < MOST_COUNTED || counts.contains_key(&(kind, id)) {
                *counts.entry((kind, id)).or_default() += 1;
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, FxHashMap<(Kind, Uuid), u32>> {
        self.0.lock().expect("no panic happens under this lock")
    }

    /// The rows read most, with their counts; counting begins anew.
    fn take(&self) -> Vec<((Kind, Uuid), u32)> {
        let mut counts: Vec<_> = std::mem::take(&mut *self.counts()).into_iter().collect();
        counts.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.truncate(MOST_TOLD);
        counts
    }
}

/// Tells what is read most, for as long as the cache lives.
pub(super) async fn tell(cache: Weak<Inner>) {
    loop {
        tokio::time::sleep(TELL.mul_f64(0.5 + fastrand::f64())).await;
        let Some(cache) = cache.upgrade() else { return };
        cache.tell_hottest().await;
    }
}

impl Inner {
    async fn tell_hottest(&self) {
        let counts = self.hot.take();
        let Some(shared) = self.shared.as_ref().filter(|_| !counts.is_empty()) else { return };
        let key = shared.hot_key();
        let mut pipeline = pipe();
        pipeline.cmd("ZUNIONSTORE").arg(&key).arg(1).arg(&key).arg("WEIGHTS").arg(FADING).ignore();
        for ((kind, id), count) in counts {
            pipeline.cmd("ZINCRBY").arg(&key).arg(count).arg(format!("{}:{id}", kind.as_str())).ignore();
        }
        pipeline.cmd("ZREMRANGEBYRANK").arg(&key).arg(0).arg(-MOST_KEPT - 1).ignore();
        pipeline.cmd("EXPIRE").arg(&key).arg(WEEK_SECONDS).ignore();
        // Whoever starts without it reads less beforehand.
        let _ = shared.redis.pipeline::<()>("hottest", WRITE_TIMEOUT, &pipeline).await;
    }
}

impl Cache {
    /// The rows that all nodes have read most; none where nodes share no cache.
    pub(crate) async fn hottest(&self) -> Vec<(Kind, Uuid)> {
        let Some(shared) = self.inner.as_ref().and_then(|inner| inner.shared.as_ref()) else {
            return Vec::new();
        };
        let mut command = redis::cmd("ZREVRANGE");
        command.arg(shared.hot_key()).arg(0).arg(MOST_KEPT);
        let found: Vec<String> =
            shared.redis.command("hottest", READ_TIMEOUT, &command).await.unwrap_or_default();
        let row = |name: &String| {
            let (kind, id) = name.split_once(':')?;
            Some((Kind::parse(kind)?, id.parse().ok()?))
        };
        found.iter().filter_map(row).collect()
    }

    /// Tells at once what is read most here.
    pub async fn tell_hottest(&self) {
        if let Some(inner) = &self.inner {
            inner.tell_hottest().await;
        }
    }
}
