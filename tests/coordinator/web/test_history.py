"""The audit log's page: every entry with its reason and evidence, found by who, what and to what, and exported."""

from __future__ import annotations

import csv
import io
import re

from shardwork_coordinator.accounts import audit
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.dashboard import history

from .till import Till, browsing


async def filled(count: int = 0) -> Till:
    """One deed of each sort, and as many more."""
    till = Till()
    deeds = [
        ("ada", audit.Deed(action="worker.ban", subject="00ff", sentence="It went.", reason="<i>lies</i>")),
        ("bob", audit.Deed(action="policy.set", subject="keep_days", sentence="Now 3.", evidence={"old": "7"})),
        ("bob", audit.Deed(action="job.cancel", subject="=job1", sentence="It ended.")),
        *[("cy", audit.Deed(action="user.sign_in", subject="cy", sentence="In.")) for _ in range(count)],
    ]

    def fill(tx: Transaction) -> None:
        for number, (actor, deed) in enumerate(deeds):
            audit.enter(tx, deed, actor, number + 1)

    await till.scene.put(fill)
    return till


def subjects(html: str) -> list[str]:
    return re.findall(r'data-label="Subject">(?:<a [^>]*>)?<bdi>([^<]*)</bdi>', html)


async def test_entries_are_newest_first_with_reason_evidence_and_links() -> None:
    till = await filled()
    async with browsing(till.app, till.scene) as browser:
        html = await browser.get("/audit")
        assert subjects(html) == ["=job1", "keep_days", "00ff"]
        assert 'href="/policy#keep_days"' in html and 'href="/workers/00ff"' in html
        # no link is made of what is no id
        assert 'href="/jobs/=job1"' not in html
        assert "&lt;i&gt;lies&lt;/i&gt;" in html and "<dt>old</dt><dd>7</dd>" in html


async def test_filters_and_pages_find_every_entry_once() -> None:
    till = await filled(history.PAGE + 7)
    async with browsing(till.app, till.scene) as browser:
        assert subjects(await browser.get("/audit?actor=bob")) == ["=job1", "keep_days"]
        assert subjects(await browser.get("/audit?actor=bob&action=policy.set")) == ["keep_days"]
        assert subjects(await browser.get("/audit?subject=00ff")) == ["00ff"]
        assert "No such entry." in await browser.get("/audit?subject=nobody")
        html = await browser.get("/audit?actor=cy")
        older = re.search(r'href="([^"]+)" rel="next"', html)
        assert older is not None and len(subjects(html)) == history.PAGE
        assert len(subjects(await browser.get(older[1].replace("&amp;", "&")))) == 7


async def test_the_export_keeps_the_filter_and_no_cell_is_computed() -> None:
    till = await filled(3)
    async with browsing(till.app, till.scene) as browser:
        answer = await browser.client.get("/audit.csv?actor=bob")
        assert answer.headers["content-disposition"] == 'attachment; filename="shardwork-audit.csv"'
        lines = list(csv.DictReader(io.StringIO(answer.text)))
        assert [(line["action"], line["subject"]) for line in lines] == [
            ("job.cancel", "'=job1"),
            ("policy.set", "keep_days"),
        ]


async def test_an_empty_log_says_what_will_stand_there() -> None:
    till = Till()
    async with browsing(till.app, till.scene) as browser:
        assert "Nothing yet." in await browser.get("/audit")
