//! A private Redis for one test: on a free port, storing nothing, to be killed, started again and stopped in its
//! tracks. Ends with the test.

use std::{
    env, fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use entities::redis::{Redis, RedisUrl};
use prometheus_client::registry::Registry;

use super::Proxy;

/// Another server than the one in the PATH, or one of its kind: `./test` names other versions.
const SERVER: &str = "XP_REDIS_SERVER";

pub(crate) struct RedisServer {
    port: u16,
    /// Beside those that every test needs.
    options: Vec<String>,
    /// Where it puts a snapshot, if it is told to make one.
    directory: PathBuf,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one that knows none of these commands: an older version.
    pub(crate) async fn without(commands: &[&str]) -> Self {
        let options = commands.iter().flat_map(|command| ["--rename-command", command, ""]);
        Self::start_with(&options.collect::<Vec<_>>()).await
    }

    async fn start_with(options: &[&str]) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let directory = env::temp_dir().join(format!("xp-redis-{}-{port}", std::process::id()));
        fs::create_dir(&directory).expect("the temporary directory can be written");
        let options = options.iter().map(ToString::to_string).collect();
        let mut server = Self { port, options, directory, process: None };
        server.launch().await;
        server
    }

    /// Starts it again on the same port: empty, unless it was told to make a snapshot.
    pub(crate) async fn launch(&mut self) {
        let port = self.port.to_string();
        let process = Command::new(env::var_os(SERVER).unwrap_or_else(|| "redis-server".into()))
            .args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--loglevel",
                "warning",
                "--dir",
            ])
            .arg(&self.directory)
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is not in the PATH; install it (Debian: apt-get install redis-server)");
        self.process = Some(process);
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not listen on port {port} after five seconds");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Keeps its connections and answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Answers again.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().expect("there is a `kill`");
        assert!(sent.success(), "kill {signal} {id}");
    }

    pub(crate) fn url(&self) -> RedisUrl {
        self.address().parse().expect("a URL")
    }

    /// As it is configured.
    pub(crate) fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A way to it that can be made slow.
    pub(crate) async fn proxy(&self) -> Proxy {
        Proxy::to(self.port).await
    }

    /// A handle of an instance's own.
    pub(crate) fn handle(&self) -> Redis {
        Redis::new(&self.url(), &mut Registry::default())
    }

    /// Runs a command of the operator's.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output();
        String::from_utf8_lossy(&output.expect("redis-cli comes with redis-server").stdout).trim().to_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
