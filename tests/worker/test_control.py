"""The control socket and the command line on top of it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shardwork.errors import Conflict, Internal, InvalidInput, NotFound
from shardwork.why import Why
from shardwork_worker import control
from shardwork_worker.cli import app
from shardwork_worker.control import SOCKET_NAME, Command, ask, serve
from shardwork_worker.status import State, Status, readable

HELP_CPU_S = 0.3


async def echo(command: Command) -> Mapping[str, Any]:
    if command is Command.RESUME:
        raise Conflict("worker.joining", "The worker has not joined yet.", next_step="Wait.")
    return {"state": command.value}


async def test_a_command_is_answered_with_the_status(tmp_path: Path) -> None:
    async with serve(tmp_path, echo):
        assert await asyncio.to_thread(ask, tmp_path, Command.PAUSE) == {"state": "pause"}
        with pytest.raises(Exception) as caught:
            await asyncio.to_thread(ask, tmp_path, Command.RESUME)
        assert "The worker has not joined yet. Wait." in str(caught.value)
        assert stat.S_IMODE(os.stat(tmp_path / SOCKET_NAME).st_mode) == 0o600
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_a_deep_folder_and_a_leftover_socket_do_not_matter(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30) / ("deep" * 30)
    deep.mkdir(parents=True)
    (deep / SOCKET_NAME).touch()
    async with serve(deep, echo):
        assert await asyncio.to_thread(ask, deep, Command.STATUS) == {"state": "status"}


async def test_a_socket_has_its_name_only_once_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[Path] = []
    rename = Path.replace

    def replace(unnamed: Path, named: Path) -> Path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(unnamed))
        assert not named.exists()
        reached.append(named)
        return rename(unnamed, named)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.chdir(tmp_path)
    async with serve(Path(), echo):
        assert reached == [Path(SOCKET_NAME)]


async def test_nonsense_on_the_socket_is_answered_and_does_no_harm(tmp_path: Path) -> None:
    def send(line: bytes) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / SOCKET_NAME))
            connection.sendall(line)
            with connection.makefile("rb") as answers:
                return json.loads(answers.readline())

    async with serve(tmp_path, echo):
        for line in (b"not json\n", b'{"command": "explode"}\n', b"[]\n"):
            answer = await asyncio.to_thread(send, line)
            assert answer["error"]["code"] == "worker.unknown_command"
        assert await asyncio.to_thread(ask, tmp_path, Command.STATUS) == {"state": "status"}


def test_without_a_worker_asking_says_so(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "never made"):
        with pytest.raises(NotFound) as caught:
            ask(folder, Command.PAUSE)
        assert caught.value.code == "worker.not_running"


def test_status_without_a_worker_is_offline_with_exit_code_4(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["status", "--json"], env={"SHARDWORK_HOME": str(tmp_path)})
    status = json.loads(shown.stdout)
    assert shown.exit_code == 4
    assert (status["state"], status["why"]["code"]) == ("offline", "worker.not_running")
    assert set(status["earned_msat"]) == {"paid", "pending", "held"}
    plain = CliRunner().invoke(app, ["status"], env={"SHARDWORK_HOME": str(tmp_path)})
    assert plain.exit_code == 4 and "No worker runs here." in plain.stdout


@pytest.mark.parametrize("command", ["pause", "finish", "resume", "stop"])
def test_every_command_without_a_worker_ends_with_exit_code_4(tmp_path: Path, command: str) -> None:
    done = worker_command(command, home=tmp_path)
    assert done.returncode == 4
    assert "No worker runs here." in done.stderr and "shardwork-worker start JOIN" in done.stderr
    assert done.stdout == ""


def test_help_is_light_and_names_every_command(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from shardwork_worker.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'grpc', 'torch', 'numpy', 'pydantic'} & set(sys.modules)), time.process_time())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy, _, cpu = done.stdout.splitlines()[-1].rpartition(" ")
    assert heavy == "[]"
    assert float(cpu) < HELP_CPU_S
    for command in ("start", "status", "pause", "finish", "resume", "stop"):
        assert f"  {command} " in done.stdout


def test_a_bad_join_line_or_setting_is_refused_with_its_place(tmp_path: Path) -> None:
    bad = worker_command("start", "https://example", home=tmp_path)
    assert bad.returncode == InvalidInput.exit_code and "shardwork://" in bad.stderr
    config = tmp_path / "config"
    config.mkdir()
    (config / "worker.toml").write_text("devise = 'cpu'\n")
    wrong = worker_command("start", f"shardwork://127.0.0.1:1?ca={'ab' * 32}", home=tmp_path)
    assert wrong.returncode == InvalidInput.exit_code
    assert "Did you mean device?" in wrong.stderr and "worker.toml" in wrong.stderr


def worker_command(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shardwork_worker.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "SHARDWORK_HOME": str(home)},
    )


def test_a_home_that_cannot_hold_folders_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    join = f"shardwork://127.0.0.1:1?ca={'a' * 64}"
    started = worker_command("start", join, home=tmp_path)
    assert started.returncode == 3 and "[worker.file_refused]" in started.stderr
    asked = worker_command("status", home=tmp_path)
    assert asked.returncode == 4 and "No worker runs here" in asked.stdout
    assert "Traceback" not in started.stderr + asked.stderr


def test_a_worker_that_hangs_is_named_by_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "QUICK_ANSWER_TIMEOUT_S", 0.05)
    (tmp_path / control.LOCK_NAME).write_text("4711\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / control.SOCKET_NAME))
        silent.listen()
        with pytest.raises(Internal) as refused:
            control.ask(tmp_path, Command.STATUS)
    assert refused.value.why.evidence["pid"] == "4711"


def test_what_people_read_wraps_behind_its_label_and_keeps_ids_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    why = Why(code="a.b", sentence="The coordinator is away. " * 3, evidence={"id": "x" * 70}, next_step="Wait.")
    status = Status(state=State.OFFLINE, why=why, worker_id="w" * 16)
    whole = readable(status.to_json())
    assert len(whole.splitlines()) == 6 and whole.splitlines()[2] == "next    Wait."
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    wrapped = readable(status.to_json()).splitlines()
    assert all(len(line) <= 60 or "x" * 70 in line for line in wrapped)
    assert wrapped[2].startswith("        ") and any("x" * 70 in line for line in wrapped)
