"""TRL's own PPO update and ours, on the same rollouts: bench/ppo_peer.py where the package can be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench" / "ppo_peer.py"
#: the bench's exit code where there is nothing to compare with
NOT_TO_BE_HAD = 2

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]


def test_losses_and_gradients_are_those_of_trl() -> None:
    done = subprocess.run([sys.executable, BENCH, "--formulas"], capture_output=True, text=True, check=False)
    if done.returncode == NOT_TO_BE_HAD:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("'holds': True") == 3, done.stdout
