"""Leaving: every trace of jobs goes from this machine, and what the owner would miss is named before.

Owns what is wiped: cache, work, journal, book, logs. It keeps the key and worker.toml unless told otherwise, ends no
account at the coordinator (nobody can), and overwrites nothing: what is deleted is gone as other files are. The command
calls it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from shardwork.config import Home
from shardwork.money import show
from shardwork.why import Why

from ..account.asking import Balance
from ..account.book import Book
from ..app import Folders, only_one, state_folder
from ..status import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What lies here."""

    folders: tuple[Path, ...]
    key: Path
    bytes: int
    #: handed in and not judged
    pending_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiped:
    folders: tuple[Path, ...]
    bytes: int
    forgot_key: bool


def traces(home: Home) -> Traces:
    """Looks only."""
    folders = tuple(folder for folder in (home.cache_dir / "worker", state_folder(home)) if folder.exists())
    return Traces(
        folders=folders,
        key=home.key_path("worker"),
        bytes=sum(map(_bytes_of, folders)),
        pending_msat=sum(line.price_msat for line in Book(state_folder(home)).pending()),
    )


def wipe(home: Home, *, forget_key: bool) -> Wiped:
    """Deletes it. The worker must have ended: raises Conflict "worker.already_running" otherwise."""
    found = traces(home)
    Folders.of(home).state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_one(state_folder(home)):
        for folder in (home.cache_dir / "worker", state_folder(home)):
            if folder.exists():
                _delete(folder)
    if forget_key:
        found.key.unlink(missing_ok=True)
    return Wiped(folders=found.folders, bytes=found.bytes, forgot_key=forget_key)


def _bytes_of(folder: Path) -> int:
    """Of a worker that still runs, files go while one looks."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _delete(folder: Path) -> None:
    """Also what a shard closed to its owner. Raises OSError for what is not ours to delete."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder)


def warnings(found: Traces, balance: Balance | None, *, forget_key: bool, state: str) -> list[Why]:
    """What its owner would miss, worst first."""
    return [one for one in (_unpaid(balance, forget_key), _pending(found, forget_key), _running(state)) if one]


def _unpaid(balance: Balance | None, forget_key: bool) -> Why | None:
    if balance is None:
        if not forget_key:
            return None
        return Why(
            code="leave.balance_unknown",
            sentence="The coordinator did not say whether sats of this key are unpaid; without the key they are lost.",
            next_step="Keep the key: leave without --forget-key.",
        )
    if balance.available_msat + balance.held_msat <= 0:
        return None
    unpaid = show(balance.available_msat + balance.held_msat)
    lost = "and without the key they are lost" if forget_key else "and stay with its key"
    next_step = "Set a payout address (start --payout) and wait for the payout, or keep the key."
    if balance.payout_address:
        next_step = (
            f"What is available is paid out to {balance.payout_address} from {show(balance.threshold_msat)} on, also "
            "without this worker. Keep the key."
        )
    return Why(
        code="leave.unpaid",
        sentence=f"{unpaid} of this worker are not paid out, {lost}.",
        evidence={"available": show(balance.available_msat), "held": show(balance.held_msat)},
        next_step=next_step,
    )


def _pending(found: Traces, forget_key: bool) -> Why | None:
    if not found.pending_msat:
        return None
    return Why(
        code="leave.pending",
        sentence=f"{show(found.pending_msat)} wait for a verdict; it comes without this worker"
        + (", to a key that nobody has." if forget_key else "."),
        next_step="See them: shardwork-worker earnings",
    )


def _running(state: str) -> Why | None:
    if state == State.OFFLINE.value:
        return None
    return Why(
        code="leave.running",
        sentence=f"The worker is {state}: it is stopped, and a shard in hand given back.",
        next_step="To complete it first: shardwork-worker finish",
    )
