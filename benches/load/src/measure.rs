//! One slice of load on one server, and what it cost: `connections` clients, each sending its next request when the
//! last is answered, until the time or the number of requests is used up.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use tokio::{task::JoinSet, time::timeout_at};
use uuid::Uuid;

use crate::{
    client::Connection,
    cpu,
    database::Database,
    server::Server,
    workload::{Requests, Workload},
};

/// A client that fails this often in a row gives up.
const FAILURES_IN_A_ROW: u32 = 50;
/// How long requests may still run when the slice is over.
const GRACE: Duration = Duration::from_secs(20);

/// The load of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    pub(crate) max_requests: usize,
    /// Decides which ids are drawn; the same for all servers.
    pub(crate) seed: u64,
}

/// What came of one slice, or of several added up.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    /// Of good answers only.
    pub(crate) latencies_micros: Vec<u32>,
    pub(crate) errors: u64,
    pub(crate) statements: i64,
    pub(crate) server_cpu: Duration,
    /// Unknown when PostgreSQL runs elsewhere.
    pub(crate) postgres_cpu: Option<Duration>,
    pub(crate) runner_cpu: Duration,
    /// Requests a second of each slice.
    pub(crate) slice_rates: Vec<f64>,
}

impl Outcome {
    /// Adds a further slice.
    pub(crate) fn add(&mut self, slice: Self) {
        self.postgres_cpu = match (self.postgres_cpu, slice.postgres_cpu) {
            (Some(sum), Some(more)) => Some(sum + more),
            (None, more) if self.slice_rates.is_empty() => more,
            _ => None,
        };
        self.elapsed += slice.elapsed;
        self.latencies_micros.extend(slice.latencies_micros);
        self.errors += slice.errors;
        self.statements += slice.statements;
        self.server_cpu += slice.server_cpu;
        self.runner_cpu += slice.runner_cpu;
        self.slice_rates.extend(slice.slice_rates);
    }
}

/// The processor time that all have used so far.
struct Cpu {
    server: Duration,
    postgres: Option<Duration>,
    runner: Duration,
}

impl Cpu {
    fn read(server: &Server, database: &Database) -> Result<Self> {
        Ok(Self {
            server: cpu::of_process(server.process_id)?,
            postgres: database.postmaster.map(cpu::of_postgres).transpose()?,
            runner: cpu::of_self()?,
        })
    }
}

/// Loads one server for a while.
pub(crate) async fn run_slice(
    server: &Server,
    workload: &Workload,
    user_ids: &Arc<[Uuid]>,
    load: Load,
    database: &mut Database,
) -> Result<Outcome> {
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        connections.push(Connection::open(server.address).await?);
    }
    // Statements are counted outside the stretch whose processor time is read: counting costs some.
    let statements_before = database.statements().await?;
    let before = Cpu::read(server, database)?;
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    let left = Arc::new(AtomicUsize::new(load.max_requests));
    for (number, connection) in connections.into_iter().enumerate() {
        let mut requests = workload.requests(user_ids, load.seed ^ ((number as u64) << 32));
        let (address, left, deadline) = (server.address, Arc::clone(&left), begin + load.duration);
        clients.spawn(async move {
            let mut client =
                Client { address, connection: Some(connection), latencies_micros: Vec::new(), errors: 0 };
            client.run(&mut requests, &left, deadline).await;
            client
        });
    }
    let (latencies_micros, errors) = gather(clients, load).await?;
    let elapsed = begin.elapsed();
    let after = Cpu::read(server, database)?;
    let statements = database.statements().await? - statements_before;
    if latencies_micros.is_empty() {
        bail!("{} answered nothing of {}:\n{}", server.name, workload.name, server.last_lines());
    }
    Ok(Outcome {
        slice_rates: vec![latencies_micros.len() as f64 / elapsed.as_secs_f64()],
        elapsed,
        latencies_micros,
        errors,
        statements,
        server_cpu: after.server.saturating_sub(before.server),
        postgres_cpu: after.postgres.zip(before.postgres).map(|(after, before)| after.saturating_sub(before)),
        runner_cpu: after.runner.saturating_sub(before.runner),
    })
}

/// Waits for all clients; those that outlast the grace are ended and counted as an error each.
async fn gather(mut clients: JoinSet<Client>, load: Load) -> Result<(Vec<u32>, u64)> {
    let deadline = tokio::time::Instant::now() + load.duration + GRACE;
    let (mut latencies_micros, mut errors) = (Vec::new(), 0);
    while !clients.is_empty() {
        match timeout_at(deadline, clients.join_next()).await {
            Ok(Some(client)) => {
                let client = client?;
                latencies_micros.extend(client.latencies_micros);
                errors += client.errors;
            }
            Ok(None) => break,
            Err(_) => {
                errors += clients.len() as u64;
                clients.shutdown().await;
            }
        }
    }
    Ok((latencies_micros, errors))
}

/// One connection's user.
struct Client {
    address: SocketAddr,
    /// None after a failure, until the next request.
    connection: Option<Connection>,
    latencies_micros: Vec<u32>,
    errors: u64,
}

impl Client {
    async fn run(&mut self, requests: &mut Requests, left: &AtomicUsize, deadline: Instant) {
        let mut failures = 0;
        let one_less = |left: usize| left.checked_sub(1);
        while failures < FAILURES_IN_A_ROW
            && Instant::now() < deadline
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
        {
            if let Ok(micros) = self.ask(requests.draw()).await {
                self.latencies_micros.push(micros);
                failures = 0;
            } else {
                self.errors += 1;
                failures += 1;
            }
        }
    }

    /// The latency of a good answer.
    async fn ask(&mut self, request: &[u8]) -> Result<u32> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.address).await?,
        };
        let begin = Instant::now();
        let answer = connection.exchange(request).await?;
        let micros = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
        let is_good = answer.is_good();
        self.connection = Some(connection);
        ensure!(is_good, "not a good answer");
        Ok(micros)
    }
}
