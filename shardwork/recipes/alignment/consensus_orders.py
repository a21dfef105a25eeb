"""The order of a consensus stage: what becomes of which votes. Pure data, as `recipes.orders`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...feedback.blending import Conflict
from ...feedback.consensus import Rule
from ..order import Count, Finite, Order, Size, added


class ConsensusOrder(Order):
    """phase "join" of consensus (executor): inputs data, data-1 … (folders of votes.jsonl and items.jsonl) -> outputs
    rows (preferences.jsonl), votes (all of them, about the same items), report (report.json).

    Metrics: votes, unknown, pairs, rows, and where there are: alpha, judge_agrees.
    """

    sources: Size
    rule: Rule
    #: weights of both sides
    people: Finite
    judge: Finite
    conflict: Conflict
    #: preference rows are at least so sure
    least_confidence: Annotated[float, Field(ge=0.5, lt=1)]
    #: what each source cost, and how long its stage took; without: it was planned before anybody asked
    spent_msat: tuple[Count, ...]
    took_ms: tuple[Count, ...] = added(())
