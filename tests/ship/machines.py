"""The path of docs/operations.md from three empty machines to an installation, command by command as deploy/machines has them:
each machine is a root of its own (Debian's packages from this machine's /usr, its own /etc, /var and the rest), and loopback is
the network between them. Then it is used, saved, upgraded while it is asked, and rolled back. Not here: systemd, in whose place
systemctl.py stands. Needs root.

usage: machines.py PROGRAM"""

import json
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from containers import in_own_network

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "deploy/machines"
ADDRESSES = {"a": "127.28.77.1", "b": "127.28.77.2", "c": "127.28.77.3"}
# What the packages bring: folders, and whose they are.
FOLDERS = {
    "var/lib/postgresql": "postgres", "var/lib/redis": "redis", "var/lib/prometheus": "prometheus", "var/log/postgresql": "postgres",
    "var/log/nginx": "root", "var/run/postgresql": "postgres", "etc/redis": "redis", "etc/postgresql": "postgres", "var/lib/nginx": "root",
}
# In this order: the machine and the step.
PATH = [
    *((name, "program") for name in "abc"), ("a", "secrets"), ("a", "primary"), ("b", "standby"), ("a", "redis"), ("b", "redis"),
    *((name, "sentinel") for name in "abc"), *((name, "server") for name in "abc"), ("a", "account"), ("a", "proxy"), ("a", "monitoring"),
    ("a", "backup"),
]
WAIT_SECONDS, STEP_SECONDS = 120, 180


def main(program):
    in_own_network()
    page = (ROOT / "docs/operations.md").read_text()
    steps = {file.stem for file in STEPS.glob("*.sh")}
    assert steps == {step for _, step in PATH} | {"upgrade", "rollback"}, "each step is run here"
    missing = [step for step in steps if (STEPS / f"{step}.sh").read_text() not in page]
    assert not missing, f"docs/operations.md does not show these steps as they are: {missing}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        machines = {one: Machine(one, folder, program) for one in ADDRESSES}
        try:
            follow(machines)
        except BaseException:
            for machine in machines.values():
                machine.show_logs()
            raise
        finally:
            for machine in machines.values():
                machine.end()
    return 0


def follow(machines):
    a = machines["a"]
    for name in "ab":
        # As Debian's package does when it is installed.
        machines[name].run("pg_createcluster 15 main && pg_ctlcluster 15 main start")
    a.write("src/password.txt", "a long and private password\n")
    a.run("mkdir -p /etc/nginx/tls && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=a "
          "-addext subjectAltName=DNS:a,IP:127.28.77.1 -keyout /etc/nginx/tls/privkey.pem -out /etc/nginx/tls/fullchain.pem 2>/dev/null")
    for name, step in PATH:
        machines[name].step(step)
        if step == "secrets":
            for other in "bc":
                shutil.copytree(a.root / "etc/xp-graph", machines[other].root / "etc/xp-graph")
    site = Site(a)
    wait_for(lambda: site.is_written_and_read("Ann"), "a write by the proxy is read on all")
    wait_for(lambda: reads_on_standby(site, machines), "reads run on the standby")
    targets = lambda: json.loads(site.get("http://a:9090/api/v1/targets"))["data"]["activeTargets"]  # noqa: E731
    wait_for(lambda: sorted(one["health"] for one in targets()) == ["up"] * 4, "Prometheus has all targets")
    wait_for(lambda: list((a.root / "backup/wal").iterdir()), "the log is archived")
    with site.asked_all_the_time():
        for name in "abc":
            machines[name].step("upgrade")
        for name in "abc":
            machines[name].step("rollback")
    assert site.failed == 0 and site.answered > 100, f"{site.failed} of {site.answered} requests failed"
    assert site.is_written_and_read("Bea")
    print(f"machines: followed the page; upgraded and rolled back under {site.answered} requests, of which none failed")


def reads_on_standby(site, machines):
    site.is_written_and_read(f"Ann {time.monotonic_ns()}")
    counts = [line for name in machines for line in site.get(f"http://{name}:9464/metrics").splitlines() if line.startswith("database_replica_reads_total")]
    return any(float(line.rpartition(" ")[2]) > 0 for line in counts)


def wait_for(condition, what):
    until, seen = time.monotonic() + WAIT_SECONDS, None
    while time.monotonic() < until:
        try:
            if condition():
                return
        except (OSError, AssertionError) as error:
            seen = error
        time.sleep(0.3)
    raise AssertionError(f"{what}: not after {WAIT_SECONDS} s ({seen})")


class Machine:
    def __init__(self, name, folder, program):
        self.name, self.root = name, folder / name
        for place in ("etc", "usr", "dev", "proc", "tmp", "src/target/release", "run", "var/log", "backup", "root"):
            (self.root / place).mkdir(parents=True)
        (self.root / "tmp").chmod(0o1777)
        (self.root / "var/run").symlink_to("/run")
        for link in ("bin", "sbin", "lib", "lib64"):
            (self.root / link).symlink_to(f"usr/{link}")
        shutil.copytree("/etc", self.root / "etc", symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("postgresql", "redis", "xp-graph"))
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{address} {other}\n" for other, address in ADDRESSES.items()))
        (self.root / "etc/resolv.conf").unlink(missing_ok=True)
        for place, owner in FOLDERS.items():
            place = self.root / place.replace("var/run", "run")
            place.mkdir(parents=True, exist_ok=True)
            shutil.chown(place, owner, owner)
        shutil.copytree(ROOT / "deploy", self.root / "src/deploy")
        shutil.copy(program, self.root / "src/target/release/xp")
        shutil.copy(ROOT / "tests/ship/systemctl.py", self.root / "src/systemctl")
        root = shlex.quote(str(self.root))
        # One that holds the namespaces, which every command enters.
        self.holder = subprocess.Popen(["unshare", "--mount", "--uts", "sh", "-ec", f"""
            hostname {name}
            mount --bind {root} {root}
            mount --bind /usr {root}/usr && mount -o remount,bind,ro {root}/usr
            mount -t tmpfs none {root}/usr/local/bin && mount -t tmpfs none {root}/usr/local/sbin
            cp {root}/src/systemctl {root}/usr/local/sbin/systemctl
            mount --rbind /dev {root}/dev && mount --rbind /proc {root}/proc
            echo laid; exec sleep infinity"""], stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "laid\n", name

    def write(self, file, text):
        (self.root / file).write_text(text)

    def step(self, step):
        print(f"machines: on {self.name}: {step}", flush=True)
        self.run(f"set -x\n{(STEPS / f'{step}.sh').read_text()}", step)

    def run(self, script, what="a command"):
        done = subprocess.run(
            ["nsenter", f"--target={self.holder.pid}", "--mount", "--uts", "--", "chroot", self.root, "env", "-i",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "bash", "-euo", "pipefail",
             "-c", f"cd /src\nulimit -v 6000000\n{script}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=STEP_SECONDS, check=False,
        )
        assert done.returncode == 0, f"on {self.name}, {what}: exit code {done.returncode}: {done.stdout[-3000:]}"
        return done.stdout

    def show_logs(self):
        for file in sorted((self.root / "var/log").rglob("*.log")):
            if file.stem in ("xp", "redis-server", "redis-sentinel", "nginx", "prometheus", "error") or "postgresql" in file.name:
                print(f"--- {self.name}: {file.name}:\n{file.read_text(errors='replace')[-2000:]}", file=sys.stderr)

    def processes(self):
        """All whose root is this machine's."""
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and os.readlink(folder / "root") == str(self.root):
                    yield int(folder.name)
            except OSError:
                pass

    def end(self):
        """Ends what runs on it, at once."""
        until = time.monotonic() + 30
        while (left := list(self.processes())) and time.monotonic() < until:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)
        self.holder.kill()
        self.holder.wait()
        assert not left, f"{self.name}: {left} go on"


class Site:
    """What stands at the proxy, for a client that trusts its certificate; and each machine by its name."""

    def __init__(self, machine):
        self.machine, self.answered, self.failed, self.goes_on = machine, 0, 0, False
        context = ssl.create_default_context(cafile=machine.root / "etc/nginx/tls/fullchain.pem")
        self.opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
        self.token = machine.run(
            "for name in database_url database_replica_urls redis_url; do export ${name^^}_FILE=/etc/xp-graph/$name; done\n"
            "XP_AUTH_SECRET_FILE=/etc/xp-graph/auth_secret xp --config /etc/xp-graph/xp.toml token mint --ttl-seconds 3600 --user root@example.com"
        ).strip().splitlines()[-1]

    def get(self, url, body=None):
        for name, address in ADDRESSES.items():
            url = url.replace(f"//{name}:", f"//{address}:")
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        with self.opener.open(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return answer.read().decode()

    def ask(self, query, origin="https://a:443"):
        answer = json.loads(self.get(f"{origin}/graphql", json.dumps({"query": query}).encode()))
        assert "errors" not in answer, answer
        return answer["data"]

    def is_written_and_read(self, name):
        self.ask(f'mutation {{ updateProfile(input: {{ displayName: "{name}" }}) {{ userErrors {{ code }} }} }}')
        seen = [self.ask("{ me { displayName } }", f"http://{one}:8080")["me"]["displayName"] for one in ADDRESSES]
        assert seen == [name] * len(ADDRESSES), seen
        return True

    def asked_all_the_time(self):
        site = self

        class Load:
            def __enter__(self):
                site.goes_on = True
                self.thread = threading.Thread(target=site.ask_along)
                self.thread.start()

            def __exit__(self, *_):
                site.goes_on = False
                self.thread.join()

        return Load()

    def ask_along(self):
        while self.goes_on:
            self.answered += 1
            try:
                self.ask(f"{{ a{self.answered}: __typename me {{ id }} }}")
            except (OSError, AssertionError, ValueError) as error:
                self.failed += 1
                print(f"machines: a request failed: {error}", flush=True)
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
