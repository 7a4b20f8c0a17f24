"""XP Graph for the drills: its commands, a server as an operator starts it, and requests to it. Not here: many requests at once
(load.py)."""

import http.client
import json
import os
import resource
import signal
import subprocess
import threading
import time

from postgres import free_port

READY_SECONDS, STOP_SECONDS = 120, 60
# The server closes connections that have no request for a minute (`http.idle_timeout`).
IDLE_SECONDS = 20
# Of the address space of a server under load.
MOST_BYTES = 6_000_000_000


class Program:
    """The program with what all its processes are told: the database, the secret's file, Redis."""

    def __init__(self, path, folder, url, secret, **more):
        self.path, self.folder = path, folder
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "DATABASE_URL": url, "XP_AUTH_SECRET_FILE": str(secret),
            "XP_HTTP_METRICS_ADDRESS": "main", "XP_HTTP_DRAIN_DELAY": "0s", "RUST_LOG": "info", "XP_TELEMETRY_LOG_FORMAT": "json", **more,
        }

    def command(self, *words):
        done = subprocess.run(
            [self.path, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise RuntimeError(f"xp {' '.join(words)}: exit code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def token(self, email):
        """An access token of an account, for the whole drill."""
        return self.command("token", "mint", "--ttl-seconds", "7200", "--user", email)

    def serve(self, name, port=None, **more):
        return Server(self, name, port or free_port(), more)


class Client:
    """Requests to a server, or to what stands in front of it."""

    def __init__(self, port):
        self.port, self.connections = port, threading.local()

    def ready(self):
        """Status and body of /readyz; 0 where nobody listens."""
        return self.get("/readyz")

    def get(self, path):
        """Status and body; 0 where nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def ask(self, query, variables=None, token=None, **headers):
        """The answer to a document: (status, JSON). Each thread has a connection of its own. Raises OSError where it is lost."""
        mine = self.connections
        if getattr(mine, "one", None) is None or time.monotonic() - mine.used > IDLE_SECONDS:
            mine.one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection, mine.used = mine.one, time.monotonic()
        headers["content-type"] = "application/json"
        if token:
            headers["authorization"] = f"Bearer {token}"
        try:
            connection.request("POST", "/graphql", json.dumps({"query": query, "variables": variables or {}}), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            mine.one = None
            raise ConnectionError(f"{type(error).__name__} {error}") from error

    def data(self, query, variables=None, token=None):
        """The data of an answer without errors."""
        status, answer = self.ask(query, variables, token)
        if status != 200 or answer.get("errors"):
            raise RuntimeError(f"{query}: {status} {answer}")
        return answer["data"]


class Server(Client):
    """`xp serve`."""

    def __init__(self, program, name, port, more):
        super().__init__(port)
        self.log_file = program.folder / f"{name}.log"
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [program.path, "serve"], cwd=program.folder, env={**program.environment, "PORT": str(self.port), **more},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=bound_memory,
            )
        until = time.monotonic() + READY_SECONDS
        while self.ready()[0] != 200:
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the server is not ready: {self.log()[-3000:]}")
            time.sleep(0.05)

    def log(self):
        return self.log_file.read_text(errors="replace")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM; fails where it does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired as error:
                self.kill()
                raise RuntimeError(f"the server has not ended {STOP_SECONDS} s after SIGTERM: {self.log()[-3000:]}") from error


def bound_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def code(status, answer):
    """Why something was refused, in one word; nothing where it was done."""
    errors = answer.get("errors") or []
    if errors:
        return (errors[0].get("extensions") or {}).get("code") or f"status {status}"
    return "" if status == 200 else f"status {status}"
