"""A lease from offer to verdict against a real server: the order of steps, the bytes that are signed, and inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from shardwork import work
from shardwork.artifact import describe_folder
from shardwork.errors import StaleLease, Unreachable
from shardwork.identity.keys import SigningKey
from shardwork.v1 import work_pb2
from shardwork_worker.control import Command

from .conftest import Workers
from .fake_coordinator import FakeCoordinator

RunLog = Callable[[], list[str]]


async def test_a_shard_goes_from_offer_over_commit_and_upload_to_submission(
    coordinator: FakeCoordinator, workers: Workers, tmp_path: Path
) -> None:
    rows = coordinator.keep_file(tmp_path / "rows", "rows.bin", b"r" * 1_500_000)
    await workers.here()
    lease = coordinator.lease({"do": "copy", "mib": 2}, {"train": rows})
    payload = coordinator.offer(lease)
    request = await coordinator.wait("SubmitResult")
    steps = [name for name in coordinator.names() if name in ("CommitResult", "Uploaded", "SubmitResult")]
    assert steps == ["CommitResult", "Uploaded", "SubmitResult"]
    commitment = work.open_commitment(coordinator.last("CommitResult").envelope, coordinator.worker_key)
    submission = work.open_submission(request.envelope, coordinator.worker_key)
    assert commitment.lease_sha256 == submission.lease_sha256 == hashlib.sha256(payload).digest()
    assert commitment.output_root == work.submission_root(submission)
    assert coordinator.last("BeginUpload").purpose == lease.lease_id
    (output,) = submission.outputs
    stored = coordinator.blobs[output.artifact_id]
    assert stored.complete and b"r" * 1_000_000 in stored.data
    assert (submission.compute_ms, submission.bytes_down) == (12, 1_500_000)
    assert submission.bytes_up == stored.manifest.total_bytes
    assert {metric.name: metric.value for metric in submission.metrics} == {"train_loss": 1.25}


async def test_an_offer_signed_by_another_key_or_for_another_worker_is_refused(
    coordinator: FakeCoordinator, workers: Workers, run_log: RunLog, tmp_path: Path
) -> None:
    await workers.here()
    order = {"do": "copy", "log": str(tmp_path / "runs.log")}
    coordinator.offer(coordinator.lease(order), SigningKey.generate())
    coordinator.offer(coordinator.lease(order, worker_id="0" * 16))
    coordinator.offer(coordinator.lease(order, {"train": "../../etc"}))
    good = coordinator.lease(order)
    coordinator.offer(good)
    await coordinator.wait("SubmitResult")
    assert [line.split()[0] for line in run_log()] == [good.lease_id]
    assert coordinator.calls["ReleaseLease"] == 0


async def test_a_second_shard_reads_shared_inputs_from_the_cache(
    coordinator: FakeCoordinator, workers: Workers, tmp_path: Path
) -> None:
    base = coordinator.keep_file(tmp_path / "base", "weights", b"w" * 3_000_000)
    await workers.here()
    for count in (1, 2):
        coordinator.offer(coordinator.lease({"do": "copy"}, {"base": base}))
        await coordinator.wait("SubmitResult", count)
    submission = work.open_submission(coordinator.last("SubmitResult").envelope, coordinator.worker_key)
    assert submission.bytes_down == 0
    assert coordinator.calls["DownloadLeaves"] == 1


async def test_a_checkpoint_is_rebuilt_from_its_parent_and_only_the_update_is_fetched(
    coordinator: FakeCoordinator, workers: Workers, run_log: RunLog, tmp_path: Path
) -> None:
    parent = coordinator.keep_file(tmp_path / "parent", "w", b"parent" * 100_000)
    step = coordinator.keep_file(tmp_path / "step", "w", b"step")
    moments = coordinator.keep_file(tmp_path / "moments", "w", b"moments")
    checkpoint = coordinator.keep_file(tmp_path / "next", "w", b"parent" * 100_000 + b"stepmoments")
    await workers.here()
    log = str(tmp_path / "runs.log")
    coordinator.offer(coordinator.lease({"do": "copy"}, {"checkpoint": parent}))
    await coordinator.wait("SubmitResult")
    update = {"checkpoint": checkpoint, "parent_checkpoint": parent, "step": step, "moments": moments}
    coordinator.offer(coordinator.lease({"do": "copy", "log": log}, update))
    request = await coordinator.wait("SubmitResult", 2)
    assert work.open_submission(request.envelope, coordinator.worker_key).bytes_down == len(b"stepmoments")
    assert run_log()[0].endswith("['checkpoint']")


async def test_a_rebuilt_checkpoint_that_differs_is_downloaded_instead(
    coordinator: FakeCoordinator, workers: Workers, tmp_path: Path
) -> None:
    parent = coordinator.keep_file(tmp_path / "parent", "w", b"parent")
    step = coordinator.keep_file(tmp_path / "step", "w", b"step")
    moments = coordinator.keep_file(tmp_path / "moments", "w", b"moments")
    checkpoint = coordinator.keep_file(tmp_path / "next", "w", b"what the coordinator says it is")
    worker = await workers.here()
    coordinator.offer(coordinator.lease({"do": "copy"}, {"checkpoint": parent}))
    await coordinator.wait("SubmitResult")
    update = {"checkpoint": checkpoint, "parent_checkpoint": parent, "step": step, "moments": moments}
    coordinator.offer(coordinator.lease({"do": "copy"}, update))
    await coordinator.wait("SubmitResult", 2)
    assert describe_folder(worker.folders.artifacts / checkpoint).id == checkpoint


async def test_a_damaged_folder_in_the_cache_is_downloaded_again(
    coordinator: FakeCoordinator, workers: Workers, tmp_path: Path
) -> None:
    base = coordinator.keep_file(tmp_path / "base", "weights", b"good")
    worker = await workers.here()
    damaged = worker.folders.artifacts / base
    damaged.mkdir()
    (damaged / "weights").write_bytes(b"evil")
    coordinator.offer(coordinator.lease({"do": "copy"}, {"base": base}))
    await coordinator.wait("SubmitResult")
    assert (damaged / "weights").read_bytes() == b"good"


async def test_a_stale_lease_is_forgotten_without_a_release(coordinator: FakeCoordinator, workers: Workers) -> None:
    worker = await workers.here()
    coordinator.refuse["CommitResult"] = StaleLease("lease.stale_epoch", "The lease is no longer the live one.")
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("CommitResult")
    del coordinator.refuse["CommitResult"]
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult")
    assert coordinator.calls["ReleaseLease"] == 0
    assert (await worker.ask(Command.STATUS))["shards_failed"] == 0


async def test_an_output_outside_the_shards_folder_is_never_uploaded(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    await workers.here()
    coordinator.offer(coordinator.lease({"do": "outside"}))
    release = await coordinator.wait("ReleaseLease")
    assert release.why.code == "trainer.output_outside"
    assert coordinator.calls["BeginUpload"] == 0


async def test_a_rejected_shard_counts_as_failed_and_a_push_repeats_nothing(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    worker = await workers.here()
    coordinator.verdict = work_pb2.SubmitResultResponse(state="rejected")
    lease = coordinator.lease({"do": "copy"})
    coordinator.offer(lease)
    await coordinator.wait("SubmitResult")
    for _ in range(3):
        settlement = work_pb2.Settlement(lease_id=lease.lease_id, state="rejected")
        coordinator.push(work_pb2.AttachResponse(settlement=settlement))
    coordinator.verdict = work_pb2.SubmitResultResponse(state="accepted", paid_msat=7000)
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("SubmitResult", 2)
    status = await worker.until_idle()
    assert (status["shards_failed"], status["state"]) == (1, "ready")


async def test_outputs_are_handed_in_from_where_the_child_reaches_nothing(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    """The child lives on: it could exchange a folder for a link to the key while the agent hashes and uploads."""
    worker = await workers.here()
    coordinator.refuse["CommitResult"] = Unreachable("test.away", "The test refuses every commit.")
    coordinator.offer(coordinator.lease({"do": "copy"}))
    await coordinator.wait("CommitResult")
    assert not list(worker.folders.work.iterdir())
    assert list(worker.folders.handed.glob("*/delta/made"))
    del coordinator.refuse["CommitResult"]
    await coordinator.wait("SubmitResult")
    await worker.until_idle()
    assert not list(worker.folders.handed.iterdir())
