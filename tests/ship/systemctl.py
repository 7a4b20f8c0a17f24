#!/usr/bin/python3
"""Stands in for `systemctl` on a machine of machines.py, on which no systemd runs: starts and stops what a unit names, XP Graph by
its own unit with the drop-ins, its account and its credentials. Not here: what a unit forbids its process (`systemd-analyze` looks
at that)."""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import time

UNITS = pathlib.Path("/etc/systemd/system")
# Debian's, of which no unit may be installed: account and command.
OTHERS = {
    "redis-server": ("redis", ["redis-server", "/etc/redis/redis.conf", "--daemonize", "no"]),
    "redis-sentinel": ("redis", ["redis-server", "/etc/redis/sentinel.conf", "--sentinel", "--daemonize", "no"]),
    "nginx": ("root", ["nginx", "-g", "daemon off;"]),
    "prometheus": ("prometheus", ["prometheus", "--storage.tsdb.path=/var/lib/prometheus", f"--web.listen-address={os.uname().nodename}:9090"]),
}
# What systemd takes for a service with DynamicUser=yes.
DYNAMIC_USER = 61184
STOP_SECONDS = 60


def main(what, *names):
    names = [name.removesuffix(".service") for name in names if not name.startswith("-")]
    for name in names:
        if what in ("stop", "restart"):
            stop(name)
        if what in ("start", "restart", "enable"):
            start(name)


def start(name):
    account, command, environment = of_unit(name) if (UNITS / f"{name}.service").exists() else (*OTHERS[name], {})
    user = account if isinstance(account, int) else pwd.getpwnam(account).pw_uid
    group = user if isinstance(account, int) else pwd.getpwnam(account).pw_gid
    with open(f"/var/log/{name}.log", "ab") as log:
        process = subprocess.Popen(
            command, env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin", **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            user=user, group=group, extra_groups=[], cwd="/", start_new_session=True,
        )
    pathlib.Path(f"/run/{name}.started").write_text(str(process.pid))


def of_unit(name):
    """Account, command and environment of a unit with its drop-ins."""
    files = [UNITS / f"{name}.service", *sorted((UNITS / f"{name}.service.d").glob("*.conf"))]
    lines = [line.partition("=") for file in files for line in file.read_text().splitlines() if "=" in line and not line.startswith("#")]
    credentials = pathlib.Path(f"/run/credentials/{name}.service")
    shutil.rmtree(credentials, ignore_errors=True)
    credentials.mkdir(parents=True)
    command, environment = None, {}
    for key, _, value in lines:
        value = value.replace("%d", str(credentials))
        if key == "LoadCredential":
            file, _, source = value.partition(":")
            shutil.copy(source, credentials / file)
        elif key == "Environment":
            environment |= dict(pair.split("=", 1) for pair in value.split())
        elif key == "ExecStart":
            command = value.split()
    for file in [credentials, *credentials.iterdir()]:
        os.chown(file, DYNAMIC_USER, DYNAMIC_USER)
        file.chmod(0o500 if file == credentials else 0o400)
    return DYNAMIC_USER, command, environment


def stop(name):
    file = pathlib.Path(f"/run/{name}.started")
    if not file.exists():
        return
    pid = int(file.read_text())
    os.kill(pid, signal.SIGTERM)
    for _ in range(STOP_SECONDS * 20):
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
        except OSError:
            break
        time.sleep(0.05)
    else:
        sys.exit(f"{name} has not ended after {STOP_SECONDS} s")
    file.unlink()


main(*sys.argv[1:])
