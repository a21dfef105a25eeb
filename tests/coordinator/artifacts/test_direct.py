"""Bytes straight to and from an S3-compatible store by signed addresses, and all that can go wrong on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from shardwork import transfer
from shardwork.artifact import LEAF_BYTES, Manifest, describe_folder, verify_folder
from shardwork.errors import Conflict, Corrupt, NotFound, Unreachable
from shardwork.identity.role import Role
from shardwork.v1 import artifacts_pb2, storage_pb2
from shardwork_coordinator.artifacts import ArtifactStore, direct
from shardwork_coordinator.artifacts.direct import Direct
from shardwork_coordinator.artifacts.objects import ObjectBackend, key
from shardwork_coordinator.artifacts.sealing import Sealer
from shardwork_coordinator.records import ReplicaState

from ...s3_stand import S3, s3_server
from .service import NamedSession, Service, fill, serving
from .test_access import OWNER, STRANGER, WORKER, owns, replica, shard
from .test_quota import put

SIZE = 5 * LEAF_BYTES + 17


@pytest.fixture
def s3() -> Generator[S3, None, None]:
    with s3_server() as served:
        yield served


@asynccontextmanager
async def over(s3: S3, folder: Path, sealer: Sealer | None = None) -> AsyncGenerator[Service, None]:
    """A coordinator whose artifacts lie in the bucket."""
    async with serving(folder / "unused") as service:
        backend = ObjectBackend(s3.store())
        store = ArtifactStore(backend, folder / "spool", sealer) if sealer else ArtifactStore(backend, folder / "spool")
        service.contents = service.desk.contents = store
        yield service


async def sent(service: Service, folder: Path, party: str = OWNER) -> Manifest:
    return await transfer.upload_folder(NamedSession(service.port, party), folder, purpose="input")


async def fetched(service: Service, manifest: Manifest, into: Path, party: str = OWNER) -> None:
    await transfer.download(NamedSession(service.port, party), manifest.id, into)
    verify_folder(into, manifest)


def changed(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


def shorter(data: bytes) -> bytes:
    return data[:-1]


def longer(data: bytes) -> bytes:
    return data + b"x" * 1000


def empty(data: bytes) -> bytes:
    return data[:0]


async def test_bytes_go_straight_to_the_store_and_back(s3: S3, tmp_path: Path) -> None:
    async with over(s3, tmp_path) as service:
        manifest = await sent(service, fill(tmp_path / "in", a=SIZE, sub__b=3))
        assert s3.served["PUT", "signed"] == 1 and await owns(service, manifest.id, OWNER)
        assert {name.partition("/")[0] for name in s3.objects} == {"packs"}, "nothing is left on the way"
        await fetched(service, manifest, tmp_path / "out")
        assert s3.served["GET", "signed"] == 1 and not s3.refused
        # what is small needs no detour
        small = await sent(service, fill(tmp_path / "small", a=5))
        await fetched(service, small, tmp_path / "small-out")
        assert s3.served["GET", "signed"] == s3.served["PUT", "signed"] == 1


async def test_a_bucket_that_is_away_is_told_without_its_address_and_bytes_go_when_it_is_back(
    s3: S3, tmp_path: Path
) -> None:
    async with over(s3, tmp_path) as service:
        folder = fill(tmp_path / "in", a=5 * LEAF_BYTES + 3)
        store, kept = service.contents, await sent(service, fill(tmp_path / "other", b=9 * LEAF_BYTES))
        s3.away = True
        for call in (lambda: store.has(kept.id), lambda: store.manifest(kept.id), lambda: store.put_folder(folder)):
            with pytest.raises(Unreachable) as caught:
                call()
            assert caught.value.code == "storage.unreachable"
            assert str(s3.port) not in str(caught.value) and "bucket" not in str(caught.value)
        asked = asyncio.create_task(fetched(service, kept, tmp_path / "out of other"))
        await asyncio.sleep(0.5)
        assert not asked.done()
        s3.away = False
        await asked
        await fetched(service, await sent(service, folder), tmp_path / "out")


async def test_a_cut_connection_goes_on_at_the_leaf(s3: S3, tmp_path: Path) -> None:
    async with over(s3, tmp_path) as service:
        manifest = await sent(service, fill(tmp_path / "in", a=SIZE))
        s3.cut_at, s3.cuts = 2 * LEAF_BYTES + 5, 2
        await fetched(service, manifest, tmp_path / "out")
        assert s3.served["GET", "signed"] == 3


async def test_an_address_that_is_over_is_signed_again_or_grpc_goes_on(s3: S3, tmp_path: Path) -> None:
    async with over(s3, tmp_path) as service:
        manifest = await sent(service, fill(tmp_path / "in", a=SIZE))
        s3.ahead_s = direct.LIFETIME_S + 5
        await fetched(service, manifest, tmp_path / "out")
        assert s3.refused["AccessDenied"] == 3 and not s3.served["GET", "signed"]
        more = await sent(service, fill(tmp_path / "more", a=SIZE))
        await fetched(service, more, tmp_path / "more-out")


async def test_bytes_that_were_changed_on_the_way_are_not_taken(s3: S3, tmp_path: Path) -> None:
    async with over(s3, tmp_path) as service:
        manifest = await sent(service, fill(tmp_path / "in", a=SIZE))
        s3.spoil["GET"] = changed
        await fetched(service, manifest, tmp_path / "out")
        s3.spoil["GET"] = longer
        await fetched(service, manifest, tmp_path / "out-again")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (changed, "artifact.bad_leaf"),
        (shorter, "artifact.wrong_length"),
        (longer, "artifact.wrong_length"),
        (empty, "artifact.wrong_length"),
    ],
)
async def test_what_was_put_wrong_is_refused_and_never_becomes_the_artifact(
    s3: S3, tmp_path: Path, spoil: Callable[[bytes], bytes], code: str
) -> None:
    async with over(s3, tmp_path) as service:
        session = NamedSession(service.port, OWNER)
        manifest = await begun(session, fill(tmp_path / "in", a=SIZE))
        [pack] = (await signed_upload(session, manifest)).packs
        await put_at(pack.url, spoil((tmp_path / "in" / "a").read_bytes()))
        with pytest.raises(Corrupt) as caught:
            await complete(session, manifest)
        assert caught.value.code == code and not service.contents.has(manifest.id)
        assert not any(name.startswith(("incoming", "checking")) for name in s3.objects)
        # the ordinary way ends well all the same
        s3.spoil["PUT"] = spoil
        assert (await sent(service, tmp_path / "in")).id == manifest.id
        await fetched(service, manifest, tmp_path / "out")


async def test_what_is_put_after_it_was_checked_changes_nothing(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is still good while the coordinator reads."""
    async with over(s3, tmp_path) as service:
        session = NamedSession(service.port, OWNER)
        manifest = await begun(session, fill(tmp_path / "in", a=SIZE))
        [pack] = (await signed_upload(session, manifest)).packs
        good = (tmp_path / "in" / "a").read_bytes()
        await put_at(pack.url, good)
        check = Direct._check  # pyright: ignore[reportPrivateUsage]

        def check_and_swap(*given: object) -> None:
            check(*given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            [incoming] = [name for name in s3.objects if name.startswith("incoming")]
            s3.objects[incoming] = bytes(len(good)), 1e9

        monkeypatch.setattr(Direct, "_check", check_and_swap)
        await complete(session, manifest)
        await fetched(service, manifest, tmp_path / "out")


async def test_an_upload_that_is_not_whole_is_not_completed(s3: S3, tmp_path: Path) -> None:
    async with over(s3, tmp_path) as service:
        session = NamedSession(service.port, OWNER)
        manifest = await begun(session, fill(tmp_path / "in", a=SIZE))
        with pytest.raises(Conflict) as caught:
            await complete(session, manifest)
        assert caught.value.code == "artifact.incomplete"
        # another party's upload of the same content is another upload
        with pytest.raises(NotFound):
            await signed_upload(NamedSession(service.port, STRANGER), manifest)


async def test_a_redirect_is_not_followed(s3: S3, tmp_path: Path) -> None:
    async with over(s3, tmp_path) as service:
        manifest = await sent(service, fill(tmp_path / "in", a=SIZE))
        with s3_server() as elsewhere:
            s3.redirect = f"http://127.0.0.1:{elsewhere.port}/bucket/other"
            await fetched(service, manifest, tmp_path / "out")
            assert not elsewhere.served and not elsewhere.refused


async def test_an_address_in_a_network_where_the_coordinator_is_not_is_not_reached(s3: S3, tmp_path: Path) -> None:
    """A coordinator on the Internet must not make workers talk to what only they can reach."""
    async with over(s3, tmp_path) as service:
        manifest = await sent(service, fill(tmp_path / "in", a=SIZE))
        before = dict(s3.served)
        session = NamedSession(service.port, OWNER)
        session.host = "192.0.2.1"
        await transfer.download(session, manifest.id, tmp_path / "out")
        assert s3.served["GET", "signed"] == before.get(("GET", "signed"), 0)


async def test_addresses_are_given_only_to_whom_the_content_is(s3: S3, tmp_path: Path) -> None:
    async with over(s3, tmp_path) as service:
        manifest = await sent(service, fill(tmp_path / "in", a=SIZE))
        worker = NamedSession(service.port, WORKER, Role.WORKER)
        for party in (NamedSession(service.port, STRANGER), worker):
            with pytest.raises(NotFound):
                await signed_download(party, manifest)
        await put(service, shard({"train": manifest.id}), replica(ReplicaState.LEASED))
        [pack] = (await signed_download(worker, manifest)).packs
        # and each opens one object of this artifact, for reading
        path = httpx.URL(pack.url).path
        assert path == f"/bucket/{key(manifest.id, '0')}"
        other = await sent(service, fill(tmp_path / "other", a=SIZE))
        for method, url in (
            ("GET", pack.url.replace(manifest.id, other.id)),
            ("PUT", pack.url),
            ("DELETE", pack.url),
            ("GET", pack.url.replace("X-Amz-Expires=600", "X-Amz-Expires=60000")),
        ):
            async with httpx.AsyncClient() as client:
                assert (await client.request(method, url)).status_code == 403
        await put(service, dataclasses.replace(replica(ReplicaState.EXPIRED)))
        with pytest.raises(NotFound):
            await signed_download(worker, manifest)


async def test_nothing_is_signed_for_encrypted_or_local_stores_or_when_turned_off(s3: S3, tmp_path: Path) -> None:
    sealer = Sealer([b"k" * 32])
    async with over(s3, tmp_path, sealer) as service:
        manifest = await sent(service, fill(tmp_path / "in", a=SIZE))
        await fetched(service, manifest, tmp_path / "out")
        # the key stays, encryption was turned off: what was encrypted is still not given away
        service.desk.contents = ArtifactStore(
            ObjectBackend(s3.store()), tmp_path / "spool", Sealer([b"k" * 32], seals=False)
        )
        await fetched(service, manifest, tmp_path / "out-again")
        service.desk.contents.signs = False
        plain = await sent(service, fill(tmp_path / "plain", a=SIZE))
        await fetched(service, plain, tmp_path / "plain-out")
    async with serving(tmp_path / "local") as service:
        local = await sent(service, tmp_path / "in")
        assert not (await signed_download(NamedSession(service.port, OWNER), local)).packs
    assert not s3.served["GET", "signed"] and not s3.served["PUT", "signed"]


async def test_what_was_put_and_never_completed_is_swept(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with over(s3, tmp_path) as service:
        session = NamedSession(service.port, OWNER)
        manifest = await begun(session, fill(tmp_path / "in", a=SIZE))
        [pack] = (await signed_upload(session, manifest)).packs
        await put_at(pack.url, os.urandom(10))
        service.contents.discard_stale(1e9)
        assert [name for name in s3.objects if name.startswith("incoming")]
        monkeypatch.setattr(direct, "KEEP_S", -60.0)
        service.contents.discard_stale(1e9)
        assert s3.objects == {}


async def begun(session: NamedSession, folder: Path) -> Manifest:
    manifest = describe_folder(folder)
    request = artifacts_pb2.BeginUploadRequest(manifest=manifest.to_bytes(), purpose="input")
    await session.call(session.artifacts.BeginUpload, request)
    return manifest


async def signed_upload(session: NamedSession, manifest: Manifest) -> storage_pb2.SignUploadResponse:
    return await session.call(session.storage.SignUpload, storage_pb2.SignUploadRequest(artifact_id=manifest.id))


async def signed_download(session: NamedSession, manifest: Manifest) -> storage_pb2.SignDownloadResponse:
    return await session.call(session.storage.SignDownload, storage_pb2.SignDownloadRequest(artifact_id=manifest.id))


async def complete(session: NamedSession, manifest: Manifest) -> None:
    request = storage_pb2.CompleteDirectUploadRequest(artifact_id=manifest.id)
    await session.call(session.storage.CompleteDirectUpload, request)


async def put_at(url: str, data: bytes) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.put(url, content=data)).status_code == 200
