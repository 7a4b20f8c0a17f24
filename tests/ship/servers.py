"""What tests of servers here have in common: a free port, and waiting until one is ready. Not here: how each is started."""

import http.client
import socket
import time
import urllib.request

READY_SECONDS = 60


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(url):
    """Waits until it answers with a status below 400."""
    for _ in range(READY_SECONDS * 10):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
    raise AssertionError(f"{url} is not ready after {READY_SECONDS} s")
