"""Grid: every shard of one phase at a glance, coloured by what it is at. One letter a shard, drawn by the browser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shardwork.recipes.base import AUDIT_PHASE

from ...machine.planning import ATTEMPTS
from ...records import Job, Round, Shard, ShardState, Stage, StageState
from ...store.base import Transaction
from .. import phases

#: what a letter means, in the order of the legend
LETTERS = {"d": "done", "r": "running", "w": "ready", "t": "retrying", "x": "exhausted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    stage: str
    round: int
    phase: str
    #: one letter a shard, in their order
    letters: str
    counts: Sequence[tuple[str, int]]
    #: phases of this round that have shards, and the first and last round
    phases: Sequence[str]
    stages: Sequence[str]
    rounds: tuple[int, int]
    #: ids of the shards behind the job's, where they are not numbered from 0; empty where `place` tells them
    places: Sequence[str] = ()

    @property
    def place(self) -> str:
        """What stands before the shard in the ids of these."""
        return f"{self.stage}/r{self.round}/{self.phase}"

    def summary(self) -> str:
        told = ", ".join(f"{count} {name}" for name, count in self.counts)
        return f"{len(self.letters)} shards of the {self.phase} phase: {told}"


def look(
    tx: Transaction,
    job: Job,
    stages: Sequence[Stage],
    rounds: Sequence[Round],
    wanted: tuple[str, int | None, str],
) -> Grid | None:
    """The phase that was asked for, or the one where the job is; None before anything was planned."""
    name, number, phase = wanted
    stage = _stage(stages, name)
    mine = [one for one in rounds if stage is not None and one.stage == stage.name]
    if stage is None or not mine:
        return None
    current = next((one for one in mine if one.number == number), mine[-1])
    begun = tx.count(Shard, "phase", job_id=job.id, stage=stage.name, round=current.number)
    names = sorted(begun, key=lambda one: (phases.place(one), one))
    shown = phase if phase in names else current.phase if current.phase in names else _most_telling(names)
    if not shown:
        return None
    key: dict[str, Any] = {"job_id": job.id, "stage": stage.name, "round": current.number, "phase": shown}
    found = tx.pick(Shard, ("state", "attempts_left", "position"), order="position", **key)
    letters = "".join(_letter(state, attempts) for state, attempts, _ in found)
    is_counted = shown != AUDIT_PHASE and all(place == position for place, (_, _, position) in enumerate(found))
    ids = () if is_counted else tx.pick(Shard, ("id",), order="position", **key)
    counts = Counter(letters)
    return Grid(
        stage=stage.name,
        round=current.number,
        phase=shown,
        letters=letters,
        counts=[(word, counts[letter]) for letter, word in LETTERS.items() if counts[letter]],
        phases=names,
        stages=[one.name for one in stages if any(round_.stage == one.name for round_ in rounds)],
        rounds=(mine[0].number, mine[-1].number),
        places=[name.removeprefix(f"{job.id}/") for (name,) in ids],
    )


def _most_telling(names: Sequence[str]) -> str:
    """Of a round that is over: its last phase of work, or else the last one; empty for none."""
    work = [name for name in names if name in phases.WORK]
    return (work or list(names) or [""])[-1]


def _stage(stages: Sequence[Stage], name: str) -> Stage | None:
    """By name, or the one that runs, or the last that did."""
    by_name = next((one for one in stages if one.name == name), None)
    running = next((one for one in stages if one.state is StageState.RUNNING), None)
    begun = [one for one in stages if one.state not in (StageState.WAITING, StageState.SKIPPED)]
    return by_name or running or next(iter(begun[::-1]), None)


def _letter(state: ShardState, attempts_left: int) -> str:
    if state is ShardState.DONE:
        return "d"
    if state is ShardState.EXHAUSTED:
        return "x"
    if attempts_left < ATTEMPTS:
        return "t"
    return "r" if state is ShardState.RUNNING else "w"
