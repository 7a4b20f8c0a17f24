"""What a row is: what fails, what may come of it, and how its defence is taken away. Not here: the rows themselves (rows_*.py)
and how one is run (run.py)."""

import dataclasses
import time

from topology import Needs

NOTHING = frozenset()
# The primary is away, or its connections are: nothing was done, it took too long, or what came of it is not known. The key of a
# mutation that was cut off is held for a while.
DATABASE = frozenset({"UNAVAILABLE", "TIMEOUT", "OUTCOME_UNKNOWN", "OVERLOADED", "CONFLICT"})
# An instance is killed while it works.
KILLED = frozenset({"connection lost", "CONFLICT"})
ROWS = []


@dataclasses.dataclass(frozen=True)
class Sabotage:
    # `defence`: what protects is off, and what it protects from happens. `check`: nothing turns the defence off, so what must not
    # happen is made to look so, and the row has to see it.
    kind: str
    what: str
    # The kinds of deviations of which one must be seen.
    expects: tuple
    # What the topology needs otherwise.
    needs: dict = dataclasses.field(default_factory=dict)
    is_careless: bool = False
    reads_standby: bool = False
    # Called before the load, and after it.
    before: object = None
    after: object = None


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    what: str
    fault: object
    sabotage: Sabotage
    may_fail: frozenset = NOTHING
    needs: Needs = Needs()
    # Seconds until all is well again.
    within: float = 10
    # Seconds that one request may take.
    slowest: float = 8
    # Seconds that the fault lasts, in the short form and in the long one.
    holds: tuple = (4, 15)
    is_short: bool = True


def row(name, what, sabotage, **more):
    """The function under it is what happens."""
    def add(fault):
        ROWS.append(Row(name, what, fault, sabotage, **more))
        return fault
    return add


class Scene:
    """What a fault has at hand."""

    def __init__(self, topology, load, marks, options, hold, sabotage):
        self.topology, self.load, self.marks, self.options, self.hold, self.sabotage = topology, load, marks, options, hold, sabotage
        self.loads, self.notes, self.problems = [load], [], []

    def wait(self, share=1.0):
        time.sleep(self.hold * share)

    def heal(self):
        """From now on all should be well."""
        self.marks.healed = time.time()

    def expect(self, holds, what):
        """What has to be so for the fault to be what it is meant to be."""
        if not holds:
            self.problems.append(what)

    def note(self, text):
        self.notes.append(text)

    def ways(self, name):
        return [way for paths in self.topology.paths for way in getattr(paths, name)()]
