"""Abilities: what some shards take of a device beside fp32 arithmetic, and what workers say that theirs can do.

Pure. The worker's child finds out (`shardwork_worker.training.device`), the capability carries the names, and the
coordinator gives a shard only to workers that have what its order needs (`scheduler`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Ability(StrEnum):
    #: matrix products in bfloat16
    BF16 = "bf16"
    #: a frozen base in 4 or 8 bits a weight
    BASE_4BIT = "base_4bit"
    BASE_8BIT = "base_8bit"


#: what cannot be done without it, as "can't …"; and how a requester does without it
_WORDS = {
    Ability.BF16: ("compute in bf16", "params.precision: fp32"),
    Ability.BASE_4BIT: ("read a base in 4 bits (that takes CUDA and bitsandbytes)", "no params.base_bits"),
    Ability.BASE_8BIT: ("read a base in 8 bits (that takes CUDA and bitsandbytes)", "no params.base_bits"),
}
#: what an order that needs it has among its canonical JSON; text in quotes would have its own quotes escaped
_MARKS = {
    Ability.BF16: '"precision":"bf16"',
    Ability.BASE_4BIT: '"base_bits":4',
    Ability.BASE_8BIT: '"base_bits":8',
}


def needed(phase: str, order_json: str) -> frozenset[Ability]:
    """What a shard with this order takes; `init` reads a base as it is, whatever comes later."""
    if phase == "init":
        return frozenset()
    return frozenset(ability for ability, mark in _MARKS.items() if mark in order_json)


def known(names: Iterable[str]) -> frozenset[Ability]:
    """Those of a worker's names that mean something here; a later version may say more."""
    return frozenset(Ability) & frozenset(names)


def lack(missing: Iterable[Ability]) -> str:
    """ "compute in bf16 or read a base in 4 bits (…)", behind "can't"."""
    return " or ".join(_WORDS[ability][0] for ability in sorted(missing))


def without(missing: Iterable[Ability]) -> str:
    """What a job file says instead: "params.precision: fp32"."""
    return " and ".join(dict.fromkeys(_WORDS[ability][1] for ability in sorted(missing)))
