"""What the training child is given of this machine, and the words for how well that holds.

Pure data that the agent makes and the child reads from its command line. The layers that enforce it are the other
modules of this package.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

#: one file of a shard, and all of them together: the fp32 weights and moments of 5B parameters
OUTPUT_BYTES = 64 * 1024**3
#: memory behind /tmp and /dev/shm of the sandbox
SCRATCH_BYTES = 1024**3
#: threads: torch's pools, readers and CUDA's own stay far below
THREADS = 1024

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/opt/rocm", "/opt/cuda")
#: what the loader, clocks and GPU drivers read; no password file, no names of hosts
SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
#: how many processors and memory nodes there are
HARDWARE = ("/sys/devices/system/cpu", "/sys/devices/system/node")
#: what a GPU's driver asks about itself, bound only where there is one
GPU_HARDWARE = ("/sys/bus/pci", "/sys/devices", "/sys/module/nvidia", "/sys/module/nvidia_uvm", "/sys/class/kfd")
GPU_DRIVERS = ("/run/opengl-driver",)
GPU_NODES = ("nvidia*", "dxg", "kfd", "dri")


class Mode(StrEnum):
    """The owner's setting."""

    #: the best that works here
    AUTO = "auto"
    #: no work without one that holds
    REQUIRE = "require"
    OFF = "off"


class Kind(StrEnum):
    """How the child is shut in, best first."""

    #: namespaces of its own, and everything of KERNEL inside
    BUBBLEWRAP = "bubblewrap"
    #: Landlock and seccomp, which a process puts on itself
    KERNEL = "kernel"
    NONE = "none"


class Layer(StrEnum):
    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    LIMITS = "limits"


class Held(StrEnum):
    HELD = "held"
    NOT_HELD = "not held"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Jail:
    """Everything outside of it is to be out of reach. Paths are absolute."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    #: GPU device nodes
    devices: tuple[str, ...] = ()
    #: folders to hide where they lie below something readable: keys, journal, cache
    hidden: tuple[str, ...] = ()
    #: where temporary files go
    scratch: str = "/tmp"
    memory_bytes: int = 0
    file_bytes: int = OUTPUT_BYTES
    scratch_bytes: int = SCRATCH_BYTES
    threads: int = THREADS
    #: several GPUs: one process each, which talk over the sandbox's own loopback
    processes: bool = False
    kind: Kind = Kind.NONE

    def with_kind(self, kind: Kind, scratch: Path) -> Jail:
        """As enforced by `kind`; where /tmp is not private, temporary files go to the folder `scratch`."""
        if kind is Kind.BUBBLEWRAP:
            return replace(self, kind=kind, scratch="/tmp")
        return replace(self, kind=kind, scratch=str(scratch), writable=(*self.writable, str(scratch)))

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Jail:
        raw: dict[str, Any] = json.loads(text)
        lists: dict[str, Any] = {name: tuple(raw[name]) for name in ("readable", "writable", "devices", "hidden")}
        given: dict[str, Any] = {**raw, **lists, "kind": Kind(raw["kind"])}
        return cls(**given)


def python_roots() -> list[str]:
    """Folders that the child's Python needs: its installations and site-packages whole, of an editable install the
    packages alone, because a home or a key may lie beside them."""
    roots = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    for entry in map(Path, sys.path[1:]):
        if entry.name in ("site-packages", "dist-packages"):
            roots.add(str(entry))
        elif entry.is_dir() and not _is_below(str(entry), roots):
            roots.update(str(one.parent) for one in entry.glob("*/__init__.py"))
    package = Path(__file__).parents[1]
    roots.add(str(package))
    return outermost(path for path in roots if os.path.isdir(path))


def gpu_nodes(folder: Path = Path("/dev")) -> list[str]:
    """Device nodes of GPUs; empty without one."""
    return sorted(str(path) for pattern in GPU_NODES for path in folder.glob(pattern))


def outermost(paths: Iterable[str]) -> list[str]:
    """Sorted, without those that lie below another one."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not _is_below(path, found):
            found.append(path)
    return found


def _is_below(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def below_any(path: str, roots: Iterable[str]) -> bool:
    """Whether `path` is one of `roots` or lies below one."""
    return _is_below(path, roots)


def physical_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
