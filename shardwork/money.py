"""Money: integer millisatoshi. No float, no division that loses a msat; the house test reads this file.

Used by the rate card, the ledger, quotes and every display. 1 sat = 1000 msat.
"""

from __future__ import annotations

import operator
from typing import NewType, SupportsIndex, cast

from .errors import InvalidInput

Msat = NewType("Msat", int)

MSAT_PER_SAT = 1000
#: all there will ever be
ALL_SATS = 21_000_000 * 100_000_000


def sats(amount: int) -> Msat:
    """Whole satoshi to msat."""
    return Msat(amount * MSAT_PER_SAT)


def whole_sats(amount: object) -> Msat:
    """An amount that a person or a program named. Raises InvalidInput "amount.not_whole_sats" for what is none: also
    fractions, text, and truth values, which are whole numbers to Python."""
    try:
        number = 0 if isinstance(amount, bool) else operator.index(cast("SupportsIndex", amount))
    except TypeError:
        number = 0
    if not 1 <= number <= ALL_SATS:
        raise InvalidInput(
            "amount.not_whole_sats",
            f"An amount is a whole number of sats from 1 to {ALL_SATS:,}, and not {str(amount)[:40]}.",
            next_step="Give whole sats, as 2000.",
            amount=repr(amount)[:60],
        )
    return sats(number)


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
