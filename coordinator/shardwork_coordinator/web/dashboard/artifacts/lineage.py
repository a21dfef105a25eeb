"""Lineage: which shard or executor's phase made an artifact from what, and what was made from it, inside one job.

Read from orders and results as they are stored: a shard's inputs are in its row, its outputs in its replicas'; an
executor's inputs are in its effect, its outputs in the results of its round. Bounded in depth and in width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ....artifacts.retention import HELD
from ....machine.attempts import called_by
from ....records import Job, Outbox, Replica, Round, Shard, Stage
from ....store.base import Transaction
from ... import phases

#: makers of makers, and so on
DEPTH = 3
#: inputs of one maker, groups of users, outputs of one user that are told one by one
WIDTH = 8
#: shards and copies of one job that are looked through
MOST_ROWS = 20_000
MOST_EFFECTS = 2_000

_ID = re.compile(r'"([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An artifact by the name that its maker or user gives it."""

    name: str
    id: str
    made: Made | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What made an artifact."""

    words: str
    #: page of the shard; empty for the executor's phases and uploads
    path: str
    inputs: Sequence[Piece]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Those of one phase that read it."""

    words: str
    path: str
    outputs: Sequence[Piece]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    job_id: str
    job: str
    made: Made | None
    used: Sequence[Used]
    more: int
    #: names under which the job's owner gets it
    published: Sequence[str]


class _Step(NamedTuple):
    """A shard, or a phase of the executor's, with what went in and came out."""

    stage: str
    round: int
    phase: str
    #: -1: the executor's
    position: int
    shard_id: str
    #: as JSON; artifacts' ids stand in it in full
    inputs: str
    outputs: str
    #: of an audit: whose result it checks
    audits: str = ""

    @property
    def made(self) -> Sequence[str]:
        """The ids that came out."""
        return _ID.findall(self.outputs)

    @property
    def order(self) -> tuple[str, int, int]:
        """Its place in the work of its stage."""
        return self.stage, self.round, phases.place(self.phase)

    @property
    def words(self) -> str:
        who = (
            f"{self.phase}, on the coordinator"
            if self.position < 0
            else called_by(self.phase, self.position, self.audits)
        )
        return f"{who} ({self.stage}, round {self.round})"


class _Work:
    """Every step of one job."""

    def __init__(self, tx: Transaction, job: Job) -> None:
        self.job = job
        self.inputs: Mapping[str, str] = json.loads(job.inputs_json)
        shards = _shards(tx, job.id)
        self._makers: dict[str, _Step] = {one: step for step in reversed(shards) for one in step.made}
        phases = _phases(tx, job.id, self._makers.keys())
        self._makers = {one: step for step in phases for one in step.made} | self._makers
        self.steps = [*shards, *phases]

    def made(self, artifact_id: str) -> Made | None:
        return self._made(artifact_id, DEPTH, {artifact_id})

    def _made(self, artifact_id: str, depth: int, told: set[str]) -> Made | None:
        """`told`: what was explained already, and is only named from then on."""
        step = self._makers.get(artifact_id)
        if step is None:
            named = [name for name, one in self.inputs.items() if one == artifact_id]
            return Made(words=f"input {', '.join(named)}", path="", inputs=(), more=0) if named else None
        inputs: Mapping[str, str] = json.loads(step.inputs)
        pieces: list[Piece] = []
        for name, one in list(inputs.items())[:WIDTH]:
            is_new = depth > 1 and one not in told
            told.add(one)
            pieces.append(Piece(name=name, id=one, made=self._made(one, depth - 1, told) if is_new else None))
        return Made(words=step.words, path=_path(self.job.id, step), inputs=pieces, more=max(len(inputs) - WIDTH, 0))

    def used(self, artifact_id: str) -> list[Used]:
        """By phase, in the order of the work."""
        groups: dict[tuple[str, int, str], list[_Step]] = {}
        for step in self.steps:
            if artifact_id in step.inputs:
                groups.setdefault((step.stage, step.round, step.phase), []).append(step)
        ordered = sorted(groups.values(), key=lambda some: some[0].order)
        return [self._group(some) for some in ordered]

    def _group(self, steps: Sequence[_Step]) -> Used:
        first, made = steps[0], dict[str, str]()
        for one in steps[: WIDTH + 1]:
            for name, artifact in json.loads(one.outputs).items():
                made[f"{name} of {one.position}" if len(steps) > 1 else name] = artifact
        words = (
            first.words
            if len(steps) == 1
            else f"{len(steps)} {first.phase} shards ({first.stage}, round {first.round})"
        )
        pieces = [Piece(name=name, id=one, made=None) for name, one in list(made.items())[:WIDTH]]
        path = _path(self.job.id, first) if len(steps) == 1 else ""
        return Used(words=words, path=path, outputs=pieces, more=max(len(made) - WIDTH, 0))


def lineage(tx: Transaction, job: Job, artifact_id: str) -> Lineage | None:
    """None where this job has nothing to do with it."""
    work = _Work(tx, job)
    made, used = work.made(artifact_id), work.used(artifact_id)
    published = [
        name
        for stage in tx.find(Stage, job_id=job.id, order="position")
        for name, output in json.loads(stage.outputs_json).items()
        if output["artifact_id"] == artifact_id
    ]
    if made is None and not used and not published:
        return None
    return Lineage(
        job_id=job.id,
        job=job.name,
        made=made,
        used=used[:WIDTH],
        more=max(len(used) - WIDTH, 0),
        published=published,
    )


def _shards(tx: Transaction, job_id: str) -> list[_Step]:
    kept = tx.pick(Replica, ("shard_id", "outputs_json"), job_id=job_id, state=HELD, limit=MOST_ROWS)
    outputs = {shard: text for shard, text in kept if text != "{}"}
    wanted = ("id", "stage", "round", "phase", "position", "inputs_json", "audits")
    rows = tx.pick(Shard, wanted, job_id=job_id, limit=MOST_ROWS)
    return [
        _Step(stage, number, phase, position, name, inputs, outputs.get(name, "{}"), audits)
        for name, stage, number, phase, position, inputs, audits in rows
    ]


def _phases(tx: Transaction, job_id: str, by_shards: Collection[str]) -> list[_Step]:
    """The executor's phases of every round. What no shard of the round handed in, they made: a "new_…" is the last
    one's, all else the first one's."""
    effects: dict[tuple[str, int], list[tuple[str, str]]] = {}
    prefix = f"execute/{job_id}/"
    for name, payload in tx.pick(Outbox, ("id", "payload_json"), order="id", after=prefix, limit=MOST_EFFECTS):
        if not name.startswith(prefix):
            break
        told = json.loads(payload)
        effects.setdefault((told["stage"], told["round"]), []).append((told["phase"], json.dumps(told["inputs"])))
    found: list[_Step] = []
    for stage, number, results in tx.pick(Round, ("stage", "number", "results_json"), job_id=job_id):
        phases = sorted(effects.get((stage, number), ()), key=lambda one: one[0] == "apply")
        own = {name: one for name, one in json.loads(results).items() if one not in by_shards}
        for place, (phase, inputs) in enumerate(phases):
            mine = {name: one for name, one in own.items() if _is_made_by(name, place, len(phases))}
            found.append(_Step(stage, number, phase, -1, "", inputs, json.dumps(mine)))
    return found


def _is_made_by(name: str, place: int, count: int) -> bool:
    if name.startswith("new_"):
        return place == count - 1
    # a second name for one of the first's results
    return place == 0 and not name.startswith("chosen_")


def _path(job_id: str, step: _Step) -> str:
    place = step.shard_id.removeprefix(f"{job_id}/")
    return f"/jobs/{job_id}/shards/{place}" if step.position >= 0 else ""
