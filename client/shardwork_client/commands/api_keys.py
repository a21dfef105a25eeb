"""`shardwork api-key …`: secrets by which programs call the coordinator's HTTP API in your name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ..outcome import emit, guard, say
from .options import JsonOption

if TYPE_CHECKING:
    from shardwork.api_key import ApiKeyStatus
    from shardwork.client.asynchronous import AsyncClient

app = typer.Typer(help="Keys for the HTTP API and its OpenAI-compatible face.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="What it is for; you read it in the list.")] = "",
    expires: Annotated[
        int, typer.Option("--expires", metavar="DAYS", min=0, help="Ends by itself after so many days; 0: never.")
    ] = 0,
    json_output: JsonOption = False,
) -> None:
    """Make a key. It is shown once and stored nowhere: whoever has it spends your sats.

    Example:  shardwork api-key create --name laptop --expires 30
    """
    with guard(json_output):
        from dataclasses import asdict

        from shardwork import api_key

        from .. import access

        async def call(client: AsyncClient) -> tuple[str, ApiKeyStatus]:
            return await api_key.create(await client.session(), name, expires_days=expires)

        secret, key = access.run(context, call)
        if json_output:
            emit({"key": secret, **asdict(key)})
            return
        # the secret alone on stdout: KEY=$(shardwork api-key create) is how it gets into a program
        typer.echo(secret)
        say(f"It is shown this once. End it with:  shardwork api-key revoke {key.id}")


@app.command("list")
def list_keys(context: typer.Context, json_output: JsonOption = False) -> None:
    """Your keys, the newest first; their secrets are not known any more.

    Example:  shardwork api-key list
    """
    with guard(json_output):
        from dataclasses import asdict

        from shardwork import api_key

        from .. import access

        async def call(client: AsyncClient) -> list[ApiKeyStatus]:
            return await api_key.every(await client.session())

        found = access.run(context, call)
        if json_output:
            emit([asdict(each) for each in found])
            return
        for each in found:
            typer.echo(_line(each))
        if not found:
            say("You have no API keys.  Make one:  shardwork api-key create")


@app.command()
def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or the beginning of it.")],
    json_output: JsonOption = False,
) -> None:
    """End a key for good, within seconds.

    Example:  shardwork api-key revoke 5f3a90c1
    """
    with guard(json_output):
        from dataclasses import asdict

        from shardwork import api_key

        from .. import access

        async def call(client: AsyncClient) -> ApiKeyStatus:
            return await api_key.revoke(await client.session(), key)

        ended = access.run(context, call)
        if json_output:
            emit(asdict(ended))
        else:
            say(f"✓ {ended.id} is revoked.")


def _line(key: ApiKeyStatus) -> str:
    used = f"used {_day(key.last_used_unix_ms)}" if key.last_used_unix_ms else "never used"
    ends = "revoked" if key.revoked else f"until {_day(key.expires_unix_ms)}" if key.expires_unix_ms else "no end"
    return f"{key.id}  {key.name or '-':<20}  made {_day(key.created_unix_ms)}  {used:<15}  {ends}"


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")
