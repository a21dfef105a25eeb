"""`shardwork-coordinator model`: base models for everybody, beside a coordinator that serves or without. Part of `cli`.

What an offered model is, is `hub.offered`.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .existing_store import DataDir, existing_store, read, settings_of, write

if TYPE_CHECKING:
    from .records import OfferedModel
    from .store.base import Transaction

model_app = typer.Typer(help="Offer base models to everybody, as offered:NAME.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Its name: jobs say offered:NAME.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@model_app.command("add")
def add(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Model folder in Hugging Face layout, safetensors only.")],
    licence: Annotated[str, typer.Option("--license", help="Told to whoever uses it.")] = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Copy a model into the store and offer it. A name never means another model later."""
    made = shown(asyncio.run(_add(settings_of(data_dir, {}), name, folder, licence)))
    print(json.dumps(made) if as_json else f"offered:{made['name']}  {made['params']:,} parameters")


@model_app.command("list")
def every(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Every model that is or was offered."""
    from .records import OfferedModel

    def look(tx: Transaction) -> list[OfferedModel]:
        return tx.find(OfferedModel, order="name")

    found = [shown(row) for row in asyncio.run(read(settings_of(data_dir, {}), look))]
    if as_json:
        print(json.dumps(found))
        return
    for each in found:
        mark = "  withdrawn" if each["withdrawn"] else ""
        print(f"offered:{each['name']}  {each['model_type']}  {each['params']:,} parameters{mark}")
    if not found:
        print("No model is offered.  shardwork-coordinator model add NAME FOLDER")


@model_app.command("withdraw")
def withdraw(name: Name, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Take it from the offer; jobs that run go on."""
    from .hub import offered

    def take_back(tx: Transaction) -> OfferedModel:
        return offered.withdraw(tx, name)

    gone = shown(asyncio.run(write(settings_of(data_dir, {}), take_back)))
    print(json.dumps(gone) if as_json else f"offered:{gone['name']} is withdrawn")


async def _add(settings: Any, name: str, folder: Path, licence: str) -> OfferedModel:
    from shardwork.clock import SystemClock

    from .artifacts.opening import open_contents
    from .hub import offered

    store, contents = existing_store(settings), open_contents(settings)
    try:
        stored = await asyncio.to_thread(offered.store_model, folder, contents, settings.data_dir / "scratch")
        now_ms = SystemClock().now_ms()

        def offer(tx: Transaction) -> OfferedModel:
            return offered.offer(tx, name, stored, licence, now_ms)

        made: OfferedModel = await store.write(offer)
        return made
    finally:
        contents.close()
        store.close()


def shown(row: OfferedModel) -> dict[str, Any]:
    facts = json.loads(row.facts_json)
    return {
        "name": row.name,
        "artifact_id": row.artifact_id,
        "bytes": row.bytes,
        **{key: facts.get(key) for key in ("params", "model_type", "context_length", "chat_template", "license")},
        "created_unix_ms": row.created_ms,
        "withdrawn": row.withdrawn,
    }
