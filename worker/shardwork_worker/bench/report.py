"""The benchmark's record: one line a case, kept in the worker's folder and printed. JSON keys are a contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwork.money import show
from shardwork.why import Why

from ..state_file import replace_durably
from ..status import why_to_json
from .income import SHARD_TOKENS, Power, Rates, msat_per_hour

FILE_NAME = "bench.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    kind: str
    recipe: str
    preset: str
    parameters: int
    units_per_token: int
    #: None when it was not measured; `why` says why
    tokens_per_s: float | None = None
    #: while it learned, by nvidia-smi; None: not measured
    watts: float | None = None
    why: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    device: str
    device_name: str
    torch: str
    sandbox: str
    at_ms: int
    rates: Rates
    #: what the owner said; measured watts are each result's
    power: Power
    results: Sequence[Result]

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "device_name": self.device_name,
            "torch": self.torch,
            "sandbox": self.sandbox,
            "at_unix_ms": self.at_ms,
            "shard_tokens": SHARD_TOKENS,
            "rates": {
                "msat_per_tera_unit": self.rates.msat_per_tera_unit,
                "minimum_msat": self.rates.minimum_msat,
                "asset": self.rates.asset,
                "from": "coordinator" if self.rates.asset else "default",
            },
            "results": [self._line(result) for result in self.results],
        }

    def keep(self, folder: Path) -> None:
        replace_durably(folder / FILE_NAME, json.dumps(self.to_json()).encode())

    def _line(self, result: Result) -> dict[str, Any]:
        power = self._power(result)
        speed = result.tokens_per_s
        gross = None if speed is None else msat_per_hour(speed, result.units_per_token, self.rates)
        cost = None if speed is None else power.msat_per_hour
        return {
            "kind": result.kind,
            "recipe": result.recipe,
            "preset": result.preset,
            "parameters": result.parameters,
            "tokens_per_s": None if speed is None else round(speed, 1),
            "msat_per_hour": gross,
            "watts": power.watts,
            "watts_measured": power.measured,
            "power_msat_per_hour": cost,
            "net_msat_per_hour": None if gross is None or cost is None else gross - cost,
            "why": why_to_json(result.why),
        }

    def _power(self, result: Result) -> Power:
        """What the owner said comes first: a meter in the socket sees more than the GPU."""
        if self.power.watts is not None or result.watts is None:
            return self.power
        return Power(
            watts=result.watts,
            measured=True,
            price_per_kwh=self.power.price_per_kwh,
            sats_per_unit=self.power.sats_per_unit,
        )


def speeds(folder: Path, device: str) -> list[tuple[str, str, float]]:
    """(kind, preset, tokens a second) of the benchmark that is kept, if it was of this device; else nothing."""
    try:
        kept = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        if kept["device"] != device:
            return []
        return [
            (str(line["kind"]), str(line["preset"]), float(line["tokens_per_s"]))
            for line in kept["results"]
            if line["tokens_per_s"] is not None
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def readable(report: dict[str, Any]) -> str:
    """A table for people, with what its figures assume."""
    rows: list[tuple[str, ...]] = [("kind", "preset", "tokens/s", "sats/hour", "power", "net")]
    rows += [_row(line) for line in report["results"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join(cell.ljust(width) if number < 2 else cell.rjust(width) for number, (cell, width) in enumerate(each))
        for each in (zip(row, widths, strict=True) for row in rows)
    ]
    notes = [f"{line['kind']} {line['preset']}: {line['why']['sentence']}" for line in report["results"] if line["why"]]
    return "\n".join([*table, "", *notes, *_assumptions(report)])


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    def sats(msat: int | None) -> str:
        return "-" if msat is None else show(round(msat, -3)).removesuffix(" sat")

    speed = line["tokens_per_s"]
    return (
        line["kind"],
        line["preset"],
        "-" if speed is None else f"{speed:,.0f}",
        sats(line["msat_per_hour"]),
        sats(line["power_msat_per_hour"]),
        sats(line["net_msat_per_hour"]),
    )


def _assumptions(report: dict[str, Any]) -> list[str]:
    rates = report["rates"]
    source = (
        "the coordinator's rates now" if rates["from"] == "coordinator" else "default rates; give a JOIN for its own"
    )
    said = [
        (
            f"On {report['device_name']} ({report['device']}, sandbox {report['sandbox']}), in shards of "
            f"{report['shard_tokens']:,} tokens without a pause between them, at {source}: "
            f"{rates['msat_per_tera_unit']} msat for 10^12 work units, at least {show(rates['minimum_msat'])} a shard."
        )
    ]
    if rates["asset"] == "simulated":
        said.append("This coordinator's sats are simulated: none of them is real.")
    if all(line["power_msat_per_hour"] is None for line in report["results"]):
        said.append(
            "Power is not counted: give --price-per-kwh, --sats-per-unit and, without nvidia-smi, --power-watts."
        )
    return said
