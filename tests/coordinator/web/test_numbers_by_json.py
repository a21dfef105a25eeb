"""Every number that a job's page tells of alignment is one that a command tells by --json.

Nothing is listed here: whatever number a template of alignment reads, while a page is made, must stand under the same
key with the same value in what the commands print of the same job; and every point of a curve must be one of theirs,
in the curve's unit.
"""

from __future__ import annotations

import html
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jinja2
import pytest

from shardwork.client import received
from shardwork.client.outputs.rows import Asked
from shardwork.client.outputs.rows import page as samples_page
from shardwork.client.results import Report
from shardwork.feedback.samples import SampleRow
from shardwork.identity.role import Role
from shardwork.v1 import jobs_pb2
from shardwork_client.views import report_json, samples_page_json
from shardwork_coordinator.engine import Engine
from shardwork_coordinator.records import Job, JobState
from shardwork_coordinator.rpc.asked import get_people_progress
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.views import report_view
from shardwork_coordinator.web.server import Site
from tests.docs.shapes import check

from ..artifacts.service import NamedSession, serving
from ..people.stand import JOB, OWNER, always_first, looks, person, rows, standing
from ..simulation import Simulation, scored_job
from .alignment_scene import aligned, reported
from .scene import Scene
from .test_alignment_jobs import JOB as SIMULATED
from .test_alignment_jobs import step
from .visitor import visitor

TEMPLATES = "dashboard/alignment/"
Told = set[tuple[str, float]]


Json: TypeAlias = "Mapping[str, Json] | list[Json] | str | float | None"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def told(document: Json, key: str = "") -> Iterator[tuple[str, float]]:
    """(key, number) of everything in it; a list's numbers stand under the list's key."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            yield from told(value, name)
    elif isinstance(document, list):
        for value in document:
            yield from told(value, key)
    elif isinstance(document, int | float) and is_number(document):
        yield key, float(document)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Told:
    """(key, number) that templates of alignment read. The key of an item of a list is empty."""
    found: Told = set()

    def noting(plain: Any) -> Any:
        def look(self: jinja2.Environment, obj: Any, key: Any) -> Any:
            value = plain(self, obj, key)
            if is_number(value) and TEMPLATES in sys._getframe(1).f_code.co_filename:  # pyright: ignore[reportPrivateUsage]
                found.add((key if isinstance(key, str) else "", float(value)))
            return value

        return look

    for name in ("getattr", "getitem"):
        monkeypatch.setattr(jinja2.Environment, name, noting(getattr(jinja2.Environment, name)))
    return found


async def reported_of(engine: Engine, job: str) -> Report:
    def look(tx: Any) -> jobs_pb2.GetJobReportResponse:
        row = tx.get(Job, job)
        assert row is not None
        return report_view(tx, row, [])

    return received.report(await engine.store.read(look))


async def job_report(engine: Engine, job: str) -> dict[str, Any]:
    """`job report --json`."""
    told_as = report_json(await reported_of(engine, job))
    check("shardwork job report", json.dumps(told_as))
    return told_as


def missing(read: Told, *documents: Json) -> Told:
    known = {pair for document in documents for pair in told(document)}
    values = {value for _, value in known}
    return {(key, value) for key, value in read if ((key, value) not in known if key else value not in values)}


async def test_a_loops_alarms_safety_and_votes_are_told_by_json(tmp_path: Path, read: Told) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        page = (await client.get(f"/jobs/{job}")).text
    report, votes = await job_report(scene.engine, job), reported()
    # what a stage of consensus writes is what the command prints of it
    check("shardwork feedback report", json.dumps(votes))
    # of the loop, of a win rate, of the safety set, of a side of the votes
    assert {("kl", 0.031), ("low", 0.3), ("harmful.refused_after", 5.0), ("ms_per_vote", 50.0)} <= read
    assert missing(read, report, votes) == set()
    assert missing({("kl", 0.5), ("", 0.123)}, report, votes) == {("kl", 0.5), ("", 0.123)}
    assert points_beside(page, report) == []


async def test_a_panel_of_people_is_told_by_json(tmp_path: Path, read: Told) -> None:
    async with standing(tmp_path) as stand:
        await stand.submit(rows(12, 30), overlap=2)
        for number, answers in ((1, looks), (2, looks), (3, always_first)):
            one = person(stand, number, answers)
            await one.join()
            await one.work(20)
        contents = stand.desk.items._contents  # pyright: ignore[reportPrivateUsage]
        async with visitor(stand.engine, site=Site(contents=contents)) as client:
            page = (await client.get(f"/jobs/{JOB}")).text
        caller = Caller(party_id=OWNER, public_key=bytes(32), role=Role.REQUESTER)
        request = jobs_pb2.GetPeopleProgressRequest(job_id=JOB)
        answer = await get_people_progress(request, caller, stand.engine, stand.desk.items)
    figures = [json.loads(one.figures_json) for one in answer.stages]
    assert {("items_done", 4.0), ("stopped", 1.0)} <= read and missing(read, figures) == set()
    # sentences hold some too, which no template reads
    bias = figures[0]["bias"]
    for value in (bias["shown_first"], *bias["shown_first_interval"], bias["longer"], *bias["longer_interval"]):
        assert re.search(rf"\b{100 * value:.0f} (%|to)", page), value


@pytest.mark.parametrize(
    ("output", "beside"), [("answers-1.rows", ""), ("answers-1.rows", "after.rows"), ("votes-1.rows", "odd.rows")]
)
async def test_samples_are_told_by_json_page_by_page(tmp_path: Path, read: Told, output: str, beside: str) -> None:
    """The command reads the same file over gRPC: every text and note of the page, and how much of each is left out."""
    scene = Scene()
    cut = {"prompt_id": "p1", "answers": [{"text": "y" * 7_000, "logprob": -3.21987, "ended": False}] * 9}
    job, contents = await aligned(scene, tmp_path, odd=json.dumps(cut) + "\nno JSON\n")
    status = (await reported_of(scene.engine, job)).status
    async with (
        visitor(scene.engine, site=Site(contents=contents)) as client,
        serving(tmp_path / "artifacts") as service,
    ):
        session = NamedSession(service.port, OWNER, Role.OPERATOR)
        path, at, pages = f"/jobs/{job}/samples/{output}?beside={beside}", 0, 0
        seen: Told = set()
        while path:
            read.clear()
            page = (await client.get(path)).text
            found = await samples_page(session, status, Asked(output=output, beside=beside, rows=20, at=at))
            told_as = samples_page_json(found)
            check("shardwork job samples", json.dumps({"id": job, "outputs": [], "page": told_as}))
            assert missing(read, told_as) == set()
            seen |= set(told(told_as))
            assert shown(page) == [(one.prompt_id, one.note, one.prompt.text, words(one)) for one in found.samples]
            assert [one.sentence in page for one in found.problems] == [True] * len(found.problems)
            following = re.search(r'<a href="([^"]+)" rel="next">', page)
            path, at, pages = html.unescape(following[1]) if following else "", found.next_at or 0, pages + 1
            assert (f"at={at}" in path) == bool(at)
        await session.channel.close()
    assert pages == (1 if output == "votes-1.rows" else 3)
    if beside == "odd.rows":
        assert {("more", 1_000.0), ("more", 3.0), ("logprob", -3.21987)} <= seen


def words(row: SampleRow) -> list[tuple[str, str, str]]:
    return [(one.label, one.note, one.text) for one in row.texts]


def shown(page: str) -> list[tuple[str, str, str, list[tuple[str, str, str]]]]:
    """Of each row on a page its prompt's id, what is said of it, its prompt, and (label, note, text) of its answers."""
    found: list[tuple[str, str, str, list[tuple[str, str, str]]]] = []
    for section in re.findall(r'<section class="card sample".*?</section>', page, re.DOTALL):
        head = re.search(r'<p class="quiet">(?:<code>(.*?)</code>)? ?(.*?)</p>', section, re.DOTALL)
        prompt = re.search(r'<pre class="prompt"[^>]*>(.*?)</pre>', section, re.DOTALL)
        assert head is not None and prompt is not None
        answers = re.findall(
            r"<h2><bdi>(.*?)</bdi>(?: <small[^>]*>(.*?)</small>)?</h2>\s*<pre[^>]*>(.*?)</pre>", section, re.DOTALL
        )
        texts = [(html.unescape(label), html.unescape(note), html.unescape(text)) for label, note, text in answers]
        found.append((html.unescape(head[1] or ""), html.unescape(head[2]), html.unescape(prompt[1]), texts))
    return found


async def test_curves_of_a_policy_are_told_by_json() -> None:
    simulation = Simulation(workers=3)
    await simulation.submit(scored_job())
    while (await step(simulation)).state is not JobState.SUCCEEDED:
        pass
    async with visitor(simulation.engine) as client:
        page = (await client.get(f"/jobs/{SIMULATED}")).text
    assert "Throughput" in page and "Cost" in page
    assert points_beside(page, await job_report(simulation.engine, SIMULATED)) == []


def points_beside(page: str, report: Mapping[str, Any]) -> list[float]:
    """Of the page's curves, the points that no round of the report has, in bytes, msat, tokens a second or as it is."""
    rounds = [one for stage in report["stages"] for one in stage["rounds"]]
    known = [value * scale for one in rounds for _, value in told(one) for scale in (1, 1e-3, 1e-6)]
    known += [one.get("tokens", 0) / one["seconds"] for one in rounds if one["seconds"]]
    charts = [json.loads(html.unescape(one)) for one in re.findall(r'data-chart="([^"]+)"', page)]
    assert charts
    points = [value for chart in charts for line in chart["data"][1:] for value in line if value is not None]
    return [value for value in points if not any(math.isclose(value, one, rel_tol=1e-9) for one in known)]
