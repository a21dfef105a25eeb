"""How much of this machine others use: processor time, terminals that somebody types in, GPUs others compute on.

Owns measuring on Linux, from /proc and /dev. A desktop's mouse and keyboard are not seen: what is typed outside of a
terminal shows only as the processor time it takes. Asked by the guard for "idle only".
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    #: share of all processors that others took since the last look; None: not measured, or the first look
    cpu_share: float | None = None
    #: since anybody typed into a terminal; None: there is none
    typed_s: float | None = None
    #: processes of others on a GPU
    gpu_pids: tuple[int, ...] = ()
    #: whether this system says who uses it
    measured: bool = True


@dataclass(slots=True)
class Users:
    """Looks at what is not this worker. The first look only takes the measure."""

    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    own_pid: int = field(default_factory=os.getpid)
    _busy: int | None = None
    _all: int = 0

    async def look(self) -> Use:
        if not self.proc.is_dir():
            return Use(measured=False)
        own = self._own()
        pids = await gpu.computing_pids() if gpu.is_here() else []
        others = tuple(pid for pid in pids if pid not in own)
        return Use(cpu_share=self._cpu_share(sum(own.values())), typed_s=self._typed_s(), gpu_pids=others)

    def _cpu_share(self, own_ticks: int) -> float | None:
        try:
            cells = [int(cell) for cell in (self.proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        # user nice system idle iowait irq softirq steal
        every = sum(cells)
        busy = every - cells[3] - cells[4] - own_ticks
        before, self._busy = self._busy, busy
        spent, self._all = every - self._all, every
        if before is None or spent <= 0:
            return None
        return min(max((busy - before) / spent, 0.0), 1.0)

    def _own(self) -> dict[int, int]:
        """Processor ticks of this worker and what it started, the ended ones in those of who waited for them."""
        parents: dict[int, int] = {}
        ticks: dict[int, int] = {}
        for entry in self.proc.iterdir():
            if not entry.name.isdigit():
                continue
            try:
                cells = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pid = int(entry.name)
            parents[pid], ticks[pid] = int(cells[1]), sum(int(cell) for cell in cells[11:15])
        mine = {self.own_pid}
        while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
            mine |= more
        return {pid: ticks.get(pid, 0) for pid in mine}

    def _typed_s(self) -> float | None:
        """The system notes when a terminal was last read from, to 8 seconds."""
        terminals = [*self.dev.glob("pts/[0-9]*"), *self.dev.glob("tty[0-9]*")]
        used: list[float] = []
        for terminal in terminals:
            try:
                used.append(terminal.stat().st_atime)
            except OSError:
                continue
        return max(time.time() - max(used), 0.0) if used else None
