"""ApiDesk: what the routes of both faces work with, built once by `app`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifacts.turns import Turns
from ..engine import Engine
from ..rpc.artifacts import ArtifactDesk
from ..rpc.jobs import JobsDesk
from ..rpc.wallet import Wallet
from ..store.base import T, Transaction
from ..web.kept import Kept
from .keys import KeyGate
from .measuring import Measurer

#: the largest file of a form; larger data goes over gRPC, which resumes
FILE_MAX_BYTES = 512 << 20


@dataclass(slots=True)
class Turn:
    """Files of one owner, one after the other."""

    files: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True, kw_only=True)
class ApiDesk:
    engine: Engine
    jobs: JobsDesk
    artifacts: ArtifactDesk
    wallet: Wallet
    gate: KeyGate
    measurer: Measurer
    #: where files of forms lie until they are stored
    scratch: Path
    file_max_bytes: int = FILE_MAX_BYTES
    #: one file of each owner is received at a time: what lies in `scratch` is in nobody's quota yet
    receiving: dict[str, Turn] = field(default_factory=dict[str, "Turn"])
    #: whose turn it is to create one and the same fine-tuning job
    creating: Turns = field(default_factory=Turns)
    #: workers in numbers, for everybody who asks
    totals: Kept[dict[str, Any]] | None = None
    #: the coordinator stops, and streams with it
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def commit(self, work: Callable[[Transaction], T]) -> T:
        """What the HTTP API writes by itself, beside the handlers that it shares with gRPC: one transaction each."""
        return await self.engine.store.write(work)

    def close(self) -> None:
        """Ends streams in their own time, and the process that measures."""
        self.closing.set()
        self.measurer.close()

    @property
    def now_ms(self) -> int:
        return self.engine.clock.now_ms()
