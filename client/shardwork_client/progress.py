"""How far a transfer or the reading of data is, on stderr.

A bar with rate and time left on a terminal, a line every few seconds elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shardwork.client.progress import OnProgress, Progress

from . import figures
from .outcome import say
from .render import console

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_EVERY_S = 5.0


@contextmanager
def shown() -> Generator[OnProgress, None, None]:
    """A callback that shows what it is told with bars, or with lines when stderr is no terminal."""
    if not sys.stderr.isatty() or console(stderr=True).is_dumb_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Bars(*columns, console=console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(now: Progress) -> None:
            if now.label not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
                tasks[now.label] = bars.add_task(now.label, total=None)
            bars.update(tasks[now.label], completed=now.done_bytes, total=now.total_bytes)

        yield advance


class _Lines:
    """A line every few seconds about what is going on now."""

    def __init__(self) -> None:
        self._label = ""
        self._started_s = self._told_s = 0.0

    def __call__(self, now: Progress) -> None:
        now_s = time.monotonic()
        if now.label != self._label:
            self._label, self._started_s, self._told_s = now.label, now_s, now_s
        if now_s - self._told_s < LINE_EVERY_S:
            return
        self._told_s = now_s
        rate = now.done_bytes / max(now_s - self._started_s, 1e-9)
        left = figures.duration((now.total_bytes - now.done_bytes) / rate) if rate else "unknown time"
        of_all = f"{figures.size(now.done_bytes)} of {figures.size(now.total_bytes)}"
        say(f"{now.label}: {of_all}, {figures.size(int(rate))}/s, {left} left")
