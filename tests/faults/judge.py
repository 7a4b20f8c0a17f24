"""What a row has come to, from its ledger and what the database has in the end: failed requests by code, how long requests took, how
soon all was well again, and everything that is not as it must be. Not here: how it is printed (table.py)."""

import collections
import dataclasses

from ledger import TITLED
from load import ACKNOWLEDGED, ADMIN, NODES, STORED, compare, stored

KINDS = {
    "acknowledged and lost": "lost", "there twice": "doubled", "refused as not stored, and there": "kept",
    "written after the moment and there": "kept",
}


@dataclasses.dataclass
class Marks:
    """When it began, when all should be well again, when the row went on to what comes after, when it ended."""
    since: float = 0
    begun: float = 0
    healed: float = 0
    over: float = 0
    ended: float = 0


@dataclasses.dataclass
class Result:
    row: object
    # (kind, text)
    deviations: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)
    failed: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    times: list = dataclasses.field(default_factory=list)
    requests: int = 0
    lost: int = 0
    doubled: int = 0
    stale: int = 0
    # Seconds from when all should be well: to the first write that succeeded, to the last request that failed.
    first: float = float("inf")
    last: float = 0
    not_run: str = ""
    seconds: float = 0

    def wrong(self, kind, text):
        self.deviations.append((kind, text))


def judge(result, marks, loads, topology):
    writes, reads = [write for load in loads for write in load.writes], [read for load in loads for read in load.reads]
    requests = [request for request in writes + reads if request.sent >= marks.since]
    result.requests = len(requests)
    paused = [request for request in requests if any(load.was_paused(request) for load in loads)]
    result.notes += [f"this machine stood still: {len(paused)} requests do not count"] if paused else []
    judge_codes(result, marks, [request for request in requests if request not in paused] if paused else requests)
    judge_times(result, marks, requests, writes)
    found = stored(topology.primary.sql(STORED["postgres"]))
    [title] = topology.primary.sql(f"select title from forms where id = '{topology.template.form}'").splitlines()
    found[TITLED, title] = 1
    count(result, compare(writes, found))
    result.stale = sum(read.stale for read in reads)
    if result.stale:
        result.wrong("stale", f"{result.stale} stale reads")
    read_back(result, writes, topology)


def judge_codes(result, marks, requests):
    failed = [request for request in requests if request.outcome != ACKNOWLEDGED]
    result.failed = collections.Counter(shorten(request.outcome) for request in failed)
    early = collections.Counter(shorten(request.outcome) for request in failed if request.answered < marks.begun)
    if early:
        result.wrong("before", f"failed before anything happened: {dict(early)}")
    for code, times in result.failed.items():
        if code not in result.row.may_fail:
            result.wrong("code", f"{times} requests failed with {code}")


def shorten(outcome):
    """Without what differs between requests."""
    return "connection lost" if outcome.startswith("connection lost") else outcome


def judge_times(result, marks, requests, writes):
    phases = [(marks.since, marks.begun), (marks.begun, marks.over), (marks.over, marks.ended)]
    result.times = [percentiles([request for request in requests if begun <= request.sent < ended]) for begun, ended in phases]
    healed = [write.answered - marks.healed for write in writes if write.outcome == ACKNOWLEDGED and write.sent >= marks.healed]
    result.first = min(healed, default=float("inf"))
    # A key that an attempt before holds is refused for as long as that may run.
    late = [request.sent - marks.healed for request in requests if request.sent >= marks.healed and request.outcome not in (ACKNOWLEDGED, "CONFLICT")]
    result.last = max(late, default=0)
    if max(result.first, result.last) > result.row.within:
        ends = f"first success after {result.first:.1f} s, last failure after {result.last:.1f} s"
        result.wrong("recovery", f"{ends}; {result.row.within} s are allowed")
    slowest = max((request.answered - request.sent for request in requests), default=0)
    if slowest > result.row.slowest:
        result.wrong("slow", f"a request took {slowest:.1f} s; {result.row.slowest} s are allowed")


def percentiles(requests):
    """p50 and p99 in milliseconds; nothing without requests."""
    took = sorted((request.answered - request.sent) * 1000 for request in requests)
    return (took[len(took) // 2], took[len(took) * 99 // 100]) if took else None


def count(result, problems):
    for problem in problems:
        number, text = problem.split(" ", 1)
        kind = KINDS[text]
        if kind in ("lost", "doubled"):
            setattr(result, kind, getattr(result, kind) + int(number))
        result.wrong(kind, problem)


def read_back(result, writes, topology):
    """Each instance answers with all that was acknowledged, whatever it has in its cache."""
    ids = [write.id for write in writes if write.outcome == ACKNOWLEDGED and write.kind in ("form", "submission") and write.id]
    token = topology.template.tokens[ADMIN]
    for number, instance in enumerate(topology.instances, 1):
        missing = 0
        for start in range(0, len(ids), 100):
            nodes = instance.data(NODES, {"ids": ids[start:start + 100]}, token)["nodes"]
            missing += nodes.count(None)
        if missing:
            result.wrong("lost", f"instance {number} does not answer with {missing} of {len(ids)} that were acknowledged")
