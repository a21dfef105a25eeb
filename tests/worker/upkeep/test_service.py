"""The service: a unit that systemd reads back whole, and what is done with it, through a fake systemctl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shardwork.errors import Conflict, Internal
from shardwork_worker.cli import app
from shardwork_worker.upkeep import service
from shardwork_worker.upkeep.unit import NAME, Unit, quoted

JOIN = f"shardwork://127.0.0.1:7070?ca={'ab' * 32}"
UNIT = Unit(program=Path("/opt/a b/shardwork-worker"), join=JOIN, environment={"SHARDWORK_HOME": "/x/100% $mine"})


class Systemctl:
    """On the PATH as `systemctl`; notes what it is asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        (folder / "bin").mkdir()
        self.answer()
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}/usr/bin:/bin")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        monkeypatch.setenv("SHARDWORK_HOME", str(folder / "home"))
        self._tool("systemd-analyze", "exit 0")

    def answer(self, *, code: int = 0, said: str = "") -> None:
        told = (
            f'case "$2" in is-enabled) echo enabled;; is-active) echo active;; *) echo "{said}" >&2; exit {code};; esac'
        )
        self._tool("systemctl", f'echo "$@" >> {self._folder}/asked; {told}')

    def analyze(self, said: str) -> None:
        self._tool("systemd-analyze", f'echo "{said}" >&2; exit 1')

    @property
    def asked(self) -> list[str]:
        file = self._folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def _tool(self, name: str, body: str) -> None:
        script = self._folder / "bin" / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    return Systemctl(tmp_path, monkeypatch)


def test_what_systemd_would_expand_is_doubled() -> None:
    assert quoted('a "b" 5% $x \\') == '"a \\"b\\" 5%% $x \\\\"'
    assert quoted("$x", command=True) == '"$$x"'
    text = UNIT.text()
    assert f'ExecStart="/opt/a b/shardwork-worker" start "{JOIN}"' in text
    assert 'Environment="SHARDWORK_HOME=/x/100%% $mine"' in text
    for line in ("NoNewPrivileges=yes", "KillMode=mixed", "OOMPolicy=continue", "UMask=0077"):
        assert line in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_itself_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    file = tmp_path / NAME
    program = shutil.which("true") or "/bin/true"
    file.write_text(Unit(program=Path(program), join=JOIN, environment={"SHARDWORK_HOME": str(tmp_path)}).text())
    (tmp_path / "run").mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(file)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if NAME in line] == []


def test_installing_writes_enables_and_starts_and_again_brings_up_to_date(systemctl: Systemctl, tmp_path: Path) -> None:
    found = service.install(UNIT)
    assert found.path == tmp_path / "config" / "systemd" / "user" / NAME and found.path.read_text() == UNIT.text()
    assert (found.enabled, found.active) == ("enabled", "active")
    assert systemctl.asked[:3] == ["--user daemon-reload", f"--user enable {NAME}", f"--user restart {NAME}"]
    other = Unit(program=UNIT.program, join=JOIN)
    service.install(other)
    assert found.path.read_text() == other.text()


def test_removing_stops_it_and_takes_the_unit_away(systemctl: Systemctl) -> None:
    assert service.remove() is False and systemctl.asked == []
    path = service.install(UNIT).path
    assert service.remove() is True and not path.exists()
    assert systemctl.asked[-2:] == [f"--user disable --now {NAME}", "--user daemon-reload"]


@pytest.mark.parametrize(
    ("said", "error", "code"),
    [
        ("Failed to connect to bus: No medium found", Conflict, "service.no_manager"),
        ("Unit is masked.", Internal, "service.refused"),
    ],
)
def test_a_refusal_leaves_no_unit_that_starts_at_the_next_login(
    said: str, error: type[Exception], code: str, systemctl: Systemctl
) -> None:
    systemctl.answer(code=1, said=said)
    with pytest.raises(error) as refused:
        service.install(UNIT)
    assert getattr(refused.value, "code", "") == code and not service.unit_path().exists()
    systemctl.answer()
    kept = service.install(UNIT).path
    systemctl.answer(code=1, said=said)
    with pytest.raises(error):
        service.install(Unit(program=UNIT.program, join="other"))
    assert kept.read_text() == UNIT.text()


def test_a_unit_that_systemd_finds_wrong_is_not_loaded(systemctl: Systemctl) -> None:
    systemctl.analyze(f"/x/{NAME}:3: Unknown key")
    with pytest.raises(Internal, match="finds the unit wrong"):
        service.install(UNIT)
    assert systemctl.asked == []
    # complaints about the machine are none about the unit
    systemctl.analyze("Failed to initialize manager: No such device or address")
    assert service.install(UNIT).active == "active"


def test_the_commands_tell_what_is_there(systemctl: Systemctl, tmp_path: Path) -> None:
    run = CliRunner().invoke
    none = run(app, ["service", "status", "--json"])
    assert (none.exit_code, json.loads(none.stdout)) == (4, {"installed": False})
    printed = run(app, ["service", "install", JOIN, "--print"])
    assert JOIN in printed.stdout and f"SHARDWORK_HOME={tmp_path / 'home'}" in printed.stdout and systemctl.asked == []
    installed = run(app, ["service", "install", JOIN])
    assert installed.exit_code == 0 and "enable-linger" in installed.stderr
    assert json.loads(run(app, ["service", "status", "--json"]).stdout)["active"] == "active"
    assert run(app, ["service", "remove"]).exit_code == 0
    wrong = run(app, ["service", "install", "https://nowhere"])
    assert getattr(wrong.exception, "code", "") == "join.wrong_scheme"
