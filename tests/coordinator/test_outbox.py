"""The outbox: each effect is reported once, tried again when it was our fault, and never for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import cast

import pytest

from shardwork.errors import Internal, InvalidInput, Unreachable
from shardwork.why import Why
from shardwork_coordinator import outbox
from shardwork_coordinator.executor import Executor, ExecutorResult, ExecutorTask, OutputInfo
from shardwork_coordinator.outbox import MOST_ATTEMPTS, OutboxRunner
from shardwork_coordinator.records import Artifact, Job, JobState, Outbox, OutboxState, Shard, Stage
from shardwork_coordinator.views import job_why

from .simulation import count_job
from .unruly import Unruly

Answer = Callable[[ExecutorTask], ExecutorResult]


class ScriptedExecutor:
    """Answers as it is told to, and remembers what was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[ExecutorTask] = []

    async def run(self, task: ExecutorTask) -> ExecutorResult:
        self.asked.append(task)
        return self.answer(task)


def parts(task: ExecutorTask) -> ExecutorResult:
    info = OutputInfo(artifact_id="ab" * 32, bytes=7, files={"lines.txt": 7})
    return ExecutorResult(outputs={f"part-{index}": info for index in range(2)}, metrics={"rows": 2.0})


@contextlib.asynccontextmanager
async def running(simulation: Unruly, executor: ScriptedExecutor) -> AsyncGenerator[OutboxRunner, None]:
    runner = OutboxRunner(simulation.engine, cast(Executor, executor))
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_S", 0.01)


async def until_done(simulation: Unruly) -> Outbox:
    async with asyncio.timeout(10):
        while True:
            (effect,) = await simulation.store.read(lambda tx: tx.find(Outbox))
            if effect.state is OutboxState.DONE:
                return effect
            await asyncio.sleep(0.01)


async def test_a_finished_effect_opens_the_next_phase_and_the_house_owns_its_outputs() -> None:
    simulation, executor = Unruly(), ScriptedExecutor(parts)
    await simulation.submit(count_job(parts=2))
    async with running(simulation, executor):
        await until_done(simulation)
    assert [task.phase for task in executor.asked] == ["split"]
    assert len(await simulation.store.read(lambda tx: tx.find(Shard, phase="map"))) == 2
    owned = await simulation.store.read(lambda tx: tx.get(Artifact, "ab" * 32, "house"))
    assert owned is not None and owned.bytes == 7


async def test_bad_input_fails_the_job_at_once_with_its_own_reason_and_a_refund() -> None:
    def refuse(task: ExecutorTask) -> ExecutorResult:
        raise InvalidInput("count.no_lines", "The data holds no line of text.")

    simulation, executor = Unruly(), ScriptedExecutor(refuse)
    await simulation.submit(count_job())
    async with running(simulation, executor):
        await until_done(simulation)
    job = await simulation.job()
    assert job.state is JobState.FAILED and "count.no_lines" in job.why_json
    assert Why.from_json(job.why_json).evidence["stage"] == "words", "several stages read rows: which one was it?"
    assert len(executor.asked) == 1
    await simulation.check_ending()


async def test_our_own_failures_are_tried_again_a_few_times() -> None:
    def stumble(task: ExecutorTask) -> ExecutorResult:
        if len(executor.asked) < MOST_ATTEMPTS:
            raise Internal("executor.died", "An executor process died.")
        return parts(task)

    simulation, executor = Unruly(), ScriptedExecutor(stumble)
    await simulation.submit(count_job(parts=2))
    async with running(simulation, executor):
        await until_done(simulation)
    assert len(executor.asked) == MOST_ATTEMPTS
    assert (await simulation.job()).state is JobState.RUNNING


async def test_what_is_out_of_reach_is_tried_again_for_as_long_as_it_takes_and_why_says_so() -> None:
    told: list[Why] = []

    async def ask() -> None:
        job = await simulation.job()
        stages = await simulation.store.read(lambda tx: tx.find(Stage))
        told.append(await simulation.store.read(lambda tx: job_why(tx, job, stages, [])))

    def stumble(task: ExecutorTask) -> ExecutorResult:
        asking.append(asyncio.ensure_future(ask()))
        if len(executor.asked) < 3 * MOST_ATTEMPTS:
            raise Unreachable("storage.unreachable", "The coordinator's artifact store does not answer.")
        return parts(task)

    asking: list[asyncio.Future[None]] = []
    simulation, executor = Unruly(), ScriptedExecutor(stumble)
    await simulation.submit(count_job(parts=2))
    async with running(simulation, executor):
        await until_done(simulation)
        await asyncio.gather(*asking)
    assert (await simulation.job()).state is JobState.RUNNING
    waits = [why for why in told if why.code == "job.executor"]
    assert waits[-1].sentence == "The coordinator runs the split phase, again."
    assert "does not answer" in waits[-1].evidence["last_failure"]


async def test_a_database_that_is_away_for_long_fails_no_job_and_ends_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking, recording and recording that it could not be recorded: all fail many times, and then it goes on."""
    simulation, executor = Unruly(), ScriptedExecutor(parts)
    await simulation.submit(count_job(parts=2))
    refused: list[str] = []

    def away(call: str, works: Callable[..., object]) -> Callable[..., object]:
        async def refuse(work: Callable[..., object]) -> object:
            if refused.count(call) < 3 * MOST_ATTEMPTS:
                refused.append(call)
                raise Unreachable("store.unreachable", "The database is away.")
            return await works(work)  # type: ignore[misc]

        return refuse

    with monkeypatch.context() as patched:
        for call in ("read", "write"):
            patched.setattr(simulation.store, call, away(call, getattr(simulation.store, call)))
        async with running(simulation, executor):
            async with asyncio.timeout(10):
                while len(refused) < 6 * MOST_ATTEMPTS:
                    await asyncio.sleep(0.01)
            await until_done(simulation)
    assert (await simulation.job()).state is JobState.RUNNING


async def test_a_failure_of_what_another_carried_out_meanwhile_is_not_counted() -> None:
    simulation = Unruly()
    await simulation.submit(count_job(parts=2))
    (effect,) = await simulation.store.read(lambda tx: tx.find(Outbox))

    def die(task: ExecutorTask) -> ExecutorResult:
        raise Internal("executor.died", "An executor process died.")

    runner = OutboxRunner(simulation.engine, cast(Executor, ScriptedExecutor(die)))
    await simulation.store.write(lambda tx: tx.put(replace(effect, state=OutboxState.DONE, holder="another")))
    await runner._carry_out(effect)  # pyright: ignore[reportPrivateUsage]
    (after,) = await simulation.store.read(lambda tx: tx.find(Outbox))
    assert (after.state, after.holder, after.attempts) == (OutboxState.DONE, "another", 0)


async def test_a_failure_that_stays_ends_the_job() -> None:
    def die(task: ExecutorTask) -> ExecutorResult:
        raise Internal("executor.died", "An executor process died.")

    simulation, executor = Unruly(), ScriptedExecutor(die)
    await simulation.submit(count_job())
    async with running(simulation, executor):
        await until_done(simulation)
    assert len(executor.asked) == MOST_ATTEMPTS
    assert (await simulation.job()).state is JobState.FAILED
    await simulation.check_ending()


async def test_a_result_that_fits_nowhere_ends_its_job_instead_of_running_for_ever() -> None:
    def short(task: ExecutorTask) -> ExecutorResult:
        return ExecutorResult(outputs={}, metrics={})

    simulation, executor = Unruly(), ScriptedExecutor(short)
    await simulation.submit(count_job(parts=2))
    async with running(simulation, executor):
        await until_done(simulation)
    job = await simulation.job()
    assert job.state is JobState.FAILED and "executor.unrecorded" in job.why_json
    assert len(executor.asked) == MOST_ATTEMPTS
    await simulation.check_ending()


async def test_the_result_of_a_job_that_was_cancelled_meanwhile_changes_nothing() -> None:
    simulation, executor = Unruly(), ScriptedExecutor(parts)
    await simulation.submit(count_job(parts=2))
    await simulation.cancel()
    async with running(simulation, executor):
        await until_done(simulation)
    jobs = await simulation.store.read(lambda tx: tx.find(Job))
    assert [job.state for job in jobs] == [JobState.CANCELLED]
    assert await simulation.shards() == []
    await simulation.check_ending()
