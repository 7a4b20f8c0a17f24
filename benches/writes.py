#!/usr/bin/env python3
"""Compares the writes of two builds of `xp` on one PostgreSQL, in slices that take turns:

    python3 benches/writes.py target/release/xp ../before/target/release/xp

The first program migrates and seeds; the other one must run on its schema. Each line is one kind of write, with and without a Redis
that the servers share: writes a second and the median latency of both, and the median of the ratios of neighbouring slices.
It starts a PostgreSQL of its own (PG_BIN says where the programs are) and stops what it has started.
"""
import asyncio
import datetime
import json
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

PG_BIN = os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin")
SLICES, SECONDS = 8, 3
FORM = {"schema": 1, "fields": [{"key": "name", "type": "TEXT", "label": "Name"}]}
CREATE = 'mutation($d: JSON!) { createForm(input: {title: "Writes", definition: $d}) { form { id } } }'
PUBLISH = "mutation($id: ID!) { publishForm(input: {id: $id, baseRevision: 1}) { form { status } } }"
SUBMIT = "mutation($i: CreateSubmissionInput!) { createSubmission(input: $i) { submission { id } userErrors { code } } }"
RECORD = "mutation($i: RecordLocationsInput!) { recordLocations(input: $i) { acceptedCount } }"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def as_postgres(command):
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.getuid() == 0 else command


class Database:
    def __init__(self, folder):
        self.data, self.port = os.path.join(folder, "data"), free_port()
        os.mkdir(self.data, 0o700)
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.data, owner.pw_uid, owner.pw_gid)
        initdb = [f"{PG_BIN}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(as_postgres(initdb), check=True, stdout=subprocess.DEVNULL, cwd="/")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as settings:
            settings.write("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nshared_buffers = 512MB\n")
            settings.write("max_wal_size = 8GB\ncheckpoint_timeout = 1h\nautovacuum = off\n")
        self.control("-o", f"-p {self.port}", "-l", os.path.join(self.data, "log"), "-w", "start")
        self.sql("CREATE DATABASE xp", "postgres")

    def control(self, *words):
        command = as_postgres([f"{PG_BIN}/pg_ctl", "-D", self.data, *words])
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def url(self, name="xp"):
        return f"postgres://postgres@127.0.0.1:{self.port}/{name}"

    def sql(self, text, name="xp"):
        command = [f"{PG_BIN}/psql", "-X", "-At", self.url(name), "-c", text]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Server:
    def __init__(self, program, environment):
        self.port = free_port()
        environment = {**environment, "PORT": str(self.port), "HOST": "127.0.0.1"}
        environment["XP_HTTP_METRICS_ADDRESS"] = f"127.0.0.1:{free_port()}"
        self.process = subprocess.Popen([program, "serve"], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(600):
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz").status == 200:
                    return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{program} does not get ready")

    def ask(self, query, variables, token):
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        body = json.dumps({"query": query, "variables": variables}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/graphql", body, headers)) as answer:
            return json.load(answer)["data"]


async def write(port, token, make, until, times):
    """One connection, one write after the other; each must succeed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until:
        query, variables = make()
        body = json.dumps({"query": query, "variables": variables}).encode()
        head = (
            "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line.split(":")[1]) for line in answer.split("\r\n") if line.lower().startswith("content-length:"))
        text = await reader.readexactly(length)
        if " 200 " not in answer or b'"errors"' in text:
            sys.exit(f"a write failed: {text[:300]}")
        times.append(time.perf_counter() - began)
    writer.close()


async def slice_of(port, token, make, connections):
    times, until = [], time.monotonic() + SECONDS
    await asyncio.gather(*[write(port, token, make, until, times) for _ in range(connections)])
    return len(times) / SECONDS, statistics.median(times) * 1000


def compare(database, servers, token, what, make, connections):
    figures = {name: [] for name in servers}
    for turn in range(SLICES + 1):
        for name in sorted(servers, reverse=turn % 2 == 0):
            figure = asyncio.run(slice_of(servers[name].port, token, make, connections))
            if turn:
                figures[name].append(figure)
        if turn == 0:
            # Plans that were made while the tables were empty are made anew.
            database.sql("VACUUM (ANALYZE)")
    rates = {name: [rate for rate, _ in slices] for name, slices in figures.items()}
    ratio = statistics.median(first / other for first, other in zip(rates["first"], rates["other"]))
    told = ", ".join(
        f"{name} {statistics.median(rates[name]):.0f}/s {statistics.median(ms for _, ms in figures[name]):.2f} ms"
        for name in figures
    )
    print(f"{what}, c = {connections}: {told}; first/other {ratio:.3f}", flush=True)


def points(count):
    now, made = datetime.datetime.now(datetime.timezone.utc), [0]

    def make():
        made[0] += count
        times = [now - datetime.timedelta(milliseconds=made[0] + index) for index in range(count)]
        texts = [moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") for moment in times]
        return RECORD, {"i": {"points": [{"timestamp": text, "latitude": 1.5, "longitude": 2.5} for text in texts]}}

    return make


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    programs = dict(zip(("first", "other"), map(os.path.abspath, sys.argv[1:])))
    folder = tempfile.mkdtemp(prefix="xp-writes-")
    os.chmod(folder, 0o755)
    started, database = [], None
    try:
        database = Database(folder)
        environment = {**os.environ, "DATABASE_URL": database.url(), "RUST_LOG": "warn", "XP_AUTH_SECRET": "a secret for benchmarks on this machine"}

        def xp(*words):
            return subprocess.run([programs["first"], *words], check=True, capture_output=True, text=True, env=environment).stdout.strip()

        xp("migrate", "up")
        xp("seed", "--size", "s")

        def token_of(role):
            account = database.sql(f"SELECT id FROM users WHERE role = '{role}' AND is_active ORDER BY id LIMIT 1")
            return xp("token", "mint", "--user", account, "--ttl-seconds", "7200")

        token, admin = token_of("COLLECTOR"), token_of("ADMIN")
        redis = free_port()
        quiet = ["--save", "", "--loglevel", "warning", "--bind", "127.0.0.1"]
        started.append(subprocess.Popen(["redis-server", "--port", str(redis), *quiet], cwd="/tmp", stdout=subprocess.DEVNULL))
        for name, more in (("without Redis", {}), ("with Redis", {"REDIS_URL": f"redis://127.0.0.1:{redis}"})):
            servers = {which: Server(program, {**environment, **more}) for which, program in programs.items()}
            started.extend(server.process for server in servers.values())
            form = servers["first"].ask(CREATE, {"d": FORM}, admin)["createForm"]["form"]["id"]
            servers["first"].ask(PUBLISH, {"id": form}, admin)
            submission = SUBMIT, {"i": {"formId": form, "data": {"name": "Ada"}}}
            for what, make, connections in (
                ("createSubmission", lambda: submission, 1),
                ("createSubmission", lambda: submission, 8),
                ("recordLocations of 100", points(100), 4),
            ):
                compare(database, servers, token, f"{name}, {what}", make, connections)
            for server in servers.values():
                server.process.terminate()
                server.process.wait()
    finally:
        for process in started:
            process.kill()
        if database:
            database.control("-m", "fast", "stop")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
