"""What the child does to itself before it reads its first message: limits, Landlock, seccomp.

Must run while the process has one thread. Called by `shardwork_worker.child` and by `trials`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from . import landlock, limits, seccomp
from .jail import Held, Jail, Kind, Layer

FLAG = "--jail"


def jail_of(arguments: Sequence[str]) -> Jail | None:
    """The jail that the command line names; None when there is to be none."""
    return Jail.from_json(arguments[arguments.index(FLAG) + 1]) if FLAG in arguments else None


def confine(jail: Jail) -> dict[str, tuple[str, str]]:
    """Layer -> (held or not, why not). What fails is told, and the rest goes on."""
    os.environ.update(TMPDIR=jail.scratch, HOME=jail.scratch, USER="shard")
    os.umask(0o077)
    found = {Layer.LIMITS: limits.apply(jail)}
    if jail.kind is not Kind.NONE:
        linux = sys.platform == "linux"
        found[Layer.LANDLOCK] = landlock.load(jail) if linux else "Landlock is Linux's"
        found[Layer.SECCOMP] = seccomp.load(jail) if linux else "seccomp is Linux's"
    return {layer.value: (Held.NOT_HELD.value if why else Held.HELD.value, why) for layer, why in found.items()}
