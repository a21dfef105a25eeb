# pyright: standard
"""A further rank of a worker with several devices: takes its part of each batch, and writes nothing.

A program of its own, `python -I -m shardwork_worker.training.team.rank RANK SIZE PORT DEVICE`, started by `team.Crew`
inside the child's sandbox. It reads frames from its standard input and ends when that closes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardwork.recipes.orders import LearnOrder

from ...child import ENVIRONMENT
from ...frames import read_frame


def main() -> int:
    os.environ.update(ENVIRONMENT)
    rank, size, port, device = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

    import torch

    from ..trainer import TorchTrainer
    from .team import AcceleratedTeam

    trainer = TorchTrainer(device)
    team = AcceleratedTeam(rank, size, port, torch.device(device))
    frames = os.fdopen(os.dup(0), "rb", buffering=0)
    while (message := read_frame(frames)) is not None:
        order = LearnOrder.model_validate_json(str(message["order_json"]))
        trainer.follow(order, Following(message), team)
    return 0


class Following:
    """What a following rank is given: inputs and seed. Rank 0 tells progress and writes outputs."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.inputs = {str(name): Path(folder) for name, folder in message["inputs"].items()}
        self.seed = bytes.fromhex(message["seed"])

    def progress(self, fraction: float, *, loss: float | None = None) -> None:
        """Nobody listens."""


if __name__ == "__main__":
    sys.exit(main())
