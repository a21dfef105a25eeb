"""Backup and restore: consistent while the coordinator works, checked before anything may be served, no overwriting."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from pathlib import Path

import pytest

from shardwork.errors import Conflict, InvalidInput, NotFound
from shardwork_coordinator.app import open_store
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store import SqlStore
from shardwork_coordinator.upkeep import backup as backups
from shardwork_coordinator.upkeep import keys
from shardwork_coordinator.upkeep.backup import back_up
from shardwork_coordinator.upkeep.restore import restore
from shardwork_coordinator.upkeep.snapshot import Snapshot, revision_of

from .stand import balance, deposited, furnished, older, row, settings_of, stored


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_what_was_backed_up_comes_back_whole(data: Path, tmp_path: Path) -> None:
    artifact = await furnished(data)
    snapshot = await back_up(settings_of(data), tmp_path / "backup")
    assert (snapshot.transfers, snapshot.artifacts, snapshot.keys) == (
        3,
        1,
        ["authority.pem", "ca.pem", "coordinator.key", "operator.key"],
    )
    done = await restore(tmp_path / "backup", tmp_path / "new")
    assert done.artifacts_checked == 1
    assert await balance(tmp_path / "new") == (True, 3)
    for name in ("keys/coordinator.key", "keys/authority.pem", "simulated-payments.jsonl"):
        assert (tmp_path / "new" / name).read_bytes() == (data / name).read_bytes()
    assert (tmp_path / "new" / "artifacts" / "packs" / artifact / "manifest").is_file()


async def test_others_can_read_nothing_of_it(data: Path, tmp_path: Path) -> None:
    await furnished(data)
    await back_up(settings_of(data), tmp_path / "backup")
    await restore(tmp_path / "backup", tmp_path / "new")
    for folder in (tmp_path / "backup", tmp_path / "new"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in (folder / "keys", folder / "keys" / "coordinator.key", folder / "coordinator.db"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_coordinator_that_writes_all_the_while_is_caught_at_one_moment(data: Path, tmp_path: Path) -> None:
    await furnished(data)
    store = open_store(settings_of(data))
    store.start()
    stop = asyncio.Event()

    async def busy() -> int:
        number = 100
        while not stop.is_set():
            number += 1
            await store.write(lambda tx, number=number: deposited(tx, number))  # type: ignore[misc]
        return number

    writing = asyncio.create_task(busy())
    snapshots = [await back_up(settings_of(data), tmp_path / f"backup{number}") for number in range(2)]
    stop.set()
    assert await writing > 101
    store.close()
    for number, snapshot in enumerate(snapshots):
        await restore(tmp_path / f"backup{number}", tmp_path / f"new{number}")
        assert await balance(tmp_path / f"new{number}") == (True, snapshot.transfers)


async def test_an_artifact_that_comes_or_goes_meanwhile_is_there_with_its_row(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await furnished(data)
    come: list[str] = []
    copy = backups.copy_database

    def meanwhile(source: Path, target: Path) -> None:
        come.append(stored(data, "another row "))
        connection = sqlite3.connect(source)
        late = row(come[0])
        connection.execute(
            "insert into artifact (id, owner, purpose, state, bytes, leaves, created_ms) values (?, ?, ?, ?, 1, 1, 0)",
            (late.id, late.owner, late.purpose, str(late.state)),
        )
        connection.commit()
        connection.close()
        copy(source, target)
        for file in (data / "artifacts" / "packs" / gone).iterdir():
            file.unlink()

    monkeypatch.setattr(backups, "copy_database", meanwhile)
    await back_up(settings_of(data), tmp_path / "backup")
    assert (await restore(tmp_path / "backup", tmp_path / "new")).artifacts_checked == 2


async def test_nothing_is_overwritten(data: Path, tmp_path: Path) -> None:
    await furnished(data)
    await back_up(settings_of(data), tmp_path / "backup")
    with pytest.raises(Conflict) as caught:
        await back_up(settings_of(data), tmp_path / "backup")
    assert caught.value.code == "backup.not_empty"
    with pytest.raises(Conflict) as caught:
        await restore(tmp_path / "backup", data)
    assert caught.value.code == "restore.not_empty"
    assert await balance(data) == (True, 3)


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        ("database", "restore.changed"),
        ("missing", "restore.artifacts"),
        ("leaf", "restore.artifacts"),
        ("manifest", "restore.artifacts"),
        ("key", "restore.changed"),
        ("unfinished", "backup.not_one"),
    ],
)
async def test_a_damaged_backup_is_refused_and_leaves_nothing_to_serve(
    data: Path, tmp_path: Path, harm: str, code: str
) -> None:
    artifact = await furnished(data)
    await back_up(settings_of(data), tmp_path / "backup")
    packs = tmp_path / "backup" / "artifacts" / "packs" / artifact
    match harm:
        case "database":
            with (tmp_path / "backup" / "coordinator.db").open("ab") as file:
                file.write(b"x")
        case "missing":
            packs.rename(tmp_path / "elsewhere")
        case "leaf":
            # written anew: the data folder's own file is the same one by a hard link
            broken = b"X" + (packs / "0").read_bytes()[1:]
            (packs / "0").unlink()
            (packs / "0").write_bytes(broken)
        case "manifest":
            (packs / "manifest").unlink()
            (packs / "manifest").write_bytes(b"{}")
        case "key":
            (tmp_path / "backup" / "keys" / "operator.key").unlink()
        case _:
            (tmp_path / "backup" / "backup.json").unlink()
    with pytest.raises((Conflict, InvalidInput)) as caught:
        await restore(tmp_path / "backup", tmp_path / "new")
    assert caught.value.code == code
    # nor a key: what was begun is cleared away
    assert not (tmp_path / "new").exists() or [path.name for path in (tmp_path / "new").iterdir()] == ["lock"]


@pytest.mark.parametrize(("harm", "lost"), [("needed", 1), ("missing", 1), ("unneeded", 0)])
async def test_a_damaged_artifact_keeps_nobody_from_the_books(data: Path, tmp_path: Path, harm: str, lost: int) -> None:
    artifact, unneeded = await furnished(data), stored(data, "a row that nobody needs ")
    await back_up(settings_of(data), tmp_path / "backup")
    packs = tmp_path / "backup" / "artifacts" / "packs"
    broken = packs / (unneeded if harm == "unneeded" else artifact)
    if harm == "missing":
        broken.rename(tmp_path / "elsewhere")
    else:
        (broken / "0").unlink()
        (broken / "0").write_bytes(b"X")
    if lost:
        with pytest.raises(Conflict):
            await restore(tmp_path / "backup", tmp_path / "new")
    done = await restore(tmp_path / "backup", tmp_path / "new", allows_loss=bool(lost))
    assert (len(done.artifacts_lost), done.artifacts_checked) == (lost, 1)
    # away, so that the same content can be sent again
    assert not (tmp_path / "new" / "artifacts" / "packs" / broken.name).exists()
    assert await balance(tmp_path / "new") == (True, 3)


async def test_a_backup_without_what_rows_need_is_an_error_unless_one_says_so(data: Path, tmp_path: Path) -> None:
    await furnished(data)
    # as when the disk that holds them is not mounted
    (data / "artifacts").rename(tmp_path / "elsewhere")
    with pytest.raises(Conflict) as caught:
        await back_up(settings_of(data), tmp_path / "backup")
    assert caught.value.code == "backup.artifacts" and not list((tmp_path / "backup").iterdir())
    assert (await back_up(settings_of(data), tmp_path / "backup", allows_loss=True)).artifacts == 0
    done = await restore(tmp_path / "backup", tmp_path / "new", allows_loss=True)
    assert len(done.artifacts_lost) == 1 and await balance(tmp_path / "new") == (True, 3)


async def test_a_backup_without_the_keys_is_an_error(data: Path, tmp_path: Path) -> None:
    await furnished(data)
    (data / "keys").rename(tmp_path / "keys")
    with pytest.raises(NotFound) as caught:
        await back_up(settings_of(data), tmp_path / "backup")
    assert caught.value.code == "backup.keys" and not list((tmp_path / "backup").iterdir())
    elsewhere = Settings(data_dir=data, keys_dir=tmp_path / "keys")
    assert "operator.key" in (await back_up(elsewhere, tmp_path / "backup")).keys


async def test_a_coordinator_that_never_served_is_backed_up_as_well(data: Path, tmp_path: Path) -> None:
    keys.create(data / "keys")
    SqlStore(f"sqlite:///{data / 'coordinator.db'}").migrate()
    assert (await back_up(settings_of(data), tmp_path / "backup")).artifacts == 0
    await restore(tmp_path / "backup", tmp_path / "new")
    assert await balance(tmp_path / "new") == (True, 0)


def said(backup: Path, **changes: object) -> None:
    """Changes what `backup.json` says."""
    file = backup / "backup.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


async def test_a_newer_backup_is_told_as_one_whatever_else_it_says(data: Path, tmp_path: Path) -> None:
    await furnished(data)
    await back_up(settings_of(data), tmp_path / "backup")
    said(tmp_path / "backup", format=2, compressed=True, software_version="9.0")
    with pytest.raises(InvalidInput) as caught:
        await restore(tmp_path / "backup", tmp_path / "new")
    assert caught.value.code == "backup.newer" and caught.value.why.evidence["made_by"] == "9.0"


@pytest.mark.parametrize("name", ["../../elsewhere.key", "/elsewhere.key", "..", ""])
async def test_a_backup_that_was_meddled_with_writes_nothing_beside_the_new_folder(
    data: Path, tmp_path: Path, name: str
) -> None:
    await furnished(data)
    await back_up(settings_of(data), tmp_path / "backup")
    (tmp_path / "elsewhere.key").write_text("planted")
    said(tmp_path / "backup", keys=[name])
    with pytest.raises(InvalidInput) as caught:
        await restore(tmp_path / "backup", tmp_path / "deep" / "er" / "new")
    assert caught.value.code == "backup.not_one" and not (tmp_path / "deep").exists()


@pytest.mark.parametrize("content", [b"", b"no database " * 1000], ids=["empty", "another file"])
async def test_what_is_no_database_of_ours_makes_no_backup(data: Path, tmp_path: Path, content: bytes) -> None:
    await furnished(data)
    for file in data.glob("coordinator.db*"):
        file.unlink()
    (data / "coordinator.db").write_bytes(content)
    with pytest.raises(Conflict) as caught:
        await back_up(settings_of(data), tmp_path / "backup")
    assert caught.value.code == "backup.damaged"
    assert not list((tmp_path / "backup").iterdir())


async def test_any_name_of_a_folder_will_do(tmp_path: Path) -> None:
    data, backup = tmp_path / "100% of #1", tmp_path / "backup %20 #2"
    await furnished(data)
    await back_up(settings_of(data), backup)
    await restore(backup, tmp_path / "new #3")
    assert await balance(tmp_path / "new #3") == (True, 3)


async def test_a_quick_restore_looks_at_manifests_only(data: Path, tmp_path: Path) -> None:
    artifact = await furnished(data)
    await back_up(settings_of(data), tmp_path / "backup")
    pack = tmp_path / "backup" / "artifacts" / "packs" / artifact / "0"
    pack.unlink()
    pack.write_bytes(b"")
    done = await restore(tmp_path / "backup", tmp_path / "new", reads_all=False)
    assert done.artifacts_checked == 1


async def test_a_backup_keeps_the_version_of_its_database(data: Path, tmp_path: Path) -> None:
    await furnished(data)
    (data / "coordinator.db").unlink()
    older(data / "coordinator.db", "r0006")
    snapshot = await back_up(settings_of(data), tmp_path / "backup")
    assert snapshot.revision == "r0006" == revision_of(tmp_path / "backup" / "coordinator.db")
    await restore(tmp_path / "backup", tmp_path / "new")
    assert revision_of(tmp_path / "new" / "coordinator.db") == "r0006"
    assert not list((tmp_path / "new").glob("coordinator.db?*")) + list((tmp_path / "backup").glob(".examined*"))


async def test_books_that_do_not_add_up_make_no_backup(data: Path, tmp_path: Path) -> None:
    await furnished(data)
    connection = sqlite3.connect(data / "coordinator.db")
    connection.execute("update account set credits_posted = credits_posted + 1 where id = 'user:r'")
    connection.commit()
    connection.close()
    with pytest.raises(Conflict) as caught:
        await back_up(settings_of(data), tmp_path / "backup")
    assert caught.value.code == "backup.unbalanced"
    with pytest.raises(InvalidInput):
        Snapshot.read(tmp_path / "backup")


async def test_a_server_is_told_to_use_its_own_tools_and_a_mistyped_folder_has_nothing(tmp_path: Path) -> None:
    server = Settings(data_dir=tmp_path, database="postgresql://db/shardwork")
    with pytest.raises(InvalidInput) as caught:
        await back_up(server, tmp_path / "backup")
    assert caught.value.code == "backup.server" and "pg_dump" in caught.value.why.next_step
    with pytest.raises(NotFound):
        await back_up(settings_of(tmp_path / "mistyped"), tmp_path / "backup")
