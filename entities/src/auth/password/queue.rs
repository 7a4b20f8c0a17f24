//! What waits for a thread that hashes: bounded, and shared by the networks that it comes from. They take
//! turns, however much one of them has waiting. Where all places are taken, whoever has most waiting loses
//! the newest of it to one who has less. Not here: what is done.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// What waits at most.
pub(super) const MAX_QUEUE: usize = 32;

/// Something to do, and what to do instead where its turn does not come.
pub(super) struct Job {
    pub(super) work: Box<dyn FnOnce() + Send>,
    pub(super) refuse: Box<dyn FnOnce() + Send>,
    pub(super) since: Instant,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// In the order of their turns; none is empty.
    shares: VecDeque<Share>,
    is_closed: bool,
}

struct Share {
    /// Whose; `None`: the operator's.
    network: Option<IpAddr>,
    jobs: VecDeque<Job>,
}

impl Queue {
    /// Puts a job in. Gives back what has no place any more: this one, or the newest of the network that has most.
    #[must_use]
    pub(super) fn push(&self, network: Option<IpAddr>, job: Job) -> Option<Job> {
        let mut waiting = self.lock();
        let Waiting { shares, .. } = &mut *waiting;
        let own = shares.iter().position(|share| share.network == network);
        let most = shares.iter().enumerate().max_by_key(|(_, share)| share.jobs.len());
        let most = most.map(|(index, share)| (index, share.jobs.len()));
        let all: usize = shares.iter().map(|share| share.jobs.len()).sum();
        let mut refused = None;
        if all >= MAX_QUEUE {
            let own_length = own.map_or(0, |own| shares[own].jobs.len());
            match most {
                // Two more than one has: afterwards both have at least as much as the other had.
                Some((index, length)) if length > own_length + 1 => refused = shares[index].jobs.pop_back(),
                _ => return Some(job),
            }
        }
        match own {
            Some(own) => shares[own].jobs.push_back(job),
            None => shares.push_back(Share { network, jobs: VecDeque::from([job]) }),
        }
        drop(waiting);
        self.changed.notify_one();
        refused
    }

    /// The next job; waits for one. `None` once the queue is closed.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(mut share) = waiting.shares.pop_front() {
                let job = share.jobs.pop_front();
                if !share.jobs.is_empty() {
                    waiting.shares.push_back(share);
                }
                return job;
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more is put in.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc::channel};

    use super::*;

    #[test]
    fn networks_take_turns_and_who_has_most_gives_way() {
        let (queue, (done, order)) = (Queue::default(), channel());
        let push = |network: u8, number: usize| {
            let (at_work, at_refusal) = (done.clone(), done.clone());
            let job = Job {
                work: Box::new(move || at_work.send((network, number, true)).expect("heard")),
                refuse: Box::new(move || at_refusal.send((network, number, false)).expect("heard")),
                since: Instant::now(),
            };
            queue.push(Some([10, 0, network, 0].into()), job)
        };
        for number in 0..MAX_QUEUE {
            assert!(push(1, number).is_none());
        }
        let mut refused = [push(1, 99), push(2, 0), push(2, 1), push(3, 0)];
        for job in &mut refused {
            (job.take().expect("it is full").refuse)();
        }
        let told: Vec<_> = order.try_iter().collect();
        // The first one has the longest share itself; the others took the places of its newest.
        assert_eq!(told, [(1, 99, false), (1, 31, false), (1, 30, false), (1, 29, false)]);
        for _ in 0..MAX_QUEUE {
            (queue.pop().expect("it waits").work)();
        }
        let turns: Vec<_> = order.try_iter().map(|(network, number, _)| (network, number)).collect();
        assert_eq!(turns[..6], [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2)]);
        assert_eq!(turns.len(), MAX_QUEUE);
    }

    #[test]
    fn where_all_have_the_same_nobody_gives_way() {
        let queue = Queue::default();
        let job = || Job { work: Box::new(|| {}), refuse: Box::new(|| {}), since: Instant::now() };
        let network = |number: usize| Some(IpAddr::from([10, 0, u8::try_from(number).expect("few"), 0]));
        for number in 0..MAX_QUEUE {
            assert!(queue.push(network(number), job()).is_none());
        }
        assert!(queue.push(network(MAX_QUEUE), job()).is_some());
        assert_eq!(queue.lock().shares.len(), MAX_QUEUE, "the newcomer was refused");
    }

    #[test]
    fn a_closed_queue_ends_those_who_wait_for_it() {
        let queue = Arc::new(Queue::default());
        let waiting = Arc::clone(&queue);
        let thread = std::thread::spawn(move || waiting.pop().is_none());
        queue.close();
        assert!(thread.join().expect("no panic"));
    }
}
