"""What a running shard is given in the child: inputs, outputs, seed, progress, and a trainer on demand.

Implements `shardwork.recipes.base.Context`. Needs no torch: a shard that never asks for `trainer` never pays for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shardwork.errors import Internal, InvalidInput
from shardwork.recipes.base import Trainer

if TYPE_CHECKING:
    from .trainer import TorchTrainer

#: in the child's environment: the share of a GPU's memory that shards may use
MEMORY_SHARE_VARIABLE = "SHARDWORK_MEMORY_SHARE"
OUTPUT_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")


class Inputs(dict[str, Path]):
    """Input name -> folder. A missing one raises InvalidInput "trainer.missing_input", not KeyError."""

    def __missing__(self, name: str) -> Path:
        raise InvalidInput("trainer.missing_input", "The lease lacks an input that the shard reads.", name=name)


class Interrupted(Exception):
    """The lease was revoked; the shard stops where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardContext:
    inputs: Mapping[str, Path]
    seed: bytes
    output_dir: Path
    trainer_of: Callable[[], Trainer]
    #: tells the agent (fraction, loss); raises Interrupted when the lease was revoked
    tell: Callable[[float, float | None], None]

    @property
    def trainer(self) -> Trainer:
        return self.trainer_of()

    def output(self, name: str) -> Path:
        """A new empty folder. Raises Internal "trainer.output_twice" when the shard made it before."""
        if not OUTPUT_NAME.match(name):
            raise Internal("trainer.output_name", "A shard's output has an unusable name.", name=name)
        folder = self.output_dir / name
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise Internal("trainer.output_twice", "A shard's output folder is already there.", name=name) from error
        return folder

    def progress(self, fraction: float, *, loss: float | None = None) -> None:
        self.tell(fraction, loss)


@dataclass(slots=True)
class TrainerSource:
    """Imports torch at the first shard that needs it, and keeps one trainer per device warm."""

    _trainers: dict[str, TorchTrainer] = field(default_factory=dict[str, "TorchTrainer"])

    def on(self, device: str) -> Trainer:
        if device not in self._trainers:
            from .trainer import TorchTrainer

            self._trainers[device] = TorchTrainer(device)
        return self._trainers[device]

    def close(self) -> None:
        """Ends what trainers started."""
        for trainer in self._trainers.values():
            trainer.close()

    def release_memory(self) -> None:
        """After a failure: lets go of what the failed shard held."""
        for trainer in self._trainers.values():
            trainer.release_memory()
