"""Annotators: who is right how often, and what each item's answer is, by Dawid and Skene (1979).

An item has one true answer among those that votes give; each annotator has a table of how often they say what where
what is true. EM finds both at once: who agrees with the others is believed more. Tables and shares have priors
(a MAP estimate), so that one vote convinces nobody and nothing is divided by zero. It starts from the shares of votes,
needs no seed, and stops when answers hardly move. Several votes of one annotator on one item count as one.

50,000 votes of 200 annotators take about two seconds (bench/ratings.py). Called by `consensus` and by reports.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .intervals import Share, wilson
from .votes import Vote, Winner, one_each

#: votes that each annotator is thought to have given before, and how many of them right
PRIOR_VOTES, PRIOR_RIGHT = 4.0, 0.7
#: items of each answer before the first
PRIOR_ITEMS = 1.0
#: rounds at most; and the mean change of an item's probabilities that ends them
STEPS, CLOSE = 60, 2e-4

Pair = tuple[str, int, int]
#: (item, annotator, place of the answer)
_Said = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is most likely true of an item."""

    winner: Winner
    #: posterior probability of it
    confidence: float
    shares: Mapping[Winner, float]
    votes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How often an annotator says what is true; the interval knows their number of votes only."""

    annotator: str
    share: Share
    votes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    answers: Mapping[Pair, Answer]
    annotators: Mapping[str, Accuracy]


def dawid_skene(votes: Iterable[Vote]) -> Found:
    known = one_each(votes)
    if not known:
        return Found(answers={}, annotators={})
    winners = [winner for winner in Winner if any(vote.winner is winner for vote in known)]
    pairs = {pair: at for at, pair in enumerate(dict.fromkeys(vote.pair for vote in known))}
    people = {name: at for at, name in enumerate(sorted({vote.annotator for vote in known}))}
    places = {winner: at for at, winner in enumerate(winners)}
    said = [(pairs[vote.pair], people[vote.annotator], places[vote.winner]) for vote in known]
    model = _Model(len(pairs), len(people), len(winners), said)
    model.run()
    cast = Counter(vote.pair for vote in known)
    return Found(
        answers={pair: _answer(winners, model.belief[at], cast[pair]) for pair, at in pairs.items()},
        annotators={name: model.accuracy(name, at) for name, at in people.items()},
    )


def _answer(winners: Sequence[Winner], belief: Sequence[float], votes: int) -> Answer:
    """Of two equally likely answers it is a tie, so that the names of the sides decide nothing."""
    best = max(belief)
    likely = [winner for winner, share in zip(winners, belief, strict=True) if share > best - 1e-9]
    winner = likely[0] if len(likely) == 1 else Winner.TIE
    return Answer(winner=winner, confidence=best, shares=dict(zip(winners, belief, strict=True)), votes=votes)


class _Model:
    """A cell is an annotator with one answer: person * classes + its place. Sums run over columns, in C: five times
    faster than over votes."""

    def __init__(self, items: int, people: int, classes: int, said: Sequence[_Said]) -> None:
        self.classes = classes
        self.cells_of: list[list[int]] = [[] for _ in range(items)]
        self.items_of: list[list[int]] = [[] for _ in range(people * classes)]
        for item, person, place in said:
            self.cells_of[item].append(person * classes + place)
            self.items_of[person * classes + place].append(item)
        #: item -> probability of each answer
        self.belief = [
            [sum(cell % classes == place for cell in cells) / len(cells) for place in range(classes)]
            for cells in self.cells_of
        ]
        self.prior = [1 / classes] * classes
        #: cell -> by what is true, how probable it is that this annotator says it
        self.table: list[list[float]] = []

    def run(self) -> None:
        for _ in range(STEPS):
            self._learn()
            if self._believe() < CLOSE:
                break
        self._learn()

    def _learn(self) -> None:
        """Tables and shares of answers from what is believed of the items."""
        wrong = PRIOR_VOTES * (1 - PRIOR_RIGHT) / max(self.classes - 1, 1)
        self.table = []
        for first in range(0, len(self.items_of), self.classes):
            counts: list[list[float]] = []
            for place in range(self.classes):
                before = [PRIOR_VOTES * PRIOR_RIGHT if place == true else wrong for true in range(self.classes)]
                believed = [self.belief[item] for item in self.items_of[first + place]]
                counts.append([sum(column) for column in zip(before, *believed, strict=True)])
            self.table += _normalised(counts)
        totals = [PRIOR_ITEMS + math.fsum(column) for column in zip(*self.belief, strict=True)]
        self.prior = [total / math.fsum(totals) for total in totals]

    def _believe(self) -> float:
        """What is true of each item from tables and votes; how far they moved in the mean."""
        logs = [[math.log(value) for value in row] for row in self.table]
        start = [math.log(share) for share in self.prior]
        moved = 0.0
        for item, cells in enumerate(self.cells_of):
            total = [sum(column) for column in zip(start, *[logs[cell] for cell in cells], strict=True)]
            largest = max(total)
            likely = [math.exp(value - largest) for value in total]
            scale = sum(likely)
            belief = [value / scale for value in likely]
            moved += sum(map(_apart, belief, self.belief[item]))
            self.belief[item] = belief
        return moved / len(self.belief)

    def accuracy(self, name: str, at: int) -> Accuracy:
        first = at * self.classes
        votes = sum(map(len, self.items_of[first : first + self.classes]))
        right = math.fsum(share * self.table[first + place][place] for place, share in enumerate(self.prior))
        return Accuracy(annotator=name, share=wilson(right * votes, votes), votes=votes)


def _apart(one: float, other: float) -> float:
    return abs(one - other)


def _normalised(table: list[list[float]]) -> list[list[float]]:
    """Of what is true each column is a distribution over what is said."""
    totals = [math.fsum(column) for column in zip(*table, strict=True)]
    return [[value / total for value, total in zip(row, totals, strict=True)] for row in table]
