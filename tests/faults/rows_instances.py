"""Rows about the instances themselves, their clocks, and two faults at once. Not here: what each of the faults is alone."""

import datetime
import itertools
import random
import threading
import time

from clock import set_clock
from row import DATABASE, KILLED, Sabotage, row
from rows_postgres import CARELESS, DOUBLES_ONE, LOSES_ONE, go_on, pile_up_commits
from topology import Needs


@row(
    "instance-killed", "an instance is killed while writers wait in COMMIT, and started again, many times", CARELESS,
    may_fail=KILLED | DATABASE, holds=(10, 20),
)
def instance_killed(scene):
    """As many times as the row lasts seconds."""
    for number in range(scene.hold):
        held_up = pile_up_commits(scene, 0.1 + 0.02 * number)
        scene.topology.instances[number % 2].kill()
        go_on(held_up)
        scene.topology.replace(number % 2)
        time.sleep(0.3)


@row(
    "instance-early", "an instance is started while the primary is away", CARELESS, may_fail=KILLED | DATABASE,
    # Clients are told at once to go elsewhere.
    slowest=4,
)
def instance_early(scene):
    topology = scene.topology
    held_up = pile_up_commits(scene)
    topology.primary.kill()
    topology.instances[1].kill()
    go_on(held_up)
    starting = threading.Thread(target=topology.replace, args=(1,))
    starting.start()
    scene.wait(1.5)
    topology.primary.start()
    starting.join()


def kill_instead(scene):
    scene.ends_by = "kill"


@row(
    "sigterm", "instances behind nginx are replaced one after the other",
    Sabotage("defence", "they do not drain: SIGKILL instead of SIGTERM", ("code",), before=kill_instead),
    needs=Needs(nginx=True, settings=(("XP_HTTP_DRAIN_DELAY", "5s"),)),
)
def sigterm(scene):
    scene.heal()
    for number in (0, 1):
        # In the middle of their work.
        held_up = pile_up_commits(scene)
        threading.Timer(0.2, go_on, [held_up]).start()
        getattr(scene.topology.instances[number], getattr(scene, "ends_by", "stop"))()
        scene.topology.replace(number)
        # nginx leaves an instance alone for a second that has refused a connection.
        time.sleep(1.5)


@row("clock-off", "the clock of one instance is ten minutes fast, then ten minutes slow", DOUBLES_ONE, needs=Needs(clocks=True))
def clock_off(scene):
    for offset in ("+600", "-600", "+0"):
        set_clock(scene.topology.clock, offset)
        if offset != "+0":
            scene.wait()


# As SQL does it, with what lies in the month already.
UNMAKE = """begin;
alter table {table} detach partition {table}_{month};
insert into {table} select * from {table}_{month};
drop table {table}_{month};
commit;"""


def drop_default(scene):
    scene.is_without_default = True


@row(
    "partition-missing", "this month's partitions are missing",
    Sabotage("defence", "the partition by default is missing, too", ("code", "lost"), before=drop_default),
    # Clients that ask the instance itself are told in time to go elsewhere.
    needs=Needs(settings=(("XP_HTTP_DRAIN_DELAY", "1s"),)),
)
def partition_missing(scene):
    month, primary = datetime.datetime.now(datetime.timezone.utc).strftime("%Y_%m"), scene.topology.primary
    has_default = not getattr(scene, "is_without_default", False)
    for table in ("user_locations", "user_activity_logs"):
        primary.sql(UNMAKE.format(table=table, month=month))
        if not has_default:
            primary.sql(f"alter table {table} detach partition {table}_default")
    scene.heal()
    scene.wait()
    if has_default:
        scene.expect(int(primary.sql("select count(*) from user_locations_default")) > 0, "positions lie in the default partition")
    # It makes what is missing soon after its start.
    scene.topology.instances[0].stop()
    scene.topology.replace(0)
    if has_default:
        scene.topology.wait_for("the month is made again", lambda: primary.sql(f"select to_regclass('user_locations_{month}') is not null") == "t")


# --- two at once -----------------------------------------------------------------------------------------------------

def during(begin, end):
    def fault(scene):
        begin(scene.topology)
        scene.wait()
        end(scene.topology)
    return fault


def cut(scene):
    for way in scene.ways("all"):
        way.cut_all()


def forget(scene):
    for way in scene.ways("all"):
        way.forget_all()


def kill_instance(scene):
    scene.topology.instances[1].kill()
    scene.topology.replace(1)


# What fails, and how; two that come at once concern different parts.
TOGETHER = {
    "replica-killed": ("replica", during(lambda topology: topology.standbys[0].kill(), lambda topology: topology.standbys[0].start())),
    "redis-killed": ("redis", during(lambda topology: topology.redis.kill(), lambda topology: topology.redis.start())),
    "primary-restarted": ("primary", during(lambda topology: topology.primary.kill(), lambda topology: topology.primary.start())),
    "primary-hung": ("primary", during(lambda topology: topology.primary.stand_still(), lambda topology: topology.primary.stand_still(goes_on=True))),
    "connections-cut": ("connections", cut),
    "half-open": ("connections", forget),
    "instance-killed": ("instance", kill_instance),
}


def choose(seed):
    pairs = [pair for pair in itertools.combinations(sorted(TOGETHER), 2) if len({TOGETHER[name][0] for name in pair}) == 2]
    return random.Random(seed).choice(pairs)


@row("two-at-once", "two faults at once, chosen by a seed", LOSES_ONE, may_fail=DATABASE | KILLED)
def two_at_once(scene):
    chosen = choose(scene.options.seed)
    scene.note(f"seed {scene.options.seed}: {' and '.join(chosen)}")
    problems = []

    def run(name):
        try:
            TOGETHER[name][1](scene)
        except Exception as problem:
            problems.append(problem)
    threads = [threading.Thread(target=run, args=(name,)) for name in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
