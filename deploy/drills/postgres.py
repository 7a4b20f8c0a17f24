"""PostgreSQL for the drills: its programs, the account that runs them, and a private server on loopback. Not here: what is done
to it (restore.py, failover.py)."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

CONFIGURATION = Path(__file__).resolve().parents[1] / "postgres"
START_SECONDS = 120
PORTS = (10_000, 32_000)
# Servers that a drill starts are small, and take part in nothing but the drill. A process that is killed has given all its writes
# to the kernel, so that they need not be on the disk (`fsync`).
OPTIONS = {
    "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "32MB", "max_connections": "60", "fsync": "off",
}


def free_port():
    """Not one that the kernel gives to connections that go out: it is still free when a server comes back that was killed."""
    for _ in range(1000):
        port = random.randrange(*PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise RuntimeError(f"there is no free port among {PORTS}")


def program(name):
    """The path of a program of PostgreSQL: from the folder in XP_POSTGRES, the newest installation of Debian, or the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    chosen = [Path(os.environ["XP_POSTGRES"])] if os.environ.get("XP_POSTGRES") else []
    for folder in chosen + debian:
        if (folder / name).is_file():
            return str(folder / name)
    found = shutil.which(name)
    if not found:
        raise SystemExit(f"`{name}` is missing: install PostgreSQL's server (Debian: postgresql), or name its folder in XP_POSTGRES")
    return found


def as_account(command):
    """PostgreSQL refuses to run as root, so root runs it as the account that the package made."""
    command = [str(word) for word in command]
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def run(*command, **options):
    """Runs one of its programs, and gives what it printed."""
    done = subprocess.run(as_account(command), capture_output=True, text=True, cwd="/", check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def settings(file, archive):
    """The settings of a file in deploy/postgres, with this folder as the archive."""
    text = (CONFIGURATION / file).read_text()
    assert "/backup/wal" in text, file
    text = text.replace("/backup/wal", str(archive))
    lines = [line.partition(" = ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value.strip("'") for name, _, value in lines}


def version():
    return run(program("postgres"), "--version").strip()


def folder_for_account(folder):
    """Makes a folder that belongs to PostgreSQL's account."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    return folder


class Cluster:
    """One server with one data directory."""

    def __init__(self, data, port, **options):
        self.data, self.port, self.options, self.process = Path(data), port, {**OPTIONS, **options}, None

    def create(self):
        folder_for_account(self.data)
        # Small files of the log: a drill fills several of them. A real server keeps 16 MB.
        run(program("initdb"), "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums",
            "--no-sync", "--wal-segsize=1", "--pgdata", self.data)

    def start(self):
        words = [word for name, value in self.options.items() for word in ("-c", f"{name}={value}")]
        with open(self.data.parent / f"{self.data.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                as_account([program("postgres"), "-D", self.data, "-p", self.port, *words]),
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            try:
                return self.sql("select 1", database="postgres")
            except RuntimeError as error:
                if self.process.poll() is not None:
                    raise RuntimeError(f"PostgreSQL ended: {self.log()[-2000:]}") from error
            time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL is not ready after {START_SECONDS} s: {self.log()[-2000:]}")

    def log(self):
        return (self.data.parent / f"{self.data.name}.log").read_text(errors="replace")

    def url(self, account="postgres"):
        return f"postgres://{account}@127.0.0.1:{self.port}/xp"

    def sql(self, text, database="xp", seconds=None):
        """What statements answer, each in a line, columns separated by `|`."""
        return run(
            program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "-d", database,
            "-f", "-", input=text, env={**os.environ, "PGCONNECT_TIMEOUT": "5"}, timeout=seconds,
        ).strip()

    def kill(self):
        """Ends it as a loss of the machine does: all its processes at once, without a word."""
        kill_server(self.data)
        if self.process:
            # `runuser` stands still when what it runs does, and would not see its end.
            signal_all([self.process.pid], signal.SIGCONT)
            self.process.wait()
            self.process = None

    def stand_still(self, goes_on=False):
        """SIGSTOP, or SIGCONT, to all its processes."""
        name = signal.SIGCONT if goes_on else signal.SIGSTOP
        signal_all([server_of(self.data), *children(server_of(self.data))], name)
        if goes_on and self.process:
            # `runuser` stands still when what it runs does, and does not go on with it.
            signal_all([self.process.pid], name)

    def stop(self, mode="immediate"):
        if self.process and self.process.poll() is None:
            subprocess.run(
                as_account([program("pg_ctl"), "stop", f"--mode={mode}", "--silent", "--pgdata", self.data]), cwd="/", check=False
            )
            self.process.wait(60)
        self.process = None


def kill_server(data):
    """SIGKILL to the server of this data directory and to all its children."""
    if not (Path(data) / "postmaster.pid").exists():
        return
    killed = [server_of(data), *children(server_of(data))]
    signal_all(killed, signal.SIGKILL)
    until = time.monotonic() + 30
    while any(state(pid)[0] not in "ZX" for pid in killed):
        assert time.monotonic() < until, "what was killed has ended"
        time.sleep(0.02)


def server_of(data):
    """The first process of the server of this data directory."""
    return int((Path(data) / "postmaster.pid").read_text().split("\n", 1)[0])


def receivers(data):
    """The processes of a standby that take what the primary writes."""
    return [pid for pid in children(server_of(data)) if b"walreceiver" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def signal_all(pids, name):
    for pid in pids:
        try:
            os.kill(pid, name)
        except ProcessLookupError:
            pass


def state(pid):
    """The state of a process and its parent; X for one that is gone."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[:2]
        return state, int(parent)
    except (OSError, IndexError):
        return "X", 0


def children(pid):
    every = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return [child for child in every if state(child)[1] == pid]


# A line for each table: its name, how many rows it has, and a checksum of them in any order.
TABLES = """select format('select %L, count(*), coalesce(md5(string_agg(row, '''' order by row)), '''') from
  (select md5(t::text) as row from %I t) t', relname, relname)
  from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by relname"""


def names_of_tables(cluster):
    """Tables that hold rows: partitions, not what they are partitions of."""
    return cluster.sql("select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1").split()


def checksums(cluster):
    """Of all tables: name → (rows, checksum)."""
    return read_checksums(cluster.sql(f"{TABLES} \\gexec"))


def read_checksums(lines):
    return {name: (int(rows), checksum) for name, rows, checksum in (line.split("|") for line in lines.splitlines())}
