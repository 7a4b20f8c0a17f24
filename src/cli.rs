//! The commands: what they are called, what they take, how they fail. Each one's work is in a file of its own. The only
//! place that writes to standard output; failures are one message on standard error and an exit code.

mod accounts;
mod cache;
mod database;
mod doctor;
mod documents;
mod field_usage;
mod personal_data;
mod schema_check;
mod server;
mod tools;

use std::{
    fmt,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use entities::Role;
use seed::Size;
use xp::{
    config::{
        Config, DEVELOPMENT_FILE, Mode,
        layers::{self, Inputs, Invalid, Loaded},
    },
    error_chain::chain,
};

const EXIT_CODES: &str = "Exit codes:\n  0  done\n  1  it failed (database, port, key, a check of doctor or \
                          healthcheck)\n  2  wrong usage or configuration\n\nConfiguration: defaults < \
                          xp.toml < environment < flags; `xp config print` shows every key,\nits value and \
                          where it came from.";

/// XP Graph: a GraphQL federation subgraph over forms, submissions, locations and activity.
#[derive(Debug, Parser)]
#[command(name = "xp", version, about, args_conflicts_with_subcommands = false)]
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
    /// Prints the federated SDL, as gateways get it; or checks what has changed in it.
    Schema {
        #[command(subcommand)]
        action: Option<schema_check::SchemaCommand>,
        /// Without what is for gateways only: for client tools, such as code generators and Relay's compiler.
        #[arg(long)]
        api: bool,
        /// The federation that it is for.
        #[arg(long, value_enum, default_value = "apollo", conflicts_with = "api")]
        dialect: Dialect,
    },
    /// Prints a script by which a shell completes commands and options, as in `source <(xp completions bash)`.
    Completions {
        /// Whose script it is.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// The configuration.
    Config {
        #[command(subcommand)]
        action: Settings,
    },
    /// Accounts, from the operator's side.
    User {
        #[command(flatten)]
        beside: Beside,
        #[command(subcommand)]
        action: UserCommand,
    },
    /// The keys of access tokens.
    Keys {
        #[command(flatten)]
        beside: Beside,
        #[command(subcommand)]
        action: accounts::Keys,
    },
    /// Access tokens.
    Token {
        #[command(flatten)]
        beside: Beside,
        #[command(subcommand)]
        action: accounts::Token,
    },
    /// The cache between instances.
    Cache {
        #[command(flatten)]
        beside: Beside,
        #[command(subcommand)]
        action: Cache,
    },
    /// Persisted documents: manifests of clients.
    Documents {
        #[command(subcommand)]
        action: documents::DocumentsCommand,
    },
    /// Asks a running server whether it is ready; for containers.
    Healthcheck,
    /// Checks the configuration, the database and the surroundings, and says how to mend what is wrong.
    Doctor,
}

/// What is done with an account.
#[derive(Debug, Subcommand)]
enum UserCommand {
    #[command(flatten)]
    Account(accounts::User),
    #[command(flatten)]
    PersonalData(personal_data::PersonalData),
}

/// Whose database a command works on, where that may be a development server's.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Beside {
    /// Works on the database of the development server that is started in this folder, with its secret. That
    /// is so without this flag too, where no database is set and the folder has one.
    #[arg(long, global = true)]
    dev: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Migrate {
    /// Applies all that are pending.
    Up,
    /// Takes back the last ones, with their tables and columns and all that is in them. Asks first.
    Down {
        /// How many.
        #[arg(long, default_value_t = 1)]
        steps: u32,
        /// Does it without asking: for scripts.
        #[arg(long)]
        yes: bool,
    },
    /// Lists all and whether they were applied.
    Status,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Cache {
    /// What is in Redis.
    Stats,
    /// Nothing that is cached now is used any more, on any instance.
    Purge,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Settings {
    /// Prints each key with its value and source; secrets are masked.
    Print {
        /// Prints the documentation of all keys (docs/configuration.md) instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Says everything that is wrong with it.
    Check,
    /// Prints a JSON Schema of `xp.toml`, for editors.
    Schema,
}

/// For which federation a schema is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Dialect {
    /// Apollo Federation 2: `_service`, `_entities`.
    Apollo,
    /// GraphQL Federation, once called Composite Schemas: fields with `@lookup`.
    GraphqlFederation,
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
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
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

/// The command line; the help of every command names the exit codes.
fn command() -> clap::Command {
    with_exit_codes(Cli::command())
}

fn with_exit_codes(command: clap::Command) -> clap::Command {
    command.after_help(EXIT_CODES).mut_subcommands(with_exit_codes)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // Twice the usual stack: the parser recurses, bounded by the gate; this is the second line.
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(4 << 20).build()
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { command, common } = cli;
    match command.unwrap_or(Command::Dev) {
        Command::Dev => server::dev(load(&common, Mode::Development)?).await,
        Command::Serve { migrate } => {
            let read = || load(&common, Mode::Production);
            Box::pin(server::serve(read()?, migrate, read)).await
        }
        Command::Migrate { action } => {
            let config = load(&common, Mode::Database)?.config;
            match action {
                Migrate::Up => database::migrate_up(&config).await,
                Migrate::Down { steps, yes } => database::migrate_down(&config, steps, yes).await,
                Migrate::Status => database::migrate_status(&config, common.json).await,
            }
        }
        Command::Seed { size } => database::seed(&load(&common, Mode::Database)?.config, size).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut self::command(), "xp", &mut script);
            say(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Schema { action: Some(action), .. } => {
            schema_check::check(&load(&common, Mode::Tool)?.config, action, common.json).await
        }
        Command::Schema { action: None, api, dialect } => {
            tools::schema(&load(&common, Mode::Tool)?.config, api, dialect).await
        }
        Command::Config { action: Settings::Print { markdown: true } } => say(&xp::config::print::markdown()),
        Command::Config { action } => tools::config(&load(&common, Mode::Tool)?, action, common.json),
        Command::User { beside, action } => {
            let config = load_beside(&common, beside, Mode::Database)?;
            match action {
                UserCommand::Account(action) => accounts::user(&config, action, common.json).await,
                UserCommand::PersonalData(action) => personal_data::run(&config, action, common.json).await,
            }
        }
        Command::Keys { beside, action } => {
            accounts::keys(&load_beside(&common, beside, Mode::Keys)?, action, common.json).await
        }
        Command::Token { beside, action } => {
            accounts::token(&load_beside(&common, beside, Mode::Keys)?, action, common.json).await
        }
        Command::Cache { beside, action } => {
            cache::run(&load_beside(&common, beside, Mode::Tool)?, action, common.json).await
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

/// The configuration of a command that also works on a development server's database. What is set wins; only
/// where no database is set at all the one in this folder is taken, and that is said.
fn load_beside(common: &Common, beside: Beside, mode: Mode) -> Result<Config, Failure> {
    let file = Path::new(DEVELOPMENT_FILE);
    let is_set = load(common, Mode::Tool)?.config.database.url.is_some();
    if !beside.dev && (is_set || !file.exists()) {
        return Ok(load(common, mode)?.config);
    }
    let config = load(common, Mode::Development)?.config;
    if !is_set && !file.exists() {
        return Err(Failure::Usage(format!(
            "{DEVELOPMENT_FILE} was not found in this folder\n  why:   a development server makes it where \
             it is started\n  fix:   go there, or start one with `xp dev`"
        )));
    }
    let url = config.database.url.as_ref().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "xp: this works on the development database {url}");
    Ok(config)
}

/// Standard output, for what is too long to be said at once.
fn standard_output() -> impl std::io::Write + Send {
    std::io::BufWriter::new(std::io::stdout())
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

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_names_the_exit_codes() {
        fn check(command: &mut clap::Command) -> usize {
            let help = command.render_long_help().to_string();
            assert!(help.contains("2  wrong usage or configuration"), "{}: {help}", command.get_name());
            let below = command.get_subcommands_mut().filter(|below| below.get_name() != "help");
            1 + below.map(check).sum::<usize>()
        }
        let mut command = command();
        command.build();
        let commands = check(&mut command);
        assert!(commands > 20, "{commands} commands");
    }
}
