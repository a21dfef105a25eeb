"""The guard: whether this machine may take a shard right now, by its owner's limits, and why not.

Owns looking and nothing else: the agent looks every few seconds and acts on the answer. What can't be measured is said,
and a limit that can't be held takes no work.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from shardwork.why import Why

from ..account.book import Book
from ..settings import AtLimit, WorkerSettings
from . import gpu
from .hours import Hours
from .meter import Meter
from .size import show
from .use import Use, Users

#: begins the code of every limit that keeps shards away
CODES = "worker.limit_"
#: looks in a row that must find a GPU above its cap, and how long it then rests
HOT_LOOKS = 2
POWER_REST_S = 600.0


@dataclass(frozen=True, slots=True)
class Held:
    """A limit that keeps shards away now."""

    why: Why
    #: the shard in hand is given back, too
    at_once: bool


@dataclass(slots=True)
class Guard:
    settings: WorkerSettings
    device: str
    book: Book
    meter: Meter
    #: any folder on the disk of the cache
    disk: Path
    #: drops what the cache can spare
    make_room: Callable[[], object]
    now: Callable[[], time.struct_time] = time.localtime
    monotonic: Callable[[], float] = time.monotonic
    use: Callable[[], Awaitable[Use]] = field(default_factory=lambda: Users().look)
    #: when others used the machine last, and who
    _used_at_s: float | None = None
    _used_by: str = ""
    _hot_looks: int = 0
    #: looks in a row at which nothing said how much the GPU draws
    _blind_looks: int = 0
    _hot_until_s: float = float("-inf")
    _hot: Why | None = None

    async def look(self) -> Held | None:
        """The limit that keeps shards away now; of several, the one that lasts."""
        self._count()
        return self._hours() or self._day() or await self._others() or await self._power() or self._disk()

    def left_over(self) -> None:
        """Takes what was moved since the last look into the book, at the worker's end."""
        self._count()

    @property
    def _goes_at_once(self) -> bool:
        return self.settings.at_limit is AtLimit.GIVE_BACK

    def _count(self) -> None:
        if moved := self.meter.take():
            self.book.moved(self._today(), moved)

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", self.now())

    def _hours(self) -> Held | None:
        hours, now = Hours.parse(self.settings.hours), self.now()
        minute = now.tm_hour * 60 + now.tm_min
        if hours.hold(minute):
            return None
        why = Why(
            code="worker.limit_hours",
            sentence=f"It takes shards from {hours.begin_after(minute)} on, as its owner's hours say.",
            evidence={"hours": hours.text(), "now": f"{now.tm_hour:02d}:{now.tm_min:02d}"},
            next_step="Wait, or change hours in worker.toml and start it again.",
        )
        return Held(why, self._goes_at_once)

    def _day(self) -> Held | None:
        most = self.settings.day_bytes
        moved = self.book.moved_on(self._today()) if most is not None else 0
        if most is None or moved < most:
            return None
        why = Why(
            code="worker.limit_day_bytes",
            sentence=f"It moved {show(moved)} today, and its owner allows {show(most)} a day.",
            evidence={"moved_bytes": str(moved), "day_bytes": str(most)},
            next_step="It goes on after midnight. Or raise day_bytes in worker.toml and start it again.",
        )
        return Held(why, self._goes_at_once)

    async def _others(self) -> Held | None:
        """The machine is in use until it was left alone for a while."""
        if not self.settings.idle_only:
            return None
        patience_s, now_s = self.settings.idle_minutes * 60, self.monotonic()
        use = await self.use()
        if not use.measured:
            return Held(UNSEEN, True)
        by = self._users(use)
        if by:
            self._used_at_s, self._used_by = now_s, by
        if self._used_at_s is None or (not by and now_s - self._used_at_s >= patience_s):
            return None
        why = Why(
            code="worker.limit_in_use",
            sentence=f"Somebody uses this machine, and it works only on an idle one: {self._used_by}.",
            evidence={"seen": f"{now_s - self._used_at_s:.0f} s ago", "waits": f"{patience_s} s of quiet"},
            next_step="Wait, or change idle_only, idle_cpu or idle_minutes in worker.toml and start it again.",
        )
        return Held(why, True)

    def _users(self, use: Use) -> str:
        if use.gpu_pids:
            return f"another process computes on a GPU ({', '.join(map(str, use.gpu_pids[:3]))})"
        if use.typed_s is not None and use.typed_s < self.settings.idle_minutes * 60:
            return f"somebody typed into a terminal {use.typed_s:.0f} s ago"
        if use.cpu_share is not None and use.cpu_share > self.settings.idle_cpu:
            return f"others took {use.cpu_share:.0%} of the processors' time"
        return ""

    async def _power(self) -> Held | None:
        most = self.settings.power_watts
        if most is None or not self.device.startswith("cuda"):
            return None
        if self.monotonic() < self._hot_until_s and self._hot is not None:
            return Held(self._hot, True)
        found = gpu.of_device(await gpu.readings(), self.device)
        drawn = [one.watts for one in found if one.watts is not None]
        if not drawn:
            # a tool that was slow once is no reason to lose a shard
            self._blind_looks += 1
            return Held(unmeasured(most), self._blind_looks >= HOT_LOOKS)
        self._blind_looks = 0
        self._hot_looks = self._hot_looks + 1 if max(drawn) > most else 0
        if self._hot_looks < HOT_LOOKS:
            return None
        self._hot_looks, self._hot_until_s = 0, self.monotonic() + POWER_REST_S
        self._hot = too_hot(max(drawn), most)
        return Held(self._hot, True)

    def _disk(self) -> Held | None:
        least = self.settings.keep_free_bytes
        free = shutil.disk_usage(self.disk).free if least else 0
        if least and free < least:
            self.make_room()
            free = shutil.disk_usage(self.disk).free
        if free >= least:
            return None
        why = Why(
            code="worker.limit_disk",
            sentence=f"The disk has {show(free)} free, and its owner keeps {show(least)} free.",
            evidence={"free_bytes": str(free), "keep_free_bytes": str(least)},
            next_step="Free some space, or lower keep_free_bytes in worker.toml and start it again.",
        )
        return Held(why, False)


UNSEEN = Why(
    code="worker.limit_use_unmeasured",
    sentence="It works only on an idle machine, and this system does not say who uses it.",
    next_step="Take idle_only out, and set hours instead; it is measured on Linux.",
)


def unmeasured(most_watts: float) -> Why:
    return Why(
        code="worker.limit_power_unmeasured",
        sentence="Its owner caps the GPU's power, and nothing here says how much it draws.",
        evidence={"power_watts": f"{most_watts:g}", "tool": gpu.TOOL},
        next_step="Install NVIDIA's nvidia-smi, or take power_watts out of worker.toml.",
    )


def too_hot(watts: float, most_watts: float) -> Why:
    return Why(
        code="worker.limit_power",
        sentence=f"The GPU drew {watts:.0f} W, and its owner allows {most_watts:g} W, so it rests "
        f"{POWER_REST_S / 60:.0f} min.",
        evidence={"watts": f"{watts:.0f}", "power_watts": f"{most_watts:g}"},
        next_step=f"Let the driver hold it, so that nothing is lost: sudo nvidia-smi -pl {most_watts:g}",
    )
