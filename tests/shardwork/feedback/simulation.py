"""Simulated annotators: honest ones with planted tastes, and bots; and what the quality rule makes of them.

Seeded: the same seed sits the same way. `Person.press` answers one item as the screen shows it; `sit` runs one person
through hidden, repeated and ordinary items, with `next_kind` and `after` as the coordinator does. Used by tests of
feedback, of the people's side, and by bench/ratings.py.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from shardwork.feedback.quality import Key, Kind, Rules, Seen, Standing, State, after, next_kind
from shardwork.feedback.votes import Order, Vote, Winner

#: others between an item and its repeat
APART = 4


class Habit(StrEnum):
    HONEST = "honest"
    #: any of the four keys
    RANDOM = "random"
    #: left or right
    COIN = "coin"
    LEFT = "left"
    #: their own first key, for ever
    SAME = "same"
    #: that both are bad, whatever is shown
    BOTH_BAD = "both_bad"
    #: the keys that somebody else pressed, in their order
    COPIER = "copier"
    #: any key at once
    HASTY = "hasty"
    #: honest, then random
    TURNED = "turned"


BOTS = tuple(habit for habit in Habit if habit not in (Habit.HONEST, Habit.TURNED))
#: those that must be stopped within 20 items; who tosses a coin takes longer
FOUND_EARLY = tuple(habit for habit in BOTS if habit is not Habit.COIN)
#: honest others who answered each hidden item before
BEFORE = 4


@dataclass(slots=True, kw_only=True)
class Person:
    name: str
    habit: Habit = Habit.HONEST
    #: how often the better answer is named, of ordinary and of hidden items
    accuracy: float = 0.8
    gold_accuracy: float = 0.92
    #: share of answers that are no mistake of sight but left out of haste: too fast by accident
    slips: float = 0.01
    #: a lean to the left where they are wrong, in [0, 1]; 0.5: none
    leans: float = 0.5
    #: items after which who turns bad turns
    turns_at: int = 0
    #: of another, for a copier: presses in order
    copied: Sequence[Winner] = ()
    chance: random.Random = field(default_factory=random.Random)
    #: pressed so far: A is the left answer
    pressed: list[Winner] = field(default_factory=list[Winner])

    def press(self, better: Winner, *, gold: bool) -> Winner:
        """`better`: left (A), right (B), or one of the ties, as the screen has it."""
        key = self._key(better, gold)
        self.pressed.append(key)
        return key

    def is_too_fast(self) -> bool:
        return self.chance.random() < (0.95 if self.habit is Habit.HASTY else self.slips)

    def _key(self, better: Winner, gold: bool) -> Winner:
        match self.habit:
            case Habit.LEFT:
                return Winner.A
            case Habit.SAME:
                return self.pressed[0] if self.pressed else self.chance.choice((Winner.A, Winner.B))
            case Habit.BOTH_BAD:
                return Winner.BOTH_BAD
            case Habit.COIN:
                return self.chance.choice((Winner.A, Winner.B))
            case Habit.COPIER if len(self.pressed) < len(self.copied):
                return self.copied[len(self.pressed)]
            case Habit.RANDOM | Habit.HASTY | Habit.COPIER:
                return self.chance.choice(list(Winner))
            case Habit.TURNED if len(self.pressed) >= self.turns_at:
                return self.chance.choice(list(Winner))
            case _:
                return self._honest(better, gold)

    def _honest(self, better: Winner, gold: bool) -> Winner:
        """Wrong is the other side or a tie, as often."""
        if self.chance.random() < (self.gold_accuracy if gold else self.accuracy):
            return better
        side = Winner.A if self.chance.random() < self.leans else Winner.B
        return self.chance.choice([one for one in (side, Winner.TIE) if one is not better] or [_turned(better)])


def person(name: str, habit: Habit, seed: int, copied: Sequence[Winner] = ()) -> Person:
    """One of the crowd: honest ones are right in 80 to 95 % of ordinary and 92 to 99 % of hidden items."""
    chance = random.Random(f"{seed}/{name}/{habit}")
    return Person(
        name=name,
        habit=habit,
        accuracy=chance.uniform(0.8, 0.95),
        gold_accuracy=chance.uniform(0.92, 0.99),
        copied=copied,
        chance=chance,
    )


def key_of(pressed: Winner) -> Key:
    return {Winner.A: Key.LEFT, Winner.B: Key.RIGHT}.get(pressed, Key.OTHER)


def _turned(winner: Winner) -> Winner:
    """The same answer when the sides are swapped."""
    return {Winner.A: Winner.B, Winner.B: Winner.A}.get(winner, winner)


@dataclass(slots=True, kw_only=True)
class Sat:
    """What came of one person's sitting."""

    standings: list[Standing] = field(default_factory=list[Standing])
    kinds: list[Kind] = field(default_factory=list[Kind])

    @property
    def last(self) -> Standing:
        return self.standings[-1]

    def at(self, items: int) -> State:
        return self.standings[min(items, len(self.standings)) - 1].state


@dataclass(slots=True)
class _Asked:
    """An ordinary item that was shown: which side was better, and what was pressed."""

    at: int
    better: Winner
    pressed: Winner


def sit(
    who: Person,
    items: int,
    rules: Rules,
    others: Mapping[str, Sequence[Winner]] | None = None,
    *,
    broken: float | None = None,
) -> Sat:
    """So many items, or until they are stopped. `others`: what people before them pressed. `broken`: hidden items are
    made by the stage, and so many of them out of answers that are bad themselves."""
    standing, sat, asked = Standing(), Sat(), list[_Asked]()
    for number in range(items):
        old = [one for one in asked if number - one.at > APART]
        can = {Kind.ASK, Kind.GOLD} | ({Kind.REPEAT} if old else set[Kind]())
        kind = next_kind(who.name.encode(), number, standing, rules, can=can)
        better = who.chance.choice((Winner.A, Winner.B))
        repeated = asked.pop(asked.index(who.chance.choice(old))) if kind is Kind.REPEAT else None
        if repeated is not None:
            better = _turned(repeated.better)
        bad = broken is not None and kind is Kind.GOLD and who.chance.random() < broken
        pressed = who.press(Winner.BOTH_BAD if bad else better, gold=kind is Kind.GOLD)
        right: bool | None = None
        unsaid = None
        if kind is Kind.GOLD:
            right = pressed is better
            if broken is not None and key_of(pressed) is Key.OTHER:
                right, unsaid = None, (BEFORE if bad else 0, BEFORE)
        elif repeated is not None:
            right = pressed is _turned(repeated.pressed)
        else:
            asked.append(_Asked(number, better, pressed))
        before = {name: key_of(keys[number]) for name, keys in (others or {}).items() if number < len(keys)}
        seen = Seen(
            kind=kind, right=right, key=key_of(pressed), too_fast=who.is_too_fast(), others=before, unsaid=unsaid
        )
        standing = after(standing, seen, rules)
        sat.standings.append(standing)
        sat.kinds.append(kind)
        if standing.state is State.STOPPED:
            break
    return sat


def strengths(models: int, gap: float = 0.6) -> dict[str, float]:
    """Planted, the first model weakest."""
    return {f"model-{number:02d}": gap * (number - (models - 1) / 2) for number in range(models)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """How votes are drawn: prompts, people on each, and how much people and prompts differ from the mean."""

    prompts: int = 300
    overlap: int = 3
    people: int = 40
    #: deviations, in log-odds, of what one person and what one prompt adds to A's chance
    person_lean: float = 0.0
    prompt_lean: float = 0.0
    ties: float = 0.0
    seed: int = 0


def poll(planted: Mapping[str, float], how: Poll) -> list[Vote]:
    """Votes on random pairs of models by the planted strengths. Leans are towards the model whose name comes first, so
    that votes of one person and of one prompt are alike."""
    chance = random.Random(how.seed)
    leans = [chance.gauss(0, how.person_lean) for _ in range(how.people)]
    votes: list[Vote] = []
    for prompt in range(how.prompts):
        one, other = sorted(chance.sample(sorted(planted), 2))
        ahead = planted[one] - planted[other] + chance.gauss(0, how.prompt_lean)
        for who in chance.sample(range(how.people), how.overlap):
            won = chance.random() < 1 / (1 + math.exp(-ahead - leans[who]))
            winner = Winner.TIE if chance.random() < how.ties else Winner.A if won else Winner.B
            votes.append(vote(f"p{prompt}", one, other, winner, f"w{who}", chance.choice(list(Order))))
    return votes


def vote(item: str, a: str, b: str, winner: Winner, annotator: str, order: Order = Order.AB) -> Vote:
    return Vote(prompt_id=item, item=item, model_a=a, model_b=b, winner=winner, order=order, annotator=annotator)


def campaign(planted: Mapping[str, float], who: Sequence[Person], rules: Rules, items: int) -> tuple[list[Vote], int]:
    """Every person sits `items` items of one stage; votes of those who are stopped don't count. Votes and people kept.

    The better answer of a pair is drawn by the planted strengths, the same for all who see it.
    """
    chance = random.Random("campaign")
    pairs = [_two(planted, chance) for _ in range(len(who) * items // 5)]
    better = [chance.random() < 1 / (1 + math.exp(planted[b] - planted[a])) for a, b in pairs]
    votes: list[Vote] = []
    kept = 0
    pressed: dict[str, list[Winner]] = {}
    for one in who:
        sat = sit(one, items, rules, pressed)
        pressed[one.name] = one.pressed
        if sat.last.state is not State.CLEARED:
            continue
        kept += 1
        for number in chance.sample(range(len(pairs)), sat.kinds.count(Kind.ASK)):
            order = chance.choice(list(Order))
            side = Winner.A if better[number] == (order is Order.AB) else Winner.B
            shown = one.press(side, gold=False)
            votes.append(
                vote(f"i{number}", *pairs[number], shown if order is Order.AB else _turned(shown), one.name, order)
            )
    return votes, kept


def _two(planted: Mapping[str, float], chance: random.Random) -> tuple[str, str]:
    one, other = chance.sample(sorted(planted), 2)
    return one, other


def tau(planted: Mapping[str, float], found: Sequence[str]) -> float:
    """Kendall's, of an order of models, best first, against planted strengths that all differ."""
    pairs = [(one, other) for at, one in enumerate(found) for other in found[at + 1 :]]
    right = sum(planted[one] > planted[other] for one, other in pairs)
    return 2 * right / len(pairs) - 1
