//! `xp dev`, as the first command of the README starts it: in an empty folder, with demo data and tokens. Ends with the
//! test.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::process;

pub(super) struct Development {
    process: Child,
    /// As in `http://127.0.0.1:4711`.
    pub(super) url: String,
    /// An administrator's.
    pub(super) token: String,
}

impl Development {
    /// Starts one in this folder; it answers when this is done.
    pub(super) fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xp"));
        command.env_clear().env("HOME", folder).env("PORT", "0").env("RUST_LOG", "error").current_dir(folder);
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let mut server = Self { process, url: String::new(), token: String::new() };
        while server.token.is_empty() {
            let line = told.recv_timeout(Duration::from_mins(1)).expect("it says where it is");
            let line = line.trim();
            if let Some(url) =
                line.strip_prefix("GraphQL").and_then(|rest| rest.trim().strip_suffix("/graphql"))
            {
                url.clone_into(&mut server.url);
            } else if let Some(token) = line.strip_prefix("export TOKEN=") {
                token.clone_into(&mut server.token);
            }
        }
        server
    }

    /// What it answers to a document with its variables.
    pub(super) fn ask(&self, anonymous: bool, query: &str, variables: &Value) -> Value {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str())];
        let headers = if anonymous { &[][..] } else { &headers[..] };
        let body = json!({ "query": query, "variables": variables }).to_string();
        let address = self.url.trim_start_matches("http://");
        let (_, answer) = process::send(address, "/graphql", headers, &body).expect("it answers");
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        // A token of the write; every mutation has another.
        answer.as_object_mut().expect("an object").remove("extensions");
        answer
    }
}

impl Drop for Development {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
