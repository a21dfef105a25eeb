"""What a shard's order takes of a device is read from the order itself."""

from __future__ import annotations

import pytest

from shardwork.recipes.abilities import Ability, known, lack, needed, without
from shardwork.recipes.orders import Method, Precision, PublishOrder, Tuning

from .test_orders import order

FEW = Tuning(method=Method.LORA, base_bits=4)
NOTHING = set[Ability]()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, NOTHING),
        ({"precision": Precision.BF16}, {Ability.BF16}),
        ({"tuning": FEW}, {Ability.BASE_4BIT}),
        ({"tuning": Tuning(method=Method.LORA, base_bits=8)}, {Ability.BASE_8BIT}),
        ({"tuning": FEW, "precision": Precision.BF16}, {Ability.BF16, Ability.BASE_4BIT}),
        # how deltas are packed for the wire is no arithmetic of the device
        ({"encoding": "bf16"}, NOTHING),
    ],
)
def test_precision_and_bits_of_an_order_are_what_it_takes(changes: dict[str, object], expected: set[Ability]) -> None:
    text = order(**changes).model_dump_json()
    assert needed("learn", text) == expected
    assert needed("init", text) == set()


def test_words_of_a_requester_take_nothing() -> None:
    text = '"precision":"bf16","base_bits":4'
    publish = PublishOrder(
        tuning=Tuning(method=Method.LORA),
        from_scratch=False,
        job_id="j",
        job_name=text,
        stage="s",
        recipe="sft",
        base_id=text,
        card=((text, text),),
        sample_prompts=(text,),
    )
    assert needed("publish", publish.model_dump_json()) == set()
    assert needed("publish", publish.model_copy(update={"tuning": FEW}).model_dump_json()) == {Ability.BASE_4BIT}


def test_names_that_mean_nothing_here_are_left_out() -> None:
    assert known(["bf16", "fp4", "", "BF16"]) == {Ability.BF16}
    assert known([]) == frozenset()


def test_every_ability_has_words_and_a_way_round_it() -> None:
    assert lack([Ability.BF16]) == "compute in bf16"
    assert lack(Ability).count(" or ") == len(Ability) - 1
    assert without(Ability) == "no params.base_bits and params.precision: fp32"
