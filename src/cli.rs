//! The commands: what they are called, what they take, how they fail. Each one's work is in a file of its own. The only
//! place that writes to standard output; failures are one message on standard error and an exit code.

mod accounts;
mod cache;
mod database;
mod doctor;
mod documents;
mod server;
mod tools;

use std::{fmt, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use entities::{seed::Size, user::Role};
use xp::config::{
    Mode,
    layers::{self, Inputs, Invalid, Loaded},
};

const EXIT_CODES: &str = "Exit codes:\n  0  done\n  1  it failed (database, port, key, a check of doctor or healthcheck)\n  \
    2  wrong usage or configuration\n\nConfiguration: defaults < xp.toml < environment < flags; `xp config print` shows \
    every key,\nits value and where it came from.";

/// XP Graph: a GraphQL federation subgraph over forms, submissions, locations and activity.
#[derive(Debug, Parser)]
#[command(name = "xp", version, about, after_help = EXIT_CODES, args_conflicts_with_subcommands = false)]
struct Cli {
    /// Without a command: `xp dev`.
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The configuration file; without it ./xp.toml, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key of the configuration, as in `--set http.request_timeout=5s`.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// The address to listen on (http.host).
    #[arg(long, global = true)]
    host: Option<String>,
    /// The port to listen on (http.port).
    #[arg(long, global = true)]
    port: Option<String>,
    /// The domains to serve, as one of several subgraphs: users,sessions,forms,locations,activity (graph.subgraphs).
    #[arg(long, global = true, value_name = "DOMAINS")]
    subgraphs: Option<String>,
    /// Prints data as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Development: own SQLite database with demo data, playground, ready tokens. Needs nothing.
    Dev,
    /// Production: needs a database, its migrations and a secret.
    Serve {
        /// Applies pending migrations first instead of refusing to start.
        #[arg(long)]
        migrate: bool,
    },
    /// The database's migrations.
    Migrate {
        #[command(subcommand)]
        action: Migrate,
    },
    /// Fills an empty database with demo data.
    Seed {
        /// s: a few hundred rows; m: 1.5 million; l: five times that.
        #[arg(long, value_parser = size, default_value = "s")]
        size: Size,
    },
    /// Prints the federated SDL.
    Schema,
    /// The configuration.
    Config {
        #[command(subcommand)]
        action: Config,
    },
    /// Accounts, from the operator's side.
    User {
        #[command(subcommand)]
        action: accounts::User,
    },
    /// The keys of access tokens.
    Keys {
        #[command(subcommand)]
        action: accounts::Keys,
    },
    /// Access tokens.
    Token {
        #[command(subcommand)]
        action: accounts::Token,
    },
    /// The cache between nodes.
    Cache {
        #[command(subcommand)]
        action: Cache,
    },
    /// Persisted documents: manifests of clients.
    Documents {
        #[command(subcommand)]
        action: documents::Documents,
    },
    /// Asks a running server whether it is ready; for containers.
    Healthcheck,
    /// Checks the configuration, the database and the surroundings, and says how to mend what is wrong.
    Doctor,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Migrate {
    /// Applies all that are pending.
    Up,
    /// Takes back the last ones, with their data.
    Down {
        /// How many.
        #[arg(long, default_value_t = 1)]
        steps: u32,
    },
    /// Lists all and whether they were applied.
    Status,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Cache {
    /// What is in Redis.
    Stats,
    /// Nothing that is cached now is used any more, on any node.
    Purge,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Config {
    /// Prints each key with its value and source; secrets are masked.
    Print {
        /// Prints the README's table of all keys instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Says everything that is wrong with it.
    Check,
}

/// Why a command failed: one message, one exit code.
#[derive(Debug)]
enum Failure {
    /// The configuration is wrong.
    Config(Invalid),
    /// A command cannot run with these settings.
    Usage(String),
    /// Something did not work.
    Failed(String),
    /// The result itself is bad and was printed.
    Silent,
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::Config(invalid)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(invalid) => invalid.fmt(f),
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
            Self::Silent => Ok(()),
        }
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Failed(_) | Self::Silent => 1,
        }
    }
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match runtime() {
        Ok(runtime) => {
            let result = runtime.block_on(run(cli));
            // Connections that outlived the grace are cut off here.
            runtime.shutdown_timeout(Duration::from_millis(100));
            result
        }
        Err(error) => Err(Failure::Failed(format!("the runtime cannot start: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.exit_code();
            if !matches!(failure, Failure::Silent) {
                let _ = writeln!(std::io::stderr(), "xp: {failure}");
            }
            ExitCode::from(code)
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // Twice the usual stack: the parser recurses, bounded by the gate; this is the second line.
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(4 << 20).build()
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { command, common } = cli;
    match command.unwrap_or(Command::Dev) {
        Command::Dev => server::dev(load(&common, Mode::Development)?.config).await,
        Command::Serve { migrate } => server::serve(load(&common, Mode::Production)?.config, migrate).await,
        Command::Migrate { action } => {
            let config = load(&common, Mode::Database)?.config;
            match action {
                Migrate::Up => database::migrate_up(&config).await,
                Migrate::Down { steps } => database::migrate_down(&config, steps).await,
                Migrate::Status => database::migrate_status(&config, common.json).await,
            }
        }
        Command::Seed { size } => database::seed(&load(&common, Mode::Database)?.config, size).await,
        Command::Schema => tools::schema(&load(&common, Mode::Tool)?.config).await,
        Command::Config { action: Config::Print { markdown: true } } => say(&xp::config::print::markdown()),
        Command::Config { action } => tools::config(&load(&common, Mode::Tool)?, action, common.json),
        Command::User { action } => {
            accounts::user(&load(&common, Mode::Database)?.config, action, common.json).await
        }
        Command::Keys { action } => {
            accounts::keys(&load(&common, Mode::Keys)?.config, action, common.json).await
        }
        Command::Token { action } => {
            accounts::token(&load(&common, Mode::Keys)?.config, action, common.json).await
        }
        Command::Cache { action } => {
            cache::run(&load(&common, Mode::Tool)?.config, action, common.json).await
        }
        Command::Documents { action } => {
            documents::documents(&load(&common, Mode::Tool)?.config, action, common.json).await
        }
        Command::Healthcheck => tools::healthcheck(&load(&common, Mode::Tool)?.config).await,
        Command::Doctor => doctor::doctor(&load(&common, Mode::Tool)?.config, common.json).await,
    }
}

fn load(common: &Common, mode: Mode) -> Result<Loaded, Invalid> {
    let mut flags: Vec<_> =
        common.set.iter().map(|(key, value)| (key.clone(), value.clone(), format!("--set {key}"))).collect();
    for (key, flag, value) in [
        ("http.host", "--host", &common.host),
        ("http.port", "--port", &common.port),
        ("graph.subgraphs", "--subgraphs", &common.subgraphs),
    ] {
        flags.extend(value.iter().map(|value| (key.to_owned(), value.clone(), flag.to_owned())));
    }
    layers::load(&Inputs::of_process(mode, common.config.clone(), flags))
}

/// Prints to standard output.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out
        .write_all(text.as_bytes())
        .and_then(|()| if text.ends_with('\n') { Ok(()) } else { writeln!(out) })
    {
        // `xp schema | head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::Failed(format!("standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// An error with its causes, without repeating what a cause has already said.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn size(text: &str) -> Result<Size, String> {
    text.parse().map_err(|error: entities::Error| error.to_string())
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(&text.to_uppercase()).ok_or_else(|| {
        let names: Vec<_> = Role::ALL.iter().map(|role| role.as_str()).collect();
        format!("it must be one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_the_exit_codes() {
        assert!(Cli::command().render_help().to_string().contains("2  wrong usage or configuration"));
    }
}
