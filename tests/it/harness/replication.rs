//! A PostgreSQL with standbys that stream from it, for one test: each can be stopped, held up, promoted and
//! started again. Ends with the test. Not here: the cluster that all other tests share (`db`).

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::db::{fill, is_root, run, tool};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The server that is written to, with demo data.
pub(crate) struct Primary {
    node: Node,
}

/// A server that replays what the primary writes.
pub(crate) struct Standby {
    node: Node,
}

/// A server of PostgreSQL.
struct Node {
    directory: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Primary {
    /// Starts one and fills it.
    pub(crate) async fn start() -> Self {
        let mut node = Node::new();
        run(tool("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--pgdata"])
            .arg(&node.directory));
        node.launch();
        node.psql("postgres", "create database xp");
        fill(&node.url()).await;
        Self { node }
    }

    /// Of its database.
    pub(crate) fn url(&self) -> String {
        self.node.url()
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        self.node.address()
    }

    /// A new standby of it, which has all that there is so far.
    pub(crate) fn standby(&self) -> Standby {
        let mut node = Node::new();
        fs::remove_dir(&node.directory).expect("it is empty");
        run(tool("pg_basebackup")
            .args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "--write-recovery-conf", "-h"])
            .args(["127.0.0.1", "-U", "postgres", "-p", &self.node.port.to_string(), "-D"])
            .arg(&node.directory));
        node.launch();
        Standby { node }
    }

    /// Runs a statement; what it answers.
    pub(crate) fn sql(&self, text: &str) -> String {
        self.node.psql("xp", text)
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn stop(&mut self) {
        self.node.stop();
    }

    /// Starts it again.
    pub(crate) fn start_again(&mut self) {
        self.node.launch();
    }
}

impl Standby {
    /// Of its database.
    pub(crate) fn url(&self) -> String {
        self.node.url()
    }

    /// `host:port`, as the server names it.
    pub(crate) fn name(&self) -> String {
        self.node.address()
    }

    /// Runs a statement; what it answers.
    pub(crate) fn sql(&self, text: &str) -> String {
        self.node.psql("xp", text)
    }

    /// What the primary writes is not shown until `resume`.
    pub(crate) fn pause(&self) {
        self.sql("select pg_wal_replay_pause()");
    }

    /// Goes on.
    pub(crate) fn resume(&self) {
        self.sql("select pg_wal_replay_resume()");
    }

    /// What the primary writes is shown this much later.
    pub(crate) fn delay(&self, delay: &str) {
        self.sql(&format!("alter system set recovery_min_apply_delay = '{delay}'"));
        self.sql("select pg_reload_conf()");
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn stop(&mut self) {
        self.node.stop();
    }

    /// Starts it again.
    pub(crate) fn start_again(&mut self) {
        self.node.launch();
    }

    /// Lets all processes of this server stand still (`STOP`) or go on (`CONT`).
    pub(crate) fn signal(&self, signal: &str) {
        signal_all(&self.node.directory, signal);
    }

    /// Makes a primary of it.
    pub(crate) fn promote(&self) {
        assert_eq!(self.sql("select pg_promote()"), "t");
    }
}

impl Node {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("xp-replication-{}-{number}", std::process::id()));
        fs::create_dir(&directory).expect("the temporary directory can be written");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&directory));
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        Self { directory, port: free.expect("a free port").port(), process: None }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url(&self) -> String {
        format!("postgres://postgres@{}/xp", self.address())
    }

    /// Starts the server and waits until it answers.
    fn launch(&mut self) {
        let mut server = tool("postgres");
        server.arg("-D").arg(&self.directory).args(["-p", &self.port.to_string()]);
        for option in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "autovacuum=off",
            "max_connections=60",
            "shared_buffers=32MB",
            "wal_receiver_timeout=2s",
            "wal_retrieve_retry_interval=100ms",
        ] {
            server.args(["-c", option]);
        }
        self.process = Some(
            server
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("PostgreSQL can be started"),
        );
        let began = Instant::now();
        while !self.answers() {
            assert!(began.elapsed() < Duration::from_mins(1), "PostgreSQL does not get ready");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let asked = self.client("postgres").args(["-c", "select 1"]).output().expect("psql");
        asked.status.success()
    }

    fn psql(&self, database: &str, text: &str) -> String {
        let output = self.client(database).args(["-c", text]).output().expect("psql");
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    fn client(&self, database: &str) -> Command {
        let mut psql = tool("psql");
        psql.args(["-X", "-A", "-t", "-q", "-h", "127.0.0.1", "-U", "postgres", "-p"]);
        psql.arg(self.port.to_string()).args(["-d", database]).env("PGCONNECT_TIMEOUT", "5");
        psql
    }

    fn stop(&mut self) {
        stop(&self.directory);
        if let Some(mut process) = self.process.take() {
            // `runuser` stands still when what it runs does, and does not go on with it.
            let _ = Command::new("kill").args(["-CONT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }
}

/// Sends a signal to all processes of the server of this directory.
fn signal_all(directory: &Path, signal: &str) {
    let Ok(pid) = fs::read_to_string(directory.join("postmaster.pid")) else { return };
    let postmaster = pid.lines().next().expect("a number").to_owned();
    let children = Command::new("pgrep").args(["-P", &postmaster]).output().expect("pgrep");
    let children = String::from_utf8(children.stdout).expect("numbers");
    // What is stopped first cannot start another one.
    for pid in std::iter::once(postmaster.as_str()).chain(children.lines()) {
        let _ = Command::new("kill").args([&format!("-{signal}"), pid]).status();
    }
}

/// Ends the server of this directory at once, also where it stands still.
fn stop(directory: &Path) {
    signal_all(directory, "CONT");
    let mut ending = tool("pg_ctl");
    ending.args(["stop", "--mode=immediate", "--silent", "--pgdata"]).arg(directory);
    let _ = ending.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
