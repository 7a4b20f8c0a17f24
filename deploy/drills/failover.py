#!/usr/bin/env python3
"""Three PostgreSQL servers that Patroni manages (deploy/patroni/patroni.yml), and XP Graph with nothing but their addresses in
DATABASE_URL: a planned switchover, the loss of the primary with its Patroni (SIGKILL), and its return, under reads and writes all
the time. Everything runs in a temporary folder and on loopback.

    failover.py xp                   the program of XP Graph; needs Python 3.9, PostgreSQL, and Debian's patroni and etcd-server
    failover.py xp --standbys        reads run on the standbys, too (DATABASE_REPLICA_URLS)
    failover.py xp --asynchronous    without `synchronous_mode`: what was acknowledged may be lost then, and is counted

What must hold: nothing that was acknowledged is lost, nothing is there twice, no read is older than what was acknowledged before it
was sent, what was refused as not stored is not there, and writes succeed again soon after each promotion.

Exit codes: 0 all of it holds, 1 something does not, 2 wrong usage."""

import argparse
import datetime
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import postgres
from load import ACCOUNTS, ADMIN, NODES, STORED, Load, compare, new_form, stored
from postgres import free_port, kill_server
from server import Program

CONFIGURATION = Path(__file__).resolve().parents[1] / "patroni/patroni.yml"
WAIT_SECONDS = 120
# A node's log tells when it began to take writes.
PROMOTED = re.compile(r"^(\S+ \S+) UTC .*selected new timeline ID", re.MULTILINE)
MAY_FAIL = {"UNAVAILABLE", "OUTCOME_UNKNOWN", "TIMEOUT", "OVERLOADED"}
# Python of the system: Patroni's modules are installed for that one.
SYSTEM = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def main():
    options = parse()
    for name in ("etcd", "patroni", "patronictl"):
        if not shutil.which(name, path=SYSTEM["PATH"]):
            raise SystemExit(f"`{name}` is missing: install Debian's packages patroni and etcd-server, without their services")
    # Whoever ends this by SIGTERM does not leave servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="xp-failover-") as name:
        folder = Path(name)
        # PostgreSQL's account has a folder of its own in it.
        folder.chmod(0o711)
        drill = Drill(folder, options)
        try:
            wrong = drill.run()
        except Exception:
            drill.show_logs()
            raise
        finally:
            drill.end()
            if options.logs:
                options.logs.mkdir(exist_ok=True)
                for file in drill.log_files():
                    shutil.copy(file, options.logs / f"{file.parent.name}-{file.name}")
    count = f"{len(wrong)} deviations" if wrong else "no deviation"
    print(f"failover: {count}; {time.monotonic() - begun:.0f} s", *wrong, sep="\n  ")
    return 1 if wrong else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="the program `xp`")
    parser.add_argument("--asynchronous", action="store_true", help="without synchronous_mode")
    parser.add_argument("--standbys", action="store_true", help="names all three in DATABASE_REPLICA_URLS, too: reads run on standbys")
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=6, help="of load before, between and after what happens")
    parser.add_argument("--within", type=float, default=2, help="seconds from a promotion until writes succeed")
    parser.add_argument("--ledger", type=Path, help="a file for all requests: kind, when sent and answered, outcome, as JSON")
    parser.add_argument("--logs", type=Path, help="a folder to copy all logs to")
    options = parser.parse_args()
    options.program = options.program.resolve()
    return options


class Node:
    """One Patroni with its PostgreSQL."""

    def __init__(self, drill, number):
        self.drill, self.name, self.folder = drill, f"node{number}", postgres.folder_for_account(drill.account / f"node{number}")
        self.port, self.api, self.process = free_port(), free_port(), None
        self.data, self.configuration, self.log = self.folder / "data", self.folder / "patroni.yml", self.folder / "node.log"
        replaced = {
            "name: node1": f"name: {self.name}",
            "127.0.0.1:8008": f"127.0.0.1:{self.api}",
            "127.0.0.1:2379": f"127.0.0.1:{drill.etcd_port}",
            "127.0.0.1:5432": f"127.0.0.1:{self.port}",
            "/var/lib/postgresql/xp.pgpass": self.folder / "pgpass",
            "/var/lib/postgresql/xp": self.data,
            "/usr/lib/postgresql/15/bin": Path(postgres.program("postgres")).parent,
            "password: a password": f"password: {drill.password}",
            "password: another password": f"password: {drill.other_password}",
            "synchronous_mode: true": f"synchronous_mode: {'false' if drill.options.asynchronous else 'true'}",
        }
        text = CONFIGURATION.read_text()
        for old, new in replaced.items():
            assert old in text, old
            text = text.replace(old, str(new))
        # What a small server on a busy machine needs, and no more.
        text += "  parameters:\n    shared_buffers: 32MB\n    log_line_prefix: '%m [%p] '\n    log_timezone: UTC\n"
        text += "    unix_socket_directories: ''\n"
        self.configuration.write_text(text)
        if drill.user:
            shutil.chown(self.configuration, "postgres", "postgres")
        self.configuration.chmod(0o600)

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["patroni", self.configuration], cwd=self.folder, env={**SYSTEM, "HOME": str(self.folder)}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, **self.drill.user,
            )

    def kill(self):
        """Ends Patroni and its PostgreSQL as a loss of the machine does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        kill_server(self.data)

    def promoted(self, since):
        """When it began to take writes; nothing where it did not since then."""
        times = [moment.timestamp() for moment in map(read_time, PROMOTED.findall(self.log.read_text(errors="replace")))]
        return next((moment for moment in times if moment >= since), None)


def read_time(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)


class Drill:
    def __init__(self, folder, options):
        self.folder, self.options, self.server, self.load, self.etcd = folder, options, None, None, None
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self.account = postgres.folder_for_account(folder / "postgres")
        self.etcd_port, self.password, self.other_password = free_port(), secrets.token_hex(16), secrets.token_hex(16)
        self.nodes = [Node(self, number) for number in (1, 2, 3)]

    def run(self):
        print(postgres.version(), subprocess.run(["patroni", "--version"], capture_output=True, text=True, env=SYSTEM, check=True).stdout.strip(),
              "without synchronous_mode" if self.options.asynchronous else "with synchronous_mode", sep=", ", flush=True)
        self.start_etcd()
        self.nodes[0].start()
        self.wait_for("a primary", lambda members: primary_of(members))
        for node in self.nodes[1:]:
            node.start()
        self.wait_until_whole()
        self.tokens, form = self.prepare()
        self.load = Load(self.options.rate)
        self.load.start(self.server, self.tokens, form)
        phases = []
        time.sleep(2)
        phases.append(("before", time.time(), None))
        time.sleep(self.options.seconds)

        begun, old = time.time(), self.primary()
        candidate = next(member["name"] for member in self.members() if member["role"] == self.standby_role())
        subprocess.run(
            ["patronictl", "-c", self.nodes[0].configuration, "switchover", "--leader", old.name, "--candidate", candidate, "--force", "xp"],
            env={**SYSTEM, "HOME": str(self.folder)}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=WAIT_SECONDS,
        )
        self.wait_until_whole()
        time.sleep(self.options.seconds)
        phases.append((f"switchover from {old.name} to {candidate}", begun, self.promotion(begun)))

        lost = self.primary()
        held_up = self.hold_up_standbys(lost) if self.options.asynchronous else []
        begun = time.time()
        lost.kill()
        for pid in held_up:
            # In this order it ends before it reads what has come meanwhile.
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
        self.wait_for("another primary", lambda members: primary_of(members) not in (None, lost.name))
        self.wait_until_whole(2)
        time.sleep(self.options.seconds)
        phases.append((f"loss of {lost.name}", begun, self.promotion(begun)))

        begun = time.time()
        lost.start()
        self.wait_until_whole()
        time.sleep(self.options.seconds)
        phases.append((f"return of {lost.name}", begun, None))
        self.load.stop()
        return self.judge(phases)

    def start_etcd(self):
        peer = free_port()
        client, peers = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{peer}"
        with open(self.folder / "etcd.log", "ab") as log:
            self.etcd = subprocess.Popen(
                ["etcd", "--name", "one", "--data-dir", self.account / "etcd", "--listen-client-urls", client, "--advertise-client-urls", client,
                 "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"one={peers}"],
                cwd=self.account, env={**SYSTEM, "HOME": str(self.account)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.user,
            )

    def prepare(self):
        """A database of its own account, and a server that knows nothing but the three addresses."""
        password = secrets.token_hex(16)
        self.sql(f"create role app login password '{password}'", "postgres")
        self.sql("create database xp owner app", "postgres")
        secret = self.folder / "auth.secret"
        secret.write_text(secrets.token_urlsafe(32))
        hosts = [f"127.0.0.1:{node.port}" for node in self.nodes]
        standbys = {"DATABASE_REPLICA_URLS": ",".join(f"postgres://app:{password}@{host}/xp" for host in hosts)}
        program = Program(
            str(self.options.program), self.folder, f"postgres://app:{password}@{','.join(hosts)}/xp?target_session_attrs=read-write", secret,
            **(standbys if self.options.standbys else {}),
        )
        program.command("migrate", "up")
        program.command("seed", "--size", "s")
        tokens = {email: program.token(email) for email in (*ACCOUNTS, ADMIN)}
        self.server = program.serve("serving")
        return tokens, new_form(self.server, tokens[ADMIN])

    def judge(self, phases):
        # A request whose Idempotency-Key is held by an attempt that was cut off is refused, and sent again later.
        may_fail = MAY_FAIL | {"CONFLICT", "acknowledged"}
        wrong, ends = [], [begun for _, begun, _ in phases[1:]] + [time.time()]
        for (name, begun, promoted), ended in zip(phases, ends):
            writes, reads = self.load.outcomes(begun, ended)
            print(f"{name}: {ended - begun:.1f} s, {sum(writes.values()) + sum(reads.values())} requests", flush=True)
            print(f"  writes: {show(writes)}; {self.times(self.load.writes, begun, ended)}")
            print(f"  reads: {show(reads)}; {self.times(self.load.reads, begun, ended)}")
            requests = [request for request in self.load.writes + self.load.reads if begun <= request.answered < ended]
            unknown = {request.outcome for request in requests if not self.load.was_paused(request)} - may_fail
            wrong += [f"{name}: requests that failed with {code}" for code in unknown]
            if promoted:
                first = min((write.answered for write in self.load.acknowledged() if write.sent >= promoted), default=float("inf"))
                late = [write.sent - promoted for write in self.load.writes
                        if promoted <= write.sent and write.answered < ended and write.outcome != "acknowledged"]
                last = f", the last of them {max(late):.2f} s after it" if late else ""
                print(f"  promoted {promoted - begun:.2f} s after it began; the first write succeeded {first - promoted:.2f} s later; "
                      f"{len(late)} that were sent after the promotion failed{last}")
                paused = any(since < promoted + self.options.within and promoted < until for since, until in self.load.pauses)
                if first - promoted > self.options.within and not paused:
                    wrong.append(f"{name}: the first write succeeded {first - promoted:.2f} s after the promotion")
        if self.options.ledger:
            requests = [(write.kind, write.sent, write.answered, write.outcome) for write in self.load.writes]
            requests += [("read", read.sent, read.answered, "stale" if read.stale else read.outcome) for read in self.load.reads]
            self.options.ledger.write_text(json.dumps({"phases": phases, "requests": sorted(requests, key=lambda request: request[1])}))
        for since, until in self.load.pauses:
            print(f"this machine stood still for {until - since:.0f} s")
        found = stored(self.sql(STORED["postgres"], "xp"))
        lost = compare(self.load.writes, found)
        stale = [f"{self.load.stale()} stale reads"] if self.load.stale() else []
        summary = ", ".join(lost + stale) or "none is lost, none is there twice, no read was stale"
        print(f"in the end: {len(self.load.acknowledged())} writes acknowledged; {summary}")
        if not self.options.asynchronous:
            return wrong + lost + stale
        # What was acknowledged may be lost, so reads may be older than it; everything else must hold, and nothing answers with it.
        answered = self.answered_though_lost()
        print(f"of what is lost, {answered} rows are answered from a cache")
        wrong += [f"{answered} rows that are lost are answered"] if answered else []
        return wrong + [problem for problem in lost if "lost" not in problem]

    def times(self, requests, begun, ended):
        took = sorted((request.answered - request.sent) * 1000 for request in requests if begun <= request.answered < ended)
        if not took:
            return "none"
        return f"p50 {took[len(took) // 2]:.0f} ms, p99 {took[len(took) * 99 // 100]:.0f} ms, most {took[-1]:.0f} ms"

    def hold_up_standbys(self, primary):
        """For two seconds nothing of what the primary writes comes to the standbys: asynchronous replication allows that."""
        held_up = []
        for node in self.nodes:
            if node is primary:
                continue
            held_up += postgres.receivers(node.data)
        postgres.signal_all(held_up, signal.SIGSTOP)
        time.sleep(2)
        return held_up

    def answered_though_lost(self):
        """How many rows that the database does not have are answered all the same."""
        found = stored(self.sql(STORED["postgres"], "xp"))
        lost = [write.id for write in self.load.acknowledged() if write.kind in ("form", "submission") and not found[write.kind, write.key]]
        answered = 0
        for start in range(0, len(lost), 100):
            nodes = self.server.data(NODES, {"ids": lost[start:start + 100]}, self.tokens[ADMIN])["nodes"]
            answered += sum(node is not None for node in nodes)
        return answered

    # --- the cluster ---------------------------------------------------------------------------------------------

    def members(self):
        """What Patroni says about its members; asked of whichever answers."""
        for node in self.nodes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{node.api}/cluster", timeout=3) as answer:
                    return json.load(answer)["members"]
            except (OSError, http.client.HTTPException, ValueError):
                continue
        return []

    def standby_role(self):
        return "replica" if self.options.asynchronous else "sync_standby"

    def wait_for(self, what, holds):
        until = time.monotonic() + WAIT_SECONDS
        while not holds(self.members()):
            assert time.monotonic() < until, f"Patroni has {what}: {self.members()}"
            time.sleep(0.2)

    def wait_until_whole(self, count=3):
        """All run, on one timeline, and one of them is kept up with the primary."""
        def is_whole(members):
            running = [member for member in members if member["state"] in ("running", "streaming")]
            timelines = {member.get("timeline") for member in running}
            return len(running) >= count and len(timelines) == 1 and {"leader", self.standby_role()} <= {member["role"] for member in running}
        self.wait_for(f"{count} members that run", is_whole)

    def primary(self):
        name = primary_of(self.members())
        return next(node for node in self.nodes if node.name == name)

    def promotion(self, since):
        return min(filter(None, (node.promoted(since) for node in self.nodes)))

    def sql(self, text, database):
        return postgres.run(
            postgres.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", self.primary().port, "-U", "postgres",
            "-d", database, "-f", "-", input=text, env={**SYSTEM, "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "5"},
        ).strip()

    def log_files(self):
        files = [self.folder / "etcd.log", self.folder / "serving.log", *(node.log for node in self.nodes)]
        return [file for file in files if file.exists()]

    def show_logs(self):
        for file in self.log_files():
            lines = file.read_text(errors="replace").splitlines()[-10:]
            print(f"--- the end of {file.name} in {file.parent.name}", *(line[:400] for line in lines), sep="\n", file=sys.stderr)

    def end(self):
        if self.load:
            self.load.stop()
        if self.server:
            self.server.kill()
        for node in self.nodes:
            node.kill()
        if self.etcd:
            self.etcd.terminate()
            self.etcd.wait()


def primary_of(members):
    return next((member["name"] for member in members if member["role"] == "leader" and member["state"] == "running"), None)


def show(outcomes):
    return ", ".join(f"{count} {what}" for what, count in outcomes.most_common()) or "none"


if __name__ == "__main__":
    sys.exit(main())
