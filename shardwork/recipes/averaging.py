"""Averaging: what a round of several shards asks of its optimizer and of its outer step, against one machine.

Owns what `auto` means there and why. Everything was measured by bench/recovery at 1 to 8 shards and 10 to 25 steps;
docs/training has the figures, and what was tried. Pure; called by `learning`.
"""

from __future__ import annotations

from dataclasses import dataclass

#: more shards than were measured take no higher rate than these
MOST_AVERAGED = 8
#: inner steps a round up to which the rate does not depend on them
MEASURED_STEPS = 10
#: the rate's growth with shards: from random weights 8 shards recovered 90.6 % at 1.33 times the rate, 90.8 % at twice,
#: 89.3 % at 2.83 times (medians of three seeds) and 83.4 % at four times (one)
FRESH, LEARNED = 1 / 3, 2 / 3
#: outer steps offered to evaluation each round; measured to beat every fixed choice
EACH_ROUND = ("mean", "nesterov", "mean1.5", "mean2")
#: and in the last one, towards the average of the last rounds: before, it would only hold the weights back
LAST_ROUND = (*EACH_ROUND, "settled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Values of AdamW and of its schedule."""

    shards: int
    #: what one machine's rate is multiplied by
    gain: float
    #: share of the peak rate left at the end
    final_rate: float
    beta2: float
    #: share of all steps
    warmup: float

    @property
    def words(self) -> str:
        return "" if self.gain == 1 else f", times {self.gain:.3g} as {self.shards} shards are averaged"


ALONE = Tuned(shards=1, gain=1.0, final_rate=0.1, beta2=0.95, warmup=0.05)


def gain_of(shards: int, inner_steps: int, *, from_scratch: bool) -> float:
    """How much higher the rate of a round's shards is than one machine's: (10 K / H)^(2/3), and the third root of
    10 K / H where weights start at random; 1 for one shard.

    Averaging K shards takes out the noise of a K times larger batch, and Adam bears a rate that grows with the root of
    the batch (Malladi et al., arXiv 2205.10287); a model that has learned bears a little more, and a fresh one
    less. How far shards walk in their noise before they are averaged grows with the rate and with H: long rounds
    bear less.
    """
    if shards == 1:
        return 1.0
    length = max(inner_steps, MEASURED_STEPS) / MEASURED_STEPS
    return float(max(1.0, (min(shards, MOST_AVERAGED) / length) ** (FRESH if from_scratch else LEARNED)))


def tuned(shards: int, inner_steps: int, *, from_scratch: bool) -> Tuned:
    """What `auto` takes. The rate may fall less, because averaging takes out the noise that decay is for."""
    if shards == 1:
        return ALONE
    gain = gain_of(shards, inner_steps, from_scratch=from_scratch)
    return Tuned(shards=shards, gain=gain, final_rate=0.5, beta2=0.98, warmup=0.1)


def candidates(number: int, rounds: int) -> tuple[str, ...]:
    """Outer steps to measure in round `number` of so many."""
    return LAST_ROUND if number == rounds > 1 else EACH_ROUND
