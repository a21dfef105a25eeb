# pyright: standard
"""Two processes on one shard, joined by accelerate over gloo, give what one gives: the way several GPUs go.

Real GPUs were never at hand; `deploy/gpu/check.py` tries them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shardwork.recipes.orders import InitOrder
from shardwork_worker.sandbox.jail import Kind

from ..test_child import started
from . import tiny
from .test_memory import difference
from .test_process import boxed, run

BaseOf = Callable[[str], Path]
#: sums in another order; measured 2e-7
TOLERANCE = 1e-5


@pytest.mark.nightly
@pytest.mark.parametrize("kind", [Kind.NONE, Kind.BUBBLEWRAP])
def test_two_ranks_give_what_one_gives(
    kind: Kind, base_of: BaseOf, train: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = base_of("llama")
    command = boxed(kind, tmp_path_factory.getbasetemp(), processes=True)
    made = []
    with started(tmp_path / "log", command) as child:
        assert child.receive()["type"] == "ready"
        first = run("init", InitOrder(tuning=tiny.tuning("lora"), from_scratch=False), tmp_path / "init", base=base)
        child.send(**{**first, "device": "cpu"})
        checkpoint = Path(child.outcome()["outputs"]["checkpoint"])
        order = tiny.learn_order("lora", batch_size=5, micro_batch_size=2)
        for name, device in (("alone", "cpu"), ("team", "cpu*2"), ("again", "cpu*2")):
            frame = run("learn", order, tmp_path / name, name, base=base, checkpoint=checkpoint, train=train)
            child.send(**{**frame, "device": device})
            outcome = child.outcome()
            assert outcome["type"] == "done", outcome
            made.append(outcome)
    alone, team, again = made
    for name in ("loss_first", "loss_last", "tokens"):
        assert team["metrics"][name] == pytest.approx(alone["metrics"][name], rel=1e-5)
    deltas = [Path(one["outputs"]["delta"]) for one in (alone, team, again)]
    assert difference(*deltas[:2]) <= TOLERANCE
    assert tiny.same_files(*deltas[1:])
