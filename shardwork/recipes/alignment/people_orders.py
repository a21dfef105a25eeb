"""Orders of a people stage: what the executor cuts into items, what one item asks, what becomes of the votes.

Pure data, as `recipes.orders`. An item's text is in the stage's artifact `items`; an order names it by number only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..order import Count, Order, Size

Kind = Literal["compare", "rank", "score", "review"]
Consensus = Literal["majority", "unanimous", "dawid_skene", "bradley_terry"]


class ItemsOrder(Order):
    """phase "split" (executor): inputs data -> output items: `items.jsonl`, a line for each item in the order they are
    asked and then those whose answer is known, and `index.json` {"items", "golds", "offsets": [bytes, one more],
    "longer": [0 | 1 | -1]}: of two answers, which has more letters.

    Metrics: items, golds, letters (mean of an item's text), rows.
    """

    kind: Kind
    #: answers shown together
    answers: Size
    #: comparisons drawn from the answers of one prompt
    pairs_per_prompt: Size
    #: no more are asked
    most_items: Count
    seed: str
    #: comparisons with a known answer are made where no row has one
    makes_golds: bool = False


class AskOrder(Order):
    """phases "ask", "repeat", "gold" and "practice": one item, put to people over the web."""

    item: Count


class VotesOrder(Order):
    """phase "join" (executor): inputs items, votes -> outputs votes (`votes.jsonl`), rows (`preferences.jsonl`, or the
    rows that a review kept).

    The input `votes` is one file `votes.jsonl` of what was accepted: {"item", "annotator", "shown": [positions],
    "answer": {..}, "scores"?, "reasons"?, "comment"?, "ms", "job"}, the answer in the item's own order.
    """

    kind: Kind
    consensus: Consensus
    job_id: str
    #: scales of 1 to 5 that were asked beside the answer
    scores: tuple[Annotated[str, Field(max_length=40)], ...] = ()
