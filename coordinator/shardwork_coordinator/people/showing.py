"""Showing: a task as its person's browser gets it; neither what kind of test it is, nor who wrote the answers."""

from __future__ import annotations

from typing import Any

from shardwork.recipes.base import PRACTICE_PHASE

from ..records import Vote
from .items import Item
from .places import Place


def task(vote: Vote, item: Item, place: Place, expires_ms: int) -> dict[str, Any]:
    shown = [int(one) for one in vote.shown.split(",")]
    return {
        "lease": vote.id,
        "number": vote.number,
        "practice": vote.phase == PRACTICE_PHASE,
        "kind": place.params.kind,
        "prompt": item.prompt,
        "answers": [item.answers[position] for position in shown],
        "scores": list(place.params.scores),
        "reasons": list(place.params.reasons),
        "pay_msat": vote.price_msat,
        "least_ms": vote.least_ms,
        "expires_ms": expires_ms,
    }
