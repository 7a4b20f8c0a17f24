"""The Helm chart: linted as Helm does, rendered for each file of `values`, and what comes out compared with the schemas of
Kubernetes in the oldest and the newest version that are known here. Resources of others (the Prometheus Operator, the Gateway
API, Istio) have no schema here: of them it is checked that what they name is there. Not here: whether a cluster takes them."""

import sys
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/xp-graph"
PLAIN = ROOT / "deploy/kubernetes/xp-graph.yaml"
RULES = ROOT / "deploy/prometheus/rules.yaml"
VERSIONS = ["1.27.0", "1.37.0"]
# Groups of Kubernetes itself; others have schemas of their own.
OWN_GROUPS = ["v1", "apps/v1", "batch/v1", "autoscaling/v2", "policy/v1", "networking.k8s.io/v1"]
# Helm's number for what it only recommends, such as an icon.
LINT_INFO = 1
KINDS = {
    "one": {"ConfigMap", "Deployment", "Service"},
    "scaled": {"HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "PrometheusRule", "Job"},
    "gateway-api": {"HTTPRoute"},
    "istio": {"DestinationRule", "VirtualService"},
}
WRONG_VALUES = [
    {"replica": 3},
    {"replicas": -1},
    {"existingSecret": ""},
    {"service": {"port": 70000}},
    {"httpRoute": {"canary": {"weight": 101}}},
    {"config": {"http": "a text"}},
]


def main():
    wrong = []
    with helm.Chart.load(CHART) as chart:
        found = {"the chart": {}}
        for file in sorted((ROOT / "tests/ship/values").glob("*.yaml")):
            found[file.stem] = yaml.safe_load(file.read_text())
        for name, values in found.items():
            wrong += [f"{name}: {problem}" for problem in problems_of(chart, name, values)]
        for values in WRONG_VALUES:
            try:
                chart.validate_schema(values)
                wrong.append(f"values.schema.json takes {values}")
            except helm.HelmValuesError:
                pass
        plain = render(chart, {})
        if "--write" in sys.argv:
            PLAIN.parent.mkdir(exist_ok=True)
            PLAIN.write_text(plain)
        elif not PLAIN.exists() or PLAIN.read_text() != plain:
            wrong.append(f"{PLAIN.relative_to(ROOT)} is not what the chart gives: run tests/ship/chart.py --write")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"chart: {len(found)} sets of values, Kubernetes {', '.join(VERSIONS)}: {len(wrong)} problems")
    return 1 if wrong else 0


def problems_of(chart, name, values):
    for message in helm.lint(CHART, values, strict=True)["messages"]:
        if message["severity"] > LINT_INFO:
            yield f"lint: {message}"
    resources = [each for each in yaml.safe_load_all(render(chart, values)) if each]
    missing = KINDS.get(name, set()) - {each["kind"] for each in resources}
    if missing:
        yield f"there is no {', '.join(sorted(missing))}"
    for resource in resources:
        label = f"{resource['kind']} {resource['metadata']['name']}"
        if resource["apiVersion"] in OWN_GROUPS:
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(resource, version, strict=True)
                except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                    yield f"{label}, Kubernetes {version}: {error}"
    yield from references(resources)


def references(resources):
    """What one resource names of another is there."""
    by_kind = {(each["kind"], each["metadata"]["name"]) for each in resources}
    for each in resources:
        pod = each.get("spec", {}).get("template", {}).get("spec")
        if pod:
            for volume in pod.get("volumes", []):
                if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in by_kind:
                    yield f"{each['kind']}: no ConfigMap {volume['configMap']['name']}"
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
            if volumes != mounted:
                yield f"{each['kind']}: volumes {volumes}, mounted {mounted}"
            account = pod.get("serviceAccountName", "default")
            if account != "default" and ("ServiceAccount", account) not in by_kind:
                yield f"{each['kind']}: no ServiceAccount {account}"
        if each["kind"] == "Service":
            deployment = next(one for one in resources if one["kind"] == "Deployment")
            template = deployment["spec"]["template"]
            if not each["spec"]["selector"].items() <= template["metadata"]["labels"].items():
                yield "the Service selects no pod of the Deployment"
            ports = {port.get("name") for container in template["spec"]["containers"] for port in container["ports"]}
            for port in each["spec"]["ports"]:
                if port["targetPort"] not in ports:
                    yield f"the Service sends to a port that is not there: {port['targetPort']}"
        if each["kind"] == "PrometheusRule" and each["spec"] != yaml.safe_load(RULES.read_text()):
            yield "the PrometheusRule is not deploy/prometheus/rules.yaml"
        if each["kind"] == "Job":
            labels = each["spec"]["template"]["metadata"]["labels"]
            service = next(one for one in resources if one["kind"] == "Service")
            if service["spec"]["selector"].items() <= labels.items():
                yield "the Service sends requests to the migrations' pod"
        if each["kind"] in ("HTTPRoute", "VirtualService"):
            weights = [back["weight"] for rule in each["spec"].get("rules", []) for back in rule["backendRefs"]]
            weights += [route["weight"] for rule in each["spec"].get("http", []) for route in rule["route"]]
            if sum(weights) != 100:
                yield f"{each['kind']}: the weights are {weights}"


def render(chart, values):
    rendered = chart.render(values, name="xp-graph", namespace="default")
    return "---\n".join(text.strip("\n") + "\n" for path, text in sorted(rendered.items()) if path.endswith(".yaml") and text.strip())


if __name__ == "__main__":
    sys.exit(main())
