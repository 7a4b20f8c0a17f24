//! The servers under test: started on free loopback ports with capped memory, asked until they answer, and ended with
//! this process however it ends.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{client::Connection, workload::Workload};

/// Caps the address space, asks the kernel to end the server when this process dies, then becomes the server.
const START: &str = "ulimit -v \"$0\" || exit 1\n\
    if command -v setpriv >/dev/null; then set -- setpriv --pdeathsig KILL -- \"$@\"; fi\n\
    exec \"$@\"";

/// What the baseline is called.
pub(crate) const BASELINE: &str = "baseline";

/// How a server is started.
pub(crate) struct Plan<'a> {
    pub(crate) name: String,
    pub(crate) program: &'a Path,
    pub(crate) kind: Kind,
    /// What it gets besides the environment of this process.
    pub(crate) environment: &'a [(&'a str, String)],
    /// Where `xp` finds its trusted documents.
    pub(crate) documents: &'a Path,
    pub(crate) database_url: &'a str,
    pub(crate) memory_cap_mib: u64,
    pub(crate) log_directory: &'a Path,
}

/// The two command lines.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// `xp serve`, configured by environment; what it needs besides (its key) it inherits.
    Xp,
    /// `baseline --listen …`.
    Baseline,
}

/// A running server; dropping it ends it.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) process_id: u32,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it and waits until it answers the probe.
    pub(crate) async fn start(plan: &Plan<'_>, probe: &Workload) -> Result<Self> {
        let address = free_address()?;
        let log = plan.log_directory.join(format!("{}.log", plan.name.replace('/', "_")));
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = Command::new("sh");
        command.args(["-c", START, &(plan.memory_cap_mib * 1024).to_string()]).arg(plan.program);
        match plan.kind {
            Kind::Xp => {
                command.arg("serve").env("HOST", address.ip().to_string());
                command.env("PORT", address.port().to_string()).env("XP_DOCUMENTS_PATH", plan.documents);
                // W3 is a gateway's question, and the load runner has not proved to be one. The baseline asks
                // nobody for that.
                command.env("XP_GATEWAY_REQUIRED", "off");
                // A line per request would be measured with the request; the baseline writes none.
                if std::env::var_os("RUST_LOG").is_none() {
                    command.env("RUST_LOG", "warn");
                }
            }
            Kind::Baseline => {
                command.args(["--listen", &address.to_string()]);
            }
        }
        command.env("DATABASE_URL", plan.database_url).stdin(Stdio::null());
        command.envs(plan.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("starting {}", plan.program.display()))?;
        let process_id = child.id().context("the server ended at once")?;
        let mut server = Self { name: plan.name.clone(), address, process_id, child, log };
        server.wait_until_ready(probe).await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self, probe: &Workload) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.last_lines());
            }
            let answer = timeout(Duration::from_secs(5), self.probe(probe)).await;
            match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if Instant::now() > deadline => {
                    return Err(error.context(format!(
                        "{} gave no answer:\n{}",
                        self.name,
                        self.last_lines()
                    )));
                }
                Err(_) if Instant::now() > deadline => bail!("{} hangs:\n{}", self.name, self.last_lines()),
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn probe(&self, probe: &Workload) -> Result<()> {
        let mut connection = Connection::open(self.address).await?;
        let mut requests = probe.requests(&Arc::from([]), 0);
        let answer = connection.exchange(requests.draw()).await?;
        if !answer.is_good() {
            let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]).into_owned();
            bail!("status {}: {body}", answer.status);
        }
        Ok(())
    }

    /// What it said last.
    pub(crate) fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends it and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("ending {}", self.name))
    }
}

/// A loopback address that nobody listened on a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
