"""A stage may have fifty thousand items and hundreds of people: what one of them does, and what a look of the sweeper
takes, must not grow with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shardwork_coordinator.records import Shard
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store.sql import SqlTransaction
from shardwork_coordinator.store.statements import Statement
from shardwork_coordinator.sweeper import Sweeper

from ..stores import OPEN
from .stand import looks, person, rows, standing


async def nothing() -> None: ...


async def test_what_one_person_does_reads_nobody_else_s_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: dict[str, str] = {}
    run = Statement.run

    def planned(self: Any, cursor: Any, parameters: Mapping[str, Any]) -> None:
        sql = self._sql
        if sql not in plans and all(part in sql for part in ("FROM vote", "annotator = ?", "stage = ?")):
            values = {**self._constants, **parameters}
            fresh = cursor.connection.cursor()
            fresh.execute(f"EXPLAIN QUERY PLAN {sql}", tuple(values[name] for name in self._order))
            plans[sql] = " ".join(str(row[3]) for row in fresh.fetchall())
        run(self, cursor, parameters)

    monkeypatch.setattr(Statement, "run", planned)
    async with standing(tmp_path, OPEN["sqlite"](tmp_path, "")) as stand:
        await stand.submit(rows(12, 12))
        anna = person(stand, 1)
        await anna.join()
        await anna.work(25)
        given = (await anna.next())["task"]
        if given is not None:
            await anna.ok("vote", lease=given["lease"], answer=looks(given))
        await stand.later()
    assert len(plans) >= 3
    assert [plan for plan in plans.values() if "annotator=?" not in plan] == []


async def test_a_look_of_the_sweeper_reads_no_items_that_wait_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(tmp_path, OPEN["sqlite"](tmp_path, "")) as stand:
        await stand.submit(rows(12, 12), overlap=2)
        read, find = list[Any](), SqlTransaction.find

        def counted(self: SqlTransaction, kind: Any, /, **how: Any) -> list[Any]:
            found = find(self, kind, **how)
            read.extend(found if kind is Shard else [])
            return found

        monkeypatch.setattr(SqlTransaction, "find", counted)
        await Sweeper(stand.engine, Settings(data_dir=stand.folder), nothing).sweep()
        assert [one.id for one in read if one.phase == "ask"] == []
