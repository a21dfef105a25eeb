# pyright: standard
"""What the coordinator's own rows and files say at the end: votes, payments, standings, ranking. No key is believed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardwork.feedback.ratings import ratings
from shardwork.feedback.votes import read
from tests.e2e.world import World
from tests.shardwork.feedback.simulation import FOUND_EARLY, Habit, tau

EARLY = 20


def payments(world: World, job: str) -> dict[str, Any]:
    """Each accepted vote and how often it was paid, by the ledger."""
    votes = world.rows("select shard_id, replica, state, phase, price_msat, annotator from vote where job_id = ?", job)
    holds = world.rows("select id, credit, msat from transfer where id like 'pay/%' and credit like 'worker:%'")
    posted = Counter(name for (name,) in world.rows("select resolves from transfer where kind = 'post'"))
    held = {name: (credit, msat) for name, credit, msat in holds}
    paid_names = {name: posted[name] for name in held if posted[name]}
    accepted = [vote for vote in votes if vote[2] == "paid"]
    earned: Counter[str] = Counter()
    for _, _, _, _, msat, party in accepted:
        earned[f"worker:{party}"] += msat
    got: Counter[str] = Counter()
    for name in paid_names:
        got[held[name][0]] += held[name][1]
    return {
        "votes": dict(sorted(Counter(f"{phase} {state}" for _, _, state, phase, _, _ in votes).items())),
        "accepted": len(accepted),
        "payments": sum(paid_names.values()),
        "votes_paid_twice": sum(count > 1 for count in paid_names.values()),
        "people_with_another_sum_than_they_earned": sum(got[name] != earned[name] for name in got | earned),
        "paid_msat": got.total(),
    }


def standings(world: World, job: str) -> dict[str, Any]:
    """By habit, of which everybody's name tells."""
    rows = world.rows("select party, state, evidence_json from annotator where job_id = ?", job)
    known = {party: (state, json.loads(evidence or "{}")) for party, state, evidence in rows}
    paid: Counter[str] = Counter()
    votes: Counter[str] = Counter()
    for party, msat in world.rows("select annotator, price_msat from vote where job_id = ? and state = 'paid'", job):
        paid[party] += msat
        votes[party] += 1
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for party, name in world.rows("select id, name from party where name like '%-%'"):
        state, evidence = known.get(party, ("never came", {}))
        habit = name.partition("-")[0]
        told = found[habit]
        told["people"] += 1
        told["paid_msat"] += paid[party]
        told["paid_votes"] += votes[party]
        told[_word(state, evidence, habit)] += 1
    return {habit: dict(told) for habit, told in sorted(found.items())}


def _word(state: str, evidence: Mapping[str, Any], habit: str) -> str:
    if state != "stopped" or habit == Habit.HONEST:
        return state
    return f"stopped_within_{EARLY}" if evidence.get("since", 0) <= EARLY else "stopped_later"


def ranking(votes: Path, planted: Mapping[str, float]) -> dict[str, Any]:
    with votes.open(encoding="utf-8") as lines:
        read_votes = list(read(lines, votes.name))
    rated = ratings(read_votes)
    return {"votes": len(read_votes), "kendall_tau": tau(planted, [one.model for one in rated]),
            "elo": {one.model: round(one.elo) for one in rated}}  # fmt: skip


def claims(found: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Who tosses a coin between left and right is no part of them: `feedback.quality` says why 20 items stop most of
    those, not all; their figures are in `standings`."""
    money, people = found["payments"], found["standings"]
    bots = [told for habit, told in people.items() if habit in FOUND_EARLY]
    honest = people[Habit.HONEST.value]
    stopped = all(told.get(f"stopped_within_{EARLY}", 0) == told["people"] for told in bots)
    return [
        ("each accepted vote has one payment", money["accepted"] == money["payments"]),
        ("no vote is paid twice", money["votes_paid_twice"] == 0),
        ("everybody got what their votes earned", money["people_with_another_sum_than_they_earned"] == 0),
        ("the same call again had the same answer", not found["differing"]),
        ("planted ranking: tau >= 0.95", found["ranking"]["kendall_tau"] >= 0.95),
        (f"all bots but coins are stopped within {EARLY} items", stopped),
        ("none of them is paid", all(told["paid_msat"] == 0 for told in bots)),
        ("of honest people at most 2 % are stopped", honest.get("stopped", 0) <= 0.02 * honest["people"]),
        ("the books balance", found["books"]["balanced"]),
    ]
