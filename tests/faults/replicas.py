"""Reads on standbys: how many of them run there, and that none is ever stale. A primary with two standbys and Redis, in temporary folders
and on loopback.

    python3 tests/faults/replicas.py xp                  the program of XP Graph; needs Python 3.9, PostgreSQL, Redis
    python3 tests/faults/replicas.py xp --reads 10000    fewer reads
    python3 tests/faults/replicas.py xp --sabotage       rows are read from a standby by SQL: stale reads have to be seen

First the same documents are asked of instances with and without standbys, by turns. Then clients write rows and read them back on two
instances with the cache's token of the write, while standbys replay at once, 200 ms later and 2 s later. What must hold: no read is
older than what its client was told before; a while after the last write every instance shows every row as the primary has it; and
where standbys replay at once, reads do run on them.

Exit codes: 0 all of it holds, 1 something does not, 2 wrong usage."""

import argparse
import asyncio
import collections
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "deploy/drills"))

import postgres  # noqa: E402
from load import ADMIN  # noqa: E402
from server import code  # noqa: E402
from token_reads import Connections, TokenReads, make_rows, rows_left_old  # noqa: E402
from topology import Needs, Template, Topology  # noqa: E402

LAGS = {"0": 0.0, "200ms": 0.2, "2s": 2.0}
REASONS = ("behind", "outdated", "out_of_rotation", "failed")
OPERATIONS = ("w2", "w3", "w4")
STANDBYS = "standbys"
KINDS = {
    STANDBYS: {"XP_CACHE_MAX_BYTES": "64KiB"},
    "primary alone": {"XP_CACHE_MAX_BYTES": "64KiB", "DATABASE_REPLICA_URLS": ""},
    "standbys, no cache": {"XP_CACHE_ENABLED": "off"},
}
TURNS, READERS = 2, 8
# Where rows are read by SQL, each read is a process of its own.
READS_BY_SQL = 600
MOST_SHOWN = 10
# What a server is asked for reads of the documents, and not for a server to look after itself.
STATEMENTS = """select coalesce(sum(calls), 0) from pg_stat_statements
    where query ilike 'select%' and query !~* 'pg_|instances|outbox|revocation|signing_keys' and userid = 'app'::regrole"""
COMMITS = "select xact_commit from pg_stat_database where datname = 'xp'"


class Servers(Topology):
    def cluster(self, data):
        cluster = super().cluster(data)
        self.set(cluster, shared_preload_libraries="pg_stat_statements")
        return cluster

    def start(self):
        super().start()
        self.primary.sql("create extension pg_stat_statements")
        self.wait_for_standbys()

    def wait_for_standbys(self):
        """Until they have replayed what the primary has now."""
        position = self.primary.sql("select pg_current_wal_lsn()")
        has_replayed = f"select pg_last_wal_replay_lsn() >= '{position}'"
        self.wait_for("the standbys have replayed", lambda: all(standby.sql(has_replayed) == "t" for standby in self.standbys))

    def lag(self, delay):
        for standby in self.standbys:
            standby.sql(f"alter system set recovery_min_apply_delay = '{delay}'")
            standby.sql("select pg_reload_conf()")
        self.wait_for_standbys()
        self.wait_until_in_rotation()

    def on_replicas(self, numbers=(0, 1)):
        return int(sum(self.figure("database_replica_reads_total", number) for number in numbers))

    def fallbacks(self, numbers=(0, 1)):
        return collections.Counter({
            reason: int(sum(self.figure("database_replica_fallbacks_total", number, f'reason="{reason}"') for number in numbers))
            for reason in REASONS
        })


# --- how much runs on standbys -----------------------------------------------------------------------------------------

class Turns:
    """The same documents for instances that differ in what they read from, by turns: each alone, without Redis, and with a cache that is
    too small for the documents, so that they go on reading the database."""

    def __init__(self, topology, seconds):
        self.topology, self.seconds, self.token = topology, seconds, topology.template.tokens[ADMIN]
        users = topology.primary.sql("select id from users order by id limit 100").split()
        self.documents = [document(name, users) for name in OPERATIONS]
        self.requests, self.figures = collections.Counter(), collections.defaultdict(collections.Counter)

    def run(self):
        topology = self.topology
        for instance in topology.instances:
            instance.stop()
        for _ in range(TURNS):
            for name, settings in KINDS.items():
                topology.replace(0, REDIS_URL="", **settings)
                if name == STANDBYS:
                    topology.wait_until_in_rotation((0,))
                asked, said = self.asked(), self.said()
                self.requests[name] += asyncio.run(self.ask(topology.instances[0]))
                self.figures[name].update(self.said() - said)
                # PostgreSQL counts what a connection has done when that is closed, or later.
                topology.instances[0].stop()
                self.figures[name].update(self.asked() - asked)
        for number in (0, 1):
            topology.replace(number)
        return [self.line(name) for name in KINDS]

    def asked(self):
        """What each PostgreSQL has been asked."""
        figures = collections.Counter()
        for place, cluster in enumerate((self.topology.primary, *self.topology.standbys)):
            figures["statements", place] = int(cluster.sql(STATEMENTS))
            figures["commits", place] = int(cluster.sql(COMMITS))
        return figures

    def said(self):
        """What the server says of that."""
        return collections.Counter({
            "on standbys": self.topology.on_replicas((0,)), "fell back": sum(self.topology.fallbacks((0,)).values()),
        })

    async def ask(self, server):
        """How many requests were answered."""
        connections, until, answered = Connections(server.port), time.monotonic() + self.seconds, collections.Counter()

        async def read(place):
            while time.monotonic() < until:
                place += 1
                status, answer = await connections.ask(*self.documents[place % len(self.documents)], self.token)
                assert not code(status, answer), f"{status} {str(answer)[:600]}"
                answered["all"] += 1
        await asyncio.gather(*(read(place) for place in range(READERS)))
        connections.close()
        return answered["all"]

    def line(self, name):
        figures = self.figures[name]
        statements = [figures["statements", place] for place in range(3)]
        return [
            name, f"{self.requests[name] / self.seconds / TURNS:.0f}", *statements, f"{100 * sum(statements[1:]) / max(1, sum(statements)):.1f} %",
            *(figures["commits", place] for place in range(3)), figures["on standbys"], figures["fell back"],
        ]


def document(name, users):
    folder = ROOT / "playground/operations"
    variables = json.loads((folder / f"{name}.json").read_text())
    if "representations" in variables:
        variables["representations"] = [{"__typename": "User", "id": user} for user in users]
    return (folder / f"{name}.graphql").read_text(), variables


# --- that none is stale ------------------------------------------------------------------------------------------------

def token_reads(topology, rows, delay, options):
    """A line of the table, and what is wrong."""
    topology.lag(delay)
    ports = [instance.port for instance in topology.instances]
    before = topology.on_replicas(), topology.fallbacks()
    number = options.reads // len(LAGS)
    standby = topology.standbys[0] if options.sabotage else None
    tally = TokenReads(ports, rows, LAGS[delay], number, standby).run()
    wrong = [f"lag {delay}: {example}" for example in tally.examples]
    wrong += [f"lag {delay}: {old}" for old in rows_left_old(ports, rows, topology.primary)]
    on_replicas, fallbacks = topology.on_replicas() - before[0], topology.fallbacks() - before[1]
    if delay == "0" and not on_replicas and not options.sabotage:
        wrong.append("no read has run on a standby, and they replay at once")
    times = sorted(tally.seconds)
    p50, p99 = (f"{1000 * times[int(share * len(times))]:.1f}" for share in (0.5, 0.99))
    by_way = ", ".join(f"{way} {count}" for way, count in sorted(tally.reads.items()))
    refused = " ".join(f"{reason}:{count}" for reason, count in tally.refused.items()) or 0
    print(f"lag {delay}: {by_way}", flush=True)
    return [
        delay, tally.writes, len(times), sum(tally.stale.values()), len(wrong) - len(tally.examples), on_replicas,
        *(fallbacks[reason] for reason in REASONS), refused, f"{p50}/{p99}",
    ], wrong


def show(heads, lines):
    lines = [[str(cell) for cell in line] for line in (heads, *lines)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print(flush=True)


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun, wrong = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="xp-replicas-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        print(postgres.version(), flush=True)
        template = Template(folder, str(options.program))
        (folder / "servers").mkdir(mode=0o711)
        settings = (("XP_GATEWAY_REQUIRED", "off"), ("RUST_LOG", "warn"))
        topology = Servers(folder / "servers", template, Needs(synchronous=False, settings=settings))
        try:
            if not options.sabotage:
                servers = ("primary", "standby 1", "standby 2")
                heads = ["reads from", "requests/s", *(f"statements {server}" for server in servers), "share"]
                heads += [*(f"commits {server}" for server in servers), "by /metrics on standbys", "fell back"]
                show(heads, Turns(topology, options.seconds).run())
            rows, lines = make_rows(topology.instances[0], template.tokens), []
            for delay in LAGS:
                line, found = token_reads(topology, rows, delay, options)
                lines.append(line)
                wrong += found
        finally:
            topology.end()
    show(["lag", "writes", "reads", "stale", "left old", "on standbys", *REASONS, "refused", "p50/p99, ms"], lines)
    for text in wrong[:MOST_SHOWN]:
        print(text)
    print(f"replicas: {sum(line[2] for line in lines)} reads, {sum(line[3] for line in lines)} stale; {time.monotonic() - begun:.0f} s")
    if options.sabotage:
        return 0 if sum(line[3] for line in lines) else 1
    return 1 if wrong else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="the program `xp`")
    parser.add_argument("--reads", type=int, default=100_000, help="how many, over all lags")
    parser.add_argument("--seconds", type=float, default=5, help="how long a turn of one instance lasts")
    parser.add_argument("--sabotage", action="store_true", help="reads a standby by SQL: fails where no stale read is seen")
    options = parser.parse_args()
    options.program = options.program.resolve()
    if options.sabotage:
        options.reads = min(options.reads, READS_BY_SQL)
    return options


if __name__ == "__main__":
    sys.exit(main())
