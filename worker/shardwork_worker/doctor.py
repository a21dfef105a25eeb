"""The doctor: what a shard would meet on this machine, check by check, before one does.

Each check gives a state and a Why: cause, evidence, and what to do. It changes nothing but making the worker's folders
and starts the child once. The CLI's `doctor` prints the findings.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shardwork.config import Home
from shardwork.errors import ShardworkError
from shardwork.identity.authority import JoinLine, fetch_ca
from shardwork.identity.keys import load_or_create
from shardwork.why import Why

from . import probe
from .app import CHILD_COMMAND, Folders, ground
from .sandbox.choice import OFF, Sandbox, choose, lacking
from .sandbox.jail import Held, Kind, Mode
from .sandbox.trials import TRIALS
from .settings import WorkerSettings
from .status import why_to_json
from .trainer_process import Ready, TrainerProcess

#: below these a worker runs, but small models are all it can take
LOW_DISK_BYTES = 10 * 1024**3
LOW_MEMORY_BYTES = 4 * 1024**3


class Health(StrEnum):
    OK = "ok"
    #: works, but the owner should know
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    health: Health
    why: Why

    def to_json(self) -> dict[str, Any]:
        return {"check": self.check, "health": self.health.value, **(why_to_json(self.why) or {})}


async def examine(
    home: Home,
    join: JoinLine | None = None,
    *,
    settings: WorkerSettings | None = None,
    child_command: Sequence[str] = CHILD_COMMAND,
) -> list[Finding]:
    """Every check, in the order in which a worker would fail. The child is started as `start` would start it."""
    folders, settings = Folders.of(home), settings or WorkerSettings()
    findings = [_check_folders(folders), _check_key(home)]
    if findings[0].health is not Health.BAD:
        mode = settings.sandbox
        # what is required and lacks is a finding here, not the end
        sandbox = await choose(Mode.AUTO if mode is Mode.REQUIRE else mode, ground(home, settings))
        findings += await _check_child(folders, sandbox.command(child_command))
        findings += _check_sandbox(sandbox, mode)
    if join is not None:
        findings.append(await _check_join(join))
    return findings


def _check_folders(folders: Folders) -> Finding:
    try:
        folders.make()
        touched = folders.artifacts / ".doctor"
        touched.write_bytes(b"")
        touched.unlink()
        free_bytes = shutil.disk_usage(folders.artifacts).free
    except OSError as error:
        next_step = "Mend the folder's permissions, or set SHARDWORK_HOME to another place."
        return _finding("disk", Health.BAD, "The worker's folders cannot be written.", next_step, error=error)
    evidence = {"folder": str(folders.artifacts), "free": _gib(free_bytes)}
    if free_bytes < LOW_DISK_BYTES:
        next_step = f"Free some; {_gib(LOW_DISK_BYTES)} hold the inputs of a 1B model."
        return _finding("disk", Health.NOTE, "There is little free disk.", next_step, **evidence)
    return _finding("disk", Health.OK, "Folders can be written and there is room.", **evidence)


def _check_key(home: Home) -> Finding:
    path = home.key_path("worker")
    if not path.exists():
        return _finding("key", Health.OK, "There is no key yet; `start` makes one.", path=path)
    try:
        load_or_create(path)
    except ShardworkError as error:
        return Finding("key", Health.BAD, error.why)
    return _finding("key", Health.OK, "The key is closed to other users.", path=path)


async def _check_child(folders: Folders, command: Sequence[str]) -> list[Finding]:
    trainer = TrainerProcess(command, log=folders.state / "doctor.log")
    try:
        ready = await trainer.start()
    except ShardworkError as error:
        return [Finding("child", Health.BAD, error.why)]
    finally:
        await trainer.stop()
    return [_check_torch(ready), *(_check_device(ready, number) for number in range(len(ready.devices)))]


def _check_torch(ready: Ready) -> Finding:
    if not ready.torch:
        sentence = "torch is not installed, so only shards that need no training can run."
        return _finding("torch", Health.NOTE, sentence, "pip install 'shardwork[worker]'")
    return _finding("torch", Health.OK, "The training child starts and has torch.", torch=ready.torch)


def _check_device(ready: Ready, number: int) -> Finding:
    device = ready.devices[number]
    name = f"device {device.device}"
    evidence = {
        "name": device.name,
        "memory": _gib(device.memory_bytes),
        "class": probe.execution_class(ready, device),
        "can": ", ".join(["fp32", *sorted(device.abilities)]) if ready.torch else "no training",
    }
    if device.memory_bytes < LOW_MEMORY_BYTES:
        sentence = "This device has little memory: it takes shards of small models only."
        return _finding(name, Health.NOTE, sentence, **evidence)
    return _finding(name, Health.OK, "Usable." if number else "Usable, and what `--device auto` takes.", **evidence)


def _check_sandbox(sandbox: Sandbox, mode: Mode) -> list[Finding]:
    """What holds, proved by trying to get out; then each layer, held or not, with what to install."""
    lacks = Health.BAD if mode is Mode.REQUIRE else Health.NOTE
    if sandbox == OFF:
        sentence = (
            "The training child has no sandbox: it runs as your user, without your environment and without a key."
        )
        return [_finding("sandbox", lacks, sentence, "Set sandbox to auto, or run the worker as a user of its own.")]
    tried, kept = len(TRIALS), len(TRIALS) - len(sandbox.escaped)
    if sandbox.holds:
        sentence = f"Shards are shut in ({sandbox.kind.value}): {kept} of {tried} ways out were tried and are closed."
        step = "" if kept == tried else "Open: " + ", ".join(sandbox.escaped)
        findings = [_finding("sandbox", Health.OK, sentence, step, kind=sandbox.kind.value)]
    else:
        findings = [Finding("sandbox", lacks, lacking(sandbox))]
    findings += [_layer(name, state, why) for name, (state, why) in sandbox.layers.items()]
    if sandbox.kind is not Kind.NONE and sandbox.jail is not None and sandbox.jail.devices:
        sentence = "GPUs are shown to the sandbox, which the makers of Shardwork could not try."
        findings.append(_finding("sandbox-gpu", Health.NOTE, sentence, "Prove it here: python deploy/gpu/check.py"))
    return findings


def _layer(name: str, state: str, why: str) -> Finding:
    words = f"{name}: {state}"
    health = Health.OK if state == Held.HELD.value else Health.NOTE
    return _finding(f"layer {name}", health, f"{words}." if not why else f"{words}, {why}")


async def _check_join(join: JoinLine) -> Finding:
    started_s = time.monotonic()
    try:
        await fetch_ca(join)
    except ShardworkError as error:
        return Finding("coordinator", Health.BAD, error.why)
    took_ms = round((time.monotonic() - started_s) * 1000)
    sentence = "The coordinator answers and is the one that the join line names. Its clock is not compared with ours."
    return _finding("coordinator", Health.OK, sentence, address=join.address, took_ms=took_ms)


def _finding(check: str, health: Health, sentence: str, next_step: str = "", **evidence: object) -> Finding:
    facts = {key: str(value) for key, value in evidence.items()}
    code = f"doctor.{check.partition(' ')[0]}_{health.value}"
    return Finding(check, health, Why(code=code, sentence=sentence, evidence=facts, next_step=next_step))


def _gib(count_bytes: int) -> str:
    return f"{count_bytes / 1024**3:.1f} GiB"
