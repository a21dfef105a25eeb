"""A job that continues an earlier one: whose checkpoint it may be, that it is kept meanwhile, and that it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from shardwork.errors import InvalidInput, NotFound, ShardworkError
from shardwork.identity.role import Role
from shardwork.jobs.spec import JobSpec
from shardwork.recipes.orders import InitOrder
from shardwork.v1 import jobs_pb2, types_pb2
from shardwork_coordinator.artifacts.retention import Ages, needs
from shardwork_coordinator.records import Artifact, ArtifactState, Event, Job, JobState, Round, RoundState, Shard, Stage
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.jobs import JobsDesk, get_job, quote_job, submit_job
from shardwork_coordinator.rpc.steering import cancel_job
from shardwork_coordinator.store.base import Transaction

from .simulation import FACTS, OWNER, Simulation, fake_id, sft_job, stored

FIRST = "job000000001"
ME = Caller(OWNER, bytes(32), Role.REQUESTER)
OTHER = Caller("other00000000000", bytes(32), Role.REQUESTER)
OPERATOR = Caller("operator00000000", bytes(32), Role.OPERATOR)


def continuing(continue_from: str = f"{FIRST}.tune.checkpoint", **changes: Any) -> JobSpec:
    job = sft_job(rounds=1)
    stage = job.stages[0].model_copy(update={"continue_from": continue_from, **changes})
    return JobSpec.model_validate_json(job.model_copy(update={"stages": [stage]}).canonical_json())


def facts(trained: int = FACTS.trained_params) -> list[jobs_pb2.StageFacts]:
    return [jobs_pb2.StageFacts(stage="tune", rows=500, tokens=50_000, run_params=1_000_000, trained_params=trained)]


async def after_one_job(*, uploader: str = OWNER, merge: str = "mean") -> tuple[Simulation, JobsDesk]:
    """A finished job, and the files of the next one uploaded."""
    simulation = Simulation(workers=2)
    job = sft_job(rounds=2)
    (stage,) = job.stages
    stage = stage.model_copy(update={"params": {**stage.params, "merge": merge}})
    await simulation.submit(job.model_copy(update={"stages": [stage]}))
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    rows = [stored(fake_id(name), uploader) for name in ("base", "data", "folder")]

    def upload(tx: Transaction) -> None:
        for row in rows:
            tx.put(row)

    await simulation.store.write(upload)
    return simulation, JobsDesk(engine=simulation.engine, rates=simulation.rates)


def request(spec: JobSpec, *, trained: int = FACTS.trained_params, parent: str = "") -> jobs_pb2.SubmitJobRequest:
    """`parent`: the artifact that is named as the stage's own checkpoint."""
    sent = {"tune.base_model": fake_id("base"), "tune.data": fake_id("data")}
    sent |= {"tune.continue_from": parent} if parent else {}
    return jobs_pb2.SubmitJobRequest(
        spec_json=spec.canonical_json(),
        facts=facts(trained),
        inputs=[types_pb2.NamedArtifact(name=name, artifact_id=one) for name, one in sent.items()],
        submission_id="continues-one",
    )


async def best_checkpoint(simulation: Simulation, job_id: str = FIRST) -> str:
    stage = await simulation.store.read(lambda tx: tx.get(Stage, job_id, "tune"))
    assert stage is not None
    return str(json.loads(stage.outputs_json)["tune.checkpoint"]["artifact_id"])


async def test_a_second_job_begins_with_the_first_ones_best_checkpoint_and_says_so() -> None:
    simulation, desk = await after_one_job()
    kept = await best_checkpoint(simulation)
    second = (await submit_job(request(continuing()), ME, desk)).job_id
    assert (await simulation.run_to_end(second)).state is JobState.SUCCEEDED
    shards = await simulation.store.read(lambda tx: tx.find(Shard, job_id=second))
    (init,) = [shard for shard in shards if shard.phase == "init"]
    assert json.loads(init.inputs_json)["parent"] == kept
    assert InitOrder.model_validate_json(init.order_json).continues
    told = f"{FIRST}.tune.checkpoint (weights and Adam's moments after 10 steps)"
    events = await simulation.store.read(lambda tx: tx.find(Event, job_id=second))
    assert [one.sentence for one in events if one.kind == "stage.continues"] == [f"Stage tune continues from {told}."]
    shown = await get_job(jobs_pb2.GetJobRequest(job_id=second), ME, desk)
    assert shown.job.stages[0].continues_from == told
    (publish,) = [shard for shard in shards if shard.phase == "publish"]
    assert ["continues from", told] in json.loads(publish.order_json)["card"]
    await simulation.check_books()


async def test_the_order_of_a_stage_that_begins_anew_is_the_one_that_older_workers_know() -> None:
    simulation, _ = await after_one_job()
    (init,) = [one for one in await simulation.store.read(lambda tx: tx.find(Shard)) if one.phase == "init"]
    assert "continues" not in json.loads(init.order_json)
    assert "parent" not in json.loads(init.inputs_json)


async def test_an_adapter_with_a_frozen_a_goes_on_with_the_checkpoint_s() -> None:
    simulation, desk = await after_one_job(merge="ffa")
    second = (await submit_job(request(continuing(params={"merge": "ffa"})), ME, desk)).job_id
    assert (await simulation.run_to_end(second)).state is JobState.SUCCEEDED
    shards = await simulation.store.read(lambda tx: tx.find(Shard))
    tunings = {shard.job_id: set[bool]() for shard in shards}
    for shard in shards:
        order = json.loads(shard.order_json)
        tunings[shard.job_id].add(order["tuning"].get("carried_a", False))
        if shard.phase == "init":
            assert InitOrder.model_validate_json(shard.order_json).carries
    assert tunings == {FIRST: {False}, second: {True}}


async def test_a_cancelled_job_can_be_continued() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(sft_job(rounds=5))
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    quoted = jobs_pb2.QuoteJobRequest(spec_json=continuing().canonical_json(), facts=facts())
    with pytest.raises(InvalidInput, match="the stage is running") as caught:
        await quote_job(quoted, ME, desk)
    assert caught.value.why.code == "continue.no_checkpoint"
    for _ in range(60):
        simulation.clock.advance(0.1)
        await simulation.run_effects()
        await simulation.granting.grant()
        for replica in (await simulation.held())[:1]:
            await simulation.finish(replica)
        stage = await simulation.store.read(lambda tx: tx.get(Stage, FIRST, "tune"))
        if stage is not None and "best_checkpoint" in stage.artifacts_json:
            break
    await cancel_job(jobs_pb2.CancelJobRequest(job_id=FIRST), ME, simulation.engine)
    assert (await quote_job(quoted, ME, desk)).quote.reserve_msat > 0


@pytest.mark.parametrize("caller", [OTHER, OPERATOR])
async def test_somebody_elses_job_is_as_unknown_as_none(caller: Caller) -> None:
    simulation, desk = await after_one_job(uploader=caller.party_id)
    for spec in (continuing(), continuing("nojob0000000.tune.checkpoint")):
        quoted = jobs_pb2.QuoteJobRequest(spec_json=spec.canonical_json(), facts=facts())
        with pytest.raises(NotFound) as at_quote:
            await quote_job(quoted, caller, desk)
        with pytest.raises(NotFound) as at_submit:
            await submit_job(request(spec), caller, desk)
        assert at_quote.value.why.code == at_submit.value.why.code == "job.not_found"
    # and its content can't be named as if it were a folder of one's own
    stolen = request(continuing("./folder"), parent=await best_checkpoint(simulation))
    with pytest.raises(InvalidInput) as caught:
        await submit_job(stolen, caller, desk)
    assert caught.value.why.code == "job.input_missing"


@pytest.mark.parametrize(
    ("spec", "trained", "code", "words"),
    [
        (continuing(f"{FIRST}.tun.checkpoint"), 70_000, "continue.no_stage", "no stage 'tun'"),
        (continuing(), 70_001, "continue.unlike", "70,000 parameters learned there, and 70,001"),
        (continuing(params={"alpha": 64}), 70_000, "continue.unlike", "alpha 64 at rank"),
        (continuing(params={"rslora": True}), 70_000, "continue.unlike", "by rsLoRA"),
        (continuing(params={"merge": "ffa"}), 70_000, "continue.unlike", "with A frozen"),
    ],
)
async def test_what_could_not_go_on_is_refused_before_a_sat_moves(
    spec: JobSpec, trained: int, code: str, words: str
) -> None:
    simulation, desk = await after_one_job()
    with pytest.raises(ShardworkError) as caught:
        await submit_job(request(spec, trained=trained), ME, desk)
    assert caught.value.why.code == code
    assert words in caught.value.why.sentence
    assert len(await simulation.store.read(lambda tx: tx.find(Job))) == 1


async def test_a_checkpoint_that_its_owner_deleted_is_gone() -> None:
    simulation, desk = await after_one_job()
    kept = await best_checkpoint(simulation)
    row = await simulation.store.read(lambda tx: tx.get(Artifact, kept, OWNER))
    assert row is not None
    await simulation.store.write(lambda tx: tx.put(replace(row, state=ArtifactState.STAGING)))
    with pytest.raises(InvalidInput, match="was deleted"):
        await submit_job(request(continuing()), ME, desk)


async def test_a_live_job_keeps_the_checkpoint_that_it_continues_from() -> None:
    simulation, desk = await after_one_job()
    kept = await best_checkpoint(simulation)
    second = (await submit_job(request(continuing()), ME, desk)).job_id
    job = await simulation.job(second)
    found = await simulation.store.read(lambda tx: list(needs(tx, job, Ages(keep_days=0, keep_outputs_days=0.001))))
    far = simulation.clock.now_ms() + 10**12
    assert {need.owner for need in found if need.artifact_id == kept and need.until_ms > far} == {OWNER, "house"}


async def test_a_folder_of_ones_own_travels_as_an_input() -> None:
    simulation, desk = await after_one_job()
    sent = request(continuing("./folder"), parent=fake_id("folder"))
    second = (await submit_job(sent, ME, desk)).job_id
    assert (await simulation.run_to_end(second)).state is JobState.SUCCEEDED
    shown = await get_job(jobs_pb2.GetJobRequest(job_id=second), ME, desk)
    assert shown.job.stages[0].continues_from.startswith("folder (weights and")


async def test_any_round_that_was_merged_can_be_gone_on_from() -> None:
    simulation, desk = await after_one_job()
    rounds = await simulation.store.read(lambda tx: tx.find(Round, job_id=FIRST))
    made = {one.number: json.loads(one.results_json)["new_checkpoint"] for one in rounds if one.kind == "learn"}
    assert len(set(made.values())) == 2
    for number, checkpoint in made.items():
        named = f"{FIRST}.tune.checkpoint@{number}"
        sent = request(continuing(named))
        sent.submission_id = f"continues-round-{number}"
        second = (await submit_job(sent, ME, desk)).job_id
        assert (await simulation.run_to_end(second)).state is JobState.SUCCEEDED
        shards = await simulation.store.read(lambda tx: tx.find(Shard))
        (init,) = [shard for shard in shards if shard.phase == "init" and shard.job_id == second]
        assert json.loads(init.inputs_json)["parent"] == checkpoint
        shown = await get_job(jobs_pb2.GetJobRequest(job_id=second), ME, desk)
        assert shown.job.stages[0].continues_from.startswith(f"{named} (weights and")


async def test_a_round_of_a_job_that_runs_still_can_be_gone_on_from_and_is_kept() -> None:
    simulation, desk = await after_one_job()
    await simulation.submit(sft_job(rounds=5), job_id="job000000002")
    found: Round | None = None
    for _ in range(60):
        simulation.clock.advance(0.1)
        await simulation.run_effects()
        await simulation.granting.grant()
        for replica in (await simulation.held())[:1]:
            await simulation.finish(replica)
        found = await simulation.store.read(lambda tx: tx.get(Round, "job000000002", "tune", 1))
        if found is not None and found.state is RoundState.MERGED:
            break
    assert found is not None
    second = (await submit_job(request(continuing("job000000002.tune.checkpoint@1")), ME, desk)).job_id
    job, checkpoint = await simulation.job(second), json.loads(found.results_json)["new_checkpoint"]
    needed = await simulation.store.read(lambda tx: list(needs(tx, job, Ages(keep_days=0))))
    far = simulation.clock.now_ms() + 10**12
    assert "house" in {need.owner for need in needed if need.artifact_id == checkpoint and need.until_ms > far}


@pytest.mark.parametrize(("number", "gone"), [(0, ()), (3, ()), (999_999_999, ()), (1, (1,)), (2, (1, 2))])
async def test_a_round_without_a_checkpoint_is_refused_and_those_that_have_one_are_named(
    number: int, gone: tuple[int, ...]
) -> None:
    simulation, desk = await after_one_job()

    def sweep(tx: Transaction) -> None:
        for one in gone:
            found = tx.get(Round, FIRST, "tune", one)
            assert found is not None
            row = tx.get(Artifact, json.loads(found.results_json)["new_checkpoint"], "house")
            assert row is not None
            tx.put(replace(row, state=ArtifactState.STAGING))

    await simulation.store.write(sweep)
    with pytest.raises(InvalidInput) as caught:
        await submit_job(request(continuing(f"{FIRST}.tune.checkpoint@{number}")), ME, desk)
    assert caught.value.why.code == "continue.no_round" and f"Round {number} " in caught.value.why.sentence
    left = ", ".join(str(one) for one in (1, 2) if one not in gone)
    assert caught.value.why.next_step.startswith(f"Kept are those of rounds {left}." if left else "Without @ROUND")


async def test_somebody_elses_rounds_are_as_unknown_as_the_job() -> None:
    _, desk = await after_one_job(uploader=OTHER.party_id)
    with pytest.raises(NotFound) as caught:
        await submit_job(request(continuing(f"{FIRST}.tune.checkpoint@1")), OTHER, desk)
    assert caught.value.why.code == "job.not_found"


async def test_an_input_beside_an_earlier_job_is_refused() -> None:
    _, desk = await after_one_job()
    with pytest.raises(InvalidInput) as caught:
        await submit_job(request(continuing(), parent=fake_id("folder")), ME, desk)
    assert caught.value.why.code == "job.unread_input"


async def test_a_stage_continues_an_earlier_one_of_its_own_job() -> None:
    simulation = Simulation(workers=2)
    job = sft_job(rounds=1)
    again = job.stages[0].model_copy(update={"name": "again", "continue_from": "tune.checkpoint"})
    await simulation.submit(
        JobSpec.model_validate(job.model_copy(update={"stages": [*job.stages, again]}).model_dump())
    )
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    shards = await simulation.store.read(lambda tx: tx.find(Shard))
    (init,) = [shard for shard in shards if shard.phase == "init" and shard.stage == "again"]
    assert json.loads(init.inputs_json)["parent"] == await best_checkpoint(simulation)
