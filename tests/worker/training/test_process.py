# pyright: standard
"""Shards in real child processes: equal bytes shut in or not, interrupts within a step, no orphan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from shardwork.recipes.order import Order as AnyOrder
from shardwork.recipes.orders import InitOrder, Schedule
from shardwork.tensors.checkpoint import apply_update
from shardwork_worker.sandbox.choice import Ground, tried
from shardwork_worker.sandbox.jail import Kind

from ..test_child import COMMAND, Process, started
from . import tiny
from .test_learn import next_checkpoint

BaseOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, ...]]:
    """Children that import torch side by side, once: in the best sandbox there is, in none, and in the kernel's own."""
    logs, place = tmp_path_factory.mktemp("logs"), tmp_path_factory.getbasetemp()
    commands = [boxed(kind, place) for kind in (Kind.BUBBLEWRAP, Kind.NONE, Kind.KERNEL)]
    with ExitStack() as stack:
        found = [stack.enter_context(started(logs / str(at), command)) for at, command in enumerate(commands)]
        for child in found:
            assert child.receive()["type"] == "ready"
        yield tuple(found)


def boxed(kind: Kind, place: Path, *, processes: bool = False) -> list[str]:
    """The child's command in this sandbox, or in none where it can't be had; everything below `place` is its."""
    scratch = place / "scratch"
    ground = Ground(
        inputs=place,
        work=place,
        scratch=scratch,
        hidden=(),
        keys=place / "keys",
        output_bytes=1 << 40,
        processes=processes,
    )
    found = asyncio.run(tried(kind, ground))
    return list(found.command(COMMAND))


def run(phase: str, order: AnyOrder, into: Path, lease_id: str = "lease-1", **inputs: Path) -> dict[str, Any]:
    return {
        "type": "run",
        "lease_id": lease_id,
        "phase": phase,
        "recipe": "sft",
        "order_json": order.canonical_json(),
        "seed": tiny.SEED.hex(),
        "inputs": {name: str(folder) for name, folder in inputs.items()},
        "output_dir": str(into),
        "device": "cpu",
    }


def endless() -> AnyOrder:
    """More steps than any test waits for."""
    schedule = Schedule(kind="constant", learning_rate=1e-3, total_steps=1_000_000)
    return tiny.learn_order("lora", steps=1_000_000, schedule=schedule)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_same_shard_in_and_outside_a_sandbox_gives_the_same_bytes(
    method: str, children: tuple[Process, ...], base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    made: list[list[Path]] = []
    for number, child in enumerate(children):
        child.send(
            **run(
                "init",
                InitOrder(tuning=tiny.tuning(method), from_scratch=False),
                tmp_path / f"init-{number}",
                base=base,
            )
        )
    firsts = [Path(child.outcome()["outputs"]["checkpoint"]) for child in children]
    for number, child in enumerate(children):
        child.send(
            **run(
                "learn",
                tiny.learn_order(method, encoding="int8"),
                tmp_path / f"learn-{number}",
                base=base,
                checkpoint=firsts[number],
                train=train,
            )
        )
    deltas = [Path(child.outcome()["outputs"]["delta"]) for child in children]
    for number, child in enumerate(children):
        child.send(
            **run(
                "publish",
                tiny.publish_order(method),
                tmp_path / f"publish-{number}",
                base=base,
                checkpoint=firsts[number],
            )
        )
    models = [Path(child.outcome()["outputs"]["model"]) for child in children]
    made += [firsts, deltas, models]
    assert all(tiny.same_files(one, other) for one, *others in made for other in others)


def test_progress_comes_with_every_step_and_ends_at_one(
    children: tuple[Process, ...], base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    child, base = children[0], base_of("llama")
    child.send(**run("init", InitOrder(tuning=tiny.tuning("lora"), from_scratch=False), tmp_path / "init", base=base))
    first = Path(child.outcome()["outputs"]["checkpoint"])
    child.send(**run("learn", tiny.learn_order("lora"), tmp_path / "learn", base=base, checkpoint=first, train=train))
    seen = []
    while (message := child.receive())["type"] == "progress":
        seen.append(message)
    assert [message["fraction"] for message in seen] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(message["loss"] > 0 for message in seen[1:])
    assert message["metrics"]["loss_last"] == seen[-1]["loss"]


def test_an_interrupt_stops_a_shard_between_two_steps_and_the_child_stays_warm(
    children: tuple[Process, ...], base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    child, base = children[0], base_of("llama")
    child.send(**run("init", InitOrder(tuning=tiny.tuning("lora"), from_scratch=False), tmp_path / "init", base=base))
    first = Path(child.outcome()["outputs"]["checkpoint"])
    inputs = {"base": base, "checkpoint": first, "train": train}
    child.send(**run("learn", endless(), tmp_path / "endless", "revoked", **inputs))
    while child.receive().get("loss") is None:
        pass
    child.send(type="interrupt", lease_id="revoked")
    failed = child.outcome()
    assert (failed["lease_id"], failed["why"]["code"]) == ("revoked", "trainer.interrupted")
    child.send(**run("learn", tiny.learn_order("lora"), tmp_path / "next", "next", **inputs))
    assert child.outcome()["type"] == "done"


def test_the_child_rebuilds_a_checkpoint_as_the_executor_makes_it(
    children: tuple[Process, ...], base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    child, base = children[0], base_of("llama")
    child.send(**run("init", InitOrder(tuning=tiny.tuning("full"), from_scratch=False), tmp_path / "init", base=base))
    first = Path(child.outcome()["outputs"]["checkpoint"])
    child.send(**run("learn", tiny.learn_order(), tmp_path / "learn", base=base, checkpoint=first, train=train))
    made = next_checkpoint(first, Path(child.outcome()["outputs"]["delta"]), tmp_path / "applied")
    step, moments, into = tmp_path / "applied/step", tmp_path / "applied/moments", tmp_path / "rebuilt"
    child.send(type="rebuild", checkpoint=str(first), step=str(step), moments=str(moments), into=str(into))
    assert child.outcome() == {"type": "rebuilt", "into": str(into)}
    assert tiny.same_files(into, made)
    apply_update(first, step, moments, tmp_path / "here")
    assert tiny.same_files(into, tmp_path / "here")


def test_a_missing_input_fails_the_shard_with_a_reason(
    children: tuple[Process, ...], base_of: BaseOf, tmp_path: Path
) -> None:
    child = children[0]
    child.send(**run("learn", tiny.learn_order(), tmp_path / "learn", base=base_of("llama")))
    failed = child.outcome()
    assert failed["type"] == "failed" and failed["why"]["code"] == "trainer.missing_input"
    assert failed["why"]["evidence"] == {"name": "checkpoint"}


def test_a_child_whose_pipe_closes_leaves_its_shard_at_once(
    children: tuple[Process, ...], base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    child, base = children[1], base_of("llama")
    child.send(**run("init", InitOrder(tuning=tiny.tuning("lora"), from_scratch=False), tmp_path / "init", base=base))
    first = Path(child.outcome()["outputs"]["checkpoint"])
    child.send(**run("learn", endless(), tmp_path / "learn", base=base, checkpoint=first, train=train))
    while child.receive().get("loss") is None:
        pass
    child.hang_up()
    assert child.process.wait(timeout=20) == 0
