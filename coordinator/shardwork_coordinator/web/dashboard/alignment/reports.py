"""Reports: what a stage of votes says of people, judge and blend, read from its output `report` (`feedback.report`)."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from shardwork.errors import ShardworkError

from ....artifacts import ArtifactStore
from ....records import Stage
from ....store.base import Transaction
from .reading import whole

FILE = "report.json"
MOST_KEPT = 64

#: stage -> its report
Known = Mapping[str, Mapping[str, Any]]


class Reports:
    """Kept by artifact: what is in one never changes."""

    def __init__(self, contents: ArtifactStore | None) -> None:
        self._contents = contents
        self._known: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    async def of(self, artifacts: Mapping[str, str]) -> Known:
        """`artifacts`: stage -> report. Nothing is told of what is deleted, or is no report of votes."""
        found: dict[str, Mapping[str, Any]] = {}
        for stage, artifact in artifacts.items():
            try:
                told = await self._read(artifact)
            except (ShardworkError, OSError):
                continue
            if isinstance(told.get("sides"), list):
                found[stage] = told
        return found

    async def _read(self, artifact: str) -> Mapping[str, Any]:
        if artifact not in self._known and self._contents is not None:
            self._known[artifact] = await asyncio.to_thread(whole, self._contents, artifact, FILE)
            if len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)
        return self._known.get(artifact, {})


def artifacts(tx: Transaction, job_id: str) -> dict[str, str]:
    """Stage -> the artifact with its report, of the stages that made one."""
    found: dict[str, str] = {}
    for name, outputs in tx.pick(Stage, ("name", "outputs_json"), job_id=job_id, order="position"):
        report = json.loads(outputs).get(f"{name}.report")
        if report:
            found[name] = report["artifact_id"]
    return found
