"""Which sandbox this machine can have: tries each with a real probe inside, and keeps the best.

Owns the order of what is tried, the listeners and the secret that the probe must not reach, and the words for what
holds. Called once by the app at start, and by the doctor. The probe is `trials`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shardwork.errors import Conflict
from shardwork.why import Why

from . import bubblewrap, landlock
from .confine import FLAG
from .jail import Held, Jail, Kind, Layer, Mode, gpu_nodes, physical_memory_bytes, python_roots
from .trials import TARGETS_FLAG, TRIALS, Area, Targets

TRIAL_COMMAND = (sys.executable, "-I", "-m", "shardwork_worker.sandbox.trials")
TRIAL_TIMEOUT_S = 60.0
#: what a worker must keep a shard from before it may say that it has a sandbox
ESSENTIAL = (Area.FILES, Area.NETWORK, Area.PROCESSES, Area.KERNEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where the child works and what is kept from it."""

    #: read only: inputs of shards
    inputs: Path
    #: the one folder that shards write
    work: Path
    #: temporary files, where the sandbox has none of its own
    scratch: Path
    #: folders with keys, journals, settings
    hidden: Sequence[Path]
    #: the folder of keys: the probe tries to read a file there
    keys: Path
    output_bytes: int
    #: one process for each GPU
    processes: bool = False
    #: of this machine's memory, for the child
    memory_share: float = 1.0

    def jail(self) -> Jail:
        return Jail(
            readable=(*python_roots(), str(self.inputs)),
            writable=(str(self.work),),
            devices=tuple(gpu_nodes()),
            hidden=tuple(sorted({str(folder) for folder in self.hidden})),
            memory_bytes=int(physical_memory_bytes() * self.memory_share),
            file_bytes=self.output_bytes,
            processes=self.processes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """One way to run a child, and what the probe found out about it."""

    kind: Kind
    jail: Jail | None = None
    program: str = ""
    #: layer -> (held, not held or absent; why and what to do)
    layers: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    #: trial -> what it got
    escaped: Mapping[str, str] = field(default_factory=dict[str, str])
    #: whether a probe ran at all
    tried: bool = False

    def command(self, command: Sequence[str]) -> tuple[str, ...]:
        """The child's command line inside this sandbox."""
        if self.jail is None:
            return tuple(command)
        inner = [*command, FLAG, self.jail.to_json()]
        return tuple(bubblewrap.wrapped(self.program, self.jail, inner) if self.kind is Kind.BUBBLEWRAP else inner)

    @property
    def open_areas(self) -> list[str]:
        """What is not kept from a shard."""
        if not self.tried:
            return [area.value for area in Area]
        open_ = {TRIALS[name][0] for name in self.escaped}
        return [area.value for area in Area if area in open_]

    @property
    def holds(self) -> bool:
        """Whether every essential trial failed."""
        return self.kind is not Kind.NONE and not {area.value for area in ESSENTIAL} & set(self.open_areas)

    @property
    def word(self) -> str:
        """For the coordinator and `status`: the kind if it holds, else partial or none."""
        if self.kind is Kind.NONE:
            return Kind.NONE.value
        return self.kind.value if self.holds else "partial"

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "holds": self.holds,
            "layers": {name: {"state": state, "why": why} for name, (state, why) in self.layers.items()},
            "escaped": dict(self.escaped),
        }


OFF = Sandbox(kind=Kind.NONE)


async def choose(mode: Mode, ground: Ground) -> Sandbox:
    """The best sandbox that works here. Raises Conflict "worker.no_sandbox" when one is required and none holds."""
    if mode is Mode.OFF:
        return OFF
    found: list[Sandbox] = []
    for kind in (Kind.BUBBLEWRAP, Kind.KERNEL, Kind.NONE):
        found.append(await tried(kind, ground))
        if found[-1].holds:
            break
    order = list(Kind)
    best = min(found, key=lambda one: (not one.holds, len(one.open_areas), order.index(one.kind)))
    best = replace(best, layers={**_reasons(found), **best.layers})
    if mode is Mode.REQUIRE and not best.holds:
        why = lacking(best)
        raise Conflict("worker.no_sandbox", f"No sandbox holds here: {why.sentence}", next_step=why.next_step)
    return best


def lacking(sandbox: Sandbox) -> Why:
    """What is missing, with what to install: said at start, by `doctor` and by `status`."""
    steps = {Layer.BUBBLEWRAP.value: bubblewrap.INSTALL, Layer.LANDLOCK.value: landlock.INSTALL}
    missing = [name for name, (state, _) in sandbox.layers.items() if state != Held.HELD.value]
    reasons = {name: why for name, (state, why) in sandbox.layers.items() if state != Held.HELD.value}
    if not sandbox.tried:
        sentence = "the child runs as your user with everything that your user may do, because the sandbox is off."
        return Why(code="worker.sandbox_off", sentence=sentence, next_step="Set sandbox to auto.")
    openly = ", ".join(sandbox.open_areas) or "nothing essential"
    return Why(
        code="worker.sandbox_partial",
        sentence=f"what a shard is not kept from: {openly}.",
        evidence={**reasons, **{f"escape: {name}": got for name, got in sandbox.escaped.items()}},
        next_step=" ".join(steps[name] for name in missing if name in steps),
    )


async def tried(kind: Kind, ground: Ground) -> Sandbox:
    """This kind with what the probe inside found; Kind.NONE with the reason where it can't be had."""
    jail = ground.jail().with_kind(kind, ground.scratch)
    sandbox = Sandbox(kind=kind, jail=jail, program=bubblewrap.find() or "")
    if kind is Kind.BUBBLEWRAP and not sandbox.program:
        return _failed(Layer.BUBBLEWRAP, Held.ABSENT, f"bwrap is not installed. {bubblewrap.INSTALL}")
    if kind is Kind.KERNEL and sys.platform != "linux":
        return _failed(Layer.LANDLOCK, Held.ABSENT, "Landlock and seccomp are Linux's")
    try:
        with _targets(ground) as targets:
            found = await _probe(sandbox, targets)
    except (OSError, ValueError, TimeoutError) as error:
        layer = Layer.BUBBLEWRAP if kind is Kind.BUBBLEWRAP else Layer.LIMITS
        advice = f" {bubblewrap.NAMESPACES}" if kind is Kind.BUBBLEWRAP else ""
        return _failed(layer, Held.NOT_HELD, f"{str(error)[-300:] or type(error).__name__}.{advice}")
    layers = {name: (str(state), str(why)) for name, (state, why) in found["layers"].items()}
    if kind is Kind.BUBBLEWRAP:
        layers = {Layer.BUBBLEWRAP.value: (Held.HELD.value, ""), **layers}
    return replace(sandbox, layers=layers, escaped=found["escaped"], tried=True)


def _failed(layer: Layer, held: Held, why: str) -> Sandbox:
    return Sandbox(kind=Kind.NONE, layers={layer.value: (held.value, why)})


def _reasons(found: Sequence[Sandbox]) -> dict[str, tuple[str, str]]:
    """Why better ones were not taken, layer by layer."""
    reasons: dict[str, tuple[str, str]] = {}
    for one in found:
        for name, state in one.layers.items():
            reasons.setdefault(name, state)
    return reasons


async def _probe(sandbox: Sandbox, targets: Targets) -> dict[str, Any]:
    """What the trials say. Raises ValueError with the program's last words when they did not run to their end."""
    command = sandbox.command((*TRIAL_COMMAND, TARGETS_FLAG, targets.to_json()))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={},
        cwd="/",
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            out, said = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise ValueError(said.decode(errors="replace").strip() or f"the probe ended with {process.returncode}")
    return dict(json.loads(out))


@contextlib.contextmanager
def _targets(ground: Ground) -> Generator[Targets]:
    """Things to reach: a secret beside the key, listeners, this process. Removed afterwards."""
    secret = secrets.token_hex(16)
    for folder in (ground.keys, ground.work, ground.inputs, ground.scratch):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    planted = ground.keys / f".probe-{secret[:8]}"
    planted.touch(mode=0o600)
    planted.write_text(secret)
    with contextlib.ExitStack() as stack:
        stack.callback(planted.unlink, missing_ok=True)
        stack.callback(_clear, ground.work)
        listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        abstract = f"shardwork-probe-{secret}"
        control = planted.with_suffix(".sock")
        if sys.platform == "linux":
            keys = os.open(ground.keys, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, keys)
            stack.callback(control.unlink, missing_ok=True)
            # a path may be too long for an address
            for address in ("\0" + abstract, f"/proc/self/fd/{keys}/{control.name}"):
                unix = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                unix.bind(address)
                unix.listen()
        yield Targets(
            home=str(Path.home()),
            secret_file=str(planted),
            secret=secret,
            inputs=str(ground.inputs),
            agent_pid=os.getpid(),
            tcp_port=int(listener.getsockname()[1]),
            abstract_name=abstract,
            socket_path=str(control),
        )


def _clear(work: Path) -> None:
    for left in work.glob(".shardwork-trial*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
