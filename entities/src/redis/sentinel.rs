//! Which server the sentinels name as the master. Each sentinel is asked five times a second. A master counts
//! while a MAJORITY of the sentinels have named it within the last second (the lease); what it says later is
//! not believed. So a server that was replaced while this process still reaches it is given up a second later
//! at most.
//!
//! Two majorities have a sentinel in common, and sentinels do not go back to a master of before. When a
//! majority names a new master to one process, no other process can begin a lease on the old one any more,
//! and a second later the last one is over. So nothing is begun on a new master before it has counted for so
//! long (it is settled): what others have still told the old one in that second would be missing there. Where
//! somebody else has begun there already, that second is over. No clocks are compared: each process measures
//! its own time. Not here: connections to the master (`connect`).

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, aio::MultiplexedConnection};
use tokio::sync::watch;

use super::url::SentinelSource;

/// How long a master counts after a majority of the sentinels was asked.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// Between two questions to one sentinel.
const LOOK: Duration = Duration::from_millis(200);
/// After so many failures in a row a sentinel is asked less often.
const FAILURES: u32 = 10;
/// A sentinel may take so long to answer, and as long to connect to.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// A server that a majority has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedMaster {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    /// Since when, without a break.
    pub(super) since: Instant,
    /// Which one it is of those that were named: the same server counts anew after a break.
    pub(super) term: u64,
}

impl NamedMaster {
    /// No other process believes another one any more.
    pub(super) fn is_settled(&self) -> bool {
        self.since.elapsed() > LEASE
    }
}

/// What the sentinels say.
pub(super) struct SentinelWatch {
    source: SentinelSource,
    is_started: AtomicBool,
    started: Instant,
    answers: Mutex<Vec<SentinelAnswer>>,
    master: watch::Sender<Option<NamedMaster>>,
    /// When the majority that named it was asked, microseconds after `started`, plus one; 0 is never.
    confirmed_at: AtomicU64,
    /// Of the master that was named last.
    term: AtomicU64,
}

/// The last answer of one sentinel, and what went wrong since.
#[derive(Clone, Default)]
struct SentinelAnswer {
    named: Option<(Arc<str>, u16)>,
    /// Before it was asked.
    asked: Option<Instant>,
    failure: Option<String>,
}

impl SentinelWatch {
    pub(super) fn new(source: SentinelSource) -> Arc<Self> {
        let answers = Mutex::new(vec![SentinelAnswer::default(); source.sentinels.len()]);
        Arc::new(Self {
            source,
            is_started: AtomicBool::new(false),
            started: Instant::now(),
            answers,
            master: watch::Sender::new(None),
            confirmed_at: AtomicU64::new(0),
            term: AtomicU64::new(0),
        })
    }

    /// Begins to ask, if that has not begun; true when this call did. Ends with the last user of the watch.
    pub(super) fn start(self: &Arc<Self>) -> bool {
        if self.is_started.swap(true, Ordering::AcqRel) {
            return false;
        }
        for (number, (_, client)) in self.source.sentinels.iter().enumerate() {
            let master = self.source.master.clone();
            tokio::spawn(keep_asking(Arc::downgrade(self), number, client.clone(), master));
        }
        true
    }

    /// The master that counts now.
    pub(super) fn master(&self) -> Option<NamedMaster> {
        if self.is_confirmed() { self.master.borrow().clone() } else { None }
    }

    /// Has a majority named the master a moment ago?
    pub(super) fn is_confirmed(&self) -> bool {
        self.lease_end().is_some_and(|end| Instant::now() <= end)
    }

    /// How long the master counts that was named last.
    pub(super) fn lease_end(&self) -> Option<Instant> {
        let asked_at = self.confirmed_at.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.started + Duration::from_micros(asked_at) + LEASE)
    }

    /// The term of the master that counts now.
    pub(super) fn confirmed_term(&self) -> Option<u64> {
        // What is confirmed has its term already.
        self.is_confirmed().then(|| self.term.load(Ordering::Acquire))
    }

    /// Does this one still count, and has it all the time?
    pub(super) fn confirms(&self, master: &NamedMaster) -> bool {
        self.is_confirmed() && self.master.borrow().as_ref() == Some(master)
    }

    /// Tells of every other master, and of one that counts again.
    pub(super) fn changes(&self) -> watch::Receiver<Option<NamedMaster>> {
        self.master.subscribe()
    }

    /// How to connect to it.
    pub(super) fn client(&self, master: &NamedMaster) -> Result<Client, RedisError> {
        self.source.node_at(&master.host, master.port)
    }

    /// The master; waits for the first answers only.
    pub(super) async fn expect_master(&self) -> Result<NamedMaster, RedisError> {
        let mut changes = self.changes();
        // Whoever connects has a bound of its own.
        while self.confirmed_at.load(Ordering::Acquire) == 0 && !self.has_heard_all() {
            let heard = tokio::time::timeout(LOOK / 4, changes.changed()).await;
            if matches!(heard, Ok(Err(_))) {
                break;
            }
        }
        let unknown = || {
            let what = "a majority of the sentinels names no master";
            RedisError::from((ErrorKind::Io, what, self.reasons()))
        };
        self.master().ok_or_else(unknown)
    }

    fn has_heard_all(&self) -> bool {
        self.answers().iter().all(|answer| answer.asked.is_some() || answer.failure.is_some())
    }

    /// What each sentinel says now.
    fn reasons(&self) -> String {
        let answers = self.answers();
        let reasons = self.source.sentinels.iter().zip(&*answers).map(|((name, _), answer)| match answer {
            SentinelAnswer { failure: Some(failure), .. } => format!("{name}: {failure}"),
            SentinelAnswer { named: Some((host, port)), .. } => format!("{name} names {host}:{port}"),
            SentinelAnswer { named: None, .. } => format!("{name} has not answered yet"),
        });
        reasons.collect::<Vec<_>>().join("; ")
    }

    /// Takes note of what a sentinel has named, and of what was asked before.
    fn note(&self, number: usize, named: (Arc<str>, u16), asked: Instant) {
        let mut answers = self.answers();
        answers[number] = SentinelAnswer { named: Some(named.clone()), asked: Some(asked), failure: None };
        let same = answers.iter().filter(|answer| answer.named.as_ref() == Some(&named));
        let mut asked: Vec<Instant> = same.filter_map(|answer| answer.asked).collect();
        asked.sort_unstable_by(|one, other| other.cmp(one));
        let majority = answers.len() / 2 + 1;
        let Some(confirmed) = asked.get(majority - 1) else { return };
        if confirmed.elapsed() > LEASE {
            return;
        }
        let lapsed = !self.is_confirmed();
        let (host, port) = named;
        self.master.send_if_modified(|master| {
            let is_same = master.as_ref().is_some_and(|master| master.host == host && master.port == port);
            if is_same && !lapsed {
                return false;
            }
            // Meanwhile there may have been another one.
            let term = self.term.fetch_add(1, Ordering::AcqRel) + 1;
            *master = Some(NamedMaster { host, port, since: Instant::now(), term });
            true
        });
        let at = confirmed.saturating_duration_since(self.started).as_micros() as u64 + 1;
        self.confirmed_at.store(at, Ordering::Release);
    }

    fn note_failure(&self, number: usize, failure: String) {
        self.answers()[number].failure = Some(failure);
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Vec<SentinelAnswer>> {
        self.answers.lock().expect("no panic happens under this lock")
    }
}

/// Asks one sentinel for as long as somebody wants to know.
async fn keep_asking(watch: Weak<SentinelWatch>, number: usize, client: Client, master: String) {
    let (mut connection, mut failures) = (None, 0_u32);
    loop {
        let asked = Instant::now();
        let answer = ask(&client, &mut connection, &master).await;
        let Some(watch) = watch.upgrade() else { return };
        match answer {
            Ok((host, port)) => {
                failures = 0;
                watch.note(number, (Arc::from(host), port), asked);
            }
            Err(failure) => {
                connection = None;
                failures += 1;
                watch.note_failure(number, failure);
            }
        }
        drop(watch);
        // One that goes on failing is asked once a second.
        tokio::time::sleep(if failures > FAILURES { LOOK * 5 } else { LOOK }).await;
    }
}

/// Which master a sentinel names.
async fn ask(
    client: &Client,
    connection: &mut Option<MultiplexedConnection>,
    master: &str,
) -> Result<(String, u16), String> {
    let silent = |_| "it does not answer".to_owned();
    let known = if let Some(known) = connection {
        known
    } else {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connected = tokio::time::timeout(ANSWER_WITHIN, connecting).await.map_err(silent)?;
        connection.insert(connected.map_err(|error| error.to_string())?)
    };
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer = tokio::time::timeout(ANSWER_WITHIN, command.query_async(known)).await.map_err(silent)?;
    let named: Option<(String, u16)> = answer.map_err(|error: RedisError| error.to_string())?;
    named.ok_or_else(|| format!("it knows no master `{master}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::url::{RedisSource, RedisUrl};

    fn watch() -> Arc<SentinelWatch> {
        let url: RedisUrl = "redis+sentinel://a,b,c/m".parse().expect("a URL");
        let RedisSource::Sentinel(source) = url.source else { panic!("sentinels") };
        SentinelWatch::new(*source)
    }

    fn named(host: &str) -> (Arc<str>, u16) {
        (Arc::from(host), 6379)
    }

    fn host(watch: &SentinelWatch) -> Option<String> {
        watch.master().map(|master| master.host.to_string())
    }

    #[test]
    fn a_majority_names_the_master() {
        let (watch, now) = (watch(), Instant::now());
        watch.note(0, named("old"), now);
        assert_eq!(host(&watch), None, "one of three");
        watch.note(1, named("old"), now);
        assert_eq!(host(&watch).as_deref(), Some("old"));
        let old = watch.master().expect("it counts");
        watch.note(2, named("new"), now);
        assert!(watch.confirms(&old), "the other two have named it a moment ago");
        watch.note(1, named("new"), now);
        assert_eq!(host(&watch).as_deref(), Some("new"));
        assert!(!watch.confirms(&old));
        assert!(!watch.master().expect("it counts").is_settled(), "others may believe the old one");
    }

    #[test]
    fn the_lease_begins_when_the_majority_was_asked() {
        let (watch, now) = (watch(), Instant::now());
        let long_ago = now.checked_sub(LEASE * 2).expect("a time");
        watch.note(0, named("old"), long_ago);
        watch.note(1, named("old"), now);
        assert_eq!(host(&watch), None, "one of the two answers is too old");
        watch.note(2, named("old"), now);
        assert_eq!(host(&watch).as_deref(), Some("old"));
    }

    #[test]
    fn a_master_that_counts_again_has_to_settle_anew() {
        let (watch, now) = (watch(), Instant::now());
        watch.note(0, named("old"), now);
        watch.note(1, named("old"), now);
        let before = watch.master().expect("it counts");
        // As if nothing had been heard for a while.
        watch.confirmed_at.store(0, Ordering::Release);
        assert!(!watch.confirms(&before));
        watch.note(2, named("old"), Instant::now());
        let after = watch.master().expect("it counts");
        assert!(after.since > before.since && !watch.confirms(&before));
        assert_eq!((before.term, after.term, watch.confirmed_term()), (1, 2, Some(2)));
        watch.note(0, named("old"), Instant::now());
        assert_eq!(watch.confirmed_term(), Some(2), "it goes on");
        watch.note(0, named("new"), Instant::now());
        watch.note(1, named("new"), Instant::now());
        assert_eq!(watch.confirmed_term(), Some(3));
        watch.confirmed_at.store(0, Ordering::Release);
        assert_eq!(watch.confirmed_term(), None);
    }
}
