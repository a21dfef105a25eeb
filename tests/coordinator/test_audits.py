"""Another worker checks a sample of a result before it is paid: who is believed, who is paid, and what goes on."""

from __future__ import annotations

import json

import pytest

from shardwork.why import Why
from shardwork_coordinator import views
from shardwork_coordinator.engine import advance, slice_of_job, slice_of_replica
from shardwork_coordinator.events import Push, QuorumShrunk, ToppedUp
from shardwork_coordinator.records import (
    Job,
    JobState,
    Lease,
    Replica,
    ReplicaState,
    Round,
    Shard,
    ShardState,
    Stage,
)
from shardwork_coordinator.store.base import Transaction

from .simulation import Simulation, answers_job, policy_job, scored_job

WORKERS = [f"worker{number:010d}" for number in range(4)]


async def shards(simulation: Simulation, phase: str) -> list[Shard]:
    return await simulation.store.read(lambda tx: tx.find(Shard, phase=phase, order="created_ms"))


async def work(simulation: Simulation, liars: dict[str, set[str]], *, steps: int = 200) -> Job:
    """Everybody finishes what it holds; `liars`: worker -> phases in which it lies."""
    for _ in range(steps):
        simulation.clock.advance(0.1)
        did = await simulation.run_effects() + await simulation.granting.grant()
        for replica in await simulation.held():
            await simulation.finish(replica, honest=replica.phase not in liars.get(replica.worker_id, set()))
            did += 1
        job = await simulation.job()
        if job.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.PAUSED) or not did:
            return job
    raise AssertionError("the job did not end")


async def paid(simulation: Simulation) -> dict[str, list[str]]:
    """Worker -> phases that it was paid for."""
    leases = await simulation.store.read(lambda tx: tx.find(Lease, state=ReplicaState.ACCEPTED, order="ended_ms"))
    found: dict[str, list[str]] = {}
    for lease in leases:
        found.setdefault(lease.worker_id, []).append(lease.phase)
    return found


async def refused(simulation: Simulation) -> list[tuple[str, str]]:
    leases = await simulation.store.read(lambda tx: tx.find(Lease, state=ReplicaState.REJECTED))
    return [(lease.worker_id, lease.phase) for lease in leases]


async def why_it_waits(simulation: Simulation) -> Why:
    job = await simulation.job()
    workers = simulation.engine.links.accepting()
    return await simulation.store.read(lambda tx: views.job_why(tx, job, tx.find(Stage, job_id=job.id), workers))


async def test_a_result_is_paid_after_another_worker_bore_it_out() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(answers_job())
    await simulation.run_effects()
    await simulation.granting.grant()
    [replica] = await simulation.held()
    await simulation.finish(replica)
    [waiting] = await simulation.store.read(lambda tx: tx.find(Replica, phase="map"))
    assert waiting.state is ReplicaState.SUBMITTED
    assert await paid(simulation) == {}
    await simulation.granting.grant()
    [audit] = await simulation.held()
    assert audit.phase == "audit"
    assert audit.worker_id != replica.worker_id
    await simulation.finish(audit)
    assert await paid(simulation) == {replica.worker_id: ["map"], audit.worker_id: ["audit"]}
    job = await work(simulation, {})
    assert job.state is JobState.SUCCEEDED
    assert not job.self_evaluated
    await simulation.check_books()


async def test_an_audit_reads_what_it_checks_and_a_sample_of_its_rows() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(answers_job())
    await simulation.run_effects()
    await simulation.granting.grant()
    [replica] = await simulation.held()
    await simulation.finish(replica)
    [audited], [audit] = await shards(simulation, "map"), await shards(simulation, "audit")
    inputs = json.loads(audit.inputs_json)
    assert set(inputs) == {"base", "prompts", "answers"}
    order = json.loads(audit.order_json)
    rows = json.loads(audited.order_json)["prompts"]
    assert 2 <= len(order["rows"]) < rows / 4
    assert max(order["rows"]) < rows
    assert order["seed"] == audited.seed.hex()
    assert audit.price_msat <= audited.price_msat


async def test_what_is_checked_cannot_be_known_before_the_result_is_committed_to() -> None:
    drawn = set[tuple[int, ...]]()
    for _ in range(3):
        simulation = Simulation(workers=2)
        await simulation.submit(answers_job())
        await simulation.run_effects()
        await simulation.granting.grant()
        [replica] = await simulation.held()
        await simulation.finish(replica)
        [audit] = await shards(simulation, "audit")
        drawn.add(tuple(json.loads(audit.order_json)["rows"]))
    assert len(drawn) > 1, "the same job, worker and result were checked in other rows"


async def test_two_witnesses_refuse_a_liar_and_the_shard_is_made_again() -> None:
    simulation = Simulation(workers=4)
    await simulation.submit(answers_job())
    job = await work(simulation, {WORKERS[0]: {"map"}})
    assert job.state is JobState.SUCCEEDED
    liar = [phases for worker, phases in (await paid(simulation)).items() if worker == WORKERS[0]]
    if (WORKERS[0], "map") in await refused(simulation):
        assert not any("map" in phases for phases in liar)
        assert sum(phases.count("audit") for phases in (await paid(simulation)).values()) == 3
    else:
        pytest.fail("the liar's result was taken")
    await simulation.check_books()


async def test_a_lying_auditor_alone_harms_nobody_but_itself() -> None:
    simulation = Simulation(workers=4)
    await simulation.submit(answers_job())
    liars: dict[str, set[str]] = {WORKERS[0]: {"audit"}, WORKERS[1]: {"audit"}}
    await simulation.run_effects()
    await simulation.granting.grant()
    [first] = await simulation.held()
    liars.pop(first.worker_id, None)
    job = await work(simulation, {next(iter(liars)): {"audit"}})
    assert job.state is JobState.SUCCEEDED
    assert "map" in (await paid(simulation))[first.worker_id]
    assert all(phase == "audit" for _, phase in await refused(simulation))
    await simulation.check_books()


async def test_with_a_single_worker_the_job_goes_on_and_says_so() -> None:
    simulation = Simulation(workers=1)
    await simulation.submit(answers_job(2))
    await work(simulation, {})
    waiting = await shards(simulation, "audit")
    assert len(waiting) == 2
    assert [one.state for one in waiting] == [ShardState.READY] * 2
    why = await why_it_waits(simulation)
    assert why.code == "job.waits_for_audit"
    assert why.sentence == (
        "2 results are handed in, unpaid until another worker has checked a sample. No attached worker can take it."
    )
    assert why.evidence[WORKERS[0]] == "already holds or made a copy of this shard"
    assert "self-evaluated" in why.next_step

    for audit in waiting:

        def alone(tx: Transaction, audit: Shard = audit) -> list[Push]:
            replica = tx.get(Replica, audit.id, 0)
            assert replica is not None
            event = QuorumShrunk(shard_id=audit.id)
            return advance(tx, slice_of_replica(tx, replica), event, simulation.engine.world())

        await simulation.store.write(alone)
    job = await work(simulation, {})
    assert job.state is JobState.SUCCEEDED
    assert job.self_evaluated
    assert (await paid(simulation)) == {WORKERS[0]: ["map", "map"]}
    await simulation.check_books()


async def test_an_audit_that_fails_everywhere_costs_the_result_not_the_job() -> None:
    simulation = Simulation(workers=3)
    await simulation.submit(answers_job())
    await simulation.run_effects()
    await simulation.granting.grant()
    [first] = await simulation.held()
    await simulation.finish(first)
    for _ in range(3):
        await simulation.granting.grant()
        [audit] = await simulation.held()
        assert audit.phase == "audit"
        await simulation.lose(audit)
    assert (first.worker_id, "map") in await refused(simulation)
    job = await work(simulation, {})
    assert job.state is JobState.SUCCEEDED
    await simulation.check_books()


async def test_a_policy_learns_from_its_own_answers_and_publishes_the_best_checkpoint() -> None:
    simulation = Simulation(workers=3)
    await simulation.submit(policy_job())
    job = await work(simulation, {})
    assert job.state is JobState.SUCCEEDED, job.why_json
    rounds = await simulation.store.read(lambda tx: tx.find(Round, order="number"))
    rewards = [json.loads(one.measures_json).get("reward") for one in rounds[1:]]
    assert rewards == pytest.approx([0.1, 0.2, 0.3, 0.4])
    [stage] = await simulation.store.read(lambda tx: tx.find(Stage))
    numbers, artifacts = json.loads(stage.numbers_json), json.loads(stage.artifacts_json)
    assert (numbers["best_round"], numbers["best_reward"]) == (3.0, pytest.approx(0.4))
    assert artifacts["best_checkpoint"] == artifacts["checkpoint"]
    assert set(json.loads(stage.outputs_json)) == {"policy.model", "policy.samples", "policy.checkpoint"}
    await simulation.check_books()


async def test_a_policy_that_left_its_budget_publishes_what_was_still_within_it() -> None:
    simulation = Simulation(workers=3)
    simulation.learned = {1: {"kl": 0.0}, 2: {"kl": 3.0}, 3: {"kl": 12.0}}
    await simulation.submit(policy_job(kl_budget=5.0, kl_coefficient=0.01))
    assert (await work(simulation, {})).state is JobState.SUCCEEDED
    [stage] = await simulation.store.read(lambda tx: tx.find(Stage))
    numbers, artifacts = json.loads(stage.numbers_json), json.loads(stage.artifacts_json)
    assert Why.from_json(stage.why_json).code == "policy.kl_budget"
    assert (numbers["best_round"], numbers["best_reward"]) == (1.0, pytest.approx(0.2))
    second = [one for one in await shards(simulation, "rollout") if one.round == 2]
    assert {json.loads(one.inputs_json)["checkpoint"] for one in second} == {artifacts["best_checkpoint"]}
    assert artifacts["best_checkpoint"] != artifacts["checkpoint"]
    await simulation.check_books()


async def test_a_policy_s_shards_learn_from_what_they_answered_and_name_one_checkpoint() -> None:
    simulation = Simulation(workers=3)
    await simulation.submit(policy_job(rounds=1))
    await work(simulation, {})
    rollouts, learners = await shards(simulation, "rollout"), await shards(simulation, "learn")
    mine = [one for one in rollouts if one.round == 1]
    assert [one.position for one in mine] == [0, 1, 2], "two that are learned from, and the held-out prompts"
    start = {json.loads(one.inputs_json)["checkpoint"] for one in [*mine, *learners]}
    assert len(start) == 1, "drawn from and learned at the same checkpoint"
    prompts = {one.position: json.loads(one.inputs_json)["prompts"] for one in mine}
    assert prompts[0] == prompts[1] != prompts[2]
    for learner in learners:
        inputs, order = json.loads(learner.inputs_json), json.loads(learner.order_json)
        drawn = json.loads(mine[learner.position].order_json)
        assert order["objective"]["first_prompt"] == drawn["first_prompt"] == 4 * learner.position
        assert inputs["prompts"] == prompts[0]
        assert {"answers", "scores"} <= set(inputs)


async def test_a_budget_spent_on_checking_pauses_the_job_and_a_top_up_lets_it_go_on() -> None:
    """Three liars after another: each costs two audits, and the reserve is for two."""
    simulation = Simulation(workers=5)
    await simulation.submit(answers_job())
    liars = {worker: {"map"} for worker in WORKERS[:3]}
    job = await work(simulation, liars)
    assert job.state is JobState.PAUSED, "somebody's lie was taken"
    assert Why.from_json(job.why_json).code == "budget.spent"
    await simulation.check_books()

    def top_up(tx: Transaction) -> list[Push]:
        job = tx.get(Job, "job000000001")
        assert job is not None
        event = ToppedUp(msat=20_000, transfer="topup/test")
        return advance(tx, slice_of_job(tx, job), event, simulation.engine.world())

    await simulation.store.write(top_up)
    job = await work(simulation, liars)
    assert job.state is JobState.SUCCEEDED, job.why_json
    await simulation.check_books()


async def test_rollouts_and_their_scores_are_audited_in_the_same_round() -> None:
    simulation = Simulation(workers=3)
    await simulation.submit(scored_job())
    job = await work(simulation, {WORKERS[1]: {"score"}})
    assert job.state is JobState.SUCCEEDED, job.why_json
    audits = await shards(simulation, "audit")
    assert len({audit.id for audit in audits}) == len(audits) >= 8
    told = [set(json.loads(audit.inputs_json)) for audit in audits]
    # who checks scores is not shown them; what only a model can tell of answers is not in them
    assert {frozenset(one) for one in told if "checkpoint" not in one} == {frozenset({"base", "prompts", "answers"})}
    assert all("answers" in one for one in told)
    assert all(phase == "score" for worker, phase in await refused(simulation) if worker == WORKERS[1])
    await simulation.check_books()
