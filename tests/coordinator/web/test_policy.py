"""The page of the rules of the house: what counts and why, changes with a reason, and what is refused."""

from __future__ import annotations

import html
import re

from shardwork_coordinator.policy.rules import rules
from shardwork_coordinator.records import PolicyChange, WebRole

from .till import Browser, Till, browsing


async def change(browser: Browser, name: str, value: str, *, reason: str = "a reason", seen: str = "") -> str:
    """Sends the form as the page has it; the page that follows."""
    page = await browser.get("/policy")
    found = re.search(rf'name="name" value="{name}">\s*<input type="hidden" name="seen" value="([^"]*)"', page)
    assert found is not None
    shown = seen or found[1].replace("&#34;", '"')
    answer = await browser.post("/policy", "/policy/set", name=name, value=value, reason=reason, seen=shown)
    return answer.text


def row_of(page: str, name: str) -> str:
    found = re.search(rf'<tr id="{name}">(.*?)</tr>', page, re.DOTALL)
    assert found is not None
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", found[1].split("<form")[0]).split()))


async def test_every_rule_is_there_with_its_meaning_value_and_origin() -> None:
    till = Till()
    async with browsing(till.app, till.scene) as browser:
        page = await browser.get("/policy")
        for each in rules():
            assert each.meaning in row_of(page, each.name)
        assert row_of(page, "max_open_jobs").endswith("1000 default Change…")
        assert "Nothing was changed." in page and "No model is offered." in page and "lease_ttl_s" in page


async def test_a_change_counts_at_once_and_is_told_with_who_and_why() -> None:
    till = Till()
    async with browsing(till.app, till.scene) as browser:
        page = await change(browser, "fee_basis_points", "150", reason="sale <b>now</b>")
        assert "fee_basis_points is 150 now." in page
        assert "150 default 200 a-operator" in row_of(page, "fee_basis_points") and "<b>now</b>" not in page
        (row,) = await till.scene.store.read(lambda tx: tx.find(PolicyChange))
        assert (row.name, row.old_json, row.new_json, row.actor) == ("fee_basis_points", "200", "150", "a-operator")
        (entry,) = await till.entries()
        assert (entry.action, entry.actor, entry.reason) == ("policy.set", "a-operator", "sale <b>now</b>")
        answer = await browser.post("/policy", "/policy/reset", name="fee_basis_points", reason="over", seen="150")
        assert "fee_basis_points is 200 now." in answer.text
        assert [one.action for one in await till.entries()] == ["policy.set", "policy.reset"]


async def test_a_bad_value_is_refused_with_its_bounds_and_nothing_changes() -> None:
    till = Till()
    async with browsing(till.app, till.scene) as browser:
        assert "a whole number from 0 to 5,000" in await change(browser, "fee_basis_points", "9999")
        assert "policy.no_reason" in await change(browser, "fee_basis_points", "9", reason=" ")
        assert "policy.changed_meanwhile" in await change(browser, "fee_basis_points", "9", seen="7")
        answer = await browser.post("/policy", "/policy/set", name="listen", value="x", reason="x")
        assert answer.status_code == 404 and "policy.unknown_rule" in answer.text
        assert [one.name for one in await till.scene.store.read(lambda tx: tx.find(PolicyChange))] == []


async def test_a_viewer_sees_the_rules_and_can_not_change_them() -> None:
    till = Till()
    async with browsing(till.app, till.scene, WebRole.VIEWER) as browser:
        page = await browser.get("/policy")
        assert "fee_basis_points" in page and "/policy/set" not in page
        token = re.search(r'name="csrf" value="([^"]+)"', await browser.get("/account"))
        assert token is not None
        fields = {"csrf": token[1], "name": "intake", "value": "closed", "reason": "x"}
        answer = await browser.client.post("/policy/set", data=fields)
        assert answer.status_code == 403 and await till.entries() == []
