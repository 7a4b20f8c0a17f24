//! The proof of group commit: who shares a statement with whom, and that nobody suffers from a neighbour.

use tokio::{
    sync::Semaphore,
    task::{JoinHandle, yield_now},
};

use super::*;

type Shared = Fake<true, 0>;

/// A loader whose batches wait for a permit each.
fn gated(log: &Log, gate: &Arc<Semaphore>) -> Shared {
    let (log, gate) = (Arc::clone(log), Arc::clone(gate));
    Shared::new(move |_, keys| {
        note(&log, &keys);
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            found(&keys)
        }
    })
}

struct House {
    groups: Groups,
}

impl House {
    fn of_width(width: usize) -> Self {
        Self { groups: Groups::new(width) }
    }

    /// A request for these keys, in its own task.
    fn request(&self, loader: &Shared, keys: Vec<u32>) -> JoinHandle<(Vec<Outcome<u64>>, usize)> {
        let (batcher, statements) = batcher_in(&self.groups);
        let load = batcher.load_many(loader.clone(), keys);
        tokio::spawn(async move { (batcher.drive(load).await, statements.count()) })
    }
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

async fn outcome_of(request: JoinHandle<(Vec<Outcome<u64>>, usize)>) -> Vec<Outcome<u64>> {
    let ended = tokio::time::timeout(Duration::from_secs(5), request).await;
    ended.expect("the request ends").expect("the request does not panic").0
}

#[tokio::test]
async fn requests_during_a_batch_share_the_next_one() {
    let (house, log, gate) = (House::of_width(1), Log::default(), Arc::new(Semaphore::new(0)));
    let loader = gated(&log, &gate);
    let leader = house.request(&loader, vec![1]);
    settle().await;
    let others: Vec<_> = (2..=20).map(|key| house.request(&loader, vec![key, 99])).collect();
    settle().await;
    assert_eq!(*lock(&log), [[1]], "at once, and alone");
    gate.add_permits(2);
    assert_eq!(outcome_of(leader).await, [Ok(Some(1_001))]);
    for (key, other) in (2_u32..).zip(others) {
        let value = (key % 10 != 0).then_some(u64::from(key) + 1_000);
        assert_eq!(outcome_of(other).await, [Ok(value), Ok(Some(1_099))]);
    }
    let shared: Vec<u32> = (2..=20).chain([99]).collect();
    assert_eq!(*lock(&log), [vec![1], shared]);
}

#[tokio::test]
async fn a_key_in_flight_for_another_request_is_read_again() {
    let (house, log, gate) = (House::of_width(1), Log::default(), Arc::new(Semaphore::new(0)));
    let loader = gated(&log, &gate);
    let first = house.request(&loader, vec![1]);
    settle().await;
    let second = house.request(&loader, vec![1]);
    settle().await;
    gate.add_permits(2);
    outcome_of(first).await;
    assert_eq!(outcome_of(second).await, [Ok(Some(1_001))]);
    assert_eq!(*lock(&log), [[1], [1]], "a read is never older than its own start");
}

#[tokio::test]
async fn a_failing_key_fails_only_its_own_request() {
    let (house, log, gate) = (House::of_width(1), Log::default(), Arc::new(Semaphore::new(0)));
    let (noted, entry) = (Arc::clone(&log), Arc::clone(&gate));
    let loader = Shared::new(move |_, keys| {
        note(&noted, &keys);
        let entry = Arc::clone(&entry);
        async move {
            entry.acquire().await.unwrap().forget();
            assert!(!keys.contains(&14), "a poisonous key that panics");
            if keys.contains(&13) { Err("no".to_owned()) } else { found(&keys) }
        }
    });
    let leader = house.request(&loader, vec![1]);
    settle().await;
    let others: Vec<_> = (11..=15).map(|key| house.request(&loader, vec![key])).collect();
    settle().await;
    gate.add_permits(100);
    assert_eq!(outcome_of(leader).await, [Ok(Some(1_001))]);
    let mut outcomes = Vec::new();
    for other in others {
        outcomes.extend(outcome_of(other).await);
    }
    let wanted = [
        Ok(Some(1_011)),
        Ok(Some(1_012)),
        Err(FieldError::bad_input("no")),
        Err(FieldError::internal_by("fake: the batch panicked")),
        Ok(Some(1_015)),
    ];
    assert_eq!(outcomes, wanted);
    let batches = [vec![1], vec![11, 12, 13, 14, 15], vec![11], vec![12], vec![13], vec![14], vec![15]];
    assert_eq!(*lock(&log), batches);
}

#[tokio::test]
async fn a_leader_that_goes_away_hands_the_turn_on() {
    let (house, log, gate) = (House::of_width(1), Log::default(), Arc::new(Semaphore::new(0)));
    let loader = gated(&log, &gate);
    let leader = house.request(&loader, vec![1]);
    settle().await;
    let waiter = house.request(&loader, vec![2]);
    settle().await;
    leader.abort();
    gate.add_permits(1);
    assert_eq!(outcome_of(waiter).await, [Ok(Some(1_002))]);
    gate.add_permits(1);
    assert_eq!(outcome_of(house.request(&loader, vec![3])).await, [Ok(Some(1_003))]);
    assert_eq!(*lock(&log), [[1], [2], [3]]);
}

#[tokio::test]
async fn a_waiting_request_that_goes_away_is_skipped() {
    let (house, log, gate) = (House::of_width(1), Log::default(), Arc::new(Semaphore::new(0)));
    let loader = gated(&log, &gate);
    let leader = house.request(&loader, vec![1]);
    settle().await;
    let gone = house.request(&loader, vec![2]);
    let waiter = house.request(&loader, vec![3]);
    settle().await;
    gone.abort();
    settle().await;
    gate.add_permits(2);
    outcome_of(leader).await;
    assert_eq!(outcome_of(waiter).await, [Ok(Some(1_003))]);
    assert_eq!(*lock(&log), [[1], [3]]);
}

#[tokio::test]
async fn width_zero_shares_nothing() {
    let (house, log, gate) = (House::of_width(0), Log::default(), Arc::new(Semaphore::new(0)));
    let loader = gated(&log, &gate);
    let requests: Vec<_> = (1..=3).map(|key| house.request(&loader, vec![key])).collect();
    settle().await;
    assert_eq!(*lock(&log), [[1], [2], [3]]);
    gate.add_permits(3);
    for request in requests {
        outcome_of(request).await;
    }
}

#[tokio::test]
async fn a_turn_holds_at_most_one_statement_of_keys() {
    let (house, log, gate) = (House::of_width(1), Log::default(), Arc::new(Semaphore::new(0)));
    let loader = gated(&log, &gate);
    let leader = house.request(&loader, vec![1]);
    settle().await;
    let others: Vec<_> =
        (1..=3).map(|block| house.request(&loader, (block * 1_000..block * 1_000 + 600).collect())).collect();
    settle().await;
    gate.add_permits(10);
    outcome_of(leader).await;
    for other in others {
        assert_eq!(outcome_of(other).await.len(), 600);
    }
    assert_eq!(lock(&log).iter().map(Vec::len).collect::<Vec<_>>(), [1, 600, 600, 600]);
}

#[tokio::test]
async fn each_participant_counts_the_shared_statement() {
    let house = House::of_width(1);
    let loader = Shared::new(|statements: Statements, keys: Arc<[u32]>| async move {
        statements.add(1);
        yield_now().await;
        found(&keys)
    });
    let requests: Vec<_> = (1..=3).map(|key| house.request(&loader, vec![key])).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().1, 1);
    }
}

#[test]
fn a_runtime_that_ends_with_requests_in_the_queue_ends() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (house, log, gate) = (House::of_width(1), Log::default(), Arc::new(Semaphore::new(0)));
        let loader = gated(&log, &gate);
        for key in 1..=3 {
            drop(house.request(&loader, vec![key]));
        }
        settle().await;
        assert_eq!(lock(&log).len(), 1);
    });
    drop(runtime);
}

#[tokio::test]
async fn a_queue_that_nobody_is_in_is_not_kept() {
    let (house, log, gate) = (House::of_width(1), Log::default(), Arc::new(Semaphore::new(0)));
    let loader = gated(&log, &gate);
    let requests = [1, 2, 3].map(|key| house.request(&loader, vec![key]));
    settle().await;
    assert_eq!(house.groups.lines_of::<Shared>(), 1);
    gate.add_permits(2);
    for request in requests {
        outcome_of(request).await;
    }
    settle().await;
    assert_eq!(house.groups.lines_of::<Shared>(), 0);
}

#[tokio::test]
async fn a_batch_tells_how_many_requests_shared_it_and_how_long_it_waited() {
    let (groups, gate) = (Groups::new(1), Arc::new(Semaphore::new(0)));
    let loader = gated(&Log::default(), &gate);
    let (mut batchers, mut requests) = (Vec::new(), Vec::new());
    for key in 1..=4 {
        let (batcher, _) = batcher_in(&groups);
        let load = batcher.load_many(loader.clone(), vec![key]);
        let own = batcher.clone();
        requests.push(tokio::spawn(async move { own.drive(load).await }));
        batchers.push(batcher);
        settle().await;
    }
    let held = Duration::from_millis(20);
    tokio::time::sleep(held).await;
    gate.add_permits(2);
    for request in requests {
        request.await.unwrap();
    }
    let runs: Vec<_> = batchers.iter().map(|batcher| batcher.batches().pop().unwrap()).collect();
    assert_eq!(runs.iter().map(|run| run.requests).collect::<Vec<_>>(), [1, 3, 3, 3]);
    assert!(runs[0].queued.is_zero(), "it was first");
    for run in &runs[1..] {
        assert!(run.queued >= held && run.queued <= run.elapsed, "{run:?}");
    }
}
