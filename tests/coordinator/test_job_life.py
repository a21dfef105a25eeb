"""Whole jobs through the real machine, engine and ledger, with scripted workers."""

from __future__ import annotations

import pytest

from shardwork.errors import StaleLease
from shardwork.why import Why
from shardwork_coordinator.records import JobState, ReplicaState
from shardwork_coordinator.store import Store

from .simulation import Simulation, count_job, sft_job


async def test_an_sft_job_runs_to_its_published_model_and_pays_each_valid_shard_once(store: Store) -> None:
    simulation = Simulation(store=store)
    await simulation.submit(sft_job())
    job = await simulation.run_to_end()
    assert job.state is JobState.SUCCEEDED
    assert not job.self_evaluated
    await simulation.check_books()


async def test_a_count_job_needs_no_evaluation_and_no_publish(store: Store) -> None:
    simulation = Simulation(workers=1, store=store)
    await simulation.submit(count_job())
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_books()


async def test_without_held_out_rows_the_mean_is_applied(store: Store) -> None:
    simulation = Simulation(store=store)
    await simulation.submit(sft_job(held_out=False))
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_books()


async def test_a_lost_lease_is_given_to_another_worker_and_its_old_holder_is_refused(store: Store) -> None:
    simulation = Simulation(store=store)
    await simulation.submit(count_job(parts=1))
    await simulation.run_effects()
    await simulation.granting.grant()
    (first,) = await simulation.held()
    await simulation.lose(first)
    await simulation.granting.grant()
    (second,) = await simulation.held()
    assert second.worker_id != first.worker_id
    assert second.epoch == first.epoch + 1
    with pytest.raises(StaleLease):
        await simulation.finish(first)
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_books()


async def test_a_shard_that_fails_on_every_attempt_pauses_the_job_with_the_reason(store: Store) -> None:
    simulation = Simulation(workers=1, store=store)
    await simulation.submit(count_job(parts=1))
    await simulation.run_effects()
    why = Why(code="check.files", sentence="The delta lacks files.", next_step="Leave dropout at 0.")
    for _ in range(4):
        await simulation.granting.grant()
        (held,) = await simulation.held()
        await simulation.finish(held, refused=why)
    job = await simulation.job()
    assert job.state is JobState.PAUSED
    assert "shard.exhausted" in job.why_json
    assert "The delta lacks files." in job.why_json
    assert Why.from_json(job.why_json).next_step.startswith("Its worker advised: Leave dropout at 0. Look at ")
    await simulation.check_books()


async def test_keys_that_disagree_are_settled_by_a_third_and_the_minority_is_not_paid(store: Store) -> None:
    simulation = Simulation(workers=3, store=store)
    await simulation.submit(sft_job())
    await simulation.run_effects()
    await simulation.granting.grant()
    first, second = await simulation.held()
    await simulation.finish(first, honest=False)
    await simulation.finish(second)
    await simulation.granting.grant()
    (third,) = await simulation.held()
    assert third.worker_id not in (first.worker_id, second.worker_id)
    await simulation.finish(third)

    job = await simulation.run_to_end()
    assert job.state is JobState.SUCCEEDED
    await simulation.check_books()


@pytest.mark.parametrize("seed", range(30))
async def test_any_schedule_of_losses_refusals_and_churn_ends_with_balanced_books(seed: int) -> None:
    simulation = Simulation(workers=4, seed=seed)
    chance = simulation.random
    await simulation.submit(sft_job(rounds=3, shards=4))
    refused = Why(code="check.loss_range", sentence="The reported loss is not plausible.")
    job = await simulation.job()
    for _ in range(400):
        simulation.clock.advance(0.5)
        await simulation.run_effects()
        await simulation.granting.grant()
        held = await simulation.held()
        if held:
            replica = chance.choice(held)
            roll = chance.random()
            if roll < 0.08:
                await simulation.lose(replica)
            elif roll < 0.12:
                await simulation.finish(replica, refused=refused)
            elif roll < 0.2:
                await simulation.lose(replica, costs_an_attempt=False)
            else:
                await simulation.finish(replica, honest=roll > 0.22)
        job = await simulation.job()
        if job.state is not JobState.RUNNING:
            break
    assert job.state in (JobState.SUCCEEDED, JobState.PAUSED)
    if job.state is JobState.SUCCEEDED:
        assert all(one.state is not ReplicaState.READY for one in await simulation.held())
    await simulation.check_books()
