"""The claims of bench/alignment.py: what each kind of alignment learns, with one seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench" / "alignment.py"
#: claims that the quick form looks at
CLAIMS = 8

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]


def test_each_kind_learns_what_it_claims() -> None:
    done = subprocess.run([sys.executable, BENCH, "--quick"], capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith(("holds ", "MISSED "))]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(told) >= CLAIMS and all(line.startswith("holds ") for line in told), done.stdout
