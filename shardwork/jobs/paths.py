"""The local files a stage names: paths and globs relative to the job file, expanded in a fixed order.

Owns finding them and saying which are missing. Reading rows is `shardwork.dataset`, judging a model folder is
`shardwork.models.folder`. Called by `shardwork.jobs.file`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..errors import InvalidInput
from ..models.hub import check_reference, is_remote
from ..problem import nearest, nearest_file
from .spec import OUTPUTS, STAGE_OUTPUT, checkpoint_meant, is_local

#: what the row reader understands (a test compares; importing it would load a tokenizer)
DATA_SUFFIXES = (".jsonl", ".txt", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_RELATIVE = "Paths are relative to the job file's folder."
#: what libraries write beside data
_NOT_ROWS = frozenset({"dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json", "package.json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFinding:
    """Something about a path that the job file's author should know."""

    key: str
    code: str
    sentence: str
    fix: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFiles:
    """An item of `data` and the files that it names; none for what an earlier stage makes."""

    path: str
    files: tuple[Path, ...]
    weight: float = 1.0
    mapping: Mapping[str, str] = field(default_factory=dict[str, str])
    format: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFiles:
    #: each item of `data` in order
    sources: tuple[SourceFiles, ...] = ()
    eval_sources: tuple[SourceFiles, ...] = ()
    #: None when the stage has none or takes it from an earlier stage
    base_model: Path | None = None
    #: a checkpoint on this machine; None when it begins anew, or where another job or stage left off
    continue_from: Path | None = None
    #: further models that lie on this machine, by what they are to the stage
    models: Mapping[str, Path] = field(default_factory=dict[str, Path])
    findings: tuple[PathFinding, ...] = ()

    @property
    def data(self) -> tuple[Path, ...]:
        return tuple(path for source in self.sources for path in source.files)

    @property
    def eval_data(self) -> tuple[Path, ...]:
        return tuple(path for source in self.eval_sources for path in source.files)


def find_files(stage: Mapping[str, object], folder: Path) -> StageFiles:
    """Expands the paths of a stage as written; `stage.output` references are left to the plan. Never raises."""
    findings: list[PathFinding] = []
    return StageFiles(
        sources=_expand_all(_items(stage.get("data")), "data", folder, findings),
        eval_sources=_expand_all(_items(stage.get("eval_data")), "eval_data", folder, findings),
        base_model=_base_model(stage.get("base_model"), folder, findings),
        continue_from=_checkpoint(stage.get("continue_from"), folder, findings),
        models=_further_models(stage.get("models"), folder, findings),
        findings=tuple(findings),
    )


def _items(value: object) -> list[Mapping[str, Any]]:
    """One item or many, each as a section; anything else is the schema's to refuse, and keeps its place."""
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return [{"path": item} if isinstance(item, str) else _section(item) for item in values]


def _section(item: object) -> Mapping[str, Any]:
    return cast("dict[str, Any]", item) if isinstance(item, dict) else {}


def _expand_all(
    items: list[Mapping[str, Any]], key: str, folder: Path, findings: list[PathFinding]
) -> tuple[SourceFiles, ...]:
    named: dict[Path, str] = {}
    found: list[SourceFiles] = []
    for item in items:
        pattern = item.get("path")
        if not isinstance(pattern, str) or not pattern:
            continue
        files = [] if STAGE_OUTPUT.match(pattern) else _expand(pattern, key, folder, findings)
        for path in files:
            if path in named:
                findings.append(
                    PathFinding(
                        key=key,
                        code="jobfile.file_twice",
                        sentence=f"{path.name} is named by {named[path]!r} and again by {pattern!r}; it is read once.",
                        fix="Name it once.",
                        is_warning=True,
                    )
                )
        fresh = tuple(path for path in dict.fromkeys(files) if path not in named)
        named |= dict.fromkeys(fresh, pattern)
        found.append(_source(pattern, fresh, item))
    return tuple(found)


def _source(pattern: str, files: tuple[Path, ...], item: Mapping[str, Any]) -> SourceFiles:
    """What is of another type than it should be is left out here, and refused with the spec."""
    weight, mapping, format_ = item.get("weight"), item.get("mapping"), item.get("format")
    return SourceFiles(
        path=pattern,
        files=files,
        weight=float(weight) if isinstance(weight, (int, float)) else 1.0,
        mapping=cast("dict[str, str]", mapping) if isinstance(mapping, dict) else {},
        format=format_ if isinstance(format_, str) else None,
    )


def _expand(pattern: str, key: str, folder: Path, findings: list[PathFinding]) -> list[Path]:
    """Files of one pattern in sorted order: a file, a folder (its data files), or a glob."""
    path = folder / Path(pattern).expanduser()
    if path.is_file():
        if path.suffix.lower() not in DATA_SUFFIXES:
            findings.append(_wrong_type(key, path))
            return []
        return [path]
    if path.is_dir():
        files = [entry for entry in path.rglob("*") if _is_data(entry)]
    else:
        files = [entry for entry in _glob(pattern, folder) if _is_data(entry)]
    if not files:
        is_odd = os.path.lexists(path) and not path.is_dir()
        findings.append(_no_file(key, pattern) if is_odd else _missing(key, pattern, path))
    return sorted(files)


def _glob(pattern: str, folder: Path) -> list[Path]:
    if not any(mark in pattern for mark in "*?["):
        return []
    full = Path(pattern).expanduser()
    if full.is_absolute():
        return list(Path(full.anchor).glob(str(full.relative_to(full.anchor))))
    return list(folder.glob(pattern))


def _is_data(path: Path) -> bool:
    if path.name.startswith((".", "_")) or path.name in _NOT_ROWS:
        return False
    return path.suffix.lower() in DATA_SUFFIXES and path.is_file()


def _wrong_type(key: str, path: Path) -> PathFinding:
    from ..dataset.source import conversion  # with its tokenizer, which a valid file need not wait for

    return PathFinding(
        key=key,
        code="jobfile.file_type",
        sentence=f"{path.name} is none of JSONL, JSON, CSV, TSV, Parquet and text.",
        fix=conversion(path),
    )


def _no_file(key: str, pattern: str) -> PathFinding:
    """A pipe or a device would be read once and be empty the next time; a link may lead nowhere."""
    return PathFinding(
        key=key,
        code="jobfile.missing_file",
        sentence=f"{pattern!r} is neither a file nor a folder: a pipe, a device, or a link that leads nowhere.",
        fix="Write the rows to a file and name that.",
    )


def _missing(key: str, pattern: str, path: Path) -> PathFinding:
    parent = path.parent
    near = nearest_file(path.name, (entry.name for entry in parent.iterdir())) if parent.is_dir() else None
    sentence = f"No data file lies at {pattern!r}."
    if not parent.is_dir() and not any(mark in pattern for mark in "*?["):
        sentence = f"The folder of {pattern!r} does not exist."
    fix = _output_meant(pattern) or (f"Did you mean {_beside(pattern, near)!r}?" if near else _RELATIVE)
    if pattern.startswith("~"):
        fix = "Write the whole path: '~' means nothing in a job file."
    elif "://" in pattern:
        fix = "Download it first: a job file names files of this machine."
    return PathFinding(
        key=key,
        code="jobfile.missing_file",
        sentence=sentence,
        fix=fix,
    )


def _output_meant(named: str) -> str:
    """What to do where the name is that of a stage's output but for a slip."""
    stage, dot, end = named.rpartition(".")
    near = nearest(end, OUTPUTS) if dot and "/" not in named else None
    return f"Did you mean {f'{stage}.{near}'!r}?" if near else ""


def _beside(given: str, name: str) -> str:
    """`name` where `given` lies, as the person wrote it."""
    folder, slash, _ = given.rpartition("/")
    return f"{folder}{slash}{name}"


def _base_model(named: object, folder: Path, findings: list[PathFinding]) -> Path | None:
    if not isinstance(named, str) or STAGE_OUTPUT.match(named):
        return None
    if is_remote(named):
        try:
            check_reference(named)
        except InvalidInput as error:
            why = error.why
            findings.append(PathFinding(key="base_model", code=why.code, sentence=why.sentence, fix=why.next_step))
        return None
    return _folder(named, ("base_model", "model folder", _output_meant(named) or _RELATIVE), folder, findings)


def _further_models(named: object, folder: Path, findings: list[PathFinding]) -> dict[str, Path]:
    """Folders among them; those of earlier stages are left to the plan."""
    found: dict[str, Path] = {}
    for role, reference in cast("dict[str, object]", named).items() if isinstance(named, dict) else ():
        if not isinstance(reference, str) or not reference or STAGE_OUTPUT.match(reference):
            continue
        key = f"models.{role}"
        if is_remote(reference):
            sentence = f"{reference!r} is no model of this machine or of an earlier stage."
            fix = "Download it and name its folder: only base_model is copied by the coordinator."
            findings.append(PathFinding(key=key, code="jobfile.remote_model", sentence=sentence, fix=fix))
            continue
        told = key, "model folder", _output_meant(reference) or _RELATIVE
        if (path := _folder(reference, told, folder, findings)) is not None:
            found[role] = path
    return found


def _checkpoint(named: object, folder: Path, findings: list[PathFinding]) -> Path | None:
    if not isinstance(named, str) or not named or not is_local(named) or checkpoint_meant(named):
        return None  # another job's or stage's, or the schema's to refuse
    begin, dot, end = named.rpartition(".")
    slip = dot and "/" not in named and nearest(end, ("checkpoint",))
    fix = (
        f"Did you mean {f'{begin}.checkpoint'!r}?" if slip else "Or name `stage.checkpoint` or `JOB.stage.checkpoint`."
    )
    return _folder(named, ("continue_from", "checkpoint folder", fix), folder, findings)


def _folder(named: str, told: tuple[str, str, str], folder: Path, findings: list[PathFinding]) -> Path | None:
    """`told`: the key, what it names, and what to do where nothing of a like name is there."""
    key, what, fix = told
    path = folder / Path(named).expanduser()
    if path.is_dir():
        return path
    siblings = path.parent.iterdir() if path.parent.is_dir() else iter(())
    near = nearest(path.name, (entry.name for entry in siblings if entry.is_dir()))
    findings.append(
        PathFinding(
            key=key,
            code="jobfile.missing_file",
            sentence=f"There is no {what} at {named!r}.",
            fix=f"Did you mean {_beside(named, near)!r}?" if near else fix,
        )
    )
    return None
