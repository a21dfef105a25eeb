"""The screen of `top`: panels laid out for 80x24 and wider, looked at every second, steered by four keys.

Owns layout, keys and the history of the loss. What is shown comes from `panels`, what is known from a source.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, ClassVar, Protocol, TypeVar

from rich.console import RenderableType
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Footer, Sparkline, Static

from shardwork.errors import ShardworkError

from ..control import Command
from . import panels
from .snapshot import Snapshot

LOOK_EVERY_S = 1.0
#: losses that the curve shows
HISTORY = 120


W = TypeVar("W", bound=Widget)


class Source(Protocol):
    async def look(self) -> Snapshot: ...
    async def tell(self, command: Command) -> dict[str, Any]: ...


class Top(App[None]):
    """One worker at a glance."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "tell('pause')", "pause"),
        Binding("f", "tell('finish')", "finish"),
        Binding("r", "tell('resume')", "resume"),
        Binding("q", "quit", "quit"),
    ]
    CSS = """
    Screen { background: $background; }
    #head, #why { height: auto; max-height: 2; }
    .panel { border: round $primary-darken-1; border-title-color: $text-muted; padding: 0 1; }
    #shard-box { height: 8; }
    #curve { height: 2; margin: 0; }
    #curve > .sparkline--max-color { color: $success; }
    #curve > .sparkline--min-color { color: $success-darken-2; }
    #middle { height: 7; }
    #machine, #sats { width: 1fr; height: 100%; }
    #verdicts { height: 1fr; min-height: 3; }
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.title = "shardwork-worker"
        self._source = source
        self._losses: deque[float] = deque(maxlen=HISTORY)
        self._shard: str | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a shard was in hand at the last look."""
        return self._shard is not None

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="why")
        with _titled(VerticalScroll(id="shard-box", classes="panel"), "shard in hand"):
            yield Static(id="shard")
            yield Sparkline([], id="curve")
        with Horizontal(id="middle"):
            yield _titled(Static(id="machine", classes="panel"), "machine")
            yield _titled(Static(id="sats", classes="panel"), "sats")
        with _titled(VerticalScroll(id="verdicts", classes="panel"), "last shards"):
            yield Static(id="verdict-lines")
        yield Footer()

    def on_mount(self) -> None:
        self.run_worker(self._follow(), exclusive=True, group="following")

    async def action_tell(self, word: str) -> None:
        self.run_worker(self._tell(Command(word)), group="telling")

    async def _tell(self, command: Command) -> None:
        try:
            status = await self._source.tell(command)
        except ShardworkError as error:
            self.notify(error.why.render(), severity="error")
            return
        self.notify(f"{command.value}: the worker is {status['state']}")
        await self.look()

    async def _follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Asks once and shows it."""
        now = await self._source.look()
        if not self.is_running:
            # somebody quit while it was asked
            return
        self._remember(now)
        shown: dict[str, RenderableType] = {
            "head": panels.head(now),
            "why": panels.why(now),
            "shard": panels.shard(now),
            "machine": panels.machine(now),
            "sats": panels.sats(now),
            "verdict-lines": panels.verdicts(now),
        }
        for name, renderable in shown.items():
            self.query_one(f"#{name}", Static).update(renderable)
        self.query_one("#why").display = bool(now.status["why"])
        curve = self.query_one("#curve", Sparkline)
        curve.data = list(self._losses)
        curve.display = len(self._losses) > 1

    def _remember(self, now: Snapshot) -> None:
        """The loss of one shard; another one begins its own curve."""
        if now.status["shard"] != self._shard:
            self._shard = now.status["shard"]
            self._losses.clear()
        loss = now.status["loss"]
        if loss is not None and (not self._losses or loss != self._losses[-1]):
            self._losses.append(loss)


def _titled(widget: W, title: str) -> W:
    widget.border_title = title
    return widget
