"""kill -9 of the coordinator while somebody signs in and acts on the dashboard: done and noted, or neither."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from shardwork_coordinator.records import AuditEntry, WebUser
from shardwork_coordinator.store import SqlStore

from .aims import AT_DASHBOARD, both
from .failing_coordinator import FailingCoordinator

PASSWORD = "four words of no sense"

pytestmark = pytest.mark.nightly


def sign_in(client: httpx.Client) -> str:
    """The token of the forms of a fresh session."""
    answer = client.post("/login", data={"name": "ada", "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/users").text)
    assert found is not None
    return found[1]


def test_what_somebody_does_is_done_and_noted_or_neither(tmp_path: Path) -> None:
    coordinator = FailingCoordinator(tmp_path, ["none:before"])
    processes = coordinator.processes
    try:
        coordinator.start()
        data_dir = tmp_path / "coordinator"
        command = [sys.executable, "-m", "shardwork_coordinator.cli", "user", "add", "ada", "--password-file", "-"]
        subprocess.run([*command, "--data-dir", str(data_dir)], input=PASSWORD, text=True, check=True)
        coordinator.skip()
        assert coordinator.serving.wait(60)
        coordinator.arm(both(AT_DASHBOARD))
        for number in range(200):
            in_peace = coordinator.is_in_peace
            try:
                with httpx.Client(base_url=processes.web) as client:
                    form = {"csrf": sign_in(client), "name": f"viewer-{number}", "password": PASSWORD, "role": "viewer"}
                    client.post("/users/add", data=form)
                if in_peace:
                    break
            except (httpx.HTTPError, AssertionError):
                time.sleep(0.2)
                coordinator.serving.wait(60)
        assert coordinator.killed_at == both(AT_DASHBOARD)
        assert coordinator.faults == []
    finally:
        coordinator.stop()
    users, noted = asyncio.run(left_behind(data_dir / "coordinator.db"))
    assert users == noted and len(users) > 1


async def left_behind(path: Path) -> tuple[list[str], list[str]]:
    """Who may sign in, and who was let in according to the audit log."""
    store = SqlStore(f"sqlite:///{path}")
    store.start()
    try:
        users = await store.read(lambda tx: [one.name for one in tx.find(WebUser)])
        entries = await store.read(lambda tx: tx.find(AuditEntry))
        return sorted(users), sorted(one.subject for one in entries if one.action == "user.add")
    finally:
        store.close()
