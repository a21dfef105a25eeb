"""NVIDIA GPUs: whether the driver answers, and whether torch's CUDA is one that it serves.

Owns comparing what NVIDIA's tool says with what the child's torch found. Tried with fakes only: no machine of the
makers has a GPU. Called by `examination`.
"""

from __future__ import annotations

from pathlib import Path

from ..limits import gpu
from ..trainer_process import Ready
from .finding import Finding, Health, finding

#: the driver's own node: it is loaded when this is there
NODE = Path("/dev/nvidiactl")
#: a GPU this warm slows itself down
HOT_CELSIUS = 85.0


async def check_gpus(ready: Ready | None) -> list[Finding]:
    """The driver, then each GPU. `ready` is what the child said; None when it did not start."""
    found = await gpu.readings()
    if not found:
        return [_without(NODE.exists())]
    driver = await gpu.newest_cuda()
    return [_match(found[0].driver, driver, ready), *map(_one, found)]


def _without(is_loaded: bool) -> Finding:
    if is_loaded or gpu.is_here():
        sentence = "An NVIDIA driver is here, but nvidia-smi does not answer."
        next_step = "After an update of the driver, restart the machine; in a container, give it the GPU and the tool."
        return finding("gpu-driver", Health.BAD, sentence, next_step, node=NODE, tool=gpu.TOOL)
    return finding("gpu-driver", Health.OK, "No NVIDIA GPU was found: this worker computes on its processor.")


def _match(version: str, serves: str, ready: Ready | None) -> Finding:
    """Whether torch finds the GPU, and if not, which of the two is to be changed."""
    sees = ready is not None and any(device.device.startswith("cuda") for device in ready.devices)
    built = ready.cuda if ready is not None else ""
    evidence = {"driver": version, "driver_serves_cuda": serves or "unknown", "torch_built_for": built or "none"}
    if sees:
        return finding("gpu-driver", Health.OK, "The driver and torch's CUDA fit each other.", **evidence)
    if ready is None or not ready.torch:
        return finding("gpu-driver", Health.NOTE, "The driver answers; without torch nothing uses it.", **evidence)
    if not built:
        sentence = "A GPU is here, but this torch was built without CUDA, so it is not used."
        next_step = f"Install a torch that was built for CUDA {serves or 'of this driver'} or older."
        return finding("gpu-driver", Health.BAD, sentence, next_step, **evidence)
    if serves and _newer(built, serves):
        sentence = f"torch was built for CUDA {built}, and this driver serves {serves} at most."
        next_step = f"Update the driver, or install a torch that was built for CUDA {serves} or older."
        return finding("gpu-driver", Health.BAD, sentence, next_step, **evidence)
    sentence = "The driver answers, but torch finds no GPU inside the sandbox."
    next_step = "See what the child says with --sandbox off; if that finds it, the sandbox hides a device node."
    return finding("gpu-driver", Health.BAD, sentence, next_step, **evidence)


def _newer(built: str, serves: str) -> bool:
    """Drivers serve every release of the major version that they know."""
    return int(built.split(".")[0]) > int(serves.split(".")[0])


def _one(one: gpu.Reading) -> Finding:
    check = f"gpu {one.index}"
    evidence = {
        "name": one.name,
        "memory_mib": _said(one.memory_mib),
        "used_mib": _said(one.used_mib),
        "watts": _said(one.watts),
        "limit_watts": _said(one.limit_watts),
        "celsius": _said(one.celsius),
    }
    if one.celsius is not None and one.celsius >= HOT_CELSIUS:
        return finding(check, Health.NOTE, "The GPU is hot and slows itself down.", "Look at its fans.", **evidence)
    return finding(check, Health.OK, "The driver sees it.", **evidence)


def _said(number: float | None) -> str:
    return "unknown" if number is None else f"{number:g}"
