"""`shardwork-worker top`: the worker at a glance."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardwork.errors import InvalidInput

if TYPE_CHECKING:
    from ..top.screen import Top
    from ..top.snapshot import Watched

app = typer.Typer()
#: how long a picture of a shard in hand waits for its curve
CURVE_S = 12.0
FONT = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)


@app.command()
def top(
    screenshot: Annotated[Path | None, typer.Option(help="Write what it shows now to this SVG file, and end.")] = None,
) -> None:
    """Shard, progress, loss, power, cache and sats on one screen; keys pause, finish, resume. Follows restarts."""
    try:
        from ..top.screen import Top
    except ModuleNotFoundError as error:
        if error.name != "textual":
            raise
        sentence = "`top` needs textual, which is not installed."
        raise InvalidInput("top.no_textual", sentence, next_step="pip install 'shardwork[worker]'") from None

    if screenshot is None and not sys.stdout.isatty():
        raise InvalidInput(
            "top.no_terminal",
            "`top` needs a terminal.",
            next_step="For scripts: shardwork-worker status --json. For a picture: --screenshot FILE.svg",
        )
    shown = Top(_watched())
    if screenshot is None:
        shown.run()
    else:
        _draw(shown, screenshot)


def _watched() -> Watched:
    from shardwork.config import Home

    from ..app import Folders
    from ..settings import load
    from ..top.snapshot import Watched

    home = Home.find()
    folders, settings = Folders.of(home), load(home, os.environ, {})
    return Watched(folders.state, folders.artifacts, cache_limit_bytes=settings.cache_bytes)


def _draw(shown: Top, file: Path) -> None:
    import asyncio

    async def draw() -> str:
        async with shown.run_test(size=(100, 32)) as pilot:
            await shown.look()
            if shown.is_busy:
                # the screen goes on looking: a curve is more than one loss
                await pilot.pause(CURVE_S)
            await pilot.pause()
            return shown.export_screenshot(title="shardwork-worker top")

    # a picture must not fetch fonts from somewhere; the reader's own fixed-width font serves
    file.write_text(FONT.sub("", asyncio.run(draw())), encoding="utf-8")
