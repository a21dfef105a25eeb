"""What a speed earns: sats an hour at a rate card, less the power it takes at a price that its owner names.

Owns the sums. Integers for msat; power and a currency's worth in sats are the owner's own figures. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardwork.money import MSAT_PER_SAT

TERA = 10**12
HOUR_S = 3600
#: a shard of 25 steps, as small jobs plan them: where the least price counts
SHARD_TOKENS = 25 * 4 * 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What an accepted shard earns. The defaults are those of a coordinator whose operator changed nothing."""

    msat_per_tera_unit: int = 10
    minimum_msat: int = 1_000
    #: "simulated", "bitcoin", or empty where no coordinator was asked
    asset: str = ""

    def price(self, units: int) -> int:
        return max(self.minimum_msat, -(-units * self.msat_per_tera_unit // TERA))


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What an hour of computing costs. Any of them unknown: the cost is not counted."""

    watts: float | None = None
    #: whether nvidia-smi measured it; else its owner said it
    measured: bool = False
    price_per_kwh: float | None = None
    #: sats that one unit of that price's currency buys
    sats_per_unit: float | None = None

    @property
    def msat_per_hour(self) -> int | None:
        if self.watts is None or self.price_per_kwh is None or self.sats_per_unit is None:
            return None
        return round(self.watts / 1000 * self.price_per_kwh * self.sats_per_unit * MSAT_PER_SAT)


def msat_per_hour(tokens_per_s: float, units_per_token: int, rates: Rates) -> int:
    """Of shards of `SHARD_TOKENS` one after the other, with no time between them: the most that it can be."""
    per_shard = rates.price(SHARD_TOKENS * units_per_token)
    return int(per_shard * tokens_per_s * HOUR_S / SHARD_TOKENS)
