"""Lines for the person who watches the worker, for weeks: day, time and plain words on standard error.

No levels and no settings: what is not worth a line to a person is not said.
"""

from __future__ import annotations

import sys
import time


def say(text: str) -> None:
    """One line, at once. A closed terminal must not end the worker."""
    try:
        print(f"{time.strftime('%m-%d %H:%M:%S')} {harmless(text)}", file=sys.stderr, flush=True)
    except OSError:
        pass


def harmless(text: str) -> str:
    """What a shard or a coordinator said, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
