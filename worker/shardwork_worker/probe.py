"""What this machine offers: the Capability that the worker shows the coordinator.

Owns choosing the device and naming the execution class. The child asks torch (its "ready" frame); nothing here does.
"""

from __future__ import annotations

import difflib
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

from shardwork import recipes
from shardwork.errors import InvalidInput
from shardwork.v1 import work_pb2

from .settings import WorkerSettings
from .trainer_process import Device, Ready

#: the child's settings; both are part of the execution class because they change results
PRECISION = "fp32"
THREADS = 1


def choose_device(ready: Ready, wanted: str) -> Device:
    """The device named, or the best one for "auto". Raises InvalidInput "worker.no_such_device"."""
    if wanted == "auto":
        return ready.devices[0]
    for device in ready.devices:
        if device.device == wanted:
            return device
    names = [device.device for device in ready.devices]
    near = difflib.get_close_matches(wanted, names, n=1)
    raise InvalidInput(
        "worker.no_such_device",
        f"This machine has no device {wanted!r}.",
        next_step=f"Use --device {near[0] if near else names[0]}.",
        found=", ".join(names),
    )


def capability(
    ready: Ready, device: Device, *, disk: Path, sandbox: str = "none", settings: WorkerSettings | None = None
) -> work_pb2.Capability:
    """What the coordinator matches shards against. `disk` is any folder on the disk that holds the cache. What the
    owner does not want is not told, so that no offer of it comes."""
    wanted = settings or WorkerSettings()
    return work_pb2.Capability(
        device=device.device,
        device_name=device.name,
        memory_bytes=int(device.memory_bytes * wanted.memory_share),
        execution_class=execution_class(ready, device),
        threads=THREADS,
        recipes=[kind for kind in recipes.kinds() if not wanted.recipes or kind in wanted.recipes],
        can_train=bool(ready.torch),
        torch_version=ready.torch,
        disk_free_bytes=shutil.disk_usage(disk).free,
        sandbox=sandbox,
        abilities=sorted(device.abilities),
    )


def speeds(kept: Iterable[tuple[str, str, float]]) -> list[work_pb2.Speed]:
    """What a benchmark of this device said, for the Capability."""
    return [work_pb2.Speed(kind=kind, preset=preset, tokens_per_s=speed) for kind, preset, speed in kept]


def execution_class(ready: Ready, device: Device) -> str:
    """Equal classes promise equal bytes, so it names everything that was measured to change them."""
    kind = device.device.partition(":")[0]
    name = f"{platform.machine()}+{instruction_set()}" if kind == "cpu" else device.name
    version = ready.torch or "none"
    return f"{kind}:{name}:torch{version}:{PRECISION}:t{THREADS}"


def instruction_set(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The widest vector unit, which decides the order of sums in matrix products."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return "unknown"
    lines = (line.partition(":")[2] for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    flags = set(next(lines, "").split())
    for flag, name in (("avx512f", "avx512"), ("avx2", "avx2"), ("sve", "sve"), ("asimd", "neon")):
        if flag in flags:
            return name
    return "base"
