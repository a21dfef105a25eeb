"""Conflicts: limits that contradict each other, or that can't be held or don't matter on this machine.

Owns finding them, before the first shard. Those under which no shard could succeed are refused; the others are told.
Pure. Called by the app at start, by `bench` and by the doctor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from shardwork.errors import InvalidInput
from shardwork.why import Why

from ..sandbox.jail import Mode
from ..settings import WorkerSettings
from .size import show

#: Python and torch take 0.45 GiB before the first weight is loaded (measured); with less, each shard fails and costs
#: its job an attempt
LEAST_MEMORY_BYTES = 1024**3


def check_memory(settings: WorkerSettings, machine_bytes: int) -> None:
    """Raises InvalidInput "limits.memory_share_too_small" or "limits.memory_share_unheld"."""
    share = settings.memory_share
    if share < 1 and settings.sandbox is Mode.OFF and settings.device == "cpu":
        raise InvalidInput(
            "limits.memory_share_unheld",
            "The sandbox holds memory_share on a processor, and the sandbox is off.",
            next_step="Leave sandbox at auto, or take memory_share out.",
        )
    if share == 1 or machine_bytes * share >= LEAST_MEMORY_BYTES:
        return
    least = math.ceil(LEAST_MEMORY_BYTES / machine_bytes * 100) / 100
    raise InvalidInput(
        "limits.memory_share_too_small",
        f"memory_share leaves {show(machine_bytes * share)} of this machine's {show(machine_bytes)} to shards, and the "
        f"smallest need {show(LEAST_MEMORY_BYTES)}.",
        next_step=f"Set memory_share to {least:g} or more." if least < 1 else "Take memory_share out.",
        memory_share=f"{share:g}",
    )


def conflicts(settings: WorkerSettings, device: str, *, disk_bytes: int) -> Iterator[Why]:
    """What its owner may not have meant. `device`: the one that is used; `disk_bytes`: of the cache's whole disk."""
    if settings.power_watts is not None and not device.startswith("cuda"):
        yield _conflict(
            "power_unused",
            f"power_watts holds a GPU back, and this worker computes on {device}: it has no effect.",
            "Take power_watts out, or choose a GPU as device.",
        )
    if settings.donate and (settings.minimum_sats or settings.minimum_msat_per_tera_unit):
        yield _conflict(
            "donates_for_a_price",
            "It gives its work and also asks for a price: the price has no effect.",
            "Take donate out to be paid, or the minimum.",
        )
    if settings.donate and settings.payout_address:
        yield _conflict(
            "donates_to_an_address",
            "It gives its work, so nothing new is earned for its payout address.",
            "Take donate out to be paid.",
        )
    if settings.keep_free_bytes >= disk_bytes:
        yield _conflict(
            "keeps_whole_disk",
            f"keep_free_bytes is {show(settings.keep_free_bytes)}, and the whole disk has {show(disk_bytes)}: it will "
            "never take a shard.",
            "Lower keep_free_bytes.",
        )


def _conflict(code: str, sentence: str, next_step: str) -> Why:
    return Why(code=f"limits.{code}", sentence=sentence, next_step=next_step)
