"""Rows about PostgreSQL: its standbys, its primary, and the connections to them. Not here: Redis (rows_redis.py), instances
(rows_instances.py)."""

import itertools
import signal
import socket
import struct
import time

import postgres
from ledger import FaultLoad, Instances
from load import ACKNOWLEDGED, RECORDERS
from proxy import DOWN, UP
from row import DATABASE, Sabotage, row
from topology import Needs

READS_STANDBY = Sabotage(
    "defence", "reads run on a standby without a look at how far it is", ("code", "stale"), reads_standby=True
)
CARELESS = Sabotage(
    "defence", "clients take each failure for not done, and send again without a key", ("doubled",), is_careless=True
)
PATIENT = {"XP_HTTP_REQUEST_TIMEOUT": "60s", "XP_DATABASE_STATEMENT_TIMEOUT": "60s", "XP_DATABASE_ACQUIRE_TIMEOUT": "60s"}
NO_TIMEOUTS = Sabotage(
    "defence", "time-outs of requests, statements and connections at a minute", ("slow", "recovery"), needs={"settings": tuple(PATIENT.items())}
)


def lose_one(scene):
    """One submission that was acknowledged is gone."""
    lost = next(write for write in scene.load.acknowledged() if write.kind == "submission")
    scene.topology.primary.sql(f"delete from form_submissions where data->>'name' = '{lost.key}'")


def double_one(scene):
    """One form that was acknowledged is there twice."""
    doubled = next(write for write in scene.load.acknowledged() if write.kind == "form")
    columns = scene.topology.primary.sql(
        "select string_agg(quote_ident(column_name), ', ') from information_schema.columns where table_name = 'forms' and column_name <> 'id'"
    )
    scene.topology.primary.sql(f"insert into forms (id, {columns}) select gen_random_uuid(), {columns} from forms where title = '{doubled.key}'")


LOSES_ONE = Sabotage("check", "an acknowledged submission is deleted", ("lost",), after=lose_one)
DOUBLES_ONE = Sabotage("check", "an acknowledged form is stored twice", ("doubled",), after=double_one)


# --- standbys --------------------------------------------------------------------------------------------------------

def wait_beside_one_standby(scene):
    scene.wait()
    scene.expect(scene.topology.figure("database_replica_in_rotation") == 1, "one standby is out of rotation")


@row("replica-killed", "a standby is killed, and comes back", READS_STANDBY)
def replica_killed(scene):
    standby = scene.topology.standbys[0]
    standby.kill()
    wait_beside_one_standby(scene)
    standby.start()


@row("replica-hung", "a standby stands still (SIGSTOP), and goes on", READS_STANDBY)
def replica_hung(scene):
    standby = scene.topology.standbys[0]
    standby.stand_still()
    wait_beside_one_standby(scene)
    standby.stand_still(goes_on=True)


@row("replica-lagging", "both standbys are two seconds behind", READS_STANDBY)
def replica_lagging(scene):
    for delay in ("2s", "0"):
        for standby in scene.topology.standbys:
            standby.sql(f"alter system set recovery_min_apply_delay = '{delay}'")
            standby.sql("select pg_reload_conf()")
        if delay != "0":
            scene.wait()
            scene.expect(scene.topology.figure("database_replica_fallbacks_total", label='reason="behind"') > 0, "reads fell back to the primary")


@row("replica-promoted", "a standby is promoted by mistake, beside its primary", READS_STANDBY)
def replica_promoted(scene):
    mistaken = scene.topology.standbys[0]
    assert mistaken.sql("select pg_promote()") == "t"
    scene.heal()
    scene.wait()
    scene.expect(scene.topology.figure("database_replica_in_rotation") == 1, "one standby is out of rotation")


# --- the primary -----------------------------------------------------------------------------------------------------

def pile_up_commits(scene, seconds=0.3):
    """Nothing comes to the standbys for a moment, so that all writers wait in COMMIT when the primary is lost."""
    held_up = [pid for standby in scene.topology.standbys for pid in postgres.receivers(standby.data)]
    postgres.signal_all(held_up, signal.SIGSTOP)
    time.sleep(seconds)
    return held_up


def go_on(held_up):
    postgres.signal_all(held_up, signal.SIGCONT)


def let_end(held_up):
    """They end before they read what has come meanwhile."""
    postgres.signal_all(held_up, signal.SIGTERM)
    go_on(held_up)


@row("primary-restarted", "the primary is killed (SIGKILL) while writers wait in COMMIT, and started again", CARELESS, may_fail=DATABASE)
def primary_restarted(scene):
    primary = scene.topology.primary
    held_up = pile_up_commits(scene)
    primary.kill()
    let_end(held_up)
    scene.wait(0.5)
    primary.start()


@row(
    "primary-replaced", "the primary is killed, and a standby promoted",
    Sabotage("defence", "commits do not wait for a standby, and those are two seconds behind", ("lost",), needs={"synchronous": False}),
    may_fail=DATABASE, needs=Needs(is_replaceable=True),
)
def primary_replaced(scene):
    held_up = pile_up_commits(scene, 0.3 if scene.topology.needs.synchronous else 2)
    scene.topology.primary.kill()
    let_end(held_up)
    time.sleep(0.5)
    scene.topology.promote()
    scene.heal()
    scene.wait()


@row("primary-hung", "the primary stands still (SIGSTOP), and goes on", CARELESS, may_fail=DATABASE, holds=(6, 30))
def primary_hung(scene):
    held_up = pile_up_commits(scene)
    scene.topology.primary.stand_still()
    go_on(held_up)
    scene.wait()
    scene.topology.primary.stand_still(goes_on=True)


@row(
    "primary-zombie", "the primary stands still, is replaced, and goes on as if nothing had been",
    Sabotage(
        "defence", "commits do not wait for a standby, and one instance knows the old primary only", ("lost", "stale"),
        needs={"synchronous": False, "second_is_bound": True},
    ),
    may_fail=DATABASE, needs=Needs(is_replaceable=True), holds=(8, 30),
)
def primary_zombie(scene):
    old = scene.topology.primary
    old.stand_still()
    time.sleep(1)
    scene.topology.promote()
    scene.heal()
    scene.wait(0.5)
    old.stand_still(goes_on=True)
    scene.wait(0.5)


@row("read-only", "the primary takes no writes for a while", LOSES_ONE, may_fail=DATABASE)
def read_only(scene):
    primary = scene.topology.primary
    for value in ("on", "off"):
        primary.sql(f"alter system set default_transaction_read_only = {value}")
        primary.sql("select pg_reload_conf()")
        if value == "on":
            scene.wait()
            scene.expect(scene.topology.instances[0].ready()[0] == 503, "/readyz says that nothing can be stored")


FIRST_BESIDE = 50_000_000


def beside(scene):
    """A writer of the first instance, beside the load and with keys of its own."""
    topology = scene.topology
    writer = FaultLoad(scene.load.rate, scene.load.is_careless)
    writer.server, writer.tokens, writer.form, writer.goes_on = topology.instances[0], topology.template.tokens, topology.template.form, True
    writer.serial = itertools.count(FIRST_BESIDE)
    scene.loads.append(writer)
    return writer


# --- connections -----------------------------------------------------------------------------------------------------

def not_idle(scene):
    scene.is_idle = False


@row(
    "idle-closed", "connections are closed while nobody uses them",
    Sabotage("check", "they are closed while they are used", ("code",), before=not_idle),
    is_short=False,
)
def idle_closed(scene):
    scene.heal()
    for _ in range(3):
        if getattr(scene, "is_idle", True):
            scene.load.is_paused = True
            time.sleep(1.5)
        for way in scene.ways("databases"):
            way.cut_all()
        time.sleep(0.05)
        scene.load.is_paused = False
        scene.wait(0.3)


@row("half-open", "all connections are forgotten on the way, and nobody is told", NO_TIMEOUTS, may_fail=DATABASE)
def half_open(scene):
    forgotten = sum(way.forget_all() for way in scene.ways("all"))
    scene.heal()
    scene.note(f"{forgotten} connections")
    scene.expect(forgotten > 10, "there were connections")
    scene.wait()


@row(
    "forgotten-in-transaction", "the connection of a transaction is forgotten while that holds the lock of a row", NO_TIMEOUTS, may_fail=DATABASE,
)
def forgotten_in_transaction(scene):
    """PostgreSQL is not told, and would keep the transaction until it finds out by itself: for two hours by default."""
    writer, way = beside(scene), scene.topology.paths[0].primary
    way.forget_once(f"drill {FIRST_BESIDE}".encode())
    writer.rename(RECORDERS[0])
    scene.heal()
    scene.expect(not way.forgets and writer.writes[0].outcome != ACKNOWLEDGED, "the connection was forgotten")
    scene.wait()


@row("vanished", "nothing comes through to the primary, new connections included", NO_TIMEOUTS, may_fail=DATABASE, is_short=False)
def vanished(scene):
    ways = [paths.primary for paths in scene.topology.paths]
    for way in ways:
        way.swallow(True)
    scene.wait()
    for way in ways:
        way.swallow(False)


@row("primary-slow", "the way to the primary takes 20 ms more in each direction", LOSES_ONE, is_short=False)
def primary_slow(scene):
    for delay in (0.02, 0):
        for paths in scene.topology.paths:
            paths.primary.delay = delay
        if delay:
            scene.wait()


# After so many bytes: of COMMIT, of the answer to it, and, in 32 parts, of all that a write says and is told.
COMMIT, DONE = len(b"Q\0\0\0\x0bCOMMIT\0"), len(b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\5I")
IN_COMMIT = [(UP, after) for after in range(COMMIT + 1)] + [(DOWN, after) for after in range(DONE + 1)]
PARTS = 32


@row("cut-in-commit", f"the connection of a write is cut at {PARTS + len(IN_COMMIT)} places", CARELESS, may_fail=DATABASE, holds=(0, 0))
def cut_in_commit(scene):
    # The first instance is asked for these writes only.
    scene.load.server = Instances([scene.topology.instances[1]])
    writer, way, cuts = beside(scene), scene.topology.paths[0].primary, 0
    time.sleep(0.5)
    sizes = measure(way, writer)
    places = [(direction, sizes[direction] * part // PARTS, None) for part, direction in zip(range(PARTS), itertools.cycle((UP, DOWN)))]
    places += [(direction, after, b"COMMIT") for direction, after in IN_COMMIT]
    for number, place in enumerate(places):
        way.cut_once(*place)
        # In turn without a key and with one: what is refused as not done must not be there, and what is repeated is there once.
        (writer.create_form, writer.create_form_until_acknowledged)[number // 2 % 2]()
        cuts += way.was_cut()
    outcomes = writer.outcomes()[0]
    scene.note(f"{cuts} of {len(places)} were cut (a write: {sizes[UP]} bytes up, {sizes[DOWN]} down): {dict(outcomes)}")
    scene.expect(cuts >= len(places) * 3 // 4, f"connections were cut: {cuts}")
    scene.expect(outcomes["OUTCOME_UNKNOWN"] >= len(IN_COMMIT) // 4, "commits were cut")


def measure(way, writer):
    """How many bytes a write takes, up and down, where its statements are prepared already."""
    sizes = {UP: [], DOWN: []}
    for _ in range(10):
        way.carried.clear()
        writer.create_form()
        for direction, all_sizes in sizes.items():
            all_sizes.append(way.carried[direction])
    return {direction: min(all_sizes) for direction, all_sizes in sizes.items()}


@row("connections-used-up", "others take all connections of the primary", LOSES_ONE, may_fail=DATABASE, is_short=False)
def connections_used_up(scene):
    primary, hogs = scene.topology.primary, []
    # Until others have all, the server's account gets none: it is quicker than they are.
    primary.sql("create role other login")
    primary.sql("alter role app connection limit 0")
    primary.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'")
    try:
        hogs += iter(lambda: connect(primary.port), None)
        primary.sql("alter role app connection limit -1")
        scene.wait()
    finally:
        for hog in hogs:
            hog.close()
    scene.note(f"{len(hogs)} connections of others")
    scene.expect(len(hogs) > 30, "all connections were taken")


def connect(port):
    """A connection of an account of its own that works; nothing where there is none left."""
    sock = socket.create_connection(("127.0.0.1", port), 5)
    words = b"user\0other\0database\0xp\0\0"
    sock.sendall(struct.pack("!II", 8 + len(words), 3 << 16) + words)
    said = b""
    while part := sock.recv(4096):
        said += part
        # Ready for a query.
        if said.endswith(b"Z\0\0\0\5I"):
            return sock
    sock.close()
    return None


@row(
    "disk-full", "the disk of the primary's tables is full", LOSES_ONE, may_fail=DATABASE, needs=Needs(small_disk=True),
)
def disk_full(scene):
    filler = scene.topology.primary.data.parent / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass
    scene.wait()
    filler.unlink()
    scene.expect(scene.topology.primary.process.poll() is None, "PostgreSQL runs")


@row("lock-held", "somebody holds the lock of a table", NO_TIMEOUTS, may_fail=DATABASE, holds=(8, 8), slowest=5)
def lock_held(scene):
    lock = "lock table forms, user_locations in access exclusive mode"
    scene.topology.primary.sql(f"begin; {lock}; select pg_sleep({scene.hold}); rollback;")


@row(
    "pgbouncer-restarted", "PgBouncer is killed while writers wait in COMMIT, and started again", CARELESS, may_fail=DATABASE,
    needs=Needs(pooler=True),
)
def pgbouncer_restarted(scene):
    held_up = pile_up_commits(scene)
    scene.topology.pooler.kill()
    go_on(held_up)
    scene.wait(0.5)
    scene.topology.pooler.start()
