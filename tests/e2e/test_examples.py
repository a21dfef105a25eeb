"""The examples run as they stand, against a coordinator and two workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .world import World

EXAMPLES = Path(__file__).parents[2] / "examples"
#: example -> its arguments (files of the town), and what it must say
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "count_words.py": ((), ("words: succeeded", "to")),
    "two_jobs.py": ((), ("hop succeeded", "skip succeeded", "msat (simulated) for 2 jobs")),
    "tune.py": (
        ("models/gpt2", "chat.jsonl", "example-out"),
        ("verdict", "job.succeeded", "held-out loss by round: ", "sft.model lies in example-out/sft.model"),
    ),
}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_an_example_works(name: str, town: World) -> None:
    arguments, said = CASES[name]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=town.processes.environment("client"),
        cwd=town.folder,
        capture_output=True,
        text=True,
        timeout=town.patience_s,
    )
    assert done.returncode == 0, done.stderr
    assert [words for words in said if words not in done.stdout] == [], done.stdout
    assert "Traceback" not in done.stderr
