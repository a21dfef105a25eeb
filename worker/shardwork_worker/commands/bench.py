"""`shardwork-worker bench`: what this device learns a second, and what that earns an hour."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonFlag

if TYPE_CHECKING:
    from shardwork.config import Home

    from ..bench.income import Power
    from ..bench.report import Report
    from ..settings import WorkerSettings

app = typer.Typer()


@app.command()
def bench(
    join: Annotated[
        str | None, typer.Argument(help="Ask this coordinator for its rates; else the default ones.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="As for start.")] = None,
    preset: Annotated[list[str] | None, typer.Option(help="Only this size; may be given again.")] = None,
    power_watts: Annotated[float | None, typer.Option(help="What the machine draws while it works.", min=0)] = None,
    price_per_kwh: Annotated[float | None, typer.Option(help="Of power, in your currency.", min=0)] = None,
    sats_per_unit: Annotated[
        float | None, typer.Option(help="Sats that one unit of that currency buys.", min=0)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure tokens a second of each kind of training, shut in as real shards are, and what they would earn an hour.

    Examples:  shardwork-worker bench --price-per-kwh 0.30 --sats-per-unit 1050
    """
    import asyncio

    from shardwork.config import Home
    from shardwork.models.presets import PRESETS, check_preset

    from ..app import Folders, only_one
    from ..bench.income import Power
    from ..bench.report import readable
    from ..settings import load

    for name in preset or ():
        check_preset(name)
    home = Home.find()
    settings = load(home, os.environ, {"device": device})
    power = Power(watts=power_watts, price_per_kwh=price_per_kwh, sats_per_unit=sats_per_unit)
    folders = Folders.of(home)
    folders.make()
    with only_one(folders.state):
        wanted = [name for name in PRESETS if not preset or name in preset]
        report = asyncio.run(_measure(home, settings, join, power, wanted))
    report.keep(folders.state)
    found = report.to_json()
    typer.echo(json.dumps(found) if as_json else readable(found))


async def _measure(home: Home, settings: WorkerSettings, join: str | None, power: Power, presets: list[str]) -> Report:
    from shardwork.session import JoinLine

    from ..account.asking import asking, rates
    from ..app import Start
    from ..bench.measuring import Bench

    # without one, nothing is dialled
    line = JoinLine.parse(join) if join else JoinLine("localhost", 1, "")
    run = Bench(
        Start(join=line, home=home, settings=settings),
        lambda text: typer.echo(text, err=True),
        power=power,
        presets=presets,
    )
    if join:
        async with asking(line, home) as session:
            run.rates = await rates(session)
    return await run.run()
