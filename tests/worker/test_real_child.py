"""The command as people run it, with the real child: one shard of a recipe that needs no torch."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from shardwork import work
from shardwork_worker.control import Command, ask

from .fake_coordinator import FakeCoordinator


async def test_start_until_idle_runs_a_count_shard_and_exits_0(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    part = coordinator.keep_file(tmp_path / "part", "lines.txt", b"a b a\n")
    home = tmp_path / "home"
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shardwork_worker.cli", "start", coordinator.join.text()),
        *("--until-idle", "--idle-seconds", "1", "--payout", "ada@example.org", "--name", "Ada", "--device", "cpu"),
        env={**os.environ, "SHARDWORK_HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    hello = await coordinator.wait("Hello")
    enrolment = coordinator.last("Enrol")
    assert (enrolment.name, enrolment.payout_address) == ("Ada", "ada@example.org")
    assert hello.capability.memory_bytes > 0 and hello.capability.execution_class.startswith("cpu:")
    coordinator.offer(coordinator.lease({"top": 2}, {"part": part}, phase="map", recipe="count"))
    request = await coordinator.wait("SubmitResult")
    assert ask(home / "state" / "worker", Command.STATUS)["state"] in ("busy", "ready")
    (output,) = work.open_submission(request.envelope, coordinator.worker_key).outputs
    stored = coordinator.blobs[output.artifact_id]
    assert output.name == "counts" and b'"a"' in stored.data
    async with asyncio.timeout(20):
        out, said = await worker.communicate()
    assert (worker.returncode, out) == (0, b""), said
