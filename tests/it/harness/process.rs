//! The real program as an operator runs it: a server on a free port, its log, and requests to it. Ends with the test.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

const SECRET: &str = "of the tests, and long enough for it";

/// `xp serve`.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts one; it is ready when it says where it listens.
    pub(crate) fn start(url: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = xp(url);
        command.arg("serve").envs(environment.iter().copied());
        Self::launch(command)
    }

    /// Starts one with a configuration file.
    pub(crate) fn start_configured(url: &str, file: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = xp(url);
        command.args(["serve", "--config"]).arg(file).envs(environment.iter().copied());
        Self::launch(command)
    }

    /// Starts a server in a shell that has prepared its process with these words: a limit, a signal that is ignored.
    pub(crate) fn start_prepared(url: &str, preparation: &str) -> Self {
        let xp = xp(url);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{preparation}; exec \"$0\" serve")]).arg(xp.get_program());
        command.env_clear().current_dir("/").stdin(Stdio::null());
        command.envs(xp.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self::launch(command)
    }

    fn launch(mut command: Command) -> Self {
        command.env("PORT", "0").env("RUST_LOG", "info");
        let mut process =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it can be started");
        let lines = BufReader::new(process.stderr.take().expect("a pipe"));
        let log = Arc::new(Mutex::new(String::new()));
        let (tell, told) = mpsc::channel();
        let kept = Arc::clone(&log);
        // To the end: a full pipe would stop the server.
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("\"address\":\"") {
                    let _ = tell.send(rest.split('"').next().unwrap_or_default().to_owned());
                }
                let mut kept = kept.lock().expect("nobody panics here");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let address = told.recv_timeout(Duration::from_mins(1)).unwrap_or_else(|_| {
            let _ = process.kill();
            let _ = process.wait();
            panic!("the server does not get ready: {}", log.lock().expect("nobody panics here"))
        });
        Self { process, address, log }
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("nobody panics here").clone()
    }

    /// It has not ended by itself.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.try_wait().expect("its state").is_none()
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal, as in `-HUP`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status();
        assert!(sent.expect("there is a `kill`").success(), "it runs");
    }

    /// SIGTERM; whether it ended within this time, and well.
    pub(crate) fn stop(&mut self, within: Duration) -> Option<ExitStatus> {
        self.signal("-TERM");
        let began = Instant::now();
        while began.elapsed() < within {
            if let Some(status) = self.process.try_wait().expect("its state") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program, with this database.
pub(crate) fn xp(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xp"));
    command.env_clear().env("DATABASE_URL", url).env("XP_AUTH_SECRET", SECRET).current_dir("/");
    // Several servers run side by side, and their metrics are asked for at the main port.
    command.env("XP_HTTP_METRICS_ADDRESS", "main").env("XP_AUTH_SIGN_UP", "true");
    // A machine that is busy with all the other tests is no reason to give up.
    command.env("XP_DATABASE_ACQUIRE_TIMEOUT", "30s").stdin(Stdio::null());
    command
}

/// A token of an account, by its e-mail, for hours.
pub(crate) fn mint(url: &str, email: &str, environment: &[(&str, &str)]) -> String {
    let mint = ["token", "mint", "--ttl-seconds", "21600", "--user", email];
    let output = xp(url).envs(environment.iter().copied()).args(mint).output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// One request on a connection of its own: the status and the body, or nothing where the server is gone.
pub(crate) fn send(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, String)> {
    send_whole(address, path, headers, body).map(|(status, _, body)| (status, body))
}

/// One request on a connection of its own: the status, the head and the body of its answer.
pub(crate) fn send_whole(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let method = if body.is_empty() { "GET" } else { "POST" };
    let more: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{}\r\n",
        body.len(),
        more.concat()
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = Vec::new();
    // A killed server resets the connection, maybe in the middle of its answer.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, format!("{head}\r\n"), body.to_owned()))
}

/// A document with its variables, sent by whom the token stands for.
pub(crate) fn ask(address: &str, token: &str, query: &str, variables: &Value) -> Option<Value> {
    let bearer = format!("Bearer {token}");
    let body = serde_json::json!({ "query": query, "variables": variables }).to_string();
    let (_, body) = send(address, "/graphql", &[("authorization", &bearer)], &body)?;
    serde_json::from_str(&body).ok()
}
