"""What the worker keeps on disk: the journal of its lease and the cache of artifacts."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from shardwork.artifact import describe_folder
from shardwork.errors import LimitExceeded
from shardwork.session import Session
from shardwork_worker import cache as cache_module
from shardwork_worker import inputs
from shardwork_worker.cache import Cache
from shardwork_worker.inputs import InputFetcher, Rebuilder
from shardwork_worker.state_file import Computed, Journal, LeaseRecord

RECORD = LeaseRecord(
    offer=b"\x00offer\xff",
    computed=Computed(outputs={"delta": "/d"}, artifact_ids={"delta": "a" * 64}, metrics={"loss": 0.1}, compute_ms=5),
    submission=b"payload",
    bytes_down=7,
)


def test_the_journal_gives_back_exactly_what_was_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state" / "lease.json")
    assert journal.load() is None
    for record in (LeaseRecord(offer=b"only offered"), RECORD):
        journal.save(record)
        assert Journal(tmp_path / "state" / "lease.json").load() == record
    journal.forget()
    journal.forget()
    assert journal.load() is None


def test_a_write_cut_short_leaves_the_record_before_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "lease.json")
    journal.save(RECORD)
    (tmp_path / "lease.new").write_bytes(b'{"half')
    assert journal.load() == RECORD
    assert (tmp_path / "lease.json").stat().st_mode & 0o777 == 0o600


def test_an_unreadable_journal_is_set_aside_not_deleted(tmp_path: Path) -> None:
    for text in ("", "{}", "[]", '{"format": "shardwork.journal.v2"}', "null"):
        (tmp_path / "lease.json").write_text(text)
        assert Journal(tmp_path / "lease.json").load() is None
        assert (tmp_path / "lease.unreadable").read_text() == text
        assert not (tmp_path / "lease.json").exists()


async def test_the_cache_drops_the_least_recently_used_first_and_never_what_is_needed(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit_bytes=2500)
    ids = [await accepted(cache, tmp_path / name, bytes([number]) * 1000) for number, name in enumerate("abc")]
    for age, artifact_id in enumerate(ids):
        os.utime(cache.place(artifact_id), (age, age))
    assert await cache.find(ids[0]) is not None
    cache.trim(keep={ids[1]})
    assert [cache.place(artifact_id).exists() for artifact_id in ids] == [True, True, False]
    cache.trim(keep=())
    assert [cache.place(artifact_id).exists() for artifact_id in ids] == [True, True, False]


async def test_a_cache_of_tiny_artifacts_is_bounded_by_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MOST_ARTIFACTS", 2)
    cache = Cache(tmp_path / "cache")
    ids = [await accepted(cache, tmp_path / name, name.encode()) for name in "abcd"]
    for age, artifact_id in enumerate(ids):
        os.utime(cache.place(artifact_id), (age, age))
    cache.trim(keep={ids[0]})
    assert [cache.place(artifact_id).exists() for artifact_id in ids] == [True, False, False, True]


async def test_a_full_disk_makes_the_cache_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    old, needed = [await accepted(cache, tmp_path / name, name.encode()) for name in "ab"]
    room: list[bool] = []

    async def download(_: object, artifact_id: str, __: Path) -> SimpleNamespace:
        if cache.place(old).exists():
            raise LimitExceeded("artifact.no_space", "There is no room.")
        room.append(cache.place(needed).exists())
        return SimpleNamespace(total_bytes=1)

    monkeypatch.setattr(inputs, "download", download)
    fetcher = InputFetcher(cast("Session", None), cache, cast("Rebuilder", None), lambda _: None)
    folders = await fetcher.fetch({"rows": "f" * 64, "model": needed})
    assert room == [True] and folders["rows"] == cache.place("f" * 64)


async def test_the_cache_refuses_content_that_has_another_id(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "file").write_bytes(b"content")
    assert not await cache.accept("0" * 64, folder)
    assert not folder.exists() and await cache.find("0" * 64) is None


async def accepted(cache: Cache, folder: Path, content: bytes) -> str:
    folder.mkdir()
    (folder / "file").write_bytes(content)
    artifact_id = describe_folder(folder).id
    assert await cache.accept(artifact_id, folder)
    return artifact_id
