"""The unit: the text by which systemd's user manager runs this worker, from a template beside this file.

Owns quoting what goes into it. What a user manager can't hold (other folders, other users) is not asked of it: each
shard is shut in by the worker's own sandbox, which would find no room inside another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template

NAME = "shardwork-worker.service"
TEMPLATE = "shardwork-worker.service.in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What the template is filled with."""

    #: the program of the environment that runs now
    program: Path
    join: str
    #: SHARDWORK_HOME and the like, where they are set
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def text(self) -> str:
        template = Template(files("shardwork_worker.upkeep").joinpath(TEMPLATE).read_text(encoding="utf-8"))
        lines = [f"Environment={quoted(f'{name}={value}')}" for name, value in sorted(self.environment.items())]
        return template.substitute(
            program=quoted(str(self.program), command=True),
            join=quoted(self.join, command=True),
            environment="\n".join(lines),
        )


def quoted(text: str, *, command: bool = False) -> str:
    """As systemd reads it back whole: specifiers and, in a command line, variables are doubled."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + (escaped.replace("$", "$$") if command else escaped) + '"'
