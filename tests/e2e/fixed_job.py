"""One small training job that is the same job wherever it is submitted: same key, same submission id, same inputs.

So its id, its seeds and therefore its bytes must be the same, whatever happens on the way. `outcome` is what is
compared, `check_accounts` what must hold of the money. Used by the end-to-end and the chaos tests.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path

from shardwork.artifact import describe_folder
from shardwork.client.plan import Measured, measure
from shardwork.client.submit import upload_inputs
from shardwork.identity.authority import JoinLine
from shardwork.identity.keys import load_or_create
from shardwork.identity.role import Role
from shardwork.ids import job_id
from shardwork.session import Session
from shardwork.v1 import jobs_pb2

from . import models
from .jobfile import LONG_STEPS, write_sft
from .world import World

SUBMISSION = "the-same-job-again"
ROUNDS = 2
#: phases whose results two keys must agree on, so that two are paid
CONFIRMED = {"init", "evaluate", "publish"}
#: the parts of a stage that must not differ in one byte
COMPARED = ("checkpoint", "best_checkpoint", "outer", "train", "eval")


def lend_key(source: World, target: World) -> None:
    """Before `target` starts: its requester will be the same party."""
    path = target.home("client").key_path("requester")
    path.parent.mkdir(parents=True, mode=0o700)
    shutil.copy(source.home("client").key_path("requester"), path)


def write(world: World, *, method: str = "lora", steps: int = LONG_STEPS) -> None:
    """same.yaml with its model and rows, all equal in every world."""
    if not (world.folder / "models").exists():
        models.write_gpt2(world.folder / "models" / "gpt2")
        models.write_chat(world.folder / "chat.jsonl")
    write_sft(world.folder, "same.yaml", name="same", method=method, rounds=ROUNDS, steps=steps)


def submit(world: World, *, submission: str = SUBMISSION) -> str:
    """As `shardwork job submit` does, but with a submission id of our own; the job's id."""
    measured = measure(world.folder / "same.yaml")
    job = asyncio.run(_submit(world, measured, submission))
    owner = world.rows("select owner from job where id = ?", job)[0][0]
    assert job == job_id(owner, submission)
    return job


async def _submit(world: World, measured: Measured, submission: str) -> str:
    home = world.home("client")
    key = load_or_create(home.key_path("requester"))
    async with await Session.open(JoinLine.parse(world.processes.join), key, Role.REQUESTER) as session:
        request = jobs_pb2.SubmitJobRequest(
            spec_json=measured.loaded.spec.canonical_json(),
            facts=measured.facts(),
            inputs=await upload_inputs(session, measured, home.cache_dir),
            max_msat=measured.budget_msat,
            submission_id=submission,
        )
        return (await session.call(session.jobs.SubmitJob, request)).job_id


def outcome(world: World, job: str) -> dict[str, str]:
    """Digests of all that must be the same: each round's checkpoint and delta, the outputs, and their files' bytes."""
    found: dict[str, str] = {}
    for name, artifacts in world.rows("select name, artifacts_json from stage where job_id = ?", job):
        found |= {f"{name}/{key}": value for key, value in json.loads(artifacts).items() if key in COMPARED}
    for number, results, outer in world.rows("select number, results_json, outer from round where job_id = ?", job):
        kept = {key: value for key, value in json.loads(results).items() if key != "samples"}
        found |= {f"r{number}/{key}": value for key, value in kept.items()} | {f"r{number}/outer-step": outer}
    into = f"fetched-{job}"
    assert world.run("job", "download", job, into).exit_code == 0
    for folder in sorted((world.folder / into).iterdir()):
        found |= _files(folder)
    return found


def _files(folder: Path) -> dict[str, str]:
    """`<output>/<file>` -> its leaves, for weights."""
    manifest = describe_folder(folder)
    return {
        f"{folder.name}/{entry.path}": b"".join(entry.leaves).hex()
        for entry in manifest.files
        if entry.path.endswith(".safetensors")
    }


def check_accounts(world: World, job: str) -> None:
    """Each accepted result paid once, none accepted twice, nothing done again once it was done, the books balanced."""
    report = world.ask("job", "report", job)
    assert report["state"] == "succeeded", report["why"]
    paid = Counter((one["shard"], one["worker"]) for one in report["payments"])
    assert set(paid.values()) == {1}
    for shard, phase in {(one["shard"], one["phase"]) for one in report["payments"]}:
        keys = [worker for name, worker in paid if name == shard]
        assert len(keys) == (2 if phase in CONFIRMED else 1), (shard, keys)
    redone = world.rows(
        "select lease.id from lease join shard on shard.id = lease.shard_id"
        " where lease.job_id = ? and shard.done_ms > 0 and lease.granted_ms > shard.done_ms",
        job,
    )
    assert redone == []
    spent = sum(one["msat"] for one in report["payments"])
    assert spent == sum(worker["paid_msat"] for worker in report["workers"])
    assert report["reserved_msat"] == 0
    assert report["budget_msat"] == report["spent_msat"] + report["refunded_msat"]
    books = world.books()
    assert books["balanced"] and books["sum_msat"] == 0 and books["violations"] == []
