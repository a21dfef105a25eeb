"""Money: integer millisatoshi. No float, no division that loses a msat; the house test reads this file.

Used by the rate card, the ledger, quotes and every display. 1 sat = 1000 msat.
"""

from __future__ import annotations

from typing import NewType

Msat = NewType("Msat", int)

MSAT_PER_SAT = 1000


def sats(amount: int) -> Msat:
    """Whole satoshi to msat."""
    return Msat(amount * MSAT_PER_SAT)


def ceil_sats(amount: Msat) -> int:
    """The least whole number of sats that covers `amount`."""
    return -(-amount // MSAT_PER_SAT)


def share_ceil(amount: int, numerator: int, denominator: int) -> Msat:
    """amount x numerator : denominator, rounded up to the next msat. Raises ValueError on a denominator below 1."""
    if denominator < 1:
        raise ValueError("denominator must be at least 1")
    return Msat(-(-amount * numerator // denominator))


def show(amount: int) -> str:
    """As people read it, exact and never rounded: "1,234 sat" or "1,234.567 sat"."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), MSAT_PER_SAT)
    fraction = f".{rest:03d}".rstrip("0") if rest else ""
    return f"{sign}{whole:,}{fraction} sat"
