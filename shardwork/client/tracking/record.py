"""Which rounds of a job each tracker has, and which trackers its job file asked for: one small file a job.

Written after each round was told, so a break in between tells that round again, under the same step. Used by `follow`;
`asynchronous` notes what a submitted job asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast


@dataclass(slots=True)
class Record:
    """What is on disk for one job."""

    path: Path
    report_to: tuple[str, ...] = ()
    #: tracker -> keys of the points that it has
    sent: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def add(self, tracker: str, key: str) -> None:
        self.sent.setdefault(tracker, set()).add(key)
        self.save()

    def save(self) -> None:
        """Replaced whole: a file that is cut off would tell everything again."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = json.dumps(
            {"report_to": self.report_to, "sent": {name: sorted(keys) for name, keys in sorted(self.sent.items())}}
        )
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.path)


def folder(state_dir: Path) -> Path:
    """Where records lie, and what trackers keep that have no place of their own."""
    return state_dir / "tracking"


def load(state_dir: Path, job_id: str) -> Record:
    """The record of a job; an empty one where there is none, or none that can be read."""
    path = folder(state_dir) / f"{job_id}.json"
    try:
        known = cast("dict[str, object]", json.loads(path.read_text(encoding="utf-8")))
        sent = cast("dict[str, list[str]]", known["sent"])
        asked = tuple(cast("list[str]", known["report_to"]))
        return Record(path, asked, {name: set(keys) for name, keys in sent.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Record(path)


def note(state_dir: Path, job_id: str, report_to: Iterable[str]) -> None:
    """Remembers what a job's file asked for, for whoever watches it later."""
    record = load(state_dir, job_id)
    record.report_to = tuple(report_to)
    record.save()
