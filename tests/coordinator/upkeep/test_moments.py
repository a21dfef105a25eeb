"""Backup and restore, killed or interrupted at every moment: what is left looks like nothing whole, and the same
command works in the same place.

A moment is a change that Python makes to a file or folder. Each is met in a process of its own (`moment`).
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from shardwork.errors import Conflict, InvalidInput
from shardwork_coordinator.app import serving
from shardwork_coordinator.upkeep import restore as restoring
from shardwork_coordinator.upkeep.backup import DRAFT, back_up
from shardwork_coordinator.upkeep.examined import Examined, examine
from shardwork_coordinator.upkeep.restore import restore
from shardwork_coordinator.upkeep.snapshot import DATABASE, JOURNAL, SAYS, Snapshot

from .moment import ended
from .stand import balance, furnished, settings_of

#: more than there are
MOST_MOMENTS = 300
KILLED, INTERRUPTED = -signal.SIGKILL, 130


def moments(command: list[str], folder: Path, what: signal.Signals, look: Callable[[], None], step: int) -> int:
    """Runs it with the signal at every `step`th moment, and looks after each; how many it met before it ended well."""
    for met, number in enumerate(range(1, MOST_MOMENTS, step)):
        code = ended(command, number, folder, what)
        if code == 0:
            return met
        assert code == (KILLED if what is signal.SIGKILL else INTERRUPTED)
        look()
    raise AssertionError("it never ended")


BOTH = pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
SOME_OR_ALL = pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.nightly)], ids=["some", "all"])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@SOME_OR_ALL
@BOTH
def test_a_backup_is_whole_or_none_and_the_next_one_goes_into_the_same_folder(
    tmp_path: Path, what: signal.Signals, step: int
) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    asyncio.run(furnished(data))

    def look() -> None:
        if SAYS in names(target):
            asyncio.run(restore(target, tmp_path / "new"))
            shutil.rmtree(tmp_path / "new")
            shutil.rmtree(target)
            return
        with pytest.raises(InvalidInput):
            Snapshot.read(target)
        # interrupted as it took hold of the folder, it leaves the empty draft
        assert what is signal.SIGKILL or names(target) <= {DRAFT}

    assert moments(["backup", str(target), "--data-dir", str(data)], target, what, look, step) >= 30 / step
    assert asyncio.run(restore(target, tmp_path / "new")).artifacts_checked == 1


@SOME_OR_ALL
@BOTH
def test_a_restored_folder_is_whole_or_not_served_and_can_be_restored_into_again(
    tmp_path: Path, what: signal.Signals, step: int
) -> None:
    backup, target = tmp_path / "backup", tmp_path / "new"
    asyncio.run(furnished(tmp_path / "data"))
    asyncio.run(back_up(settings_of(tmp_path / "data"), backup))

    def look() -> None:
        found = names(target)
        if DATABASE in found:
            assert asyncio.run(balance(target)) == (True, 3) and {"keys", "artifacts", JOURNAL} <= found
            shutil.rmtree(target)
        elif (target / "keys" / "authority.pem").exists():
            # a fresh coordinator under the old one's name is what must not begin here
            assert asyncio.run(refusal(target)) == "store.lost"
        assert what is signal.SIGKILL or found <= {"lock"} or DATABASE in found

    assert moments(["restore", str(backup), "--data-dir", str(target)], target, what, look, step) >= 30 / step
    assert asyncio.run(balance(target)) == (True, 3)


async def refusal(folder: Path) -> str:
    with pytest.raises(Conflict) as caught:
        async with serving(settings_of(folder)):
            pass
    return caught.value.code


def test_what_is_somebody_elses_is_not_cleared_away(tmp_path: Path) -> None:
    asyncio.run(furnished(tmp_path / "data"))
    target = tmp_path / "backup"
    command = ["backup", str(target), "--data-dir", str(tmp_path / "data")]
    assert ended(command, 20, target, signal.SIGKILL) == KILLED
    (target / "mine.txt").write_text("mine")
    before = names(target)
    with pytest.raises(Conflict) as caught:
        asyncio.run(back_up(settings_of(tmp_path / "data"), target))
    assert caught.value.code == "backup.not_empty" and names(target) == before
    (target / "mine.txt").unlink()
    asyncio.run(back_up(settings_of(tmp_path / "data"), target))


def test_nobody_serves_a_folder_that_is_being_restored_nor_restores_into_one_that_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(furnished(tmp_path / "data"))
    backup, target = tmp_path / "backup", tmp_path / "new"
    asyncio.run(back_up(settings_of(tmp_path / "data"), backup))
    heard: list[str] = []

    async def meanwhile(database: Path) -> Examined:
        heard.append(await refusal(target))
        with pytest.raises(Conflict) as caught:
            await restore(backup, target)
        heard.append(caught.value.code)
        return await examine(database)

    monkeypatch.setattr(restoring, "examine", meanwhile)
    asyncio.run(restore(backup, target))
    assert heard == ["coordinator.already_running", "restore.not_empty"]
    assert asyncio.run(balance(target)) == (True, 3)
    served = tmp_path / "served"
    served.mkdir()
    with (served / "lock").open("w") as held, pytest.raises(Conflict) as caught:
        fcntl.flock(held, fcntl.LOCK_EX)
        asyncio.run(restore(backup, served))
    assert caught.value.code == "restore.not_empty" and names(served) == {"lock"}
