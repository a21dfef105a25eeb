"""Panel: a stage that asks people, on its job's page. Numbers are `people.progress`'s; owns what is said of them.

Which of two answers is longer is read from the stage's items beforehand, outside of the read of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardwork.client.display import figures
from shardwork.jobs.spec import StageSpec

from ....people.items import Longer
from ....people.progress import people_progress
from ....records import Stage
from ....store.base import Transaction

#: people that the page lists, the latest ones
MOST_PEOPLE = 100
#: of Krippendorff's alpha: from here on conclusions hold, or hold for now (Krippendorff 2004, chapter 11)
RELIABLE, TENTATIVE = 0.8, 0.667
CAUSES = {
    "wrong": "wrong at hidden or repeated items",
    "pattern": "always the same key",
    "haste": "faster than anybody reads",
    "copy": "copied somebody else",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    stage: str
    state: str
    #: as `people.progress` tells
    told: Mapping[str, Any]
    people: Sequence[Mapping[str, Any]]
    agreement: str
    biases: Sequence[str]
    #: where people answer, behind the web address
    link: str
    #: of the link, where the stage has one: for who may act
    invitation: str


def panels(tx: Transaction, stages: Sequence[Stage], now_ms: int, known: Longer) -> list[Panel]:
    found: list[Panel] = []
    for stage in stages:
        told = people_progress(tx, stage, now_ms, known.get(stage.name, ()))
        if told:
            found.append(_panel(stage, told))
    return found


def _panel(stage: Stage, told: Mapping[str, Any]) -> Panel:
    people: Sequence[Mapping[str, Any]] = told["people"]
    params = StageSpec.model_validate_json(stage.spec_json).params
    return Panel(
        stage=stage.name,
        state=str(stage.state),
        told=told,
        people=people[::-1][:MOST_PEOPLE],
        agreement=_agreement(told["agreement_alpha"]),
        biases=_biases(told["bias"]),
        link=f"/people#{stage.job_id}/{stage.name}",
        invitation=str(params.get("invitation") or ""),
    )


def left(told: Mapping[str, Any]) -> str:
    """How much is to be done, and until when, where that can be said."""
    answers, seconds = told["votes_left"], told["seconds_left"]
    if not answers:
        return "no answer is needed any more"
    needed = f"{figures.count(answers)} {'answer is' if answers == 1 else 'answers are'} needed"
    if seconds is None:
        return f"{needed}; too few came lately to say until when"
    return f"{needed}: about {figures.duration(seconds)} at the pace of the last 10 minutes"


def _agreement(alpha: float | None) -> str:
    if alpha is None:
        return "agreement is not known yet: nothing was judged by two people, or everything alike"
    if alpha >= RELIABLE:
        return "people agree: what they say together can be relied on"
    if alpha >= TENTATIVE:
        return "people agree on most: conclusions are tentative"
    return "people agree little: the guideline may leave too much open, or the answers are too much alike"


def _biases(told: Mapping[str, Any]) -> list[str]:
    """A sentence for each that is known."""
    sentences: list[str] = []
    if told["shown_first"] is not None:
        low, high = told["shown_first_interval"]
        lean = "which is more than" if low > 0.5 else "which is less than" if high < 0.5 else "as from"
        share = _share(told["shown_first"], low, high)
        sentences.append(f"The answer shown first was chosen {share}, {lean} chance: orders are drawn.")
    if told["longer"] is not None:
        low, high = told["longer_interval"]
        words = "Longer ones win; they may be better." if low > 0.5 else "Length alone does not win."
        sentences.append(f"The longer answer was chosen {_share(told['longer'], low, high)}. {words}")
    return sentences


def _share(value: float, low: float, high: float) -> str:
    return f"{100 * value:.0f} % of the time ({100 * low:.0f} to {100 * high:.0f} %)"
