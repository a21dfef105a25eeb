"""A quote says what the job would wait for, in the words in which a waiting job says it, and is silent otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from shardwork.identity.role import Role
from shardwork.jobs.spec import JobSpec, StageSpec
from shardwork.v1 import jobs_pb2, types_pb2
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.jobs import JobsDesk, quote_job

from .simulation import OWNER, answers_job, sft_job
from .unruly import Unruly

ME = Caller(OWNER, bytes(32), Role.REQUESTER)


def changed(**params: object) -> JobSpec:
    spec = sft_job()
    return spec.model_copy(update={"stages": [spec.stages[0].model_copy(update={"params": params})]})


async def warned(simulation: Unruly, spec: JobSpec) -> Sequence[types_pb2.Why]:
    facts = [jobs_pb2.StageFacts(stage="tune", run_params=10**6, trained_params=10**4)]
    request = jobs_pb2.QuoteJobRequest(spec_json=spec.canonical_json(), facts=facts)
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    return list((await quote_job(request, ME, desk)).quote.warnings)


def dear(simulation: Unruly) -> None:
    simulation.attach("dear000000000000", minimum_msat=10**9)


def tiny(simulation: Unruly) -> None:
    simulation.attach("tiny000000000000")
    simulation.links.note_out_of_memory("tiny000000000000", 10)


def resting(simulation: Unruly) -> None:
    simulation.attach("away000000000000")
    link = simulation.links.get("away000000000000")
    assert link is not None
    link.accepting = False


def plain(simulation: Unruly) -> None:
    simulation.attach("plain00000000000")


@pytest.mark.parametrize(
    ("there", "params", "code", "word"),
    [
        (plain, {"precision": "bf16"}, "shard.no_able_worker", "compute in bf16"),
        (plain, {"base_bits": 4}, "shard.no_able_worker", "4 bits"),
        (dear, {}, "shard.price_too_low", "ask for more"),
        (tiny, {}, "shard.too_large", "more memory"),
        (resting, {}, "shard.workers_paused", "paused"),
    ],
)
async def test_a_plan_that_nobody_there_could_carry_out_says_so(
    there: Callable[[Unruly], None], params: dict[str, object], code: str, word: str
) -> None:
    simulation = Unruly(workers=0)
    there(simulation)
    found = await warned(simulation, changed(**params))
    assert [why.code for why in found] == [code]
    assert word in found[0].sentence and found[0].next_step
    assert "tune (learn)" in found[0].evidence["phases"]


async def test_a_judge_too_large_for_everybody_is_told_with_both_sizes_before_anything_is_paid() -> None:
    simulation = Unruly(workers=1)
    answer = answers_job().stages[0].model_copy(update={"params": {"answers": 2}})
    judge = StageSpec(name="judge", recipe="judge", base_model="./vast", data=["answer.rows"])
    spec = answers_job().model_copy(update={"stages": [answer, judge]})
    sizes = {"answer": 10**6, "judge": 10**12}
    facts = [jobs_pb2.StageFacts(stage=name, rows=8, tokens=64, run_params=size) for name, size in sizes.items()]
    request = jobs_pb2.QuoteJobRequest(spec_json=spec.canonical_json(), facts=facts)
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    [why] = (await quote_job(request, ME, desk)).quote.warnings
    assert why.code == "shard.too_large"
    assert why.evidence["phases"].startswith("judge (map)")
    assert (why.evidence["needed_bytes"], why.evidence["largest_bytes"]) == (f"{8 * 10**12:,}", f"{1 << 40:,}")
    assert "smaller model" in why.next_step


async def test_one_that_can_is_enough_even_when_it_is_busy() -> None:
    simulation = Unruly(workers=0)
    dear(simulation)
    plain(simulation)
    assert await warned(simulation, changed()) == []
    assert [why.code for why in await warned(simulation, changed(precision="bf16"))] == ["shard.no_able_worker"]
    simulation.attach("able000000000000", abilities=["bf16"])
    assert await warned(simulation, changed(precision="bf16")) == []


async def test_what_nobody_needs_a_device_for_is_not_said_to_wait() -> None:
    simulation = Unruly(workers=0)
    plain(simulation)
    found = await warned(simulation, changed(base_bits=4))
    assert "tune (init)" not in found[0].evidence["phases"]
