"""Measuring: what the command line measures on a requester's own machine, measured here for one who has only HTTP.

Rows, tokens and parameters of inputs that lie in the artifact store, by the same code (`shardwork.client.facts`), in
processes of their own (`lanes`): tokenising holds the interpreter for seconds, and files are strangers'. Only headers
of weights are read, and of data only what `prepare` reads, too: JSONL and text. The measured job is then submitted as
everybody's is, and `prepare` counts again.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shardwork.artifact import Manifest
from shardwork.client.facts import CheckRequest, DataInvalid, check_files, measure_stages
from shardwork.dataset.source import PLAIN_SUFFIXES, conversion
from shardwork.errors import Internal, InvalidInput, LimitExceeded, ShardworkError
from shardwork.jobs.file import LoadedJob
from shardwork.jobs.paths import SourceFiles, StageFiles
from shardwork.jobs.spec import DataItem, DataSource, JobSpec, StageSpec, is_local, path_of
from shardwork.problem import Problem
from shardwork.recipes.base import StageFacts
from shardwork.tensors.header import MAX_HEADER_BYTES
from shardwork.why import Why

from ..artifacts import ArtifactStore
from ..executor import RESERVE_BYTES, Failed, StorageKey, open_artifacts
from .failures import Unfit
from .lanes import Lanes

#: rows of one job; more are measured where they lie, by the command line
MOST_DATA_BYTES = 2 << 30
#: of a model's small files, all of them
MOST_COMPANION_BYTES = 256 << 20
#: how the name of an input that is a model ends, and its files that are not read
MODEL, WEIGHTS = ".base_model", ".safetensors"
_NUMBERED = re.compile(r"^[0-9]{5}-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    #: with everything that had to fit the model, as it is submitted
    spec_json: str
    #: stage -> facts
    facts: Mapping[str, StageFacts]
    #: of the data
    warnings: tuple[Why, ...] = ()


@dataclass(frozen=True, slots=True)
class _Unfit:
    """`Unfit` on its way between processes."""

    why_json: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    spec_json: str
    #: "<stage>.data" and so on -> artifact id
    inputs: Mapping[str, str]
    location: str
    storage_key: StorageKey | None
    folder: Path
    reserve_bytes: int


@dataclass(slots=True)
class Measurer:
    location: str
    scratch: Path
    storage_key: StorageKey | None = None
    #: of the disk, never filled by copies
    reserve_bytes: int = RESERVE_BYTES
    lanes: Lanes = field(default_factory=Lanes)

    async def measure(self, spec: JobSpec, inputs: Mapping[str, str], party: str) -> Measured:
        """The inputs must be the party's own. Raises Unfit "data.invalid", InvalidInput of models and parameters,
        LimitExceeded "measuring.*"."""
        folder = self.scratch / f"measure-{secrets.token_hex(8)}"
        question = Question(
            spec_json=spec.canonical_json(),
            inputs=dict(inputs),
            location=self.location,
            storage_key=self.storage_key,
            folder=folder,
            reserve_bytes=self.reserve_bytes,
        )
        size = await asyncio.to_thread(_bytes_of, question)
        try:
            found = _told(await self.lanes.ask(party, measure_here, question, size))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        assert isinstance(found, Measured)
        return found

    async def check(self, file: Path, size_bytes: int, party: str) -> None:
        """Rows for a chat, before any model is named. Raises Unfit "data.invalid"."""
        _told(await self.lanes.ask(party, check_here, file, size_bytes))

    def close(self) -> None:
        self.lanes.close()


def _told(outcome: object) -> object:
    """Raises what the process found wrong."""
    if isinstance(outcome, _Unfit):
        raise Unfit(Why.from_json(outcome.why_json), list(outcome.problems))
    if isinstance(outcome, Failed):
        raise outcome.to_error()
    return outcome


def _bytes_of(question: Question) -> int:
    """Of the rows. Raises LimitExceeded "measuring.too_large"."""
    store = open_artifacts(question.location, question.storage_key)
    data = [one for name, one in question.inputs.items() if not name.endswith(MODEL)]
    found = sum(store.manifest(one).total_bytes for one in data)
    if found > MOST_DATA_BYTES:
        raise LimitExceeded(
            "measuring.too_large",
            "The files are larger than what is measured here.",
            next_step="Submit with `shardwork job submit`, which measures them on your machine, or send `facts`.",
            bytes=found,
            limit_bytes=MOST_DATA_BYTES,
        )
    return found


# ---- the process -------------------------------------------------------------------------------------------------


def measure_here(question: Question) -> Measured | _Unfit | Failed:
    """Errors come back as values, without a word of where on the operator's disk the files lay."""
    try:
        return _measure(question)
    except DataInvalid as error:
        problems = tuple(_cleaned(problem, question) for problem in error.problems[:50])
        return _Unfit(_clean(error.why.to_json(), question), problems)
    except ShardworkError as error:
        return Failed(type(error).__name__, _clean(error.why.to_json(), question))
    except Exception as error:
        return Failed("Internal", _failed(error).why.to_json())


def check_here(file: Path) -> _Unfit | Failed | None:
    """The rows of one file that was handed in."""
    try:
        report = check_files(CheckRequest(files=[file], recipe="sft"))
        # a file for validation may be small
        errors = [one for one in report.errors if one.code != "data.too_few"]
        problems = errors or list(_unheeded(file))
    except ShardworkError as error:
        return Failed(type(error).__name__, error.why.to_json().replace(f"{file.parent}/", ""))
    except Exception as error:
        return Failed("Internal", _failed(error).why.to_json())
    if not problems:
        return None
    told = tuple(replace(one, file=file.name) for one in problems[:50])
    why = Why(
        code="data.invalid",
        sentence=f"The file has {len(problems)} problem(s). The first: {told[0].render()}",
        evidence={"param": "file", "line": str(told[0].line or "")},
        next_step=told[0].fix,
    )
    return _Unfit(why.to_json(), told)


def _unheeded(file: Path) -> Iterator[Problem]:
    """What such files may hold and training here would not heed: messages with a weight of 0, and functions."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not any(word in line for word in (b'"weight"', b'"function')):
                continue
            # it was read before, and is a row of some format
            row: dict[str, Any] = json.loads(line)
            turns: list[dict[str, Any]] = [turn for turn in row.get("messages", []) if isinstance(turn, dict)]
            for key, is_there in (
                ("weight", any(turn.get("weight", 1) != 1 for turn in turns)),
                ("functions", "functions" in row),
                ("function_call", any("function_call" in turn for turn in turns)),
            ):
                if is_there:
                    yield Problem(
                        file=str(file),
                        line=number,
                        key=key,
                        code="data.not_built",
                        sentence=f"`{key}` would change what is learned, and is not built yet.",
                        fix="Use `tools` and `tool_calls`." if key != "weight" else "Leave the message out.",
                    )
                    return


def _failed(error: Exception) -> Internal:
    return Internal("measuring.failed", "The files can't be measured.", error=type(error).__name__)


def _measure(question: Question) -> Measured:
    store = open_artifacts(question.location, question.storage_key)
    question.folder.mkdir(parents=True)
    _check_room(question, store)
    spec = JobSpec.model_validate_json(question.spec_json)
    files = {stage.name: _files(stage, question, store) for stage in spec.stages}
    stages = measure_stages(LoadedJob(spec=spec, folder=question.folder, files=files, file="job"))
    spec = spec.model_copy(update={"stages": [each.stage for each in stages]})
    return Measured(
        spec_json=spec.canonical_json(),
        facts={each.stage.name: each.facts for each in stages},
        warnings=tuple(_cleaned_why(why, question) for each in stages for why in each.warnings),
    )


def _check_room(question: Question, store: ArtifactStore) -> None:
    """What is copied to be read. Raises LimitExceeded "measuring.no_space": a full disk would stop every job."""
    needed = 0
    for name, artifact_id in question.inputs.items():
        files = store.manifest(artifact_id).files
        needed += sum(each.size for each in files if not (name.endswith(MODEL) and each.path.endswith(WEIGHTS)))
    free = shutil.disk_usage(question.folder).free
    if free - needed < question.reserve_bytes:
        raise LimitExceeded(
            "measuring.no_space",
            "The coordinator's disk has no room to measure the files.",
            next_step="Ask the operator to free space, or submit with `shardwork job submit`, which measures them on "
            "your machine.",
            needed_bytes=needed,
            free_bytes=free,
        )


def _files(stage: StageSpec, question: Question, store: ArtifactStore) -> StageFiles:
    if stage.continue_from is not None and is_local(stage.continue_from):
        raise InvalidInput(
            "measuring.checkpoint",
            "A checkpoint that was sent is not measured here.",
            next_step="Continue from JOB.stage.checkpoint, or submit with `shardwork job submit`.",
            key="continue_from",
        )
    model = question.inputs.get(f"{stage.name}{MODEL}")
    place = question.folder / stage.name
    return StageFiles(
        sources=_sources(stage.data, question.inputs.get(f"{stage.name}.data"), place / "data", store),
        eval_sources=_sources(stage.eval_data, question.inputs.get(f"{stage.name}.eval_data"), place / "eval", store),
        base_model=sparse_model(store, model, place / "model") if model else None,
        models={
            role: sparse_model(store, question.inputs[f"{stage.name}.models.{role}"], place / f"model-{role}")
            for role in stage.models
            if f"{stage.name}.models.{role}" in question.inputs
        },
    )


def _sources(
    items: list[DataItem], artifact_id: str | None, into: Path, store: ArtifactStore
) -> tuple[SourceFiles, ...]:
    """Each item with its files; several have a folder each, as `shardwork.client.staging` lays them out."""
    if artifact_id is None:
        return ()
    store.materialise(artifact_id, into)
    found: list[SourceFiles] = []
    for number, item in enumerate(items):
        folder = into / f"source-{number:03d}" if len(items) > 1 else into
        source = SourceFiles(path=path_of(item), files=_plain_files(folder))
        if not isinstance(item, str):
            _check_unchanged(item)
            source = replace(source, weight=item.weight)
        found.append(source)
    return tuple(found)


def _plain_files(folder: Path) -> tuple[Path, ...]:
    """Raises InvalidInput "measuring.not_plain" for what `prepare` would leave out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    odd = next((path for path in paths if path.suffix.lower() not in PLAIN_SUFFIXES), None)
    if odd is not None:
        shown = odd.with_name(_NUMBERED.sub("", odd.name))
        raise InvalidInput(
            "measuring.not_plain",
            f"A coordinator reads JSONL and text, and {shown.name!r} is neither by its ending.",
            next_step=f"{conversion(shown)} `shardwork job submit` converts what it can by itself.",
            key="data",
        )
    return tuple(paths)


def _check_unchanged(item: DataSource) -> None:
    """A mapping is applied by whoever sends the rows, once."""
    if item.mapping or item.format is not None:
        raise InvalidInput(
            "measuring.mapped",
            "What was sent over HTTP is read as it lies, without a mapping or a format.",
            next_step="Send rows under our names, or submit with `shardwork job submit`, which converts them.",
            key="data",
        )


def sparse_model(store: ArtifactStore, artifact_id: str, into: Path) -> Path:
    """A model folder whose weights are headers and holes."""
    manifest = store.manifest(artifact_id)
    into.mkdir(parents=True)
    files = [entry for entry in manifest.files if "/" not in entry.path]
    small = sum(entry.size for entry in files if not entry.path.endswith(WEIGHTS))
    if small > MOST_COMPANION_BYTES:
        raise LimitExceeded(
            "measuring.too_large",
            "The files beside the model's weights are larger than what is read here.",
            next_step="Leave out what no tokenizer and no config needs.",
            bytes=small,
            limit_bytes=MOST_COMPANION_BYTES,
        )
    for entry in files:
        start, count = manifest.leaf_span(entry.path)
        with (into / entry.path).open("wb") as file:
            if entry.path.endswith(WEIGHTS):
                file.write(_header(store, manifest, start, count))
                file.truncate(entry.size)
                continue
            for leaf in store.read_leaves(artifact_id, start, count):
                file.write(leaf)
    return into


def _header(store: ArtifactStore, manifest: Manifest, start: int, count: int) -> bytes:
    """The first bytes of a safetensors file to the end of its header; an unsound one is `inspect_model`'s to refuse."""
    data = bytearray()
    for leaf in store.read_leaves(manifest.id, start, count):
        data += leaf
        wanted = 8 + min(int.from_bytes(data[:8], "little"), MAX_HEADER_BYTES)
        if len(data) >= wanted:
            return bytes(data[:wanted])
    return bytes(data)


def _cleaned(problem: Problem, question: Question) -> Problem:
    return replace(
        problem,
        file=_NUMBERED.sub("", Path(problem.file).name),
        sentence=_clean(problem.sentence, question),
        fix=_clean(problem.fix, question),
    )


def _cleaned_why(why: Why, question: Question) -> Why:
    return Why.from_json(_clean(why.to_json(), question))


def _clean(text: str, question: Question) -> str:
    """Without our folders and the numbers before the names in them."""
    place = re.escape(str(question.folder))
    return re.sub(rf"{place}/(?:[^/\s\"',:]+/)*(?:[0-9]{{5}}-)?", "", text).replace(str(question.folder), "…")
