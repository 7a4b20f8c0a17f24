"""deploy/rollout/rollout.py with real servers behind the shipped nginx while many ask: no request fails, but those that a bad
canary answers. Not here: how a server ends what it has begun (tests/live, tests/clients/rolling.test.mjs).

usage: rollout.py PROGRAM [ROUNDS]
       rollout.py start|stop PROGRAM FOLDER PORT    one instance; what the tool is given as its commands"""

import collections
import http.client
import http.server
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from servers import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "deploy/drills"))

from nginx import nginx_config  # noqa: E402

TOOL = ROOT / "deploy/rollout/rollout.py"
CLIENTS = 8
STOP_SECONDS = 60
BAD = "bad"
AGAIN = "asked again, since nginx had closed the idle connection"


def main(program, rounds):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        stable, other, canary = [free_port(), free_port()], [free_port(), free_port()], free_port()
        site = free_port()
        config = nginx_config(folder, site, stable)
        me = f"{shlex.quote(sys.executable)} {shlex.quote(__file__)}"
        commands = lambda what: [  # noqa: E731
            "--start", f"{me} start {shlex.quote(what)} {folder} {{port}}", "--stop", f"{me} stop {shlex.quote(what)} {folder} {{port}}",
            "--nginx", str(folder / "xp-graph.conf"), "--reload", f"nginx -p {folder} -c {config} -s reload", "--ready-within", "60",
        ]
        listed = lambda ports: ",".join(map(str, ports))  # noqa: E731
        tool = lambda how, ports, *more, what=program: subprocess.run(  # noqa: E731
            [sys.executable, TOOL, how, "--ports", listed(ports), *commands(what), *more], check=False, stdout=subprocess.DEVNULL
        ).returncode
        nginx = None
        try:
            for port in stable:
                instance("start", program, folder, port)
                wait_for(f"http://127.0.0.1:{port}/readyz")
            nginx = subprocess.Popen(["nginx", "-p", folder, "-c", config])
            wait_for(f"http://127.0.0.1:{site}/readyz")
            with Load(site) as load:
                for _ in range(rounds):
                    assert tool("rolling", stable) == 0
                load.check(f"rolling × {rounds}")
                for _ in range(rounds):
                    assert tool("blue-green", stable, "--new", listed(other)) == 0
                    stable, other = other, stable
                load.check(f"blue-green × {rounds}", AGAIN)
                assert tool("blue-green", stable, "--new", listed(other), "--ready-within", "1", what="none") == 1
                load.check("blue-green with a build that does not start")
                started = time.monotonic()
                assert tool("canary", stable, "--new", str(canary), "--watch", "60", what=BAD) == 3
                load.check(f"canary with a bad build, withdrawn after {time.monotonic() - started:.1f} s", f"500: bad|{AGAIN}")
                assert tool("canary", stable, "--new", str(canary), "--watch", "5", "--metrics", "http://127.0.0.1:{port}/metrics") == 0
                load.check("canary with a good build", AGAIN)
        finally:
            if nginx:
                nginx.terminate()
                nginx.wait()
            for file in folder.glob("*.pid"):
                if file.stem.isdecimal():
                    instance("stop", program, folder, int(file.stem))
    return 0


class Load:
    """Clients that ask one question after the other, by GET and by POST in turn."""

    def __init__(self, site):
        self.site, self.goes_on, self.outcomes = site, True, collections.Counter()
        self.clients = [threading.Thread(target=self.ask_along) for _ in range(CLIENTS)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.goes_on = False
        for client in self.clients:
            client.join()

    def ask_along(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.site, timeout=30)
        number, is_reused, is_again = 0, False, False
        while self.goes_on:
            number += not is_again
            # Nothing that nginx keeps: each request reaches an instance.
            query = f"{{ a{number}: __typename me {{ id }} }}"
            headers = {"content-type": "application/json", "apollo-require-preflight": "1"}
            try:
                if number % 2:
                    connection.request("POST", "/graphql", json.dumps({"query": query}), headers)
                else:
                    connection.request("GET", f"/graphql?query={urllib.parse.quote(query)}", headers=headers)
                answer = connection.getresponse()
                text = answer.read().decode()
                outcome = "answered" if answer.status == 200 and '"Query"' in text else f"{answer.status}: {text[:60]}"
                is_reused, is_again = True, False
            except (ConnectionError, http.client.RemoteDisconnected) as error:
                # An idle connection may be closed at any time; who meets that asks on another one (RFC 9112 §9.3.1).
                outcome = AGAIN if is_reused else f"{type(error).__name__} {error}"
                is_reused, is_again = False, is_reused
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                outcome = f"{type(error).__name__} {error}"
                is_reused, is_again = False, False
                connection.close()
            self.outcomes[outcome] += 1
            time.sleep(0.005)

    def check(self, name, may_fail="nothing"):
        """Prints what the requests since the last check have come to, and fails where one failed that may not."""
        outcomes, self.outcomes = self.outcomes, collections.Counter()
        print(f"{name}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()), flush=True)
        failed = [outcome for outcome in outcomes if outcome != "answered" and not re.fullmatch(may_fail, outcome)]
        assert not failed, failed
        assert outcomes["answered"] > 100, "there was load"
        assert "bad" not in may_fail or any("bad" in outcome for outcome in outcomes), "nobody met the bad build"


def instance(what, program, folder, port):
    """Starts or stops a server as a service manager would."""
    file = Path(folder) / f"{port}.pid"
    if what == "stop":
        if not file.exists():
            return
        pid = int(file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(STOP_SECONDS * 20):
            if not is_running(pid):
                file.unlink()
                return
            time.sleep(0.05)
        raise AssertionError(f"{pid} does not end")
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PORT": str(port), "RUST_LOG": "warn",
        "DATABASE_URL": f"sqlite:{folder}/{port}.db", "XP_HTTP_METRICS_ADDRESS": "main", "XP_HTTP_TRUSTED_PROXIES": "127.0.0.1",
        "XP_AUTH_SECRET": "a secret that only this test knows, long enough", "XP_HTTP_DRAIN_DELAY": "500ms",
    }
    if program == "none":
        return
    command = [sys.executable, __file__, "serve-badly", str(port)] if program == BAD else [program, "serve", "--migrate"]
    with open(Path(folder) / f"{port}.log", "ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    file.write_text(str(process.pid))


def is_running(pid):
    """Not so for one that has ended and waits for its parent."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def serve_badly(port):
    """Looks ready, and fails all that is asked by others."""
    counts = collections.Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, text):
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self):
            if self.path == "/metrics":
                line = 'http_server_request_duration_seconds_count{{http_route="/graphql",http_response_status_code="{}"}} {}\n'
                return self.answer(200, "".join(line.format(*each) for each in counts.items()))
            if self.path == "/readyz":
                return self.answer(200, "{}")
            counts[500] += 1
            self.answer(500, "bad")

        def do_POST(self):
            if self.rfile.read(int(self.headers["content-length"])) == b'{"query": "{ __typename }"}':
                return self.answer(200, '{"data":{"__typename":"Query"}}')
            counts[500] += 1
            self.answer(500, "bad")

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start" | "stop" as what, program, folder, port]:
            instance(what, program, folder, int(port))
        case ["serve-badly", port]:
            serve_badly(int(port))
        case [program, *rounds]:
            sys.exit(main(str(Path(program).resolve()), int(rounds[0]) if rounds else 20))
