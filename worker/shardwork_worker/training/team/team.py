# pyright: standard
"""Several devices on one shard: each takes a part of every batch, and gradients are summed before each step.

Owns what ranks must agree on (gradients, losses, whether memory ran out) through accelerate's process group, and the
processes of the other ranks: rank 0 is the child itself, the others run `rank`, warm like it. Every
rank takes the same optimiser step on the same numbers, so only rank 0 writes. Called by `learn` and the trainer.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from ...frames import write_frame

RANK_COMMAND = (sys.executable, "-I", "-m", "shardwork_worker.training.team.rank")
#: of a rank that died: the child ends too, and the agent starts everything anew
EXIT_LOST_RANK = 70

T = TypeVar("T")


class Team:
    """One rank's view. This class alone is a team of one, which agrees with itself."""

    rank = 0
    size = 1

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """The part of a batch that this rank takes: every `size`-th row, so that long rows spread."""
        return rows[self.rank :: self.size]

    def any(self, failed: bool) -> bool:
        """Whether any rank says so."""
        return failed

    def add(self, parameters: Sequence[Any], loss: float) -> float:
        """Sums gradients over the ranks, in place; returns the summed loss."""
        return loss

    def totals(self, tallies: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Sums pairs of numbers, a list as long on every rank, over the ranks."""
        return list(tallies)


ALONE = Team()


class AcceleratedTeam(Team):
    """A rank among several, joined through accelerate. Blocks until all ranks have joined."""

    def __init__(self, rank: int, size: int, port: int, device: torch.device) -> None:
        from accelerate import PartialState  # type: ignore[import-untyped]

        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(size),
            LOCAL_WORLD_SIZE=str(size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        self.rank, self.size, self._device = rank, size, device
        on_cpu = device.type == "cpu"
        PartialState(cpu=on_cpu, backend="gloo") if on_cpu else PartialState()

    def any(self, failed: bool) -> bool:
        return self._summed(torch.tensor([float(failed)], device=self._device)).item() > 0

    def add(self, parameters: Sequence[Any], loss: float) -> float:
        for parameter in parameters:
            if parameter.grad is None:  # this rank had no row
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(self._summed(parameter.grad))
        return float(self._summed(torch.tensor([loss], dtype=torch.float64, device=self._device)).item())

    def totals(self, tallies: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        if not tallies:
            return []
        flat = torch.tensor(tallies, dtype=torch.float64, device=self._device)
        return [(float(total), float(count)) for total, count in self._summed(flat).tolist()]

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        from accelerate.utils import reduce  # type: ignore[import-untyped]

        summed: Any = reduce(values, reduction="sum")
        return cast(torch.Tensor, summed)


@dataclass(slots=True)
class Crew:
    """Rank 0's hold on the other ranks. Made for one kind of device; `close` ends them."""

    devices: Sequence[str]
    team: Team = ALONE
    _others: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])
    _closing: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Starts and joins the others, once."""
        if self._others:
            return
        port = _free_port()
        for rank, device in enumerate(self.devices[1:], start=1):
            command = [*RANK_COMMAND, str(rank), str(len(self.devices)), str(port), device]
            # its standard output is the frames of nobody; what it says goes where the child's words go
            other = subprocess.Popen(command, env={}, stdin=subprocess.PIPE, stdout=2)
            self._others.append(other)
            threading.Thread(target=self._follow, args=(other,), daemon=True, name=f"rank-{rank}").start()
        self.team = AcceleratedTeam(0, len(self.devices), port, torch.device(self.devices[0]))

    def tell(self, message: Mapping[str, Any]) -> None:
        """The shard that every rank takes now."""
        for other in self._others:
            assert other.stdin is not None
            write_frame(other.stdin, message)  # type: ignore[arg-type]

    def close(self) -> None:
        self._closing.set()
        for other in self._others:
            other.kill()
            other.wait()
            if other.stdin is not None:
                other.stdin.close()
        self._others.clear()

    def _follow(self, other: subprocess.Popen[bytes]) -> None:
        """A lost rank would leave the others waiting for its gradients for ever."""
        other.wait()
        if not self._closing.is_set():
            print("a rank of this worker's team died", file=sys.stderr)
            os._exit(EXIT_LOST_RANK)


def devices_of(name: str) -> list[str]:
    """ "cuda*2" -> cuda:0, cuda:1; one device is itself; "cpu*2" are two processes on one machine."""
    kind, _, count = name.partition("*")
    if not count:
        return [name]
    return [kind if kind == "cpu" else f"{kind}:{index}" for index in range(int(count))]


def shard_message(order_json: str, seed: bytes, inputs: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "type": "learn",
        "order_json": order_json,
        "seed": seed.hex(),
        "inputs": {name: str(folder) for name, folder in inputs.items()},
    }


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
