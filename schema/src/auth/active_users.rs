//! Who has asked lately, as a number: the accounts whose tokens were let in by this process. Each process counts for
//! itself; an account that asks two of them counts twice. Not here: the last use of a session (`entities::session`).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use entities::id::UserId;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use rustc_hash::FxHashMap;

/// The stretches of time that are told, and what they are called.
const WINDOWS: [(&str, Duration); 2] = [("5m", Duration::from_mins(5)), ("1h", Duration::from_hours(1))];

/// When each account last asked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveUsers(Arc<Mutex<FxHashMap<UserId, Instant>>>);

impl ActiveUsers {
    /// This account asks now.
    pub(crate) fn note(&self, user: UserId) {
        self.lock().insert(user, Instant::now());
    }

    /// Accounts that asked so long ago that nobody wants to know are no longer held.
    pub(crate) fn forget(&self) {
        let longest = WINDOWS.map(|(_, window)| window).into_iter().max().unwrap_or_default();
        self.lock().retain(|_, last| last.elapsed() < longest);
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<UserId, Instant>> {
        self.0.lock().expect("no panic happens under this lock")
    }
}

impl Collector for ActiveUsers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Accounts that asked this process within the window";
        let mut family = encoder.encode_descriptor("users_active", help, None, MetricType::Gauge)?;
        for (name, window) in WINDOWS {
            let active = self.lock().values().filter(|last| last.elapsed() < window).count();
            ConstGauge::new(active as i64).encode(family.encode_family(&[("window", name)])?)?;
        }
        Ok(())
    }
}
