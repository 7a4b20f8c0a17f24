//! Databases for tests: one migrated and seeded world for PostgreSQL and one for SQLite, made once in a process at
//! the same `now`, and copies of them for tests that write. PostgreSQL is a private cluster on a socket in a
//! temporary directory; a small watcher stops it when this process is gone, however it went. With
//! `XP_TEST_DATABASE_URL` the databases are made on that server instead.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use entities::{
    DatabaseOptions, Store,
    clock::{self, Time},
};
use prometheus_client::registry::Registry;
use sea_orm::ConnectionTrait as _;

/// The day of the demo data: the same on both databases.
static NOW: LazyLock<Time> = LazyLock::new(clock::now);
static WORLD: LazyLock<World> = LazyLock::new(World::make);
static COPIES: AtomicU32 = AtomicU32::new(0);

/// Opens a store on a database, with its own pool: pools belong to the runtime of their test.
pub(crate) async fn open(url: &str) -> Store {
    let config = DatabaseOptions {
        max_connections: 4,
        acquire_timeout: Duration::from_secs(30),
        ..DatabaseOptions::at(url)
    };
    Store::connect(&config, &mut Registry::default()).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// The PostgreSQL database that nobody writes to.
pub(crate) async fn shared_postgres() -> String {
    world().await.server.url("shared")
}

/// A PostgreSQL database of one's own.
pub(crate) async fn own_postgres() -> String {
    let world = world().await;
    let name = format!("copy_{}", COPIES.fetch_add(1, Ordering::Relaxed));
    world.server.copy_template(&name).await;
    world.server.url(&name)
}

/// Puts a PostgreSQL database of one's own back to where it began, under whoever uses it: a backup is restored.
pub(crate) async fn restore(url: &str) {
    let server = &world().await.server;
    let (head, _) = url.split_once('?').unwrap_or((url, ""));
    let (_, name) = head.rsplit_once('/').expect("a URL with a database");
    server.run(&format!("drop database \"{name}\" with (force)")).await;
    server.copy_template(name.strip_prefix(&server.prefix).expect("one of ours")).await;
}

/// The SQLite file that nobody writes to.
pub(crate) async fn shared_sqlite() -> String {
    format!("sqlite:{}", world().await.directory.join("shared.db").display())
}

/// A SQLite file of one's own.
pub(crate) async fn own_sqlite() -> String {
    let world = world().await;
    let file = world.directory.join(format!("copy_{}.db", COPIES.fetch_add(1, Ordering::Relaxed)));
    fs::copy(world.directory.join("template.db"), &file).expect("the seeded file can be copied");
    format!("sqlite:{}", file.display())
}

/// Made on first use, in a thread of its own: it needs a runtime that ends with it.
async fn world() -> &'static World {
    tokio::task::spawn_blocking(|| &*WORLD).await.expect("the databases are made; see the panic above")
}

struct World {
    server: Server,
    directory: PathBuf,
    _watcher: Child,
}

impl World {
    fn make() -> Self {
        let directory = env::temp_dir().join(format!("xp-it-{}", std::process::id()));
        fs::create_dir(&directory).expect("the temporary directory can be written");
        let server = match env::var("XP_TEST_DATABASE_URL") {
            Ok(url) => Server { url, prefix: format!("xp_it_{}_", std::process::id()), cluster: None },
            Err(_) => Server::start(&directory),
        };
        let watcher = server.watch(&directory);
        let template = format!("sqlite:{}", directory.join("template.db").display());
        let make = async {
            server.run(&format!("create database {}template", server.prefix)).await;
            fill(&server.url("template")).await;
            server.copy_template("shared").await;
            fill(&template).await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(make);
        fs::copy(directory.join("template.db"), directory.join("shared.db")).expect("the file can be copied");
        Self { server, directory, _watcher: watcher }
    }
}

/// Migrates and seeds.
pub(super) async fn fill(url: &str) {
    let store = open(url).await;
    migration::up(store.connection()).await.expect("the steps run");
    let (from, to) = seed::span(*NOW);
    migration::ensure_partitions_between(store.connection(), from, to).await.expect("partitions are made");
    seed::run_at(&store, seed::Size::S, *NOW, &mut |_| {}).await.expect("the demo data is loaded");
    super::webhooks::add(&store).await;
    if url.starts_with("sqlite") {
        let checkpoint = store.connection().execute_unprepared("pragma wal_checkpoint(truncate)").await;
        checkpoint.expect("everything is in the one file that is copied");
    }
    store.close().await;
}

struct Server {
    /// Any database of the server.
    url: String,
    /// Before the name of each database.
    prefix: String,
    /// The data directory of a private cluster.
    cluster: Option<PathBuf>,
}

impl Server {
    fn start(directory: &Path) -> Self {
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(directory));
        }
        let data = directory.join("data");
        run(tool("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--pgdata"])
            .arg(&data));
        let options = format!(
            "-c listen_addresses= -c fsync=off -c full_page_writes=off -c synchronous_commit=off \
             -c shared_buffers=128MB -c max_connections=200 -c autovacuum=off -k {}",
            directory.display()
        );
        run(tool("pg_ctl")
            .args(["start", "--wait", "--silent", "--options", &options, "--log"])
            .arg(directory.join("log"))
            .arg("--pgdata")
            .arg(&data));
        let url = format!("postgres://postgres@localhost/postgres?host={}", directory.display());
        Self { url, prefix: String::new(), cluster: Some(data) }
    }

    /// Waits for the end of this process (its end of the pipe closes then) and takes everything away.
    fn watch(&self, directory: &Path) -> Child {
        let stop = if let Some(data) = &self.cluster {
            let stop = tool("pg_ctl");
            let words = std::iter::once(stop.get_program()).chain(stop.get_args());
            let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
            format!("{} stop --mode=immediate --silent --pgdata {}", words.join(" "), data.display())
        } else {
            format!(
                "psql '{url}' -Atc \"select format('drop database %I with (force);', datname) from pg_database \
                 where datname like '{prefix}%'\" | psql '{url}' -q",
                url = self.url,
                prefix = self.prefix,
            )
        };
        let script = format!("trap '' INT TERM HUP; cat; {stop}; rm -rf {}", directory.display());
        let mut watcher = Command::new("sh");
        watcher.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut watcher = watcher.current_dir("/").spawn().expect("a shell can be started");
        let pipe = watcher.stdin.as_mut().expect("the watcher has a pipe");
        pipe.write_all(b"here\n").expect("the watcher listens");
        watcher
    }

    /// The URL of one of our databases.
    fn url(&self, name: &str) -> String {
        let (head, query) = self.url.split_once('?').map_or((self.url.as_str(), None), |(a, b)| (a, Some(b)));
        let (host, _) = head.rsplit_once('/').expect("a database URL has a path");
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{host}/{}{name}{query}", self.prefix)
    }

    async fn copy_template(&self, name: &str) {
        let prefix = &self.prefix;
        self.run(&format!("create database {prefix}{name} template {prefix}template")).await;
    }

    /// Runs one statement beside the databases of the tests.
    async fn run(&self, sql: &str) {
        let store = open(&self.url).await;
        let ran = store.connection().execute_unprepared(sql).await;
        ran.unwrap_or_else(|error| panic!("{sql}: {error}"));
        store.close().await;
    }
}

/// A tool of PostgreSQL, from the folder in `XP_POSTGRES`, from where Debian keeps it or from the path.
/// PostgreSQL refuses to run as root, so root runs it as the account that the package made.
pub(super) fn tool(name: &str) -> Command {
    let Some(program) = find(name) else {
        panic!(
            "`{name}` was not found in PATH, /usr/local/bin or /usr/lib/postgresql/*/bin: these tests need \
             PostgreSQL 14 or newer, or XP_TEST_DATABASE_URL of a server where they may create databases"
        );
    };
    let mut command = if is_root() { Command::new("runuser") } else { Command::new(&program) };
    if is_root() {
        command.args(["-u", "postgres", "--"]).arg(&program);
    }
    command.current_dir("/");
    command
}

fn find(name: &str) -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    debian.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    let chosen = env::var_os("XP_POSTGRES").map(PathBuf::from);
    // Whole installations first: what is in the path may be a wrapper.
    let installed = chosen.into_iter().chain(debian.into_iter().rev());
    let all = installed.chain(env::split_paths(&path)).chain([PathBuf::from("/usr/local/bin")]);
    all.map(|directory| directory.join(name)).find(|program| program.is_file())
}

pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

pub(super) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}
