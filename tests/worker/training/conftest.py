# pyright: standard
"""Fixtures of the trainer's tests: offline, one thread, bases built once a session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shardwork_worker.child import ENVIRONMENT

os.environ.update(ENVIRONMENT)

from . import tiny


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A base model folder of an architecture, built on first use."""
    root = tmp_path_factory.mktemp("bases")

    def build(kind: str) -> Path:
        folder = root / kind
        if not folder.exists():
            tiny.write_base(folder, kind)
        return folder

    return build


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `train` artifact: 45 rows of uneven length with prompts masked, in files of 8."""
    return tiny.write_train(tmp_path_factory.mktemp("rows") / "train", tiny.rows(45), rows_per_file=8)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `eval` artifact: 6 selection rows, 7 test rows."""
    rows = tiny.rows(13, seed=9)
    return tiny.write_eval(tmp_path_factory.mktemp("rows") / "eval", rows[:6], rows[6:])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """peft and trl use names that transformers has deprecated; that is theirs to mend."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"))
