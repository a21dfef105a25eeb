"""Pooling: votes of several stages, made to be about the same answers.

Stages number their items each in their own way, and draw which answer is A. What votes were about stands beside them
(`items.jsonl`); here an item is a prompt and an answer its words, so that people and a judge who compared the same two
answers meet. Called by the recipe consensus, by exports and by reports.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ..errors import InvalidInput
from .votes import Order, Vote, Winner

_OTHER_WINNER = {Winner.A: Winner.B, Winner.B: Winner.A}
_OTHER_ORDER = {Order.AB: Order.BA, Order.BA: Order.AB}

Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt, and answers by the positions that votes name."""

    prompt_id: str
    prompt: Prompt
    texts: tuple[str, ...]


#: by their votes' `item`
Items = Mapping[str, Item]


@dataclass(frozen=True, slots=True)
class Pool:
    #: sorted by nothing: in the order of their sources
    votes: Sequence[Vote]
    items: Items
    #: votes whose answers are not known, or are equal words; they are not among `votes`
    unknown: Sequence[Vote]

    def lengths(self) -> dict[tuple[str, int, int], tuple[int, int]]:
        """Letters of both answers of each pair that was voted on."""
        texts = {vote.pair: self.items[vote.item].texts for vote in self.votes}
        return {pair: (len(of[pair[1]]), len(of[pair[2]])) for pair, of in texts.items()}


def read_items(lines: Iterable[str], file: str) -> Iterator[tuple[str, Item]]:
    """Of an `items.jsonl`. Raises InvalidInput "votes.bad_item"."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt: Any = row["prompt"]
            texts = tuple(answer["text"] for answer in row["answers"])
            good = _is_prompt(prompt) and all(isinstance(text, str) for text in texts)
            found = str(row["item"]), Item(str(row.get("prompt_id", "")), prompt, texts)
        except (ValueError, TypeError, LookupError, RecursionError):
            good, found = False, ("", Item("", "", ()))
        if not good:
            raise InvalidInput(
                "votes.bad_item",
                "The row is no item with a prompt and answers.",
                next_step="Use the items.jsonl that was written with the votes.",
                file=file,
                line=number,
            )
        yield found


def pooled(sources: Iterable[tuple[Iterable[Vote], Items]]) -> Pool:
    known: list[tuple[Vote, str, str, str]] = []
    unknown: list[Vote] = []
    names: dict[str, str] = {}
    prompts: dict[str, Prompt] = {}
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for votes, items in sources:
        for vote in votes:
            item = items.get(vote.item)
            both = _texts(vote, item)
            if item is None or both is None:
                unknown.append(vote)
                continue
            key = _key(item.prompt)
            names.setdefault(key, vote.prompt_id)
            prompts.setdefault(key, item.prompt)
            texts[key].update(both)
            known.append((vote, key, *both))
    # which answer is A must say nothing about it
    order = {key: sorted(each, key=_digest) for key, each in texts.items()}
    place = {key: {text: at for at, text in enumerate(each)} for key, each in order.items()}
    return Pool(
        votes=[_moved(vote, key, names[key], place[key][a], place[key][b]) for vote, key, a, b in known],
        items={key: Item(names[key], prompts[key], tuple(each)) for key, each in order.items()},
        unknown=unknown,
    )


def one_of_each_judge(votes: Iterable[Vote]) -> list[Vote]:
    """A judge that was asked in both orders has one vote, as sure as both are in the mean; none where it flipped."""
    asked: defaultdict[tuple[tuple[str, int, int], str], list[Vote]] = defaultdict(list)
    for vote in votes:
        asked[vote.pair, vote.annotator].append(vote)
    found: list[Vote] = []
    for cast_votes in asked.values():
        sure = [vote.confidence for vote in cast_votes if vote.confidence is not None]
        if len({vote.winner for vote in cast_votes}) == 1:
            found.append(replace(cast_votes[0], confidence=sum(sure) / len(sure) if sure else None))
    return found


# ---- inside -------------------------------------------------------------------------------------------------------


def _is_prompt(value: object) -> bool:
    """Text, or messages."""
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(one, dict) for one in cast("list[object]", value))
    )


def _texts(vote: Vote, item: Item | None) -> tuple[str, str] | None:
    """What both answers say, the same words being one answer; None where there is nothing to choose between."""
    if item is None or max(vote.answer_a, vote.answer_b) >= len(item.texts):
        return None
    a, b = item.texts[vote.answer_a].strip(), item.texts[vote.answer_b].strip()
    return None if a == b else (a, b)


def _key(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return _digest(prompt.strip())
    turns = [f"{turn.get('role', '')}: {turn.get('content') or ''}" for turn in prompt]
    return _digest("\n\n".join(turns))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12, person=b"shardwork pool").hexdigest()


def _moved(vote: Vote, item: str, prompt_id: str, a: int, b: int) -> Vote:
    """The vote as one on this item, the answer of the lower position being A. A ranking's positions mean no more."""
    moved = replace(vote, item=item, prompt_id=prompt_id, answer_a=a, answer_b=b, ranking=())
    if a < b:
        return moved
    return replace(
        moved,
        answer_a=b,
        answer_b=a,
        model_a=vote.model_b,
        model_b=vote.model_a,
        winner=_OTHER_WINNER.get(vote.winner, vote.winner),
        order=_OTHER_ORDER[vote.order],
        scores={name: each[::-1] if len(each) == 2 else each for name, each in vote.scores.items()},
    )
