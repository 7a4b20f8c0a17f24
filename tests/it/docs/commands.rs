//! The commands of a shell block. Those of builds and long runs are looked up: the target, script, part or option must
//! exist. Everything else runs as a person would run it, in an empty folder, against a real server. Not here: which
//! blocks there are (`pages`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{pages::ROOT, server::Development};

/// What the documentation calls the database of the reader.
const A_DATABASE: &str = "postgres://user:password@host/name";

/// A page is one terminal: what a block exports is there in the next one.
const PRELUDE: &str = "set -euo pipefail; if [ -e .exported ]; then source ./.exported; fi
curl() { command curl --fail-with-body --max-time 60 \"$@\"; }";

/// Where the commands of a page run.
pub(super) struct Folder<'a> {
    pub(super) home: TempDir,
    pub(super) server: &'a Development,
    pub(super) redis: String,
}

impl Folder<'_> {
    /// Runs or looks up all commands of a block; what they print.
    pub(super) fn run(&self, block: &str) -> Result<String, String> {
        let mut script = String::new();
        for line in block.lines() {
            if !is_looked_up(line, self.home.path())? {
                script.push_str(line);
                script.push('\n');
            }
        }
        if script.trim().is_empty() {
            return Ok(String::new());
        }
        let script = script
            .replace("http://127.0.0.1:8080", &self.server.url)
            .replace("localhost:4000", self.server.url.trim_start_matches("http://"))
            .replace(A_DATABASE, &self.database());
        let script = format!("{PRELUDE}\n{script}\nexport -p > .exported\n");
        let output = self.command("bash").args(["-c", &script]).output();
        let output = output.map_err(|error| error.to_string())?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            Ok(out.into_owned())
        } else {
            Err(format!("{}\n{out}{err}", output.status))
        }
    }

    fn database(&self) -> String {
        format!("sqlite:{}", self.home.path().join("page.db").display())
    }

    fn command(&self, program: &str) -> Command {
        let xp = Path::new(env!("CARGO_BIN_EXE_xp")).parent().expect("a folder");
        let path = format!("{}:{}", xp.display(), std::env::var("PATH").expect("a PATH"));
        let home = self.home.path();
        let mut command = Command::new(program);
        command.env_clear().env("PATH", path).env("HOME", home).current_dir(home);
        command.env("DATABASE_URL", self.database()).env("XP_DATABASE_ACQUIRE_TIMEOUT", "30s");
        command.env("XP_AUTH_SECRET", "of the documentation's tests, and long enough");
        command.env("REDIS_URL", &self.redis).env("TOKEN", &self.server.token).stdin(Stdio::null());
        command
    }
}

/// Whether a line is only looked up; fails where it names what does not exist.
fn is_looked_up(line: &str, scratch: &Path) -> Result<bool, String> {
    let line = line.split(" #").next().unwrap_or_default().trim().trim_matches(['(', ')']);
    let mut folder = PathBuf::from(ROOT);
    for (index, command) in line.split("&&").enumerate() {
        let words: Vec<&str> = command.split_whitespace().skip_while(|word| is_assignment(word)).collect();
        let [program, rest @ ..] = words.as_slice() else { return Ok(false) };
        let found = match *program {
            "cd" => {
                folder.push(rest.first().copied().unwrap_or_default());
                folder.is_dir()
            }
            "cargo" => is_target(rest),
            "npm" => is_script(&folder, rest),
            "node" => rest.last().is_some_and(|file| folder.join(file).is_file()),
            "hive_router" => rest.is_empty() && folder.join("router.config.yaml").is_file(),
            "router" => are_files_of_router(&folder, rest),
            "./test" => are_parts(rest),
            "benches/run" | "load" => are_options_of_the_load_runner(rest),
            "xp" if matches!(rest, [] | ["serve" | "dev", ..]) => is_start(rest, scratch),
            _ if index == 0 => return Ok(false),
            _ => false,
        };
        if !found {
            return Err(format!("`{command}`: there is no such thing"));
        }
    }
    Ok(true)
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
}

/// `cargo run`, `cargo test -p package --test target -- module`, `cargo bench -p package --bench target`.
fn is_target(words: &[&str]) -> bool {
    let (arguments, filters) = match words.iter().position(|word| *word == "--") {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[][..]),
    };
    let value = |flags: &[&str]| {
        let at = arguments.iter().position(|word| flags.contains(word))?;
        arguments.get(at + 1).copied()
    };
    let package = match value(&["-p", "--package"]) {
        None | Some("xp") => PathBuf::from(ROOT),
        Some(package) => Path::new(ROOT).join(package),
    };
    let is_file = |folder: &str, name: Option<&str>| {
        let Some(name) = name else { return true };
        package.join(folder).join(format!("{name}.rs")).is_file()
            || package.join(folder).join(name).join("main.rs").is_file()
    };
    let is_module =
        |name: &&str| package.join("tests/it").join(format!("{}.rs", name.trim_end_matches(':'))).is_file();
    let knows = matches!(arguments.first(), Some(&("run" | "test" | "bench" | "build")));
    let filtered = value(&["--test"]) != Some("it") || filters.iter().all(is_module);
    let manifest = package.join("Cargo.toml").is_file();
    knows
        && manifest
        && is_file("tests", value(&["--test"]))
        && is_file("benches", value(&["--bench"]))
        && filtered
}

/// `npm ci`, `npm start`, `npm run script`.
fn is_script(folder: &Path, words: &[&str]) -> bool {
    let Ok(manifest) = fs::read_to_string(folder.join("package.json")) else { return false };
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    match words {
        ["ci"] => folder.join("package-lock.json").is_file(),
        ["start" | "test", ..] => manifest["scripts"][words[0]].is_string(),
        ["run", script, ..] => manifest["scripts"][script].is_string(),
        _ => false,
    }
}

/// `router --config file --supergraph file`, as Apollo's takes them.
fn are_files_of_router(folder: &Path, words: &[&str]) -> bool {
    matches!(words, ["--config", config, "--supergraph", supergraph]
        if [config, supergraph].iter().all(|file| folder.join(file).is_file()))
}

/// The parts that `./test` knows.
fn are_parts(words: &[&str]) -> bool {
    let script = fs::read_to_string(Path::new(ROOT).join("test")).expect("a script");
    let known =
        script.lines().find_map(|line| line.trim().strip_prefix("local known=\"")).expect("the parts");
    words.iter().all(|word| known.contains(&format!(" {word} ")))
}

/// `--only xp` and the like.
fn are_options_of_the_load_runner(words: &[&str]) -> bool {
    let file = if words.first() == Some(&"plan") { "plan.rs" } else { "main.rs" };
    let source = fs::read_to_string(Path::new(ROOT).join("benches/load/src").join(file)).expect("a source");
    let options = words.iter().filter_map(|word| word.strip_prefix("--"));
    options.into_iter().all(|option| {
        let name = option.split('=').next().unwrap_or_default().replace('-', "_");
        name == "help" || source.contains(&format!("    {name}: "))
    })
}

/// What a server is started with means something to it: the schema is printed with the same flags.
fn is_start(words: &[&str], scratch: &Path) -> bool {
    let flags = words.iter().skip(1).filter(|word| **word != "--migrate");
    let mut schema = Command::new(env!("CARGO_BIN_EXE_xp"));
    schema.arg("schema").args(flags).env_clear().current_dir(scratch).stdout(Stdio::null());
    schema.status().is_ok_and(|status| status.success())
}
