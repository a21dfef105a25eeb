"""Why `method: auto` became what it is: the four factors, and what each method would take. Pure; part of the plan."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.plan import MethodOption
from shardwork.money import show as sats
from shardwork.recipes.method import MethodChoice

from .render import pairs


def methods(choice: MethodChoice, options: Sequence[MethodOption]) -> RenderableType:
    """The factors in words, then a line a method; the chosen one is marked."""
    head = Text.assemble(("method  ", "bold"), (choice.method, "bold green"), ("  chosen by four factors", "dim"))
    closed = [Text(f"  {option.method}: {option.closed}", style="dim") for option in options if option.closed]
    return Group(head, pairs(list(choice.factors)), Text(""), _table(options), *closed)


def _table(options: Sequence[MethodOption]) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    for title in ("  method", "learns", "share", "memory", "up a shard", "down a shard", "estimate", "reserve"):
        grid.add_column(justify="left" if title == "  method" else "right", no_wrap=True, header=title)
    grid.show_header = True
    grid.header_style = "dim"
    for option in options:
        mark = "> " if option.is_chosen else "  "
        style = "bold" if option.is_chosen else ""
        if option.closed:
            grid.add_row(Text(f"{mark}{option.method}", style="dim"), Text("no", style="dim"))
            continue
        grid.add_row(
            Text(f"{mark}{option.method}", style=style),
            figures.parameters(option.trained_params),
            figures.share(option.share),
            figures.size(option.memory_bytes),
            figures.size(option.up_bytes),
            figures.size(option.down_bytes),
            sats(option.cost_msat),
            sats(option.reserve_msat),
        )
    return grid
