"""Makes the alerts of Prometheus, the dashboard of Grafana and the page about the alerts out of source.yaml.

usage: build.py           writes them
       build.py --check   says which is not what it would write, and fails"""

import json
import sys
import textwrap
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MADE = "Made by deploy/monitoring/build.py from source.yaml."
RATIO = (
    'sum by (job) (rate(http_server_request_duration_seconds_count{{$job, http_route=~"/graphql.*", http_response_status_code=~"5.."}}[{window}]))'
    ' / sum by (job) (rate(http_server_request_duration_seconds_count{{$job, http_route=~"/graphql.*"}}[{window}]))'
)
PANEL_WIDTH, PANEL_HEIGHT, WIDTH = 8, 8, 24
PAGE_WIDTH = 130


def source():
    return yaml.safe_load((HERE / "source.yaml").read_text())


def rules(source):
    """Recording rules and alerts, as Prometheus reads them."""
    job = f'job="{source["job"]}"'
    fill = lambda text: text.strip().replace("$job", job)  # noqa: E731
    records = [{"record": one["name"], "expr": fill(RATIO.format(window=one["window"]))} for one in source["records"]]
    alerts = [
        {
            "alert": one["name"],
            "expr": fill(one["expr"]),
            "for": one["for"],
            "labels": {"severity": one["severity"]},
            "annotations": {"summary": one["summary"], "runbook": f"docs/alerts.md#{one['name'].lower()}"},
        }
        for one in source["alerts"]
    ]
    groups = [{"name": "xp-graph-records", "rules": records}, {"name": "xp-graph-alerts", "rules": alerts}]
    return {"groups": groups}


def targets(panel):
    return panel.get("targets") or [{"expr": panel["expr"], "legend": panel["legend"]}]


def minimum(panel):
    """From zero on, where a panel does not say otherwise."""
    return {} if "min" in panel and panel["min"] is None else {"min": panel.get("min", 0)}


def dashboard(source):
    """The dashboard, as Grafana imports it; it asks for the source of data and the job."""
    panels, top = [], 0
    for row in source["rows"]:
        panels.append({"type": "row", "title": row["title"], "collapsed": False, "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top}})
        top += 1
        for index, panel in enumerate(row["panels"]):
            column, line = index % (WIDTH // PANEL_WIDTH), index // (WIDTH // PANEL_WIDTH)
            panels.append({
                "type": "timeseries",
                "title": panel["title"],
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": PANEL_HEIGHT, "w": PANEL_WIDTH, "x": column * PANEL_WIDTH, "y": top + line * PANEL_HEIGHT},
                "fieldConfig": {"defaults": {"unit": panel.get("unit", "short"), **minimum(panel)}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
                "targets": [
                    {"refId": chr(ord("A") + place), "expr": one["expr"].strip().replace("$job", 'job=~"$job"'), "legendFormat": one["legend"]}
                    for place, one in enumerate(targets(panel))
                ],
            })
        top += -(-len(row["panels"]) // (WIDTH // PANEL_WIDTH)) * PANEL_HEIGHT
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source of data"},
        {
            "name": "job", "type": "query", "label": "Job", "includeAll": True, "multi": True, "current": {"text": "All", "value": "$__all"},
            "datasource": {"type": "prometheus", "uid": "${datasource}"}, "refresh": 2,
            "query": {"query": "label_values(build_info, job)", "refId": "job"}, "definition": "label_values(build_info, job)",
        },
    ]
    return {
        "title": "XP Graph", "uid": "xp-graph", "description": MADE, "tags": ["graphql"], "schemaVersion": 39, "editable": True,
        "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "templating": {"list": variables}, "panels": panels,
    }


def page(source):
    """What to do when an alert fires."""
    lines = [
        "# Alerts", "",
        "What each alert of [deploy/prometheus/rules.yaml](../deploy/prometheus/rules.yaml) means, and what to do. `page` wakes somebody,",
        "`ticket` waits for working hours. The panels that are named are those of",
        "[deploy/grafana/xp-graph.json](../deploy/grafana/xp-graph.json).", "",
    ]
    for one in source["alerts"]:
        head = f"`{one['severity']}`, after {one['for']}. {one['summary']}"
        lines += [f"## {one['name']}", ""]
        for paragraph in (head, one["meaning"], f"**What to do.** {one['action']}"):
            lines += [textwrap.fill(paragraph, PAGE_WIDTH, break_on_hyphens=False, break_long_words=False), ""]
    return "\n".join(lines).rstrip() + "\n"


def main():
    content = source()
    text = lambda value: f"# {MADE}\n" + yaml.safe_dump(value, sort_keys=False, width=1000)  # noqa: E731
    files = {
        "deploy/prometheus/rules.yaml": text(rules(content)),
        # A chart can only read what lies in it.
        "deploy/helm/xp-graph/files/rules.yaml": text(rules(content)),
        "deploy/grafana/xp-graph.json": json.dumps(dashboard(content), indent=2) + "\n",
        "docs/alerts.md": page(content),
    }
    differing = [name for name, made in files.items() if not (ROOT / name).exists() or (ROOT / name).read_text() != made]
    if "--check" in sys.argv:
        if differing:
            print(f"not what deploy/monitoring/build.py makes of source.yaml: {', '.join(differing)}", file=sys.stderr)
        return 1 if differing else 0
    for name in differing:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(files[name])
        print(f"written: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
