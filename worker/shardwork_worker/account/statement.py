"""The statement: what each shard earned or why not, each payment with its hash, and totals that are those of `status`.

Pure: made from the coordinator's ledger, which decides what was paid, and from the book, which knows what was not. JSON
keys and CSV columns are a contract.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardwork.errors import InvalidInput
from shardwork.money import show
from shardwork.why import Why

from ..status import why_from_json, why_to_json
from .asking import Balance, Transfer
from .book import Fate, Line

#: reasons of ledger lines: a shard's pay, and earnings on their way out
SHARD, PAYOUT, POSTED = "shard", "payout", "posted"
#: a payout of earnings; the same key's withdrawals as a requester are named otherwise
PAYOUT_ID = "payout:"
COLUMNS = ("type", "time", "id", "kind", "state", "msat", "payment_hash", "code", "reason")
SPAN = re.compile(r"(\d+)\s*([hdw])")
SPAN_S = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
#: shards that people see unless they say since when
MOST_SHOWN = 20
#: evidence of a result that waits for a second worker
ALONE_AFTER = "without_a_second_after_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earning:
    """One shard."""

    lease_id: str
    at_ms: int
    #: recipe and phase; empty where the book does not know it
    kind: str
    state: Fate
    #: paid, or what it would pay
    msat: int
    why: Why | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    shards: Sequence[Earning]
    payments: Sequence[Transfer]
    #: None: the coordinator did not answer, and all is from the book
    balance: Balance | None
    pending_msat: int

    def to_json(self) -> dict[str, Any]:
        balance, paid = self.balance, sum(one.msat for one in self.shards if one.state is Fate.PAID)
        return {
            "from": "ledger" if balance else "book",
            "asset": balance.asset if balance else "",
            "earned_msat": {
                "paid": balance.earned_msat if balance else paid,
                "pending": self.pending_msat,
                "held": balance.held_msat if balance else 0,
            },
            "paid_out_msat": balance.paid_out_msat if balance else None,
            "available_msat": balance.available_msat if balance else None,
            "listed_paid_msat": paid,
            "shards": [_shard(one) for one in self.shards],
            "payments": [_payment(one) for one in self.payments],
        }


def since(text: str, now_s: float) -> int:
    """Milliseconds of "2026-11-27", "2026-11-27 18:00", "24h", "7d" or "2w" ago.

    Raises InvalidInput "earnings.since"."""
    if found := SPAN.fullmatch(text.strip()):
        return int((now_s - int(found[1]) * SPAN_S[found[2]]) * 1000)
    for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"):
        try:
            return int(time.mktime(time.strptime(text.strip(), form)) * 1000)
        except ValueError:
            continue
    raise InvalidInput(
        "earnings.since",
        f"{text[:40]!r} is no day and no span.",
        next_step="Give --since 2026-11-27, 24h, 7d or 2w.",
    )


def statement(
    lines: Sequence[Line], transfers: Sequence[Transfer] | None, balance: Balance | None, *, since_ms: int = 0
) -> Statement:
    """Every shard once, newest first: paid as the ledger says, the others as the book says."""
    in_book = {line.lease_id: line for line in lines}
    # a hold is there while a shard is in hand; it is voided when that comes to nothing
    posted = [one for one in transfers or () if one.kind == SHARD and one.state == POSTED and one.msat > 0]
    paid = [_paid(one, in_book.get(one.reference)) for one in posted]
    known = {one.lease_id for one in paid}
    # without the ledger, the book's own word on what was paid is all there is
    rest = [
        _in_book(line)
        for line in lines
        if line.lease_id not in known and (line.state is not Fate.PAID or transfers is None or not line.paid_msat)
    ]
    shards = sorted((*paid, *rest), key=lambda one: one.at_ms, reverse=True)
    payments = [one for one in transfers or () if one.kind == PAYOUT and one.id.startswith(PAYOUT_ID)]
    return Statement(
        shards=[one for one in shards if one.at_ms >= since_ms],
        payments=[one for one in payments if one.at_ms >= since_ms],
        balance=balance,
        pending_msat=sum(line.price_msat for line in lines if line.state is Fate.PENDING),
    )


def as_csv(answer: Mapping[str, Any]) -> str:
    """One line a shard and a payment, for a spreadsheet or a tax form."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for kind, lines in (("shard", answer["shards"]), ("payment", answer["payments"])):
        for line in lines:
            why = line["why"] or {"code": "", "sentence": ""}
            named = "" if kind == "payment" else line["kind"]
            cells = (line["time"], line["id"], named, line["state"], line["msat"], line["payment_hash"])
            writer.writerow((kind, *map(_cell, cells), _cell(why["code"]), _cell(why["sentence"])))
    return text.getvalue()


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula stays a text: a coordinator said it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def readable(answer: Mapping[str, Any], *, most: int | None = MOST_SHOWN) -> str:
    return "\n".join(_readable(answer, most))


def _readable(answer: Mapping[str, Any], most: int | None) -> Iterator[str]:
    earned = answer["earned_msat"]
    yield f"earned  {show(earned['paid'])} paid, {show(earned['pending'])} pending, {show(earned['held'])} held"
    if answer["paid_out_msat"] is not None:
        yield f"payout  {show(answer['paid_out_msat'])} paid out, {show(answer['available_msat'])} at the coordinator"
    if answer["asset"] == "simulated":
        yield "        SIMULATED SATS: play money of this coordinator."
    for line in answer["payments"]:
        where = f"  payment hash {line['payment_hash']}" if line["payment_hash"] else ""
        yield f"{line['time']}  payout {line['state']}  {show(-line['msat'])}{where}{_because(line)}"
    shown = answer["shards"] if most is None else answer["shards"][:most]
    for line in shown:
        yield f"{line['time']}  {line['word']}  {show(line['msat'])}  {line['id']}{_because(line)}"
    if len(shown) < len(answer["shards"]):
        yield f"… and {len(answer['shards']) - len(shown):,} earlier shards: --since 2026-01-01, or --csv"


def _because(line: Mapping[str, Any]) -> str:
    return f"  {why_from_json(line['why']).sentence}" if line["why"] else ""


def _shard(one: Earning) -> dict[str, Any]:
    return {
        "id": one.lease_id,
        "time": _time(one.at_ms),
        "at_unix_ms": one.at_ms,
        "kind": one.kind,
        "state": one.state.value,
        "word": _word(one),
        "msat": one.msat,
        "payment_hash": "",
        "why": why_to_json(one.why),
    }


def _payment(one: Transfer) -> dict[str, Any]:
    return {
        "id": one.id,
        "time": _time(one.at_ms),
        "at_unix_ms": one.at_ms,
        "state": one.payout_state or one.state,
        "msat": one.msat,
        "payment_hash": one.payment_hash,
        "why": why_to_json(one.why),
    }


def _word(one: Earning) -> str:
    """Paid, rejected, or pending until when."""
    match one.state:
        case Fate.PENDING:
            after_s = one.why.evidence.get(ALONE_AFTER, "") if one.why is not None else ""
            if not after_s:
                return "pending until the coordinator's verdict"
            at = time.strftime("%H:%M:%S", time.localtime(one.at_ms / 1000 + float(after_s)))
            return f"pending until a second worker agrees, or {at} if there is none"
        case Fate.REJECTED:
            return "rejected"
        case Fate.PAID:
            return "paid"
        case _:
            return f"not paid ({one.state.value.replace('_', ' ')})"


def _paid(one: Transfer, line: Line | None) -> Earning:
    kind = f"{line.recipe} {line.phase}" if line is not None else ""
    return Earning(lease_id=one.reference, at_ms=one.at_ms, kind=kind, state=Fate.PAID, msat=one.msat, why=None)


def _in_book(line: Line) -> Earning:
    return Earning(
        lease_id=line.lease_id,
        at_ms=line.at_ms,
        kind=f"{line.recipe} {line.phase}",
        state=line.state,
        msat=line.paid_msat if line.state is Fate.PAID else line.price_msat,
        why=line.why,
    )


def _time(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))
