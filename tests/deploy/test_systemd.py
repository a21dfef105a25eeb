"""The units: systemd accepts them, little is left open, and they start what is installed with settings that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .files import DEPLOY, tool, unknown_variables

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
#: `systemd-analyze security` from 0 (shut) to 10 (open); the worker leaves a GPU and a sandbox of its own their room
MOST_EXPOSED = {"shardwork-coordinator": 1.5, "shardwork-worker": 5.0}


def lines(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    for command in set(re.findall(r"/opt/shardwork/bin/[a-z-]+", text)):
        stand_in = tmp_path / Path(command).name
        stand_in.write_text("#!/bin/sh\n")
        stand_in.chmod(0o755)
        text = text.replace(command, str(stand_in))
    copy = tmp_path / unit.name
    copy.write_text(text)
    done = subprocess.run([tool("systemd-analyze", "systemd"), "verify", str(copy)], capture_output=True, text=True)
    # of documentation that is not installed here it may complain
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_little_is_left_open(unit: Path) -> None:
    command = [tool("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    (score,) = re.findall(r"exposure level for \S+: ([\d.]+)", said)
    assert float(score) <= MOST_EXPOSED[unit.stem]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_starts_an_installed_command_as_a_user_of_its_own(unit: Path) -> None:
    (command,) = lines(unit, "ExecStart")
    assert command.startswith(f"/opt/shardwork/bin/{unit.stem} ")
    assert lines(unit, "User") == [unit.stem.removesuffix("-coordinator")]
    assert lines(unit, "StateDirectoryMode") == ["0700"] and lines(unit, "UMask") == ["0077"]
    assert lines(unit, "NoNewPrivileges") == ["yes"] and lines(unit, "ProtectSystem") == ["strict"]
    homes = [line for line in lines(unit, "Environment") if line.startswith("SHARDWORK_HOME=")]
    assert homes == [f"SHARDWORK_HOME=/var/lib/{lines(unit, 'StateDirectory')[0]}"]


def test_every_variable_is_a_setting_and_no_secret_is_asked_for() -> None:
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text(encoding="utf-8")
        assert unknown_variables(text) == set(), path
        assert not re.search(r"(PASSWORD|SECRET|TOKEN)=", text), path


def test_what_bubblewrap_needs_is_left_to_the_worker() -> None:
    (worker,) = [unit for unit in UNITS if unit.stem == "shardwork-worker"]
    for key in ("ProtectKernelTunables", "ProtectKernelLogs", "ProtectHostname", "ProtectProc", "PrivateDevices"):
        assert lines(worker, key) == []
    assert "user" in lines(worker, "RestrictNamespaces")[0].split()
