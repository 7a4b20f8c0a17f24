//! The load runner's command line, and the order of a run: start the servers, compare their answers, warm up, measure
//! by turns, report. How each is done is in the modules. All traffic stays on the loopback addresses of servers that
//! this process has started, and both time and number of requests are bounded.

mod check;
mod client;
mod cpu;
mod database;
mod measure;
mod overload;
mod plan;
mod report;
mod server;
mod workload;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{
    check::Shape,
    client::Connection,
    database::Database,
    measure::{Load, Outcome, run_slice},
    overload::{Beside, Overload},
    report::{Figures, PeakMemory, Report, Run},
    server::{BASELINE, Kind, Plan, Server},
    workload::{By, Workload},
};

/// Where the query files are looked for when `--operations` does not say.
const OPERATIONS: [&str; 2] = ["playground/operations", "benches/load/operations"];

#[derive(Parser)]
#[command(
    about = "Runs the workloads against `xp` and the baseline by turns and compares what a request costs"
)]
struct Arguments {
    /// `postgres://…`: a migrated and seeded database, best on this machine.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The binary `xp`; it is run as `xp serve` and inherits the environment (`XP_AUTH_SECRET` …).
    #[arg(long, default_value = "target/release/xp")]
    xp: PathBuf,
    /// The binary `baseline`.
    #[arg(long, default_value = "benches/baseline/target/release/baseline")]
    baseline: PathBuf,
    /// The bearer token of all requests; `xp` must let it see everybody's data.
    #[arg(long, env = "BENCH_TOKEN", hide_env_values = true, default_value = "none")]
    token: String,
    /// Start `xp` once for each value of an environment variable, as in `XP_GRAPH_SHARED_BATCHES=0,1,2,4`.
    #[arg(long, value_name = "VARIABLE=VALUE,…", default_value = "XP_CACHE_ENABLED=off,on", value_parser = Vary::parse)]
    vary: Vary,
    /// Leave the other program out.
    #[arg(long)]
    only: Option<Only>,
    /// Directory of `w1.graphql` … with their variables in `w1.json`.
    #[arg(long)]
    operations: Option<PathBuf>,
    /// Which workloads.
    #[arg(long, value_delimiter = ',', default_value = "w1,w2,w3,w4")]
    workloads: Vec<String>,
    /// How requests say which query they mean, compared by turns; the baseline knows texts only.
    #[arg(long, value_delimiter = ',', default_value = "text")]
    by: Vec<By>,
    /// How many connections at once.
    #[arg(long, value_delimiter = ',', default_value = "64,1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: Vec<u16>,
    /// Slices of each server in each run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    slices: u32,
    /// Length of a slice.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    slice_seconds: u64,
    /// Requests in a slice at most.
    #[arg(long, default_value_t = 500_000)]
    max_requests: usize,
    /// Unmeasured load on each server before a run.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    warmup_seconds: u64,
    /// Decides which ids are drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cap on each server's address space.
    #[arg(long, default_value_t = 4096)]
    memory_cap_mib: u64,
    /// Instead of the usual runs: offer so many times what each server does at the first `--concurrency`.
    #[arg(long, value_delimiter = ',', value_name = "FACTOR,…")]
    overload: Vec<f64>,
    /// The bearer token of another account, which asks little while the others ask too much.
    #[arg(long, env = "BENCH_MODEST_TOKEN", hide_env_values = true)]
    modest_token: Option<String>,
    /// Connections that say nothing beside the overload.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=50_000))]
    idle: u32,
    /// Connections beside the overload whose request comes a byte a second.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=50_000))]
    slow: u32,
    /// Write the figures as JSON to this file, `-` for standard output (then the tables are left out).
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Xp,
    Baseline,
}

/// A setting whose values are compared.
#[derive(Clone)]
struct Vary {
    variable: String,
    values: Vec<String>,
}

impl Vary {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (variable, values) = text.split_once('=').ok_or("write it as VARIABLE=VALUE,VALUE")?;
        Ok(Self { variable: variable.to_owned(), values: values.split(',').map(str::to_owned).collect() })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // The plan's figures have arguments of their own.
    let of_plan = std::env::args_os().nth(1).is_some_and(|first| first == "plan");
    let outcome = if of_plan {
        let arguments = plan::Arguments::parse_from(std::env::args_os().skip(1));
        until_interrupted(plan::run(&arguments)).await
    } else {
        let arguments = Arguments::parse();
        until_interrupted(run(&arguments)).await
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Leaving the run half done drops the servers, which ends them; so does a panic.
async fn until_interrupted(run: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = run => outcome,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    }
}

/// What a run works with.
struct Bench<'a> {
    arguments: &'a Arguments,
    servers: Vec<Server>,
    database: Database,
    user_ids: Arc<[Uuid]>,
}

async fn run(arguments: &Arguments) -> Result<()> {
    let workloads = read_workloads(arguments)?;
    let load_average_before = load_average()?;
    let mut database = Database::connect(&arguments.database_url).await?;
    let user_ids: Arc<[Uuid]> = database.user_ids().await?.into();
    let logs = LogDirectory::create()?;
    let documents = write_manifest(&workloads, &logs.0)?;
    let servers = start_servers(arguments, &logs.0, &documents).await?;
    let mut bench = Bench { arguments, servers, database, user_ids };
    bench.say(&format!(
        "{} users · xp with {}={} · {} × {} s slices by turns · statements from {} · load average before: \
         {load_average_before:.2}\n",
        bench.user_ids.len(),
        arguments.vary.variable,
        arguments.vary.values.join(","),
        arguments.slices,
        arguments.slice_seconds,
        bench.database.source.describe(),
    ))?;
    let mut shapes = Vec::with_capacity(workloads.len());
    for ways in &workloads {
        let mut shape = None;
        for workload in ways {
            bench.register(workload).await?;
            shape = Some(check::compare(&bench.servers, workload, &bench.user_ids, arguments.seed).await?);
        }
        shapes.push(shape.context("--by names no way")?);
    }
    if bench.servers.len() > 1 {
        bench.say("All servers answer every workload with equal data.\n")?;
    }
    if !arguments.overload.is_empty() {
        return bench.overload(&workloads).await;
    }
    let mut runs = Vec::new();
    for (ways, shape) in workloads.iter().zip(&shapes) {
        for &connections in &arguments.concurrency {
            let run = bench.measure(ways, shape, connections.into()).await?;
            bench.say(&run.table())?;
            runs.push(run);
        }
    }
    let report = bench.finish(runs, load_average_before).await?;
    write_json(arguments, &report)
}

/// Each workload in all ways of asking for it.
fn read_workloads(arguments: &Arguments) -> Result<Vec<Vec<Workload>>> {
    let texts_only = arguments.by.iter().all(|by| *by == By::Text);
    ensure!(texts_only || arguments.only == Some(Only::Xp), "the baseline knows texts only: add --only xp");
    let directory = operations(arguments)?;
    let read = |name: &String| {
        let ways = arguments.by.iter().map(|by| Workload::read(directory, name, *by, &arguments.token));
        ways.collect::<Result<Vec<_>>>()
    };
    arguments.workloads.iter().map(read).collect()
}

/// Where the query files are.
fn operations(arguments: &Arguments) -> Result<&Path> {
    if let Some(directory) = &arguments.operations {
        return Ok(directory);
    }
    let known = OPERATIONS.iter().map(Path::new).find(|directory| directory.join("w1.graphql").exists());
    known.with_context(|| format!("no query files in {}: give --operations", OPERATIONS.join(" or ")))
}

/// The trusted documents of `xp`: a folder with one map of hashes to texts.
fn write_manifest(workloads: &[Vec<Workload>], directory: &Path) -> Result<PathBuf> {
    let by_id = workloads.iter().flatten().filter(|workload| workload.by == By::Id);
    let documents: std::collections::BTreeMap<_, _> =
        by_id.map(|workload| (&workload.document.0, &workload.document.1)).collect();
    let folder = directory.join("documents");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("load.json"), serde_json::to_string(&documents)?)?;
    Ok(folder)
}

async fn start_servers(arguments: &Arguments, log_directory: &Path, documents: &Path) -> Result<Vec<Server>> {
    let probe = Workload::probe(&arguments.token);
    let Arguments { xp, baseline, vary, only, .. } = arguments;
    let mut plans = Vec::new();
    if *only != Some(Only::Baseline) {
        ensure!(xp.exists(), "{} is not there: build it, or give its path with --xp", xp.display());
        plans.extend(vary.values.iter().map(|value| {
            let environment = vec![(vary.variable.as_str(), value.clone())];
            (format!("xp {value}"), xp, Kind::Xp, environment)
        }));
    }
    if *only != Some(Only::Xp) {
        ensure!(
            baseline.exists(),
            "{} is not there: build it, or give its path with --baseline",
            baseline.display()
        );
        plans.push((BASELINE.to_owned(), baseline, Kind::Baseline, Vec::new()));
    }
    let mut servers = Vec::new();
    for (name, program, kind, environment) in plans {
        let plan = Plan {
            name,
            program,
            kind,
            environment: &environment,
            documents,
            database_url: &arguments.database_url,
            memory_cap_mib: arguments.memory_cap_mib,
            log_directory,
        };
        servers.push(Server::start(&plan, &probe).await?);
    }
    Ok(servers)
}

impl Bench<'_> {
    /// Makes a query known where it has to be.
    async fn register(&self, workload: &Workload) -> Result<()> {
        let Some(registration) = &workload.registration else { return Ok(()) };
        for server in &self.servers {
            let mut connection = Connection::open(server.address).await?;
            // Its variables are blank: what is answered does not matter.
            connection.exchange(registration).await?;
        }
        Ok(())
    }

    /// Warms the servers up, then loads them by turns with the same requests, in each way of asking.
    async fn measure(&mut self, ways: &[Workload], shape: &Shape, connections: usize) -> Result<Run> {
        let Self { arguments, servers, database, user_ids } = self;
        let name = ways.first().context("--by names no way")?.name.clone();
        let load = |seconds, seed| Load {
            connections,
            duration: Duration::from_secs(seconds),
            max_requests: arguments.max_requests,
            seed: arguments.seed.wrapping_add(seed),
        };
        let both = servers.iter().flat_map(|server| ways.iter().map(move |workload| (server, workload)));
        let mut contestants: Vec<_> = both.map(|both| (both, Outcome::default())).collect();
        for ((server, workload), _) in &contestants {
            run_slice(server, workload, user_ids, load(arguments.warmup_seconds, 0), database).await?;
        }
        for slice in 1..=arguments.slices {
            let load = load(arguments.slice_seconds, slice.into());
            for ((server, workload), outcome) in &mut contestants {
                outcome.add(run_slice(server, workload, user_ids, load, database).await?);
            }
        }
        let figures = contestants.into_iter().map(|((server, workload), outcome)| {
            let by = if ways.len() > 1 { format!(" {}", workload.by.name()) } else { String::new() };
            Figures::of(format!("{}{by}", server.name), outcome)
        });
        Ok(Run::new(&name, connections, shape, figures.collect()))
    }

    /// Offers each server more than it can do.
    async fn overload(mut self, workloads: &[Vec<Workload>]) -> Result<()> {
        let arguments = self.arguments;
        let connections = arguments.concurrency.first().copied().unwrap_or(64).into();
        let duration = Duration::from_secs(arguments.slice_seconds);
        for workload in workloads.iter().flatten() {
            let modest = arguments.modest_token.as_ref().map(|token| self.modest(token)).transpose()?;
            for server in &self.servers {
                let load = Load {
                    connections,
                    duration,
                    max_requests: arguments.max_requests,
                    seed: arguments.seed,
                };
                run_slice(server, workload, &self.user_ids, load, &mut self.database).await?;
                let peak = run_slice(server, workload, &self.user_ids, load, &mut self.database).await?;
                let closed = peak.slice_rates.first().copied().unwrap_or_default();
                let how = (closed, duration, arguments.seed);
                let peak = overload::peak(server, workload, &self.user_ids, how).await?;
                let mut beside = Beside::open(server.address, arguments.idle, arguments.slow).await?;
                let mut outcomes = Vec::new();
                for &factor in &arguments.overload {
                    let max_requests = arguments.max_requests as u64;
                    let (modest, seed) = (modest.clone(), arguments.seed);
                    let overload = Overload { peak, factor, duration, max_requests, seed, modest };
                    outcomes.push(overload::run(server, workload, &self.user_ids, &overload).await?);
                }
                self.say(&overload::table(&server.name, &workload.name, peak, &outcomes))?;
                let held = cpu::peak_memory_kib(server.process_id)? / 1024;
                self.say(&format!("{}; the server held at most {held} MiB.\n", beside.describe()))?;
            }
        }
        for server in self.servers {
            server.stop().await?;
        }
        Ok(())
    }

    /// What the account that asks little asks for.
    fn modest(&self, token: &str) -> Result<Arc<Workload>> {
        let directory = operations(self.arguments)?;
        Ok(Arc::new(Workload::read(directory, "w1", By::Text, token)?))
    }

    /// Ends the servers and sums up.
    async fn finish(self, runs: Vec<Run>, load_average_before: f64) -> Result<Report> {
        let mut peak_memory = Vec::new();
        for server in &self.servers {
            let mib = cpu::peak_memory_kib(server.process_id)? as f64 / 1024.0;
            self.say(&format!("{} held at most {mib:.0} MiB.", server.name))?;
            peak_memory.push(PeakMemory { server: server.name.clone(), mib });
        }
        for server in self.servers {
            server.stop().await?;
        }
        Ok(Report {
            slices: self.arguments.slices,
            slice_seconds: self.arguments.slice_seconds as f64,
            seed: self.arguments.seed,
            users: self.user_ids.len(),
            statements_from: self.database.source,
            load_average_before,
            runs,
            peak_memory,
        })
    }

    /// A line or table for people, unless standard output is for JSON.
    fn say(&self, text: &str) -> Result<()> {
        if self.arguments.json.as_deref() != Some(Path::new("-")) {
            writeln!(std::io::stdout(), "{text}")?;
        }
        Ok(())
    }
}

fn write_json(arguments: &Arguments, report: &Report) -> Result<()> {
    let Some(path) = &arguments.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    if path == Path::new("-") {
        writeln!(std::io::stdout(), "{text}")?;
    } else {
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// Where the servers' output goes; its end is shown when something fails, so it need not outlive the run.
struct LogDirectory(PathBuf);

impl LogDirectory {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("xp-load-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
