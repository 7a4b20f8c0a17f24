//! The proof of the batcher: random trees of loads over a fake store, then each rule by itself. Group commit is
//! proved in `group`. Nothing here touches a database.

use std::{
    collections::{BTreeMap, HashSet},
    hash::Hasher,
    sync::atomic::AtomicUsize,
};

use futures_util::future::{join_all, try_join_all};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::*;

mod group;

type Load = dyn Fn(Statements, Arc<[u32]>) -> BoxFuture<'static, Loaded<Fake>> + Send + Sync;

/// What one request reads from: nothing, but the reads are counted.
#[derive(Clone, Default)]
struct Statements(Arc<AtomicUsize>);

impl Statements {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::SeqCst);
    }
}

impl Source for Statements {
    type Error = String;

    fn shared<'a>(_: impl Iterator<Item = &'a Self>) -> Self {
        Self::default()
    }

    fn absorb(&self, shared: &Self) {
        self.add(shared.count());
    }

    fn field_error(error: &String, _: &'static str) -> FieldError {
        FieldError::bad_input(error.clone())
    }
}

/// A loader that does what it is told. Equal where name and function are the same; `KIND` makes types of it.
struct Fake<const SHARED: bool = false, const KIND: u8 = 0> {
    name: u32,
    load: Arc<Load>,
}

impl<const S: bool, const K: u8> Clone for Fake<S, K> {
    fn clone(&self) -> Self {
        Self { name: self.name, load: Arc::clone(&self.load) }
    }
}

impl<const S: bool, const K: u8> PartialEq for Fake<S, K> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.load, &other.load)
    }
}

impl<const S: bool, const K: u8> Eq for Fake<S, K> {}

impl<const S: bool, const K: u8> Hash for Fake<S, K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl<const S: bool, const K: u8> Loader for Fake<S, K> {
    const NAME: &'static str = "fake";
    const SHARED: bool = S;
    type Source = Statements;
    type Key = u32;
    type Value = u64;

    async fn load(self, statements: Statements, keys: Arc<[u32]>) -> Loaded<Self> {
        (self.load)(statements, keys).await
    }
}

impl<const S: bool, const K: u8> Fake<S, K> {
    fn new<F: Future<Output = Loaded<Fake>> + Send + 'static>(
        load: impl Fn(Statements, Arc<[u32]>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self { name: 0, load: Arc::new(move |statements, keys| load(statements, keys).boxed()) }
    }

    /// Finds `key + 1000` for every key but multiples of ten, and logs what it was asked for.
    fn logging(log: &Log) -> Self {
        let log = Arc::clone(log);
        Self::new(move |_, keys| {
            note(&log, &keys);
            async move { found(&keys) }
        })
    }
}

/// The sorted keys of each batch.
type Log = Arc<Mutex<Vec<Vec<u32>>>>;

fn note(log: &Log, keys: &[u32]) {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    lock(log).push(keys);
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a loader returns")]
fn found(keys: &[u32]) -> Loaded<Fake> {
    Ok(keys.iter().filter(|key| *key % 10 != 0).map(|key| (*key, u64::from(*key) + 1_000)).collect())
}

fn batcher_in(groups: &Groups) -> (Batcher, Statements) {
    let (statements, metrics) = (Statements::default(), Metrics::register(&mut Registry::default()));
    (Batcher::new(statements.clone(), groups.clone(), metrics), statements)
}

fn batcher() -> Batcher {
    batcher_in(&Groups::new(0)).0
}

/// Pending once, and woken at once: what `FuturesUnordered` does to be a good neighbour.
async fn yield_to_self() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

// Random trees.

/// A selection: which loader, how its futures are combined, what is asked beneath.
#[derive(Clone, Debug)]
struct Branch {
    kind: u8,
    name: u32,
    join: u8,
    branches: Vec<Branch>,
}

/// What was found: for each key its value and what is beneath it, or nothing.
#[derive(Debug, PartialEq)]
struct Tree(Vec<Option<(u64, Vec<Tree>)>>);

fn mix(a: u64, b: u64) -> u64 {
    (a ^ b.rotate_left(31)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17)
}

/// The fake table: one row in five is absent.
fn row(kind: u8, name: u32, key: u32) -> Option<u64> {
    let value = mix(mix(u64::from(kind) + 1, u64::from(name)), u64::from(key));
    (!value.is_multiple_of(5)).then_some(value)
}

/// The keys beneath a row: some twice, some more than thirty (there `join_all` becomes a `FuturesUnordered`).
fn keys_beneath(value: u64, branch: &Branch) -> Vec<u32> {
    let seed = mix(value, u64::from(branch.name));
    let length = if seed.is_multiple_of(23) { 40 } else { seed % 4 };
    (0..length).map(|index| (mix(seed, index) % 50) as u32).collect()
}

fn expected(branch: &Branch, keys: &[u32]) -> Tree {
    let item = |key: &u32| {
        let value = row(branch.kind, branch.name, *key)?;
        let beneath = branch.branches.iter().map(|next| expected(next, &keys_beneath(value, next)));
        Some((value, beneath.collect()))
    };
    Tree(keys.iter().map(item).collect())
}

/// By kind and name of a loader the keys of each batch.
type Loads = BTreeMap<(u8, u32), Vec<Vec<u32>>>;

/// The loaders of one case, and what they were asked for.
#[derive(Clone)]
struct Fakes {
    loads: [Arc<Load>; 3],
    log: Arc<Mutex<Loads>>,
}

impl Fakes {
    fn of_name<const K: u8>(&self, name: u32) -> Fake<false, K> {
        Fake { name, load: Arc::clone(&self.loads[usize::from(K)]) }
    }

    async fn load(&self, batcher: &Batcher, branch: &Branch, key: u32) -> Outcome<u64> {
        // The name goes into the key so that one function can serve every name of its kind.
        let key = branch.name * 1_000 + key;
        match branch.kind {
            0 => batcher.load(self.of_name::<0>(branch.name), key).await,
            1 => batcher.load(self.of_name::<1>(branch.name), key).await,
            _ => batcher.load(self.of_name::<2>(branch.name), key).await,
        }
    }
}

fn fakes(delays: &[u8]) -> Fakes {
    let log = Arc::new(Mutex::new(Loads::new()));
    let (runs, delays) = (Arc::new(AtomicUsize::new(0)), Arc::<[u8]>::from(delays));
    let loads = [0, 1, 2].map(|kind| -> Arc<Load> {
        let (log, runs, delays) = (Arc::clone(&log), Arc::clone(&runs), Arc::clone(&delays));
        Arc::new(move |_, keys| {
            let name = keys[0] / 1_000;
            lock(&log).entry((kind, name)).or_default().push(keys.iter().map(|key| key % 1_000).collect());
            let delay = delays[runs.fetch_add(1, Ordering::Relaxed) % delays.len()];
            async move {
                match delay {
                    0 => {}
                    1 => yield_to_self().await,
                    2 => tokio::task::yield_now().await,
                    us => tokio::time::sleep(Duration::from_micros(u64::from(us) * 10)).await,
                }
                let rows = keys.iter().map(|key| (*key, row(kind, name, key % 1_000)));
                Ok(rows.filter_map(|(key, value)| Some((key, value?))).collect())
            }
            .boxed()
        })
    });
    Fakes { loads, log }
}

/// Walks the tree as resolvers would: one future a key, combined in different ways.
fn walk<'a>(
    batcher: &'a Batcher,
    fakes: &'a Fakes,
    branch: &'a Branch,
    keys: Vec<u32>,
) -> BoxFuture<'a, Tree> {
    let item = move |key: u32| async move {
        for _ in 0..key % 3 {
            yield_to_self().await;
        }
        let value = fakes.load(batcher, branch, key).await.unwrap()?;
        let beneath =
            branch.branches.iter().map(|next| walk(batcher, fakes, next, keys_beneath(value, next)));
        Some((value, join_all(beneath).await))
    };
    async move {
        Tree(match branch.join {
            0 => join_all(keys.into_iter().map(item)).await,
            1 => {
                let results = keys.into_iter().map(|key| item(key).map(Ok::<_, ()>));
                try_join_all(results).await.unwrap()
            }
            _ => {
                let numbered = keys
                    .into_iter()
                    .enumerate()
                    .map(|(index, key)| item(key).map(move |found| (index, found)).boxed());
                let mut found: Vec<_> = numbered.collect::<FuturesUnordered<_>>().collect().await;
                found.sort_by_key(|(index, _)| *index);
                found.into_iter().map(|(_, found)| found).collect()
            }
        })
    }
    .boxed()
}

fn branches() -> impl Strategy<Value = Branch> {
    let leaf = (0..3_u8, 0..3_u32, 0..3_u8).prop_map(|(kind, name, join)| Branch {
        kind,
        name,
        join,
        branches: Vec::new(),
    });
    leaf.prop_recursive(4, 12, 3, |inner| {
        (0..3_u8, 0..3_u32, 0..3_u8, prop::collection::vec(inner, 0..3))
            .prop_map(|(kind, name, join, branches)| Branch { kind, name, join, branches })
    })
}

/// Gives each branch a loader of its own, and counts those that have a key to load.
fn number(branch: &mut Branch, next: &mut u32) {
    branch.name = *next;
    *next += 1;
    branch.branches.iter_mut().for_each(|branch| number(branch, next));
}

fn count_asked(branch: &Branch, keys: &[u32], asked: &mut HashSet<u32>) {
    if keys.is_empty() {
        return;
    }
    asked.insert(branch.name);
    for value in keys.iter().filter_map(|key| row(branch.kind, branch.name, *key)) {
        branch.branches.iter().for_each(|next| count_asked(next, &keys_beneath(value, next), asked));
    }
}

/// Runs one case: what was found, and the log.
fn run_case(branch: &Branch, keys: &[u32], delays: &[u8]) -> (Tree, Loads) {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| {
        let fakes = fakes(delays);
        let (batcher, _) = batcher_in(&Groups::new(0));
        let tree = runtime.block_on(batcher.drive(walk(&batcher, &fakes, branch, keys.to_vec())));
        let log = lock(&fakes.log).clone();
        (tree, log)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_tree_takes_one_load_for_each_edge_of_each_level(
        mut branch in branches(),
        keys in prop::collection::vec(0..50_u32, 0..60),
        delays in prop::collection::vec(0..30_u8, 1..8),
    ) {
        number(&mut branch, &mut 0);
        let (tree, log) = run_case(&branch, &keys, &delays);
        prop_assert_eq!(tree, expected(&branch, &keys));
        let mut asked = HashSet::new();
        count_asked(&branch, &keys, &mut asked);
        prop_assert_eq!(log.values().map(Vec::len).sum::<usize>(), asked.len());
    }

    #[test]
    fn no_key_is_loaded_twice_in_a_request(
        branch in branches(),
        keys in prop::collection::vec(0..50_u32, 0..60),
        delays in prop::collection::vec(0..30_u8, 1..8),
    ) {
        let (tree, log) = run_case(&branch, &keys, &delays);
        prop_assert_eq!(tree, expected(&branch, &keys));
        for batches in log.values() {
            let mut keys = batches.concat();
            keys.sort_unstable();
            let loaded = keys.len();
            keys.dedup();
            prop_assert_eq!(keys.len(), loaded);
        }
    }
}

// The rules one by one.

#[tokio::test]
async fn outcomes_follow_the_order_of_keys() {
    let (batcher, log) = (batcher(), Log::default());
    let loader = Fake::<false, 0>::logging(&log);
    let load = batcher.load_many(loader.clone(), vec![7, 20, 3, 7]);
    let outcomes = batcher.drive(load).await;
    assert_eq!(outcomes, [Ok(Some(1_007)), Ok(None), Ok(Some(1_003)), Ok(Some(1_007))]);
    assert_eq!(*lock(&log), [[3, 7, 20]]);
    assert_eq!(batcher.batches()[0].found, 2);
    assert_eq!((batcher.batches()[0].level, batcher.repeated()), (1, 1), "7 was asked for twice");
    let more = batcher.load_many(loader, vec![3, 8]);
    batcher.drive(more).await;
    assert_eq!((batcher.batches()[1].level, batcher.batches()[1].keys, batcher.repeated()), (2, 1, 2));
}

#[tokio::test]
async fn more_keys_than_one_statement_holds_are_loaded_in_parts() {
    let (batcher, log) = (batcher(), Log::default());
    let keys: Vec<u32> = (0..2_500).collect();
    let outcomes = batcher.drive(batcher.load_many(Fake::<false, 0>::logging(&log), keys)).await;
    assert_eq!(outcomes.len(), 2_500);
    assert!(
        outcomes
            .iter()
            .zip(0_u32..)
            .all(|(outcome, key)| { *outcome == Ok((key % 10 != 0).then_some(u64::from(key) + 1_000)) })
    );
    assert_eq!(lock(&log).iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
}

#[tokio::test]
async fn a_batch_that_panics_fails_only_its_own_keys() {
    let (batcher, log) = (batcher(), Log::default());
    let in_future = Fake::<false, 1>::new(|_, _| async { panic!("a bug in a loader") });
    let before_future = Fake::<false, 2>::new(|_, keys| {
        assert!(keys.is_empty(), "a bug before the first await");
        async move { found(&keys) }
    });
    let good = Fake::<false, 0>::logging(&log);
    let all = async {
        futures_util::join!(
            batcher.load_many(in_future.clone(), vec![1, 2]),
            batcher.load(before_future.clone(), 1),
            batcher.load(good, 1),
        )
    };
    let (first, second, third) = batcher.drive(all).await;
    for outcome in first.into_iter().chain([second]) {
        let error = outcome.expect_err("it panicked");
        assert_eq!(
            (error.code, &*error.message),
            (crate::error::Code::InternalServerError, "Internal server error")
        );
        assert!(error.cause.is_some_and(|cause| cause.ends_with("the batch panicked")));
    }
    assert_eq!(third, Ok(Some(1_001)));
}

#[tokio::test]
async fn an_error_fails_only_its_batch_without_retry() {
    let (batcher, log) = (batcher(), Log::default());
    let noted = Arc::clone(&log);
    let bad = Fake::<false, 1>::new(move |_, keys| {
        note(&noted, &keys);
        async { Err("no".to_owned()) }
    });
    let good = Fake::<false, 0>::new(|_, keys| async move { found(&keys) });
    let all = async { futures_util::join!(batcher.load(bad.clone(), 1), batcher.load(good, 1)) };
    assert_eq!(batcher.drive(all).await, (Err(FieldError::bad_input("no")), Ok(Some(1_001))));
    assert_eq!(batcher.drive(batcher.load(bad, 1)).await, Err(FieldError::bad_input("no")));
    assert_eq!(lock(&log).len(), 1, "a failure is remembered as well");
}

/// Says when it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn dropping_the_request_drops_the_batch_under_way() {
    for shared in [0, 1] {
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&dropped);
        let endless = Fake::<true, 0>::new(move |_, _| {
            let guard = Guard(Arc::clone(&flag));
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                found(&[])
            }
        });
        let (batcher, _) = batcher_in(&Groups::new(shared));
        let request = batcher.drive(batcher.load(endless, 1));
        assert!(tokio::time::timeout(Duration::from_millis(5), request).await.is_err());
        assert!(dropped.load(Ordering::SeqCst), "with {shared} shared batches");
    }
}

#[tokio::test]
async fn forgotten_keys_are_loaded_again() {
    let (batcher, log) = (batcher(), Log::default());
    let fake = Fake::<false, 0>::logging(&log);
    for _ in 0..2 {
        batcher.drive(batcher.load(fake.clone(), 1)).await.unwrap();
    }
    assert_eq!(lock(&log).len(), 1);
    batcher.forget();
    batcher.drive(batcher.load(fake, 1)).await.unwrap();
    assert_eq!(lock(&log).len(), 2);
}

#[tokio::test]
async fn forgetting_during_a_batch_reloads_without_hanging() {
    let (batcher, rounds) = (batcher(), Arc::new(AtomicUsize::new(0)));
    let released = Arc::new(tokio::sync::Notify::new());
    let (counted, waited_for) = (Arc::clone(&rounds), Arc::clone(&released));
    // What the first batch reads comes after what the second one reads.
    let slow = Fake::<false, 0>::new(move |_, _| {
        let (round, released) = (counted.fetch_add(1, Ordering::SeqCst) as u64, Arc::clone(&waited_for));
        async move {
            if round == 0 {
                released.notified().await;
            }
            Ok([(1, round)].into_iter().collect())
        }
    });
    let begun = async |count| {
        while rounds.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    };
    let write = async {
        begun(1).await;
        batcher.forget();
        begun(2).await;
        released.notify_one();
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let both = async { futures_util::join!(batcher.load(slow.clone(), 1), write).0 };
    let value = tokio::time::timeout(Duration::from_secs(20), batcher.drive(both)).await;
    assert_eq!(value.expect("it ends"), Ok(Some(1)), "what was read before the write is not served after it");
    assert_eq!(batcher.drive(batcher.load(slow, 1)).await, Ok(Some(1)));
    assert_eq!(rounds.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn equal_loads_asked_in_different_polls_are_one() {
    let (batcher, log) = (batcher(), Log::default());
    let fake = Fake::<false, 0>::logging(&log);
    let late = async {
        for _ in 0..5 {
            yield_to_self().await;
        }
        batcher.load(fake.clone(), 1).await
    };
    let later = async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        batcher.load(fake.clone(), 1).await
    };
    let all = async { futures_util::join!(batcher.load(fake.clone(), 1), late, later) };
    assert_eq!(batcher.drive(all).await, (Ok(Some(1_001)), Ok(Some(1_001)), Ok(Some(1_001))));
    assert_eq!(*lock(&log), [[1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_from_another_thread_is_never_lost() {
    for round in 0..200_u32 {
        let fake = Fake::<false, 0>::new(|_, keys| async move {
            // The load itself is woken from elsewhere, too.
            let elsewhere = tokio::spawn(async move { found(&keys) });
            elsewhere.await.unwrap()
        });
        let (batcher, _) = batcher_in(&Groups::new(0));
        let (send, receive) = tokio::sync::oneshot::channel();
        drop(tokio::spawn(async move { send.send(round % 7 + 1) }));
        let execution = async {
            let key = receive.await.unwrap();
            batcher.load(fake, key).await
        };
        let outcome = tokio::time::timeout(Duration::from_secs(5), batcher.drive(execution)).await;
        assert_eq!(outcome.expect("no wake is lost"), Ok(Some(u64::from(round % 7) + 1_001)));
    }
}

#[test]
fn a_lone_request_needs_no_timer() {
    // A runtime without a clock: whoever asks it for a timer panics.
    let clockless = Builder::new_current_thread().build().unwrap();
    let (batcher, _) = batcher_in(&Groups::new(2));
    let fake = Fake::<true, 0>::new(|_, keys| async move { found(&keys) });
    assert_eq!(clockless.block_on(batcher.drive(batcher.load(fake, 1))), Ok(Some(1_001)));
}

#[tokio::test]
async fn a_batch_tells_which_batches_let_it_begin() {
    let batcher = batcher();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&gate);
    let first = Fake::<false, 0>::logging(&Log::default());
    let second = Fake::<false, 1>::new(move |_, keys| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            found(&keys)
        }
    });
    let third = Fake::<false, 2>::logging(&Log::default());
    let fourth = Fake::<false, 3>::logging(&Log::default());
    let execution = async {
        // What the third asks for is known with the first; the fourth needs both the second and the third.
        let chain = async {
            batcher.load(first.clone(), 1).await.unwrap();
            batcher.load(third.clone(), 2).await.unwrap();
            tokio::spawn(async move { gate.add_permits(1) });
        };
        futures_util::join!(chain, batcher.load(second.clone(), 3).map(Result::unwrap));
        batcher.load(fourth.clone(), 4).await.unwrap();
    };
    batcher.drive(execution).await;
    let runs: Vec<_> =
        batcher.batches().into_iter().map(|run| (run.level, run.after, run.requests)).collect();
    assert_eq!(runs, [(1, 0..0, 1), (2, 0..1, 1), (1, 0..0, 1), (3, 2..3, 1)]);
    assert!(batcher.batches().iter().all(|run| run.queued.is_zero()), "it shares with nobody");
}
