//! What open connections cost: a third of them idle over HTTP, a third on a WebSocket without an operation, a
//! third with a subscription. The limit of open files may be below what is asked for: then there are several
//! servers, each with a process that holds its connections. While all are open, a few requests are sent; in
//! the end all are closed. Not here: opening them (`hold`).

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, sleep_until},
};
use uuid::Uuid;

use super::{
    Arguments,
    hold::{self, Kind, PER_ADDRESS},
    say,
    scrape::Scrape,
};
use crate::{
    LogDirectory, client::Connection, cpu, database::Database, overload::quantile, server::Server,
    workload::post,
};

/// Files of a process that are not connections.
const OTHER_FILES: u32 = 1_000;
/// The first loopback address of connections.
const FROM: u32 = 2;
/// Requests a second to each server meanwhile.
const PER_SECOND: u32 = 50;
/// Requests that make a server's own memory what it is, before anything is measured.
const WARM_UP: usize = 3_000;
/// After connections were opened or closed.
const SETTLE: Duration = Duration::from_secs(2);
/// How long closing may take.
const CLOSED_WITHIN: Duration = Duration::from_mins(1);

/// A server and the process that holds its connections.
struct Pair {
    server: Server,
    metrics: SocketAddr,
    holder: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Pair {
    async fn start(arguments: &Arguments, number: u32, share: u32, logs: &LogDirectory) -> Result<Self> {
        let (server, metrics) = arguments.start(&format!("xp-{number}"), share, logs).await?;
        let addresses = share.div_ceil(PER_ADDRESS);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["plan", "--database-url", "none", "--account", &Uuid::nil().to_string()]);
        command.args(["--hold", &server.address.to_string()]);
        command.args(["--hold-from", &(FROM + number * addresses).to_string()]);
        command.env("BENCH_TOKEN", &arguments.token).kill_on_drop(true);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = holder.stdin.take().context("no standard input")?;
        let answers = BufReader::new(holder.stdout.take().context("no standard output")?).lines();
        Ok(Self { server, metrics, holder, commands, answers })
    }

    async fn tell(&mut self, command: &str) -> Result<()> {
        Ok(self.commands.write_all(format!("{command}\n").as_bytes()).await?)
    }

    async fn answer(&mut self) -> Result<u64> {
        hold::number(self.answers.next_line().await?).with_context(|| self.server.last_lines())
    }

    fn memory_kib(&self) -> Result<(u64, u64)> {
        let holder = self.holder.id().context("the holder has ended")?;
        Ok((cpu::resident_kib(self.server.process_id)?, cpu::resident_kib(holder)?))
    }

    /// How many files the server has open.
    fn files(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.server.process_id))?.count())
    }
}

/// Opens, measures and closes them.
pub(super) async fn run(arguments: &Arguments, count: u32) -> Result<()> {
    let may_have = files_of_process()?;
    ensure!(may_have > 2 * OTHER_FILES, "a process may have {may_have} files only: raise `ulimit -n`");
    let servers = count.div_ceil(may_have - OTHER_FILES);
    let share = count.div_ceil(servers);
    let logs = LogDirectory::create()?;
    let mut database = Database::connect(&arguments.database_url).await?;
    let users = database.user_ids().await?;
    let mut pairs = Vec::new();
    for number in 0..servers {
        let pair = Pair::start(arguments, number, share, &logs).await?;
        warm_up(pair.server.address, &arguments.token, &users).await?;
        pairs.push(pair);
    }
    say(&format!(
        "{count} connections · {servers} servers with {share} each, since a process may have {may_have} files here \
         (`ulimit -n`)\n\n| what | open | xp: KiB each | load runner: KiB each | of the machine, both ends and the \
         system's: KiB each | seconds to open |\n| --- | --- | --- | --- | --- | --- |"
    ))?;
    sleep(SETTLE).await;
    let files_before: Vec<usize> = pairs.iter().map(Pair::files).collect::<Result<_>>()?;
    let first = measure(&pairs)?;
    let (mut last, mut open) = (first, 0);
    for kind in Kind::ALL {
        let began = Instant::now();
        let each = share / Kind::ALL.len() as u32;
        for pair in &mut pairs {
            pair.tell(&format!("{} {each}", kind.name())).await?;
        }
        let mut opened = 0;
        for pair in &mut pairs {
            opened += pair.answer().await?;
        }
        let took = began.elapsed();
        sleep(SETTLE).await;
        let now = measure(&pairs)?;
        open += opened;
        say(&row(kind.name(), opened, now, last, took))?;
        last = now;
    }
    say(&row("all", open, last, first, Duration::ZERO))?;
    let mut subscriptions = 0.0;
    for pair in &pairs {
        subscriptions += Scrape::read(pair.metrics).await?.subscriptions;
    }
    say(&format!("\nThe servers say that {subscriptions} subscriptions wait for events."))?;
    say(&meanwhile(arguments, &mut pairs, &users).await?)?;
    let mut gone = 0;
    for pair in &mut pairs {
        pair.tell("lost").await?;
        gone += pair.answer().await?;
    }
    let now = measure(&pairs)?;
    say(&row("all, afterwards", open, now, first, Duration::ZERO))?;
    let began = Instant::now();
    let mut closed = Vec::new();
    for pair in pairs {
        let Pair { server, mut holder, commands, answers, .. } = pair;
        drop((commands, answers));
        holder.wait().await?;
        closed.push(server);
    }
    for (server, before) in closed.iter().zip(files_before) {
        let files_now =
            || Ok::<_, std::io::Error>(fs::read_dir(format!("/proc/{}/fd", server.process_id))?.count());
        // A few of the database's and of Redis may have come.
        while files_now()? > before + 50 {
            ensure!(began.elapsed() < CLOSED_WITHIN, "{} has {} files open still", server.name, files_now()?);
            sleep(Duration::from_millis(100)).await;
        }
    }
    let took = began.elapsed().as_secs_f64();
    sleep(SETTLE).await;
    let mut left = 0;
    for server in &closed {
        left += cpu::resident_kib(server.process_id)?;
    }
    say(&format!(
        "\n{gone} of {open} connections were lost while they were open; all were closed in {took:.1} s. The servers' memory: \
         {} MiB before, {} MiB with all, {} MiB after.",
        first.servers >> 10,
        last.servers >> 10,
        left >> 10,
    ))?;
    for server in closed {
        server.stop().await?;
    }
    Ok(())
}

/// Memory in KiB.
#[derive(Clone, Copy)]
struct Memory {
    servers: u64,
    holders: u64,
    /// What the machine has left.
    available: u64,
}

fn measure(pairs: &[Pair]) -> Result<Memory> {
    let mut memory = Memory { servers: 0, holders: 0, available: available_kib()? };
    for pair in pairs {
        let (server, holder) = pair.memory_kib()?;
        memory.servers += server;
        memory.holders += holder;
    }
    Ok(memory)
}

fn row(what: &str, count: u64, now: Memory, before: Memory, took: Duration) -> String {
    let each = |more: u64, less: u64| more.saturating_sub(less) as f64 / count.max(1) as f64;
    format!(
        "| {what} | {count} | {:.1} | {:.1} | {:.1} | {:.1} |",
        each(now.servers, before.servers),
        each(now.holders, before.holders),
        each(before.available, now.available),
        took.as_secs_f64(),
    )
}

/// A few requests to each server while all connections are open.
async fn meanwhile(arguments: &Arguments, pairs: &mut [Pair], users: &[Uuid]) -> Result<String> {
    let mut connections = Vec::new();
    for pair in &*pairs {
        connections.push(Connection::open(pair.server.address).await?);
    }
    let busy = |pairs: &[Pair]| {
        let of_each = pairs.iter().map(|pair| cpu::of_process(pair.server.process_id));
        of_each.sum::<Result<Duration>>()
    };
    let before = busy(pairs)?;
    let (begin, mut micros, mut errors) = (Instant::now(), Vec::new(), 0);
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let between = Duration::from_secs(1) / (PER_SECOND * pairs.len() as u32);
    let mut due = begin;
    while begin.elapsed() < Duration::from_secs(arguments.open_seconds) {
        for connection in &mut connections {
            due += between;
            sleep_until(due.into()).await;
            let answer = connection.exchange(&by_id(&arguments.token, users, &mut random)).await?;
            if answer.is_good() {
                micros.push(due.elapsed().as_micros() as u32);
            } else {
                errors += 1;
            }
        }
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let mut text = String::new();
    let _ = write!(
        text,
        "\nMeanwhile {:.0} requests/s were answered for {elapsed:.0} s: p50, p95, p99 {:.1}, {:.1}, {:.1} ms, {errors} errors; \
         the servers kept {:.2} processors busy, pings of all WebSockets included.\n\n| what | open | xp: KiB each | load \
         runner: KiB each | of the machine: KiB each | |\n| --- | --- | --- | --- | --- | --- |",
        micros.len() as f64 / elapsed,
        quantile(&mut micros, 0.5),
        quantile(&mut micros, 0.95),
        quantile(&mut micros, 0.99),
        busy(pairs)?.saturating_sub(before).as_secs_f64() / elapsed,
    );
    Ok(text)
}

async fn warm_up(address: SocketAddr, token: &str, users: &[Uuid]) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..WARM_UP {
        let answer = connection.exchange(&by_id(token, users, &mut random)).await?;
        ensure!(answer.is_good(), "{}", String::from_utf8_lossy(answer.body));
    }
    Ok(())
}

fn by_id(token: &str, users: &[Uuid], random: &mut fastrand::Rng) -> Vec<u8> {
    let id = users[random.usize(..users.len().min(1000))];
    let query = "query($id: ID!) { user(id: $id) { id displayName } }";
    post(&json!({ "query": query, "variables": { "id": id } }).to_string(), token).into_bytes()
}

/// The soft limit of open files, which the servers inherit.
fn files_of_process() -> Result<u32> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).context("no limit of open files")?;
    Ok(soft.parse().unwrap_or(u32::MAX / 2))
}

fn available_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
