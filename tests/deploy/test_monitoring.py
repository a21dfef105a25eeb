"""Alert rules and dashboard: every figure they ask for exists, every alert is tested, told and documented."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from shardwork.clock import SystemClock
from shardwork_coordinator.engine import Engine
from shardwork_coordinator.links import Links
from shardwork_coordinator.store import MemoryStore
from shardwork_coordinator.web.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules" / "shardwork.yml"
TESTS = ROOT / "deploy" / "prometheus" / "tests" / "shardwork.yml"
CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "shardwork.json"
GRAFANA_COLUMNS = 24
#: what Prometheus adds to every series itself
GIVEN_LABELS = {"job", "instance", "alertname", "alertstate", "severity"}
NAME = re.compile(r"\b(?:shardwork|process)_[a-z0-9_]+\b")
SELECTOR = re.compile(r"((?:shardwork|process)_[a-z0-9_]+)\{([^}]*)\}")


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed; it comes with Debian's package prometheus")
    return subprocess.run([found, *arguments], input=text, capture_output=True, text=True, check=False)


def exposed() -> dict[str, set[str]]:
    """Sample name -> its labels, of everything that a coordinator exposes: the reference is generated from it."""
    found: dict[str, set[str]] = {"process_resident_memory_bytes": set()}
    for line in (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("| `"):
            continue
        name, labels = cells[0].strip("`"), set(re.findall(r"`([a-z]+)`", cells[2]))
        suffixes = ("_bucket", "_sum", "_count") if cells[1] == "histogram" else ("",)
        for suffix in suffixes:
            found[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    return [one for one in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"] if one["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every rule and panel."""
    for rule in rules():
        yield str(rule.get("alert") or rule["record"]), rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_every_figure_that_is_asked_for_exists_with_its_labels() -> None:
    known = exposed()
    for where, expression in expressions():
        names = set(NAME.findall(re.sub(r'"[^"]*"', '""', expression)))
        assert names <= known.keys(), (where, names - known.keys())
        for name, selector in SELECTOR.findall(expression):
            labels = set(re.findall(r"([a-z]+)\s*(?:=|!)", selector))
            assert labels <= known[name] | GIVEN_LABELS, (where, name, labels)


async def test_every_value_that_is_asked_for_is_one_that_a_coordinator_tells() -> None:
    store = MemoryStore()
    store.start()
    text = (await Metrics(Engine(store, Links(), SystemClock())).scrape()).decode()
    store.close()
    told: dict[tuple[str, str], set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label, value in sample.labels.items():
                told.setdefault((sample.name, label), set()).add(value)
    asked = 0
    for where, expression in expressions():
        for name, selector in SELECTOR.findall(expression):
            for label, wanted in re.findall(r'([a-z]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', selector):
                # what has no series before its first event can't be looked up here
                if values := told.get((name, label)):
                    assert set(wanted.split("|")) <= values, (where, name, label)
                    asked += 1
    assert asked > 10


def test_a_figure_that_nobody_exposes_would_be_found() -> None:
    assert "shardwork_sats_total" in set(NAME.findall("rate(shardwork_sats_total[5m])")) - exposed().keys()


def test_every_alert_says_what_it_means_and_what_to_do_and_has_a_paragraph() -> None:
    page = (ROOT / "docs" / "operating" / "monitoring.md").read_text(encoding="utf-8")
    for alert in alerts():
        name, said = alert["alert"], alert["annotations"]
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert said["summary"].endswith(".") and len(said["description"]) > 30, name
        assert f"| `{name}` |" in page, name


def test_every_alert_is_tested_to_fire_and_to_be_quiet() -> None:
    cases = yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]
    for alert in alerts():
        checks = [
            check for case in cases for check in case["promql_expr_test"] if f'"{alert["alert"]}"' in check["expr"]
        ]
        assert {bool(check["exp_samples"]) for check in checks} == {True, False}, alert["alert"]


def test_promtool_accepts_rules_and_configuration() -> None:
    assert promtool("check", "rules", str(RULES)).returncode == 0
    done = promtool("check", "config", "--syntax-only", str(CONFIG))
    assert done.returncode == 0, done.stderr


def test_the_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", str(TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.nightly
def test_a_broken_threshold_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(RULES.parents[1], tmp_path / "prometheus")
    broken = tmp_path / "prometheus" / "rules" / RULES.name
    broken.write_text(RULES.read_text(encoding="utf-8").replace("> 3600", "> 360000", 1), encoding="utf-8")
    done = promtool("test", "rules", str(tmp_path / "prometheus" / "tests" / TESTS.name))
    assert done.returncode != 0 and "ShardworkPaymentStuck" in done.stdout + done.stderr


def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    queries = [expression.replace("$job", "shardwork") for _, expression in expressions()]
    group = [{"record": f"check:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": group}]}), encoding="utf-8")
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_panels_lie_side_by_side_and_say_what_they_show() -> None:
    everything = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    places = [one["gridPos"] for one in everything["panels"]]
    assert len({one["id"] for one in everything["panels"]}) == len(places)
    assert all(place["x"] + place["w"] <= GRAFANA_COLUMNS for place in places)
    for left, right in itertools.combinations(places, 2):
        beside = left["x"] + left["w"] <= right["x"] or right["x"] + right["w"] <= left["x"]
        above = left["y"] + left["h"] <= right["y"] or right["y"] + right["h"] <= left["y"]
        assert beside or above, (left, right)
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels())


def test_the_dashboard_takes_its_source_from_provisioning() -> None:
    source = yaml.safe_load((DASHBOARD.parents[1] / "provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["type"] == "prometheus" and source["datasources"][0]["isDefault"]
    text = DASHBOARD.read_text(encoding="utf-8")
    assert {one["datasource"]["uid"] for one in panels()} == {"${datasource}"}
    assert "$job" in text and re.search(r"https?://", text) is None
