"""deploy/compose.yaml: read by Compose itself, compared with what such a file has to have, and started: its services run as
processes with the very files that it mounts (containers.py), are used through nginx, and lose a Redis and a PostgreSQL. Not here:
Grafana and Jaeger, whose programs no package brings; what they are told is compared with the other services, and a receiver of
traces stands in for Jaeger. Needs root and `docker-compose`.

usage: compose.py PROGRAM"""

import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import yaml
from containers import Installation, in_own_network

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
sys.path.insert(0, str(DEPLOY / "drills"))
import postgres  # noqa: E402

PUBLISHED = {"nginx": 8081, "prometheus": 9090, "grafana": 3000}
WITHOUT_PROGRAM = {"grafana", "jaeger"}
WAIT_SECONDS = 120
SECRETS = 12


def main(program):
    in_own_network()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        secrets = folder / "secrets"
        for _ in range(2):
            before = {file.name: file.read_text() for file in secrets.iterdir()} if secrets.exists() else {}
            subprocess.run([DEPLOY / "compose/secrets.sh", secrets], check=True)
        made = {file.name: file.read_text() for file in secrets.iterdir()}
        assert made == before and len(made) == SECRETS, "secrets that are there stay"
        config = read(secrets)
        wrong = [*problems_of(config, made), *problems_of_files(config)]
        assert not wrong, "\n".join(wrong)
        print(f"compose: {len(config['services'])} services, as they should be")
        started(config, folder, program, made)
    return 0


def read(secrets):
    done = subprocess.run(
        ["docker-compose", "-f", DEPLOY / "compose.yaml", "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": "/", "XP_SECRETS": str(secrets)}, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def problems_of(config, secrets):
    settings = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (ROOT / "docs/configuration.md").read_text()))
    for name, service in config["services"].items():
        say = lambda what: f"{name}: {what}"  # noqa: B023, E731
        version = service["image"].partition(":")[2]
        if not re.match(r"v?\d+\.\d+\.\d+|\d+\.\d+-", version):
            yield say(f"the version is not pinned: {service['image']}")
        if not service.get("read_only"):
            yield say("its root can be written")
        if service.get("cap_drop") != ["ALL"] or service.get("cap_add") or service.get("privileged"):
            yield say("it has capabilities")
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield say("its processes can gain privileges")
        if service["image"].startswith("xp-graph:"):
            unknown = set(service["environment"]) - settings
            if unknown:
                yield say(f"docs/configuration.md does not know {', '.join(sorted(unknown))}")
        elif (service.get("user") or "0").startswith("0"):
            yield say("it runs as root")
        if not {"cpus", "memory", "pids"} <= set(service.get("deploy", {}).get("resources", {}).get("limits", {})):
            yield say("its resources are not limited")
        if name != "migrate" and "test" not in service.get("healthcheck", {}):
            yield say("nothing looks whether it is healthy")
        ports = service.get("ports", [])
        if [int(port["published"]) for port in ports] != [port for one, port in PUBLISHED.items() if one == name]:
            yield say(f"it publishes {ports}")
        if any(port.get("host_ip") != "127.0.0.1" or port["target"] < 1024 for port in ports):
            yield say("a port is published to others, or is a privileged one")
        if "outside" in service["networks"] and name not in PUBLISHED:
            yield say("it reaches the world")
        text = json.dumps(service)
        for secret in secrets.values():
            if any(word in text for word in re.findall(r"[0-9a-f]{64}", secret)):
                yield say("a secret stands in the file")


def problems_of_files(config):
    """What the files that are mounted say of services, and what two of them must say alike."""
    services = config["services"]
    mounted = {volume["target"]: Path(volume["source"]) for one in services.values() for volume in one.get("volumes", []) if volume["type"] == "bind"}
    for source in mounted.values():
        if not source.exists():
            yield f"{source} does not exist"
    shipped, own = (re.sub(r"server [\d.:]+", "server …", (DEPLOY / file).read_text()) for file in ("nginx/xp-graph.conf", "compose/nginx/xp-graph.conf"))
    if shipped != own:
        yield "compose/nginx/xp-graph.conf differs from nginx/xp-graph.conf in more than addresses"
    asked = re.findall(r"server (172[\d.:]+)", (DEPLOY / "compose/nginx/xp-graph.conf").read_text())
    if asked != [f"{services[name]['networks']['inside']['ipv4_address']}:{services[name]['environment']['PORT']}" for name in ("xp-1", "xp-2")]:
        yield f"nginx asks {asked}"
    proxy = services["nginx"]["networks"]["inside"]["ipv4_address"]
    for name in ("xp-1", "xp-2"):
        if services[name]["environment"]["XP_HTTP_TRUSTED_PROXIES"] != proxy:
            yield f"{name} does not trust nginx"
    sources = yaml.safe_load(mounted["/etc/grafana/provisioning/datasources"].joinpath("sources.yaml").read_text())["datasources"]
    jaeger = yaml.safe_load(mounted["/etc/jaeger/jaeger.yaml"].read_text())
    ports = {"prometheus": "9090", "jaeger": jaeger["extensions"]["jaeger_query"]["http"]["endpoint"].rpartition(":")[2]}
    for source in sources:
        if source["url"] != f"http://{source['type']}:{ports[source['type']]}" or source["type"] not in services:
            yield f"Grafana asks {source['url']}"
    if [source["type"] for source in sources if source.get("isDefault")] != ["prometheus"]:
        yield "Grafana's dashboard asks its default source, which is not Prometheus"
    providers = yaml.safe_load(mounted["/etc/grafana/provisioning/dashboards"].joinpath("files.yaml").read_text())["providers"]
    for provider in providers:
        if not list(mounted[provider["options"]["path"]].glob("*.json")):
            yield f"Grafana finds no dashboard in {provider['options']['path']}"
    receiver = jaeger["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    if services["xp-1"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] != f"http://jaeger:{receiver}":
        yield "traces do not go to Jaeger"
    defined = {**jaeger["receivers"], **jaeger["processors"], **jaeger["exporters"], **jaeger["extensions"]}
    named = [*jaeger["service"]["extensions"], *(word for one in jaeger["service"]["pipelines"]["traces"].values() for word in one)]
    if missing := [word for word in named if word not in defined]:
        yield f"jaeger.yaml does not define {missing}"


def started(config, folder, program, secrets):
    programs = {"xp-graph": ("/usr/local/bin/xp", program, "65532:65532")}
    path = f"{Path(postgres.program('postgres')).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    installation = Installation(config, folder, programs, path)
    traces = Traces(installation.addresses["jaeger"])
    try:
        installation.up([name for name in config["services"] if name not in WITHOUT_PROGRAM])
        for name in ("nginx", "prometheus", "postgres-2", "redis-2"):
            installation[name].wait_until("service_healthy")
        print("compose: all are healthy")
        use(installation, traces)
        lose_redis(installation, secrets)
        lose_postgres(installation)
        for name in ("xp-1", "xp-2"):
            assert installation[name].stop() == 0, f"{name} ends with exit code 0"
            assert "is not believed" not in installation[name].log_file.read_text(), f"{name} takes the address of the client from nginx"
    except BaseException:
        for container in installation.containers.values():
            if container.process:
                print(f"--- the log of {container.name}:\n{container.log()}", file=sys.stderr)
        raise
    finally:
        installation.stop()
        traces.stop()


class Unavailable(AssertionError):
    """An instance says that it cannot reach the database now."""


class Xp:
    """The instances, and nginx before them, as a client sees them."""

    def __init__(self, installation):
        self.installation = installation
        instance = installation["xp-1"]
        instance.run("/usr/local/bin/xp", "user", "create", "--email", "root@example.com", "--role", "admin", "--password-file", "-", stdin="a long and private password")
        self.token = instance.run("/usr/local/bin/xp", "token", "mint", "--ttl-seconds", "3600", "--user", "root@example.com")

    def ask(self, name, query):
        port = 8081 if name == "nginx" else 8080
        request = urllib.request.Request(
            f"http://{self.installation.addresses[name]}:{port}/graphql", json.dumps({"query": query}).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            data = json.load(answer)
        if "errors" in data:
            codes = [error["extensions"]["code"] for error in data["errors"]]
            raise Unavailable(data) if codes == ["UNAVAILABLE"] else AssertionError(data)
        return data["data"]

    def write_and_read(self, name):
        """A write by nginx is seen at both instances; True, or why not."""
        query = f'mutation {{ updateProfile(input: {{ displayName: "{name}" }}) {{ userErrors {{ code }} }} }}'
        try:
            assert self.ask("nginx", query) == {"updateProfile": {"userErrors": []}}
        except OSError as error:
            return str(error)
        return wait_for(lambda: [self.ask(name, "{ me { displayName } }")["me"]["displayName"] for name in ("xp-1", "xp-2")] == [name] * 2)

    def metric(self, name, pattern):
        """The sum of the samples whose beginning matches."""
        with urllib.request.urlopen(f"http://{self.installation.addresses[name]}:9464/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(pattern, line))


def wait_for(condition, what="the condition"):
    until, seen = time.monotonic() + WAIT_SECONDS, None
    while time.monotonic() < until:
        try:
            seen = condition()
        except OSError as error:
            seen = error
        if seen is True:
            return True
        time.sleep(0.2)
    raise AssertionError(f"{what}, after {WAIT_SECONDS} s: {seen}")


def use(installation, traces):
    installation.xp = xp = Xp(installation)
    assert xp.write_and_read("Ann") is True
    numbers = iter(range(10_000))

    def reads_on_standby():
        xp.write_and_read(f"Ann {next(numbers)}")
        time.sleep(0.2)
        xp.ask("nginx", f"{{ me {{ displayName a{next(numbers)}: email }} }}")
        return all(xp.metric(name, "database_replica_reads_total.*postgres-2") > 0 for name in ("xp-1", "xp-2")) or "none"

    wait_for(reads_on_standby, "reads run on the standby")
    wait_for(lambda: traces.count > 0 or traces.count, "traces arrive")
    for name in ("xp-1", "xp-2"):
        assert xp.metric(name, "circuit_breaker_state") == 0 and xp.metric(name, "redis_commands_total.*ok") > 0, "Redis is used"
    # It ends with another exit code than 0 where something is wrong.
    installation["xp-1"].run("/usr/local/bin/xp", "doctor")
    prometheus = f"http://{installation.addresses['prometheus']}:9090/api/v1"

    def asked(what):
        with urllib.request.urlopen(f"{prometheus}/{what}", timeout=10) as answer:
            return json.load(answer)["data"]

    wait_for(lambda: [one["health"] for one in asked("targets")["activeTargets"]] == ["up"] * 3 or str(asked("targets")), "all targets are up")
    rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
    shipped = [rule for group in yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"] for rule in group["rules"]]
    assert len(rules) == len(shipped) and not any(rule.get("lastError") for rule in rules), rules
    wait_for(lambda: len(asked("query?query=sum%20by%20(instance)%20(build_info)")["result"]) == 2 or "no figures", "both instances have figures")
    print(f"compose: used; {traces.count} batches of traces, {len(rules)} rules, reads on the standby")


def lose_redis(installation, secrets):
    """The master ends without a word: the other one takes its place and is used; the first one comes back as a replica."""
    xp = installation.xp
    password = re.search(r"xp:([0-9a-f]+)@", secrets["redis_url"])[1]

    def replication(name):
        text = installation[name].run("redis-cli", "-h", name, "--no-auth-warning", "--user", "xp", "--pass", password, "info", "replication")
        return dict(line.split(":", 1) for line in text.split() if ":" in line)

    begun = time.monotonic()
    installation["redis-1"].kill()
    wait_for(lambda: replication("redis-2")["role"] == "master" or str(replication("redis-2")), "the replica takes over")
    promoted = time.monotonic() - begun
    before = {name: xp.metric(name, "redis_commands_total.*ok") for name in ("xp-1", "xp-2")}

    def is_used():
        assert xp.write_and_read(f"Bea {time.monotonic_ns()}") is True
        return all(xp.metric(name, "circuit_breaker_state") == 0 and xp.metric(name, "redis_commands_total.*ok") > before[name] + 20 for name in before) or str(before)

    wait_for(is_used, "the new master is used")
    installation["redis-1"].start()
    wait_for(lambda: installation["redis-1"].is_healthy(), "redis-1 is back")
    is_replica = lambda: replication("redis-1").get("master_link_status") == "up" and replication("redis-2")["role"] == "master"  # noqa: E731
    wait_for(lambda: is_replica() or str(replication("redis-1")), "redis-1 is a replica of redis-2")
    print(f"compose: redis-2 took over after {promoted:.1f} s, used after {time.monotonic() - begun:.1f} s at most")


def lose_postgres(installation):
    """The primary is stopped and the standby promoted: writes go on, and the old primary refuses to be a second one. Without its
    data it becomes a standby."""
    xp, old, new = installation.xp, installation["postgres-1"], installation["postgres-2"]
    assert xp.write_and_read("Cay") is True
    old.stop()
    new.run("sh", "-c", 'pg_ctl promote -D "$PGDATA"')

    def goes_on():
        """Each instance finds the new primary by itself."""
        try:
            return xp.write_and_read("Dee")
        except Unavailable as error:
            return str(error)

    wait_for(goes_on, "writes go on")
    old.start()
    assert old.wait_for_end() == 1 and "postgres-2 takes the writes now" in old.log(), old.log()
    volume = installation.volumes["postgres-1"] / "data"
    subprocess.run(["rm", "-r", volume], check=True)
    old.start()
    old.wait_until("service_healthy")
    ask = lambda one, query: one.run("psql", "-XAtq", "-U", "postgres", "-d", "xp", "-c", query)  # noqa: E731
    wait_for(lambda: ask(old, "select pg_is_in_recovery()") == "t", "the old primary is a standby")
    assert xp.write_and_read("Eve") is True
    wait_for(lambda: "Eve" in ask(old, "select display_name from users") or "not yet", "it follows")
    print("compose: postgres-2 took over, and postgres-1 became its standby")


class Traces:
    """Takes traces by OTLP over HTTP, in the place of Jaeger."""

    def __init__(self, address):
        self.count = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.count += self.path == "/v1/traces" and len(body) > 0
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((address, 4318), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
