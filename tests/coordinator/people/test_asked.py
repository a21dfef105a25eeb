"""What a job's owner is told of the stages that people answer: the figures, to them and to the operator only."""

from __future__ import annotations

import json

import pytest

from shardwork.errors import NotFound, ShardworkError
from shardwork.identity.role import Role
from shardwork.v1 import jobs_pb2
from shardwork_coordinator.rpc.asked import get_people_progress
from shardwork_coordinator.rpc.auth import Caller
from tests.docs.shapes import check

from .stand import JOB, OWNER, STAGE, Stand, person


async def asked(
    stand: Stand, party: str = OWNER, role: Role = Role.REQUESTER, stage: str = ""
) -> jobs_pb2.GetPeopleProgressResponse:
    request = jobs_pb2.GetPeopleProgressRequest(job_id=JOB, stage=stage)
    caller = Caller(party_id=party, public_key=bytes(32), role=role)
    return await get_people_progress(request, caller, stand.engine, stand.desk.items)


async def test_the_owner_and_the_operator_see_how_far_people_are(stand: Stand) -> None:
    await stand.submit()
    anna = person(stand, 1)
    await anna.join()
    assert await anna.work(5) == 5
    for party, role in ((OWNER, Role.REQUESTER), ("operator00000000", Role.OPERATOR)):
        (one,) = (await asked(stand, party, role, STAGE)).stages
        figures = json.loads(one.figures_json)
        told = {"id": JOB, "stages": [{"stage": one.stage, "state": one.state, "figures": figures}]}
        check("shardwork feedback progress", json.dumps(told))
        assert (one.stage, one.state, figures["items"], figures["overlap"]) == (STAGE, "running", 6, 2)
        assert [row["annotator"] for row in figures["people"]] == [anna.id]
        assert figures["held_msat"] > 0 == figures["paid_msat"]


async def test_whose_length_won_is_told_as_on_the_page(stand: Stand) -> None:
    await stand.submit()
    for number in (1, 2):
        judge = person(stand, number)
        await judge.join()
        await judge.work(20)
    (one,) = (await asked(stand)).stages
    # the better answers are the longer ones
    told = json.loads(one.figures_json)["bias"]
    assert told["longer"] == told["longer_interval"][1] == 1.0


async def test_without_the_texts_the_figures_are_told_all_the_same(stand: Stand) -> None:
    await stand.submit()
    caller = Caller(party_id=OWNER, public_key=bytes(32), role=Role.REQUESTER)
    (one,) = (
        await get_people_progress(jobs_pb2.GetPeopleProgressRequest(job_id=JOB), caller, stand.engine, None)
    ).stages
    assert json.loads(one.figures_json)["bias"]["longer"] is None


async def test_nobody_else_does_and_a_stage_that_is_none_is_named(stand: Stand) -> None:
    await stand.submit()
    with pytest.raises(ShardworkError) as caught:
        await asked(stand, "requester1111111")
    assert isinstance(caught.value, NotFound)
    with pytest.raises(NotFound) as none:
        await asked(stand, stage="nothing")
    assert none.value.code == "people.no_such_stage" and STAGE in none.value.why.next_step
