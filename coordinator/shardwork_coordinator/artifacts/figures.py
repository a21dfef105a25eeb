"""Figures: what lies in the artifact store and what sweeps did, for /metrics. Counted by `expiry`, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from shardwork.models.hub import OFFERED

from ..records import Artifact
from .retention import HOUSE, HUB

#: what content is, by its rows; a model that the operator offers counts with those of hubs
KINDS = ("input", "result", "output", "executor", "hub")


@dataclass(slots=True)
class StorageFigures:
    """As the last sweep left it; all zero before the first."""

    #: distinct contents, so what several parties hold counts once
    artifacts: Counter[str] = field(default_factory=Counter[str])
    bytes: Counter[str] = field(default_factory=Counter[str])
    deleted_artifacts: int = 0
    deleted_bytes: int = 0
    failures: int = 0
    swept_ms: int = 0

    def count(self, rows: Iterable[Artifact]) -> None:
        """Counts each content under its first row."""
        for row in {row.id: row for row in rows}.values():
            self.artifacts[kind_of(row)] += 1
            self.bytes[kind_of(row)] += row.bytes

    def swept(self, counted: StorageFigures, deleted: Collection[str], sizes: Mapping[str, int], now_ms: int) -> None:
        """Takes over what a sweep counted and deleted."""
        self.artifacts, self.bytes, self.swept_ms = counted.artifacts, counted.bytes, now_ms
        self.deleted_artifacts += len(deleted)
        self.deleted_bytes += sum(sizes.get(one, 0) for one in deleted)


def kind_of(row: Artifact) -> str:
    """One of KINDS."""
    return kind_by(row.owner, row.purpose)


def kind_by(owner: str, purpose: str) -> str:
    """One of KINDS, for whoever read only these two columns."""
    if purpose.startswith((HUB, OFFERED)):
        return "hub"
    if owner == HOUSE:
        return "executor"
    if purpose.startswith("output of "):
        return "output"
    return "input" if purpose == "input" else "result"
