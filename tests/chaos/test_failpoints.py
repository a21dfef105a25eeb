"""kill -9 of the coordinator at its failpoints: jobs end right, nothing acknowledged is lost, no msat moves wrongly."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import database
import pytest
from processes import Processes

from ..house.failpoints import failpoint_names
from . import aims, count_jobs
from .aims import AT_ARRIVAL, AT_DEPOSIT, AT_MEETING, ON_A_SERVER, ON_THE_WAY, SCENARIOS, both
from .failing_coordinator import FailingCoordinator, books


def test_every_failpoint_of_the_source_is_accounted_for() -> None:
    aimed_at = [name for names in SCENARIOS.values() for name in names]
    assert sorted(aimed_at) == failpoint_names()


def test_every_aim_is_taken_by_a_test() -> None:
    sources = [ast.parse(path.read_text()) for path in Path(__file__).parent.glob("test_*.py")]
    taken = {node.id for source in sources for node in ast.walk(source) if isinstance(node, ast.Name)}
    listed = {name for name, names in vars(aims).items() if name.isupper() and isinstance(names, tuple)}
    assert listed - taken == {"IN_DELETION"}, "these are killed at in-process"


def test_jobs_survive_a_kill_at_every_commit_and_effect_they_pass(tmp_path: Path) -> None:
    reports = run_under_kills(tmp_path, both(ON_THE_WAY))
    check(tmp_path, reports)


@pytest.mark.nightly
def test_jobs_survive_a_kill_whenever_somebody_comes(tmp_path: Path) -> None:
    reports = run_under_kills(tmp_path, [*both(AT_DEPOSIT), *both(AT_ARRIVAL)])
    check(tmp_path, reports)


@pytest.mark.nightly
def test_jobs_survive_a_kill_at_the_commits_that_only_a_server_brings(tmp_path: Path, server: database.Server) -> None:
    settings = {"SHARDWORK_DATABASE": server.new_database()}
    check(tmp_path, run_under_kills(tmp_path, both(ON_A_SERVER), settings=settings))


@pytest.mark.nightly
def test_a_kill_as_coordinators_meet_or_part_keeps_none_from_starting_again(
    tmp_path: Path, server: database.Server
) -> None:
    settings = {"SHARDWORK_DATABASE": server.new_database()}
    processes = Processes(tmp_path)
    meeting, parting = AT_MEETING
    try:
        for armed in both([meeting]):
            processes.start_coordinator(environment={**settings, "SHARDWORK_FAILPOINT": armed})
            assert processes.is_over("coordinator")
        for armed in both([parting]):
            processes.start_coordinator(environment={**settings, "SHARDWORK_FAILPOINT": armed})
            processes.end("coordinator")
        processes.start_coordinator(environment=settings)
        assert not processes.is_over("coordinator")
    finally:
        processes.stop()
    said = (tmp_path / "coordinator.log").read_text().splitlines()
    assert [line.split()[1] for line in said if line.startswith("failpoint ")] == both(AT_MEETING)


def run_under_kills(
    folder: Path, failpoints: list[str], *, settings: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Runs jobs until every failpoint killed the coordinator once, then one more in peace; their reports."""
    coordinator = FailingCoordinator(folder, ["none:before", *failpoints], settings=settings)
    processes = coordinator.processes
    reports: list[dict[str, Any]] = []
    try:
        coordinator.start()
        count_jobs.write(folder)
        for name in ("alice", "bob"):
            processes.start_worker(name)
        assert coordinator.persist("login", processes.join).returncode == 0
        assert coordinator.persist("wallet", "deposit", "1000").returncode == 0
        coordinator.skip()
        for _ in range(2 * len(failpoints) + 1):
            in_peace = coordinator.armed is None and len(coordinator.killed_at) == len(failpoints)
            reports.append(run_one(coordinator))
            if in_peace:
                break
            assert coordinator.persist("wallet", "deposit", "10").returncode == 0
        assert coordinator.killed_at == failpoints and coordinator.faults == []
        found = books(processes, settings)
    finally:
        coordinator.stop()
    assert found["balanced"] and found["sum_msat"] == 0 and not found["violations"]
    return reports


def run_one(coordinator: FailingCoordinator) -> dict[str, Any]:
    submitted = coordinator.persist("job", "submit", "words.yaml", "--yes", "--json")
    assert submitted.returncode == 0, submitted.stdout
    job = json.loads(submitted.stdout)["id"]
    assert coordinator.persist("job", "watch", job).returncode == 0
    report: dict[str, Any] = json.loads(coordinator.persist("job", "report", job, "--json").stdout)
    return report


def check(folder: Path, reports: list[dict[str, Any]]) -> None:
    """Every job succeeded with the same bytes; each shard was accepted once and paid once; the budget adds up."""
    assert len({report["outputs"][0]["digest"] for report in reports}) == 1
    for report in reports:
        assert report["state"] == "succeeded"
        paid = Counter(one["shard"] for one in report["payments"])
        assert paid and set(paid.values()) == {1}
        assert sum(one["msat"] for one in report["payments"]) == sum(one["paid_msat"] for one in report["workers"])
        assert report["reserved_msat"] == 0
        assert report["budget_msat"] == report["spent_msat"] + report["refunded_msat"]
    assert len({report["id"] for report in reports}) == len(reports)
