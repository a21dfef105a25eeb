"""`shardwork config show`: which settings count, and where each of them comes from."""

from __future__ import annotations

import typer

from ..outcome import emit, guard
from .options import JsonOption

app = typer.Typer(help="Which settings count, and why.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """Which settings count, and why."""


@app.command()
def show(context: typer.Context, json_output: JsonOption = False) -> None:
    """Every setting and folder with its value and its origin: flag, variable, line of a file, or default.

    A flag beats a variable, a variable beats the file, the file beats the default.
    """
    with guard(json_output):
        from shardwork.client.settings import shown_settings

        from .. import access, render

        found = shown_settings(access.joined(context))
        if json_output:
            emit({"settings": [{"key": each.key, "value": each.value, "origin": each.origin} for each in found]})
            return
        table = render.table("setting", "value", "origin", fold=("value", "origin"))
        for each in found:
            table.add_row(each.key, render.clean(each.value) or "–", render.clean(each.origin))
        render.show(table)
