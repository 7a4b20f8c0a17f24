//! Readers and writers of the same keys at the same time: nobody reads what is older than what was committed before.

use super::*;

/// What one run of the race saw.
#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    stale: u64,
}

/// Readers and writers of a few hot keys. A read is stale if it began after a write was answered and is older.
async fn race<R, W>(keys: u128, reads_each: u64, read: R, write: W) -> Seen
where
    R: AsyncFn(Uuid) -> u64 + Clone,
    W: AsyncFn(Uuid, u64),
{
    let answered: Vec<AtomicU64> = (0..keys).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    let reader = async || {
        let mut seen = Seen::default();
        for turn in 0..reads_each {
            let key = fastrand::u128(0..keys);
            let floor = answered[key as usize].load(Ordering::SeqCst);
            let version = read(Uuid::from_u128(key)).await;
            seen.reads += 1;
            seen.stale += u64::from(version < floor);
            if turn % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        seen
    };
    let writer = async {
        let mut version = 0;
        while !done.load(Ordering::SeqCst) {
            version += 1;
            let key = fastrand::u128(0..keys);
            write(Uuid::from_u128(key), version).await;
            answered[key as usize].store(version, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    let readers = async {
        let seen = futures_util::future::join_all((0..16).map(|_| reader())).await;
        done.store(true, Ordering::SeqCst);
        seen.iter().fold(Seen::default(), |all, seen| Seen {
            reads: all.reads + seen.reads,
            stale: all.stale + seen.stale,
        })
    };
    tokio::join!(writer, readers).1
}

#[tokio::test]
async fn a_million_reads_under_writes_see_nothing_stale() {
    let versions = Versions::new(true);
    let instance = Node::over(&versions).await;
    let write = async |key, version| instance.write(key, version).await;
    let read = async |key| instance.read(key).await.unwrap_or(0);
    let seen = race(20, 62_500, read, write).await;
    assert_eq!((seen.reads, seen.stale), (1_000_000, 0), "{} loads", versions.loads());
    assert!(versions.loads() > 100, "the writes were felt: {} loads", versions.loads());
}

#[tokio::test]
async fn the_race_catches_a_cache_that_only_deletes() {
    let versions = Versions::new(true);
    let cache: moka::future::Cache<Uuid, u64> = moka::future::Cache::new(1_000);
    let write = async |key, version| {
        versions.commit(key, version);
        cache.invalidate(&key).await;
    };
    let read = async |key| {
        let load =
            async { versions.load(&[key]).await.expect("it is up").get(&key).map_or(0, |found| **found) };
        cache.get_with(key, load).await
    };
    let seen = race(20, 2_000, read, write).await;
    assert!(seen.stale > 0, "{seen:?}: the race cannot see what it is looking for");
}
