//! Which values may be loaded from a standby, so that none is older than the stamps say. A watcher of each
//! server looks where that is in the write-ahead log. Whoever invalidates something has committed it before,
//! so the position of the primary's log, asked for after a version is known, lies behind everything that the
//! version counts (a `WalPoint`). A standby that has replayed up to a point shows what a load at the point's
//! version would find: its COVERED version. What is loaded there is stored with that version, so the rule of
//! the table (`table`) holds for it as for any other load, and a value that was written since is not used.
//! Nothing is asked for a version that is covered, and no read waits for a write that does not touch it.
//!
//! Positions can be compared only in one history. A sign of life of this process (`instance`), which the
//! primary shows at a point, has to be there on a standby that claims to have replayed that point: another
//! database, or a standby that did not follow when its primary was replaced, does not have it. A primary that
//! was replaced or started anew has to show a sign that was given after that. Not here: connections and
//! statements (`database::replica`).

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};

use super::{
    CacheInner, Cached,
    instance::Instance,
    read::{Reading, Staleness},
    table::{Slot, Version, VersionTable},
    tag::Tag,
};
use crate::{
    database::{
        Database, ReplicaOptions,
        replica::{Fallback, OnReplica, Replica, ServerId, WatchedServer, Watcher},
    },
    error::Error,
};

/// How long a server may take to say where it is.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Between two looks while somebody waits.
const LOOK: Duration = Duration::from_millis(1);
/// Between two looks while nobody does.
const LOOK_AT_REST: Duration = Duration::from_millis(500);
/// After a look that failed.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Points that are remembered at most; where there are more, every second one is forgotten.
const POINTS: usize = 4_096;

/// The standbys.
pub(super) struct Replicas {
    members: Vec<Arc<Member>>,
    wait: Duration,
    max_lag: Duration,
    points: Mutex<WalPoints>,
}

struct Member {
    replica: Replica,
    coverage: watch::Sender<Option<Coverage>>,
    /// How many readers wait for it to go on.
    waiting: AtomicUsize,
    /// Somebody has begun to wait.
    wanted: Notify,
}

/// What a standby shows.
#[derive(Clone, Debug)]
struct Coverage {
    version: Version,
    on: OnReplica,
}

/// What the primary had at some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WalPoint {
    version: Version,
    /// Bytes of the log.
    position: i64,
    /// The sign of life that it showed.
    beat: u64,
    at: Instant,
}

/// The points of one primary, oldest first.
#[derive(Debug, Default)]
struct WalPoints(VecDeque<WalPoint>);

/// Where to load from.
#[derive(Clone, Debug)]
pub(super) struct ReplicaChoice {
    pub(super) on: OnReplica,
    /// What is loaded there is as if it had been loaded from the primary at this version.
    pub(super) version: Version,
}

impl WalPoints {
    fn add(&mut self, point: WalPoint) {
        if self.0.len() == POINTS {
            // Every second one: what is between two points is covered a little later.
            let mut number = 0_usize;
            self.0.retain(|_| {
                number += 1;
                number.is_multiple_of(2)
            });
        }
        self.0.push_back(point);
    }

    /// The newest point up to which this position has come.
    fn reached(&self, position: i64) -> Option<&WalPoint> {
        self.0.iter().rev().find(|point| point.position <= position)
    }

    /// When the oldest point was taken to which this position has not come.
    fn missing_since(&self, position: i64) -> Option<Instant> {
        self.0.iter().find(|point| point.position > position).map(|point| point.at)
    }
}

impl Replicas {
    /// The standbys of this database, if it has any.
    pub(super) fn of(database: &Database) -> Option<Self> {
        let member = |replica: &Replica| {
            Arc::new(Member {
                replica: replica.clone(),
                coverage: watch::Sender::new(None),
                waiting: AtomicUsize::new(0),
                wanted: Notify::new(),
            })
        };
        let members: Vec<_> = database.replicas().iter().map(member).collect();
        let ReplicaOptions { wait, max_lag, .. } = *database.replica_options();
        (!members.is_empty()).then(|| Self { members, wait, max_lag, points: Mutex::default() })
    }

    /// A standby that is far enough for a load. Waits a little for one to come that far.
    async fn choose(&self, needs: &Needs<'_>) -> Option<ReplicaChoice> {
        if let Some(choice) = self.find(needs) {
            return Some(choice);
        }
        let Some(member) = self.any_in_rotation() else {
            self.members[0].replica.note(Fallback::OutOfRotation);
            return None;
        };
        let deadline = tokio::time::Instant::now() + self.wait;
        let _waiting = WaitingReader::for_member(member);
        let mut coverage = member.coverage.subscribe();
        while let Ok(Ok(())) = tokio::time::timeout_at(deadline, coverage.changed()).await {
            if let Some(choice) = self.find(needs) {
                return Some(choice);
            }
        }
        member.replica.note(Fallback::Behind);
        None
    }

    fn any_in_rotation(&self) -> Option<&Member> {
        let members = self.members.iter().filter(|member| member.replica.is_in_rotation());
        let members: Vec<&Arc<Member>> = members.collect();
        fastrand::choice(members).map(|member| &**member)
    }

    /// Of two that are far enough, whichever they are, the one with less to do.
    fn find(&self, needs: &Needs<'_>) -> Option<ReplicaChoice> {
        let far_enough = |member: &Arc<Member>| {
            let coverage = member.coverage.borrow();
            coverage.as_ref().filter(|coverage| needs.is_met_by(coverage.version)).cloned()
        };
        let candidates: Vec<Coverage> = self.members.iter().filter_map(far_enough).collect();
        let one = fastrand::choice(&candidates)?;
        let other = fastrand::choice(&candidates)?;
        let is_less_busy = other.on.replica.running() < one.on.replica.running();
        let Coverage { version, on } = if is_less_busy { other } else { one }.clone();
        Some(ReplicaChoice { on, version })
    }

    fn points(&self) -> MutexGuard<'_, WalPoints> {
        self.points.lock().expect("no panic happens under this lock")
    }
}

/// What a load needs, as far as that is known before: none of these slots was invalidated since.
struct Needs<'a> {
    staleness: &'a Staleness,
    table: &'a VersionTable,
    slots: Vec<Slot>,
}

impl Needs<'_> {
    fn is_met_by(&self, version: Version) -> bool {
        self.staleness.is_valid(self.table, version, &self.slots)
    }
}

/// Counts a reader that waits.
struct WaitingReader<'a>(&'a Member);

impl<'a> WaitingReader<'a> {
    fn for_member(member: &'a Member) -> Self {
        member.waiting.fetch_add(1, Ordering::Relaxed);
        member.wanted.notify_one();
        Self(member)
    }
}

impl Drop for WaitingReader<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C: Cached> Reading<'_, C> {
    /// A standby that these keys may be loaded from, if there is one.
    pub(super) async fn replica_for(&self, keys: &[C::Key]) -> Option<ReplicaChoice> {
        let replicas = self.cache.replicas.as_ref()?;
        let needs = self.needs(keys)?;
        Box::pin(replicas.choose(&needs)).await
    }

    /// `None` where only the primary will do: a request that has just written most likely reads what it
    /// wrote, and without stamps nothing can be compared.
    fn needs(&self, keys: &[C::Key]) -> Option<Needs<'_>> {
        let has_written = self.context.recorder().is_some_and(|recorder| recorder.commits() > 0);
        if keys.is_empty() || has_written || !self.read.may_be_on_replica() {
            return None;
        }
        let tags = keys.iter().flat_map(|key| self.read.tags(*key, None));
        let mut slots: Vec<Slot> = tags.map(|tag: Tag| tag.slot()).collect();
        slots.sort_unstable();
        slots.dedup();
        let needs = Needs { staleness: &self.staleness, table: &self.cache.table, slots };
        // Where not even what is loaded now would do, no standby will.
        let now = self.staleness.version(&self.cache.table)?;
        needs.is_met_by(now).then_some(needs)
    }

    /// The keys whose values are not as new as this reader has to see them, if they were loaded from a
    /// standby that covers this version: some tags are known only from the value, and none tell that a
    /// missing row was made since.
    pub(super) fn outdated(
        &self,
        version: Version,
        keys: &[C::Key],
        values: &FxHashMap<C::Key, Arc<C::Value>>,
    ) -> Arc<[C::Key]> {
        let is_outdated = |key: &&C::Key| match values.get(*key) {
            None => !self.read.caches_absence(),
            Some(value) => {
                let tags = self.read.tags(**key, Some(value));
                let slots: Vec<Slot> = tags.iter().map(Tag::slot).collect();
                !self.staleness.is_valid(&self.cache.table, version, &slots)
            }
        };
        keys.iter().filter(is_outdated).copied().collect()
    }
}

/// Follows the servers for as long as the cache is there.
pub(super) fn follow(cache: &Arc<CacheInner>, database: &Database, instance: &Arc<Instance>) {
    let (Some(replicas), Some(watcher)) = (&cache.replicas, database.watcher()) else { return };
    let primary = Primary { watcher, server: None, needs: 0 };
    let primary = Arc::new(tokio::sync::Mutex::new(primary));
    for member in &replicas.members {
        let follower = Follower {
            cache: Arc::downgrade(cache),
            database: database.clone(),
            instance: Arc::clone(instance),
            primary: Arc::clone(&primary),
            member: Arc::clone(member),
        };
        tokio::spawn(follower.run());
    }
}

/// What is known of the primary.
struct Primary {
    watcher: Watcher,
    /// Which server it was when it was looked at last.
    server: Option<ServerId>,
    /// The sign of life that it has to show at least.
    needs: u64,
}

/// Follows one standby.
struct Follower {
    cache: Weak<CacheInner>,
    database: Database,
    instance: Arc<Instance>,
    primary: Arc<tokio::sync::Mutex<Primary>>,
    member: Arc<Member>,
}

impl Follower {
    async fn run(self) {
        let mut watcher = self.member.replica.watcher();
        loop {
            let Some(cache) = self.cache.upgrade() else { return };
            let Some(replicas) = &cache.replicas else { return };
            let looked = self.look(&cache, replicas, &mut watcher).await;
            // Nobody but its users keeps the cache.
            drop(cache);
            let Self { member, .. } = &self;
            let is_waited_for = member.waiting.load(Ordering::Relaxed) > 0;
            match looked {
                Ok(()) if is_waited_for => tokio::time::sleep(LOOK).await,
                Ok(()) => {
                    let _ = tokio::time::timeout(LOOK_AT_REST, member.wanted.notified()).await;
                }
                Err(why) => {
                    watcher.reconnect();
                    member.coverage.send_replace(None);
                    member.replica.set_in_rotation(false, why);
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// Looks where the standby is, and what it covers.
    ///
    /// # Errors
    /// Why nothing may be read from it.
    async fn look(
        &self,
        cache: &CacheInner,
        replicas: &Replicas,
        watcher: &mut Watcher,
    ) -> Result<(), &'static str> {
        let member = &self.member;
        // While the primary is away nothing is written, and what was covered still is.
        let _ = self.take_point(cache, replicas).await;
        let mut seen = self.ask(watcher).await.inspect_err(|_| member.replica.forget_lag())?;
        let (point, missing_since) = {
            let points = replicas.points();
            (points.reached(seen.watch.position).copied(), points.missing_since(seen.watch.position))
        };
        let lag = missing_since.map_or(Duration::ZERO, |since| since.elapsed());
        member.replica.set_lag(lag.as_secs_f64());
        if lag > replicas.max_lag {
            return Err("it is too far behind");
        }
        let Some(point) = point else {
            let is_new = !member.replica.is_in_rotation();
            return Err(if is_new { "" } else { "what the primary has written is not known yet" });
        };
        if !self.shows(&seen, &point) {
            // A statement sees the rows of the moment at which it begins, and the position of a moment later.
            seen = self.ask(watcher).await?;
            if !self.shows(&seen, &point) {
                return Err("what it shows is not what the primary wrote");
            }
        }
        let on = OnReplica { replica: member.replica.clone(), watch: seen.watch };
        member.coverage.send_replace(Some(Coverage { version: point.version, on }));
        member.replica.set_in_rotation(true, "");
        Ok(())
    }

    async fn ask(&self, watcher: &mut Watcher) -> Result<WatchedServer, &'static str> {
        let seen = watcher.look(self.instance.id(), ANSWER_WITHIN).await;
        let seen = seen.map_err(|_| "it does not answer")?;
        if seen.is_standby { Ok(seen) } else { Err("it takes writes of its own") }
    }

    /// Does a server show the sign of life that the primary had at this point, or a later one?
    fn shows(&self, seen: &WatchedServer, point: &WalPoint) -> bool {
        seen.beat.and_then(|beat| self.instance.number_of(beat)).is_some_and(|beat| beat >= point.beat)
    }

    /// Looks what the primary has at the version that is known now, unless that was looked at already.
    async fn take_point(&self, cache: &CacheInner, replicas: &Replicas) -> Result<(), Error> {
        let mut primary = self.primary.lock().await;
        let version = cache.table.current();
        let is_known = |point: &WalPoint| point.version == version && point.at.elapsed() < LOOK_AT_REST / 2;
        if version.epoch == 0 || replicas.points().0.back().is_some_and(is_known) {
            return Ok(());
        }
        let (at, stored) = (Instant::now(), self.instance.stored_beat());
        let place = primary.watcher.look(self.instance.id(), ANSWER_WITHIN).await?;
        let WatchedServer { watch, is_standby, beat } = place;
        let beat = beat.and_then(|beat| self.instance.number_of(beat));
        // Where this process writes is where versions come from: a server that does not show it is another one by now.
        let is_written_to = self.database.written().is_none_or(|written| written == watch.server);
        if is_standby || !is_written_to || beat < stored {
            primary.watcher.reconnect();
            replicas.points().0.clear();
            return Ok(());
        }
        if primary.server.replace(watch.server) != Some(watch.server) {
            replicas.points().0.clear();
            primary.needs = self.instance.beat_soon();
        }
        if let Some(beat) = beat.filter(|beat| *beat >= primary.needs) {
            replicas.points().add(WalPoint { version, position: watch.position, beat, at });
        }
        Ok(())
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replicas").field(&self.members.len()).finish()
    }
}
