"""Redis for the rows: one server, or a master with a replica and three sentinels. Not here: what is done to them (rows_redis.py)."""

import os
import shutil
import subprocess
import time

from postgres import free_port

NAME, PASSWORD = "xp-master", "of-the-rows"
START_SECONDS = 60


class Redis:
    """One server, or one sentinel."""

    def __init__(self, folder, name, options=(), sentinel=""):
        self.port, self.folder, self.process = free_port(), folder / name, None
        self.folder.mkdir()
        self.words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder), *options]
        if sentinel:
            file = self.folder / "sentinel.conf"
            file.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n{sentinel}\n")
            self.words = [str(file), "--sentinel"]

    def start(self):
        program = os.environ.get("XP_REDIS_SERVER") or shutil.which("redis-server")
        with open(self.folder / "redis.log", "ab") as log:
            self.process = subprocess.Popen([program, *self.words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while "PONG" not in self.cli("ping"):
            assert time.monotonic() < until, f"Redis does not start: {(self.folder / 'redis.log').read_text()[-1000:]}"
            time.sleep(0.05)

    def cli(self, *words):
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, timeout=20, check=False,
            env={**os.environ, "REDISCLI_AUTH": PASSWORD},
        )
        return done.stdout.strip()

    def signal(self, name):
        self.process.send_signal(name)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def url(self, port=None):
        return f"redis://127.0.0.1:{port or self.port}"


class SentinelGroup:
    """A server can be cut off from the others while its clients still reach it: the accounts are closed by which sentinels and
    replicas use it."""

    def __init__(self, folder):
        self.folder, self.servers, self.sentinels = folder, [], []

    def start(self):
        account = lambda name: ["--user", name, "on", f">{PASSWORD}", "~*", "&*", "+@all"]  # noqa: E731
        options = [*account("guard"), *account("follower"), "--requirepass", PASSWORD, "--masteruser", "follower", "--masterauth", PASSWORD,
                   "--repl-diskless-sync-delay", "0"]
        self.servers = [Redis(self.folder, "redis1", options)]
        master = str(self.servers[0].port)
        self.servers.append(Redis(self.folder, "redis2", [*options, "--replicaof", "127.0.0.1", master]))
        lines = (f"sentinel monitor {NAME} 127.0.0.1 {master} 2\nsentinel auth-user {NAME} guard\nsentinel auth-pass {NAME} {PASSWORD}\n"
                 f"sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 3000")
        self.sentinels = [Redis(self.folder, f"sentinel{number}", sentinel=lines) for number in (1, 2, 3)]
        for server in self.servers + self.sentinels:
            server.start()
        self.wait_for("the sentinels know each other", lambda: all(map(self.knows_all, self.sentinels)))

    def knows_all(self, sentinel):
        words = sentinel.cli("sentinel", "master", NAME).split("\n")
        state = dict(zip(words[::2], words[1::2]))
        return state.get("num-slaves") == "1" and state.get("num-other-sentinels") == "2"

    def url(self):
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{NAME}"

    def master(self):
        """The server that two of the sentinels name."""
        named = [sentinel.cli("sentinel", "get-master-addr-by-name", NAME).split("\n")[-1] for sentinel in self.sentinels]
        return next((server for server in self.servers if named.count(str(server.port)) >= 2), None)

    def wait_for_another(self, old):
        def is_replaced():
            master = self.master()
            return master not in (None, old) and master.cli("role").startswith("master")
        self.wait_for("another master is named", is_replaced)

    def isolate(self, server):
        """From now on neither sentinels nor replicas reach this server; its clients do."""
        for name in ("guard", "follower"):
            assert server.cli("acl", "setuser", name, "off") == "OK"
        server.cli("client", "kill", "user", "guard")
        # The user of a link is known to the one that asked for it; this is its end here.
        server.cli("client", "kill", "type", "replica")

    def wait_for(self, what, holds):
        until = time.monotonic() + START_SECONDS
        while not holds():
            assert time.monotonic() < until, f"not within {START_SECONDS} s: {what}"
            time.sleep(0.1)

    def kill(self):
        for server in self.sentinels + self.servers:
            server.kill()
