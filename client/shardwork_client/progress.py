"""How far a transfer or the reading of data is, on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from shardwork.client.display.show import BarsDisplay, Display, LinesDisplay

from .outcome import say
from .render import console


@contextmanager
def shown() -> Generator[Display, None, None]:
    """A callback that shows what it is told until the block ends; nothing stays behind on a terminal. Close it before
    something is printed in between: it begins anew when there is more to tell."""
    out = console(stderr=True)
    display: Display = BarsDisplay(out) if sys.stderr.isatty() and not out.is_dumb_terminal else LinesDisplay(say)
    try:
        yield display
    finally:
        display.close()
