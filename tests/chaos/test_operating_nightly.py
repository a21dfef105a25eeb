"""kill -9 of the coordinator as programs call it over HTTP, as a job is made on an offered model, and as the operator
takes a worker out of service."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ..e2e import models
from ..e2e.jobfile import write_sft
from .aims import AT_API, AT_OFFERED, AT_THE_OPERATORS_WORD
from .drill import Drill, drill

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

ROW = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]})


def operate(stage: Drill, *arguments: str) -> None:
    """A command of the operator on the coordinator's own machine."""
    folder = stage.world.folder
    command = [sys.executable, "-m", "shardwork_coordinator.cli", *arguments, "--data-dir", str(folder / "coordinator")]
    subprocess.run(command, env=stage.world.processes.environment("coordinator-home"), check=True, capture_output=True)


def until_in_peace(stage: Drill, work: Callable[[], None]) -> None:
    """Does it again and again until nothing is armed any more, and once in peace."""
    for _ in range(60):
        in_peace = stage.coordinator.is_in_peace
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            work()
            if in_peace:
                return
        stage.coordinator.serving.wait(60)
        time.sleep(0.1)
    raise AssertionError(f"never in peace; killed at {stage.coordinator.killed_at}")


def wait_for_another_kill(stage: Drill, before: int) -> None:
    stage.world.until(lambda: len(stage.coordinator.killed_at) > before, "another kill")


def test_keys_and_files_of_the_http_api_are_whole_or_not_there(tmp_path: Path) -> None:
    with drill(tmp_path) as stage:
        stage.arm(AT_API)

        def call() -> None:
            made = stage.coordinator.persist("api-key", "create", "--json")
            assert made.returncode == 0, made.stderr
            key = json.loads(made.stdout)
            web, bearer = stage.world.processes.web, {"Authorization": f"Bearer {key['key']}"}
            form = {"file": ("rows.jsonl", "\n".join([ROW] * 10))}
            stored = httpx.post(
                f"{web}/v1/files", headers=bearer, files=form, data={"purpose": "fine-tune"}, timeout=60
            )
            assert stored.status_code == 200, stored.text
            read = httpx.get(f"{web}/v1/files/{stored.json()['id']}/content", headers=bearer)
            assert read.text == "\n".join([ROW] * 10)
            assert stage.coordinator.persist("api-key", "revoke", key["id"]).returncode == 0

        until_in_peace(stage, call)
        stage.wait_killed()
        listed = json.loads(stage.coordinator.persist("api-key", "list", "--json").stdout)
        assert listed


def test_a_job_on_an_offered_model_is_made_once(tmp_path: Path) -> None:
    with drill(tmp_path) as stage:
        operate(stage, "model", "add", "tiny", str(models.write_gpt2(tmp_path / "offered")))
        models.write_chat(stage.world.folder / "chat.jsonl")
        file = write_sft(stage.world.folder, base_model="offered:tiny")
        stage.arm(AT_OFFERED)
        # planned again, and submitted again, as a person does whose coordinator was away
        assert stage.coordinator.persist("job", "plan", file).returncode == 0
        job = stage.submit(file)
        stage.wait_killed()
        assert stage.coordinator.persist("job", "cancel", job).returncode == 0
        assert len(stage.world.ask("job", "list")["jobs"]) == 1


def test_a_kill_as_a_worker_is_taken_out_of_service_gives_its_shards_to_others_once(tmp_path: Path) -> None:
    with drill(tmp_path, "alice", "bob") as stage:
        for name in ("alice", "bob"):
            stage.freeze(name)
        job = stage.submit()
        stage.wait_computing("alice", "bob")
        stage.arm(AT_THE_OPERATORS_WORD)
        for name in ("alice", "bob"):
            before = len(stage.coordinator.killed_at)
            stage.wait_attached(name)
            operate(stage, "worker", "quarantine", stage.world.worker(name)["worker_id"], "--reason", "a drill")
            wait_for_another_kill(stage, before)
            if stage.coordinator.is_in_peace:
                break
        stage.wait_killed()
        stage.join_workers("carol")
        stage.check_done(job)
        expired = [state for _, state, _ in stage.leases(job) if state == "expired"]
        assert expired
