"""The image without an engine: the Dockerfile is linted, the steps that make its root are run as they stand there, with a
program that was built already in place of the one that the stage before builds, and what they give is started like the image
is: as its user, with a root that nobody can write to. Not here: the stage that compiles. Needs root, for the namespaces.

usage: image.py PROGRAM"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from servers import READY_SECONDS, free_port

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
MOST_BYTES = 60 * 1000 * 1000
STOP_SECONDS = 40


def main(program):
    subprocess.run(["hadolint", DOCKERFILE], check=True)
    stages = instructions(DOCKERFILE.read_text())
    steps = [text for stage, name, text in stages if name == "RUN" and "/root-of-image" in text]
    assert len(steps) == 1, "one step makes the root of the image"
    shell = next(json.loads(text) for stage, name, text in stages if name == "SHELL")
    last = {name: text for stage, name, text in stages if stage == stages[-1][0]}
    assert last["COPY"] == "--from=build /root-of-image /", last
    environment = dict(pair.split("=", 1) for pair in last["ENV"].split())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        root, data = folder / "root", folder / "data"
        make_root(program, shell, steps[0], root)
        size = sum(file.lstat().st_size for file in root.rglob("*") if file.is_file() and not file.is_symlink())
        print(f"image: {size / 1e6:.1f} MB in {sum(1 for file in root.rglob('*') if file.is_file())} files")
        assert size < MOST_BYTES or "/release/" not in str(program), "the image is too large"
        data.mkdir()
        (root / "data").mkdir()
        uid = int(last["USER"].split(":")[0])
        os.chown(data, uid, uid)
        run(root, data, uid, environment | {
            "PORT": str(free_port()), "HOST": "127.0.0.1", "XP_HTTP_METRICS_ADDRESS": "main", "XP_HTTP_DRAIN_DELAY": "0s",
            "DATABASE_URL": "sqlite:/data/xp.db", "XP_AUTH_SECRET": "a secret of at least 32 characters",
            "RUST_LOG": "warn",
        })


def instructions(text):
    """Each instruction as its stage's number, its name and its text."""
    stage, found = 0, []
    without_comments = "\n".join(line for line in text.split("\n") if not line.startswith("#"))
    for line in re.sub(r"\\\n\s*", "", without_comments).split("\n"):
        if line.strip():
            name, _, rest = line.partition(" ")
            stage += name == "FROM"
            found.append((stage, name, rest.strip()))
    return found


def make_root(program, shell, step, root):
    stripped = root.parent / "xp"
    subprocess.run(["strip", "-o", stripped, program], check=True)
    root.mkdir()
    script = f"""set -e
        mount -t tmpfs none /usr/local/bin
        cp {stripped} /usr/local/bin/xp
        {step.replace("/root-of-image", str(root))}"""
    subprocess.run(["unshare", "--mount", *shell, script], check=True)
    stripped.unlink()


def run(root, data, uid, environment):
    inside = f"""set -e
        mount --bind {root} {root} && mount -o remount,bind,ro {root}
        mount --bind {data} {root}/data
        exec chroot --userspec={uid}:{uid} {root} /usr/local/bin/xp "$@" """
    start = lambda *args, **more: subprocess.Popen(  # noqa: E731
        ["unshare", "--mount", "sh", "-c", inside, "sh", *args], env={"PATH": os.environ["PATH"], **environment}, **more)
    server = start("serve", "--migrate")
    try:
        url = f"http://127.0.0.1:{environment['PORT']}/readyz"
        wait_until_ready(server, url)
        assert start("healthcheck").wait(10) == 0, "healthcheck says that it is ready"
        query = urllib.request.Request(url.replace("readyz", "graphql"), b'{"query": "{ __typename }"}', {"content-type": "application/json"})
        with urllib.request.urlopen(query, timeout=10) as answer:
            assert answer.read() == b'{"data":{"__typename":"Query"}}'
        server.send_signal(signal.SIGTERM)
        assert server.wait(STOP_SECONDS) == 0, "it ends with exit code 0"
    finally:
        if server.poll() is None:
            server.kill()
    assert start("healthcheck", stderr=subprocess.DEVNULL).wait(10) == 1, "healthcheck says that nobody is there"
    print("image: served as its user from a read-only root, and stopped")


def wait_until_ready(server, url):
    for _ in range(READY_SECONDS * 10):
        assert server.poll() is None, f"it ended with exit code {server.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"it is not ready after {READY_SECONDS} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
