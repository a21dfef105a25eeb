"""A stage that asks people on its job's page: what is told of it and of whom, to whom, and how somebody is shut out."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from shardwork_coordinator.people.sweeping import sweep
from shardwork_coordinator.records import AuditEntry, JobState, Shard, ShardState, Vote, VoteState, WebRole
from shardwork_coordinator.web.server import Site

from ..web.visitor import act, visitor
from .stand import JOB, STAGE, Stand, always_first, looks, person, rows

HOSTILE = "</td><script>alert('me')</script>"


@asynccontextmanager
async def dashboard(stand: Stand, role: WebRole = WebRole.OPERATOR) -> AsyncGenerator[httpx.AsyncClient, None]:
    contents = stand.desk.items._contents  # pyright: ignore[reportPrivateUsage]
    async with visitor(stand.engine, role, name=str(role), site=Site(contents=contents)) as client:
        yield client


def text(page: str) -> str:
    """As it is read: without tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


async def judged(stand: Stand) -> None:
    await stand.submit(rows(12, 30), overlap=2, invitation="dragonfly")
    for number, answers in ((1, looks), (2, looks), (3, always_first)):
        one = person(stand, number, answers)
        one.name = HOSTILE if number == 3 else one.name
        await one.join(invitation="dragonfly")
        await one.work(20)


async def test_a_jobs_page_tells_how_its_people_judge(stand: Stand) -> None:
    await judged(stand)
    async with dashboard(stand) as client:
        page = (await client.get(f"/jobs/{JOB}")).text
    told = text(page)
    assert "4 of 12 items done, each by 2 people" in told and "at the pace of the last 10 minutes" in told
    assert re.search(r"Answers paid 3[0-9] ", told) and "not known yet 0 cleared 2 stopped 1" in told
    assert "The answer shown first was chosen" in told and "The longer answer was chosen 100 % of the time" in told
    assert "always the same key" in told or "wrong at hidden or repeated items" in told
    assert f"/people#{JOB}/{STAGE}?dragonfly" in page
    assert HOSTILE not in page and HOSTILE in html.unescape(page)


async def test_a_viewer_sees_no_invitation_and_no_action(stand: Stand) -> None:
    await judged(stand)
    async with dashboard(stand, WebRole.VIEWER) as client:
        page = (await client.get(f"/jobs/{JOB}")).text
        assert f"/people#{JOB}/{STAGE}" in page and "dragonfly" not in page
        assert f"/workers/{person(stand, 1).id}/ban" not in page
        refused = await act(client, f"/workers/{person(stand, 1).id}/ban", reason="no")
        assert refused.status_code == 403


async def test_an_operator_shuts_somebody_out_from_the_page(stand: Stand) -> None:
    await judged(stand)
    anna = person(stand, 1)
    async with dashboard(stand) as client:
        page = (await client.get(f"/jobs/{JOB}")).text
        assert f'action="/workers/{anna.id}/ban"' in page
        assert (await act(client, f"/workers/{anna.id}/ban", reason="sells its key")).status_code == 303
        await sweep(stand.engine)
        told = text((await client.get(f"/jobs/{JOB}")).text)
        assert "The operator shut this key out." in told and "banned" in told
        assert (await client.get(f"/workers/{anna.id}")).status_code == 200
    [entry] = await stand.all(AuditEntry)
    assert (entry.action, entry.subject, entry.reason) == ("worker.ban", anna.id, "sells its key")
    assert (await anna.post("next", job=JOB, stage=STAGE)).status_code == 403


async def test_the_panel_stays_when_its_items_are_gone(stand: Stand) -> None:
    await judged(stand)
    async with visitor(stand.engine, site=Site()) as client:
        told = text((await client.get(f"/jobs/{JOB}")).text)
    assert "4 of 12 items done" in told and "The longer answer" not in told


async def test_metrics_count_votes_people_and_what_is_left_to_ask(stand: Stand) -> None:
    async def told() -> dict[tuple[str, str], float]:
        answer = await stand.client.get("/metrics")
        found = text_string_to_metric_families(answer.text)
        return {(one.name, one.labels.get("state", "")): one.value for family in found for one in family.samples}

    await judged(stand)
    seen = await told()
    votes = await stand.all(Vote)
    for state in VoteState:
        assert seen["shardwork_votes", state] == sum(1 for one in votes if one.state is state)
    assert (seen["shardwork_annotators", "cleared"], seen["shardwork_annotators", "stopped"]) == (2, 1)
    free = await stand.all(Shard, phase="ask", state=ShardState.READY)
    assert seen["shardwork_people_items_open", ""] == len(free) > 0


async def test_an_operator_ends_the_asking_from_the_page(stand: Stand) -> None:
    await stand.submit(rows(12, 30), overlap=2)
    async with dashboard(stand) as client:
        # nobody has answered: there is nothing to go on with, and no button
        assert f"/jobs/{JOB}/close" not in (await client.get(f"/jobs/{JOB}")).text
        refused = await act(client, f"/jobs/{JOB}/close", stage=STAGE, reason="early")
        assert refused.status_code == 409 and "Nobody has answered" in text(refused.text)
        one = person(stand, 1)
        await one.join()
        await one.work(9)
        assert f'action="/jobs/{JOB}/close"' in (await client.get(f"/jobs/{JOB}")).text
        assert (await act(client, f"/jobs/{JOB}/close", stage=STAGE, reason="enough")).status_code == 303
        assert (await act(client, f"/jobs/{JOB}/close", stage="other", reason="enough")).status_code == 404
    [entry] = await stand.all(AuditEntry)
    assert (entry.action, entry.subject, entry.reason) == ("people.close", JOB, "enough")
    await stand.later()
    await stand.effects()
    assert (await stand.job()).state is JobState.SUCCEEDED
    await stand.check_books()


async def test_a_viewer_does_not_end_the_asking(stand: Stand) -> None:
    await judged(stand)
    async with dashboard(stand, WebRole.VIEWER) as client:
        assert f"/jobs/{JOB}/close" not in (await client.get(f"/jobs/{JOB}")).text
        assert (await act(client, f"/jobs/{JOB}/close", stage=STAGE, reason="no")).status_code == 403
