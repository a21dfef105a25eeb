"""How far a reading or a transfer is, told to whoever asked: one record, one callback. Draws nothing.

Made by `facts` (reading rows), `submission` (uploads) and `download`; shown by the command line and by notebooks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one reading or transfer stands. Things with the same label are the same thing."""

    #: "reading rows", "sft.data ↑", "sft.model ↓"
    label: str
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[Progress], None]


def told(on_progress: OnProgress | None, label: str) -> Callable[[int, int], None] | None:
    """The (done_bytes, total_bytes) callback of readers and transfers that tells `on_progress` under this label."""
    if on_progress is None:
        return None

    def advance(done_bytes: int, total_bytes: int) -> None:
        on_progress(Progress(label, done_bytes, total_bytes))

    return advance
