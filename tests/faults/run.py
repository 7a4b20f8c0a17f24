"""Runs one row: makes what it needs, load before, the fault, load after, and the judgement. Not here: what is printed of it (table.py)."""

import dataclasses
import tempfile
import time
from pathlib import Path

from judge import Marks, Result, judge
from ledger import FaultLoad, ReplicaReader
from load import ACKNOWLEDGED
from row import Scene
from topology import NotRun, Topology

WARM_SECONDS = 1
PAUSE_SECONDS = 0.2


def run_row(row, template, options):
    result, begun = Result(row), time.monotonic()
    sabotage = row.sabotage if options.sabotage else None
    needs = dataclasses.replace(row.needs, **(sabotage.needs if sabotage else {}))
    with tempfile.TemporaryDirectory(prefix=f"xp-{row.name}-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        topology = None
        try:
            topology = Topology(folder, template, needs)
            perform(result, topology, options, sabotage)
        except NotRun as reason:
            result.not_run = str(reason)
        except Exception as error:
            # The other rows go on.
            result.wrong("broken", f"{type(error).__name__}: {error}"[:600])
        finally:
            if topology:
                result.notes += topology.logs() if options.logs and result.deviations else []
                topology.end()
    result.seconds = time.monotonic() - begun
    return result


def perform(result, topology, options, sabotage):
    row, marks = result.row, Marks()
    load = FaultLoad(options.rate, is_careless=bool(sabotage and sabotage.is_careless))
    scene = Scene(topology, load, marks, options, row.holds[options.long], sabotage)
    step(sabotage, "before", scene)
    load.start(topology.client, topology.template.tokens, topology.template.form)
    reader = ReplicaReader(load, topology.standbys[0]) if sabotage and sabotage.reads_standby else None
    try:
        time.sleep(WARM_SECONDS)
        marks.since = time.time()
        time.sleep(options.before)
        marks.begun = time.time()
        row.fault(scene)
        marks.over = time.time()
        marks.healed = marks.healed or marks.over
        time.sleep(options.after)
        wait_until_well(load, marks, row.within)
        marks.ended = time.time()
    finally:
        if reader:
            reader.stop()
        load.stop()
    step(sabotage, "after", scene)
    result.notes += scene.notes
    for problem in scene.problems:
        result.wrong("fault", problem)
    judge(result, marks, scene.loads, topology)


def step(sabotage, name, scene):
    if sabotage and getattr(sabotage, name):
        getattr(sabotage, name)(scene)


def wait_until_well(load, marks, within):
    """Until nothing has failed for two seconds, or all the time that the row has is over."""
    until = marks.healed + within + 3
    while time.time() < until:
        since = time.time() - 2
        with load.lock:
            recent = [write.outcome for write in load.writes[-400:] if write.answered >= since]
        if recent and all(outcome in (ACKNOWLEDGED, "CONFLICT") for outcome in recent):
            return
        time.sleep(PAUSE_SECONDS)
