//! A private PostgreSQL: a cluster in a temporary directory, reached through a socket there, gone when dropped.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
};

pub(crate) struct Postgres {
    directory: PathBuf,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("xp-postgres-{}-{}", id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
        let postgres = Self { directory: env::temp_dir().join(name) };
        let directory = &postgres.directory;
        fs::create_dir(directory).expect("the temporary directory can be written");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(directory));
        }
        let data = directory.join("data");
        run(tool("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--pgdata"])
            .arg(&data));
        let options = format!(
            "-c listen_addresses= -c fsync=off -c full_page_writes=off -c shared_buffers=256MB -k {}",
            directory.display()
        );
        run(tool("pg_ctl")
            .args(["start", "--wait", "--silent", "--options", &options, "--log"])
            .arg(directory.join("log"))
            .arg("--pgdata")
            .arg(&data));
        postgres
    }

    /// The database `postgres`, as this role.
    pub(crate) fn url(&self, role: &str) -> String {
        format!("postgres://{role}@localhost/postgres?host={}", self.directory.display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stop = ["stop", "--mode=immediate", "--silent", "--pgdata"];
        tool("pg_ctl").args(stop).arg(self.directory.join("data")).status().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// A tool from the folder in `XP_POSTGRES`, from where Debian keeps it or from the path. PostgreSQL refuses
/// to run as root, so root runs it as the account that the package made.
fn tool(name: &str) -> Command {
    let folder = env::var_os("XP_POSTGRES").unwrap_or_else(|| "/usr/lib/postgresql/15/bin".into());
    let installed = Path::new(&folder).join(name);
    let program: &OsStr = if installed.exists() { installed.as_os_str() } else { name.as_ref() };
    let mut command = if is_root() { Command::new("runuser") } else { Command::new(program) };
    if is_root() {
        command.args(["-u", "postgres", "--"]).arg(program);
    }
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn run(command: &mut Command) {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; is PostgreSQL installed?"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}
