//! The plan's figures: the mixed day of 100,000 people against one server (`day`), and what open connections
//! cost (`connections`). Here is how both begin: the command line, the server's settings, the accounts that
//! sign in. The requests of the day are in `mix`, a step of its load is in `step`. Not here: comparing the
//! server with another one, workload by workload.

mod connections;
mod day;
mod hold;
mod mix;
mod people;
mod scrape;
mod socket;
mod step;
mod streams;

use std::{io::Write as _, net::SocketAddr, path::PathBuf};

use anyhow::{Result, ensure};
use clap::Parser;
use uuid::Uuid;

use crate::{
    LogDirectory,
    server::{Kind, Plan, Server, free_address},
    workload::Workload,
};

#[derive(Parser)]
#[command(name = "plan", about = "Measures the plan's figures: a mixed day, or open connections")]
pub(crate) struct Arguments {
    /// `postgres://…`: a migrated and seeded database on this machine.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The binary `xp`; it is run as `xp serve` and inherits the environment (`XP_AUTH_SECRET`, `REDIS_URL` …).
    #[arg(long, default_value = "target/release/xp")]
    xp: PathBuf,
    /// The process of Redis, whose processor time is told.
    #[arg(long)]
    redis_process: Option<u32>,
    /// An administrator who has the password of all who sign in.
    #[arg(long)]
    account: Uuid,
    /// That password.
    #[arg(long, env = "BENCH_PASSWORD", hide_env_values = true, default_value = "none")]
    password: String,
    /// An access token of that administrator, for `--connections`.
    #[arg(long, env = "BENCH_TOKEN", hide_env_values = true, default_value = "none")]
    token: String,
    /// Requests a second, one step after the other.
    #[arg(long, value_delimiter = ',', default_value = "2500,5000,10000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rates: Vec<u32>,
    /// Length of a step.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Further steps that look for the highest rate which meets the plan.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=8))]
    search: u32,
    /// How many people sign in and ask.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=1000))]
    people: u32,
    /// Subscriptions that are open beside, each on a WebSocket.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(0..=900))]
    streams: u32,
    /// Instead of the day: open so many connections, in thirds: idle HTTP, idle WebSocket, WebSocket with a
    /// subscription.
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..=200_000))]
    connections: Option<u32>,
    /// How long the connections stay open.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=120))]
    open_seconds: u64,
    /// Decides what is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cap on each server's address space.
    #[arg(long, default_value_t = 4096)]
    memory_cap_mib: u64,
    /// What `--connections` starts: holds connections to this address open, as standard input says.
    #[arg(long, hide = true)]
    hold: Option<SocketAddr>,
    /// The first of the loopback addresses that connections are held from.
    #[arg(long, hide = true, default_value_t = 0)]
    hold_from: u32,
}

/// Measures what the arguments say.
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    match (arguments.hold, arguments.connections) {
        (Some(address), _) => hold::run(address, arguments.hold_from, &arguments.token).await,
        (None, Some(count)) => connections::run(arguments, count).await,
        (None, None) => day::run(arguments).await,
    }
}

impl Arguments {
    /// Starts a server that lets so many connections in, from few addresses and accounts; where its metrics are.
    async fn start(&self, name: &str, connections: u32, logs: &LogDirectory) -> Result<(Server, SocketAddr)> {
        ensure!(self.xp.exists(), "{} is not there: build it, or give its path with --xp", self.xp.display());
        let metrics = free_address()?;
        let many = (connections + 1_000).to_string();
        let environment = [
            ("XP_HTTP_METRICS_ADDRESS", metrics.to_string()),
            ("XP_HTTP_MAX_CONNECTIONS", many.clone()),
            ("XP_HTTP_MAX_CONNECTIONS_PER_ADDRESS", many.clone()),
            ("XP_HTTP_MAX_SOCKETS_PER_ADDRESS", many.clone()),
            ("XP_HTTP_MAX_SOCKETS_PER_ACCOUNT", many.clone()),
            ("XP_HTTP_MAX_SUBSCRIPTIONS_PER_ACCOUNT", many),
            ("XP_HTTP_IDLE_TIMEOUT", "15m".to_owned()),
        ];
        let plan = Plan {
            name: name.to_owned(),
            program: &self.xp,
            kind: Kind::Xp,
            environment: &environment,
            documents: &mix::write_documents(&logs.0)?,
            database_url: &self.database_url,
            memory_cap_mib: self.memory_cap_mib,
            log_directory: &logs.0,
        };
        let server = Server::start(&plan, &Workload::anonymous_probe()).await?;
        Ok((server, metrics))
    }
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
