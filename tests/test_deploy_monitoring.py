"""deploy/prometheus and deploy/grafana: rules and panels that ask for what /metrics really says."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import promql_parser
import pytest
import yaml
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families as parse

from deploy_files import DEPLOY, ROOT, anchors, need
from grafana import faults
from helpers import Jobs
from web.settings import Settings

PROMETHEUS = DEPLOY / "prometheus"
RULES: dict[str, Any] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
TESTS: dict[str, Any] = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())
CONFIG: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "jobrunner.json").read_text())

ALL_RULES = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# What Prometheus and the blackbox exporter say of a target.
OF_TARGETS = {"up", "probe_success"}
# What Prometheus adds to each sample.
TARGET_LABELS = {"job", "instance"}


def panel_queries() -> list[str]:
    """What the panels ask for, with the variables filled in as Grafana does."""
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    values = {"$__rate_interval": "1m", "$job": "jobrunner", "$model": ".*"}
    for name, value in values.items():
        queries = [query.replace(name, value) for query in queries]
    return queries


QUERIES = [rule["expr"] for rule in ALL_RULES] + panel_queries()


def unquoted(query: str) -> str:
    return re.sub(r'"[^"]*"', "", query)


def metrics_of(query: str) -> set[str]:
    found = re.findall(r"\b(jobrunner[\w:]+|up|probe_success)\b(?!\s*\()", unquoted(query))
    return set(found)


def labels_of(query: str) -> set[str]:
    plain = unquoted(query)
    matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", " ".join(re.findall(r"\{[^}]*\}", plain)))
    grouped = re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", plain)
    return {*matched, *(name.strip() for names in grouped for name in names.split(","))}


@pytest.fixture
def said(client: FlaskClient, jobs: Jobs) -> dict[str, set[str]]:
    """Each sample's name in /metrics, and its labels."""
    jobs.add()
    found: dict[str, set[str]] = {}
    for family in parse(client.get("/metrics").get_data(as_text=True)):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


# The queries


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_is_promql(query: str) -> None:
    promql_parser.parse(query)


def test_what_is_no_promql_is_refused() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("max by (model) (jobrunner_runners")


def test_each_metric_that_is_asked_for_is_there(said: dict[str, set[str]]) -> None:
    known = {*said, *OF_TARGETS, *RECORDED}
    for query in QUERIES:
        assert metrics_of(query), query
        assert metrics_of(query) <= known, query


def test_each_label_that_is_asked_for_is_there(said: dict[str, set[str]]) -> None:
    for query in QUERIES:
        names = metrics_of(query)
        known = {*TARGET_LABELS, *(label for name in names for label in said.get(name, ()))}
        if names & RECORDED:
            known.add("model")
        assert labels_of(query) <= known, query


def test_each_metric_is_looked_at_by_a_panel(said: dict[str, set[str]]) -> None:
    asked = {name for query in panel_queries() for name in metrics_of(query)}
    # A histogram's sum and count go with its buckets, as far as they are of use.
    shown = {name for name in said if not name.endswith(("_sum", "_count", "_created"))}

    assert shown <= asked


def test_the_targets_which_all_say_the_same_are_never_added_up() -> None:
    for query in QUERIES:
        for name in metrics_of(query) - OF_TARGETS - RECORDED:
            # Each selector stands in a max (or in an absent) that leaves `instance` out.
            for place in re.finditer(rf"\b{name}\b", query):
                before = query[: place.start()]
                opened = max(map(before.rfind, ("max by (", "max(", "absent(")))
                assert opened >= 0, query
                inside = query[opened : place.start()]
                inside = re.sub(r"^max by \([^)]*\)\s*", "", inside)
                assert inside.count("(") > inside.count(")"), query
        assert "instance" not in labels_of(query)


# The rules


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    need("promtool")
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    for check in (
        ("check", "rules", str(PROMETHEUS / "rules.yml")),
        ("check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml")),
    ):
        done = promtool(*check)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_where_it_should_and_is_silent_beside_it() -> None:
    done = promtool("test", "rules", str(PROMETHEUS / "rules_test.yml"))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_that_does_not_fire_is_noticed(alert: str, tmp_path: Path) -> None:
    rules = json.loads(json.dumps(RULES))
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        if rule.get("alert") == alert:
            rule["expr"] = f"({rule['expr']}) and on () (vector(1) > 2)"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    shutil.copy(PROMETHEUS / "rules_test.yml", tmp_path)

    assert promtool("test", "rules", str(tmp_path / "rules_test.yml")).returncode != 0


def test_each_alert_has_a_severity_a_summary_and_a_chapter_that_is_there() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert rule["annotations"]["summary"].endswith("."), name
        document, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert document == "docs/operations.md"
        if (ROOT / document).exists():
            assert anchor in anchors((ROOT / document).read_text()), name


def test_the_queue_is_near_its_limit_at_four_fifths_of_the_default() -> None:
    limit = Settings.model_fields["max_pending"].default

    assert ALERTS["JobrunnerQueueNearLimit"]["expr"].endswith(f" > {limit * 4 // 5}")


def test_the_configuration_loads_the_rules_and_names_the_jobs_that_they_ask_for() -> None:
    jobs = {it["job_name"]: it for it in CONFIG["scrape_configs"]}
    asked = {name for query in QUERIES for name in re.findall(r'job="([\w-]+)"', query)}

    assert CONFIG["rule_files"] == TESTS["rule_files"] == ["rules.yml"]
    assert asked == set(jobs)
    key = jobs["jobrunner"]["authorization"]
    assert key["type"] == "Bearer"
    assert set(key) == {"type", "credentials_file"}
    # The web answers within ten seconds, with 503 at the latest.
    assert all(it["scrape_timeout"] == "12s" for it in jobs.values())


# The dashboard

TARGET = {
    "type": "object",
    "required": ["refId", "expr", "legendFormat", "datasource"],
    "properties": {"expr": {"type": "string", "minLength": 1}},
}
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["row", "stat", "timeseries", "heatmap"]},
        "title": {"type": "string", "minLength": 1},
        "gridPos": {
            "type": "object",
            "required": ["h", "w", "x", "y"],
            "properties": {
                "h": {"type": "integer", "minimum": 1},
                "w": {"type": "integer", "minimum": 1, "maximum": 24},
                "x": {"type": "integer", "minimum": 0, "maximum": 23},
                "y": {"type": "integer", "minimum": 0},
            },
            "additionalProperties": False,
        },
    },
    "if": {"properties": {"type": {"const": "row"}}},
    "else": {
        "required": ["targets", "datasource", "fieldConfig", "options", "description"],
        "properties": {"targets": {"type": "array", "minItems": 1, "items": TARGET}},
    },
}
SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time", "refresh"],
    "properties": {
        "uid": {"type": "string", "maxLength": 40},
        "schemaVersion": {"type": "integer", "minimum": 39},
        "panels": {"type": "array", "minItems": 1, "items": PANEL},
        "templating": {
            "type": "object",
            "required": ["list"],
            "properties": {
                "list": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "type", "query"],
                        "properties": {"type": {"enum": ["datasource", "query"]}},
                    },
                }
            },
        },
    },
}


def test_the_dashboard_has_the_shape_of_one() -> None:
    jsonschema.validate(DASHBOARD, SCHEMA, cls=jsonschema.Draft202012Validator)
    # An id of Grafana's own would overwrite another dashboard.
    assert "id" not in DASHBOARD


def test_grafana_knows_each_field_and_takes_each_value_of_the_dashboard() -> None:
    assert faults(DASHBOARD) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "timeserie"),
        ("title", 7),
        ("discription", "How many wait."),
        ("gridPos", "8"),
        ("gridPos/h", "8"),
        ("fieldConfig/defaults/units", "s"),
        ("options/colorMod", "value"),
        ("options/colorMode", "red"),
        ("targets/0/exprs", "up"),
        ("targets/0/instant", "yes"),
        ("datasource/type", "prometeus"),
    ],
)
def test_grafana_s_types_find_what_is_wrong_with_a_dashboard(path: str, value: object) -> None:
    wrong = json.loads(json.dumps(DASHBOARD))
    *parents, name = path.split("/")
    place = next(panel for panel in wrong["panels"] if panel["type"] == "stat")
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[name] = value

    assert faults(wrong)


def test_each_panel_has_an_id_and_a_place_of_its_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]

    assert len(set(ids)) == len(ids)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for panel in PANELS:
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


def test_every_panel_asks_the_data_source_and_the_models_that_were_chosen() -> None:
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]

    assert names == ["datasource", "job", "model"]
    for panel in PANELS:
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            wanted = 'job=~"$job"' if "up{" in target["expr"] else 'job=~"$job", model=~"$model"'
            selectors = re.findall(r"\{([^}]*)\}", target["expr"])
            assert selectors
            assert all(selector.startswith(wanted) for selector in selectors)


def test_thresholds_rise_from_a_base() -> None:
    for panel in PANELS:
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        values = [step["value"] for step in steps]
        assert values[:1] in ([], [None])
        assert all(low < high for low, high in pairwise(values[1:]))
