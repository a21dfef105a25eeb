"""Feedback's mathematics measured: whether planted rankings are found, intervals cover, and bots are stopped in time.

    python bench/ratings.py            # writes bench/results/ratings.json; some minutes on one core

Simulated annotators (tests/shardwork/feedback/simulation.py) sit through hidden, repeated and ordinary items under the
default rules. 2,000 bots of each kind, while 100 honest people pressed keys before them: how many are stopped within 20
items and ever cleared, and within how many items 99 % are stopped. 1,000 honest people of two kinds for 300 items:
*edge*, right in exactly 80 % of ordinary and 92 % of hidden items, each showing of a repeated one a new chance to err;
and *crowd*, 80 to 95 % and 92 to 99 %. Then a campaign of 200 people of whom 60 are bots; intervals against planted
strengths, also where votes of one person and of one prompt are alike; and 50,000 votes of 200 people through every
function.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from shardwork.feedback.agreement import of_winners
from shardwork.feedback.annotators import dawid_skene
from shardwork.feedback.bias import bias
from shardwork.feedback.consensus import Rule, consensus
from shardwork.feedback.quality import Rules, State
from shardwork.feedback.ratings import ELO_MEAN, ELO_SCALE, ratings
from shardwork.feedback.votes import Vote, Winner
from tests.shardwork.feedback.simulation import (
    BOTS,
    Habit,
    Person,
    Poll,
    Sat,
    campaign,
    person,
    poll,
    sit,
    strengths,
    tau,
)

RESULTS = Path(__file__).parent / "results" / "ratings.json"
BOTS_OF_A_KIND, HONEST, BEFORE = 2_000, 1_000, 100
ITEMS, PROBATION, LONG = 300, 20, 80
RULES = Rules()

Keys = Mapping[str, Sequence[Winner]]


def people_before() -> dict[str, list[Winner]]:
    found: dict[str, list[Winner]] = {}
    for number in range(BEFORE):
        who = person(f"before-{number}", Habit.HONEST, 7)
        sit(who, LONG, RULES)
        found[who.name] = who.pressed
    return found


def bots(before: Keys) -> dict[str, object]:
    copied = list(before.values())
    return {
        habit.value: stopped(
            [
                sit(person(f"bot-{number}", habit, 1, copied[number % BEFORE]), LONG, RULES, before)
                for number in range(BOTS_OF_A_KIND)
            ]
        )
        for habit in BOTS
    }


def stopped(sats: Sequence[Sat]) -> dict[str, object]:
    ends = sorted(sat.last.items if sat.last.state is State.STOPPED else LONG + 1 for sat in sats)
    last = ends[math.ceil(0.99 * len(ends)) - 1]
    cleared = sum(any(one.state is State.CLEARED for one in sat.standings) for sat in sats)
    return {
        "bots": len(sats),
        "stopped_within_20_items": share(sats, PROBATION, State.STOPPED),
        "items_until_99_percent_are_stopped": last if last <= LONG else None,
        "median_items": ends[len(ends) // 2],
        "ever_cleared": cleared / len(sats),
    }


def share(sats: Sequence[Sat], items: int, state: State) -> float:
    return sum(sat.at(items) is state for sat in sats) / len(sats)


def honest(before: Keys) -> dict[str, object]:
    def edge(number: int) -> Person:
        return Person(name=f"edge-{number}", chance=random.Random(f"edge {number}"))

    def crowd(number: int) -> Person:
        return person(f"crowd-{number}", Habit.HONEST, 1)

    makers: dict[str, Callable[[int], Person]] = {"edge": edge, "crowd": crowd}
    found: dict[str, object] = {}
    for name, make in makers.items():
        sats = [sit(make(number), ITEMS, RULES, before) for number in range(HONEST)]
        decided = sorted(
            next((one.items for one in sat.standings if one.state is not State.PROBATION), ITEMS) for sat in sats
        )
        found[name] = {
            "people": HONEST,
            "cleared_within_20_items": share(sats, PROBATION, State.CLEARED),
            "stopped_within_300_items": share(sats, ITEMS, State.STOPPED),
            "median_items_until_decided": decided[HONEST // 2],
        }
    return found


def turning() -> dict[str, object]:
    """Honest for 100 items, then any key."""
    delays: list[int] = []
    for number in range(300):
        who = person(f"turning-{number}", Habit.TURNED, 3)
        who.turns_at = 100
        last = sit(who, ITEMS, RULES).last
        if last.items > who.turns_at:
            delays.append(last.items - who.turns_at if last.state is State.STOPPED else ITEMS)
    delays.sort()
    return {"median_items": delays[len(delays) // 2], "items_for_99_percent": delays[math.ceil(0.99 * len(delays)) - 1]}


def planted_ranking() -> dict[str, object]:
    taus: list[float] = []
    kept = 0
    for seed in range(5):
        who = [person(f"honest-{number}", Habit.HONEST, seed) for number in range(140)]
        for number in range(60):
            habit = BOTS[number % len(BOTS)]
            who.append(person(f"bot-{number}", habit, seed, who[number].pressed if habit is Habit.COPIER else ()))
        random.Random(seed).shuffle(who)
        planted = strengths(8)
        votes, kept = campaign(planted, who, RULES, items=60)
        taus.append(tau(planted, [one.model for one in ratings(votes)]))
    return {"models": 8, "people": 200, "bots": 60, "kept_in_the_last": kept, "kendall_tau": taus}


def coverage() -> dict[str, object]:
    found: dict[str, object] = {}
    for models, how in ((5, Poll(prompts=150)), (5, Poll(prompts=40)), (8, Poll(prompts=400, ties=0.0))):
        planted = strengths(models)
        name = f"{models} models, {how.prompts} prompts of {how.overlap} votes"
        found[name] = covered(how, planted, planted, 200)
    for how in (
        Poll(prompts=200, people=20, person_lean=1.0),
        Poll(prompts=200, people=20, prompt_lean=1.0),
        Poll(prompts=200, people=20, person_lean=1.0, prompt_lean=1.0),
    ):
        name = f"2 models, people lean {how.person_lean}, prompts {how.prompt_lean}"
        found[name] = covered(how, strengths(2), marginal(how), 400)
    return found


def covered(how: Poll, planted: Mapping[str, float], true: Mapping[str, float], runs: int) -> float:
    rated = [one for seed in range(runs) for one in ratings(poll(planted, replace(how, seed=seed)))]
    return sum(one.low <= ELO_MEAN + ELO_SCALE * true[one.model] <= one.high for one in rated) / len(rated)


def marginal(how: Poll) -> dict[str, float]:
    """Strengths of two models by their mean chance over people and prompts."""
    chance = random.Random(9)
    lean = math.hypot(how.person_lean, how.prompt_lean)
    mean = sum(1 / (1 + math.exp(0.6 - chance.gauss(0, lean))) for _ in range(200_000)) / 200_000
    half = math.log(mean / (1 - mean)) / 2
    return {"model-00": half, "model-01": -half}


def many_votes() -> list[Vote]:
    return poll(strengths(10), Poll(prompts=10_000, overlap=5, people=200, ties=0.1))


def seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return round(time.process_time() - started, 2)


def timed() -> dict[str, object]:
    votes = many_votes()
    return {
        "votes": len(votes),
        "people": 200,
        "dawid_skene_s": seconds(lambda: dawid_skene(votes)),
        "ratings_s": seconds(lambda: ratings(votes)),
        "alpha_s": seconds(lambda: of_winners(votes)),
        "bias_s": seconds(lambda: bias(votes)),
        "majority_s": seconds(lambda: consensus(votes, Rule.MAJORITY)),
        "bradley_terry_s": seconds(lambda: consensus(votes, Rule.BRADLEY_TERRY)),
    }


def main() -> None:
    before = people_before()
    result = {
        "bots": bots(before),
        "honest": honest(before),
        "turned_bad_after_100_items": turning(),
        "planted_ranking": planted_ranking(),
        "coverage_of_95_percent_intervals": coverage(),
        "cpu_seconds": timed(),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
