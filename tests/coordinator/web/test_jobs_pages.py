"""The pages of jobs, of a job and of a shard: what they find and show, and what an operator does there."""

from __future__ import annotations

import asyncio
import html
import json
import re
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from shardwork.errors import Unreachable
from shardwork_coordinator.records import (
    AuditEntry,
    Job,
    JobState,
    Lease,
    Replica,
    ReplicaState,
    Round,
    RoundState,
    Shard,
)
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.dashboard import curves, jobs, tries
from shardwork_coordinator.web.live import Live

from ..simulation import Simulation, count_job
from ..unruly import Unruly
from .scene import HOSTILE_JOB, HOSTILE_WORKER, LONG_NAME, OWNER, Scene, everything
from .visitor import act, token, visitor

JOB = "job000000001"


def names(page: str) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'<bdi class="name">(.*?)</bdi>', page)]


async def test_jobs_are_found_by_state_name_id_and_owner() -> None:
    scene = await everything()
    async with visitor(scene.engine) as client:

        async def found(query: str) -> list[str]:
            return names((await client.get(f"/jobs?{query}")).text)

        assert len(await found("")) == 6
        assert await found("state=paused") == [LONG_NAME]
        assert await found("q=news") == ["news-7b-summaries"]
        assert await found("q=000000000001") == ["news-7b-summaries"]
        assert len(await found(f"q={OWNER}")) == 6
        assert await found(f"q={OWNER}&state=failed") == ["masked rows"]
        # both running jobs are in somebody's hands
        assert await found("state=waiting") == []
        assert await found("state=retrying") == []
        assert await found("state=nonsense") == await found("")
        empty = (await client.get("/jobs?q=%00%3Cb%3E")).text
        assert "No such job." in empty and "<b>&lt;" not in empty and "&lt;b&gt;" in empty


async def test_a_list_of_jobs_goes_on_page_by_page_and_loses_none() -> None:
    scene = Scene()
    for number in range(jobs.PAGE * 2 + 3):
        job = await scene.job(f"job {number}", JobState.SUCCEEDED)

        def same_time(tx: Transaction, job: str = job, number: int = number) -> None:
            row = tx.get(Job, job)
            assert row is not None
            from dataclasses import replace

            tx.put(replace(row, created_ms=scene.clock.now_ms() - number // 4))

        await scene.store.write(same_time)
    async with visitor(scene.engine) as client:
        seen: list[str] = []
        path: str | None = "/jobs"
        while path:
            page = (await client.get(path)).text
            seen += names(page)
            older = re.search(r'<a href="([^"]+)" rel="next">', page)
            path = html.unescape(older[1]) if older else None
    assert len(seen) == len(set(seen)) == jobs.PAGE * 2 + 3


async def test_an_owners_newest_jobs_come_first_and_all_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_FOUND", jobs.PAGE * 2)
    scene, count = Scene(), jobs.PAGE * 3
    for number in range(count):
        await scene.job(f"job {number}", JobState.RUNNING)
    for query in (f"q={OWNER}", f"q={OWNER}&state=waiting", "state=waiting"):
        async with visitor(scene.engine) as client:
            seen: list[str] = []
            path: str | None = f"/jobs?{query}"
            while path:
                page = (await client.get(path)).text
                seen += names(page)
                older = re.search(r'<a href="([^"]+)" rel="next">', page)
                path = html.unescape(older[1]) if older else None
        assert seen == [f"job {number}" for number in reversed(range(count))], query
    async with visitor(scene.engine) as client:
        assert "More jobs begin like that" in (await client.get("/jobs?q=job")).text
        assert "More jobs begin like that" not in (await client.get("/jobs?q=job+1")).text


def test_a_long_jobs_curve_keeps_its_rounds_numbers_and_its_last_one() -> None:
    count = 2 * curves.MOST_POINTS + 1
    rounds = [
        Round(
            job_id=JOB,
            stage="tune",
            number=number,
            kind="learn",
            state=RoundState.MERGED,
            phase="learn",
            started_ms=0,
            train_loss=1 / number,
        )
        for number in range(1, count + 1)
    ]

    def pick(*_: object, **__: object) -> list[tuple[object, ...]]:
        return []

    nothing: Any = SimpleNamespace(pick=pick, name="tune", numbers_json="{}", id=JOB)
    loss = curves.charts(nothing, nothing, [nothing], rounds)[0]
    assert loss.rounds[-1] == count and len(loss.rounds) <= curves.MOST_POINTS
    assert loss.series[0].values[-1] == 1 / count
    assert {after - before for before, after in pairwise(loss.rounds)} == {3.0}


async def test_retried_and_waiting_jobs_are_told_apart() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=2))
    async with visitor(simulation.engine) as client:
        assert "job000000001" in (await client.get("/jobs?state=waiting")).text
        (held,) = await simulation.grant_all()
        assert "job000000001" not in (await client.get("/jobs?state=waiting")).text
        await act(client, f"/jobs/{JOB}/requeue", shard=held.shard_id, number="0", epoch="1", reason="slow")
        assert "job000000001" in (await client.get("/jobs?state=retrying")).text


async def test_a_job_page_tells_its_story() -> None:
    scene = await everything()
    async with visitor(scene.engine) as client:
        page = (await client.get("/jobs/000000000001")).text
        assert "1 worker is on the learn phase." in page
        assert "3 of 6 rounds" in page
        charts = [json.loads(html.unescape(one)) for one in re.findall(r'data-chart="([^"]+)"', page)]
        loss = next(one for one in charts if one["unit"] == "nats per token")
        assert loss["labels"] == ["training", "held out"]
        assert loss["data"][0][0] == 0 and loss["data"][2][0] == 7.645
        cost = next(one for one in charts if one["unit"] == "sat")
        assert cost["data"][1][0] == 4.5
        assert 'data-letters="t"' in page and "1 shards of the learn phase: 1 retrying" in page
        assert "alice" in page and "42 %" in page
        paid = page[page.index('id="attempts"') :]
        assert "3 sat" in paid and "accepted" in paid
        assert (await client.get("/jobs/000000000001?stage=x&round=99999999&phase=%3Cb%3E&before=y")).status_code == 200
        missing = await client.get("/jobs/nothing")
        assert missing.status_code == 404 and "There is no job" in missing.text


async def test_strangers_names_stay_text_on_a_jobs_pages() -> None:
    scene = await everything()
    async with visitor(scene.engine) as client:
        for path in ("/jobs", "/jobs/000000000006", "/jobs/000000000006/log"):
            page = (await client.get(path)).text
            assert HOSTILE_JOB not in page and html.escape(HOSTILE_JOB, quote=False).split("&quot;")[0][:20] in page
        assert HOSTILE_WORKER not in (await client.get("/jobs/000000000006")).text


async def test_a_job_is_paused_resumed_and_cancelled_with_an_entry_each() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(count_job(parts=4))
    await simulation.grant_all()
    async with visitor(simulation.engine) as client:
        assert "No new shard is given out." in (await client.get(f"/jobs/{JOB}")).text
        for step, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
            answer = await act(client, f"/jobs/{JOB}/{step}", reason="looks odd")
            assert answer.headers["location"] == f"/jobs/{JOB}"
            assert (await simulation.job()).state == state
        late = await act(client, f"/jobs/{JOB}/pause", reason="again")
        assert late.status_code == 409 and "has ended already" in late.text
        assert 'action="/jobs/job000000001/pause"' not in (await client.get(f"/jobs/{JOB}")).text
    entries = await simulation.store.read(lambda tx: tx.find(AuditEntry, order="id"))
    assert [(one.action, one.actor, one.reason) for one in entries] == [
        (f"job.{step}", "ada", "looks odd") for step in ("pause", "resume", "cancel")
    ]
    await simulation.check_books()


async def test_a_paused_jobs_owner_reads_the_operators_reason() -> None:
    simulation = Simulation()
    await simulation.submit(count_job())
    async with visitor(simulation.engine) as client:
        await act(client, f"/jobs/{JOB}/pause", reason="the data looks private")
        page = (await client.get(f"/jobs/{JOB}")).text
    assert "The operator paused the job" in page and "the data looks private" in page


async def test_a_requeued_shard_goes_to_another_worker_and_costs_no_attempt() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    before = await simulation.store.read(lambda tx: tx.get(Shard, held.shard_id))
    async with visitor(simulation.engine) as client:
        fields = {"shard": held.shard_id, "number": str(held.number), "epoch": str(held.epoch), "reason": "it hangs"}
        assert (await act(client, f"/jobs/{JOB}/requeue", **fields)).status_code == 303
        again = await act(client, f"/jobs/{JOB}/requeue", **fields)
        assert again.status_code == 409 and "Nobody holds this lease any more" in again.text
        for wrong in ({"number": "x"}, {"shard": "nothing"}):
            assert (await act(client, f"/jobs/{JOB}/requeue", **(fields | wrong))).status_code == 404
        after = await simulation.store.read(lambda tx: tx.get(Shard, held.shard_id))
        assert before is not None and after is not None and after.attempts_left == before.attempts_left
        (taken,) = await simulation.grant_all()
        assert taken.worker_id != held.worker_id and taken.epoch == held.epoch + 1
        place = held.shard_id.removeprefix(f"{JOB}/")
        page = (await client.get(f"/jobs/{JOB}/shards/{place}")).text
        assert "The operator gave this shard to another worker." in page and "it hangs" in page
        lost = (await client.get(f"/jobs/{JOB}?state=expired")).text
        assert "lease.requeued_by_operator" in lost
    # a late result of the first holder is stale
    row = await simulation.store.read(lambda tx: tx.get(Replica, held.shard_id, held.number))
    assert row is not None and row.worker_id == taken.worker_id
    await simulation.check_books()


async def test_a_shard_is_found_by_its_number_and_shows_what_it_is() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=2))
    (held,) = await simulation.grant_all()
    await simulation.finish(held)
    place = held.shard_id.removeprefix(f"{JOB}/")
    async with visitor(simulation.engine) as client:
        led = await client.get(f"/jobs/{JOB}/shard?in={place.rpartition('/')[0]}&position={place.rpartition('/s')[2]}")
        assert led.headers["location"] == f"/jobs/{JOB}/shards/{place}"
        page = (await client.get(led.headers["location"])).text
        assert "1 sat" in page and "accepted" in page and "Made, as accepted" in page
        assert (await client.get(f"/jobs/{JOB}/shards/../../x")).status_code == 404
        assert (await client.get(f"/jobs/{JOB}/shard?in=a/b&position=%00")).status_code == 303


async def test_a_job_can_be_cloned_and_its_log_read_to_the_end() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=2))
    await simulation.grant_all()
    async with visitor(simulation.engine) as client:
        saved = await client.get(f"/jobs/{JOB}/job.yaml")
        assert saved.headers["content-disposition"] == f'attachment; filename="job-{JOB}.yaml"'
        spec = yaml.safe_load(saved.text)
        assert spec["stages"][0]["recipe"] == "count"
        log = (await client.get(f"/jobs/{JOB}/log")).text
        assert "shard.leased" in log and "evidence" in log
        assert "Nothing was said yet." in (await client.get(f"/jobs/{JOB}/log?before=1")).text


@pytest.mark.parametrize("apart", [1, 0], ids=["one-by-one", "all-at-once"])
async def test_attempts_go_on_page_by_page(apart: int) -> None:
    scene = Scene()
    job, worker = await scene.job("long", JobState.RUNNING, rounds=1), await scene.worker(1, "alice")

    def fill(tx: Transaction) -> None:
        for number in range(tries.PAGE + 5):
            lease = Lease(
                id=f"{job}/{number}",
                job_id=job,
                shard_id=f"{job}/pretrain/r1/learn/s{number}",
                replica=0,
                epoch=1,
                worker_id=worker,
                phase="learn",
                state=ReplicaState.REJECTED,
                granted_ms=1_000,
                ended_ms=2_000 + number * apart,
            )
            tx.put(lease)

    await scene.put(fill)
    async with visitor(scene.engine) as client:
        first = (await client.get(f"/jobs/{job}?state=rejected")).text
        older = re.search(r'<a href="([^"]+)" rel="next">', first)
        assert older is not None and first.count('data-label="Ended"') == tries.PAGE
        second = (await client.get(html.unescape(older[1]))).text
        assert second.count('data-label="Ended"') == 5
        shards = re.findall(r">learn \d+<|/learn/s(\d+)\"", first + second)
        assert len({one for one in shards if one}) == tries.PAGE + 5


async def test_a_database_that_is_away_and_errors_of_ours_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await everything()
    async with visitor(scene.engine) as client:
        csrf = await token(client)
        read = scene.store.read

        async def away(work: object) -> None:
            raise Unreachable("store.unreachable", "The database can't be reached.", next_step="Wait.")

        monkeypatch.setattr(scene.store, "read", away)
        for path in ("/overview", "/jobs", "/jobs/000000000001", "/", "/login"):
            answer = await client.get(path)
            assert answer.status_code == 503 and "The database can&#39;t be reached." in answer.text
        for path in ("/live", "/pulse"):
            assert (await client.get(path)).status_code == 503
        for path in ("/jobs/000000000001/pause", "/login", "/logout"):
            assert (await client.post(path, data={"csrf": csrf, "reason": "x"})).status_code == 503

        async def broken(work: object) -> None:
            raise ValueError("a row of somebody's")

        monkeypatch.setattr(scene.store, "read", broken)
        answer = await client.get("/jobs")
        assert answer.status_code == 500 and "an error of its own" in answer.text and "somebody" not in answer.text
        monkeypatch.setattr(scene.store, "read", read)
        assert (await client.get("/jobs")).status_code == 200


async def test_a_stream_ends_when_the_database_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await everything()
    shared = Live(scene.engine, quiet_s=0.0, refresh_s=0.01)
    updates = shared.updates()
    await anext(updates)

    async def away(work: object) -> None:
        raise Unreachable("store.unreachable", "The database can't be reached.", next_step="Wait.")

    monkeypatch.setattr(scene.store, "read", away)
    assert [event.event async for event in updates][-1] == "beat"
    assert shared.listeners == 0


async def test_no_page_waits_for_the_ledger_to_be_recounted(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, counting = await everything(), asyncio.Event()

    async def slow() -> None:
        await counting.wait()

    shared = Live(scene.engine, quiet_s=0.0)
    monkeypatch.setattr(shared.books.checked, "_compute", slow)
    async with asyncio.timeout(10):
        assert "do not balance" not in (await shared.now()).parts["alerts"]
    counting.set()
    await asyncio.sleep(0)
    scene.store.close()
