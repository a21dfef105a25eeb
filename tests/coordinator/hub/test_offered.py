"""Models that the operator offers: stored once, granted to whoever names them, kept while they are offered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardwork.clock import ManualClock
from shardwork.errors import Conflict, InvalidInput, NotFound
from shardwork.models.folder import inspect_model
from shardwork.models.hub import check_reference, unfold
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.artifacts.expiry import Expiry
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.hub import offered
from shardwork_coordinator.records import Artifact, ArtifactState, OfferedModel
from shardwork_coordinator.store.memory import MemoryStore

from ...client.tiny_model import write_model

ALICE = "0a"
CENTURY_S = 3_000_000_000


@dataclass(slots=True)
class Stand:
    rows: MemoryStore
    contents: ArtifactStore
    clock: ManualClock
    folder: Path

    async def offer(self, name: str, model: Path, licence: str = "mit") -> OfferedModel:
        stored = offered.store_model(model, self.contents, self.folder / "scratch")
        return await self.rows.write(lambda tx: offered.offer(tx, name, stored, licence, self.clock.now_ms()))

    async def owned(self, artifact_id: str, owner: str) -> bool:
        row = await self.rows.read(lambda tx: tx.get(Artifact, artifact_id, owner))
        return row is not None and row.state is ArtifactState.STORED

    async def sweep(self) -> None:
        await Expiry(self.rows, self.contents, self.clock, ArtifactLimits()).sweep()


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    rows = MemoryStore()
    rows.start()
    yield Stand(rows, ArtifactStore.open(tmp_path / "store"), ManualClock(), tmp_path)
    rows.close()


async def test_whoever_names_it_may_read_the_model_and_facts_that_plan_like_it(stand: Stand) -> None:
    model = write_model(stand.folder / "tiny")
    (model / "notes.txt").write_text("does not travel")
    row = await stand.offer("tiny-1", model)
    assert not await stand.owned(row.artifact_id, ALICE)
    await stand.rows.write(offered.granted("offered:tiny-1", ALICE, 5))
    assert await stand.owned(row.artifact_id, ALICE) and await stand.owned(offered.facts_id(row), ALICE)
    stand.contents.materialise(offered.facts_id(row), stand.folder / "facts")
    plans_as = inspect_model(unfold(stand.folder / "facts", stand.folder / "stand-in"))
    assert (plans_as.run_params, plans_as.tensors) == (inspect_model(model).run_params, inspect_model(model).tensors)
    assert "notes.txt" not in {entry.path for entry in stand.contents.manifest(row.artifact_id).files}


async def test_it_is_kept_while_it_is_offered_and_goes_when_it_was_withdrawn(stand: Stand) -> None:
    row = await stand.offer("tiny", write_model(stand.folder / "tiny"))
    stand.clock.advance(CENTURY_S)
    await stand.sweep()
    assert await stand.owned(row.artifact_id, "house") and await stand.owned(offered.facts_id(row), "house")
    await stand.rows.write(lambda tx: offered.withdraw(tx, "tiny"))
    await stand.sweep()
    assert not await stand.owned(row.artifact_id, "house")
    with pytest.raises(NotFound, match="offers no model"):
        await stand.rows.write(offered.granted("offered:tiny", ALICE, 5))


async def test_a_name_never_means_another_model(stand: Stand) -> None:
    first = write_model(stand.folder / "a")
    await stand.offer("tiny", first)
    await stand.rows.write(lambda tx: offered.withdraw(tx, "tiny"))
    other = write_model(stand.folder / "b")
    (other / "generation_config.json").write_text('{"max_new_tokens": 7}')
    with pytest.raises(Conflict):
        await stand.offer("tiny", other)
    assert not (await stand.offer("tiny", first, "apache-2.0")).withdrawn


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a..b", "-a", "a:b", "a b", "x" * 64, "ä", "facts:tiny"])
async def test_a_name_that_is_no_word_is_refused(stand: Stand, name: str) -> None:
    with pytest.raises(InvalidInput):
        check_reference(f"offered:{name}")


async def test_a_folder_that_is_no_model_is_not_offered(stand: Stand) -> None:
    with pytest.raises(InvalidInput):
        await stand.offer("tiny", stand.folder)
