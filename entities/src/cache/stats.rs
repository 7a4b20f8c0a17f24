//! How a batch of keys went in one tier, reported to the metrics and, where a request explains itself, to its
//! recorder.

use std::time::Duration;

use super::{
    CacheRead, Recorder, Tag,
    metrics::{CacheMetrics, LookupResult, Tier},
};

/// Keys by what was found.
#[derive(Default)]
pub(super) struct CacheStats {
    keys: [u64; LookupResult::ALL.len()],
    oldest: Duration,
}

impl CacheStats {
    /// Counts a key; `age` is that of what is used.
    pub(super) fn add(&mut self, found: LookupResult, age: Duration) {
        self.keys[found as usize] += 1;
        if matches!(found, LookupResult::Hit | LookupResult::Stale) {
            self.oldest = self.oldest.max(age);
        }
    }

    /// Reports it; `tags` are those of a key of the batch.
    pub(super) fn report(
        &self,
        metrics: &CacheMetrics,
        recorder: Option<&Recorder>,
        (tier, of): (Tier, &'static str),
        tags: impl FnOnce() -> Vec<Tag>,
    ) {
        let counted = LookupResult::ALL.into_iter().map(|found| (found, self.keys[found as usize]));
        let counted = counted.filter(|(_, keys)| *keys > 0);
        for (found, keys) in counted.clone() {
            metrics.read(tier, of, found, keys);
        }
        let Some(recorder) = recorder else { return };
        recorder.count_cache_hits(
            self.keys[LookupResult::Hit as usize] + self.keys[LookupResult::Stale as usize],
        );
        if !recorder.keeps_texts() {
            return;
        }
        let keys = counted.map(|(found, keys)| (found.as_str(), keys)).collect();
        let age_seconds = (self.oldest.as_secs_f64() * 1e3).round() / 1e3;
        let tags = tags().iter().map(ToString::to_string).collect();
        recorder.add_cache_read(CacheRead { of, tier: tier.as_str(), keys, age_seconds, tags });
    }
}
