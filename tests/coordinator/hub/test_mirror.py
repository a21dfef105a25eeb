"""Copies of hub models: allowed, pinned, checked, resumed, shared; and every way in which a hub can be wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardwork.artifact import verify_folder
from shardwork.clock import ManualClock
from shardwork.errors import Corrupt, InvalidInput, LimitExceeded, NotAllowed, NotFound, ShardworkError, Unreachable
from shardwork.models.folder import inspect_model
from shardwork.models.hub import unfold
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.artifacts.retention import HOUSE
from shardwork_coordinator.hub import HubMirror, HubRules, HubSource, source
from shardwork_coordinator.records import Artifact, ArtifactState
from shardwork_coordinator.store.memory import MemoryStore

from ...client.tiny_model import num_params, write_model
from ...hub_stand import COMMIT, Hub, hub_of

PINNED = f"hub:acme/tiny@{COMMIT}"
ALICE, BOB = "0a", "0b"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub, None, None]:
    monkeypatch.setattr(source, "WAIT_S", 0.0)
    folder = write_model(tmp_path / "acme-tiny")
    (folder / "README.md").write_text("not a file that travels")
    (folder / "tokenizer.model").write_bytes(b"nor is this")
    with hub_of(folder) as served:
        yield served


@dataclass(slots=True)
class Stand:
    mirror: HubMirror
    rows: MemoryStore
    contents: ArtifactStore
    folder: Path

    async def copied(self, party: str = ALICE, pinned: str = PINNED) -> str:
        """The artifact id once complete."""
        while not (copy := await self.mirror.mirror(pinned, party)).artifact_id:
            if copy.task is not None:
                await asyncio.wait({copy.task})
        return copy.artifact_id

    async def owners(self, artifact_id: str) -> dict[str, str]:
        rows = await self.rows.read(lambda tx: tx.find(Artifact, id=artifact_id, state=ArtifactState.STORED))
        return {row.owner: row.purpose for row in rows}


@asynccontextmanager
async def stand(hub: Hub, folder: Path, **changes: object) -> AsyncGenerator[Stand, None]:
    rules = HubRules(**{"url": hub.url, "allow": ("acme/*",), **changes})  # type: ignore[arg-type]
    rows = MemoryStore()
    rows.start()
    contents = ArtifactStore.open(folder / "store")
    mirror = HubMirror(HubSource(rules), rows, contents, ManualClock(), folder / "scratch")
    try:
        yield Stand(mirror, rows, contents, folder)
    finally:
        await mirror.close()
        rows.close()


async def test_a_branch_is_pinned_and_its_facts_need_no_weights(hub: Hub, tmp_path: Path) -> None:
    async with stand(hub, tmp_path) as made:
        facts = await made.mirror.resolve("hub:acme/tiny@main", ALICE)
        assert str(facts.pinned) == PINNED
        assert (await made.mirror.resolve("hub:acme/tiny@v1/stable", ALICE)).artifact_id == facts.artifact_id
        made.contents.materialise(facts.artifact_id, tmp_path / "facts")
        real, found = (
            inspect_model(tmp_path / "acme-tiny"),
            inspect_model(unfold(tmp_path / "facts", tmp_path / "model")),
        )
        assert found.run_params == real.run_params == num_params() and found.tensors == real.tensors
        assert facts.total_bytes == sum((tmp_path / "acme-tiny" / name).stat().st_size for name in real.files)
        assert all(asked for asked in hub.ranges("model.safetensors")[1:]), "only the header was read"
        assert (await made.owners(facts.artifact_id)).keys() == {HOUSE, ALICE}
        # what is pinned and known is not asked for again
        asked = len(hub.seen)
        assert (await made.mirror.resolve(PINNED, BOB)).total_bytes == facts.total_bytes
        assert len(hub.seen) == asked


async def test_a_model_is_copied_once_and_shared(hub: Hub, tmp_path: Path) -> None:
    async with stand(hub, tmp_path) as made:
        copy = await made.copied()
        manifest = made.contents.materialise(copy, tmp_path / "out")
        assert "README.md" not in {entry.path for entry in manifest.files}
        for entry in manifest.files:
            assert (tmp_path / "out" / entry.path).read_bytes() == hub.files[entry.path]
        verify_folder(tmp_path / "out", manifest)
        asked = len(hub.seen)
        assert await made.copied(BOB) == copy and len(hub.seen) == asked
        assert await made.owners(copy) == {HOUSE: PINNED, ALICE: PINNED, BOB: PINNED}
        assert list((tmp_path / "scratch").iterdir()) == []


async def test_who_asks_while_a_copy_ends_may_use_it(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stand(hub, tmp_path) as made:
        known = made.mirror._known  # pyright: ignore[reportPrivateUsage]

        async def just_before_the_end(purpose: str) -> Artifact | None:
            """Its row was looked for and was not there; then it came."""
            monkeypatch.setattr(made.mirror, "_known", known)
            assert copy.task is not None
            await asyncio.wait({copy.task})
            return None

        copy = await made.mirror.mirror(PINNED, ALICE)
        monkeypatch.setattr(made.mirror, "_known", just_before_the_end)
        found = await made.mirror.mirror(PINNED, BOB)
        assert found.artifact_id and await made.owners(found.artifact_id) == {HOUSE: PINNED, BOB: PINNED}


async def test_a_body_that_was_cut_is_resumed_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.cut_at, hub.cuts = 1000, 3
    async with stand(hub, tmp_path) as made:
        await made.copied()
        assert hub.ranges("model.safetensors") == ["", "bytes=1000-", "bytes=2000-", "bytes=3000-"]
    hub.cuts, hub.knows_ranges = 2, False
    async with stand(hub, tmp_path / "again") as made:
        await made.copied()


async def test_a_copy_goes_on_after_a_restart(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "ATTEMPTS", 1)
    hub.cut_at, hub.cuts = 3000, 1
    async with stand(hub, tmp_path) as made:
        with pytest.raises(Unreachable):
            await made.copied()
    async with stand(hub, tmp_path) as made:
        await made.copied()
        assert hub.ranges("model.safetensors")[-1] == "bytes=3000-"


async def test_a_busy_hub_is_asked_again_when_it_said(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("shardwork_coordinator.hub.source.asyncio.sleep", sleep)
    hub.refusals = [(429, "7"), (503, ""), (429, "9000")]
    async with stand(hub, tmp_path) as made:
        await made.mirror.resolve("hub:acme/tiny@main", ALICE)
    assert waited == [7.0, 0.0, source.WAIT_CAP_S]


async def test_the_token_goes_to_the_hub_alone(hub: Hub, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hf_secret\n")
    secret.chmod(0o600)
    hub.token = "hf_secret"
    with hub_of(tmp_path / "acme-tiny") as elsewhere:
        hub.large_base = elsewhere.url.replace("127.0.0.1", "localhost")
        async with stand(hub, tmp_path, token_file=secret, hosts=("localhost",)) as made:
            await made.copied()
        assert {token for _, _, token in hub.seen} == {"Bearer hf_secret"}
        assert elsewhere.seen and {token for _, _, token in elsewhere.seen} == {""}
    secret.chmod(0o640)
    async with stand(hub, tmp_path / "again", token_file=secret) as made:
        with pytest.raises(InvalidInput) as caught:
            await made.mirror.resolve("hub:acme/tiny@main", ALICE)
        assert caught.value.code == "hub.bad_token_file" and "hf_secret" not in caught.value.why.render()


def gated(hub: Hub) -> None:
    hub.token = "hf_other"


def changed(hub: Hub) -> None:
    hub.instead["model.safetensors"] = hub.files["model.safetensors"][:-1] + b"\xff"


def changed_config(hub: Hub) -> None:
    hub.instead["config.json"] = hub.files["config.json"].replace(b"1", b"2")


def longer(hub: Hub) -> None:
    hub.instead["model.safetensors"] = hub.files["model.safetensors"] + b"more"


def pickled(hub: Hub) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop("model.safetensors")


def giant(hub: Hub) -> None:
    hub.sizes["model.safetensors"] = 10**15


def no_weights(hub: Hub) -> None:
    del hub.files["model.safetensors"]


def leaving_index(hub: Hub) -> None:
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../../etc/passwd"}}).encode()


def foreign_code(hub: Hub) -> None:
    config = json.loads(hub.files["config.json"])
    hub.files["config.json"] = json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}).encode()


def elsewhere(hub: Hub) -> None:
    hub.large_base = "http://metadata.internal:1"


def circles(hub: Hub) -> None:
    hub.large_base = f"{hub.url}/acme/tiny/resolve/main/model.safetensors?"


def moved(hub: Hub) -> None:
    hub.commit = "not a commit"


def broken_header(hub: Hub) -> None:
    hub.files["model.safetensors"] = b"\xff" * 64


FAULTS: list[tuple[Callable[[Hub], None], type[ShardworkError], str]] = [
    (gated, NotAllowed, "hub.gated"),
    (changed, Corrupt, "hub.changed"),
    (changed_config, Corrupt, "hub.changed"),
    (longer, Corrupt, "hub.changed"),
    (pickled, InvalidInput, "hub.pickle"),
    (giant, LimitExceeded, "hub.too_large"),
    (no_weights, InvalidInput, "hub.no_weights"),
    (leaving_index, InvalidInput, "hub.bad_index"),
    (foreign_code, InvalidInput, "model.code"),
    (elsewhere, NotAllowed, "hub.foreign_redirect"),
    (circles, Unreachable, "hub.redirects"),
    (moved, Unreachable, "hub.odd_answer"),
    (broken_header, InvalidInput, "model.bad_tensors"),
]


@pytest.mark.parametrize(("break_it", "kind", "code"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS])
async def test_what_a_hub_does_wrong_is_refused_by_name(
    hub: Hub,
    tmp_path: Path,
    break_it: Callable[[Hub], None],
    kind: type[ShardworkError],
    code: str,
) -> None:
    break_it(hub)
    async with stand(hub, tmp_path) as made:
        with pytest.raises(kind) as caught:
            await made.mirror.resolve("hub:acme/tiny@main", ALICE)
            await made.copied()
        assert caught.value.code == code and caught.value.why.next_step
        assert str(tmp_path) not in caught.value.why.render()
        copies = await made.rows.read(lambda tx: tx.find(Artifact, purpose=PINNED))
        assert copies == []


async def test_what_does_not_exist_and_what_is_no_reference_are_told_apart(hub: Hub, tmp_path: Path) -> None:
    async with stand(hub, tmp_path) as made:
        for reference, kind, code in (
            ("hub:acme/tiny@gone", NotFound, "hub.not_found"),
            ("hub:acme/other@main", NotFound, "hub.not_found"),
            ("hub:acme/tiny", InvalidInput, "hub.bad_reference"),
            ("hub:acme/../tiny@main", InvalidInput, "hub.bad_reference"),
            ("hub:acme/tiny@a..b", InvalidInput, "hub.bad_reference"),
        ):
            with pytest.raises(kind) as caught:
                await made.mirror.resolve(reference, ALICE)
            assert caught.value.code == code
        with pytest.raises(InvalidInput) as told:
            await made.mirror.mirror("hub:acme/tiny@main", ALICE)
        assert told.value.code == "hub.not_pinned"


async def test_nothing_is_allowed_until_the_operator_says_so(hub: Hub, tmp_path: Path) -> None:
    for allow in ((), ("other/*", "acme/big-*")):
        async with stand(hub, tmp_path, allow=allow) as made:
            for call in (made.mirror.resolve("hub:acme/tiny@main", ALICE), made.mirror.mirror(PINNED, ALICE)):
                with pytest.raises(NotAllowed) as caught:
                    await call
                assert caught.value.code == "hub.not_allowed" and "hub_allow" in caught.value.why.next_step
    assert hub.seen == []


async def test_a_hub_on_a_private_address_is_reached_only_when_named(hub: Hub, tmp_path: Path) -> None:
    """A redirect to a host that a pattern allows must not lead into the operator's own network."""
    hub.large_base = hub.url.replace("127.0.0.1", "localhost")
    async with stand(hub, tmp_path, hosts=("local*",)) as made:
        with pytest.raises(NotAllowed) as caught:
            await made.mirror.resolve("hub:acme/tiny@main", ALICE)
        assert caught.value.code == "http.forbidden_address"


async def test_the_least_recently_used_copy_gives_way(hub: Hub, tmp_path: Path) -> None:
    async with stand(hub, tmp_path) as made:
        first = await made.copied()
        size = (await made.rows.read(lambda tx: tx.find(Artifact, id=first)))[0].bytes
    async with stand(hub, tmp_path, cache_bytes=size + 10) as made:
        await made.rows.write(lambda tx: tx.put(old_row(first, size)))
        hub.commit = "f" * 40
        hub.files["generation_config.json"] = b"{}"
        second = await made.copied(pinned=f"hub:acme/tiny@{'f' * 40}")
        assert HOUSE not in await made.owners(first) and HOUSE in await made.owners(second)
    async with stand(hub, tmp_path / "small", cache_bytes=10) as made:
        with pytest.raises(LimitExceeded) as caught:
            await made.copied(pinned=f"hub:acme/tiny@{'f' * 40}")
        assert caught.value.code == "hub.cache_full"


def old_row(artifact_id: str, size: int) -> Artifact:
    return Artifact(
        id=artifact_id,
        owner=HOUSE,
        purpose=PINNED,
        state=ArtifactState.STORED,
        bytes=size,
        leaves=1,
        created_ms=1,
    )
