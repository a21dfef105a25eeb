"""The outer layer: namespaces of its own, made by bubblewrap (bwrap) around the child.

Owns the command line that shows the child a read-only system, its inputs, one writable folder, and nothing else: no
network, no home, no other process. bwrap itself must be started with an empty environment, because it is process 1
inside and anybody there could read it (measured: `--clearenv` does not help). Called by `choice`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from .jail import GPU_DRIVERS, GPU_HARDWARE, HARDWARE, SETTINGS, SYSTEM, Jail, below_any, outermost

INSTALL = "Install bubblewrap 0.8 or newer: apt install bubblewrap, dnf install bubblewrap, or pacman -S bubblewrap."
NAMESPACES = (
    "If bwrap is installed but refused: the system keeps ordinary users from making namespaces. On Ubuntu give bwrap "
    "an AppArmor profile that allows userns; in a container allow them in its seccomp profile."
)


def find() -> str | None:
    """The program's path."""
    return shutil.which("bwrap")


def wrapped(program: str, jail: Jail, command: Sequence[str]) -> list[str]:
    """`command` inside the jail."""
    return [
        program,
        *("--unshare-user", "--unshare-all", "--disable-userns", "--cap-drop", "ALL", "--die-with-parent"),
        *("--hostname", "shard"),
        *_scratch("/tmp", jail),
        *_system(),
        *_readable(jail),
        *("--proc", "/proc", "--dev", "/dev"),
        *(part for node in jail.devices for part in ("--dev-bind-try", node, node)),
        *_scratch("/dev/shm", jail),
        *("--remount-ro", "/dev"),
        *(part for path in HARDWARE for part in ("--ro-bind-try", path, path)),
        *(part for path in _of_gpus(jail) for part in ("--ro-bind-try", path, path)),
        *(part for path in jail.writable for part in ("--bind", path, path)),
        *("--remount-ro", "/", "--chdir", "/tmp", "--"),
        *command,
    ]


def _scratch(path: str, jail: Jail) -> list[str]:
    return ["--size", str(jail.scratch_bytes), "--perms", "1777", "--tmpfs", path]


def _system() -> list[str]:
    """The system as it lies here; /bin and /lib are links on most machines."""
    arguments: list[str] = []
    for path in (*SYSTEM, *SETTINGS):
        if Path(path).is_symlink() and path not in SETTINGS:
            arguments += ["--symlink", os.readlink(path), path]
        else:
            arguments += ["--ro-bind-try", path, path]
    return arguments


def _readable(jail: Jail) -> list[str]:
    """Inputs last: they may lie below a folder that is hidden."""
    inside = [path for path in jail.readable if below_any(path, jail.hidden)]
    first = outermost(path for path in jail.readable if path not in inside and not below_any(path, SYSTEM))
    masks = [path for path in jail.hidden if below_any(path, (*first, *SYSTEM)) and Path(path).is_dir()]
    shown = [*(("--ro-bind", path, path) for path in first), *(("--tmpfs", path) for path in masks)]
    return [part for binding in (*shown, *(("--ro-bind", path, path) for path in inside)) for part in binding]


def _of_gpus(jail: Jail) -> tuple[str, ...]:
    return (*GPU_HARDWARE, *GPU_DRIVERS) if jail.devices else ()
