//! A private Redis for one test: on a free port, storing nothing, to be killed, started again and stopped in its
//! tracks. Ends with the test.

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use entities::redis::{Redis, RedisUrl};
use prometheus_client::registry::Registry;

use super::{Certificates, Proxy};

/// Another server than the one in the PATH, or one of its kind: `./test` names other versions.
const SERVER: &str = "XP_REDIS_SERVER";

pub(crate) struct RedisServer {
    port: u16,
    arguments: Vec<String>,
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

    /// Starts one with options beside those that every test needs.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let (port, directory) = place();
        let own = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let own = own.into_iter().chain(["--loglevel", "warning", "--dir"]).map(str::to_owned);
        let own = own.chain([directory.display().to_string()]);
        let arguments = own.chain(options.iter().map(ToString::to_string)).collect();
        let mut server = Self { port, arguments, directory, process: None };
        server.launch().await;
        server
    }

    /// Starts one that speaks TLS only. Where the program that is tested with was built without, it is the
    /// one in the PATH.
    pub(crate) async fn with_tls(certificates: &Certificates, options: &[&str]) -> Self {
        let (port, directory) = place();
        let mut arguments = tls_options(port, certificates).map(|option| format!("--{option}")).join(" ");
        let _ = write!(arguments, " --bind 127.0.0.1 --loglevel warning --dir {}", directory.display());
        let arguments = arguments.split(' ').chain(options.iter().copied()).map(str::to_owned).collect();
        let mut server = Self { port, arguments, directory, process: None };
        server.launch().await;
        server
    }

    /// Starts a sentinel that is configured by these lines.
    pub(crate) async fn sentinel(configuration: &str) -> Self {
        let (port, directory) = place();
        Self::sentinel_at(port, directory, &format!("port {port}\n{configuration}")).await
    }

    /// Starts one that speaks TLS only, as `with_tls` does.
    pub(crate) async fn sentinel_with_tls(certificates: &Certificates, configuration: &str) -> Self {
        let (port, directory) = place();
        let tls = tls_options(port, certificates).join("\n");
        Self::sentinel_at(port, directory, &format!("{tls}\ntls-replication yes\n{configuration}")).await
    }

    async fn sentinel_at(port: u16, directory: PathBuf, configuration: &str) -> Self {
        let file = directory.join("sentinel.conf");
        let head = format!("bind 127.0.0.1\nloglevel warning\ndir {}\n", directory.display());
        fs::write(&file, head + configuration).expect("the temporary directory can be written");
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let mut server = Self { port, arguments, directory, process: None };
        server.launch().await;
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again on the same port: empty, unless it was told to make a snapshot.
    pub(crate) async fn launch(&mut self) {
        let speaks_tls = self.arguments.iter().any(|argument| argument == "--tls-port")
            || self
                .arguments
                .first()
                .and_then(|file| fs::read_to_string(file).ok())
                .is_some_and(|file| file.contains("tls-port"));
        let process = Command::new(if speaks_tls { program_with_tls() } else { program() })
            .args(&self.arguments)
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
        panic!("redis-server does not listen on port {} after five seconds", self.port);
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
        let mut command = Command::new("redis-cli");
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--requirepass") {
            command.args(["--no-auth-warning", "-a", &self.arguments[at + 1]]);
        }
        let output = command.args(["-p", &self.port.to_string()]).args(arguments).output();
        String::from_utf8_lossy(&output.expect("redis-cli comes with redis-server").stdout).trim().to_owned()
    }
}

/// The program that is tested with.
fn program() -> OsString {
    env::var_os(SERVER).unwrap_or_else(|| "redis-server".into())
}

/// The program that is tested with if it was built with TLS, or else the one in the PATH.
fn program_with_tls() -> OsString {
    // With TLS, it asks for a certificate and ends.
    let tried = Command::new(program()).args(["--port", "0", "--tls-port", "1"]).output();
    let said = tried.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    if String::from_utf8_lossy(&said).contains("tls-cert-file configured") {
        return program();
    }
    eprintln!("{} has no TLS; the redis-server of the PATH is used", program().display());
    "redis-server".into()
}

/// The lines of a configuration.
fn tls_options(port: u16, certificates: &Certificates) -> [String; 5] {
    let path = |file| certificates.path(file).display().to_string();
    [
        "port 0".to_owned(),
        format!("tls-port {port}"),
        format!("tls-cert-file {}", path("server.pem")),
        format!("tls-key-file {}", path("server.key")),
        format!("tls-ca-cert-file {}", path("ca.pem")),
    ]
}

/// A free port, and a directory for what is started there.
fn place() -> (u16, PathBuf) {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let directory = env::temp_dir().join(format!("xp-redis-{}-{port}", std::process::id()));
    fs::create_dir(&directory).expect("the temporary directory can be written");
    (port, directory)
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
