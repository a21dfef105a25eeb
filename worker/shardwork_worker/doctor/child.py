"""The training child: whether it starts, has torch, which devices it finds, and what shuts it in.

Owns the checks of the child and its sandbox. Called by `examination`; starts the child once, as `start` would.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardwork.errors import ShardworkError

from .. import probe
from ..app import Folders
from ..limits.size import show
from ..sandbox.choice import OFF, Sandbox, lacking
from ..sandbox.jail import Held, Kind, Mode
from ..sandbox.trials import TRIALS
from ..trainer_process import Ready, TrainerProcess
from .finding import Finding, Health, finding

#: below this a worker runs, but small models are all it can take
LOW_MEMORY_BYTES = 4 * 1024**3


async def check_child(folders: Folders, command: Sequence[str]) -> tuple[list[Finding], Ready | None]:
    """What it says of torch and its devices; None when it does not start."""
    trainer = TrainerProcess(command, log=folders.state / "doctor.log")
    try:
        ready = await trainer.start()
    except ShardworkError as error:
        return [Finding("child", Health.BAD, error.why)], None
    finally:
        await trainer.stop()
    return [_check_torch(ready), *(_check_device(ready, number) for number in range(len(ready.devices)))], ready


def _check_torch(ready: Ready) -> Finding:
    if not ready.torch:
        sentence = "torch is not installed, so only shards that need no training can run."
        return finding("torch", Health.NOTE, sentence, "pip install 'shardwork[worker]'")
    return finding("torch", Health.OK, "The training child starts and has torch.", torch=ready.torch)


def _check_device(ready: Ready, number: int) -> Finding:
    device = ready.devices[number]
    name = f"device {device.device}"
    evidence = {
        "name": device.name,
        "memory": show(device.memory_bytes),
        "class": probe.execution_class(ready, device),
        "can": ", ".join(["fp32", *sorted(device.abilities)]) if ready.torch else "no training",
    }
    if device.memory_bytes < LOW_MEMORY_BYTES:
        sentence = "This device has little memory: it takes shards of small models only."
        return finding(name, Health.NOTE, sentence, **evidence)
    return finding(name, Health.OK, "Usable." if number else "Usable, and what `--device auto` takes.", **evidence)


def check_sandbox(sandbox: Sandbox, mode: Mode) -> list[Finding]:
    """What holds, proved by trying to get out; then each layer, held or not, with what to install."""
    lacks = Health.BAD if mode is Mode.REQUIRE else Health.NOTE
    if sandbox == OFF:
        sentence = (
            "The training child has no sandbox: it runs as your user, without your environment and without a key."
        )
        return [finding("sandbox", lacks, sentence, "Set sandbox to auto, or run the worker as a user of its own.")]
    tried, kept = len(TRIALS), len(TRIALS) - len(sandbox.escaped)
    if sandbox.holds:
        sentence = f"Shards are shut in ({sandbox.kind.value}): {kept} of {tried} ways out were tried and are closed."
        step = "" if kept == tried else "Open: " + ", ".join(sandbox.escaped)
        findings = [finding("sandbox", Health.OK, sentence, step, kind=sandbox.kind.value)]
    else:
        findings = [Finding("sandbox", lacks, lacking(sandbox))]
    findings += [_layer(name, state, why) for name, (state, why) in sandbox.layers.items()]
    if sandbox.kind is not Kind.NONE and sandbox.jail is not None and sandbox.jail.devices:
        sentence = "GPUs are shown to the sandbox, which the makers of Shardwork could not try."
        findings.append(finding("sandbox-gpu", Health.NOTE, sentence, "Prove it here: python deploy/gpu/check.py"))
    return findings


def _layer(name: str, state: str, why: str) -> Finding:
    words = f"{name}: {state}"
    health = Health.OK if state == Held.HELD.value else Health.NOTE
    return finding(f"layer {name}", health, f"{words}." if not why else f"{words}, {why}")
