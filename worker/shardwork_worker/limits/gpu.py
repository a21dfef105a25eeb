"""What NVIDIA's own tool says of the GPUs: power, temperature, memory, driver, and who computes on them.

Owns calling `nvidia-smi` and reading its answer. Absent or broken tools give no reading, never an error: a worker on
a CPU has none. Used by the guard, the doctor, `bench` and `top`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

TOOL = "nvidia-smi"
#: for its answer, and for its end where none came
TIMEOUT_S, END_S = 5.0, 1.0
FIELDS = "index,name,driver_version,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw,power.limit"
CUDA = re.compile(r"CUDA (?:UMD )?Version:\s*(\d+\.\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One GPU at one moment. What the tool does not know is None."""

    index: int
    name: str
    driver: str
    memory_mib: float | None
    used_mib: float | None
    busy_percent: float | None
    celsius: float | None
    watts: float | None
    #: the most that the driver lets it draw
    limit_watts: float | None


def is_here() -> bool:
    return shutil.which(TOOL) is not None


async def readings() -> list[Reading]:
    """Every GPU; none without the tool, or when it fails."""
    text = await ask(f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits")
    return [one for line in text.splitlines() if (one := _reading(line.split(","))) is not None]


async def computing_pids() -> list[int]:
    """Processes that compute on any GPU, as far as the tool sees them."""
    text = await ask("--query-compute-apps=pid", "--format=csv,noheader,nounits")
    return [int(line) for line in text.split() if line.isdigit()]


async def newest_cuda() -> str:
    """The newest CUDA that the driver serves, as "12.4"; empty when the tool does not say."""
    found = CUDA.search(await ask())
    return found[1] if found else ""


def of_device(found: Sequence[Reading], device: str) -> list[Reading]:
    """Those that a worker on this device computes on: "cuda:1" is the second, "cuda*2" the first two."""
    kind, _, number = device.partition(":")
    if kind == "cuda":
        return [one for one in found if one.index == int(number or 0)]
    if kind.startswith("cuda*"):
        return list(found)[: int(kind.removeprefix("cuda*") or 0)]
    return []


async def ask(*arguments: str) -> str:
    """What the tool prints; empty when there is none, it fails, or it takes too long, as a hung driver does."""
    tool = shutil.which(TOOL)
    if tool is None:
        return ""
    try:
        process = await asyncio.create_subprocess_exec(
            tool, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, _ = await process.communicate()
    except TimeoutError:
        out = b""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # one that waits for a hung driver can't even be killed, and must not hold its caller
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()
    return out.decode(errors="replace") if process.returncode == 0 else ""


def _reading(cells: list[str]) -> Reading | None:
    cells = [cell.strip() for cell in cells]
    if len(cells) != len(FIELDS.split(",")) or not cells[0].isdigit():
        return None
    memory, used, busy, celsius, watts, limit = map(_number, cells[3:])
    return Reading(
        index=int(cells[0]),
        name=cells[1],
        driver=cells[2],
        memory_mib=memory,
        used_mib=used,
        busy_percent=busy,
        celsius=celsius,
        watts=watts,
        limit_watts=limit,
    )


def _number(text: str) -> float | None:
    # "[N/A]", "[Not Supported]", and what newer tools may say
    try:
        return float(text)
    except ValueError:
        return None
