"""The service: this worker under systemd's user manager; no root, no other user's files.

Owns writing, checking, enabling and removing the unit, through `systemctl --user`. Called by commands.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shardwork.errors import Conflict, Internal, NotFound

from ..state_file import replace_durably
from .unit import NAME, Unit

TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of the service."""

    path: Path
    #: "enabled", "disabled", or what systemd says else
    enabled: str
    #: "active", "inactive", "failed"
    active: str


def unit_path(environment: dict[str, str] | None = None) -> Path:
    """Where the user manager looks for it."""
    given = os.environ if environment is None else environment
    base = given.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "systemd" / "user" / NAME


def install(unit: Unit) -> Found:
    """Writes, checks, enables and starts it; a second time brings it up to date.

    Raises Conflict "service.no_manager" when no user manager answers, Internal "service.refused" with what it said.
    """
    if shutil.which("systemctl") is None:
        raise no_manager("systemctl is not installed")
    path = unit_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else None
    replace_durably(path, unit.text().encode())
    try:
        _check(path)
        _manage("daemon-reload")
        _manage("enable", NAME)
        # restart, not start: one that runs already has the old text
        _manage("restart", NAME)
    except (Conflict, Internal):
        # a unit that nobody asked for must not be started at the next login
        _put_back(path, before)
        raise
    return status()


def remove() -> bool:
    """Stops it, which gives its shard back, and takes the unit away. False when there was none."""
    path = unit_path()
    if not path.exists():
        return False
    _manage("disable", "--now", NAME)
    path.unlink()
    _manage("daemon-reload")
    return True


def stop() -> None:
    """Until it is started again, or the user logs in again."""
    _manage("stop", NAME)


def start() -> None:
    _manage("start", NAME)


def status() -> Found:
    """Raises NotFound "service.not_installed"."""
    path = unit_path()
    if not path.exists():
        raise NotFound(
            "service.not_installed",
            "No service of this worker is installed.",
            next_step="Install one: shardwork-worker service install JOIN",
            path=path,
        )
    return Found(path=path, enabled=_word("is-enabled"), active=_word("is-active"))


def no_manager(reason: str) -> Conflict:
    return Conflict(
        "service.no_manager",
        "systemd's user manager does not answer here.",
        next_step="Log in as the user itself, not by su or sudo; or run `shardwork-worker start JOIN` by other means. "
        "The text of the unit: shardwork-worker service install JOIN --print",
        reason=reason[:200],
    )


def _check(path: Path) -> None:
    """What systemd itself finds wrong with the unit, before it is loaded; only complaints that name it count."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        return
    done = subprocess.run(
        [tool, "verify", "--user", "--man=no", str(path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if NAME in line]
    if done.returncode != 0 and said:
        raise Internal("service.bad_unit", "systemd finds the unit wrong.", next_step="Report it.", said=said[0][:300])


def _manage(*words: str) -> None:
    done = _systemctl(*words)
    if done.returncode != 0:
        said = done.stderr.strip()
        if "bus" in said.lower():
            raise no_manager(said)
        raise Internal(
            "service.refused",
            f"systemctl --user {words[0]} failed.",
            next_step=f"See: journalctl --user -u {NAME}",
            said=said[:300],
        )


def _word(question: str) -> str:
    done = _systemctl(question, NAME)
    return done.stdout.strip() or "unknown"


def _systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["systemctl", "--user", *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"it took longer than {TIMEOUT_S:.0f} s")
    except FileNotFoundError:
        raise no_manager("systemctl is not installed") from None


def _put_back(path: Path, before: bytes | None) -> None:
    if before is None:
        path.unlink(missing_ok=True)
    else:
        replace_durably(path, before)
