"""Progress: a stage that asks people, in numbers: how far it is, who judged and how well, its cost; and why it waits.

One read for its owner, the operator's dashboard and every `--json`. Words from rows; decides nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from shardwork.recipes.base import ASK_PHASE
from shardwork.why import Why

from ..records import Annotator, AnnotatorState, Job, Round, Shard, ShardState, Stage, Vote, VoteState
from ..store.base import Transaction
from . import places, trust

#: who was heard of in this time is there now
HERE_MS = 10 * 60_000
#: votes that agreement and bias are computed from: the newest
MOST_VOTES = 50_000


def people_progress(tx: Transaction, stage: Stage, now_ms: int) -> dict[str, Any]:
    """Empty for a stage that asks nobody, or has not counted its items."""
    place = places.read(stage)
    if place is None:
        return {}
    key: dict[str, Any] = {"job_id": stage.job_id, "stage": stage.name}
    people = tx.find(Annotator, **key, order="number")
    columns = ("annotator", "position", "phase", "state", "answer_json", "shown", "price_msat", "ms")
    counted = (VoteState.CAST, VoteState.HELD, VoteState.PAID, VoteState.REJECTED)
    votes = tx.pick(Vote, columns, **key, state=counted, order="given_ms", descending=True, limit=MOST_VOTES)
    shards = tx.count(Shard, "state", **key, phase=ASK_PHASE)
    by_state: dict[str, int] = defaultdict(int)
    for row in votes:
        by_state[str(row[3])] += row[6]
    return {
        "kind": place.params.kind,
        "items": place.asked,
        "items_done": shards.get(ShardState.DONE, 0),
        "overlap": place.params.overlap,
        "hidden": place.golds,
        "votes": {str(state): sum(1 for row in votes if row[3] == state) for state in counted},
        "paid_msat": by_state[VoteState.PAID],
        "held_msat": by_state[VoteState.HELD] + by_state[VoteState.CAST],
        "annotators": {str(state): sum(1 for one in people if one.state is state) for state in AnnotatorState},
        "here": sum(1 for one in people if one.last_ms + HERE_MS >= now_ms),
        "agreement_alpha": _alpha([row for row in votes if row[2] == ASK_PHASE and row[3] != VoteState.REJECTED]),
        "bias": _bias([row for row in votes if row[3] != VoteState.REJECTED]),
        "people": [_person(one) for one in people],
    }


def why_people(tx: Transaction, job: Job, round_: Round) -> Why:
    """What the phase that people answer waits for: for `job why`."""
    key: dict[str, Any] = {"job_id": job.id, "stage": round_.stage}
    people = tx.find(Annotator, **key)
    shards = tx.count(Shard, "state", **key, phase=ASK_PHASE)
    votes = tx.count(Vote, "state", **key)
    held = votes.get(VoteState.HELD, 0) + votes.get(VoteState.CAST, 0)
    where = {
        "stage": round_.stage,
        "items_left": str(round_.shards_left),
        "free": str(shards.get(ShardState.READY, 0)),
        "annotators": str(len(people)),
        "held": str(held),
    }
    link = f"/people#{job.id}/{round_.stage}"
    if votes.get(VoteState.GIVEN, 0):
        return Why(
            code="people.answering",
            sentence=f"{votes[VoteState.GIVEN]} people have a task now; {round_.shards_left} items are left.",
            evidence=where,
            next_step="Nothing to do: `shardwork job watch ID` follows it.",
        )
    if not people:
        return Why(
            code="people.nobody",
            sentence=f"Nobody has come to answer yet; {round_.shards_left} items wait for people, and no worker can do "
            "them.",
            evidence=where,
            next_step=f"Send people the link {link} on the coordinator's web address, or raise pay_sats in a new job.",
        )
    able = sum(1 for one in people if one.state is not AnnotatorState.STOPPED)
    overlap = _overlap(tx, job.id, round_.stage)
    if able < overlap:
        return Why(
            code="people.too_few",
            sentence=f"Each item takes {overlap} different people, and {able} of those who came may answer.",
            evidence=where,
            next_step=f"Send the link {link} to more people.",
        )
    if not shards.get(ShardState.READY, 0):
        return Why(
            code="people.held",
            sentence=f"Every item left is answered by somebody who is not known well enough yet; {held} answers are "
            "held.",
            evidence=where,
            next_step="Nothing to do: they answer on, or after half an hour others are asked in their place.",
        )
    return Why(
        code="people.away",
        sentence=f"Nobody has a task now; {round_.shards_left} items are left, and {len(people)} people came so far.",
        evidence=where,
        next_step=f"Send the link {link} again, or wait: answers and money are kept.",
    )


# ---- inside -------------------------------------------------------------------------------------------------------


def _overlap(tx: Transaction, job: str, stage: str) -> int:
    row = tx.get(Stage, job, stage)
    place = places.read(row) if row is not None else None
    return place.params.overlap if place is not None else 1


def _person(one: Annotator) -> dict[str, Any]:
    known = trust.Standing.of(one.evidence_json)
    return {
        "annotator": one.party,
        "state": str(one.state),
        "answers": one.votes - one.practised,
        "hidden": [known.golds_right, known.golds],
        "repeated": [known.repeats_same, known.repeats],
        "too_fast": known.hasty,
        "first_and_second": [known.lefts, known.rights],
        "stopped_by": str(known.cause),
        "last_unix_ms": one.last_ms,
    }


def _label(answer: Mapping[str, Any]) -> str:
    value = answer.get("winner") or answer.get("verdict")
    return str(value) if value else json.dumps(answer, sort_keys=True)


def _alpha(rows: Sequence[tuple[Any, ...]]) -> float | None:
    """Krippendorff's alpha for nominal data; None where no item was judged by two people."""
    by_item: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        by_item[row[1]].append(_label(json.loads(row[4])["answer"]))
    units = [labels for labels in by_item.values() if len(labels) > 1]
    total = sum(map(len, units))
    if not total:
        return None
    observed, counts = 0.0, defaultdict[str, int](int)
    for labels in units:
        here = defaultdict[str, int](int)
        for label in labels:
            here[label] += 1
            counts[label] += 1
        observed += sum(n * (len(labels) - n) for n in here.values()) / (len(labels) - 1)
    expected = sum(n * (total - n) for n in counts.values()) / (total - 1)
    return 1.0 if expected == 0 else 1 - observed / expected


def _bias(rows: Sequence[tuple[Any, ...]]) -> dict[str, float | int | None]:
    """Share of choices that fell on the answer shown first; 0.5 says that its place did not matter."""
    first = total = 0
    for row in rows:
        winner = json.loads(row[4])["answer"].get("winner")
        if winner in ("a", "b"):
            total += 1
            first += "ab".index(winner) == int(row[5].split(",")[0])
    return {"shown_first": first / total if total else None, "choices": total}
