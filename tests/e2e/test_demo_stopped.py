"""Ctrl-C in a demo: it says so, ends what it started, and shows no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "deploy" / "demo"
PATIENCE_S = 90.0


@pytest.mark.parametrize("script", ["run.py", "rlhf.py"])
def test_a_demo_that_is_interrupted_ends_what_it_started(script: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, str(DEMO / script), "--out", str(tmp_path / "out")],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _until(lambda: b"proved to be the one" in log.read_bytes() or demo.poll() is not None)
        started = _running_in(tmp_path)
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(PATIENCE_S) == 128 + signal.SIGINT
        text = log.read_text(errors="replace")
        assert "Stopped: what the demo started is being ended" in text and "Traceback" not in text
        assert len(started) > 1
        _until(lambda: not _running_in(tmp_path))
    finally:
        if demo.poll() is None:
            demo.kill()


def _until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def _running_in(folder: Path) -> set[str]:
    """Processes whose command line names the folder."""
    lines = subprocess.run(["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in lines.splitlines() if str(folder) in line}
