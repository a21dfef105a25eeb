"""A job's log as a person reads it: a line for each thing that happened, with its time and its place.

On a terminal a long line goes on under its own text, and the day is told where it changes; piped, each thing is one
line with its date. Used by `job logs`.
"""

from __future__ import annotations

from datetime import date, datetime

from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.results import LogLine

from .render import STATE_STYLES, clean, console

#: what a kind of line looks like beyond the styles of states
STYLES = {"uploaded": "cyan", "progress": "dim", "retried": "yellow", "memory_halved": "yellow", "rolled_back": "red"}


class LogPage:
    """Prints line after line to stdout, at the terminal's present width."""

    def __init__(self, today: date) -> None:
        self._out = console()
        self._day = today

    def add(self, line: LogLine) -> None:
        text = told(line)
        if not self._out.is_terminal:
            moment = datetime.fromtimestamp(line.at_unix_ms / 1000)
            self._out.print(Text(f"{moment:%Y-%m-%d %H:%M:%S}  ") + text, soft_wrap=True)
            self._out.file.flush()
            return
        day = datetime.fromtimestamp(line.at_unix_ms / 1000).date()
        if day != self._day:
            self._day = day
            self._out.print(Text(f"{day:%Y-%m-%d}", style="dim"))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(figures.clock_time(line.at_unix_ms), text)
        self._out.print(grid)


def told(line: LogLine) -> Text:
    """ "tune r2  learn shard 3 went to worker 1a2b3c4d.", and behind it what is not as usual: code, copy, attempt."""
    place = " ".join(part for part in (line.stage, "" if line.round is None else f"r{line.round}") if part)
    word = line.kind.rsplit(".", 1)[-1]
    behind = [line.code] if line.code else []
    behind += [f"copy {line.copy}"] if line.copy else []
    behind += [f"attempt {line.attempt}"] if line.attempt and line.attempt > 1 else []
    return Text.assemble(
        (f"{clean(place)}  " if place else "", "dim"),
        (clean(line.sentence), STYLES.get(word, STATE_STYLES.get(word, ""))),
        (f"  {clean(', '.join(behind))}" if behind else "", "dim"),
    )
