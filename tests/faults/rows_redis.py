"""Rows about Redis: whatever becomes of it, requests go to the database, none fails and nothing stale is answered. Not here: how Redis is
started (redis_servers.py)."""

import signal

from row import Sabotage, row
from topology import Needs

# An instance without Redis finds another one by its row in `instances`, and caches nothing then; here the rows are hidden.
HIDDEN = """create function hide() returns trigger language plpgsql as 'begin return null; end';
create trigger hide before insert or update on instances for each row execute function hide();
delete from instances;"""


def hide_instances(scene):
    scene.topology.primary.sql(HIDDEN)


ALONE = Sabotage(
    "defence", "one instance has no Redis, and none finds the other one", ("stale",), needs={"second": (("REDIS_URL", ""),)}, before=hide_instances
)


@row("redis-killed", "Redis is killed, and comes back empty", ALONE)
def redis_killed(scene):
    redis = scene.topology.redis
    redis.kill()
    scene.wait()
    redis.start()


@row("redis-hung", "Redis stands still (SIGSTOP), and goes on", ALONE)
def redis_hung(scene):
    redis = scene.topology.redis
    redis.signal(signal.SIGSTOP)
    scene.wait()
    redis.signal(signal.SIGCONT)


@row("redis-unreachable", "one instance alone cannot reach Redis", ALONE, is_short=False)
def redis_unreachable(scene):
    """Who asks the other one still reads what was acknowledged."""
    way = scene.topology.paths[0].redis
    way.is_refusing = True
    way.cut_all()
    scene.wait()
    way.is_refusing = False


@row("redis-flushed", "all that Redis has is deleted, again and again", ALONE, is_short=False)
def redis_flushed(scene):
    for _ in range(10):
        assert scene.topology.redis.cli("flushall") == "OK"
        scene.wait(0.1)


@row("redis-full", "Redis has no memory left, and takes no writes", ALONE, is_short=False)
def redis_full(scene):
    redis = scene.topology.redis
    redis.cli("config", "set", "maxmemory-policy", "noeviction")
    redis.cli("config", "set", "maxmemory", "1")
    scene.wait()
    redis.cli("config", "set", "maxmemory", "0")


@row("redis-failover", "the sentinels replace a master that was killed", ALONE, needs=Needs(sentinels=True))
def redis_failover(scene):
    group = scene.topology.redis
    old = group.master()
    old.kill()
    group.wait_for_another(old)
    scene.wait(0.5)
    old.start()
    scene.wait(0.5)


@row("redis-partitioned", "the sentinels replace a master that goes on for its clients", ALONE, needs=Needs(sentinels=True))
def redis_partitioned(scene):
    group = scene.topology.redis
    old = group.master()
    group.isolate(old)
    group.wait_for_another(old)
    scene.wait()
    scene.expect(old.cli("role").startswith("master"), "the old master goes on")
