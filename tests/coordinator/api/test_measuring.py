"""Measuring files that came over HTTP: whose turn it is, what is read, and how much of the disk it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shardwork.errors import LimitExceeded
from shardwork_coordinator.api import lanes, measuring
from shardwork_coordinator.api.lanes import SMALL_BYTES, Lane, Lanes

from .stand import Stand, rows, send

V1 = "/api/v1"


class Held(Lane):
    """Answers one question each time that it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[object] = []
        self.go_on = asyncio.Semaphore(0)

    async def ask(self, work: Callable[[Any], object], question: object, patience_s: float) -> object:
        self.asked.append(question)
        await self.go_on.acquire()
        return question


def work(question: object) -> object:
    return question


async def test_small_files_do_not_wait_for_somebodys_large_ones() -> None:
    large, small = Held(), Held()
    asked = Lanes(small, large)
    slow = asyncio.create_task(asked.ask("anna", work, "large", SMALL_BYTES + 1))
    while not large.asked:
        await asyncio.sleep(0)
    small.go_on.release()
    assert await asked.ask("bert", work, "small", SMALL_BYTES) == "small"
    assert not slow.done()
    large.go_on.release()
    await slow


async def test_one_partys_files_take_turns_with_anothers() -> None:
    lane = Held()
    asked = Lanes(lane, Held())
    waiting = [
        asyncio.create_task(asked.ask(party, work, f"{party} {number}", 0))
        for party, number in (("anna", 1), ("anna", 2), ("anna", 3), ("bert", 1))
    ]
    while not lane.asked:
        await asyncio.sleep(0)
    for _ in waiting:
        lane.go_on.release()
    await asyncio.gather(*waiting)
    assert lane.asked == ["anna 1", "bert 1", "anna 2", "anna 3"]


def tuning(name: str, artifact_id: str, **source: Any) -> dict[str, Any]:
    data = {"path": name, **source} if source else name
    stage = {"name": "tune", "recipe": "sft", "base_model": "offered:tiny", "data": [data]}
    spec = {"name": "t", "stages": [stage], "trust": {"class": "public"}, "budget": {"max_sats": 100}}
    return {"spec": spec, "inputs": {"tune.data": artifact_id}}


async def refused(stand: Stand, client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[int, str]:
    """The quote's status and code, also where the job is submitted; nothing is held."""
    quoted = await client.post(f"{V1}/jobs/quote", json=body)
    inputs = [{"name": name, "artifact_id": one} for name, one in body["inputs"].items()]
    submitted = await client.post(f"{V1}/jobs", json={**body, "inputs": inputs})
    assert submitted.json()["error"]["code"] == quoted.json()["error"]["code"]
    assert (await client.get(f"{V1}/wallet/balance")).json()["held_msat"] == 0
    assert not list(stand.desk.scratch.glob("measure-*"))
    return quoted.status_code, str(quoted.json()["error"]["code"])


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.json", "rows.jsonl.gz"])
async def test_what_the_executor_would_not_read_is_refused_before_a_sat_moves(
    stand: Stand, anna: httpx.AsyncClient, name: str
) -> None:
    await stand.offer()
    artifact = await send(anna, b"prompt,completion\na,b\n" * 20, name)
    assert await refused(stand, anna, tuning(name, artifact)) == (400, "measuring.not_plain")


async def test_a_mapping_is_not_measured_as_if_it_would_be_applied(stand: Stand, anna: httpx.AsyncClient) -> None:
    await stand.offer()
    artifact = await send(anna, b'{"frage": "a b", "antwort": "c d"}\n' * 20, "rows.jsonl")
    body = tuning("rows.jsonl", artifact, mapping={"prompt": "frage", "completion": "antwort"})
    assert await refused(stand, anna, body) == (400, "measuring.mapped")


async def test_a_full_disk_is_not_filled_by_copies(stand: Stand, anna: httpx.AsyncClient) -> None:
    await stand.offer()
    artifact = await send(anna, rows(), "rows.jsonl")
    stand.desk.measurer.reserve_bytes = 1 << 60
    assert await refused(stand, anna, tuning("rows.jsonl", artifact)) == (507, "measuring.no_space")


async def test_a_models_small_files_are_small_together(
    stand: Stand, anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stand.offer()
    artifact = await send(anna, rows(), "rows.jsonl")
    monkeypatch.setattr(measuring, "MOST_COMPANION_BYTES", 1_000)
    assert await refused(stand, anna, tuning("rows.jsonl", artifact)) == (429, "measuring.too_large")


async def test_a_quote_warns_of_the_data_as_the_command_line_does(stand: Stand, anna: httpx.AsyncClient) -> None:
    await stand.offer()
    artifact = await send(anna, rows(20) * 2, "rows.jsonl")
    answer = await anna.post(f"{V1}/jobs/quote", json=tuning("rows.jsonl", artifact))
    codes = [each["code"] for each in answer.json()["quote"]["warnings"]]
    assert [code for code in codes if code.startswith("data.")], codes


async def test_too_many_files_of_one_party_are_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "OF_ONE_MAX", 1)
    lane = Held()
    asked = Lanes(lane, Held())
    first = asyncio.create_task(asked.ask("anna", work, 1, 0))
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded, match="being measured"):
        await asked.ask("anna", work, 2, 0)
    lane.go_on.release()
    assert await first == 1
