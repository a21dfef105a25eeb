"""Consensus: the votes on each pair of answers -> one verdict, by the rule that the job chose; and rows to learn from.

    majority        more than half of the votes; confidence is their share
    unanimous       all votes the same; confidence 1
    dawid_skene     the likeliest answer where annotators are believed as they deserve; confidence is its posterior
    bradley_terry   strengths of the answers to one item by all its votes, also between others; confidence is the
                    modelled chance of winning

A pair without a winner, by the rule or because it is a tie or both are bad, makes no row. Called by the executor's join
of people, judge and consensus stages, and by `blending`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .annotators import dawid_skene
from .ratings import chance, fit
from .votes import Origin, Vote, Winner, one_each

Pair = tuple[str, int, int]


class Rule(StrEnum):
    MAJORITY = "majority"
    UNANIMOUS = "unanimous"
    DAWID_SKENE = "dawid_skene"
    BRADLEY_TERRY = "bradley_terry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the votes on one pair of answers say together."""

    item: str
    prompt_id: str
    answer_a: int
    answer_b: int
    model_a: str
    model_b: str
    #: None: the rule finds none
    winner: Winner | None
    #: that the winner is right; 0 where there is none
    confidence: float
    votes: int

    @property
    def pair(self) -> Pair:
        return self.item, self.answer_a, self.answer_b

    @property
    def is_preference(self) -> bool:
        return self.winner in (Winner.A, Winner.B)

    @property
    def share_a(self) -> float:
        """How much speaks for A: 0.5 where nothing is preferred."""
        if not self.is_preference:
            return 0.5
        return self.confidence if self.winner is Winner.A else 1 - self.confidence

    @property
    def positions(self) -> tuple[int, int]:
        """Of the chosen and the rejected answer. Only of a preference."""
        return (self.answer_a, self.answer_b) if self.winner is Winner.A else (self.answer_b, self.answer_a)

    def row(self, prompt: object, answers: Sequence[str]) -> dict[str, Any]:
        """A line of preferences.jsonl. Only of a preference; `answers`: all of the item's, by position."""
        chosen, rejected = self.positions
        return {
            "prompt": prompt,
            "chosen": answers[chosen],
            "rejected": answers[rejected],
            "prompt_id": self.prompt_id,
            "confidence": self.confidence,
            "votes": self.votes,
        }


def consensus(votes: Iterable[Vote], rule: Rule) -> list[Verdict]:
    """A verdict for each pair that somebody voted on, sorted by item. One annotator has one vote on a pair."""
    known = one_each(votes)
    on: defaultdict[Pair, list[Vote]] = defaultdict(list)
    for vote in known:
        on[vote.pair].append(vote)
    decided = _RULES[rule](on)
    return [_verdict(cast, *decided[pair]) for pair, cast in on.items()]


#: a winner or none, and how sure it is
Decision = tuple[Winner | None, float]


def _verdict(cast: Sequence[Vote], winner: Winner | None, confidence: float) -> Verdict:
    one = cast[0]
    return Verdict(
        item=one.item,
        prompt_id=one.prompt_id,
        answer_a=one.answer_a,
        answer_b=one.answer_b,
        model_a=one.model_a,
        model_b=one.model_b,
        winner=winner,
        confidence=confidence,
        votes=len(cast),
    )


def _majority(on: Mapping[Pair, Sequence[Vote]]) -> dict[Pair, Decision]:
    return {pair: _most(cast) for pair, cast in on.items()}


def _most(cast: Sequence[Vote]) -> Decision:
    winner, most = Counter(vote.winner for vote in cast).most_common(1)[0]
    if most * 2 <= len(cast):
        return None, 0.0
    return winner, math.fsum(_sureness(vote) for vote in cast if vote.winner is winner) / len(cast)


def _sureness(vote: Vote) -> float:
    """A judge may say how sure it is of its one vote; a person's word is taken whole."""
    return vote.confidence if vote.source is Origin.JUDGE and vote.confidence is not None else 1.0


def _unanimous(on: Mapping[Pair, Sequence[Vote]]) -> dict[Pair, Decision]:
    said = {pair: {vote.winner for vote in cast} for pair, cast in on.items()}
    return {pair: (next(iter(winners)), 1.0) if len(winners) == 1 else (None, 0.0) for pair, winners in said.items()}


def _dawid_skene(on: Mapping[Pair, Sequence[Vote]]) -> dict[Pair, Decision]:
    found = dawid_skene(vote for cast in on.values() for vote in cast)
    return {pair: (answer.winner, answer.confidence) for pair, answer in found.answers.items()}


def _bradley_terry(on: Mapping[Pair, Sequence[Vote]]) -> dict[Pair, Decision]:
    """The answers to one item are the players; a pair can be decided by what both did against a third."""
    items: defaultdict[str, list[Vote]] = defaultdict(list)
    for cast in on.values():
        for vote in cast:
            items[vote.item].append(vote)
    strengths = {item: _strengths(cast) for item, cast in items.items()}
    return {pair: _stronger(strengths[pair[0]], pair) for pair in on}


def _strengths(cast: Sequence[Vote]) -> dict[str, float]:
    wins: defaultdict[tuple[str, str], float] = defaultdict(float)
    for vote in cast:
        wins[str(vote.answer_a), str(vote.answer_b)] += vote.share_a
        wins[str(vote.answer_b), str(vote.answer_a)] += 1 - vote.share_a
    return fit(sorted({name for pair in wins for name in pair}), wins)


def _stronger(strengths: Mapping[str, float], pair: Pair) -> Decision:
    ahead = strengths[str(pair[1])] - strengths[str(pair[2])]
    if abs(ahead) < 1e-9:
        return Winner.TIE, 0.5
    return (Winner.A if ahead > 0 else Winner.B), chance(abs(ahead))


_RULES: Mapping[Rule, Callable[[Mapping[Pair, Sequence[Vote]]], dict[Pair, Decision]]] = {
    Rule.MAJORITY: _majority,
    Rule.UNANIMOUS: _unanimous,
    Rule.DAWID_SKENE: _dawid_skene,
    Rule.BRADLEY_TERRY: _bradley_terry,
}
