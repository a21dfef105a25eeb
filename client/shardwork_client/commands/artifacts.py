"""`shardwork artifact …`: what the coordinator keeps for you, why and until when; give up what you no longer need."""

from __future__ import annotations

from typing import Annotated

import typer

from ..outcome import emit, guard
from .options import JsonOption

app = typer.Typer(help="What the coordinator stores for you.", no_args_is_help=True)


@app.command("list")
def list_artifacts(context: typer.Context, json_output: JsonOption = False) -> None:
    """Everything stored for you, with what keeps it and until when.

    Example:  shardwork artifact list
    """
    with guard(json_output):
        from .. import access, render, views

        found = access.run(context, lambda client: client.artifacts())
        if json_output:
            emit([views.artifact_json(each) for each in found])
        else:
            render.show(render.artifact_table(found))


@app.command()
def delete(
    context: typer.Context,
    artifact: Annotated[str, typer.Argument(metavar="ID", help="The artifact's id, or its first eight digits.")],
    json_output: JsonOption = False,
) -> None:
    """Give up stored content. A job that has not ended keeps what it needs.

    Example:  shardwork artifact delete 5f3a90c1
    """
    with guard(json_output):
        from .. import access, render

        deleted = access.run(context, lambda client: client.delete_artifact(artifact))
        if json_output:
            emit({"id": deleted})
        else:
            render.show(f"✓ {deleted[:12]} is given up.")
