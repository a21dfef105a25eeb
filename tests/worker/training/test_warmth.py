# pyright: standard
"""What a child keeps between shards: an interrupt costs it nothing, a failure lets go of what the shard held."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from shardwork_worker.child import Child
from shardwork_worker.training.context import TrainerSource

from . import tiny
from .test_process import run


class Counting(TrainerSource):
    """Has no trainer, and counts how often memory was to be released."""

    released = 0

    def release_memory(self) -> None:
        Counting.released += 1


def test_a_revoked_lease_keeps_the_model_warm_and_a_failed_shard_does_not(tmp_path: Path) -> None:
    """Being overtaken by a copy is ordinary: loading the base again would cost the next shard of the same job."""
    child = Child(BytesIO(), BytesIO(), trainers=Counting())
    child._interrupted.add("revoked")
    answer = child._answer(run("learn", tiny.learn_order(), tmp_path, "revoked"))
    assert (answer["why"]["code"], Counting.released) == ("trainer.interrupted", 0)
    order = {**run("learn", tiny.learn_order(), tmp_path), "order_json": "{}"}
    assert (child._answer(order)["why"]["code"], Counting.released) == ("trainer.bad_order", 1)
