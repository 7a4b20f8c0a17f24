//! More than a server can do: requests come at times that are fixed beforehand (an open loop), at multiples
//! of the rate that the server reached by itself. Tells how much it still does, how long what it takes needs,
//! how fast it refuses the rest, and how soon it is as before. A connection whose turn it is sends when its
//! last request is answered: where refusals are spaced, less is offered than was meant. Not here: a closed
//! loop (`measure`).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use uuid::Uuid;

use crate::{client::Connection, server::Server, workload::Workload};

/// Connections that requests are sent over; each sends when it is its turn and the last is answered.
const CONNECTIONS: u64 = 1500;
/// Connections from one address.
const PER_ADDRESS: u64 = 500;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long afterwards it is looked whether the server is as before.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// Between two requests of the client that asks little.
const MODEST_PAUSE: Duration = Duration::from_millis(50);
/// The load afterwards: what the server did before with ease.
const MODERATE: f64 = 0.5;

/// How much is too much, and what else there is.
#[derive(Clone)]
pub(crate) struct Overload {
    /// Requests a second that the server reached by itself.
    pub(crate) peak: f64,
    pub(crate) factor: f64,
    pub(crate) duration: Duration,
    pub(crate) max_requests: u64,
    pub(crate) seed: u64,
    /// What another account asks meanwhile, little.
    pub(crate) modest: Option<Arc<Workload>>,
}

/// What came of it.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) factor: f64,
    offered_per_second: f64,
    good_per_second: f64,
    good_percent_of_peak: f64,
    good_p50_millis: f64,
    good_p99_millis: f64,
    refused_per_second: f64,
    refused_p99_millis: f64,
    /// Neither answered well nor refused with 503, by what happened.
    failed: BTreeMap<String, u64>,
    /// Of the client that asks little: asked, answered well, and their p99.
    modest: Option<(usize, usize, f64)>,
    /// Half of the peak afterwards: refused in each second.
    refused_afterwards: Vec<u64>,
}

#[derive(Default)]
struct Told {
    good_micros: Vec<u32>,
    refused_micros: Vec<u32>,
    failed: BTreeMap<String, u64>,
}

impl Told {
    fn fail(&mut self, why: String) {
        *self.failed.entry(why).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.good_micros.extend(other.good_micros);
        self.refused_micros.extend(other.refused_micros);
        for (why, count) in other.failed {
            *self.failed.entry(why).or_default() += count;
        }
    }
}

/// When each request is due.
pub(crate) struct Schedule {
    pub(crate) begin: Instant,
    per_second: f64,
    pub(crate) count: u64,
    next: AtomicU64,
}

impl Schedule {
    pub(crate) fn new(per_second: f64, duration: Duration, most: u64) -> Arc<Self> {
        let count = ((per_second * duration.as_secs_f64()) as u64).min(most);
        let begin = Instant::now() + Duration::from_millis(50);
        Arc::new(Self { begin, per_second, count, next: AtomicU64::new(0) })
    }

    /// The next one's time, until there is none left.
    pub(crate) fn draw(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = || self.begin + Duration::from_secs_f64(number as f64 / self.per_second);
        (number < self.count).then(due)
    }
}

/// The most that the server does in an open loop: somewhat less than in a closed one, whose callers go in
/// step and share more of its work.
pub(crate) async fn peak(
    server: &Server,
    workload: &Workload,
    user_ids: &Arc<[Uuid]>,
    (in_closed_loop, duration, seed): (f64, Duration, u64),
) -> Result<f64> {
    let mut most = 0.0_f64;
    let mut connections = open_all(server.address).await?;
    for part in [0.7, 0.85, 1.0] {
        let schedule = Schedule::new(in_closed_loop * part, duration, u64::MAX);
        let (told, kept, elapsed) =
            send(server.address, connections, &schedule, workload, user_ids, seed).await?;
        connections = kept;
        most = most.max(told.good_micros.len() as f64 / elapsed);
    }
    Ok(most)
}

/// Loads the server with a multiple of its peak.
pub(crate) async fn run(
    server: &Server,
    workload: &Workload,
    user_ids: &Arc<[Uuid]>,
    overload: &Overload,
) -> Result<Outcome> {
    let rate = overload.peak * overload.factor;
    let connections = open_all(server.address).await?;
    let schedule = Schedule::new(rate, overload.duration, overload.max_requests);
    let is_over = Arc::new(AtomicBool::new(false));
    let modest = overload.modest.clone().map(|workload| {
        tokio::spawn(ask_little(server.address, workload, Arc::clone(user_ids), Arc::clone(&is_over)))
    });
    let (told, connections, elapsed) =
        send(server.address, connections, &schedule, workload, user_ids, overload.seed).await?;
    is_over.store(true, Ordering::Relaxed);
    let modest = match modest {
        Some(asking) => Some(asking.await??),
        None => None,
    };
    let offered = schedule.count as f64 / elapsed;
    let mut refused_afterwards = Vec::new();
    let mut connections = connections;
    for second in 0..AFTERWARDS.as_secs() {
        let one = Duration::from_secs(1);
        let schedule = Schedule::new(overload.peak * MODERATE, one, overload.max_requests);
        let seed = overload.seed ^ second;
        let (told, kept, _) = send(server.address, connections, &schedule, workload, user_ids, seed).await?;
        connections = kept;
        refused_afterwards.push(told.refused_micros.len() as u64 + told.failed.values().sum::<u64>());
    }
    let Told { mut good_micros, mut refused_micros, failed } = told;
    let good = good_micros.len() as f64 / elapsed;
    Ok(Outcome {
        factor: overload.factor,
        offered_per_second: offered,
        good_per_second: good,
        good_percent_of_peak: good / overload.peak * 100.0,
        good_p50_millis: quantile(&mut good_micros, 0.5),
        good_p99_millis: quantile(&mut good_micros, 0.99),
        refused_per_second: refused_micros.len() as f64 / elapsed,
        refused_p99_millis: quantile(&mut refused_micros, 0.99),
        failed,
        modest,
        refused_afterwards,
    })
}

/// Sends what the schedule says; gives the connections back, and the seconds that it took.
async fn send(
    address: SocketAddr,
    connections: Vec<Connection>,
    schedule: &Arc<Schedule>,
    workload: &Workload,
    user_ids: &Arc<[Uuid]>,
    seed: u64,
) -> Result<(Told, Vec<Connection>, f64)> {
    let mut clients = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let mut requests = workload.requests(user_ids, seed ^ ((number as u64) << 32));
        let schedule = Arc::clone(schedule);
        clients.spawn(async move {
            let mut told = Told::default();
            while let Some(due) = schedule.draw() {
                sleep_until(due.into()).await;
                requests.draw();
                // A connection that nobody used for a while is closed by the server.
                if connection.is_closed() {
                    let Ok(new) = open(address, number as u64).await else { break };
                    connection = new;
                }
                let sent = Instant::now();
                let answer = timeout(ANSWER_WITHIN, connection.exchange(requests.last())).await;
                let micros = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
                match answer {
                    Ok(Ok(answer)) if answer.is_good() => told.good_micros.push(micros),
                    Ok(Ok(answer)) if answer.status == 503 => told.refused_micros.push(micros),
                    Ok(Ok(answer)) => {
                        let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
                        told.fail(format!("{} {body}", answer.status));
                    }
                    broken => {
                        let why = broken.map_or("no answer in time".to_owned(), |broken| {
                            broken.err().map_or_else(String::new, |error| format!("{error:#}"))
                        });
                        told.fail(why);
                        let Ok(new) = open(address, number as u64).await else { break };
                        connection = new;
                    }
                }
            }
            (told, connection)
        });
    }
    let (mut told, mut kept) = (Told::default(), Vec::new());
    while let Some(client) = clients.join_next().await {
        let (of_one, connection) = client?;
        told.add(of_one);
        kept.push(connection);
    }
    Ok((told, kept, schedule.begin.elapsed().as_secs_f64()))
}

async fn open_all(address: SocketAddr) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        connections.push(open(address, number).await?);
    }
    Ok(connections)
}

async fn open(address: SocketAddr, number: u64) -> Result<Connection> {
    Connection::over(connect(address, 2 + (number / PER_ADDRESS) as u32).await?)
}

/// From another loopback address: a server bounds what one may have.
pub(crate) async fn connect(address: SocketAddr, host: u32) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 0)) + host);
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    Ok(socket.connect(address).await?)
}

/// Another account that asks twenty times a second: how often, how often well, and the p99 in milliseconds.
async fn ask_little(
    address: SocketAddr,
    workload: Arc<Workload>,
    user_ids: Arc<[Uuid]>,
    is_over: Arc<AtomicBool>,
) -> Result<(usize, usize, f64)> {
    let mut connection = Connection::over(connect(address, 1000).await?)?;
    let mut requests = workload.requests(&user_ids, 99);
    let (mut asked, mut good) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        asked += 1;
        if connection.exchange(requests.draw()).await?.is_good() {
            good.push(began.elapsed().as_micros() as u32);
        }
        sleep(MODEST_PAUSE).await;
    }
    Ok((asked, good.len(), quantile(&mut good, 0.99)))
}

pub(crate) fn quantile(micros: &mut [u32], part: f64) -> f64 {
    micros.sort_unstable();
    let at = (micros.len() as f64 * part) as usize;
    micros.get(at.min(micros.len().saturating_sub(1))).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

/// Connections that say nothing, and others whose requests come a byte a second; kept until they are dropped.
pub(crate) struct Beside(Vec<TcpStream>, JoinSet<()>);

impl Beside {
    pub(crate) async fn open(address: SocketAddr, idle: u32, slow: u32) -> Result<Self> {
        let (mut silent, mut dripping) = (Vec::new(), JoinSet::new());
        for number in 0..idle {
            silent.push(connect(address, 2000 + number / 500).await?);
        }
        for number in 0..slow {
            let mut stream = connect(address, 3000 + number / 500).await?;
            let head = "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                        content-length: 500\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            dripping.spawn(async move {
                while stream.write_all(b" ").await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
            });
        }
        ensure!(silent.len() == idle as usize, "some connections were not opened");
        Ok(Self(silent, dripping))
    }

    /// How many there are still of those that come slowly.
    pub(crate) fn describe(&mut self) -> String {
        while self.1.try_join_next().is_some() {}
        format!("{} idle connections, {} slow ones left", self.0.len(), self.1.len())
    }
}

/// The outcomes as a table.
pub(crate) fn table(server: &str, workload: &str, peak: f64, outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{server}, {workload}: {peak:.0} req/s by itself\n\
         | offered | good/s | of the peak | good p50, p99 ms | refused/s | refused p99 ms | failed | another account: \
         asked, good, p99 ms | refused in each second after |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for outcome in outcomes {
        let modest = outcome
            .modest
            .map_or("–".to_owned(), |(asked, good, p99)| format!("{asked}, {good}, {p99:.0}"));
        let _ = writeln!(
            text,
            "| {}× = {:.0}/s | {:.0} | {:.0} % | {:.0}, {:.0} | {:.0} | {:.1} | {:?} | {modest} | {:?} |",
            outcome.factor,
            outcome.offered_per_second,
            outcome.good_per_second,
            outcome.good_percent_of_peak,
            outcome.good_p50_millis,
            outcome.good_p99_millis,
            outcome.refused_per_second,
            outcome.refused_p99_millis,
            outcome.failed,
            outcome.refused_afterwards,
        );
    }
    text
}
