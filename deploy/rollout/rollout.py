#!/usr/bin/env python3
"""Replaces instances of XP Graph behind nginx on one machine without failing a request. Needs Python 3.9 and nothing else.

    rollout.py rolling    --ports 8080,8082                 one instance after the other
    rollout.py blue-green --ports 8080,8082 --new 8084,8086 new instances beside the old ones, then all traffic at once
    rollout.py canary     --ports 8080,8082 --new 8084      a part of the traffic for a new one; withdrawn where it fails

How an instance is started and stopped is up to you; both commands end when it has happened, and `{port}` stands for its port:

    --start 'systemctl start xp@{port}' --stop 'systemctl stop xp@{port}'

A rolling restart leaves nginx alone: an instance that is stopped sends its clients elsewhere and ends what it has begun, and
nginx, configured as in deploy/nginx, asks the other one. For blue-green and canary the servers of the block `upstream xp_graph`
in the file of nginx (--nginx) are rewritten, then `--reload` is run; nginx closes idle connections then, and clients open others.
A new instance gets requests only when its /readyz says 200 and a query is answered; where it does not become ready, the
traffic stays with the old ones. The canary is withdrawn when more of its answers than --max-failures fail, by its own
metrics (--metrics, an address with `{port}`).

Exit codes: 0 done, 1 not done (what served goes on), 2 wrong usage, 3 the canary was withdrawn."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

BLOCK = re.compile(r"(upstream xp_graph \{.*?\n)((?:[ \t]*server [^\n]*\n)+)", re.DOTALL)
PARAMETERS = "max_fails=1 fail_timeout=1s"
# After a reload, until the workers that knew the servers from before have taken their last request; and after a start, until
# nginx asks an instance again that had refused a connection (`fail_timeout`).
SETTLE_SECONDS = 1.5
FAILED = re.compile(r'^http_server_request_duration_seconds_count\{.*http_route="/graphql[^"]*".*http_response_status_code="(\d+)".*\} (\d+)', re.MULTILINE)


class NotDone(Exception):
    """What was begun could not be done; the other instances serve."""


def main():
    options = parse()
    try:
        return {"rolling": rolling, "blue-green": blue_green, "canary": canary}[options.how](options)
    except NotDone as problem:
        say(f"not done: {problem}")
        return 1


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ports = lambda text: [int(port) for port in text.split(",")]  # noqa: E731
    parser.add_argument("how", choices=["rolling", "blue-green", "canary"])
    parser.add_argument("--ports", type=ports, required=True, help="ports of the instances that serve now")
    parser.add_argument("--new", type=ports, default=[], help="ports of new instances")
    parser.add_argument("--start", required=True, help="starts the instance of {port}")
    parser.add_argument("--stop", required=True, help="stops the instance of {port}, and ends when it has ended")
    parser.add_argument("--nginx", type=Path, default=Path("/etc/nginx/conf.d/xp-graph.conf"))
    parser.add_argument("--reload", default="nginx -s reload")
    parser.add_argument("--ready-within", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--percent", type=int, default=10, help="of the traffic for the canary (1 to 50)")
    parser.add_argument("--watch", type=float, default=60, metavar="SECONDS", help="how long the canary is watched")
    parser.add_argument("--max-failures", type=float, default=0.01, help="share of the canary's answers that may fail")
    parser.add_argument("--metrics", default="http://127.0.0.1:{port}/metrics", help="where the canary's metrics are")
    options = parser.parse_args()
    if (options.how == "rolling") == bool(options.new):
        parser.error("--new is for blue-green and canary, which need it")
    if options.how == "rolling" and len(options.ports) < 2:
        parser.error("a rolling restart needs two instances: one serves while the other is replaced")
    if options.how == "canary" and (len(options.new) != 1 or not 1 <= options.percent <= 50):
        parser.error("a canary is one instance, for 1 to 50 percent")
    return options


def rolling(options):
    for port in options.ports:
        others = [other for other in options.ports if other != port]
        for other in others:
            check_ready(options, other)
        # nginx asks the other instances as soon as this one says that it is leaving, and is told nothing.
        command(options.stop, port)
        begin(options, port)
        time.sleep(SETTLE_SECONDS)
        say(f"replaced: {port}")
    return 0


def blue_green(options):
    begun = []
    try:
        for port in options.new:
            begun.append(port)
            begin(options, port)
    except NotDone:
        for port in begun:
            command(options.stop, port)
        raise
    send_to(options, {port: 1 for port in options.new})
    say(f"all traffic goes to {listed(options.new)}")
    for port in options.ports:
        command(options.stop, port)
    say(f"stopped: {listed(options.ports)}")
    return 0


def canary(options):
    [port] = options.new
    try:
        begin(options, port)
    except NotDone:
        command(options.stop, port)
        raise
    # nginx knows whole weights: each old instance gets its part of what is left.
    rest = 100 - options.percent
    weights = {old: rest for old in options.ports} | {port: options.percent * len(options.ports)}
    send_to(options, weights)
    say(f"{options.percent} % of the traffic goes to {port}")
    until = time.monotonic() + options.watch
    while time.monotonic() < until:
        time.sleep(0.5)
        asked, failed = failures(options, port)
        if failed > options.max_failures * max(asked, 100):
            send_to(options, {old: 1 for old in options.ports})
            command(options.stop, port)
            say(f"withdrawn: {failed} of {asked} answers of {port} failed")
            return 3
    say(f"{failed} of {asked} answers of {port} failed: go on with a rolling restart of {listed(options.ports)}")
    return 0


def begin(options, port):
    """Starts an instance and waits until it answers."""
    command(options.start, port)
    check_ready(options, port)


def check_ready(options, port):
    until, problem = time.monotonic() + options.ready_within, ""
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                pass
            query = urllib.request.Request(
                f"http://127.0.0.1:{port}/graphql", b'{"query": "{ __typename }"}', {"content-type": "application/json"}
            )
            with urllib.request.urlopen(query, timeout=2) as answer:
                if json.load(answer) == {"data": {"__typename": "Query"}}:
                    return
                problem = "it answers otherwise"
        except (OSError, ValueError) as error:
            problem = str(error)
        time.sleep(0.1)
    raise NotDone(f"the instance at port {port} is not ready after {options.ready_within:.0f} s: {problem}")


def failures(options, port):
    """How many requests the instance has answered, and how many of them with a status of 500 and above."""
    try:
        with urllib.request.urlopen(options.metrics.format(port=port), timeout=2) as answer:
            counts = FAILED.findall(answer.read().decode())
    except OSError:
        # Whoever does not tell counts as failing.
        return 0, 1_000_000
    return sum(int(count) for _, count in counts), sum(int(count) for status, count in counts if status >= "500")


def send_to(options, weights):
    """Has nginx send requests to these ports, by their weights."""
    text = options.nginx.read_text()
    servers = "".join(f"  server 127.0.0.1:{port} weight={weight} {PARAMETERS};\n" for port, weight in weights.items())
    changed, found = BLOCK.subn(lambda block: block[1] + servers, text)
    if found != 1:
        raise NotDone(f"{options.nginx} has no block `upstream xp_graph` with servers")
    # In one step: nginx never reads half of a file.
    with tempfile.NamedTemporaryFile("w", dir=options.nginx.parent, prefix=".rollout.", delete=False) as file:
        file.write(changed)
    Path(file.name).chmod(options.nginx.stat().st_mode & 0o777)
    Path(file.name).replace(options.nginx)
    command(options.reload)
    time.sleep(SETTLE_SECONDS)


def command(text, port=0):
    done = subprocess.run(text.replace("{port}", str(port)), shell=True, check=False)
    if done.returncode:
        raise NotDone(f"`{text}` ended with exit code {done.returncode}")


def listed(ports):
    return ", ".join(str(port) for port in ports)


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
