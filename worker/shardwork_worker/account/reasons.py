"""Why there is no work, why something is not paid, why the worker rests: every reason that `why` gives.

Pure: made from the book, the figures and what the coordinator said last. The agent calls it while a worker runs, the
command when none does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shardwork.money import show
from shardwork.why import Why

from ..limits.guard import CODES as LIMITED
from ..refusals import OWNERS
from ..status import hanging, why_from_json, why_to_json
from .book import Book, Fate, Line
from .payee import Payee

#: shards of one kind that are told one by one; more are counted
MOST_OF_A_KIND = 5
#: how far back rejections and returned shards are told
LOOK_BACK_MS = 24 * 3600 * 1000
NOTHING_TO_DO = "Nothing to do."


class About(StrEnum):
    #: why there is, or is no, work
    WORK = "work"
    #: why its owner's own word keeps work away
    LIMIT = "limit"
    #: why something is not paid, or not paid out
    PAY = "pay"


#: how each kind is headed for people
HEADS = {About.WORK: "work", About.LIMIT: "limit", About.PAY: "pay"}
#: said of shards that earn nothing
UNPAID = {
    Fate.REJECTED: "was rejected and is not paid",
    Fate.FAILED: "could not be finished here and is not paid",
    Fate.LOST: "was taken back before its verdict and is not paid",
}


@dataclass(frozen=True, slots=True)
class Reason:
    about: About
    why: Why

    def to_json(self) -> dict[str, Any]:
        return {"about": self.about.value, **(why_to_json(self.why) or {})}


def from_book(book: Book, now_ms: int, payee: Payee | None = None) -> list[Reason]:
    """What the book and the coordinator's figures explain: offers that were given back, shards that are not paid, sats
    that are not paid out."""
    recent = book.since(now_ms - LOOK_BACK_MS)
    # that the owner paused or stopped it once explains nothing now
    own = [code for code in OWNERS if code != LIMITED]
    given_back = [one for one in recent if one.state is Fate.GIVEN_BACK and not (one.why and one.why.code in own)]
    returned = [Reason(About.WORK, why) for why in _returned(given_back)]
    waiting = [Reason(About.PAY, _waits(line)) for line in book.pending()[:MOST_OF_A_KIND]]
    unpaid = [line for line in recent if line.state in UNPAID]
    refused = [Reason(About.PAY, _unpaid(line)) for line in unpaid[:MOST_OF_A_KIND]]
    return [*returned, *waiting, *refused, *(Reason(About.PAY, why) for why in _payout(payee))]


def readable(answer: Mapping[str, Any]) -> str:
    """A block for people from the JSON form: the reason, then what to do, each behind what it is about."""
    lines = [hanging("state   ", str(answer["state"]))]
    for reason in answer["reasons"]:
        why = why_from_json(reason)
        facts = ", ".join(f"{name}: {value}" for name, value in why.evidence.items())
        text = f"{why.sentence} [{why.code}]" + (f" ({facts})" if facts else "")
        lines.append(hanging(f"{HEADS[About(reason['about'])]:<8}", text))
        if why.next_step and why.next_step != NOTHING_TO_DO:
            lines.append(hanging("  next  ", why.next_step))
    return "\n".join(lines)


def _returned(lines: Sequence[Line]) -> Iterator[Why]:
    """Offers and shards that were given back within a day, by reason."""
    by_code: dict[str, list[Line]] = {}
    for line in lines:
        by_code.setdefault(line.why.code if line.why else "worker.gave_back", []).append(line)
    for code, same in by_code.items():
        last = same[0].why
        shards = "1 shard was" if len(same) == 1 else f"{len(same)} shards were"
        yield Why(
            code=code,
            sentence=f"{shards} given back within a day; the last because: {last.sentence if last else 'unknown.'}",
            evidence={"last": same[0].lease_id, "at": _time(same[0].at_ms), **(dict(last.evidence) if last else {})},
            next_step=last.next_step if last else "",
        )


def _waits(line: Line) -> Why:
    said = line.why
    return Why(
        code=said.code if said else "result.pending",
        sentence=f"{show(line.price_msat)} for {line.lease_id} are pending: "
        + (said.sentence if said else "the coordinator has not judged it yet."),
        evidence={"handed_in": _time(line.at_ms), **(dict(said.evidence) if said else {})},
        next_step=said.next_step if said else "Nothing to do: the verdict is asked for at each connection.",
    )


def _unpaid(line: Line) -> Why:
    said = line.why
    return Why(
        code=said.code if said else f"result.{line.state.value}",
        sentence=f"{line.lease_id} {UNPAID[line.state]}: {said.sentence if said else 'no reason was given.'}",
        evidence={"at": _time(line.at_ms), "price": show(line.price_msat), **(dict(said.evidence) if said else {})},
        next_step=(said.next_step if said else "") or "See: shardwork-worker earnings",
    )


def _payout(payee: Payee | None) -> Iterator[Why]:
    if payee is None or payee.available_msat <= 0:
        return
    earned = show(payee.available_msat)
    if not payee.address:
        yield Why(
            code="pay.no_address",
            sentence=f"{earned} stay at the coordinator, because no payout address is set.",
            evidence={"available": earned},
            next_step="Start the worker once with --payout NAME@DOMAIN.",
        )
    elif payee.available_msat < payee.threshold_msat:
        yield Why(
            code="pay.below_threshold",
            sentence=f"{earned} wait at the coordinator until they are {show(payee.threshold_msat)}.",
            evidence={"available": earned, "threshold": show(payee.threshold_msat), "address": payee.address},
            next_step="Nothing to do: the payout starts by itself then.",
        )
    else:
        yield Why(
            code="pay.on_its_way",
            sentence=f"{earned} are due to be paid out.",
            evidence={"available": earned, "address": payee.address},
            next_step="See how far payouts are: shardwork-worker earnings",
        )
    if payee.asset == "simulated":
        yield Why(
            code="pay.simulated",
            sentence="This coordinator's sats are simulated: none of them is real.",
            next_step="Nothing to do, if you joined it to try it.",
        )


def _time(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))
