"""What a row runs on, made anew for each: a primary with two streaming standbys, Redis, two instances of XP Graph that reach them
through ways of our own, and where a row needs them PgBouncer and nginx. All in a temporary folder and on loopback. The databases
are copies of one that is made once. Not here: what happens to them (rows), and who asks (ledger.py)."""

import concurrent.futures
import dataclasses
import os
import secrets
import shutil
import subprocess
import time

import postgres
from clock import clock, library
from ledger import Instances
from load import ACCOUNTS, ADMIN, new_form
from nginx import nginx_config
from pgbouncer import PgBouncer
from postgres import Cluster, free_port
from proxy import Proxy
from redis_servers import Redis, SentinelGroup
from server import Client, Program

WAIT_SECONDS = 90
OPTIONS = {"wal_receiver_timeout": "2s", "wal_retrieve_retry_interval": "100ms", "wal_keep_size": "64MB", "wal_log_hints": "on"}
# Clients of instances with other clocks have tokens that are valid by all of them.
MINTED_BEFORE = "-1200"


class NotRun(Exception):
    """This machine has not what a row needs."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a row needs that is not there by default."""
    # Whether DATABASE_URL names the standbys, too, so that one of them can take over.
    is_replaceable: bool = False
    sentinels: bool = False
    pooler: bool = False
    nginx: bool = False
    small_disk: bool = False
    clocks: bool = False
    # A commit is acknowledged when a standby has it.
    synchronous: bool = True
    settings: tuple = ()
    # Of the second instance only.
    second: tuple = ()
    # The second instance knows no standby that may take over.
    second_is_bound: bool = False


class Template:
    """A database with schema, demo data and a form, its tokens and its secret."""

    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        self.secret = folder / "auth.secret"
        self.secret.write_text(secrets.token_urlsafe(32))
        self.account = postgres.folder_for_account(folder / "template")
        cluster = Cluster(self.account / "data", free_port(), **OPTIONS)
        try:
            cluster.create()
            cluster.start()
            cluster.sql("create role app login", database="postgres")
            cluster.sql("create database xp owner app", database="postgres")
            made = Program(program, folder, cluster.url("app"), self.secret)
            made.command("migrate", "up")
            made.command("seed", "--size", "s")
            if library():
                made.environment.update(clock(folder / "mint.clock", MINTED_BEFORE))
            self.tokens = {email: made.token(email) for email in (*ACCOUNTS, ADMIN)}
            server = Program(program, folder, cluster.url("app"), self.secret).serve("template")
            try:
                self.form = new_form(server, self.tokens[ADMIN])
            finally:
                server.stop()
            cluster.stop("fast")
        finally:
            cluster.stop()
        self.bytes = sum(file.stat().st_size for file in cluster.data.rglob("*") if file.is_file())

    def copy(self, data):
        """A data directory with the same."""
        subprocess.run(["cp", "--archive", "--reflink=auto", self.account / "data", data], check=True)
        (data / "postmaster.pid").unlink(missing_ok=True)
        give_to_account(data)


class Topology:
    def __init__(self, folder, template, needs):
        self.folder, self.template, self.needs = folder, template, needs
        self.proxy, self.redis, self.pooler, self.nginx = Proxy(), None, None, None
        # All servers of PostgreSQL, whatever each is now.
        self.clusters, self.standbys, self.instances, self.mounts = [], [], [], []
        try:
            self.start()
        except BaseException:
            self.end()
            raise

    def start(self):
        self.check_programs()
        self.account = postgres.folder_for_account(self.folder / "postgres")
        self.primary = self.cluster(self.place_of_primary())
        if self.needs.small_disk:
            self.move_log()
        self.primary.start()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            self.standbys = list(pool.map(self.standby, (1, 2)))
        self.wait_for("the standbys stream", lambda: self.primary.sql("select count(*) from pg_stat_replication where state = 'streaming'") == "2")
        folder = self.folder / "redis"
        folder.mkdir()
        self.redis = SentinelGroup(folder) if self.needs.sentinels else Redis(folder, "redis")
        self.redis.start()
        if self.needs.pooler:
            self.pooler = PgBouncer(postgres.folder_for_account(self.folder / "pooler"), self.primary.port)
            self.pooler.start()
        self.clock = self.folder / "clock"
        self.paths = [Paths(self, number) for number in (0, 1)]
        # One list, so that who asks them knows of the one that replaces another.
        for number in (0, 1):
            self.instances.append(self.serve(number))
        self.client = self.start_nginx() if self.needs.nginx else Instances(self.instances)
        self.wait_until_in_rotation()

    def check_programs(self):
        needed = {"redis-server": True, "redis-cli": True, "pgbouncer": self.needs.pooler, "nginx": self.needs.nginx}
        missing = [name for name, is_needed in needed.items() if is_needed and not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")]
        missing += ["libfaketime"] if self.needs.clocks and not library() else []
        if missing:
            raise NotRun(f"{' and '.join(missing)} is missing")

    # --- PostgreSQL ----------------------------------------------------------------------------------------------

    def place_of_primary(self):
        if not self.needs.small_disk:
            return self.account / "primary"
        disk = self.account / "disk"
        disk.mkdir()
        size = f"size={self.template.bytes + (24 << 20)}"
        mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=False).returncode == 0
        if not mounted:
            raise NotRun("a small file system can be mounted by root only, and not everywhere")
        self.mounts.append(disk)
        give_to_account(disk)
        return disk / "primary"

    def move_log(self):
        """The log lies on another disk, so that what is full is the disk of the tables."""
        log, other = self.primary.data / "pg_wal", self.account / "log"
        shutil.copytree(log, other)
        shutil.rmtree(log)
        log.symlink_to(other)
        give_to_account(other)

    def cluster(self, data):
        """A server with a copy of the database, not started yet."""
        cluster = Cluster(data, free_port(), **OPTIONS)
        self.template.copy(data)
        self.set(cluster, synchronous_standby_names="ANY 1 (*)" if self.needs.synchronous else "")
        self.clusters.append(cluster)
        return cluster

    def standby(self, number):
        standby = self.cluster(self.account / f"standby{number}")
        standby.number = number
        (standby.data / "standby.signal").touch()
        give_to_account(standby.data)
        self.set(standby, primary_conninfo=self.conninfo(self.primary, number))
        standby.start()
        return standby

    def conninfo(self, primary, number):
        return f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby{number}"

    def set(self, cluster, **settings):
        """Before it starts."""
        with open(cluster.data / "postgresql.auto.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def promote(self):
        """Makes the standby that has most of the log the primary, and lets the other one follow it. When it began to take writes."""
        received = lambda standby: int(standby.sql("select pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint") or 0)  # noqa: E731
        chosen = max((standby for standby in self.standbys if standby.process), key=received)
        assert chosen.sql("select pg_promote()") == "t"
        promoted = time.time()
        self.primary = chosen
        for standby in self.standbys:
            if standby is not chosen and standby.process:
                self.follow(standby, chosen)
        self.standbys = [standby for standby in self.standbys if standby is not chosen]
        return promoted

    def follow(self, standby, primary):
        standby.sql(f"alter system set primary_conninfo = '{self.conninfo(primary, standby.number)}'")
        standby.sql("select pg_reload_conf()")

    # --- instances -----------------------------------------------------------------------------------------------

    def serve(self, number, port=None, **more):
        paths = self.paths[number]
        settings = {**paths.settings(), "REDIS_URL": paths.redis_url, **dict(self.needs.settings)}
        if number:
            settings |= dict(self.needs.second)
        if number and self.needs.clocks:
            settings |= clock(self.clock, "+0")
        if self.needs.nginx:
            settings["XP_HTTP_TRUSTED_PROXIES"] = "127.0.0.1"
        settings |= more
        # What is empty is not set.
        settings = {name: value for name, value in settings.items() if value}
        url = settings.pop("DATABASE_URL")
        program = Program(self.template.program, self.folder, url, self.template.secret, **settings)
        return program.serve(f"instance{number + 1}", port)

    def replace(self, number, **more):
        """Starts an instance at the address of one that has ended."""
        self.instances[number] = self.serve(number, self.instances[number].port, **more)

    def start_nginx(self):
        site, folder = free_port(), self.folder / "nginx"
        folder.mkdir(mode=0o755)
        configuration = nginx_config(folder, site, [instance.port for instance in self.instances])
        self.nginx = subprocess.Popen(["nginx", "-p", folder, "-c", configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = Client(site)
        self.wait_for("nginx", lambda: client.ready()[0] == 200)
        return client

    def figure(self, name, number=0, label=""):
        """A figure of an instance, summed up over its labels that have this text."""
        lines = self.instances[number].get("/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and label in line)

    def wait_until_in_rotation(self, numbers=None):
        # An instance without Redis that finds another one caches nothing, and so reads from no standby.
        numbers = numbers or ((0,) if self.needs.second else (0, 1))
        self.wait_for("both standbys are read from", lambda: all(self.figure("database_replica_in_rotation", number) >= 2 for number in numbers))

    def wait_for(self, what, holds):
        until = time.monotonic() + WAIT_SECONDS
        while not holds():
            if time.monotonic() > until:
                raise AssertionError(f"not within {WAIT_SECONDS} s: {what}")
            time.sleep(0.1)

    # --- the end -------------------------------------------------------------------------------------------------

    def logs(self):
        """The last lines of all logs."""
        for file in sorted(self.folder.rglob("*.log")):
            lines = [line for line in file.read_text(errors="replace").splitlines() if "is starting up" not in line]
            yield "\n".join([f"--- the end of {file.relative_to(self.folder)}", *(line[:400] for line in lines[-6:])])

    def end(self):
        if self.nginx:
            self.nginx.terminate()
            self.nginx.wait()
        for instance in self.instances:
            instance.kill()
        for server in filter(None, (self.pooler, self.redis)):
            server.kill()
        for cluster in self.clusters:
            cluster.kill()
        self.proxy.end()
        for disk in self.mounts:
            subprocess.run(["umount", "-l", disk], check=False)


class Paths:
    """The ways of one instance to the servers."""

    def __init__(self, topology, number):
        way = topology.proxy.way
        self.primary, *self.standbys = [way(cluster.port) for cluster in (topology.primary, *topology.standbys)]
        self.is_replaceable = topology.needs.is_replaceable and not (number and topology.needs.second_is_bound)
        self.to_pooler = way(topology.pooler.port) if topology.pooler else None
        # Sentinels say themselves where the servers are.
        self.redis = None if topology.needs.sentinels else way(topology.redis.port)
        self.redis_url = topology.redis.url(self.redis.port) if self.redis else topology.redis.url()

    def all(self):
        return [way for way in (*self.databases(), self.redis) if way]

    def databases(self):
        return [way for way in (self.primary, *self.standbys, self.to_pooler) if way]

    def settings(self):
        hosts = [self.primary, *self.standbys] if self.is_replaceable else [self.primary]
        direct = f"postgres://app@{','.join(f'127.0.0.1:{way.port}' for way in hosts)}/xp"
        if self.is_replaceable:
            direct += "?target_session_attrs=read-write"
        standbys = {"DATABASE_REPLICA_URLS": ",".join(f"postgres://app@127.0.0.1:{way.port}/xp" for way in self.standbys)}
        if self.to_pooler:
            return {"DATABASE_URL": f"postgres://app@127.0.0.1:{self.to_pooler.port}/xp", "DATABASE_DIRECT_URL": direct, **standbys}
        return {"DATABASE_URL": direct, **standbys}


def give_to_account(path):
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "postgres:postgres", path], check=True)
