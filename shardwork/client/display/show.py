"""Progress for people: an updating line of HTML in a notebook, bars on a terminal, a line every few seconds elsewhere.

`show_progress()` gives a callback for `Client(on_progress=…)` that fits the place it runs in; the command line uses the
same drawings. rich and IPython are imported only where they are used, and IPython only if it is there.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..progress import Progress
from . import figures

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

LINE_EVERY_S = 5.0
#: a notebook's page is not redrawn more often
REDRAW_EVERY_S = 0.1


class Display(Protocol):
    """A progress callback that may hold a line or a region of the screen until it is closed."""

    def __call__(self, now: Progress, /) -> None: ...
    def close(self) -> None: ...


def show_progress() -> Display:
    """A display for where this program runs: notebook, terminal, or a plain log on stderr."""
    if in_notebook():
        return NotebookDisplay()
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        if not console.is_dumb_terminal:
            return BarsDisplay(console)
    return LinesDisplay(lambda line: print(line, file=sys.stderr, flush=True))


def in_notebook() -> bool:
    """Whether an IPython kernel (not its terminal) runs this. Never imports IPython: a kernel has done so."""
    shell = sys.modules.get("IPython")
    if shell is None:
        return False
    running: Any = shell.get_ipython()
    return running is not None and hasattr(running, "kernel")


def text_of(now: Progress) -> str:
    """ "4.1 MB of 9.0 MB" or "round 2 of 4 · learn"."""
    if now.unit == "bytes":
        return f"{figures.size(now.done)} of {figures.size(now.total)}"
    return now.note or f"{now.done} of {now.total} {now.unit}"


class LinesDisplay:
    """A line every few seconds about what is going on, and one for every change of a job."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._label = ""
        self._last = ""
        self._started_s = self._told_s = 0.0

    def __call__(self, now: Progress, /) -> None:
        now_s = time.monotonic()
        if now.label != self._label:
            self._label, self._started_s, self._told_s = now.label, now_s, now_s
        if now.unit != "bytes":
            if text_of(now) != self._last:
                self._last = text_of(now)
                self._say(f"{now.label}: {self._last}")
            return
        if now_s - self._told_s < LINE_EVERY_S:
            return
        self._told_s = now_s
        rate = now.done / max(now_s - self._started_s, 1e-9)
        left = figures.duration((now.total - now.done) / rate) if rate else "unknown time"
        self._say(f"{now.label}: {text_of(now)}, {figures.size(int(rate))}/s, {left} left")

    def close(self) -> None:
        """Nothing is held."""


class BarsDisplay:
    """One bar for what is going on now, gone when it is closed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Any = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, now: Progress, /) -> None:
        bars = self._bars or self._open()
        if now.label not in self._tasks:
            for task in self._tasks.values():
                bars.update(task, visible=False)
            self._tasks[now.label] = bars.add_task(now.label, total=None, figures="", unit="")
        bars.update(self._tasks[now.label], completed=now.done, total=now.total, figures=text_of(now), unit=now.unit)

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def _open(self) -> Any:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from .rate import RateColumn

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            RateColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            # what is printed meanwhile goes where it was meant to: a pipe, and not this console
            redirect_stdout=False,
        )
        self._bars.start()
        return self._bars


class NotebookDisplay:
    """One output area per thing, replaced in place. What comes from elsewhere is escaped: names are strangers' text."""

    def __init__(self) -> None:
        self._areas: dict[str, Any] = {}
        self._drawn_s: dict[str, float] = {}

    def __call__(self, now: Progress, /) -> None:
        now_s, is_done = time.monotonic(), now.done >= now.total
        if now.label in self._areas and not is_done and now_s - self._drawn_s[now.label] < REDRAW_EVERY_S:
            return
        self._drawn_s[now.label] = now_s
        picture = Picture(page_of(now), f"{now.label}: {text_of(now)}")
        area = self._areas.get(now.label)
        if area is None:
            module: Any = sys.modules["IPython"]
            self._areas[now.label] = module.display.display(picture, display_id=True)
        else:
            area.update(picture)

    def close(self) -> None:
        """What was drawn stays on the page."""
        self._areas.clear()


class Picture:
    """What IPython shows: HTML where it can, text where it cannot."""

    def __init__(self, page: str, text: str) -> None:
        self._page, self._text = page, text

    def _repr_html_(self) -> str:
        return self._page

    def __repr__(self) -> str:
        return self._text


def page_of(now: Progress) -> str:
    """A label, a bar and figures as one self-contained piece of HTML."""
    share = min(max(now.done / now.total, 0.0), 1.0) if now.total else 0.0
    return (
        "<div style='display:flex;gap:0.8em;align-items:center;font-family:monospace'>"
        f"<span>{html.escape(now.label)}</span>"
        f"<progress value='{share:.4f}' max='1' style='width:16em'></progress>"
        f"<span>{html.escape(text_of(now))}</span></div>"
    )
