"""What the coordinator says of paying this worker out. A record; `earnings` asks for it, `reasons` explains it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Payee:
    #: Lightning address that earnings go to; empty: they stay at the coordinator
    address: str = ""
    #: they are paid out from this amount on
    threshold_msat: int = 0
    #: what lies there and is not on its way
    available_msat: int = 0
    #: "simulated" or "bitcoin"
    asset: str = ""
