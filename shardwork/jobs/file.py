"""The job file: from YAML, JSON or TOML text to a validated JobSpec, with every problem named at once.

Owns reading, the flat one-stage form, line numbers, near-miss hints and finding the files that the job names. The
shape itself is `spec`, the syntaxes are `marked`, the wording is `mistakes`, a recipe's parameters are its own.
Called by the client before anything is spent or sent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from ..errors import InvalidInput
from ..problem import Problem, nearest_file, suggest
from .loop import LoopProblem, unrolled
from .marked import MAX_BYTES, KeyPath, Marked, dotted, parse
from .mistakes import code_of, fix_of, sentence_of
from .paths import PathFinding, StageFiles, find_files
from .spec import (
    ITEM_TAGS,
    STAGE_OUTPUT,
    BudgetSection,
    DataSource,
    JobSpec,
    PlanSection,
    RepeatSection,
    RunIf,
    ScheduleSection,
    StageSpec,
    TrustSection,
)

ParamsModel = Callable[[str], type[BaseModel]]

#: stands for the file's name where a job is written in a program
IN_PROGRAM = "job"

_JOB_KEYS = ("name", "stages", "trust", "budget", "schedule", "report_to", "repeat")
_STAGE_KEYS = tuple(StageSpec.model_fields)
_FLAT_KEYS = tuple(key for key in _STAGE_KEYS if key != "name")
_NO_STAGE_BEFORE = "Name what lies on this machine, or put the stage that makes it before this one."
_SECTIONS: dict[str, type[BaseModel]] = {
    "trust": TrustSection,
    "budget": BudgetSection,
    "plan": PlanSection,
    "schedule": ScheduleSection,
    "run_if": RunIf,
    "repeat": RepeatSection,
}
#: keys whose items may be sections
_SOURCES = ("data", "eval_data")


class JobFileInvalid(InvalidInput):
    """The job file is wrong; `problems` holds everything that was found, in the order of the file.

    `code` is the problem's own where a recipe refused its stage, for the one thing that is wrong.
    """

    def __init__(self, file: str, problems: list[Problem], *, code: str = "jobfile.invalid") -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0, problem.key))
        first = self.problems[0]
        more = f" {len(problems) - 1} more problem(s) follow." if len(problems) > 1 else ""
        super().__init__(
            code,
            f"{first.render()}{more}" if first.sentence else f"{file} is not a valid job file.",
            next_step="Mend the job file and validate it again.",
            problems=len(problems),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedJob:
    """A job that may be planned: the spec as it is sent, and the local files it names."""

    spec: JobSpec
    #: the job file's folder; every relative path was read from here
    folder: Path
    warnings: tuple[Problem, ...] = ()
    #: stage name -> its files on this machine
    files: Mapping[str, StageFiles] = field(default_factory=dict[str, StageFiles])
    #: the job file as the person named it, and the lines of its keys
    file: str = ""
    lines: Mapping[KeyPath, int] = field(default_factory=dict[KeyPath, int])
    #: of each stage, its place among the stages as written, where a loop was unrolled
    origins: tuple[int, ...] = ()

    def place(self, stage: str, key: str) -> dict[str, str]:
        """Where a stage's key stands in the job file, as evidence of an error; a missing key's place is around it."""
        names = [each.name for each in self.spec.stages]
        index = names.index(stage)
        index = self.origins[index] if self.origins else index
        prefix: KeyPath = ("stages", index) if ("stages",) in self.lines else ()
        path = (*prefix, *key.split("."))
        line = Marked(None, self.lines).line(path)
        return {"file": self.file, **({"line": str(line)} if line else {}), "key": dotted(path)}


def load(path: Path, params_model: ParamsModel | None = None) -> LoadedJob:
    """Reads and validates a job file.

    `params_model(kind)` gives a recipe's parameter model and raises InvalidInput for an unknown kind; the registry's
    by default. Raises JobFileInvalid "jobfile.invalid" with all problems.
    """
    return _finished(_Reading(str(path), _read(path), params_model or _registry_params), path.parent)


def load_values(values: Mapping[str, object], folder: Path, params_model: ParamsModel | None = None) -> LoadedJob:
    """The same for a job that is no file but Python values, flat or staged; relative paths are read from `folder`.

    Problems name the file "job" and no line.
    """
    try:
        plain = json.loads(json.dumps(values, default=_plain, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        sentence = f"The job holds a value that no job file could hold: {error}."
        problem = _file_problem(IN_PROGRAM, "jobfile.wrong_value", sentence, "Use text, numbers, lists and mappings.")
        raise JobFileInvalid(IN_PROGRAM, [problem]) from None
    return _finished(_Reading(IN_PROGRAM, Marked(plain, {}), params_model or _registry_params), folder)


def _plain(value: object) -> object:
    """Values of Python that have a plain form: paths."""
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    raise TypeError(f"{type(value).__name__} is not text, a number, a list or a mapping")


def _finished(reading: _Reading, folder: Path) -> LoadedJob:
    spec = reading.spec()
    files: dict[str, StageFiles] = {}
    warnings: list[Problem] = []
    # files are looked for even when keys are wrong, so that one run names everything
    for index, stage in enumerate(reading.raw_stages):
        found = find_files(stage, folder)
        files[str(stage.get("name"))] = found
        for finding in found.findings:
            (warnings if finding.is_warning else reading.problems).append(
                reading.problem(_place(reading, index, finding), finding.code, finding.sentence, finding.fix)
            )
    if reading.problems or spec is None:
        # a stage of a loop is looked at once for each time
        raise JobFileInvalid(reading.file, list(dict.fromkeys(_without_echoes(reading.problems))))
    return LoadedJob(
        spec=spec,
        folder=folder,
        warnings=tuple(dict.fromkeys(warnings)),
        files=files,
        file=reading.file,
        lines=reading.marked.lines,
        origins=tuple(reading.origins),
    )


def _place(reading: _Reading, index: int, finding: PathFinding) -> KeyPath:
    return reading.stage_path(index, *finding.key.split("."))


def _without_echoes(problems: list[Problem]) -> list[Problem]:
    """A mistyped key is also a missing one; the typing slip alone is told."""
    meant = {_sibling(found.key, found.fix) for found in problems if found.code == "jobfile.unknown_key"}
    missing = {"jobfile.missing_key", "jobfile.trust_class_missing"}

    def is_echo(key: str) -> bool:
        return key in meant or any(key.startswith(f"{name}.") for name in meant)

    kept = [found for found in problems if found.code not in missing or not is_echo(found.key)]
    return kept or problems


def _sibling(key: str, fix: str) -> str:
    """The key that `fix` says was meant, at the place of `key`."""
    name = fix.removeprefix("Did you mean '").removesuffix("'?")
    return ".".join((*key.split(".")[:-1], name))


def _registry_params(kind: str) -> type[BaseModel]:
    from ..recipes import recipe

    return recipe(kind).Params


def _read(path: Path) -> Marked:
    file, data = str(path), b""
    try:
        # a bounded read, because a device or a pipe has no size to look at
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            fix = "Is this the job file? It names its data, and does not hold it."
            raise JobFileInvalid(file, [_file_problem(file, "jobfile.too_large", "A job file is at most 1 MiB.", fix)])
        return parse(data.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        sentence = f"The file is not UTF-8 text{', but UTF-16' if wide else ''}."
        problem = _file_problem(file, "jobfile.not_utf8", sentence, "Save it as UTF-8.")
        raise JobFileInvalid(file, [problem]) from error
    except OSError as error:
        raise JobFileInvalid(file, [_unreadable(path, error)]) from error


def _unreadable(path: Path, error: OSError) -> Problem:
    sentence = f"The job file cannot be read: {error.strerror}."
    near: str | None = None
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.suffix in {".yaml", ".yml", ".toml"})
        near = str(path / inside[0]) if inside else None
    elif path.parent.is_dir() and not os.path.lexists(path):
        near = _like(path)
    fix = f"Did you mean {near!r}?" if near else "Check the path, and that you may read it."
    return _file_problem(str(path), "jobfile.missing_file", sentence, fix)


def _like(path: Path) -> str | None:
    """The job file beside it that was probably meant, as one would name it."""
    kinds = {".yaml", ".yml", ".json", ".toml"}
    near = nearest_file(path.name, (entry.name for entry in path.parent.iterdir() if entry.suffix in kinds))
    return str(path.with_name(near)) if near else None


def _file_problem(file: str, code: str, sentence: str, fix: str) -> Problem:
    return Problem(file=file, line=None, key="", code=code, sentence=sentence, fix=fix)


class _Reading:
    """One pass over one job file; problems pile up instead of stopping at the first."""

    def __init__(self, file: str, marked: Marked, params_model: ParamsModel) -> None:
        self.file = file
        self.marked = marked
        self.problems: list[Problem] = list(marked.problems)
        #: the stages as written, in the staged form; empty when the file has not even that shape
        self.raw_stages: list[dict[str, Any]] = []
        #: of each, its place in the file, where a loop was unrolled
        self.origins: list[int] = []
        self._params_model = params_model
        self._flat = True

    def problem(self, path: KeyPath, code: str, sentence: str, fix: str) -> Problem:
        line = self.marked.line(path)
        return Problem(file=self.file, line=line, key=dotted(path), code=code, sentence=sentence, fix=fix)

    def stage_path(self, index: int, *rest: str | int) -> KeyPath:
        """Where a stage's key stands in the file as written."""
        return rest if self._flat else ("stages", self.origins[index] if self.origins else index, *rest)

    def _add(self, path: KeyPath, code: str, sentence: str, fix: str) -> None:
        self.problems.append(self.problem(path, code, sentence, fix))

    # ---- from values to a spec -------------------------------------------------------------------------------

    def spec(self) -> JobSpec | None:
        """The spec, or None with at least one problem noted."""
        values = self.marked.values
        if self.problems and (values is None or any(found.code == "jobfile.too_large" for found in self.problems)):
            return None  # what was left out would be missed below
        if values is None:
            self._add((), "jobfile.not_a_mapping", "The job file is empty.", "Begin with `name:`.")
            return None
        if not isinstance(values, dict):
            self._add((), "jobfile.not_a_mapping", "A job file is a mapping of keys to values.", "Begin with `name:`.")
            return None
        raw = self._shape(cast("dict[str, Any]", values))
        if raw is None:
            return None
        is_whole = self._unroll(raw)
        self.raw_stages = raw["stages"]
        if is_whole:
            self._check_stages()
        try:
            spec = JobSpec.model_validate_json(json.dumps(raw), strict=True)
        except ValidationError as error:
            self._translate(error, raw)
            if not self.problems:
                self._add((), "jobfile.wrong_value", sentence_of(error.errors()[:1], ""), "Change it.")
            return None
        return None if self.problems else spec

    def _unroll(self, raw: dict[str, Any]) -> bool:
        """A loop's stages as often as they run; what the loop itself may hold is the schema's to refuse. False: it
        can't be unrolled, so that its stages' references mean nothing."""
        repeat = raw.get("repeat")
        if not isinstance(repeat, dict):
            return True
        try:
            RepeatSection.model_validate(repeat)
            found = unrolled(raw["stages"], cast("dict[str, Any]", repeat))
        except ValidationError:
            return False
        except LoopProblem as problem:
            self._add(("repeat", *problem.key), problem.code, problem.sentence, problem.fix)
            return False
        raw["stages"], self.origins = found.stages, found.origins
        return True

    def _shape(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """The staged form of either way of writing a job."""
        self._flat = "stages" not in values
        known = (*_FLAT_KEYS, "name", "trust", "budget", "schedule", "report_to") if self._flat else _JOB_KEYS
        raw: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known:
                self._unknown_job_key(key, known)
            elif value is not None:
                # a section with a blank key is one that lacks it
                raw[key] = _without_nones(cast("dict[str, Any]", value)) if _is_section(key, value) else value
        if not self._flat:
            return self._staged(raw)
        recipe = raw.get("recipe")
        if recipe is None:
            self._add(("recipe",), "jobfile.missing_key", "The job names no recipe.", self._recipe_fix())
        stage = {key: raw.pop(key) for key in _FLAT_KEYS if key in raw}
        stage["name"] = recipe if isinstance(recipe, str) and recipe else "stage"
        return {**raw, "stages": [stage]}

    def _staged(self, raw: dict[str, Any]) -> dict[str, Any] | None:
        stages = raw.get("stages")
        if not isinstance(stages, list) or not stages:
            self._add(("stages",), "jobfile.wrong_type", "`stages` is a list of stages.", "Begin each with `- name:`.")
            return None
        for index, stage in enumerate(cast("list[object]", stages)):
            if not isinstance(stage, dict):
                self._add(("stages", index), "jobfile.wrong_type", "A stage is a mapping.", "Begin with `- name:`.")
                return None
        kept = [_without_nones(stage) for stage in cast("list[dict[str, Any]]", stages)]
        return {**raw, "stages": kept}

    def _unknown_job_key(self, key: str, known: tuple[str, ...]) -> None:
        if not self._flat and key in _FLAT_KEYS:
            sentence = f"With `stages:`, {key!r} belongs to a stage."
            self._add((key,), "jobfile.unknown_key", sentence, "Move it into the stage it is meant for.")
            return
        section = self._section_of(key) if self._flat else ""
        fix = f"Put it under `{section}:`." if section else suggest(key, known)
        self._add((key,), "jobfile.unknown_key", f"There is no key {key!r}{' here' if section else ''}.", fix)

    def _section_of(self, key: str) -> str:
        """The section that a key at the top belongs to: one of the fixed ones, or the recipe's parameters."""
        for name, section in _SECTIONS.items():
            if key in {info.alias or field for field, info in section.model_fields.items()}:
                return name
        kind = cast("dict[str, Any]", self.marked.values).get("recipe")
        try:
            model = self._params_model(kind) if isinstance(kind, str) else None
        except InvalidInput:
            model = None  # told where the recipe itself is looked at
        return "params" if model is not None and key in model.model_fields else ""

    # ---- a recipe's own parameters ---------------------------------------------------------------------------

    def _check_stages(self) -> None:
        seen: set[str] = set()
        for index, stage in enumerate(self.raw_stages):
            self._check_recipe(index, stage)
            self._check_references(index, stage, seen)
            self._check_gate(index, stage)
            if not stage.get("data"):
                sentence = "The stage names no data."
                fix = "Set `data` to a file of rows, a folder, a glob, or an earlier stage's output."
                self._add(self.stage_path(index, "data"), "jobfile.missing_key", sentence, fix)
            seen.update(self._names(str(stage.get("name"))))

    def _names(self, stage: str) -> tuple[str, ...]:
        """As `JobSpec.names_of`: one of a loop is known by its plain name as well."""
        return (stage, stage.rpartition("-")[0]) if self.origins and stage.rpartition("-")[2].isdigit() else (stage,)

    def _check_recipe(self, index: int, stage: dict[str, Any]) -> None:
        kind, params = stage.get("recipe"), stage.get("params", {})
        if not isinstance(kind, str):
            return
        try:
            model = self._params_model(kind)
        except InvalidInput as error:
            self._add(
                self.stage_path(index, "recipe"), "jobfile.unknown_recipe", error.why.sentence, error.why.next_step
            )
            return
        if not isinstance(params, dict):
            return
        try:
            model.model_validate_json(json.dumps(params), strict=True)
        except ValidationError as error:
            self._translate_params(error, model, index, cast("dict[str, Any]", params))

    def _check_references(self, index: int, stage: dict[str, Any], seen: set[str]) -> None:
        if index and stage.get("name") in seen:
            sentence = f"Two stages are named {stage['name']!r}."
            self._add(self.stage_path(index, "name"), "jobfile.duplicate_stage", sentence, "Name them apart.")
        for key in ("base_model", "continue_from", "data", "eval_data", "models"):
            value = stage.get(key, [])
            if key == "models":
                value = list(cast("dict[str, object]", value).values()) if isinstance(value, dict) else []
            for item in cast("list[object]", value) if isinstance(value, list) else [value]:
                name = cast("dict[str, object]", item).get("path") if isinstance(item, dict) else item
                if isinstance(name, str) and STAGE_OUTPUT.match(name) and name.split(".", 1)[0] not in seen:
                    sentence = f"{name!r} names a stage that does not come before this one."
                    fix = suggest(name.split(".", 1)[0], seen, what="earlier stages") if seen else _NO_STAGE_BEFORE
                    self._add(self.stage_path(index, key), "jobfile.unknown_stage", sentence, fix)

    def _check_gate(self, index: int, stage: dict[str, Any]) -> None:
        """The stage whose held-out loss decides comes before, learns, and holds rows out."""
        gate: Any = stage.get("run_if")
        named: object = cast("dict[str, object]", gate).get("stage") if isinstance(gate, dict) else None
        if not isinstance(named, str):
            return
        earlier = {str(each.get("name")): each for each in self.raw_stages[:index]}
        path = self.stage_path(index, "run_if", "stage")
        if path not in self.marked.lines and ("repeat", "until") in self.marked.lines:
            path = ("repeat", "until", "stage")  # the loop's condition, of which each time has its own
        if named not in earlier:
            fix = suggest(named, earlier, what="earlier stages") if earlier else "Put the stage that decides before it."
            self._add(path, "jobfile.unknown_stage", f"No stage called {named!r} comes before this one.", fix)
        elif not (earlier[named].get("eval_data") or earlier[named].get("eval_fraction")):
            sentence = f"Stage {named!r} holds no rows out, so nobody can say whether it improved."
            self._add(path, "jobfile.gate_without_eval", sentence, f"Give {named!r} eval_data or an eval_fraction.")

    def _recipe_fix(self) -> str:
        from ..recipes import kinds

        return f"Set `recipe` to one of: {', '.join(kinds())}."

    # ---- pydantic's errors in our words ----------------------------------------------------------------------

    def _translate(self, error: ValidationError, raw: dict[str, Any]) -> None:
        done: set[KeyPath] = set()
        for item in error.errors():
            loc: KeyPath = tuple(part for part in item["loc"] if part not in ITEM_TAGS)
            if not loc and item["type"] == "value_error":
                continue  # stage names and references; `_check_references` has named their lines
            path = self._written(_trim(loc, raw, may_lack=item["type"] == "missing"))
            if item["type"] == "missing" and loc and path in {("recipe",)}:
                continue
            if path not in done and not any(known.key == dotted(path) for known in self.problems):
                done.add(path)
                self._one(item, loc, path)

    def _one(self, item: Any, loc: KeyPath, path: KeyPath) -> None:
        if loc in {("trust",), ("trust", "class")} and item["type"] == "missing":
            sentence = "`trust.class` is not set: say who may see the training rows."
            fix = "Write `trust: {class: public}` if any worker may see them; no other class is built yet."
            self._add(("trust", "class"), "jobfile.trust_class_missing", sentence, fix)
        elif loc == ("budget",) and item["type"] == "missing":
            sentence = "The job has no budget."
            self._add(("budget", "max_sats"), "jobfile.missing_key", sentence, "Write `budget: {max_sats: 2000}`.")
        elif item["type"] == "value_error" and len(loc) == 2 and loc[0] == "stages":
            fix = "Remove one of them."
            self._add(self._written((*loc, "eval_fraction")), "jobfile.wrong_value", sentence_of([item], ""), fix)
        else:
            key = _key(path)
            known = _keys_at(path if item["type"] == "model_type" else loc[:-1])
            fix = fix_of([item], key, known, _model_at(loc))
            self._add(path, code_of(item["type"]), sentence_of([item], key), fix)

    def _translate_params(self, error: ValidationError, model: type[BaseModel], index: int, params: object) -> None:
        grouped: dict[KeyPath, list[Any]] = {}
        for item in error.errors():
            loc: KeyPath = tuple(item["loc"])
            grouped.setdefault(_trim(loc, params, may_lack=item["type"] == "missing"), []).append(item)
        for loc, items in grouped.items():
            path = self.stage_path(index, "params", *loc)
            key = _key(loc)
            if any(known.key == dotted(path) for known in self.problems):
                continue  # it could not even be read, which is told already
            part = _part_of(model, loc[:-1])
            fix = fix_of(items, key, tuple(part.model_fields), part)
            owner = self._owner_of(key) if items[0]["type"] == "extra_forbidden" else ""
            if owner:
                fix = f"It belongs to recipe {owner!r}: remove it, or change `recipe`."
            self._add(path, code_of(items[0]["type"]), sentence_of(items, key), fix)

    def _owner_of(self, key: str) -> str:
        """A recipe that does have this parameter."""
        from ..recipes import kinds

        return next((kind for kind in kinds() if key in self._params_model(kind).model_fields), "")

    def _written(self, loc: KeyPath) -> KeyPath:
        """pydantic's place in the staged form -> the place in the file."""
        if self._flat and loc[:1] == ("stages",):
            return loc[2:]
        return loc


def _is_section(key: str, value: object) -> bool:
    return key in _SECTIONS and isinstance(value, dict)


def _without_nones(stage: Mapping[str, Any]) -> dict[str, Any]:
    """`key:` with nothing after it means the key's default, as a person leaving a template blank expects."""
    return {key: value for key, value in stage.items() if value is not None}


def _trim(loc: KeyPath, values: Any, *, may_lack: bool) -> KeyPath:
    """Cuts pydantic's union-branch names ("float", "literal['auto']") off the end of a location."""
    kept: KeyPath = ()
    here: Any = values
    for part in loc:
        if isinstance(here, dict) and isinstance(part, int):
            continue  # one item that was written without its list
        if isinstance(here, dict) and (part in here or may_lack):
            kept, here = (*kept, part), cast("Any", here).get(part)
        elif isinstance(here, list) and isinstance(part, int):
            kept, here = (*kept, part), cast("Any", here)[part]
        else:
            break
    return kept


def _key(path: KeyPath) -> str:
    """The last name of a path; an entry of a list goes by the list's name."""
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def _part_of(model: type[BaseModel], loc: KeyPath) -> type[BaseModel]:
    """What describes the keys at this place of a recipe's parameters."""
    for name in loc:
        info = model.model_fields.get(str(name))
        if info is None or not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)):
            break
        model = info.annotation
    return model


def _model_at(loc: KeyPath) -> type[BaseModel] | None:
    """What describes the key at pydantic's place."""
    if any(part in _SOURCES for part in loc):
        return DataSource
    return StageSpec if len(loc) == 3 and loc[0] == "stages" else _SECTIONS.get(str(loc[-2])) if len(loc) > 1 else None


def _keys_at(loc: KeyPath) -> tuple[str, ...]:
    """The keys that may stand at this place."""
    if not loc:
        return _JOB_KEYS
    if any(part in _SOURCES for part in loc):
        return tuple(DataSource.model_fields)
    model = _SECTIONS.get(str(loc[-1]))
    if model is None:
        return _STAGE_KEYS
    return tuple(info.alias or name for name, info in model.model_fields.items())
