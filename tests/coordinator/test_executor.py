"""The executor runs phases in processes of its own and survives their deaths."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from shardwork.errors import Conflict, Internal, InvalidInput, LimitExceeded, NotFound, ShardworkError
from shardwork.recipes.base import Computed
from shardwork.recipes.orders import ApplyOrder, MergeOrder, SplitOrder
from shardwork.tensors.checkpoint import open_checkpoint
from shardwork_coordinator import executor as executor_module
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.executor import Executor, ExecutorTask, Failed, TaskContext, Work, run_task

from .aggregate import rounds


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Executor]:
    made = Executor(str(tmp_path / "artifacts"), tmp_path / "scratch")
    yield made
    made.close()


def stored_round(root: Path) -> dict[str, str]:
    """Input name -> artifact id of a round of two honest deltas."""
    store = ArtifactStore.open(str(root / "artifacts"))
    rounds.base(root)
    inputs = {"checkpoint": store.put_folder(root / "checkpoint").id}
    for index in range(2):
        rounds.write_honest(root / f"delta-{index}", index, "int8")
        inputs[f"delta-{index}"] = store.put_folder(root / f"delta-{index}").id
    return dict(inputs)


def merge_task(inputs: dict[str, str], weights: tuple[int, ...] = (1, 1)) -> ExecutorTask:
    order = MergeOrder(
        rule="mean", steps=rounds.STEPS, weights=weights, candidates=("mean", "nesterov"), encoding="int8"
    )
    return task("merge", order.canonical_json(), inputs)


def task(phase: str, order_json: str, inputs: Mapping[str, str]) -> ExecutorTask:
    return ExecutorTask(id="t", phase=phase, recipe="sft", order_json=order_json, inputs=inputs, seed=bytes(32))


async def test_merge_and_apply_run_from_artifacts_to_artifacts(tmp_path: Path, executor: Executor) -> None:
    inputs = stored_round(tmp_path)
    merged = await executor.run(merge_task(inputs))
    assert set(merged.outputs) == {"step-mean", "step-nesterov", "moments", "outer"}
    assert merged.metrics["num_kept"] == 2
    step = merged.outputs["step-mean"]
    assert set(step.files) == {"step.safetensors", "update.json"} and step.bytes == sum(step.files.values())
    applied = await executor.run(
        task(
            "apply",
            ApplyOrder(steps=rounds.STEPS, encoding="int8").canonical_json(),
            {
                "checkpoint": inputs["checkpoint"],
                "step": step.artifact_id,
                "moments": merged.outputs["moments"].artifact_id,
            },
        )
    )
    ArtifactStore.open(str(tmp_path / "artifacts")).materialise(
        applied.outputs["checkpoint"].artifact_id, tmp_path / "next"
    )
    with open_checkpoint(tmp_path / "next") as following:
        assert (following.adam_step, following.round) == (rounds.STEPS, 1)
    assert list((tmp_path / "scratch" / "tasks").iterdir()) == []


async def test_the_same_task_twice_gives_the_same_artifacts(tmp_path: Path, executor: Executor) -> None:
    inputs = stored_round(tmp_path)
    first = await executor.run(merge_task(inputs))
    other = Executor(str(tmp_path / "artifacts"), tmp_path / "other-scratch")
    again, elsewhere = await asyncio.gather(executor.run(merge_task(inputs)), other.run(merge_task(inputs)))
    other.close()
    assert first == again == elsewhere


async def test_prepare_and_split_are_dispatched(tmp_path: Path, executor: Executor) -> None:
    store = ArtifactStore.open(str(tmp_path / "artifacts"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lines.txt").write_text("one\ntwo\nthree\n")
    data = {"data": store.put_folder(tmp_path / "data").id}
    order = SplitOrder(parts=2).canonical_json()
    split = await executor.run(
        ExecutorTask(id="t", phase="split", recipe="count", order_json=order, inputs=data, seed=bytes(32))
    )
    assert set(split.outputs) == {"part-0", "part-1"}
    with pytest.raises(ShardworkError) as caught:
        await executor.run(task("prepare", "{}", data))
    assert caught.value.code != "executor.failed"


async def test_errors_cross_the_process_boundary_whole(tmp_path: Path, executor: Executor) -> None:
    inputs = stored_round(tmp_path)
    store = ArtifactStore.open(str(tmp_path / "artifacts"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "update.json").write_text("{}")
    bad = store.put_folder(tmp_path / "bad").id
    with pytest.raises(Conflict) as caught:
        await executor.run(merge_task({**inputs, "delta-0": bad, "delta-1": bad}))
    assert caught.value.code == "aggregate.too_few"
    assert caught.value.why.evidence == {"delta_0": "checkpoint.json", "delta_1": "checkpoint.json"}
    assert caught.value.why.next_step
    with pytest.raises(NotFound):
        await executor.run(merge_task({**inputs, "delta-0": "0" * 64}))
    with pytest.raises(InvalidInput, match="order is malformed"):
        await executor.run(task("merge", "{}", {}))
    with pytest.raises(Internal, match="No executor phase"):
        await executor.run(task("learn", "{}", {}))
    assert list((tmp_path / "scratch" / "tasks").iterdir()) == []


async def child_of(executor: Executor) -> int:
    """The process that runs the next task."""
    process = executor._take()  # pyright: ignore[reportPrivateUsage]
    pid = await asyncio.get_running_loop().run_in_executor(process, os.getpid)
    executor._idle.append(process)  # pyright: ignore[reportPrivateUsage]
    return pid


async def test_a_death_ends_no_task_but_its_own(tmp_path: Path, executor: Executor) -> None:
    """Three deaths fail a job; with a common pool a requester could spend those of the others, who only waited."""
    inputs = stored_round(tmp_path)
    child = await child_of(executor)
    os.kill(child, signal.SIGSTOP)
    dying = asyncio.create_task(executor.run(merge_task(inputs)))
    waiting = asyncio.create_task(executor.run(merge_task(inputs)))
    await asyncio.sleep(0)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(Internal) as caught:
        await dying
    assert caught.value.code == "executor.died"
    assert (await waiting).metrics["num_kept"] == 2


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux tells the system whom to end first")
async def test_an_executor_process_ends_before_the_coordinator_when_memory_ends(executor: Executor) -> None:
    child = await child_of(executor)
    assert int(Path(f"/proc/{child}/oom_score_adj").read_text()) == 1000


async def test_a_dead_process_is_an_error_and_the_pool_recovers(tmp_path: Path, executor: Executor) -> None:
    inputs = stored_round(tmp_path)
    child = await child_of(executor)
    # a stopped child can't finish the task before it is killed
    os.kill(child, signal.SIGSTOP)
    running = asyncio.create_task(executor.run(merge_task(inputs)))
    await asyncio.sleep(0)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(Internal) as caught:
        await running
    assert caught.value.code == "executor.died"
    assert (await executor.run(merge_task(inputs))).metrics["num_kept"] == 2
    assert list((tmp_path / "scratch" / "tasks").iterdir()) == []


@pytest.mark.timeout(30)
async def test_closing_ends_even_a_process_that_hangs(tmp_path: Path, executor: Executor) -> None:
    inputs = stored_round(tmp_path)
    child = await child_of(executor)
    os.kill(child, signal.SIGSTOP)
    running = asyncio.create_task(executor.run(merge_task(inputs)))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    executor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_leftovers_of_a_killed_coordinator_are_removed(tmp_path: Path) -> None:
    (tmp_path / "tasks" / "old").mkdir(parents=True)
    Executor(str(tmp_path / "artifacts"), tmp_path).close()
    assert not (tmp_path / "tasks").exists()


def test_unexpected_errors_come_back_as_internal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_task: ExecutorTask, _context: TaskContext) -> Computed:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(executor_module, "compute", broken)
    work = Work(task("merge", "{}", {}), str(tmp_path / "artifacts"), tmp_path / "task", tmp_path / "cache", 10**9)
    outcome = run_task(work)
    assert isinstance(outcome, Failed)
    error = outcome.to_error()
    assert type(error) is Internal and error.code == "executor.failed"
    assert error.why.evidence["error"] == "ZeroDivisionError: by zero"


def test_an_unexpected_error_tells_nothing_of_the_operators_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_task: ExecutorTask, context: TaskContext) -> Computed:
        raise FileNotFoundError(2, "No such file", str(context.output("report") / "lines.txt"))

    monkeypatch.setattr(executor_module, "compute", broken)
    work = Work(task("join", "{}", {}), str(tmp_path / "artifacts"), tmp_path / "task", tmp_path / "cache", 10**9)
    outcome = run_task(work)
    assert isinstance(outcome, Failed)
    told = outcome.to_error().why.evidence["error"]
    assert str(tmp_path) not in told and told.endswith("'…/outputs/report/lines.txt'")


@pytest.mark.parametrize(("free_bytes", "refused"), [(1_500, True), (3_000, False)])
def test_a_phase_leaves_room_for_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, refused: bool
) -> None:
    store = ArtifactStore.open(tmp_path / "artifacts")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("word\n" * 200)
    inputs = {"data": store.put_folder(tmp_path / "data").id}
    split = ExecutorTask(
        id="t", phase="split", recipe="count", order_json=SplitOrder(parts=1).canonical_json(), inputs=inputs, seed=b""
    )
    usage = shutil.disk_usage(tmp_path)._replace(free=free_bytes)

    def disk_usage(_: Path) -> object:
        return usage

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    place = str(tmp_path / "artifacts")
    outcome = run_task(Work(split, place, tmp_path / "task", tmp_path / "cache", 10**9, reserve_bytes=1_000))
    assert isinstance(outcome, Failed) is refused
    if isinstance(outcome, Failed):
        assert outcome.to_error().code == "executor.no_space"
        assert list((tmp_path / "cache").iterdir()) == []


def test_the_context_has_plain_outputs_and_no_trainer(tmp_path: Path) -> None:
    context = TaskContext({"a": tmp_path}, b"seed", tmp_path / "outputs")
    assert (
        list(context.output("train").iterdir()) == [] and context.seed == b"seed" and context.inputs == {"a": tmp_path}
    )
    context.progress(0.5, loss=1.0)
    for name in ("", "..", "a/b", "/etc"):
        with pytest.raises(Internal):
            context.output(name)
    with pytest.raises(Internal):
        _ = context.trainer


def test_inputs_are_never_changed_by_a_merge(tmp_path: Path) -> None:
    """Inputs are hard links into a shared cache: a write would reach later tasks."""
    rounds.base(tmp_path)
    rounds.write_honest(tmp_path / "delta-0", 0, "int8")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    rounds.run(tmp_path, [tmp_path / "delta-0"], encoding="int8", rule="mean")
    assert before == {path: path.read_bytes() for path in before}
    assert np.isfinite(rounds.flat(tmp_path / "checkpoint")).all()


@pytest.mark.parametrize("phase", ["prepare", "split", "grade"])
async def test_a_phase_that_takes_for_ever_is_ended_with_a_reason_and_the_next_task_runs(
    phase: str, tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer's pattern can take years on a short row, as can a reward on an answer, and holds a process of the
    operator's while it does."""
    monkeypatch.setattr(executor_module, "PREPARE_SECONDS", 0.0)
    monkeypatch.setattr(executor_module, "PREPARE_BYTES_A_SECOND", 10**12)
    store = ArtifactStore.open(str(tmp_path / "artifacts"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lines.txt").write_text("one\n")
    with pytest.raises(LimitExceeded) as caught:
        await executor.run(task(phase, "{}", {"data": store.put_folder(tmp_path / "data").id}))
    assert caught.value.code == "executor.too_slow"
    assert (await executor.run(merge_task(stored_round(tmp_path)))).outputs


async def test_an_executor_process_has_limits_that_it_can_not_raise(executor: Executor) -> None:
    pid = await child_of(executor)
    limits = {name: resource.prlimit(pid, getattr(resource, name)) for name in ("RLIMIT_CORE", "RLIMIT_DATA")}
    assert limits["RLIMIT_CORE"] == (0, 0)
    soft, hard = limits["RLIMIT_DATA"]
    assert soft == hard != resource.RLIM_INFINITY
