"""How far a transfer or the reading of data is, on stderr.

A bar with rate and time left on a terminal, a line every few seconds elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import figures
from .outcome import say
from .render import console

LINE_EVERY_S = 5.0
#: less is read before a bar could be looked at
SHOWN_FROM_BYTES = 4 << 20

#: told (done_bytes, total_bytes), as `shardwork.transfer` calls it
Progress = Callable[[int, int], None]


@contextmanager
def transfer_progress(label: str) -> Generator[Progress, None, None]:
    """A progress callback that shows `label` with a bar, or with lines when stderr is no terminal."""
    if not sys.stderr.isatty() or console(stderr=True).is_dumb_terminal:
        yield _lines(label)
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
        task = bars.add_task(label, total=None)

        def advance(done_bytes: int, total_bytes: int) -> None:
            bars.update(task, completed=done_bytes, total=total_bytes)

        yield advance


@contextmanager
def reading_progress(files: Sequence[Path]) -> Generator[Progress | None, None, None]:
    """How far the rows of these files are read; None when there is too little to tell about."""
    if sum(file.stat().st_size for file in files if file.is_file()) < SHOWN_FROM_BYTES:
        yield None
        return
    with transfer_progress("reading rows") as progress:
        yield progress


def _lines(label: str) -> Progress:
    started_s = told_s = time.monotonic()

    def advance(done_bytes: int, total_bytes: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s < LINE_EVERY_S:
            return
        told_s = now_s
        rate = done_bytes / max(now_s - started_s, 1e-9)
        left = figures.duration((total_bytes - done_bytes) / rate) if rate else "unknown time"
        of_all = f"{figures.size(done_bytes)} of {figures.size(total_bytes)}"
        say(f"{label}: {of_all}, {figures.size(int(rate))}/s, {left} left")

    return advance
