"""How far something is, told to whoever asked: one record, one callback. Draws nothing (that is `display`).

Made by `facts` (reading rows), `submit` (uploads), `download` and `job` (waiting for a job).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one thing stands. Records with the same label are about the same thing."""

    #: "reading rows", "sft.data ↑", "sft.model ↓", "tutor"
    label: str
    done: int
    total: int
    #: what `done` and `total` count: "bytes" or "rounds"
    unit: str = "bytes"
    #: what else is known now: "round 2 of 4 · learn, held-out loss 2.4001"
    note: str = ""


OnProgress = Callable[[Progress], None]


def told(on_progress: OnProgress | None, label: str) -> Callable[[int, int], None] | None:
    """The (done_bytes, total_bytes) callback of readers and transfers that tells `on_progress` under this label."""
    if on_progress is None:
        return None

    def advance(done_bytes: int, total_bytes: int) -> None:
        on_progress(Progress(label, done_bytes, total_bytes))

    return advance
