"""Lanes: processes that measure strangers' files, each one question after the other, with the executor's limits.

Small files have a lane of their own, so that nobody waits for somebody's large ones; and a party has one question in a
lane at a time, so that those who wait take turns. Knows no question; used by `measuring`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from shardwork.errors import Internal, LimitExceeded

from ..artifacts.turns import Turns
from ..executor import PREPARE_BYTES_A_SECOND, PREPARE_SECONDS, end_process, start_child

#: questions of one requester that are answered or wait
OF_ONE_MAX = 4
#: files up to here are measured within seconds
SMALL_BYTES = 4 << 20


@dataclass(slots=True)
class Lane:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    process: ProcessPoolExecutor | None = None

    async def ask(self, work: Callable[[Any], object], question: object, patience_s: float) -> object:
        """What the process answers. Raises LimitExceeded "measuring.too_slow", Internal "measuring.died"."""
        try:
            running = asyncio.get_running_loop().run_in_executor(self._running(), work, question)
            async with asyncio.timeout(patience_s):
                return await running
        except BaseException as error:
            await asyncio.to_thread(self.close)
            if isinstance(error, TimeoutError):
                raise LimitExceeded(
                    "measuring.too_slow",
                    "Measuring the files took longer than any honest file of their size does.",
                    next_step="Look for a row that takes for ever, or submit with `shardwork job submit`.",
                ) from None
            if isinstance(error, BrokenProcessPool):
                raise Internal(
                    "measuring.died", "Measuring the files took more memory than there is.", next_step="Send less."
                ) from None
            raise

    def close(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            end_process(process)

    def _running(self) -> ProcessPoolExecutor:
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.process = ProcessPoolExecutor(1, mp_context=context, initializer=start_child)
        return self.process


@dataclass(slots=True)
class Lanes:
    small: Lane = field(default_factory=Lane)
    large: Lane = field(default_factory=Lane)
    _of_party: Counter[str] = field(default_factory=Counter[str])
    #: whose turn it is among one party's own
    _turns: Turns = field(default_factory=Turns)

    async def ask(self, party: str, work: Callable[[Any], object], question: object, size_bytes: int) -> object:
        """What a process answers when it is this party's turn. Raises LimitExceeded "measuring.*", Internal."""
        if self._of_party[party] >= OF_ONE_MAX:
            raise LimitExceeded(
                "measuring.too_many",
                "Files of yours are being measured.",
                next_step="Try again when that is done.",
                retry_after_s=5,
            )
        lane = self.small if size_bytes <= SMALL_BYTES else self.large
        self._of_party[party] += 1
        try:
            async with self._turns.of(f"{party} {size_bytes <= SMALL_BYTES}"), lane.turn:
                return await lane.ask(work, question, PREPARE_SECONDS / 2 + size_bytes / PREPARE_BYTES_A_SECOND)
        finally:
            self._of_party[party] -= 1
            if not self._of_party[party]:
                del self._of_party[party]

    def close(self) -> None:
        self.small.close()
        self.large.close()
