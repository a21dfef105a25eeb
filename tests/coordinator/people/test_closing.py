"""A stage that people answer is ended before everybody was asked: it goes on with the answers that it has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardwork.errors import Conflict, NotFound
from shardwork.identity.role import Role
from shardwork.v1 import jobs_pb2
from shardwork.why import Why
from shardwork_coordinator.events import JobPaused
from shardwork_coordinator.people import sweeping
from shardwork_coordinator.records import Event, JobState, Shard, ShardState, Stage, Vote, VoteState
from shardwork_coordinator.rpc.asked import close_people
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.sweeper import timed_out

from .stand import JOB, OWNER, STAGE, Stand, guesses, person, rows


async def close(stand: Stand, party: str = OWNER, stage: str = "") -> jobs_pb2.JobView:
    caller = Caller(party_id=party, public_key=bytes(32), role=Role.REQUESTER)
    request = jobs_pb2.ClosePeopleRequest(job_id=JOB, stage=stage)
    return (await close_people(request, caller, stand.engine)).job


async def answered(stand: Stand, items: int, tasks: int) -> None:
    """One person answers `tasks` tasks of a stage with this many items, two people each."""
    await stand.submit(rows(items, 30), consensus="majority")
    anna = person(stand, 1)
    await anna.join()
    assert await anna.work(tasks) == tasks


async def ended(stand: Stand) -> None:
    for _ in range(3):
        await stand.later()
    await stand.effects()


@pytest.mark.parametrize("batch", [3, 200])
async def test_what_was_answered_becomes_rows_and_is_paid(
    stand: Stand, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`batch`: items that one sweep looks at; the stage has ten."""
    monkeypatch.setattr(sweeping, "MOST", batch)
    await answered(stand, 10, 9)
    assert (await stand.job()).state is JobState.RUNNING
    shown = await close(stand)
    assert shown.id == JOB and shown.state == "running"
    for _ in range(5):
        await stand.later()
    await stand.effects()
    job = await stand.job()
    assert job.state is JobState.SUCCEEDED, job.why_json
    asked = await stand.all(Vote, phase="ask")
    assert asked and all(one.state is VoteState.PAID for one in asked)
    made = await stand.artifact("rows", "preferences.jsonl")
    assert len(made) == len(asked) < 10
    shards = await stand.all(Shard, phase="ask")
    assert {one.state for one in shards} == {ShardState.DONE} and len(shards) == 10
    await stand.check_books()
    kinds = [one.kind for one in await stand.all(Event, job_id=JOB)]
    assert kinds.count("people.closed") == kinds.count("people.ended") == 1
    assert "people.item_shelved" not in kinds


async def test_whoever_guesses_is_not_paid_at_an_early_end(stand: Stand) -> None:
    await stand.submit(rows(10, 30), consensus="majority")
    for number, answers, tasks in ((1, guesses(5), 12), (2, person(stand).answers, 6)):
        one = person(stand, number, answers)
        await one.join()
        await one.work(tasks)
    await close(stand)
    await ended(stand)
    guesser, honest = person(stand, 1).id, person(stand, 2).id
    votes = await stand.all(Vote, phase="ask")
    assert {one.state for one in votes if one.annotator == honest} == {VoteState.PAID}
    assert VoteState.PAID not in {one.state for one in votes if one.annotator == guesser}
    assert all(row["votes"] == 1 for row in await stand.artifact("rows", "preferences.jsonl"))
    await stand.check_books()


async def test_a_task_in_hand_is_taken_back_and_its_late_answer_refused(stand: Stand) -> None:
    await answered(stand, 10, 9)
    bert = person(stand, 2)
    await bert.join()
    given = (await bert.next())["task"]
    await close(stand)
    await ended(stand)
    late = await bert.post("vote", lease=given["lease"], answer=bert.answers(given), ms=5000)
    assert late.status_code == 409, late.text
    assert (await bert.next())["task"] is None
    assert (await stand.job()).state is JobState.SUCCEEDED
    await stand.check_books()


async def test_asked_again_it_changes_nothing(stand: Stand) -> None:
    """Also when the first answer got lost, and by the second time votes are gathered or all is over."""
    await answered(stand, 10, 9)
    for _ in range(2):
        await close(stand, stage=STAGE)
    await stand.later()
    assert (await close(stand)).state == "running"
    await ended(stand)
    before = await stand.all(Event, job_id=JOB)
    assert (await close(stand)).state == "succeeded"
    assert await stand.all(Event, job_id=JOB) == before
    assert [one.kind for one in before].count("people.closed") == 1


async def test_in_a_paused_job_the_asking_is_ended_too(stand: Stand) -> None:
    """A pause hands out no shard; what needs none goes on, as where a shard's result comes in a pause."""
    await answered(stand, 10, 9)
    await stand.steer(JobPaused(why=Why(code="job.paused_by_requester", sentence="A break.", next_step="Resume it.")))
    assert (await close(stand)).state == "paused"
    await ended(stand)
    assert (await stand.job()).state is JobState.SUCCEEDED
    assert await stand.artifact("rows", "preferences.jsonl")
    await stand.check_books()


async def test_a_stage_that_has_nothing_to_go_on_with_is_not_ended(stand: Stand) -> None:
    await stand.submit(rows(10, 30))
    with pytest.raises(Conflict) as nobody:
        await close(stand)
    assert nobody.value.code == "people.no_answers" and nobody.value.why.next_step
    anna = person(stand, 1)
    await anna.join()
    # practice is no answer
    assert await anna.work(2) == 2
    with pytest.raises(Conflict):
        await close(stand)


async def test_only_its_owner_ends_it_and_only_a_stage_that_asks(stand: Stand) -> None:
    await answered(stand, 10, 9)
    with pytest.raises(NotFound) as stranger:
        await close(stand, "somebody00000000")
    assert stranger.value.code == "job.not_found"
    with pytest.raises(NotFound) as wrong:
        await close(stand, stage="asl")
    assert wrong.value.code == "people.no_such_stage" and STAGE in wrong.value.why.next_step
    (stage,) = await stand.all(Stage)
    assert stage.deadline_ms == 0


async def test_what_came_to_its_own_end_is_not_ended_again(stand: Stand) -> None:
    await stand.submit(rows(2, 12), overlap=1)
    anna = person(stand, 1)
    await anna.join()
    await anna.work()
    await stand.later()
    with pytest.raises(Conflict) as joining:
        await close(stand)
    assert joining.value.code == "people.not_asking"
    await stand.effects()
    with pytest.raises(Conflict) as over:
        await close(stand)
    assert over.value.code == "job.final"


@pytest.mark.parametrize("tasks", [0, 9])
async def test_a_time_out_keeps_what_people_answered(stand: Stand, tasks: int) -> None:
    """With answers the stage goes on with them; without any it fails as every other."""
    await answered(stand, 10, tasks)
    (stage,) = await stand.all(Stage)
    late_ms = stand.clock.now_ms() + 3_600_000
    await stand.put(replace(stage, deadline_ms=late_ms))
    await stand.later()
    assert (await stand.job()).state is JobState.RUNNING
    assert not [one for one in await stand.all(Shard, phase="ask") if one.why_json]
    stand.clock.advance(3600)
    found = await stand.store.read(lambda tx: timed_out(tx, stand.clock.now_ms()))
    assert [why.code for _, why in found] == ([] if tasks else ["stage.timed_out"])
    await ended(stand)
    # while votes are gathered and after it, the time that is over is no fault either
    assert (await stand.job()).state is (JobState.SUCCEEDED if tasks else JobState.RUNNING)
    await stand.check_books()
