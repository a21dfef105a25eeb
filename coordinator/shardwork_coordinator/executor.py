"""Executor: runs prepare, split, merge, apply and join in the operator's own processes, never on the event loop.

A task is pure: artifacts in by id, artifacts out by id, so a repeated task gives the same ids and a crash costs only
time. The parent side (`Executor`) owns the pool and the scratch folders; the child side (`run_task`) owns one task: it
materialises inputs, dispatches by phase and stores the outputs. Called by the outbox. No torch in either.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import secrets
import shutil
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path

from pydantic import ValidationError

from shardwork.errors import ERRORS, Internal, InvalidInput, LimitExceeded, ShardworkError
from shardwork.recipes import recipe
from shardwork.recipes.base import Computed, Trainer
from shardwork.recipes.orders import ApplyOrder, MergeOrder, PrepareOrder
from shardwork.why import Why

from .artifacts import ArtifactStore
from .artifacts.opening import sealer_of
from .artifacts.sealing import PLAIN
from .inputcache import InputCache

#: materialised inputs kept between tasks: a round reads the checkpoint twice
CACHE_BYTES = 8 * 1024**3
#: never filled by tasks, so that the database can still be written
RESERVE_BYTES = 1 << 30
#: of the machine's memory, that one process may fill
MEMORY_SHARE = 0.8
OPEN_FILES = 4096
#: a phase that reads what a requester sent may take so long, and so long for each byte: tokenisers read 1 MB a second
PREPARE_SECONDS, PREPARE_BYTES_A_SECOND = 600.0, 20_000
BOUNDED = frozenset({"prepare", "split", "grade"})


@dataclass(frozen=True, slots=True)
class StorageKey:
    """Where a child finds the keys of the artifact store, and whether it encrypts what it stores."""

    file: Path
    seals: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorTask:
    #: for logs and folder names only; the result does not depend on it
    id: str
    phase: str
    #: recipe kind, for split and join
    recipe: str
    order_json: str
    #: input name -> artifact id
    inputs: Mapping[str, str]
    seed: bytes
    #: further inputs that are rows and no artifacts: input name -> file name -> text
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputInfo:
    artifact_id: str
    bytes: int
    #: path -> size in bytes
    files: Mapping[str, int]
    leaves: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorResult:
    outputs: Mapping[str, OutputInfo]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Failed:
    """A ShardworkError on its way between processes: exceptions with keyword arguments do not survive pickling."""

    error: str
    why_json: str

    def to_error(self) -> ShardworkError:
        return ERRORS.get(self.error, Internal).from_why(Why.from_json(self.why_json))


class Executor:
    """Processes that run one task each, and are replaced when they die. One instance per coordinator.

    Each is a pool of its own: in a common one a death ends every task that runs or waits there, and whoever makes his
    own task die could fail the jobs of others with it.
    """

    def __init__(
        self,
        artifact_location: str,
        scratch: Path,
        processes: int = 1,
        *,
        cache_bytes: int = CACHE_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        storage_key: StorageKey | None = None,
    ) -> None:
        self._location = artifact_location
        self._tasks = scratch / "tasks"
        self._cache = scratch / "cache"
        self._cache_bytes = cache_bytes
        self._reserve_bytes = reserve_bytes
        self._storage_key = storage_key
        self._slots = asyncio.Semaphore(processes)
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: set[ProcessPoolExecutor] = set()
        # what a killed coordinator left behind
        shutil.rmtree(self._tasks, ignore_errors=True)

    async def run(self, task: ExecutorTask) -> ExecutorResult:
        """Runs a task to its end. Raises the task's ShardworkError, or Internal "executor.died" when its process did.

        A cancelled call ends its process: tasks are pure, and nobody waits for this one.
        """
        folder = self._tasks / f"{secrets.token_hex(8)}"
        work = Work(
            task, self._location, folder, self._cache, self._cache_bytes, self._reserve_bytes, self._storage_key
        )
        try:
            outcome = await self._run(work)
        except BrokenProcessPool:
            raise Internal(
                "executor.died",
                "An executor process died, most often for want of memory.",
                next_step="Give the coordinator more memory, or fewer executor processes.",
                phase=task.phase,
                task=task.id,
            ) from None
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        if isinstance(outcome, Failed):
            raise outcome.to_error()
        return outcome

    async def _run(self, work: Work) -> ExecutorResult | Failed:
        patience_s = await asyncio.to_thread(self._patience_s, work.task)
        async with self._slots:
            process = self._take()
            try:
                running = asyncio.get_running_loop().run_in_executor(process, run_task, work)
                async with asyncio.timeout(patience_s):
                    outcome = await running
            except TimeoutError:
                self._busy.discard(process)
                await asyncio.to_thread(end_process, process)
                raise LimitExceeded(
                    "executor.too_slow",
                    f"The {work.task.phase} phase took longer than any honest input of its size does.",
                    next_step="Look for a tokenizer, rows or rewards that take for ever; `shardwork data check` meets "
                    "the first two.",
                    seconds=round(patience_s or 0),
                ) from None
            except BaseException:
                self._busy.discard(process)
                await asyncio.to_thread(end_process, process)
                raise
            self._busy.discard(process)
            self._idle.append(process)
            return outcome

    def _patience_s(self, task: ExecutorTask) -> float | None:
        """How long the task may take: a bound where foreign files are tokenised, or rewards that a job describes are
        held against answers that its own model wrote; the others work on numbers and votes."""
        if task.phase not in BOUNDED:
            return None
        store = open_artifacts(self._location, self._storage_key)
        read_bytes = sum(store.manifest(one).total_bytes for name, one in task.inputs.items() if name != "base")
        return PREPARE_SECONDS + read_bytes / PREPARE_BYTES_A_SECOND

    def close(self) -> None:
        """Ends the processes at once: tasks are pure, and whoever asked runs them again after a restart."""
        for process in [*self._idle, *self._busy]:
            end_process(process)
        self._idle.clear()
        self._busy.clear()

    def _take(self) -> ProcessPoolExecutor:
        """One that does nothing yet, from now on busy."""
        if self._idle:
            process = self._idle.pop()
        else:
            # spawn: a fork of a process with threads and gRPC inside may hang
            context = multiprocessing.get_context("spawn")
            process = ProcessPoolExecutor(1, mp_context=context, initializer=start_child)
        self._busy.add(process)
        return process


def open_artifacts(location: str, key: StorageKey | None) -> ArtifactStore:
    """On both sides: what is sealed can be read without its key by neither."""
    return ArtifactStore.open(location, sealer=PLAIN if key is None else sealer_of(key.file, seals=key.seals))


def end_process(process: ProcessPoolExecutor) -> None:
    # the pool itself could only wait for a merge of minutes; a broken one has none left
    for child in list((process._processes or {}).values()):
        child.kill()
    process.shutdown(wait=True, cancel_futures=True)


# ---- child side -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """A task and where its child finds things."""

    task: ExecutorTask
    artifact_location: str
    #: the task's own folder; the parent deletes it
    folder: Path
    cache: Path
    cache_bytes: int
    reserve_bytes: int = RESERVE_BYTES
    storage_key: StorageKey | None = None


def start_child() -> None:
    """Ctrl-C is the parent's business, and a child does not outlive its parent. When memory ends, it ends first: its
    task is tried again, and a coordinator that the system picked would take every worker's stream along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limit()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True, name="parent-watch").start()


def _limit() -> None:
    """What a hostile file could make a task take. Never raised again; where the system lacks one, the others hold."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, int(memory * MEMORY_SHARE)),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def _follow(parent_sentinel: int) -> None:
    wait([parent_sentinel])
    os._exit(1)


def run_task(work: Work) -> ExecutorResult | Failed:
    """Runs one task in this process. Errors come back as values; only a dying process raises."""
    try:
        return _run(work)
    except ShardworkError as error:
        return Failed(type(error).__name__, error.why.to_json())
    except Exception as error:
        found = Internal(
            "executor.failed", "An executor phase failed unexpectedly.", phase=work.task.phase, error=_told(error, work)
        )
        return Failed("Internal", found.why.to_json())


def _told(error: Exception, work: Work) -> str:
    """The job's owner reads it, who must not learn where on the operator's disk his job lies."""
    text = f"{type(error).__name__}: {error}"
    for place in (work.folder, work.cache, work.artifact_location):
        text = text.replace(str(place), "…")
    return text[:500]


def _run(work: Work) -> ExecutorResult:
    store = open_artifacts(work.artifact_location, work.storage_key)
    cache = InputCache(work.cache, store, limit_bytes=work.cache_bytes)
    wanted = {store.manifest(one) for one in work.task.inputs.values() if not cache.has(one)}
    missing_bytes = sum(one.total_bytes for one in wanted)
    if shutil.disk_usage(work.cache).free - missing_bytes < work.reserve_bytes:
        cache.make_room()
        missing_bytes = sum(store.manifest(one).total_bytes for one in set(work.task.inputs.values()))
    _check_room(shutil.disk_usage(work.cache).free, missing_bytes, work)
    inputs = {
        name: cache.link(artifact_id, work.folder / "inputs" / _plain(name))
        for name, artifact_id in work.task.inputs.items()
    }
    inputs |= {name: _written(work.folder / "inputs" / _plain(name), work.task.texts[name]) for name in work.task.texts}
    computed = compute(work.task, TaskContext(inputs, work.task.seed, work.folder / "outputs"))
    outputs: dict[str, OutputInfo] = {}
    for name, folder in computed.outputs.items():
        _check_room(store.free_bytes(), sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), work)
        manifest = store.put_folder(folder)
        cache.keep(manifest.id, folder)
        outputs[name] = OutputInfo(
            artifact_id=manifest.id,
            bytes=manifest.total_bytes,
            files={entry.path: entry.size for entry in manifest.files},
            leaves=manifest.leaf_count,
        )
    return ExecutorResult(outputs=outputs, metrics=dict(computed.metrics))


def _written(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / _plain(name)).write_text(text, encoding="utf-8")
    return folder


def _check_room(free_bytes: int, needed_bytes: int, work: Work) -> None:
    """What a requester sends is copied here, and may be any size: a full disk would stop every job, not only his."""
    if free_bytes - needed_bytes < work.reserve_bytes:
        raise LimitExceeded(
            "executor.no_space",
            f"The coordinator's disk has no room for the {work.task.phase} phase.",
            next_step="Ask the operator to free space, then submit the job again.",
            needed_bytes=needed_bytes,
            free_bytes=free_bytes,
        )


def compute(task: ExecutorTask, context: TaskContext) -> Computed:
    """Dispatches by phase. Heavy modules are imported by the phases that need them."""
    try:
        match task.phase:
            case "prepare":
                from shardwork.recipes import measure, prepare

                # first of all, because it also refuses a base that holds code, pickles or another kind of model
                order = PrepareOrder.model_validate_json(task.order_json)
                measured = measure.counted(order, context.inputs.get("base"))
                computed = prepare.compute(task.phase, task.order_json, context)
                return replace(computed, metrics={**computed.metrics, **measured})
            case "merge":
                from .aggregate import merge

                return merge.compute(MergeOrder.model_validate_json(task.order_json), context)
            case "apply":
                from .aggregate import apply

                return apply.compute(ApplyOrder.model_validate_json(task.order_json), context)
            case "split" | "join" | "grade":
                return recipe(task.recipe).compute(task.phase, task.order_json, context)
            case _:
                raise Internal("executor.unknown_phase", f"No executor phase is called {task.phase!r}.")
    except ValidationError as error:
        raise InvalidInput("executor.bad_order", "An order is malformed.", phase=task.phase, reason=error) from error


class TaskContext:
    """The executor's Context: folders in the task's own place, no trainer, progress unheard."""

    def __init__(self, inputs: Mapping[str, Path], seed: bytes, outputs: Path) -> None:
        self._inputs = dict(inputs)
        self._seed = seed
        self._outputs = outputs

    @property
    def inputs(self) -> Mapping[str, Path]:
        return self._inputs

    @property
    def seed(self) -> bytes:
        return self._seed

    @property
    def trainer(self) -> Trainer:
        raise Internal("executor.no_trainer", "The coordinator's executor has no torch and trains nothing.")

    def output(self, name: str) -> Path:
        folder = self._outputs / _plain(name)
        folder.mkdir(parents=True)
        return folder

    def progress(self, fraction: float, *, loss: float | None = None) -> None:
        """Nobody listens: executor phases are short."""


def _plain(name: str) -> str:
    if not name or name != os.path.basename(name) or name in (".", ".."):
        raise Internal("executor.bad_name", "An input or output has a name that is no plain word.", name=name)
    return name
