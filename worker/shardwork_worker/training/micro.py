# pyright: standard
"""How many rows lie on the device at once: halved when its memory runs out, and remembered for the next shard.

The effective batch stays what the order says, because gradients are normalised by the labels of the whole batch however
it is cut (`loop`). A batch that ran out of memory is taken again from its beginning, so the outcome depends on where
memory ended and on nothing else. Called by `learn` and the trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from shardwork.errors import LimitExceeded
from shardwork.recipes.orders import LearnOrder

from .device import release

OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")

T = TypeVar("T")


@dataclass(slots=True)
class MicroBatch:
    """The size in use for one kind of shard, and how often it was halved for it."""

    device: torch.device
    size: int
    halvings: int = 0
    #: the size it began with
    before: int = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.size

    def halve(self) -> None:
        """Raises LimitExceeded "trainer.out_of_memory" when one row at a time is too much already."""
        if self.size <= 1:
            raise LimitExceeded(
                "trainer.out_of_memory",
                "The device ran out of memory with one row at a time.",
                next_step="Use LoRA instead of full tuning, gradient checkpointing, a smaller max_length, or a larger "
                "device.",
                device=self.device,
            )
        self.size //= 2
        self.halvings += 1

    def fitting(self, take: Callable[[int], T], forget: Callable[[], None], agree: Callable[[bool], bool]) -> T:
        """What `take(size)` gives, tried again at half the size after `forget()` as often as memory runs out.

        `agree`: whether it ran out on any rank of a team, all of which must take the same batch again.
        """
        while True:
            taken: list[T] = []
            try:
                taken.append(take(self.size))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if not agree(not taken):
                return taken[0]
            # outside of the except: the error's traceback holds everything that filled the memory
            self.halve()
            forget()
            release(self.device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine had no memory left. CPU and MPS have no error type of their own for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in OUT_OF_MEMORY_WORDS)


@dataclass(slots=True)
class Sizes:
    """What fitted before, by kind of shard; one for each trainer."""

    _found: dict[Any, int] = field(default_factory=dict[Any, int])

    def start(self, key: Any, order: LearnOrder, device: torch.device) -> MicroBatch:
        """The order's size, or what was found to fit."""
        return self.at_most(min(order.micro_batch_size, order.batch_size), key, device)

    def at_most(self, rows: int, key: Any, device: torch.device) -> MicroBatch:
        """So many rows, or what was found to fit."""
        return MicroBatch(device, min(rows, self._found.get(key, rows)))

    def keep(self, key: Any, micro: MicroBatch) -> None:
        """Remembers a size that was halved."""
        if micro.halvings:
            self._found[key] = micro.size
