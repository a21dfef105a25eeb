"""The pages of workers: found, filtered, explained, and acted upon with a reason that is kept."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import replace

import httpx
import pytest

from shardwork.money import sats
from shardwork.why import Why
from shardwork_coordinator.money import deposits, withdrawals
from shardwork_coordinator.queueing import standing
from shardwork_coordinator.queueing.reliability import DECAY, LOOK_BACK, reliability
from shardwork_coordinator.records import (
    AuditEntry,
    JobState,
    Lease,
    Party,
    ReplicaState,
    Standing,
    WebRole,
    WebSession,
)
from shardwork_coordinator.web import roster
from shardwork_coordinator.web.server import build

from .scene import COOKIE, HOSTILE_WORKER, Scene, everything, signed_in
from .test_pages import Tags
from .till import Till

ALICE, DORA = "0000000000000001", "0000000000000004"


class Page(Tags):
    VOID = Tags.VOID | {"input"}


@contextlib.asynccontextmanager
async def browser(scene: Scene, role: WebRole = WebRole.OPERATOR) -> AsyncGenerator[httpx.AsyncClient, None]:
    cookies = {COOKIE: await signed_in(scene, role)}
    transport = httpx.ASGITransport(build(scene.engine))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies=cookies) as client:
            yield client
    finally:
        scene.store.close()


async def csrf(scene: Scene) -> str:
    (session,) = await scene.store.read(lambda tx: tx.find(WebSession))
    return session.csrf


def names(html: str) -> list[str]:
    return re.findall(r'<a id="worker-([0-9a-f]+)"', html)


# ---- the list -------------------------------------------------------------------------------------------------------


async def test_workers_are_listed_with_state_record_and_money_attached_ones_first() -> None:
    async with browser(await everything()) as client:
        html = (await client.get("/workers")).text
    tags = Page(html)
    assert tags.open == []
    assert HOSTILE_WORKER in tags.texts and "<script>alert" not in html
    assert [one[-1] for one in names(html)] == ["2", "1", "4", "3"], "by name, then those who left"
    alice = html[html.index(f'id="worker-{ALICE}"') :].partition("</tr>")[0]
    assert "learn of news-7b-summaries, 42 %" in alice and "3 sat" in alice and "Some GPU" in alice
    assert "1 / <span>0</span> / 0" in alice and "100 %" in alice


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("q=ali", ["1"]),
        ("q=ALI", ["1"]),
        ("q=0000000000000004", ["4"]),
        ("q=nobody", []),
        ("state=busy", ["2", "1"]),
        ("state=offline", ["3"]),
        ("state=paused", ["4"]),
        ("state=drained", ["1"]),
        ("state=reference", ["4"]),
        ("state=offline&q=ali", []),
        ("state=nonsense&page=x", ["2", "1", "4", "3"]),
        ("page=99", ["2", "1", "4", "3"]),
    ],
)
async def test_workers_are_found_by_name_id_state_and_mark(asked: str, found: list[str]) -> None:
    scene = await everything()
    await scene.put(lambda tx: standing.change(tx, ALICE, Standing.DRAINED, "x"))
    await scene.put(lambda tx: standing.mark_reference(tx, DORA, reference=True))
    async with browser(scene) as client:
        html = (await client.get(f"/workers?{asked}")).text
    assert [one[-1] for one in names(html)] == found
    assert bool(found) or "No worker is like that." in html


async def test_a_long_list_is_paged_and_keeps_what_was_asked_for() -> None:
    scene = Scene()
    for number in range(roster.PAGE + 3):
        await scene.worker(number + 1, f"rig {number:03}")
    async with browser(scene) as client:
        first = (await client.get("/workers?q=rig&state=ready")).text
        second = (await client.get("/workers?q=rig&state=ready&page=2")).text
    assert "1–50 of 53" in first and 'href="/workers?q=rig&amp;state=ready&amp;page=2"' in first
    assert len(names(first)) == roster.PAGE and len(names(second)) == 3
    assert 'href="/workers?q=rig&amp;state=ready" rel="prev"' in second


async def test_an_empty_house_says_how_the_first_worker_joins() -> None:
    async with browser(Scene()) as client:
        html = (await client.get("/workers")).text
    assert "<code>shardwork-worker start JOIN</code>" in html


# ---- reliability ----------------------------------------------------------------------------------------------------


def attempt(number: int, state: ReplicaState, code: str = "") -> Lease:
    why = Why(code=code, sentence="x").to_json() if code else ""
    return Lease(
        id=str(number),
        job_id="j",
        shard_id="s",
        replica=0,
        epoch=number,
        worker_id="w",
        phase="learn",
        state=state,
        granted_ms=0,
        ended_ms=1,
        why_json=why,
    )


def test_reliability_is_the_weighted_share_of_what_was_accepted() -> None:
    good, bad = ReplicaState.ACCEPTED, ReplicaState.REJECTED
    assert reliability([]).score is None
    assert reliability([attempt(0, good)]).score == 1.0
    newest_failed = reliability([attempt(0, bad), attempt(1, good)])
    assert newest_failed.score == pytest.approx(DECAY / (1 + DECAY))
    oldest_failed = reliability([attempt(0, good), attempt(1, bad)])
    assert oldest_failed.score == pytest.approx(1 / (1 + DECAY))
    assert sum(oldest_failed.weights.values()) == pytest.approx(1.0)
    assert reliability([attempt(n, good) for n in range(2 * LOOK_BACK)]).counted == LOOK_BACK


@pytest.mark.parametrize(
    ("code", "counts"),
    [("lease.silent", 2), ("worker.paused", 1), ("job.cancelled", 1), (standing.TAKEN_BACK, 1), ("trainer.failed", 2)],
)
def test_what_was_no_fault_of_its_own_does_not_count(code: str, counts: int) -> None:
    found = reliability([attempt(0, ReplicaState.EXPIRED, code), attempt(1, ReplicaState.ACCEPTED)])
    assert found.counted == counts
    assert ("0" in found.weights) is (counts == 2)


# ---- one worker -----------------------------------------------------------------------------------------------------


async def test_a_workers_page_shows_what_it_is_what_it_did_and_why() -> None:
    scene = await everything()
    job = await scene.job("odd", JobState.RUNNING, rounds=1)
    failed = replace(attempt(7, ReplicaState.EXPIRED, "lease.silent"), worker_id=ALICE, job_id=job, ended_ms=10**12)
    await scene.put(lambda tx: tx.put(failed))
    async with browser(scene) as client:
        html = (await client.get(f"/workers/{ALICE}")).text
    assert Page(html).open == []
    for text in ("<bdi>alice</bdi>", "Some GPU", "<bdi>odd</bdi>", "lease.silent", "passed its checks"):
        assert text in html
    # one accepted and one newer failure: 0.96 / 1.96
    assert "49 %" in html and "51.0 %" in html
    assert "no address: nothing is paid out" in html
    assert f'action="/workers/{ALICE}/quarantine"' in html and f'action="/workers/{ALICE}/restore"' not in html


async def test_earnings_lead_to_the_ledger_and_name_payouts_only_with_their_reason() -> None:
    till = Till()
    worker = await till.earner(1, "alice", "fail@simulated", 40)
    await till.sweep()
    wish = withdrawals.Wish(owner=worker, msat=sats(7), address="fail@simulated", idempotency_key="a-wish-of-mine")
    await deposits.create(
        till.scene.store, till.payments, till.scene.clock, owner=worker, msat=sats(50), idempotency_key="mine"
    )
    await deposits.sweep(till.scene.store, till.payments, till.scene.clock)
    await withdrawals.create(till.scene.store, till.payments, till.scene.clock, wish)
    await till.scene.worker(2, "shy", attached=False)
    async with browser(till.scene) as client:
        page = (await client.get(f"/workers/{worker}")).text
        found = re.search(r'id="ledger" href="([^"]+)"', page)
        assert found is not None and "a-shard" in (await client.get(found[1])).text
        assert 'href="/money/payments?state=failed"' in page and "The payment failed." in page
        assert "7 sat" not in page and page.count('id="payout-') == 1
        # nothing ever moved there, so there is nothing to lead to
        assert 'id="ledger"' not in (await client.get("/workers/0000000000000002")).text


async def test_a_worker_that_never_came_and_one_that_is_not_there_say_so() -> None:
    scene = Scene()
    await scene.worker(1, "shy", attached=False)
    async with browser(scene) as client:
        shy, nobody = await client.get(f"/workers/{ALICE}"), await client.get("/workers/feedbeef")
    assert "it has said nothing" in shy.text and "No attempt has ended yet." in shy.text
    assert nobody.status_code == 404 and "worker.not_found" in nobody.text


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [("drain", Standing.DRAINED), ("quarantine", Standing.QUARANTINED), ("ban", Standing.BANNED)],
)
async def test_an_operator_decides_with_a_reason_and_takes_it_back(verb: str, wanted: Standing) -> None:
    scene = await everything()
    async with browser(scene) as client:
        form = {"csrf": await csrf(scene), "reason": "its losses look odd"}
        done = await client.post(f"/workers/{ALICE}/{verb}", data=form)
        assert (done.status_code, done.headers["location"]) == (303, f"/workers/{ALICE}")
        html = (await client.get(f"/workers/{ALICE}")).text
        row = await scene.store.read(lambda tx: tx.get(Party, ALICE))
        assert row is not None and (row.standing, row.revoked) == (wanted, wanted is Standing.BANNED)
        assert "its losses look odd" in html and f"worker.{wanted}_by_operator" in html
        assert f'action="/workers/{ALICE}/restore"' in html
        assert (await client.post(f"/workers/{ALICE}/{verb}", data=form)).status_code == 409
        await client.post(f"/workers/{ALICE}/restore", data=form)
        row = await scene.store.read(lambda tx: tx.get(Party, ALICE))
        entries = await scene.store.read(lambda tx: tx.find(AuditEntry, order="id"))
    assert row is not None and row.standing is Standing.NORMAL and not row.revoked
    assert {(one.action, one.actor, one.reason) for one in entries} == {
        (f"worker.{verb}", "ada", "its losses look odd"),
        ("worker.restore", "ada", "its losses look odd"),
    }


async def test_the_reference_mark_is_set_and_taken_at_once() -> None:
    scene = await everything()
    async with browser(scene) as client:
        for word, marked in (("yes", True), ("no", False)):
            form = {"csrf": await csrf(scene), "reason": "known machine", "reference": word}
            await client.post(f"/workers/{ALICE}/reference", data=form)
            link = scene.links.get(ALICE)
            assert link is not None and link.reference is marked


async def test_without_a_reason_a_right_or_our_own_form_nothing_is_done() -> None:
    scene = await everything()
    async with browser(scene) as client:
        token = await csrf(scene)
        refused = [
            await client.post(f"/workers/{ALICE}/ban", data={"csrf": token, "reason": " "}),
            await client.post(f"/workers/{ALICE}/ban", data={"csrf": "other", "reason": "x"}),
            await client.post("/workers/nobody/ban", data={"csrf": token, "reason": "x"}),
        ]
        row = await scene.store.read(lambda tx: tx.get(Party, ALICE))
        entries = await scene.store.read(lambda tx: tx.find(AuditEntry))
    assert [one.status_code for one in refused] == [400, 403, 404]
    assert row is not None and row.standing is Standing.NORMAL and entries == []


async def test_a_viewer_sees_everything_and_no_button() -> None:
    scene = await everything()
    async with browser(scene, WebRole.VIEWER) as client:
        html = (await client.get(f"/workers/{ALICE}")).text
        refused = await client.post(f"/workers/{ALICE}/ban", data={"csrf": await csrf(scene), "reason": "x"})
    assert "<bdi>alice</bdi>" in html and 'class="deed' not in html
    assert refused.status_code == 403 and "login.viewer" in refused.text
