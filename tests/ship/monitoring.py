"""Alerts and dashboard before a real Prometheus: it scrapes a server that is used, with Redis and a PostgreSQL that has a standby,
and every panel shows data; every alert fires on the series that it is for and on no healthy one; no expression names a metric that
no source registers. Not here: how the files are made (deploy/monitoring/build.py).

usage: monitoring.py PROGRAM"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/monitoring"))
import build  # noqa: E402
from servers import free_port, wait_for  # noqa: E402

sys.path.insert(0, str(ROOT / "deploy/drills"))
import postgres  # noqa: E402

RULES = ROOT / "deploy/prometheus/rules.yaml"
# Until what is asked has been scraped often enough for a rate.
SCRAPED_SECONDS = 30
MADE_BY_PROMETHEUS = {"up"}
HEALTHY = 'http_server_request_duration_seconds_count{job="xp-graph", http_route="/graphql", http_response_status_code="200"}'


def main(program):
    source = build.source()
    subprocess.run([sys.executable, ROOT / "deploy/monitoring/build.py", "--check"], check=True)
    subprocess.run(["promtool", "check", "rules", RULES], check=True, stdout=subprocess.DEVNULL)
    wrong = unknown_metrics(source)
    test_rules(source)
    panels = [(panel, target) for row in source["rows"] for panel in row["panels"] for target in build.targets(panel)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis, server, prometheus = free_port(), free_port(), free_port()
        start(stack, folder, ["redis-server", "--port", str(redis), "--save", "", "--dir", folder])
        primary, standby = servers_of_postgres(stack, folder)
        environment = {
            "PORT": str(server), "REDIS_URL": f"redis://127.0.0.1:{redis}", "DATABASE_URL": primary.url(), "DATABASE_REPLICA_URLS": standby.url(),
            "HOME": str(folder), "RUST_LOG": "warn",
        }
        start(stack, folder, [program, "dev"], environment)
        wait_for(f"http://127.0.0.1:{server}/readyz")
        # As in a deployment, but each second.
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": source["job"], "static_configs": [{"targets": [f"127.0.0.1:{server}"]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        start(stack, folder, [
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=error",
        ])
        asked = f"http://127.0.0.1:{prometheus}"
        wait_for(f"{asked}/-/ready")
        stack.enter_context(subscription(server))
        empty = panels
        for _ in range(SCRAPED_SECONDS):
            time.sleep(1)
            use_once(server)
            empty = [(panel, target) for panel, target in empty if not panel.get("rare") and not has_data(asked, source, target["expr"])]
            if not empty:
                break
        wrong += [f"the panel \"{panel['title']}\" shows nothing: {target['expr']}" for panel, target in empty]
        for panel, target in panels:
            query(asked, filled(source, target["expr"]))
        rules = query(asked, None, "rules")["groups"]
        wrong += [f"{rule['name']}: {rule['lastError']}" for group in rules for rule in group["rules"] if rule.get("lastError")]
        firing = [alert["labels"]["alertname"] for alert in query(asked, None, "alerts")["alerts"] if alert["state"] == "firing"]
        wrong += [f"{name} fires for a healthy server" for name in firing]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"monitoring: {len(source['alerts'])} alerts, {len(panels)} queries of panels: {len(wrong)} problems")
    return 1 if wrong else 0


def servers_of_postgres(stack, folder):
    """A primary and its standby."""
    folder.chmod(0o755)
    primary = postgres.Cluster(postgres.folder_for_account(folder / "postgres") / "primary", free_port(), fsync="off")
    standby = postgres.Cluster(folder / "postgres/standby", free_port(), fsync="off", hot_standby_feedback="on")
    primary.create()
    stack.callback(primary.stop)
    primary.start()
    primary.sql("create database xp", database="postgres")
    postgres.run(
        postgres.program("pg_basebackup"), "--host=127.0.0.1", f"--port={primary.port}", "--username=postgres", "--pgdata", standby.data,
        "--checkpoint=fast", "--write-recovery-conf",
    )
    stack.callback(standby.stop)
    standby.start()
    return primary, standby


def unknown_metrics(source):
    """Names in expressions that no source registers."""
    text = "".join(
        file.read_text() for folder in ("src", "schema", "entities") for file in (ROOT / folder).rglob("*.rs") if "target" not in file.parts
    )
    expressions = [alert["expr"] for alert in source["alerts"]]
    expressions += [target["expr"] for row in source["rows"] for panel in row["panels"] for target in build.targets(panel)]
    expressions.append(build.RATIO)
    unknown = set()
    for expression in expressions:
        for name in re.findall(r"\b([a-z][a-z0-9_]+)\{", expression):
            known = {name, re.sub(r"_(total|bucket|sum|count)$", "", name)}
            if name not in MADE_BY_PROMETHEUS and not any(f'"{one}"' in text for one in known):
                unknown.add(name)
    return [f"no source registers {name}" for name in sorted(unknown)]


def test_rules(source):
    """promtool's tests: each alert fires on its series, and none on a healthy server's."""
    tests = []
    for alert in source["alerts"]:
        test = alert["test"]
        series = [{"series": one["series"], "values": one["values"]} for one in [test, *test.get("more", [])]]
        # So that a share has a whole.
        series.append({"series": HEALTHY, "values": "0+1000x600"})
        tests.append({"interval": "1m", "input_series": series, "promql_expr_test": [{
            "expr": f'count(ALERTS{{alertname="{alert["name"]}", alertstate="firing"}})', "eval_time": test["at"],
            "exp_samples": [{"labels": "{}", "value": 1}],
        }]})
    tests.append({"interval": "1m", "input_series": [
        {"series": 'up{job="xp-graph", instance="a"}', "values": "1x600"},
        {"series": HEALTHY, "values": "0+60000x600"},
        {"series": 'http_server_request_duration_seconds_count{job="xp-graph", http_route="/graphql", http_response_status_code="503"}', "values": "0+1x600"},
        {"series": 'http_server_request_duration_seconds_bucket{job="xp-graph", http_route="/graphql", le="0.01"}', "values": "0+60000x600"},
        {"series": 'http_server_request_duration_seconds_bucket{job="xp-graph", http_route="/graphql", le="+Inf"}', "values": "0+60000x600"},
        {"series": 'cache_requests_total{job="xp-graph", result="hit"}', "values": "0+90000x600"},
        {"series": 'cache_requests_total{job="xp-graph", result="absent"}', "values": "0+10000x600"},
        {"series": 'circuit_breaker_state{job="xp-graph", instance="a"}', "values": "0x600"},
        {"series": 'database_breaker_state{job="xp-graph", instance="a"}', "values": "0x600"},
        # An instance is not ready while it starts or ends; a rollout is nothing to wake anybody for.
        {"series": 'http_server_request_duration_seconds_count{job="xp-graph", instance="a", http_route="/readyz", http_response_status_code="200"}', "values": "0+12x600"},
        {"series": 'http_server_request_duration_seconds_count{job="xp-graph", instance="a", http_route="/readyz", http_response_status_code="503"}', "values": "0x100 1+1x500"},
        {"series": 'http_server_requests_shed_total{job="xp-graph"}', "values": "0+100x600"},
        {"series": 'database_replica_in_rotation{job="xp-graph", instance="a", server="b:5432"}', "values": "1x600"},
        {"series": 'database_replica_lag_seconds{job="xp-graph", instance="a", server="b:5432"}', "values": "0.5x300 _x300"},
        {"series": 'database_replica_reads_total{job="xp-graph", server="b:5432"}', "values": "0+6000x600"},
        {"series": 'database_replica_fallbacks_total{job="xp-graph", reason="outdated"}', "values": "0+1000x600"},
        {"series": 'database_partition_default_rows{job="xp-graph", db_collection_name="user_locations"}', "values": "100x600"},
        {"series": 'persisted_documents_broken{job="xp-graph"}', "values": "0x600"},
        {"series": 'database_partition_months_ahead{job="xp-graph", db_collection_name="user_locations"}', "values": "3x600"},
        {"series": 'process_resident_memory_bytes{job="xp-graph", instance="a"}', "values": "2e8x600"},
    ], "promql_expr_test": [{"expr": "count(ALERTS)", "eval_time": "590m", "exp_samples": []}]})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tests.yaml"
        file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
        subprocess.run(["promtool", "test", "rules", file], check=True)


def filled(source, expression):
    return expression.strip().replace("$job", f'job="{source["job"]}"').replace("$__rate_interval", "10s")


def has_data(asked, source, expression):
    result = query(asked, filled(source, expression))["result"]
    return any(sample["value"][1] != "NaN" for sample in result)


def query(asked, expression, what="query"):
    parameters = f"?{urllib.parse.urlencode({'query': expression})}" if expression else ""
    try:
        with urllib.request.urlopen(f"{asked}/api/v1/{what}{parameters}", timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{expression}: {error.read().decode()}") from error


def account(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server}/playground/config.json", timeout=10) as answer:
        return json.load(answer)["accounts"][0]["token"]


def ask(server, body, headers):
    headers = {"content-type": "application/json", **headers}
    request = urllib.request.Request(f"http://127.0.0.1:{server}/graphql", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=30)


@contextlib.contextmanager
def subscription(server):
    """A subscription that stays open."""
    headers = {"authorization": f"Bearer {account(server)}", "accept": "text/event-stream"}
    with ask(server, {"query": "subscription { locationUpdated { __typename } }"}, headers) as stream:
        yield stream


def use_once(server):
    """Reads, a write and an error."""
    headers = {"authorization": f"Bearer {account(server)}"}
    for body in (
        {"query": "{ users(first: 20) { nodes { id displayName sessions(first: 2) { nodes { id } } forms(first: 2) { totalCount } } } }"},
        {"query": "{ forms(first: 20) { nodes { id owner { id } submissions(first: 2) { totalCount } } } }"},
        {"query": 'mutation { updateProfile(input: { displayName: "Ann" }) { user { id } userErrors { code } } }'},
        {"query": f"{{ __typename a{time.monotonic_ns()}: __typename }}"},
        {"query": "{ nothing }"},
    ):
        with ask(server, body, headers) as answer:
            answer.read()


def start(stack, folder, command, environment=None):
    name = Path(command[0]).name
    log = stack.enter_context(open(folder / f"{name}.log", "wb"))
    more = environment if environment is not None else {}
    process = subprocess.Popen(command, cwd=folder, env={"PATH": os.environ["PATH"], **more}, stdout=log, stderr=log)

    def stop():
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).resolve())))
