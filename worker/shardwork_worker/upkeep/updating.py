"""Updating: another version of Shardwork in the environment that this worker runs from, or the one that was there.

Owns the installation and its way back: what is installed is written down first, the new version is started in a fresh
process before it counts, and whatever fails brings the old one back. What runs meanwhile is the command's business.
Called by `shardwork-worker update`.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardwork.errors import Conflict, Internal, Unreachable

NAME = "shardwork"
#: a GPU build of torch may have to come over a slow line
INSTALL_S, CHECK_S = 3_600.0, 300.0
#: what must still load in a fresh process: the agent, its command, and the training child with torch
CHECK = "import shardwork_worker.app, shardwork_worker.cli, shardwork_worker.child, torch"

Run = Callable[[Sequence[str], float], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Versions before and after."""

    before: str
    after: str


def run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Never raises for what the command did; its time-out counts as a failure."""
    try:
        return subprocess.run(list(command), capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(list(command), 124, "", f"it took longer than {timeout_s:.0f} s")


def installed() -> str:
    """The version here. Raises Conflict "update.not_by_pip" or "update.no_environment" where pip may not change it."""
    try:
        found = importlib.metadata.distribution(NAME)
    except importlib.metadata.PackageNotFoundError:
        raise _not_by_pip("it is not installed at all") from None
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        raise _not_by_pip("it is a source tree that is installed as it lies")
    if sys.prefix == sys.base_prefix:
        raise Conflict(
            "update.no_environment",
            "Shardwork lies among the system's own packages, which pip is not to change.",
            next_step="Install 'shardwork[worker]' into an environment of its own: python3 -m venv DIR.",
            prefix=sys.prefix,
        )
    return found.version


def is_due(wanted: str, *, run: Run = run) -> bool:
    """Whether pip would change anything. Raises Unreachable "update.not_found" when it finds no such version."""
    done = run(_pip("install", "--dry-run", "--upgrade", wanted), INSTALL_S)
    if done.returncode != 0:
        raise Unreachable(
            "update.not_found",
            f"pip finds nothing to install for {wanted!r}.",
            next_step="Check the name and the line; nothing was changed.",
            said=_last(done.stderr),
        )
    return "Would install" in done.stdout


def change(wanted: str, *, run: Run = run) -> Outcome:
    """Installs it, starts it, and goes back if either fails. Raises Internal "update.rolled_back" or, when even that
    failed, "update.broken"."""
    before, kept = installed(), _installed_now(run)
    try:
        done = run(_pip("install", "--upgrade", wanted), INSTALL_S)
        problem = _last(done.stderr) if done.returncode != 0 else _problem(run)
    except KeyboardInterrupt:
        # pip may have taken the old version away, and not put the new one there yet
        problem = "it was interrupted"
    if problem:
        _go_back(kept, before, problem, run)
    return Outcome(before=before, after=_version(run))


def _installed_now(run: Run) -> str:
    """Every distribution with its version, as pip can install it again."""
    done = run(_pip("freeze", "--all"), CHECK_S)
    if done.returncode != 0 or f"{NAME}" not in done.stdout:
        raise Internal(
            "update.unknown_state",
            "pip does not say what is installed, so there would be no way back.",
            next_step="Nothing was changed. See: python -m pip freeze",
            said=_last(done.stderr),
        )
    return done.stdout


def _problem(run: Run) -> str:
    """Why the new version does not start; empty when it does."""
    done = run([sys.executable, "-I", "-c", CHECK], CHECK_S)
    return "" if done.returncode == 0 else _last(done.stderr) or f"it ended with {done.returncode}"


def _version(run: Run) -> str:
    question = f"from importlib.metadata import version; print(version({NAME!r}))"
    return run([sys.executable, "-I", "-c", question], CHECK_S).stdout.strip()


def _go_back(kept: str, before: str, problem: str, run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "before.txt"
        pins.write_text(kept, encoding="utf-8")
        done = run(_pip("install", "--no-deps", "-r", str(pins)), INSTALL_S)
        still = _last(done.stderr) if done.returncode != 0 else _problem(run)
        if still and done.returncode == 0:
            # what was interrupted half way may look installed
            pins.write_text(_own(kept), encoding="utf-8")
            done = run(_pip("install", "--no-deps", "--force-reinstall", "-r", str(pins)), INSTALL_S)
            still = _last(done.stderr) if done.returncode != 0 else _problem(run)
    if still:
        raise Internal(
            "update.broken",
            "The new version does not start, and the old one could not be brought back.",
            next_step=f"Install {NAME} {before} again by hand: python -m pip install '{NAME}[worker]=={before}'",
            problem=problem,
            way_back=still,
        )
    raise Internal(
        "update.rolled_back",
        f"The new version was not installed, or does not start here; {before} is back.",
        next_step="Report what it said.",
        problem=problem,
    )


def _own(kept: str) -> str:
    """The line of Shardwork itself."""
    return "".join(line + "\n" for line in kept.splitlines() if re.match(rf"{NAME}\s*(==|@)", line))


def _pip(*words: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *words]


def _last(text: str) -> str:
    """The last line that says something, for a person."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _not_by_pip(reason: str) -> Conflict:
    return Conflict(
        "update.not_by_pip",
        f"This Shardwork is not pip's to change: {reason}.",
        next_step="Bring it up to date as it was installed: a source tree by git, an image by another tag.",
    )
