"""PgBouncer before a PostgreSQL. Not here: what is done to it (rows_postgres.py)."""

import os
import shutil
import signal
import socket
import subprocess
import time

from postgres import as_account, free_port

START_SECONDS = 30


class PgBouncer:
    def __init__(self, folder, target):
        self.folder, self.port, self.process = folder, free_port(), None
        self.file = folder / "pgbouncer.ini"
        self.file.write_text(
            f"[databases]\n* = host=127.0.0.1 port={target} user=app\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 200\n"
            f"logfile = {folder}/pgbouncer.log\npidfile = {folder}/pid\n"
        )
        if os.geteuid() == 0:
            shutil.chown(self.file, "postgres", "postgres")

    def start(self):
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        self.process = subprocess.Popen(
            as_account([program, "-q", self.file]), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < until, "PgBouncer does not listen"
                time.sleep(0.05)

    def kill(self):
        pid = self.folder / "pid"
        if self.process and pid.exists():
            try:
                os.kill(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            pid.unlink()
        self.process = None
