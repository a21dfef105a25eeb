"""The panels of `top` in words and colours: each a function of a snapshot that gives a rich renderable.

Owns what is said and how; nothing here knows textual. The screen lays them out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from shardwork.money import show

from ..account.book import Fate, Line
from ..limits import size
from ..status import State
from .snapshot import Snapshot

COLOURS = {
    State.BUSY: "green",
    State.READY: "cyan",
    State.JOINING: "cyan",
    State.PAUSED: "yellow",
    State.DRAINING: "yellow",
    State.OFFLINE: "red",
}
WORDS = {
    Fate.PAID: ("paid", "green"),
    Fate.PENDING: ("pending", "cyan"),
    Fate.REJECTED: ("rejected", "red"),
    Fate.FAILED: ("failed", "red"),
    Fate.GIVEN_BACK: ("given back", "yellow"),
    Fate.LOST: ("lost", "yellow"),
}
BAR = 30


def head(now: Snapshot) -> RenderableType:
    """Who this is and what it does."""
    status = now.status
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f" ● {status['state']} ", style=f"bold {COLOURS[State(status['state'])]}")
    if status["worker_id"]:
        line.append(f" worker {status['worker_id']} on {status['device']} at {status['coordinator']}", style="dim")
    return line


def why(now: Snapshot) -> RenderableType:
    """Why it does not work, and what to do about it; empty while it does."""
    said = now.status["why"]
    if not said:
        return Text()
    text = Text(f" {said['sentence']}", style="yellow")
    if said["next_step"]:
        text.append(f" {said['next_step']}", style="dim")
    return text


def shard(now: Snapshot) -> RenderableType:
    """The shard in hand."""
    status = now.status
    if not status["shard"]:
        return Text("none in hand", style="dim")
    table = _pairs()
    table.add_row("shard", Text(status["shard"], no_wrap=True, overflow="ellipsis"))
    table.add_row("kind", f"{status['recipe']} · {status['phase']} · {show(status['price_msat'])}")
    table.add_row("phase", _bar(status["step"] or "", status["progress"] or 0.0))
    table.add_row("loss", "-" if status["loss"] is None else f"{status['loss']:.4f}")
    return table


def machine(now: Snapshot) -> RenderableType:
    """What it runs on: GPUs where the tool sees some, cache, sandbox."""
    table = _pairs()
    for one in now.gpus:
        table.add_row(f"gpu {one.index}", _gpu_line(one.celsius, one.watts, one.limit_watts, one.busy_percent))
        if one.memory_mib:
            table.add_row("memory", f"{(one.used_mib or 0) / 1024:.1f} of {one.memory_mib / 1024:.1f} GiB")
    if not now.gpus:
        table.add_row("device", now.status["device"] or "-")
        table.add_row("power", Text("not measured", style="dim"))
    table.add_row("cache", f"{size.show(now.cache_bytes)} of {size.show(now.cache_limit_bytes)}")
    table.add_row("sandbox", now.status["sandbox"]["kind"] or "-")
    return table


def sats(now: Snapshot) -> RenderableType:
    """What it earned."""
    earned = now.status["earned_msat"]
    table = _pairs()
    table.add_row("today", Text(show(now.today_msat), style="bold green"))
    # without a worker nobody asked the coordinator, and zeros would be a lie
    known = bool(now.status["worker_id"])
    for name in ("pending", "held", "paid"):
        table.add_row(name, show(earned[name]) if known else "-")
    table.add_row("shards", f"{now.status['shards_done']} done, {now.status['shards_failed']} failed" if known else "-")
    return table


def verdicts(now: Snapshot) -> RenderableType:
    """How shards ended, newest first, with the reason where there is one."""
    if not now.verdicts:
        return Text("no shard yet", style="dim")
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for line in now.verdicts:
        table.add_row(*_verdict(line))
    return table


def _verdict(line: Line) -> Iterator[RenderableType]:
    word, colour = WORDS[line.state]
    yield time.strftime("%H:%M:%S", time.localtime(line.at_ms / 1000))
    yield Text(word, style=colour)
    yield show(line.paid_msat if line.state is Fate.PAID else line.price_msat)
    reason = f"  {line.why.sentence}" if line.why is not None else ""
    yield Text(f"{line.lease_id}{reason}", no_wrap=True, overflow="ellipsis")


def _gpu_line(celsius: float | None, watts: float | None, limit: float | None, busy: float | None) -> Text:
    parts = [
        f"{celsius:.0f} °C" if celsius is not None else "",
        f"{watts:.0f} W" + (f" of {limit:.0f}" if limit is not None else "") if watts is not None else "",
        f"{busy:.0f} % busy" if busy is not None else "",
    ]
    return Text(" · ".join(part for part in parts if part) or "no reading")


def _bar(word: str, share: float) -> Text:
    full = round(share * BAR)
    text = Text(f"{word:<11}")
    text.append("━" * full, style="green")
    text.append("━" * (BAR - full), style="grey30")
    return text.append(f" {share:4.0%}")


def _pairs() -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    return table
