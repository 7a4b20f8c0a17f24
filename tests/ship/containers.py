"""Services of a Compose file as processes: each in a mount namespace of its own, with the files, folders, secrets and memory file
systems that it is given, a root that cannot be written, its account, no capability, its environment and its command. What an image
would bring comes from this machine's /usr. All share one network namespace, in which there is loopback only: an address of the
file is replaced by one of 127.0.0.0/8. Not here: what is checked (compose.py).

Needs root. `in_own_network` starts the calling program again in such a namespace."""

import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

HEALTHY_SECONDS, STOP_SECONDS = 180, 90
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
# Of the address space of a server, in KiB.
MOST_KIBIBYTES = 6_000_000
UNIT = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def in_own_network():
    """Begins anew in a network namespace with nothing but loopback, which no other process can reach."""
    if "XP_OWN_NETWORK" not in os.environ:
        os.environ["XP_OWN_NETWORK"] = "yes"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack("16xh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


def seconds(duration):
    return sum(float(number) * UNIT[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smh])", duration))


class Installation:
    """All services of a file, as `docker compose config --format json` gives it. `programs` are images that are one program, as
    (path inside, path here, account)."""

    def __init__(self, config, folder, programs, path):
        self.config, self.folder, self.programs, self.path = config, folder, programs, path
        self.addresses = {}
        for number, (name, service) in enumerate(sorted(config["services"].items())):
            fixed = (service["networks"].get("inside") or {}).get("ipv4_address")
            self.addresses[name] = loopback(fixed) if fixed else f"127.28.77.{130 + number}"
        hosts = "".join(f"{address} {name}\n" for name, address in self.addresses.items())
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        self.volumes = {name: folder / "volumes" / name for name in config["volumes"]}
        for volume in self.volumes.values():
            volume.mkdir(parents=True)
        self.containers = {name: Container(self, name, service) for name, service in config["services"].items()}

    def __getitem__(self, name):
        return self.containers[name]

    def up(self, names):
        """Starts services and what they depend on, each when the conditions hold that it names."""
        for name in names:
            container = self[name]
            if container.process:
                continue
            needed = container.service.get("depends_on", {})
            self.up(needed)
            for other, how in needed.items():
                self[other].wait_until(how["condition"])
            container.start()

    def stop(self):
        for container in self.containers.values():
            if container.process and container.process.poll() is None:
                container.signal(container.service.get("stop_signal", "SIGTERM"))
        for container in self.containers.values():
            if container.process:
                container.wait_for_end()


def loopback(text):
    return text.replace("172.28.77.", "127.28.77.")


class Container:
    def __init__(self, installation, name, service):
        self.installation, self.name, self.service, self.process = installation, name, service, None
        self.address, self.said = installation.addresses[name], ""
        self.log_file = installation.folder / f"{name}.log"
        self.root = installation.folder / "containers" / name / "root"
        self.program = installation.programs.get(service["image"].split(":")[0])
        self.user, _, self.group = (service.get("user") or self.program[2]).partition(":")
        self.make_root()
        self.enter = self.script()

    def own(self, text):
        """With addresses of this machine: where all are meant, its own one."""
        return loopback(text).replace("0.0.0.0", self.address)

    def make_root(self):
        for folder in ("etc", "usr", "dev", "proc", "tmp", "run/secrets", "var"):
            (self.root / folder).mkdir(parents=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            if Path("/", link).is_symlink():
                (self.root / link).symlink_to(f"usr/{link}")
        name = self.service["image"].split(":")[0].split("/")[-1]
        (self.root / "etc/passwd").write_text(f"{name}:x:{self.user}:{self.group}::/:/bin/sh\n")
        (self.root / "etc/nsswitch.conf").write_text("hosts: files\n")
        for file in ("/etc/ld.so.cache", self.installation.folder / "hosts"):
            shutil.copy(file, self.root / "etc")

    def script(self):
        """Lays the file systems, as the shell does it."""
        root, lines = self.root, ["set -e"]
        quoted = lambda *words: " ".join(shlex.quote(str(word)) for word in words)  # noqa: E731
        do = lambda *words: lines.append(quoted(*words))  # noqa: E731
        do("mount", "--bind", root, root)
        do("mount", "--bind", "/usr", root / "usr")
        do("mount", "-o", "remount,bind,ro", root / "usr")
        do("mount", "--rbind", "/dev", root / "dev")
        do("mount", "--rbind", "/proc", root / "proc")
        if self.program:
            inside, here, _ = self.program
            do("mount", "-t", "tmpfs", "none", root / Path(inside).parent.relative_to("/"))
            do("touch", root / inside[1:])
            do("mount", "--bind", here, root / inside[1:])
        for volume in self.service.get("volumes", []):
            source = self.installation.volumes[volume["source"]] if volume["type"] == "volume" else Path(volume["source"])
            if volume["type"] == "volume":
                os.chown(source, int(self.user), int(self.group))
            else:
                source = self.with_own_addresses(source)
            self.bind(do, source, volume["target"], volume.get("read_only"))
        for secret in self.service.get("secrets", []):
            source = Path(self.installation.config["secrets"][secret["source"]]["file"])
            self.bind(do, source, secret["target"], True)
        for mount in self.service.get("tmpfs", []):
            target, _, options = mount.partition(":")
            (root / target[1:]).mkdir(parents=True, exist_ok=True)
            do("mount", "-t", "tmpfs", "-o", options or "mode=1777", "none", root / target[1:])
        if self.service["read_only"]:
            do("mount", "-o", "remount,bind,ro", root)
        return "\n".join(lines)

    def bind(self, do, source, target, is_read_only):
        place = self.root / target[1:]
        if source.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        do("mount", "--bind", source, place)
        if is_read_only:
            do("mount", "-o", "remount,bind,ro", place)

    def with_own_addresses(self, source):
        if source.is_dir():
            return source
        text = self.own(source.read_text())
        if self.name == "nginx":
            # It asks from the address that it has; on loopback it has to be told.
            text = text.replace("listen 8081;", f"listen {self.address}:8081;\n  proxy_bind {self.address};")
        copy = self.root.parent / source.name
        copy.write_text(text)
        return copy

    def words(self, command):
        """What runs a command inside, behind the mounts."""
        limits = []
        if self.program:
            limits = ["prlimit", f"--as={MOST_KIBIBYTES * 1024}"]
        environment = {"PATH": self.installation.path, "HOME": "/", **(self.service.get("environment") or {})}
        return [
            "chroot", str(self.root), *limits, "setpriv", f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups",
            "--no-new-privs", "--bounding-set=-all", "env", "-i", *(f"{key}={self.own(value)}" for key, value in environment.items()),
            *(self.own(word.replace("$$", "$")) for word in command),
        ]

    def start(self, command=None):
        entrypoint = self.service["entrypoint"] or [self.program[0]]
        words = self.words([*entrypoint, *(command or self.service["command"] or [])])
        print(f"{self.name}: starts", flush=True)
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", f"{self.enter}\nexec {shlex.join(words)}"], cwd="/", stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )

    def execute(self, *command, stdin=""):
        """A command in the running container: as (exit code, output)."""
        words = ["nsenter", f"--target={self.process.pid}", "--mount", "--", *self.words(command)]
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=60, check=False, cwd="/")
        return done.returncode, done.stdout.strip() + done.stderr.strip() * (done.returncode != 0)

    def run(self, *command, stdin=""):
        code, output = self.execute(*command, stdin=stdin)
        assert code == 0, f"{self.name}: {' '.join(command)}: exit code {code}: {output}"
        return output

    def is_healthy(self):
        test = self.service["healthcheck"]["test"]
        command = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
        code, self.said = self.execute(*command)
        return code == 0

    def wait_until(self, condition):
        until = time.monotonic() + HEALTHY_SECONDS
        while time.monotonic() < until:
            code = self.process.poll()
            match condition:
                case "service_completed_successfully":
                    assert code in (None, 0), f"{self.name}: exit code {code}: {self.log()}"
                    if code == 0:
                        return
                case "service_healthy":
                    assert code is None, f"{self.name}: exit code {code}: {self.log()}"
                    if self.is_healthy():
                        return
                case _:
                    return
            time.sleep(0.2)
        raise AssertionError(f"{self.name}: not {condition} after {HEALTHY_SECONDS} s ({self.said}): {self.log()}")

    def signal(self, name):
        os.kill(self.process.pid, getattr(signal, name))

    def kill(self):
        self.signal("SIGKILL")
        self.process.wait()

    def wait_for_end(self):
        """The exit code, within the time that the file gives it."""
        patience = max(STOP_SECONDS, seconds(self.service.get("stop_grace_period", "10s")))
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"{self.name} has not ended after {patience:.0f} s: {self.log()}") from None

    def stop(self):
        self.signal(self.service.get("stop_signal", "SIGTERM"))
        return self.wait_for_end()

    def log(self):
        return self.log_file.read_text(errors="replace")[-3000:]
