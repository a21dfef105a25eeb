"""Rounds that teach nothing: rolled back, counted, and the end of a stage that learned nothing at all."""

from __future__ import annotations

import json

import pytest

from shardwork_coordinator.records import JobState, Round, RoundState

from .simulation import sft_job
from .unruly import Unruly

WORSE = 9.0


async def states(simulation: Unruly) -> list[RoundState]:
    rounds = await simulation.store.read(lambda tx: tx.find(Round, order="number"))
    return [one.state for one in rounds]


async def test_a_round_whose_deltas_cannot_be_averaged_is_rolled_back_and_the_job_goes_on() -> None:
    simulation = Unruly()
    await simulation.submit(sft_job(rounds=2))
    await simulation.work_until("merge")
    assert await simulation.fail_executor("aggregate.too_few")
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    merged, rolled_back = RoundState.MERGED, RoundState.ROLLED_BACK
    assert await states(simulation) == [merged, rolled_back, merged, merged]
    await simulation.check_books()
    await simulation.check_ending()


async def test_two_such_rounds_in_a_row_end_the_job_which_gets_its_rest_back() -> None:
    simulation = Unruly()
    await simulation.submit(sft_job(rounds=5))
    for _ in range(2):
        await simulation.work_until("merge")
        await simulation.fail_executor("aggregate.too_few")
    job = await simulation.job()
    assert (
        job.state is JobState.FAILED and '"training.diverged"' in job.why_json and "2 rounds in a row" in job.why_json
    )
    await simulation.check_books()
    await simulation.check_ending()


async def test_a_job_whose_only_round_got_worse_fails_instead_of_publishing_its_base() -> None:
    simulation = Unruly()
    simulation.losses = {1: WORSE}
    await simulation.submit(sft_job(rounds=1))
    job = await simulation.run_to_end()
    assert job.state is JobState.FAILED and "training.diverged" in job.why_json
    await simulation.check_ending()


async def test_a_late_round_that_got_worse_leaves_the_best_one_to_be_published() -> None:
    simulation = Unruly()
    simulation.losses = {2: WORSE}
    await simulation.submit(sft_job(rounds=2))
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    assert await states(simulation) == [RoundState.MERGED, RoundState.MERGED, RoundState.ROLLED_BACK, RoundState.MERGED]
    await simulation.check_ending()


async def test_any_other_failure_of_the_executor_ends_the_job() -> None:
    simulation = Unruly()
    await simulation.submit(sft_job(rounds=2))
    await simulation.work_until("merge")
    await simulation.fail_executor("data.bad")
    assert (await simulation.job()).state is JobState.FAILED
    await simulation.check_ending()


async def test_small_rises_that_are_each_excused_do_not_add_up() -> None:
    simulation = Unruly()
    # each round is 0.9 % worse than the one before it
    simulation.losses = {1: 2.5, 2: 2.522, 3: 2.545, 4: 2.568}
    await simulation.submit(sft_job(rounds=4))
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    assert RoundState.ROLLED_BACK in await states(simulation)
    await simulation.check_ending()


@pytest.mark.parametrize(("asked", "rule"), [("auto", "screened_mean"), ("mean", "mean")])
async def test_deltas_are_averaged_by_the_rule_that_the_job_names(asked: str, rule: str) -> None:
    simulation = Unruly()
    spec = sft_job(rounds=1, shards=4)
    await simulation.submit(spec.model_copy(update={"trust": spec.trust.model_copy(update={"aggregate": asked})}))
    await simulation.work_until("merge")
    (merge,) = [one for one in await simulation.pending() if '"merge"' in one.payload_json]
    assert json.loads(json.loads(merge.payload_json)["order_json"])["rule"] == rule
