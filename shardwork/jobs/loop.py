"""The loop of a job file: stages that are run several times over, each time on what the last time made.

Owns unrolling: `repeat` names stages that follow each other, and each of them becomes `name-1`, `name-2` …. Inside, a
stage that reads an output of a stage before it reads this time's, and of itself or of a later one the last time's; the
first time reads what `start` gives in its place. Stages behind the loop read an output by its plain name: the latest.
Pure; called by `file`, which names lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from .spec import STAGE_OUTPUT

#: keys of a stage that may name an output, or several
_READS = ("base_model", "continue_from", "data", "eval_data", "models")


@dataclass(frozen=True, slots=True)
class Unrolled:
    stages: list[dict[str, Any]]
    #: of each, its place among the stages as written
    origins: list[int]


class LoopProblem(Exception):
    """The loop cannot be unrolled; `key` is the place under `repeat`."""

    def __init__(self, key: tuple[str, ...], code: str, sentence: str, fix: str) -> None:
        super().__init__(sentence)
        self.key, self.code, self.sentence, self.fix = key, code, sentence, fix


def unrolled(stages: Sequence[dict[str, Any]], repeat: Mapping[str, Any]) -> Unrolled:
    """The stages with those of the loop as often as it says. Raises LoopProblem."""
    names = [str(stage.get("name")) for stage in stages]
    body = [str(name) for name in cast("list[object]", repeat.get("stages") or [])]
    first, last = _span(names, body)
    start = cast("dict[str, str]", repeat.get("start") or {})
    until: Any = repeat.get("until")
    found, origins = [dict(stage) for stage in stages[:first]], list(range(first))
    for time in range(1, int(repeat.get("times") or 0) + 1):
        for place in range(first, last):
            stage = _renamed(stages[place], body, place - first, time, start)
            if until and time > 1 and place == first:
                stage["run_if"] = _gate(stage, body, cast("dict[str, Any]", until), time - 1)
            found.append(stage)
            origins.append(place)
    return Unrolled([*found, *(dict(stage) for stage in stages[last:])], [*origins, *range(last, len(stages))])


def _span(names: Sequence[str], body: Sequence[str]) -> tuple[int, int]:
    if not body or body[0] not in names:
        missing = body[0] if body else "it names none"
        sentence = f"`repeat` names no stages of this job ({missing})."
        raise LoopProblem(("stages",), "jobfile.loop_stages", sentence, f"Name some of: {', '.join(names)}.")
    first = names.index(body[0])
    if list(names[first : first + len(body)]) != list(body):
        sentence = "The stages of a loop follow each other, in the order of `stages`."
        raise LoopProblem(("stages",), "jobfile.loop_stages", sentence, f"Name some of: {', '.join(names)}.")
    return first, first + len(body)


def _renamed(
    stage: Mapping[str, Any], body: Sequence[str], place: int, time: int, start: Mapping[str, str]
) -> dict[str, Any]:
    """The stage as it is this time."""

    def read(reference: object) -> object:
        if not isinstance(reference, str) or not STAGE_OUTPUT.match(reference):
            return reference
        source, _, output = reference.partition(".")
        if source not in body:
            return reference
        if body.index(source) < place:
            return f"{source}-{time}.{output}"
        if time > 1:
            return f"{source}-{time - 1}.{output}"
        if reference in start:
            return start[reference]
        sentence = f"{reference!r} comes from the time before, and the first time has none."
        fix = f"Write `start: {{{reference}: …}}` with what the first time reads instead."
        raise LoopProblem(("start",), "jobfile.loop_start", sentence, fix)

    changed = {key: _each(stage[key], read) for key in _READS if key in stage}
    return {**stage, **changed, "name": f"{body[place]}-{time}"}


def _each(value: object, read: Callable[[object], object]) -> object:
    """Every reference in a key's value: one, a list of them or of sources, or a mapping."""
    if isinstance(value, list):
        return [_each(item, read) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: read(item) for key, item in cast("dict[str, object]", value).items()}
    return read(value)


def _gate(stage: Mapping[str, Any], body: Sequence[str], until: Mapping[str, Any], time: int) -> dict[str, Any]:
    named = str(until.get("stage"))
    if named not in body:
        sentence = f"The loop goes on while stage {named!r} improves, which is none of its stages."
        raise LoopProblem(("until", "stage"), "jobfile.loop_until", sentence, f"Name one of: {', '.join(body)}.")
    if stage.get("run_if"):
        sentence = "The first stage of a loop with `until` has a gate of its own."
        raise LoopProblem(("until",), "jobfile.loop_until", sentence, "Leave its run_if out.")
    return {**until, "stage": f"{named}-{time}"}
