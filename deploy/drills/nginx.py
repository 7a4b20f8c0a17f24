"""The shipped configuration of nginx, for servers on one machine. Not here: what is asked through it (tests/ship/rollout.py,
tests/faults)."""

import re
from pathlib import Path

CONFIGURATION = Path(__file__).resolve().parents[1] / "nginx/xp-graph.conf"


def nginx_config(folder, site, ports):
    """The shipped file, with these ports and with folders of its own."""
    shipped = CONFIGURATION.read_text()
    numbers = iter(ports)
    own = re.sub(r"(server 127\.0\.0\.1:)\d+", lambda match: f"{match[1]}{next(numbers)}", shipped)
    own = own.replace("listen 8081;", f"listen 127.0.0.1:{site};").replace("/var/cache/nginx/xp-graph", f"{folder}/cache")
    (folder / "xp-graph.conf").write_text(own)
    for name in ("cache", "temp"):
        (folder / name).mkdir(mode=0o777)
        (folder / name).chmod(0o777)
    paths = " ".join(f"{kind}_temp_path {folder}/temp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder}/xp-graph.conf; }}\n"
    )
    return main
