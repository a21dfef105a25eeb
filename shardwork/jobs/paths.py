"""The local files a stage names: paths and globs relative to the job file, expanded in a fixed order.

Owns finding them and saying which are missing. Reading rows is `shardwork.dataset`, judging a model folder is
`shardwork.models.folder`. Called by `shardwork.jobs.file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..errors import InvalidInput
from ..models.hub import PREFIX, HubModel
from ..problem import nearest
from .spec import STAGE_OUTPUT

#: what the row reader understands
DATA_SUFFIXES = (".jsonl", ".txt")
_NOT_BUILT = (".parquet", ".csv", ".tsv", ".json", ".arrow", ".gz", ".zst")


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFinding:
    """Something about a path that the job file's author should know."""

    key: str
    code: str
    sentence: str
    fix: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFiles:
    data: tuple[Path, ...] = ()
    eval_data: tuple[Path, ...] = ()
    #: None when the stage has none or takes it from an earlier stage
    base_model: Path | None = None
    findings: tuple[PathFinding, ...] = ()


def find_files(stage: Mapping[str, object], folder: Path) -> StageFiles:
    """Expands the paths of a stage as written; `stage.output` references are left to the plan. Never raises."""
    findings: list[PathFinding] = []
    return StageFiles(
        data=_expand_all(_texts(stage.get("data")), "data", folder, findings),
        eval_data=_expand_all(_texts(stage.get("eval_data")), "eval_data", folder, findings),
        base_model=_base_model(stage.get("base_model"), folder, findings),
        findings=tuple(findings),
    )


def _texts(value: object) -> list[str]:
    """One path or many; anything else is the schema's to refuse."""
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str) and item]


def _expand_all(patterns: list[str], key: str, folder: Path, findings: list[PathFinding]) -> tuple[Path, ...]:
    found: dict[Path, str] = {}
    for pattern in patterns:
        if STAGE_OUTPUT.match(pattern):
            continue
        for path in _expand(pattern, key, folder, findings):
            if path in found:
                findings.append(
                    PathFinding(
                        key=key,
                        code="jobfile.file_twice",
                        sentence=f"{path.name} is named by {found[path]!r} and again by {pattern!r}; it is read once.",
                        fix="Name it once.",
                        is_warning=True,
                    )
                )
            found.setdefault(path, pattern)
    return tuple(found)


def _expand(pattern: str, key: str, folder: Path, findings: list[PathFinding]) -> list[Path]:
    """Files of one pattern in sorted order: a file, a folder (its JSONL and text files), or a glob."""
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
        findings.append(_missing(key, pattern, path))
    return sorted(files)


def _glob(pattern: str, folder: Path) -> list[Path]:
    if not any(mark in pattern for mark in "*?["):
        return []
    full = Path(pattern).expanduser()
    if full.is_absolute():
        return list(Path(full.anchor).glob(str(full.relative_to(full.anchor))))
    return list(folder.glob(pattern))


def _is_data(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in DATA_SUFFIXES and not path.name.startswith(".")


def _wrong_type(key: str, path: Path) -> PathFinding:
    from ..dataset.source import conversion  # with its tokenizer, which a valid file need not wait for

    built = "; this kind is not built yet" if path.suffix.lower() in _NOT_BUILT else ""
    return PathFinding(
        key=key,
        code="jobfile.file_type",
        sentence=f"{path.name} is neither JSONL nor text{built}.",
        fix=conversion(path),
    )


def _missing(key: str, pattern: str, path: Path) -> PathFinding:
    parent = path.parent
    near = nearest(path.name, (entry.name for entry in parent.iterdir())) if parent.is_dir() else None
    sentence = f"No JSONL or text file lies at {pattern!r}."
    if not parent.is_dir() and not any(mark in pattern for mark in "*?["):
        sentence = f"The folder of {pattern!r} does not exist."
    return PathFinding(
        key=key,
        code="jobfile.missing_file",
        sentence=sentence,
        fix=f"Did you mean {near!r}?" if near else "Paths are relative to the job file's folder.",
    )


def _base_model(named: object, folder: Path, findings: list[PathFinding]) -> Path | None:
    if not isinstance(named, str) or STAGE_OUTPUT.match(named):
        return None
    if named.startswith(PREFIX):
        try:
            HubModel.parse(named)
        except InvalidInput as error:
            why = error.why
            findings.append(PathFinding(key="base_model", code=why.code, sentence=why.sentence, fix=why.next_step))
        return None
    path = folder / Path(named).expanduser()
    if path.is_dir():
        return path
    siblings = path.parent.iterdir() if path.parent.is_dir() else iter(())
    near = nearest(path.name, (entry.name for entry in siblings if entry.is_dir()))
    findings.append(
        PathFinding(
            key="base_model",
            code="jobfile.missing_file",
            sentence=f"There is no model folder at {named!r}.",
            fix=f"Did you mean {near!r}?" if near else "Paths are relative to the job file's folder.",
        )
    )
    return None
