"""Standing: whether a person's votes count in a stage, and what they are asked next.

    standing = Standing()                                             # who comes new
    kind = next_kind(secret, number, standing, rules, can={...})      # number: 0, 1, 2 … of this person's tasks
    standing = after(standing, Seen(kind=kind, right=True, key=Key.LEFT), rules)
    standing.state                                                    # probation -> cleared | stopped -> …

A `Standing` is all that is kept of a person, a few numbers as JSON; `after` is called once for every answer that can't
be taken back any more, in order. Practice items are none of its business. Pure; chance comes from the caller's secret.
Called by the coordinator's people side and by simulated annotators.

Four tests run side by side, each a running log-likelihood ratio between somebody who looks and one kind who does not:

- *wrong*: hidden items and repeated ones are answered as by chance. Until it is decided this is Wald's sequential test
  (1945), cut off after 20 items: what then speaks rather for chance is stopped, little doubt is enough to be cleared.
  Afterwards it is Page's cumulative sum (1954), which forgets what spoke for somebody, so that who turns bad is found.
  A hidden item that the stage made itself refutes a side, but not that both are bad: no side speaks against somebody
  as far as others do name one there, and never for them.
- *pattern*: the side of the answer before, again. *haste*: less time than reading takes. *copy*: the keys that another
  person pressed before. Cumulative sums from the first item on.

Of annotators who are right in 92 % of hidden items and 80 % of others, at least 95 % are cleared within 20 items and
fewer than 2 % stopped within 300; of those who press any key, one key, another's keys, or too fast, 99 % are stopped
within 20 (bench/ratings.py measures it). Who tosses a coin between left and right, and never says tie, is right half of
the time. No test tells that from 92 % with errors below 1 and 2 % in fewer than 19 hidden items (Neyman and Pearson
1933), so 20 items stop most of them, not 99 %.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any


class Kind(StrEnum):
    """What an item is to the coordinator; a person can't tell."""

    ASK = "ask"
    GOLD = "gold"
    REPEAT = "repeat"


class Key(StrEnum):
    """What was pressed, as the screen had it."""

    LEFT = "left"
    RIGHT = "right"
    #: a tie, both bad, or an answer of another kind: no side
    OTHER = "other"


class State(StrEnum):
    PROBATION = "probation"
    CLEARED = "cleared"
    STOPPED = "stopped"


class Cause(StrEnum):
    """Which test stopped somebody."""

    NONE = ""
    WRONG = "wrong"
    PATTERN = "pattern"
    HASTE = "haste"
    COPY = "copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One answer, as the coordinator saw it."""

    kind: Kind
    #: gold: as it is known; repeat: as the first time, though the sides were swapped; None: it tells nothing
    right: bool | None = None
    key: Key = Key.OTHER
    #: in less than the least time of this item
    too_fast: bool = False
    #: annotator -> key that they had pressed before at their item of this number; who is not compared is left out
    others: Mapping[str, Key] = field(default_factory=dict[str, Key])
    #: where a hidden item does not refute that no side was named: how many others named none either, of how many
    unsaid: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the tests assume and when they decide. The defaults are what was measured."""

    #: share of hidden and of repeated items in the long run, 0: there are none
    gold_share: float = 0.1
    repeat_share: float = 0.1
    #: the same until somebody is cleared, and while they are suspected
    early_gold_share: float = 0.75
    early_repeat_share: float = 0.15
    #: how often somebody who looks is right at least, and who does not look at most, at hidden items
    gold_right: float = 0.92
    gold_chance: float = 0.45
    #: and how often they answer as the first time
    same_right: float = 0.7
    same_chance: float = 0.45
    #: items until the probation should be over
    probation_items: int = 20


#: log-likelihood ratios that end a probation: against somebody, or for them, and less of either from its last items on
STOP, STOP_LATE, CLEAR, CLEAR_LATE, LATE = 6.5, 0.0, 6.2, 3.0, 0.8
#: when it passes these after they were cleared they are stopped, or asked more hidden items
STOP_LATER, SUSPECT = 7.5, 3.0
#: of the other tests
STOP_PATTERN, STOP_HASTE, STOP_COPY = 10.0, 11.0, 13.0
#: the same side as before: who always does it, and who looks but leans to one side
STICKS, LEANS = 0.97, 0.6
#: too fast: who always is, and who sometimes presses a key by mistake
HURRIES, SLIPS = 0.8, 0.05
#: nobody is cleared who never pressed the other side, whatever luck they had, and who did not is stopped after so many
BOTH_SIDES, SIDED = 2, 12
#: copied keys are as the other's but for slips; those of two who look are the same by chance
COPIES, CHANCE = 0.97, 0.5
#: copies are looked for among so many first items
COPY_ITEMS = 60
#: somebody who does not look names no side at a hidden item that often; who looks, before others are known, and as how
#: many others that counts
SHRUGS, SHRUG, SHRUG_OF = 0.5, 0.3, 2
#: items whose kinds are laid out at once, so that shares are kept exactly
BLOCK = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of one person in one stage."""

    state: State = State.PROBATION
    cause: Cause = Cause.NONE
    #: answered
    items: int = 0
    golds: int = 0
    golds_right: int = 0
    repeats: int = 0
    repeats_same: int = 0
    #: hidden items at which they named no side, and might be right
    unsaid: int = 0
    hasty: int = 0
    lefts: int = 0
    rights: int = 0
    #: item at which the state became what it is; 0: from the start
    since: int = 0
    #: log-likelihood ratios against them
    wrong: float = 0.0
    pattern: float = 0.0
    haste: float = 0.0
    #: annotator -> ratio for having copied them, where it is above 0
    copy: Mapping[str, float] = field(default_factory=dict[str, float])
    #: the last key with a side
    last: Key = Key.OTHER

    @classmethod
    def of(cls, text: str) -> Standing:
        """From `to_json`; nothing is known of an empty object."""
        known: dict[str, Any] = json.loads(text)
        enums: dict[str, Any] = {"state": State, "cause": Cause, "last": Key}
        return cls(**(known | {name: kind(known[name]) for name, kind in enums.items() if name in known}))

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def suspected(self) -> bool:
        return self.state is State.CLEARED and self.wrong >= SUSPECT


def after(known: Standing, seen: Seen, rules: Rules | None = None) -> Standing:
    """The standing with one more answer. Who is stopped stays stopped."""
    if known.state is State.STOPPED:
        return known
    rules = rules or Rules()
    check = _check(seen, rules)
    now = replace(
        _counted(known, seen),
        wrong=known.wrong + check.by_chance
        if known.state is State.PROBATION
        else max(0.0, known.wrong + check.by_chance),
        haste=max(0.0, known.haste + _ratio(seen.too_fast, HURRIES, SLIPS)),
        pattern=_pattern(known, seen, check),
        copy=_copies(known, seen, check),
        last=known.last if seen.key is Key.OTHER else seen.key,
    )
    return _decided(now, rules)


def _counted(known: Standing, seen: Seen) -> Standing:
    tells = seen.right is not None
    gold, repeat = tells and seen.kind is Kind.GOLD, tells and seen.kind is Kind.REPEAT
    return replace(
        known,
        items=known.items + 1,
        golds=known.golds + gold,
        golds_right=known.golds_right + (gold and seen.right is True),
        repeats=known.repeats + repeat,
        repeats_same=known.repeats_same + (repeat and seen.right is True),
        unsaid=known.unsaid + (seen.unsaid is not None),
        hasty=known.hasty + seen.too_fast,
        lefts=known.lefts + (seen.key is Key.LEFT),
        rights=known.rights + (seen.key is Key.RIGHT),
    )


@dataclass(frozen=True, slots=True)
class _Check:
    """What a hidden or repeated item says against somebody, as log-likelihood ratios."""

    #: that they answer by chance
    by_chance: float = 0.0
    #: that a side was chosen for another reason than the item: then both outcomes are as likely
    by_side: float = 0.0


def _check(seen: Seen, rules: Rules) -> _Check:
    if seen.unsaid is not None:
        named_none, others = seen.unsaid
        share = (named_none + SHRUG_OF * SHRUG) / (others + SHRUG_OF)
        return _Check(by_chance=max(0.0, math.log(SHRUGS / share)))
    if seen.right is None or seen.kind is Kind.ASK:
        return _Check()
    gold = seen.kind is Kind.GOLD
    looks, chance = (rules.gold_right, rules.gold_chance) if gold else (rules.same_right, rules.same_chance)
    return _Check(_ratio(seen.right, chance, looks), _ratio(seen.right, 0.5, looks))


def _ratio(happened: bool, against: float, for_: float) -> float:
    return math.log(against / for_) if happened else math.log((1 - against) / (1 - for_))


def _pattern(known: Standing, seen: Seen, check: _Check) -> float:
    if seen.key is Key.OTHER or known.last is Key.OTHER:
        return known.pattern
    return max(0.0, known.pattern + _ratio(seen.key is known.last, STICKS, LEANS) + check.by_side)


def _copies(known: Standing, seen: Seen, check: _Check) -> dict[str, float]:
    """Only those who still may have been copied are kept; a key without a side tells nothing."""
    if known.items >= COPY_ITEMS:
        return {}
    if seen.key is Key.OTHER:
        return dict(known.copy)
    scores = dict(known.copy)
    for other, key in seen.others.items():
        if key is not Key.OTHER:
            scores[other] = scores.get(other, 0.0) + _ratio(key is seen.key, COPIES, CHANCE) + check.by_side
    return {other: score for other, score in scores.items() if score > 0}


def _decided(now: Standing, rules: Rules) -> Standing:
    cause = _cause(now, rules)
    if cause is not Cause.NONE:
        return replace(now, state=State.STOPPED, cause=cause, since=now.items)
    if now.state is State.PROBATION and _is_clear(now, rules):
        return replace(now, state=State.CLEARED, since=now.items, wrong=0.0)
    return now


def _cause(now: Standing, rules: Rules) -> Cause:
    tests = now.golds + now.repeats
    tried = now.items >= rules.probation_items and tests >= rules.probation_items // 2
    over = now.state is State.PROBATION and tried
    if now.haste >= STOP_HASTE:
        return Cause.HASTE
    if now.pattern >= STOP_PATTERN or (over and now.lefts + now.rights >= SIDED and _is_one_sided(now)):
        return Cause.PATTERN
    if _copied(now) >= (STOP_COPY / 2 if over else STOP_COPY):
        return Cause.COPY
    bound = STOP_LATER if now.state is State.CLEARED else STOP_LATE if over else STOP
    return Cause.WRONG if tests and now.wrong >= bound else Cause.NONE


def _is_one_sided(now: Standing) -> bool:
    return now.lefts + now.rights > 0 and min(now.lefts, now.rights) < BOTH_SIDES


def _copied(now: Standing) -> float:
    return max(now.copy.values(), default=0.0)


def _is_clear(now: Standing, rules: Rules) -> bool:
    """Who is suspected otherwise must wait. Nothing is tested where nothing can be."""
    doubt = max(now.pattern / STOP_PATTERN, now.haste / STOP_HASTE, _copied(now) / STOP_COPY)
    if _is_one_sided(now) or doubt >= 0.5:
        return False
    if rules.gold_share == 0 and rules.repeat_share == 0:
        return True
    late = now.items >= LATE * rules.probation_items
    return -now.wrong >= (CLEAR_LATE if late else CLEAR)


def last_word(known: Standing) -> State:
    """When nothing is left to test somebody with who is in probation: the likelier of the two. Who was tested and never
    named a side gave nothing that speaks for them."""
    if known.state is not State.PROBATION:
        return known.state
    mute = known.unsaid > 0 and known.wrong >= 0
    return State.STOPPED if known.wrong > 0 or mute else State.CLEARED


def next_kind(
    secret: bytes, number: int, known: Standing, rules: Rules | None = None, *, can: Collection[Kind] = tuple(Kind)
) -> Kind:
    """What this person's task `number` (from 0) is to be; `can`: what there is for them just now.

    The secret is one of this person and stage. Kinds are laid out for 20 items at once, shuffled, so that shares hold
    exactly and nobody can foretell them. Where the kind isn't to be had, somebody who is being tested gets the other
    test, everybody else an ordinary item.
    """
    rules = rules or Rules()
    tested = known.state is State.PROBATION or known.suspected
    wish = _plan(secret, number // BLOCK, tested, rules)[number % BLOCK]
    other = Kind.REPEAT if wish is Kind.GOLD else Kind.GOLD
    wishes = (wish, other, *Kind) if tested and wish is not Kind.ASK else (wish, *Kind)
    return next((one for one in wishes if one in can), Kind.ASK)


def _plan(secret: bytes, block: int, tested: bool, rules: Rules) -> list[Kind]:
    """Kinds of 20 items."""
    digest = blake2b(secret + f"/{block}/{tested:d}".encode(), digest_size=16).digest()
    chance = random.Random(int.from_bytes(digest, "big"))
    gold_share, repeat_share = _shares(rules, tested)
    golds = _rounded(BLOCK * gold_share, chance)
    repeats = min(_rounded(BLOCK * repeat_share, chance), BLOCK - golds)
    kinds = [Kind.GOLD] * golds + [Kind.REPEAT] * repeats + [Kind.ASK] * (BLOCK - golds - repeats)
    chance.shuffle(kinds)
    return _repeats_last(kinds) if tested and block == 0 else kinds


def _repeats_last(kinds: list[Kind]) -> list[Kind]:
    """Of the places of ordinary and repeated items the later ones are repeats: nothing can be repeated before."""
    places = [at for at, kind in enumerate(kinds) if kind is not Kind.GOLD]
    ordered = sorted((kinds[at] for at in places), key=lambda kind: kind is Kind.REPEAT)
    moved = dict(zip(places, ordered, strict=True))
    return [moved.get(at, kind) for at, kind in enumerate(kinds)]


def _shares(rules: Rules, tested: bool) -> tuple[float, float]:
    """Of hidden and of repeated items. Where a stage has only one of the two, it stands in for both in a test; each
    repeat needs an ordinary item before it."""
    late = rules.gold_share, rules.repeat_share
    if not tested or late == (0, 0):
        return late
    early = rules.early_gold_share, rules.early_repeat_share
    if not rules.repeat_share:
        early = sum(early), 0.0
    elif not rules.gold_share:
        early = 0.0, min(sum(early), 0.45)
    return max(early[0], late[0]), max(early[1], late[1])


def _rounded(wanted: float, chance: random.Random) -> int:
    """To a whole number, so that the mean is exact."""
    return min(math.floor(wanted + chance.random()), BLOCK)
