"""The chart: linted, rendered, every object valid for Kubernetes, and what it names exists in the code."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from shardwork_coordinator.settings import Settings

from .files import DEPLOY, USER, unknown_variables, variables_of

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

CHART = DEPLOY / "helm" / "shardwork"
#: the oldest and a new one of the versions that Chart.yaml allows
VERSIONS = ("1.27", "1.33")
SERVER = {
    "advertise": "market.example.org",
    "secretName": "market-keys",
    "database": {"url": "postgresql://shardwork@db/shardwork"},
    "storage": {"url": "s3://bucket/prefix"},
}
ALONE = {"advertise": "market.example.org", "secretName": "market-keys", "replicas": 1}
EVERYTHING = {
    **SERVER,
    "replicas": 3,
    "serviceMonitor": {"enabled": True},
    "imagePullSecrets": [{"name": "pull"}],
    "volume": {"storageClass": "fast"},
    "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"},
    "networkPolicy": {"webFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]},
    "service": {"annotations": {"a": "b"}},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "podAnnotations": {"c": "d"},
}


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name="market", namespace="shardwork")
    found = [one for name, text in sorted(texts.items()) if name.endswith(".yaml") for one in yaml.safe_load_all(text)]
    return [one for one in found if one]


def of_kind(values: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in rendered(values) if one["kind"] == kind]


def pods(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Specs of every pod."""
    return [one["spec"]["template"]["spec"] for one in rendered(values) if "template" in one.get("spec", {})]


@pytest.mark.parametrize("values", [SERVER, ALONE, EVERYTHING], ids=["server", "alone", "everything"])
def test_helm_finds_nothing_to_mend(values: dict[str, Any]) -> None:
    found = helm.lint(CHART, values, strict=True)
    assert found["errors"] == []
    # severity 1 is advice: a picture for catalogues
    assert [one for one in found["messages"] if one["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [SERVER, ALONE, EVERYTHING], ids=["server", "alone", "everything"])
def test_every_object_is_valid(values: dict[str, Any], version: str) -> None:
    objects = rendered(values)
    assert len(objects) >= 5
    for one in objects:
        # what Prometheus' operator reads is not Kubernetes' own
        if one["kind"] != "ServiceMonitor":
            kubernetes.validate(one, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    (service, *_) = of_kind(SERVER, "Service")
    service["spec"]["prots"] = []
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(service, VERSIONS[0], strict=True)


def test_pods_run_as_nobody_in_particular_and_write_to_volumes_only() -> None:
    for pod in pods(EVERYTHING):
        assert pod["securityContext"]["runAsUser"] == USER and pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_every_variable_is_a_setting_and_no_secret_is_one() -> None:
    for pod in pods(EVERYTHING):
        for container in pod["containers"]:
            names = {one["name"] for one in container["env"]}
            assert names - {"OTEL_EXPORTER_OTLP_ENDPOINT"} <= variables_of(Settings)
            assert {"SHARDWORK_DATABASE", "SHARDWORK_STORAGE", "SHARDWORK_ADVERTISE"} <= names
            assert not [name for name in names if re.search(r"PASSWORD|SECRET|TOKEN", name)]
    for path in CHART.rglob("*"):
        if path.is_file():
            assert unknown_variables(path.read_text(encoding="utf-8").replace("SHARDWORK_…", "")) == set(), path


def test_probes_ask_what_the_coordinator_answers() -> None:
    (coordinator,) = of_kind(SERVER, "StatefulSet")
    (container,) = coordinator["spec"]["template"]["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"grpc": 7070, "web": 8080}
    env = {one["name"]: one["value"] for one in container["env"]}
    assert (env["SHARDWORK_LISTEN"], env["SHARDWORK_WEB"]) == ("0.0.0.0:7070", "0.0.0.0:8080")
    for probe in ("readinessProbe", "startupProbe"):
        asked = container[probe]["httpGet"]
        assert (asked["path"], asked["port"], asked["scheme"]) == ("/healthz", "web", "HTTPS")
        assert asked["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
    # a database that is away must not have coordinators killed
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}


def test_several_coordinators_without_one_database_or_store_are_refused() -> None:
    for missing in ("database", "storage"):
        with pytest.raises(helm.HelmError, match=f"{missing}.url"):
            rendered({**SERVER, missing: {"url": ""}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"advertise": ""},
        {"secretName": ""},
        {"database": {"url": "postgresql://shardwork:password@db/shardwork"}},
        {"settings": {"LISTEN": "x"}},
        {"replica": 3},
    ],
    ids=["no name", "no keys", "password in the open", "no setting", "misspelt"],
)
def test_values_that_can_not_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError), helm.Chart.load(CHART) as chart:
        chart.validate_schema({**chart.values, **SERVER, **wrong})


def test_the_schema_is_migrated_before_coordinators_start_and_only_where_there_is_a_server() -> None:
    (job,) = of_kind(SERVER, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["shardwork-coordinator", "migrate"]
    assert of_kind(ALONE, "Job") == [] == of_kind({**SERVER, "migrations": {"enabled": False}}, "Job")


def test_one_of_several_may_go_and_a_single_one_blocks_no_node() -> None:
    (budget,) = of_kind(SERVER, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert of_kind(ALONE, "PodDisruptionBudget") == []


def test_services_and_policies_lead_to_the_coordinators() -> None:
    (coordinator,) = of_kind(EVERYTHING, "StatefulSet")
    labels = coordinator["spec"]["template"]["metadata"]["labels"]
    selectors = [one["spec"]["selector"] for one in of_kind(EVERYTHING, "Service")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(EVERYTHING, "NetworkPolicy")]
    assert len(selectors) == 3
    for selector in selectors:
        assert selector.items() <= labels.items()
    (monitor,) = of_kind(EVERYTHING, "ServiceMonitor")
    web = [one for one in of_kind(EVERYTHING, "Service") if one["metadata"]["name"].endswith("-web")]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= web[0]["metadata"]["labels"].items()
    (policy,) = of_kind(EVERYTHING, "NetworkPolicy")
    assert policy["spec"]["ingress"][1]["from"] == EVERYTHING["networkPolicy"]["webFrom"]  # type: ignore[index]


def test_the_job_that_alerts_ask_for_is_the_one_that_is_scraped() -> None:
    (monitor,) = of_kind(EVERYTHING, "ServiceMonitor")
    (web,) = [one for one in of_kind(EVERYTHING, "Service") if one["metadata"]["name"].endswith("-web")]
    assert web["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "shardwork"


def test_the_web_certificate_covers_the_name_that_the_scraper_asks_for() -> None:
    (monitor,) = of_kind(EVERYTHING, "ServiceMonitor")
    (coordinator,) = of_kind(EVERYTHING, "StatefulSet")
    env = {one["name"]: one["value"] for one in coordinator["spec"]["template"]["spec"]["containers"][0]["env"]}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["tlsConfig"]["serverName"] in env["SHARDWORK_WEB_HOSTS"].split()
