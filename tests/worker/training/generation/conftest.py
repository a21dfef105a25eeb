"""A sharp llama, prompts, and a trainer for one module's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwork_worker.training.trainer import TorchTrainer

from .stand import Stand, sharp_base, some_prompts


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(base, prompts)"""
    root = tmp_path_factory.mktemp("generation")
    return sharp_base(root / "base"), some_prompts(root / "prompts")


@pytest.fixture
def stand(made: tuple[Path, Path], tmp_path: Path) -> Stand:
    (tmp_path / "runs").mkdir()
    return Stand(trainer=TorchTrainer("cpu"), root=tmp_path / "runs", base=made[0], prompts=made[1])
