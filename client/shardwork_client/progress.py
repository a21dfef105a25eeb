"""How far a transfer or the reading of data is, on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from shardwork.client.display.show import BarsDisplay, LinesDisplay
from shardwork.client.progress import OnProgress

from .outcome import say
from .render import console


@contextmanager
def shown() -> Generator[OnProgress, None, None]:
    """A callback that shows what it is told until the block ends; nothing stays behind on a terminal."""
    out = console(stderr=True)
    display = BarsDisplay(out) if sys.stderr.isatty() and not out.is_dumb_terminal else LinesDisplay(say)
    try:
        yield display
    finally:
        display.close()
