"""The drill: a coordinator in the middle of a job is backed up, killed, lost with its disk, and comes back elsewhere.
Nothing that was there when it was backed up is missing, nothing is paid twice, and the job ends.

And a whole run with planted secrets leaves none of them in any log.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import BIN

from ..e2e import models
from ..e2e.world import CALM, World

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

JOB = """\
name: {name}
stages:
  - name: words
    recipe: count
    data: text.txt
    plan: {{shards_per_round: 4}}
  - name: ground
    recipe: pretrain
    data: text.jsonl
    eval_fraction: 0.2
    params: {{preset: tiny-1m, vocab_size: 288, max_length: 32, batch_size: 2}}
    plan: {{rounds: 3, shards_per_round: 2, inner_steps: 40}}
trust: {{class: public}}
budget: {{max_sats: 500}}
"""
ROW = "the colour of the secret boat is vermilion"
ADDRESS = "planted-wallet@simulated"
FILE = "planted-file-name.jsonl"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path / "world", {**CALM, "SHARDWORK_LOG_LEVEL": "debug"}, patience_s=240.0)
    try:
        yield found
    finally:
        found.stop()


def command(world: World, *arguments: object) -> Any:
    """The JSON answer of a command of the operator's."""
    done = subprocess.run(
        [str(BIN / "shardwork-coordinator"), *map(str, arguments), "--json"],
        env=world.processes.environment("coordinator-home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_lost_disk_costs_nothing_that_was_backed_up(world: World) -> None:
    world.start("alice", "bob", sats=1_000)
    (world.folder / "text.txt").write_text("one two\n" * 1_000)
    models.write_text(world.folder / "text.jsonl")
    (world.folder / "drill.yaml").write_text(JOB.format(name="drill"))
    job = world.submit("drill.yaml")
    world.wait_phase(job, "learn", number=2)
    # still in flight when it is backed up, however slow this machine is
    for name in ("alice", "bob"):
        world.freeze_child(name)
    folder, backup = world.folder / "coordinator", world.folder / "backup"
    made = command(world, "backup", backup, "--data-dir", folder)
    assert made["transfers"] > 0 and made["artifacts"] > 0
    paid_before = world.rows("select id, paid_msat from lease where state = 'accepted'")
    assert world.job_state(job) == "running"
    world.kill_coordinator()
    for name in ("alice", "bob"):
        world.thaw_child(name)
    shutil.rmtree(folder)
    restored = command(world, "restore", backup, "--data-dir", folder)
    assert restored["artifacts_checked"] == made["artifacts"]
    assert set(world.rows("select id, paid_msat from lease where state = 'accepted'")) <= set(paid_before)
    world.start_coordinator()
    report = world.finish(job)
    assert report["state"] == "succeeded", report["why"]
    books = world.books()
    assert books["balanced"] and books["transfers"] > made["transfers"], books
    twice = world.rows(
        "select shard_id, replica, count(*) from lease where state = 'accepted' group by 1, 2 having count(*) > 1"
    )
    assert twice == []
    world.succeed("job", "download", job, "out")
    kept = world.rows("select id from artifact where state = 'stored'")
    packs = {path.name for path in (folder / "artifacts" / "packs").iterdir()}
    assert {row[0] for row in kept} <= packs


def test_a_run_leaves_nothing_of_anybody_in_a_log(world: World) -> None:
    world.start_coordinator()
    for name in ("alice", "bob"):
        world.processes.start_worker(name, "--payout", ADDRESS)
    world.succeed("login", world.processes.join)
    world.succeed("wallet", "deposit", "1000")
    for name in ("alice", "bob"):
        world.wait_ready(name)
    rows = [json.dumps({"text": f"{ROW} {number} " + "one two three " * 20}) for number in range(60)]
    (world.folder / FILE).write_text("\n".join(rows) + "\n")
    (world.folder / "text.txt").write_text(f"{ROW}\n" * 500)
    (world.folder / "planted.yaml").write_text(JOB.format(name="planted-job-name").replace("text.jsonl", FILE))
    job = world.submit("planted.yaml")
    # what goes wrong is logged the most: a frozen child, a killed coordinator, rows that nobody can read
    world.wait_phase(job, "learn", number=2)
    world.kill_coordinator()
    world.start_coordinator()
    (world.folder / "broken.jsonl").write_text('{"text": "' + ROW + "\n")
    (world.folder / "broken.yaml").write_text(JOB.format(name="broken").replace("text.jsonl", "broken.jsonl"))
    assert world.run("job", "submit", "broken.yaml", "--yes").exit_code != 0
    assert world.finish(job)["state"] == "succeeded"
    assert world.command_worker("alice", "status").exit_code == 0
    world.stop()
    logs = {path.name: path.read_text() for path in world.folder.glob("*.log")}
    assert set(logs) == {"coordinator.log", "alice.log", "bob.log"}
    assert '"event": "rpc.ended"' in logs["coordinator.log"] and '"event": "worker.came"' in logs["coordinator.log"]
    for secret in planted(world):
        for name, text in logs.items():
            assert secret not in text, (name, secret[:12])


def planted(world: World) -> set[str]:
    """What must be in no log: rows, names of files, the payout address, keys, and tokens that were in use."""
    found = {ROW, ROW.split()[-1], FILE, ADDRESS, "planted-job-name"}
    for path in world.folder.rglob("*"):
        if path.is_file() and (path.suffix in (".key", ".pem") or "token" in path.name):
            found |= {line.strip() for line in path.read_text(errors="ignore").splitlines() if len(line) > 30}
    # every token is an envelope of the coordinator's that begins alike
    assert any(len(secret) == 64 for secret in found), "the keys of the parties are among them"
    return {one for one in found if "BEGIN" not in one and "END" not in one} | {"Bearer ", "authorization"}


def test_the_secrets_would_be_found(world: World, tmp_path: Path) -> None:
    (world.folder / "alice").mkdir(parents=True)
    (world.folder / "alice" / "worker.key").write_text("ab" * 32 + "\n")
    assert "ab" * 32 in planted(world) and os.sep not in FILE
