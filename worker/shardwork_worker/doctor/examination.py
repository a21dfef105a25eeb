"""The examination: every check in the order in which a worker would fail.

It changes nothing but making the worker's folders, starts the child once, and, where a join line is given, enrols with
the worker's key, which it makes if there is none. The CLI's `doctor` prints the findings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardwork.config import Home
from shardwork.identity.authority import JoinLine

from ..app import CHILD_COMMAND, Folders, ground
from ..sandbox.choice import choose
from ..sandbox.jail import Mode
from ..settings import WorkerSettings
from .child import check_child, check_sandbox
from .finding import Finding, Health
from .gpu import check_gpus
from .line import check_line
from .machine import check_disk_speed, check_folders, check_key, check_limits, check_memory


async def examine(
    home: Home,
    join: JoinLine | None = None,
    *,
    settings: WorkerSettings | None = None,
    child_command: Sequence[str] = CHILD_COMMAND,
) -> list[Finding]:
    """Every check. The child is started as `start` would start it."""
    folders, settings = Folders.of(home), settings or WorkerSettings()
    findings = [check_folders(folders), check_key(home), check_memory()]
    ready = None
    if findings[0].health is not Health.BAD:
        findings.append(await asyncio.to_thread(check_disk_speed, folders.artifacts))
        findings += (limits := check_limits(settings, folders.artifacts))
        if any(one.health is Health.BAD for one in limits):
            # the child would not start, and each later finding would be about that
            settings = settings.model_copy(update={"memory_share": 1.0})
        mode = settings.sandbox
        # what is required and lacks is a finding here, not the end
        sandbox = await choose(Mode.AUTO if mode is Mode.REQUIRE else mode, ground(home, settings))
        found, ready = await check_child(folders, sandbox.command(child_command))
        findings += [*found, *check_sandbox(sandbox, mode)]
    findings += await check_gpus(ready)
    if join is not None:
        findings += await check_line(join, home)
    return findings
