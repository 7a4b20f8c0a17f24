//! Passwords: which are good enough, and their hashes (argon2id, RFC 9106). Hashing takes tens of milliseconds of one
//! core and 19 MiB, so it happens on a few threads of its own, behind a short queue: a flood of sign-ins is refused,
//! and nothing else gets slower. Networks take turns in it, and where it is full the one with most in it gives way. Not
//! here: whose password it is, how often it may be tried.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::phc::PasswordHash,
};
use tokio::sync::oneshot;

mod queue;

use queue::{Job, Queue};

/// Bytes of a password at least.
pub const MIN_BYTES: usize = 8;
/// Bytes of a password at most: more would only make hashing more expensive.
pub const MAX_BYTES: usize = 256;

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Shorter than `MIN_BYTES`.
    TooShort,
    /// Longer than `MAX_BYTES`.
    TooLong,
    /// One of those that are tried first, or made from what everybody knows of the account.
    Weak,
}

/// The 3,000 most used passwords of eight and more characters, most used first; from zxcvbn (MIT, Dropbox).
static COMMON: &str = include_str!("password/common.txt");

/// Why a new password is not taken, if it is not. `known` is what others know of the account: e-mail and name.
pub fn unfit(password: &str, known: &[&str]) -> Option<Unfit> {
    if password.len() < MIN_BYTES {
        return Some(Unfit::TooShort);
    }
    if password.len() > MAX_BYTES {
        return Some(Unfit::TooLong);
    }
    let lower = password.to_lowercase();
    let first = lower.chars().next();
    let one_sign = lower.chars().all(|sign| Some(sign) == first);
    let is_known = known.iter().any(|text| {
        let text = text.to_lowercase();
        let local_part = text.split('@').next().unwrap_or_default();
        lower == text || lower == local_part
    });
    (one_sign || is_known || COMMON.lines().any(|common| common == lower)).then_some(Unfit::Weak)
}

/// What a hash costs. OWASP's floor is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory of one hash in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2 }
    }
}

/// A stored hash that asks for more than this is not computed: the database must not be able to stop the server.
const CEILING: Cost = Cost { memory_kib: 256 * 1024, passes: 16 };
/// How long a sign-in waits for a thread at most.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Too many are being hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Busy;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the password.
    Right,
    /// It is, and its hash is weaker than those made now.
    RightButOutdated,
    /// It is not.
    Wrong,
}

/// Hashes and checks passwords on threads of its own, which are started when they are first needed. Cheap to clone.
#[derive(Clone)]
pub struct Hasher {
    shared: Arc<HasherInner>,
    /// Whose turn in the queue it takes.
    network: Option<IpAddr>,
}

struct HasherInner {
    cost: Cost,
    queue: OnceLock<Arc<Queue>>,
    /// What is checked where there is no account or no password, so that it takes as long as if there were.
    dummy: OnceLock<String>,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("cost", &self.shared.cost).finish_non_exhaustive()
    }
}

/// The threads end when nobody can ask them any more.
impl Drop for HasherInner {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.get() {
            queue.close();
        }
    }
}

impl Hasher {
    /// A hasher of this cost.
    pub fn new(cost: Cost) -> Self {
        let shared = HasherInner { cost, queue: OnceLock::new(), dummy: OnceLock::new() };
        Self { shared: Arc::new(shared), network: None }
    }

    /// A handle on this hasher for somebody in this network, who takes turns with all other networks.
    #[must_use]
    pub fn for_network(&self, network: Option<IpAddr>) -> Self {
        Self { shared: Arc::clone(&self.shared), network }
    }

    /// The hash of a password in PHC form.
    ///
    /// # Errors
    /// `Busy` when there is no place in the queue or the turn does not come in time.
    pub async fn hash(&self, password: &str) -> Result<String, Busy> {
        let (cost, password) = (self.shared.cost, password.to_owned());
        self.run(move |_| hash(cost, &password)).await
    }

    /// Is it the password of this hash? Without a hash it is not, but takes as long to say.
    ///
    /// # Errors
    /// `Busy` when there is no place in the queue or the turn does not come in time.
    pub async fn verify(&self, password: &str, stored: Option<&str>) -> Result<Verdict, Busy> {
        let (password, stored) = (password.to_owned(), stored.map(str::to_owned));
        self.run(move |shared| {
            let dummy = || shared.dummy.get_or_init(|| hash(shared.cost, "no password"));
            let verdict = verify(&password, stored.as_deref().unwrap_or_else(|| dummy()), shared.cost);
            if stored.is_some() { verdict } else { Verdict::Wrong }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&HasherInner) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let queue = self.shared.queue.get_or_init(start);
        let (answer, answered) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let (done, refused, shared) = (Arc::clone(&answer), answer, Arc::clone(&self.shared));
        let send = |to: &Mutex<Option<oneshot::Sender<Result<T, Busy>>>>, result| {
            if let Some(to) = to.lock().ok().and_then(|mut to| to.take()) {
                let _ = to.send(result);
            }
        };
        let job = Job {
            work: Box::new(move || send(&done, Ok(work(&shared)))),
            refuse: Box::new(move || send(&refused, Err(Busy))),
            since: Instant::now(),
        };
        // Who is refused for want of a place is told as everybody is, or told nothing, which says the same.
        if let Some(refused) = queue.push(self.network, job) {
            (refused.refuse)();
        }
        answered.await.map_err(|_| Busy)?
    }
}

/// Starts the threads.
fn start() -> Arc<Queue> {
    let queue = Arc::new(Queue::default());
    for _ in 0..threads() {
        let queue = Arc::clone(&queue);
        thread::Builder::new()
            .name("passwords".to_owned())
            .spawn(move || work(&queue))
            .expect("a thread can be started");
    }
    queue
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

fn work(queue: &Queue) {
    while let Some(job) = queue.pop() {
        if job.since.elapsed() > MAX_WAIT { (job.refuse)() } else { (job.work)() }
    }
}

fn argon2(cost: Cost) -> Argon2<'static> {
    let params =
        Params::new(cost.memory_kib, cost.passes, 1, None).expect("the cost is within argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash(cost: Cost, password: &str) -> String {
    let hash: PasswordHash =
        argon2(cost).hash_password(password.as_bytes()).expect("the system gives random numbers");
    hash.to_string()
}

fn verify(password: &str, stored: &str, cost: Cost) -> Verdict {
    let Some((hash, params)) = read(stored) else {
        tracing::error!("a stored password hash cannot be used");
        return Verdict::Wrong;
    };
    if argon2(cost).verify_password(password.as_bytes(), &hash).is_err() {
        return Verdict::Wrong;
    }
    let outdated = params.m_cost() < cost.memory_kib || params.t_cost() < cost.passes;
    if outdated { Verdict::RightButOutdated } else { Verdict::Right }
}

/// A stored hash, if it is one that this server computes.
fn read(stored: &str) -> Option<(PasswordHash, Params)> {
    let hash = PasswordHash::new(stored).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let fits =
        params.m_cost() <= CEILING.memory_kib && params.t_cost() <= CEILING.passes && params.p_cost() <= 4;
    (fits && hash.algorithm.as_str() == "argon2id").then_some((hash, params))
}

#[cfg(test)]
mod tests {
    use super::{queue::MAX_QUEUE, *};

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let hasher = Hasher::new(CHEAP);
        let stored = hasher.hash("correct horse").await.expect("not busy");
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        assert_ne!(hasher.hash("correct horse").await.expect("not busy"), stored, "each has its own salt");
        assert_eq!(hasher.verify("correct horse", Some(&stored)).await, Ok(Verdict::Right));
        for wrong in ["correct hors", "correct horse ", "Correct horse", ""] {
            assert_eq!(hasher.verify(wrong, Some(&stored)).await, Ok(Verdict::Wrong), "{wrong}");
        }
        assert_eq!(hasher.verify("no password", None).await, Ok(Verdict::Wrong));
    }

    #[tokio::test]
    async fn weaker_hashes_are_noticed_and_monstrous_ones_refused() {
        let old = Hasher::new(CHEAP).hash("correct horse").await.expect("not busy");
        let hasher = Hasher::new(Cost { memory_kib: 64, passes: 2 });
        assert_eq!(hasher.verify("correct horse", Some(&old)).await, Ok(Verdict::RightButOutdated));
        for monstrous in
            [old.replace("m=64", "m=1048576"), old.replace("t=1", "t=900"), old.replace("id", "i")]
        {
            assert_eq!(
                hasher.verify("correct horse", Some(&monstrous)).await,
                Ok(Verdict::Wrong),
                "{monstrous}"
            );
        }
    }

    #[tokio::test]
    async fn a_flood_is_refused_and_what_is_taken_is_answered() {
        let hasher = Hasher::new(CHEAP);
        let (held, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let runs: Vec<_> = (0..MAX_QUEUE * 3)
            .map(|_| {
                let (hasher, gate) = (hasher.clone(), Arc::clone(&gate));
                tokio::spawn(
                    async move { hasher.run(move |_| drop(gate.lock().map(|gate| gate.recv()))).await },
                )
            })
            .collect();
        // Everybody who is refused for the queue is refused while nothing moves.
        while runs.iter().filter(|run| run.is_finished()).count() < MAX_QUEUE {
            tokio::task::yield_now().await;
        }
        drop(held);
        let mut done = 0;
        for run in runs {
            done += usize::from(run.await.expect("no panic").is_ok());
        }
        assert!((MAX_QUEUE..MAX_QUEUE * 2 + 1).contains(&done), "{done} were taken");
    }

    /// A flood from one network costs the others a turn each, and no place.
    #[tokio::test]
    async fn a_network_that_fills_the_queue_keeps_nobody_else_out() {
        let hasher = Hasher::new(CHEAP);
        let (held, gate) = std::sync::mpsc::channel::<()>();
        let (gate, order) = (Arc::new(Mutex::new(gate)), Arc::new(Mutex::new(Vec::new())));
        let run = |network: &str| {
            let network: IpAddr = network.parse().expect("an address");
            let (hasher, gate) = (hasher.for_network(Some(network)), Arc::clone(&gate));
            let order = Arc::clone(&order);
            tokio::spawn(async move {
                let work = move |_: &HasherInner| {
                    drop(gate.lock().map(|gate| gate.recv()));
                    order.lock().expect("no panic happens under this lock").push(network);
                };
                hasher.run(work).await
            })
        };
        // Those at work, those who wait, and all others, who are refused.
        let flood: Vec<_> = (0..MAX_QUEUE * 3).map(|_| run("2001:db8:7::")).collect();
        let refused = || flood.iter().filter(|run| run.is_finished()).count();
        while refused() < flood.len() - MAX_QUEUE - threads() {
            tokio::task::yield_now().await;
        }
        // Each takes the place of one who waits.
        let before = refused();
        let others = ["2001:db8:8::", "192.0.2.0", "198.51.100.0"].map(run);
        while refused() < before + others.len() {
            tokio::task::yield_now().await;
        }
        drop(held);
        for other in others {
            assert_eq!(other.await.expect("no panic"), Ok(()));
        }
        let order = order.lock().expect("no panic happens under this lock");
        let last = order.iter().rposition(IpAddr::is_ipv4).expect("they had their turn");
        assert!(last < 2 * threads() + 4, "a turn each: {order:?}");
    }

    /// Neither the threads of the runtime nor those for what blocks: a flood there would take them from
    /// everything else.
    #[tokio::test]
    async fn hashing_uses_half_of_the_cores() {
        let most = threads();
        let (hasher, now) = (Hasher::new(CHEAP), Arc::new(Mutex::new((0, 0))));
        let runs = (0..16).map(|_| {
            let (hasher, now) = (hasher.clone(), Arc::clone(&now));
            let work = move |_: &HasherInner| {
                let count = |change: i32| {
                    let mut now = now.lock().expect("no panic happens under this lock");
                    now.0 += change;
                    now.1 = now.1.max(now.0);
                };
                count(1);
                thread::sleep(Duration::from_millis(2));
                count(-1);
                thread::current().name().map(str::to_owned)
            };
            tokio::spawn(async move { hasher.run(work).await })
        });
        for run in runs.collect::<Vec<_>>() {
            assert_eq!(run.await.expect("no panic"), Ok(Some("passwords".to_owned())));
        }
        let (_, at_once) = *now.lock().expect("no panic happens under this lock");
        assert!(
            usize::try_from(at_once).is_ok_and(|at_once| (1..=most).contains(&at_once)),
            "{at_once} at once"
        );
    }

    #[test]
    fn common_and_known_passwords_are_weak() {
        let known = ["ada.lovelace@example.com", "Ada Lovelace"];
        assert_eq!(unfit("1234567", &known), Some(Unfit::TooShort));
        assert_eq!(unfit(&"x1".repeat(129), &known), Some(Unfit::TooLong));
        for weak in [
            "password",
            "PASSWORD",
            "trustno1",
            "aaaaaaaaaa",
            "ada.lovelace@example.com",
            "Ada.Lovelace",
            "ada lovelace",
        ] {
            assert_eq!(unfit(weak, &known), Some(Unfit::Weak), "{weak}");
        }
        for good in ["correct horse battery staple", "пароль-и-соль", "a b c d e f"] {
            assert_eq!(unfit(good, &known), None, "{good}");
        }
    }
}
