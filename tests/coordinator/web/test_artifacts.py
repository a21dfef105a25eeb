"""The pages of artifacts: what is listed, why each is kept, and a lineage read from what a real job left behind."""

from __future__ import annotations

import json
import re

import pytest

from shardwork_coordinator.artifacts.figures import StorageFigures
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.artifacts.retention import DAY_MS, HOUSE, Ages
from shardwork_coordinator.records import Artifact, ArtifactState, Job, Party, Round
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.dashboard.artifacts import listing
from shardwork_coordinator.web.dashboard.artifacts.content import Content, content
from shardwork_coordinator.web.dashboard.artifacts.lineage import Made
from shardwork_coordinator.web.server import Site, build

from ..simulation import OWNER, sft_job
from ..unruly import Unruly
from .scene import HOSTILE_WORKER
from .till import Till, browsing

LIMITS = ArtifactLimits()
ALICE = "a" * 16


def artifact(number: int, *, owner: str = OWNER, purpose: str = "input", size: int = 1, **more: object) -> Artifact:
    given = {"state": ArtifactState.STORED, "leaves": 1, "created_ms": number, **more}
    return Artifact(id=f"{number:064x}", owner=owner, purpose=purpose, bytes=size, **given)  # type: ignore[arg-type]


async def stocked() -> Till:
    """One artifact of each kind, and one that is still on its way."""
    till = Till()
    hub = f"hub:acme/tiny@{'0' * 40}"
    rows = [
        artifact(1, size=10),
        artifact(2, owner=HOUSE, purpose="executor", size=50),
        artifact(3, owner=ALICE, purpose="job1/words/r1/map/s0#0.1", size=40),
        artifact(4, purpose="output of job1", size=30),
        artifact(5, owner=HOUSE, purpose=hub, size=20),
        artifact(6, state=ArtifactState.STAGING),
    ]
    named = Party(id=ALICE, public_key=b"a", roles="worker", name=HOSTILE_WORKER, created_ms=0, last_seen_ms=0)

    def fill(tx: Transaction) -> None:
        for row in (*rows, named):
            tx.put(row)

    await till.scene.put(fill)
    return till


async def numbers(till: Till, **query: str) -> list[int]:
    found = await till.scene.store.read(lambda tx: listing.listed(tx, listing.Wanted.of(query), Ages()))
    return [int(row.id, 16) for row in found.artifacts]


async def finished() -> Unruly:
    """A tuning job that succeeded, with a row for everything it made."""
    simulation = Unruly(workers=3)
    await simulation.submit(sft_job(rounds=2, shards=2))
    job = await simulation.run_to_end()
    assert job.state == "succeeded"
    return simulation


async def results(simulation: Unruly, number: int) -> dict[str, str]:
    rounds = await simulation.store.read(lambda tx: tx.find(Round, number=number))
    found: dict[str, str] = json.loads(rounds[0].results_json)
    return found


async def seen(simulation: Unruly, artifact_id: str, owner: str = HOUSE) -> Content:
    now_ms = simulation.clock.now_ms()
    row = Artifact(
        id=artifact_id,
        owner=owner,
        purpose="executor",
        state=ArtifactState.STORED,
        bytes=5,
        leaves=1,
        created_ms=now_ms,
    )
    await simulation.store.write(lambda tx: tx.put(row))
    return await simulation.store.read(lambda tx: content(tx, artifact_id, LIMITS, now_ms))


# ---- the list -------------------------------------------------------------------------------------------------------


async def test_artifacts_are_listed_by_age_size_kind_owner_and_beginning() -> None:
    till = await stocked()
    assert await numbers(till) == [5, 4, 3, 2, 1]
    assert await numbers(till, order="largest") == [2, 3, 4, 5, 1]
    for kind, number in (("input", 1), ("executor", 2), ("result", 3), ("output", 4), ("hub", 5)):
        assert await numbers(till, kind=kind) == [number]
    assert await numbers(till, owner=HOUSE) == [5, 2]
    assert await numbers(till, q=f"{3:064x}"[:64]) == [3]
    assert await numbers(till, q="0" * 20, order="largest") == [2, 3, 4, 5, 1]
    assert await numbers(till, q="f") == []
    assert await numbers(till, unfinished="1") == [6]
    # what makes no sense is left out
    assert await numbers(till, kind="%", order="<", page="x") == [5, 4, 3, 2, 1]
    till.scene.store.close()


async def test_pages_follow_each_other_and_a_cut_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    till = Till()

    def fill(tx: Transaction) -> None:
        for number in range(listing.PAGE + 3):
            tx.put(artifact(number, created_ms=7))

    await till.scene.put(fill)
    first, rest = await numbers(till), await numbers(till, page="1")
    assert len(first) == listing.PAGE and len(rest) == 3 and not set(first) & set(rest)
    monkeypatch.setattr(listing, "MOST_LOOKED", 5)
    cut = await till.scene.store.read(lambda tx: listing.listed(tx, listing.Wanted(), Ages()))
    assert (cut.total, cut.is_cut) == (5, True)
    till.scene.store.close()


async def test_the_page_shows_totals_of_the_sweep_and_strangers_names_as_text() -> None:
    till = await stocked()
    figures = StorageFigures()
    figures.bytes["input"], figures.artifacts["input"], figures.swept_ms = 1_500_000, 3, till.scene.clock.now_ms()
    async with browsing(build(till.scene.engine, Site(storage=figures)), till.scene) as browser:
        html = await browser.get("/artifacts")
        assert "1.5 MB <small>3</small>" in html and HOSTILE_WORKER not in html
        assert 'href="/jobs/job1"' in html
        assert "No such artifact." in await browser.get("/artifacts?q=ffff")


async def test_an_empty_store_and_an_unknown_id_say_what_to_do() -> None:
    till = Till()
    async with browsing(till.app, till.scene) as browser:
        assert "Nothing is stored yet." in await browser.get("/artifacts")
        assert "artifact.unknown_id" in await browser.get("/artifacts/abc", 404)


async def test_what_no_job_needs_says_when_it_goes() -> None:
    till = await stocked()
    async with browsing(till.app, till.scene) as browser:
        html = await browser.get(f"/artifacts/{1:064x}")
        assert "No job needs it." in html and "one of the next sweeps" in html
        assert "It was never sent whole," in await browser.get(f"/artifacts/{6:064x}")


# ---- one artifact ---------------------------------------------------------------------------------------------------


async def test_an_intermediate_result_is_kept_for_its_job_and_until_a_date() -> None:
    simulation = await finished()
    made = await results(simulation, 1)
    found = await seen(simulation, made["new_checkpoint"])
    (job,) = await simulation.store.read(lambda tx: tx.find(Job))
    (kept,) = [one for one in found.keeping if one.kind == "intermediate"]
    assert (kept.job_id, kept.until_ms) == (job.id, job.ended_ms + 7 * DAY_MS)
    simulation.store.close()


async def test_a_lineage_goes_back_to_the_shards_and_on_to_the_next_round() -> None:
    simulation = await finished()
    made = await results(simulation, 1)
    found = await seen(simulation, made["new_checkpoint"])
    (line,) = found.lineages
    assert line.made is not None and line.made.words == "apply, on the coordinator (tune, round 1)"
    by_name = {piece.name: piece for piece in line.made.inputs}
    moments = by_name["moments"].made
    assert moments is not None and moments.words == "merge, on the coordinator (tune, round 1)"
    deltas = {piece.name: piece for piece in moments.inputs if piece.name.startswith("delta-")}
    assert {piece.id for piece in deltas.values()} == {made["delta-0"], made["delta-1"]}
    learners = {piece.made.words for piece in deltas.values() if piece.made}
    assert learners == {"learn shard 0 (tune, round 1)", "learn shard 1 (tune, round 1)"}
    shard = next(piece.made for piece in deltas.values() if piece.made)
    (job,) = await simulation.store.read(lambda tx: tx.find(Job))
    assert shard.path.startswith(f"/jobs/{job.id}/shards/tune/r1/learn/s")
    readers = {one.words for one in line.used}
    assert "2 learn shards (tune, round 2)" in readers and "merge, on the coordinator (tune, round 2)" in readers
    simulation.store.close()


async def test_nothing_is_explained_twice_in_one_lineage() -> None:
    simulation = await finished()
    found = await seen(simulation, (await results(simulation, 2))["new_checkpoint"])
    explained: list[str] = []

    def walk(made: Made) -> None:
        for piece in made.inputs:
            if piece.made is not None:
                explained.append(piece.id)
                walk(piece.made)

    assert found.lineages[0].made is not None
    walk(found.lineages[0].made)
    assert len(explained) > 3 and len(explained) == len(set(explained))
    simulation.store.close()


async def test_an_input_is_read_by_the_first_phase_and_leads_to_its_uploads_name() -> None:
    simulation = await finished()
    (job,) = await simulation.store.read(lambda tx: tx.find(Job))
    name, artifact_id = next(iter(json.loads(job.inputs_json).items()))
    found = await seen(simulation, artifact_id, owner=job.owner)
    (line,) = found.lineages
    assert line.made is not None and line.made.words == f"input {name}"
    assert line.used and line.used[0].words.startswith("prepare, on the coordinator (tune, round 0)")
    assert "input" in {one.kind for one in found.keeping}
    simulation.store.close()


async def test_a_published_output_says_under_which_name() -> None:
    simulation = await finished()
    (last,) = [one for one in await simulation.store.read(lambda tx: tx.find(Round)) if one.kind == "publish"]
    found = await seen(simulation, json.loads(last.results_json)["model"])
    assert found.lineages[0].published == ["tune.model"]
    assert "output" in {one.kind for one in found.keeping}
    simulation.store.close()


async def test_the_page_of_a_real_checkpoint_has_both_sides_as_lists_with_links() -> None:
    simulation = await finished()
    made = await results(simulation, 1)
    await seen(simulation, made["new_checkpoint"])
    till = Till()
    till.scene.engine, till.scene.store, till.scene.clock = simulation.engine, simulation.store, simulation.clock  # type: ignore[assignment]
    async with browsing(build(simulation.engine), till.scene) as browser:
        html = await browser.get(f"/artifacts/{made['new_checkpoint']}")
        assert html.count('<ul class="tree">') >= 3
        links = re.findall(r'href="/artifacts/([0-9a-f]{64})"', html)
        assert made["delta-0"] in links and made["moments"] in links
        listed = await browser.get(f"/artifacts?job={(await simulation.store.read(lambda tx: tx.find(Job)))[0].id}")
        assert made["new_checkpoint"] in listed
