"""Progress: a stage that asks people, in numbers: how far it is, who judged and how well, its cost; and why it waits.

One read for its owner, the operator's dashboard and every `--json`. Words from rows; decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shardwork.feedback import agreement
from shardwork.feedback.intervals import clustered
from shardwork.recipes.base import ASK_PHASE
from shardwork.why import Why

from ..records import Annotator, AnnotatorState, Job, Party, Round, Shard, ShardState, Stage, Vote, VoteState
from ..store.base import Transaction
from . import places, trust
from .gathering import COUNTING
from .places import STILL_ASKED

#: who was heard of in this time is there now
HERE_MS = 10 * 60_000
#: votes that agreement and bias are computed from: the newest
MOST_VOTES = 10_000
#: answers within `HERE_MS` by which the time left is told
PACE_VOTES = 10
COUNTED = (*COUNTING, VoteState.REJECTED)

#: annotator, item, phase, state, answer, order shown, when it came
Row = tuple[Any, ...]


def people_progress(tx: Transaction, stage: Stage, now_ms: int, longer: Sequence[int] = ()) -> dict[str, Any]:
    """Empty for a stage that asks nobody, or has not counted its items. `longer`: which of an item's answers
    has more letters (`items.Index`), by which the bias towards long ones is told."""
    place = places.read(stage)
    if place is None:
        return {}
    key: dict[str, Any] = {"job_id": stage.job_id, "stage": stage.name}
    people = tx.find(Annotator, **key, order="number")
    # every task of a stage that is paid is paid alike
    counts, paid = tx.count(Vote, "state", **key), tx.count(Vote, "annotator", **key, state=VoteState.PAID)
    wanted = ("annotator", "position", "phase", "state", "answer_json", "shown", "cast_ms")
    newest = tx.pick(Vote, wanted, **key, state=COUNTED, order="given_ms", descending=True, limit=MOST_VOTES)
    kept = [row for row in newest if row[3] is not VoteState.REJECTED]
    asked = [row for row in kept if row[2] == ASK_PHASE]
    shards = tx.count(Shard, "state", **key, phase=ASK_PHASE)
    left = _left(tx, key, place, shards.get(ShardState.DONE, 0))
    names: dict[str, tuple[str, str]] = {
        party: (name, str(standing))
        for party, name, standing in tx.pick(Party, ("id", "name", "standing"), id=[one.party for one in people])
    }
    return {
        "kind": place.params.kind,
        "items": place.asked,
        "items_done": shards.get(ShardState.DONE, 0),
        "overlap": place.params.overlap,
        "hidden": place.golds,
        "votes": {str(state): counts.get(state, 0) for state in COUNTED},
        "votes_left": left,
        "seconds_left": _seconds(left, [row[6] for row in asked], now_ms),
        "pay_msat": place.pay_msat,
        "paid_msat": counts.get(VoteState.PAID, 0) * place.pay_msat,
        "held_msat": (counts.get(VoteState.HELD, 0) + counts.get(VoteState.CAST, 0)) * place.pay_msat,
        "annotators": {str(state): sum(1 for one in people if one.state is state) for state in AnnotatorState},
        "here": sum(1 for one in people if one.last_ms + HERE_MS >= now_ms),
        "agreement_alpha": _alpha(asked, place.params.kind),
        "bias": _bias(kept, longer),
        "people": [
            _person(one, *names.get(one.party, ("", "")), paid.get(one.party, 0) * place.pay_msat) for one in people
        ],
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
    left = "1 item is left" if round_.shards_left == 1 else f"{round_.shards_left} items are left"
    if given := votes.get(VoteState.GIVEN, 0):
        who = "Somebody has" if given == 1 else f"{given} people have"
        return Why(
            code="people.answering",
            sentence=f"{who} a task now; {left}.",
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
        sentence=f"Nobody has a task now; {left}, and {len(people)} {'person' if len(people) == 1 else 'people'} "
        "came so far.",
        evidence=where,
        next_step=f"Send the link {link} again, or wait: answers and money are kept. "
        f"`shardwork feedback close {job.id}` goes on with the answers that it has.",
    )


# ---- inside -------------------------------------------------------------------------------------------------------


def _overlap(tx: Transaction, job: str, stage: str) -> int:
    row = tx.get(Stage, job, stage)
    place = places.read(row) if row is not None else None
    return place.params.overlap if place is not None else 1


def _left(tx: Transaction, key: dict[str, Any], place: places.Place, done: int) -> int:
    """Answers that are still needed, hidden and repeated items aside."""
    open_ = {position for (position,) in tx.pick(Shard, ("position",), **key, phase=ASK_PHASE, state=STILL_ASKED)}
    if not open_ and not done:
        return place.asked * place.params.overlap
    given = tx.pick(Vote, ("position",), **key, phase=ASK_PHASE, state=COUNTING)
    return len(open_) * place.params.overlap - sum(1 for (position,) in given if position in open_)


def _seconds(left: int, cast_ms: Sequence[int], now_ms: int) -> int | None:
    """At the pace of the last minutes; None where so few came that they promise nothing."""
    recent = sum(1 for at in cast_ms if at > now_ms - HERE_MS)
    return left * HERE_MS // (1000 * recent) if recent >= PACE_VOTES and left else None


def _person(one: Annotator, name: str, standing: str, paid_msat: int) -> dict[str, Any]:
    known = trust.Standing.of(one.evidence_json)
    return {
        "annotator": one.party,
        "name": name,
        "state": str(one.state),
        # what the operator lets this key do, anywhere
        "standing": standing,
        "answers": one.votes - one.practised,
        "hidden": [known.golds_right, known.golds],
        "repeated": [known.repeats_same, known.repeats],
        "too_fast": known.hasty,
        "first_and_second": [known.lefts, known.rights],
        "paid_msat": paid_msat,
        "stopped_by": str(known.cause),
        "why": json.loads(one.why_json) if one.why_json else None,
        "joined_unix_ms": one.joined_ms,
        "last_unix_ms": one.last_ms,
    }


def _alpha(rows: Sequence[Row], kind: str) -> float | None:
    """Krippendorff's alpha, of scores as of steps and of all else as of names; None where nothing was judged twice, or
    everything alike."""
    given = [(row[1], row[0], json.loads(row[4])["answer"]) for row in rows]
    if kind == "score":
        scores = ((name, *one[:2], value) for one in given for name, value in one[2]["scores"].items())
        data = [((position, name), who, float(value)) for name, position, who, value in scores]
        return agreement.alpha(data, "ordinal").value
    labels = [json.dumps(answer.get("verdict", answer), sort_keys=True) for _, _, answer in given]
    codes = {label: float(code) for code, label in enumerate(sorted(set(labels)))}
    data = [(position, who, codes[label]) for (position, who, _), label in zip(given, labels, strict=True)]
    return agreement.alpha(data, "nominal").value


def _bias(rows: Sequence[Row], longer_of: Sequence[int]) -> dict[str, Any]:
    """Shares of choices that fell on the answer shown first, and on the longer one, each with its interval of 95 %."""
    chosen = [(row, json.loads(row[4])["answer"].get("winner")) for row in rows]
    chosen = [(row, "ab".index(winner)) for row, winner in chosen if winner in ("a", "b")]
    first = clustered((row[1], float(place == int(row[5].split(",")[0]))) for row, place in chosen)
    items = [(int(row[1]), place) for row, place in chosen if row[1] < len(longer_of)]
    longer = clustered((item, float(place == longer_of[item])) for item, place in items if longer_of[item] in (0, 1))
    return {
        "choices": len(chosen),
        "shown_first": first.value if first.of else None,
        "shown_first_interval": [first.low, first.high] if first.of else None,
        "longer": longer.value if longer.of else None,
        "longer_interval": [longer.low, longer.high] if longer.of else None,
    }
