"""The pages of money: totals as everywhere, accounts, statements, transfers, payments and what is done to them."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Hold, Move, VoidHold, user_account
from shardwork_coordinator.queueing import standing
from shardwork_coordinator.records import Account, Party, Payout, PayoutState, Standing, WebRole
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.dashboard.money import accounts, export, statement
from shardwork_coordinator.web.dashboard.money.export import plain, written
from shardwork_coordinator.web.server import build

from .scene import HOSTILE_JOB, HOSTILE_WORKER, OWNER, everything
from .till import Browser, Till, browsing


def rows_of(html: str) -> list[str]:
    """The words of each line of the page's table."""
    body = re.search(r"<tbody>(.*?)</tbody>", html, re.DOTALL)
    lines = re.findall(r"<tr.*?</tr>", body[1], re.DOTALL) if body else []
    return [" ".join(re.sub(r"<[^>]+>", " ", line).split()) for line in lines]


async def stuck() -> tuple[Till, str, str]:
    """One payout that failed and one in doubt."""
    till = Till()
    await till.deposit(500)
    failed = await till.earner(1, "alice", "fail@simulated", 40)
    doubt = await till.earner(2, "bob", "lost@simulated", 30)
    await till.sweep()
    return till, f"payout:{failed}/1", f"payout:{doubt}/1"


async def payout(till: Till, name: str) -> Payout:
    found = await till.scene.store.read(lambda tx: tx.get(Payout, name))
    assert found is not None
    return found


# ---- totals and accounts --------------------------------------------------------------------------------------------


async def test_an_empty_coordinator_says_how_money_comes_in() -> None:
    till = Till()
    async with browsing(till.app, till.scene) as browser:
        assert "shardwork wallet deposit SATS" in await browser.get("/money")
        assert "Nothing was moved yet." in await browser.get("/money/transfers")
        assert "Nothing was paid out yet." in await browser.get("/money/payments")


async def test_totals_are_those_of_the_overview_and_the_books_agree_once_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = await everything()
    async with browsing(build(scene.engine), scene) as browser:
        # nobody has to look at the overview first, or to press a button
        monkeypatch.setattr(accounts, "PATIENCE_S", None)
        money = await browser.get("/money")
        assert "add up to zero" in money
        overview = await browser.get("/overview")
        for title in ("In escrow", "Owed to workers", "Paid out", "Fees"):
            pattern = rf"<dt>{title}</dt><dd>([^<]+)</dd>"
            here, there = re.search(pattern, money), re.search(pattern, overview)
            assert here and there and here[1] == there[1], title


async def test_counting_again_compares_with_rows_and_node_and_stands_in_the_audit_log() -> None:
    till = Till()
    await till.deposit(500)
    async with browsing(till.app, till.scene) as browser:
        answer = await browser.post("/money", "/money/check")
        assert "Everything agrees." in answer.text
        assert "confirms 1 of the 1 newest" in answer.text
        # a deposit that no row knows of
        forged = Move(
            id="deposit:nobody",
            debit="external:simulated",
            credit=user_account(OWNER),
            msat=5,
            reason="deposit",
            reference="x",
        )
        await till.scene.put(lambda tx: ledger.apply(tx, forged, 1))
        answer = await browser.post("/money", "/money/check")
        assert "1 differences; they are told below." in answer.text and "books.deposit_differs" in answer.text
        assert [entry.action for entry in await till.entries()] == ["books.check"] * 2


async def test_an_account_that_differs_from_its_transfers_is_told_with_its_story() -> None:
    till = Till()
    await till.deposit(500)
    wrong = Account(id=user_account(OWNER), credits_posted=1)
    await till.scene.put(lambda tx: tx.put(wrong))
    async with browsing(till.app, till.scene) as browser:
        answer = await browser.post("/money", "/money/check")
        assert "ledger.drift" in answer.text and "Close intake" in answer.text


async def test_accounts_are_found_by_kind_and_by_beginning_and_read_page_by_page() -> None:
    till = Till()

    def fill(tx: Transaction) -> None:
        for number in range(accounts.PAGE + 5):
            tx.put(Account(id=f"user:{number:04}", credits_posted=number))
        tx.put(Account(id="worker:0003", credits_posted=9))
        tx.put(Account(id="worker:0003x", credits_posted=9))
        tx.put(Account(id="external:simulated", debits_posted=1503))

    await till.scene.put(fill)

    async def names(query: dict[str, str]) -> list[str]:
        found = await till.scene.store.read(lambda tx: accounts.listed(tx, accounts.Wanted.of(query)))
        return [one.id for one in found.accounts]

    first = await names({"kind": "user"})
    rest = await names({"kind": "user", "after": first[-1]})
    assert (len(first), len(rest)) == (accounts.PAGE, 5) and sorted(first + rest) == first + rest
    assert await names({"q": "0003"}) == ["user:0003", "worker:0003", "worker:0003x"]
    assert await names({"q": "worker:0003"}) == ["worker:0003", "worker:0003x"]
    assert await names({"kind": "worker", "q": "0003"}) == ["worker:0003", "worker:0003x"]
    assert await names({"q": "worker:0003", "after": "worker:0003"}) == ["worker:0003x"]
    assert await names({"kind": "gods", "q": "zeus"}) == []
    till.scene.store.close()


# ---- one account ----------------------------------------------------------------------------------------------------


async def test_a_statement_tells_the_balance_after_each_transfer_on_every_page() -> None:
    till = Till()
    account = user_account(OWNER)

    def fill(tx: Transaction) -> None:
        for number in range(statement.PAGE + 20):
            move = Move(
                id=f"in/{number}", debit="external:simulated", credit=account, msat=10, reason="deposit", reference="x"
            )
            ledger.apply(tx, move, number)
        hold = Hold(id="hold", debit=account, credit="escrow:j", msat=30, reason="escrow", reference="j")
        ledger.apply(tx, hold, 1)
        ledger.apply(tx, VoidHold(hold_id="hold"), 2)
        out = Move(id="out", debit=account, credit="escrow:j", msat=100, reason="escrow", reference="j")
        ledger.apply(tx, out, 3)

    await till.scene.put(fill)
    look = till.scene.store.read
    first = await look(lambda tx: statement.statement(tx, account, 0))
    assert first.balance_msat == 600
    newest = [(one.line.state, one.balance_msat, one.is_credit) for one in first.entries[:4]]
    assert newest == [("posted", 600, False), ("voided", None, False), ("held", None, False), ("posted", 700, True)]
    assert first.entries[0].counterpart == "escrow:j"
    before = int(first.older.rpartition("=")[2])
    second = await look(lambda tx: statement.statement(tx, account, before))
    assert [one.balance_msat for one in second.entries] == list(range(230, 0, -10))
    assert second.older == "" and second.newer == "/money/accounts/user%3A0123456789abcdef"
    till.scene.store.close()


async def test_a_statement_is_reached_by_its_link_and_an_unknown_one_leads_back() -> None:
    till = Till()
    await till.deposit(500)
    async with browsing(till.app, till.scene) as browser:
        link = re.search(r'href="(/money/accounts/user[^"]+)"', await browser.get("/money"))
        assert link is not None
        html = await browser.get(link[1])
        assert rows_of(html)[0].startswith("1 deposit") and "+500 sat 500 sat" in rows_of(html)[0]
        assert "account.unknown" in await browser.get("/money/accounts/user:nobody", 404)


# ---- transfers ------------------------------------------------------------------------------------------------------


async def test_transfers_are_filtered_paged_and_told_apart() -> None:
    till, _, _ = await stuck()
    async with browsing(till.app, till.scene) as browser:
        everything_ = rows_of(await browser.get("/money/transfers"))
        assert len(everything_) == 6
        held = rows_of(await browser.get("/money/transfers?reason=payout&kind=pending"))
        assert [("held voided in" in line, "pending" in line) for line in held] == [(False, True), (True, False)]
        assert rows_of(await browser.get("/money/transfers?before=2"))[0].startswith("1 deposit")
        # what makes no sense is left out
        assert len(rows_of(await browser.get("/money/transfers?reason=%27&kind=x&before=-1"))) == 6
        assert "No such transfer." in await browser.get("/money/transfers?reason=refund")


async def test_the_export_keeps_the_filter_and_no_cell_is_computed() -> None:
    till = Till()

    def fill(tx: Transaction) -> None:
        for number in range(2_500):
            move = Move(
                id=f"=cmd|{number}",
                debit="external:simulated",
                credit="user:@x",
                msat=1,
                reason="deposit",
                reference="+1",
            )
            ledger.apply(tx, move, number)

    await till.scene.put(fill)
    async with browsing(till.app, till.scene) as browser:
        answer = await browser.client.get("/money/transfers.csv?reason=deposit")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="shardwork-transfers.csv"'
        lines = list(csv.DictReader(io.StringIO(answer.text)))
        assert [int(line["sequence"]) for line in lines] == list(range(2_500, 0, -1))
        assert (lines[0]["id"], lines[0]["reference"], lines[0]["msat"]) == ("'=cmd|2499", "'+1", "1")
        below = (await browser.client.get("/money/transfers.csv?before=3")).text
        assert [line["sequence"] for line in csv.DictReader(io.StringIO(below))] == ["2", "1"]
        assert len((await browser.client.get("/money/transfers.csv?reason=refund")).text.splitlines()) == 1


async def test_an_export_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MOST_ROWS", 1)
    till, _, _ = await stuck()
    async with browsing(till.app, till.scene) as browser:
        assert len((await browser.client.get("/money/transfers.csv")).text.splitlines()) == 2


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@sum", "\tx", "\rx", "\nx"])
def test_a_cell_that_a_spreadsheet_would_compute_is_plain(cell: str) -> None:
    assert plain(cell) == f"'{cell}"
    assert next(csv.reader(io.StringIO(written([[cell, -5, "a,b", 'q"']]), newline=""))) == [
        f"'{cell}",
        "-5",
        "a,b",
        'q"',
    ]


# ---- payments -------------------------------------------------------------------------------------------------------


async def test_payments_stand_under_their_state_with_their_reason() -> None:
    till, failed, doubt = await stuck()
    withdrawal = await till.withdraw(20, "ok@simulated")
    async with browsing(till.app, till.scene) as browser:
        html = await browser.get("/money/payments")
        tabs = dict(re.findall(r'>([a-z ]+) <span class="tabular">(\d+)</span>', html))
        assert tabs == {"out": "3", "open": "2", "unknown": "1", "failed": "1", "settled": "0", "deposits in": "1"}
        html = await browser.get("/money/payments?state=failed")
        assert failed in html and "Pay out again" in html and "Ask the node now" not in html
        html = await browser.get("/money/payments?state=unknown")
        assert doubt in html and "payout.unknown" in html and "Ask the node now" in html and "Pay out again" not in html
        assert "stuck" in html
        html = await browser.get("/money/payments?state=open")
        assert withdrawal in html and "withdrawal of" in html
        assert "500 sat" in rows_of(await browser.get("/money/payments?state=deposits"))[0]
        lines = list(csv.DictReader(io.StringIO((await browser.client.get("/money/payments.csv?state=failed")).text)))
        assert [line["id"] for line in lines] == [failed]


async def test_each_payment_says_where_its_sats_are_and_what_comes_next() -> None:
    till, _, _ = await stuck()
    held = await till.earner(3, "carol", "deaf@simulated", 20)
    await till.earner(4, "dan", "hang@simulated", 20)
    await till.sweep()
    await till.withdraw(20, "fail@simulated")
    await till.sweep()
    await till.scene.put(lambda tx: standing.change(tx, held, Standing.QUARANTINED, "looks odd"))
    async with browsing(till.app, till.scene) as browser:
        failed = await browser.get("/money/payments?state=failed")
        assert "60 min after this another payout begins by itself" in failed and "back in their wallet" in failed
        assert "up to" not in failed
        doubt = await browser.get("/money/payments?state=unknown")
        assert "stay held until the node knows" in doubt
        under_way = await browser.get("/money/payments?state=open")
        assert (
            "has not said yet how it ended" in under_way and "Its worker is quarantined: nothing is sent" in under_way
        )


async def test_an_alert_of_a_payment_in_doubt_leads_to_it() -> None:
    till, _, doubt = await stuck()
    till.scene.clock.advance(3_600)
    async with browsing(till.app, till.scene) as browser:
        found = re.search(r'<a href="(/money/payments[^"]*)" id="alert', await browser.get("/overview"))
        assert found is not None and doubt in await browser.get(found[1])


async def test_a_failed_payout_can_be_tried_again_whatever_its_key_withdrew_since() -> None:
    till, failed, _ = await stuck()
    owner = (await payout(till, failed)).owner
    row = await payout(till, failed)

    def withdraw(tx: Transaction) -> None:
        for number in range(6):
            name, later_ms = f"withdrawal:{owner}/{number}", row.created_ms + 1 + number
            tx.put(replace(row, id=name, payment_hash=None, created_ms=later_ms))

    await till.scene.put(withdraw)
    async with browsing(till.app, till.scene) as browser:
        page = await browser.get("/money/payments?state=failed")
        assert page.count("Pay out again") == 1 and "Another payout came after it." not in page


async def test_asking_takes_a_payment_on_and_never_sends_it_again() -> None:
    till = Till()
    worker = await till.earner(1, "alice", "unknown@simulated", 40)
    await till.sweep()
    name = f"payout:{worker}/1"
    async with browsing(till.app, till.scene) as browser:
        for _ in range(2):
            await browser.post("/money/payments", "/money/payments/ask", id=name, reason="its owner asks")
        answer = await browser.post("/money/payments", "/money/payments/ask", id=name, reason="its owner asks")
        assert f"The node was asked: {name} is settled." in answer.text
        assert list(till.payments.settled_msat.values()) == [(await payout(till, name)).msat]
        entries = await till.entries()
        assert {(one.action, one.subject, one.reason) for one in entries} == {("payout.ask", name, "its owner asks")}


async def test_a_failed_payout_is_tried_again_as_another_one_and_once() -> None:
    till, failed, _ = await stuck()
    async with browsing(till.app, till.scene) as browser:
        action, page = "/money/payments/retry", "/money/payments?state=failed"
        answer = await browser.post(page, action, id=failed, reason="the address works now")
        assert "A new payout of 38 sat to fail@simulated is under way." in answer.text
        second = await payout(till, failed.replace("/1", "/2"))
        assert (second.state, (await payout(till, failed)).state) == (PayoutState.CREATED, PayoutState.FAILED)
        again = await browser.client.post(action, data={"csrf": await csrf(browser), "id": failed, "reason": "x"})
        assert again.status_code == 409 and "payout.under_way" in again.text
        assert [one.action for one in await till.entries()] == ["payout.retry"]
        assert await till.scene.store.read(lambda tx: ledger.check(tx).balanced)


async def csrf(browser: Browser) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', await browser.get("/money"))
    assert found is not None
    return found[1]


async def test_what_may_not_be_tried_again_is_refused_and_changes_nothing() -> None:
    till, failed, doubt = await stuck()
    withdrawal = await till.withdraw(20, "fail@simulated")
    await till.sweep()
    cases = [
        ({"id": doubt, "reason": "x"}, 409, "payout.not_failed"),
        ({"id": withdrawal, "reason": "x"}, 409, "payout.owners_choice"),
        ({"id": "payout:nobody/1", "reason": "x"}, 404, "payout.unknown_id"),
        ({"id": failed, "reason": " "}, 400, "payout.no_reason"),
    ]
    async with browsing(till.app, till.scene) as browser:
        token = await csrf(browser)
        for fields, status, code in cases:
            answer = await browser.client.post("/money/payments/retry", data={"csrf": token, **fields})
            assert (answer.status_code, code in answer.text) == (status, True), code
        assert await till.entries() == []
        party = replace(await party_of(till, failed), revoked=True)
        await till.scene.put(lambda tx: tx.put(party))
        answer = await browser.client.post("/money/payments/retry", data={"csrf": token, "id": failed, "reason": "x"})
        assert answer.status_code == 403 and "payout.revoked" in answer.text


async def party_of(till: Till, name: str) -> Party:
    owner = (await payout(till, name)).owner
    found = await till.scene.store.read(lambda tx: tx.get(Party, owner))
    assert found is not None
    return found


async def test_a_viewer_sees_money_and_does_nothing() -> None:
    till, failed, _ = await stuck()
    async with browsing(till.app, till.scene, WebRole.VIEWER) as browser:
        html = await browser.get("/money/payments?state=failed")
        assert failed in html and "<form method" not in html.split("<main", 1)[1]
        assert (await browser.client.get("/money/transfers.csv")).status_code == 200


async def test_strangers_names_stay_text() -> None:
    scene = await everything()
    async with browsing(build(scene.engine), scene) as browser:
        for path in ("/money", "/money?kind=escrow", "/money/transfers", "/money?q=<script>alert(1)</script>"):
            html = await browser.get(path)
            assert HOSTILE_JOB not in html and HOSTILE_WORKER not in html and "<script>alert" not in html


async def test_the_last_page_of_payments_is_reached() -> None:
    till = Till()

    def fill(tx: Transaction) -> None:
        for number in range(120):
            tx.put(
                Payout(
                    id=f"payout:x/{number:03}",
                    owner="x",
                    address="x@simulated",
                    msat=1_000,
                    fee_limit_msat=1,
                    state=PayoutState.SETTLED,
                    # one sweep makes many in one millisecond
                    created_ms=7,
                    updated_ms=7,
                )
            )

    await till.scene.put(fill)
    seen: set[str] = set()
    async with browsing(till.app, till.scene) as browser:
        path = "/money/payments"
        while path:
            html = await browser.get(path)
            seen |= set(re.findall(r"payout:x/\d+", html))
            older = re.search(r'href="([^"]+)" rel="next"', html)
            path = older[1] if older else ""
    assert len(seen) == 120
