//! `PgBouncer` in front of a PostgreSQL, for one test. Ends with the test.

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::db::{is_root, run, tool};

pub(crate) struct PgBouncer {
    directory: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl PgBouncer {
    /// Pools so (`session`, `transaction`), with few connections to the server that is reached at `host:port`.
    pub(crate) fn start(server: &str, pool_mode: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = free.expect("a free port").port();
        let directory = env::temp_dir().join(format!("xp-pgbouncer-{}-{port}", std::process::id()));
        fs::create_dir(&directory).expect("the temporary directory can be written");
        let (host, server_port) = server.split_once(':').expect("a host and a port");
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n\
             default_pool_size = 20\nmax_client_conn = 200\nlogfile = {directory}/log\npidfile = {directory}/pid\n",
            directory = directory.display(),
        );
        fs::write(directory.join("pgbouncer.ini"), settings).expect("the directory can be written");
        if is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(&directory));
        }
        let mut pooler = Self { directory, port, process: None };
        pooler.launch();
        pooler
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if let Ok(pid) = fs::read_to_string(self.directory.join("pid")) {
            let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
        }
        let _ = process.wait();
        let _ = fs::remove_file(self.directory.join("pid"));
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn launch(&mut self) {
        let mut program = tool("pgbouncer");
        program.arg("-q").arg(self.directory.join("pgbouncer.ini"));
        let quiet = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(quiet.spawn().expect("PgBouncer can be started"));
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(20), "PgBouncer does not listen: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
