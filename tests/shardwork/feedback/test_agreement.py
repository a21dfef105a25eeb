"""Krippendorff's alpha against his own worked example."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from shardwork.feedback.agreement import Alpha, Datum, Level, alpha, of_scores, of_winners
from shardwork.feedback.votes import Winner

from .simulation import vote

#: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units
EXAMPLE = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)


def example() -> list[Datum]:
    return [
        (unit, f"observer-{who}", float(value))
        for who, row in enumerate(EXAMPLE)
        for unit, value in enumerate(row.split())
        if value != "."
    ]


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_the_published_example(level: Level, value: float) -> None:
    found = alpha(example(), level)
    assert found.value == pytest.approx(value, abs=0.0005)
    assert (found.units, found.values) == (11, 40)


def test_the_order_of_rows_does_not_matter() -> None:
    data = example()
    random.Random(1).shuffle(data)
    assert alpha(data, "ordinal") == alpha(example(), "ordinal")


def test_agreement_of_chance_is_none_and_contradiction_is_less() -> None:
    chance = random.Random(4)
    data: list[Datum] = [(unit, who, float(chance.randrange(2))) for unit in range(4000) for who in ("x", "y")]
    assert alpha(data, "nominal").value == pytest.approx(0, abs=0.05)
    against: list[Datum] = [(unit, who, float((unit + (who == "x")) % 2)) for unit in range(100) for who in ("x", "y")]
    assert alpha(against, "nominal").value == pytest.approx(-1, abs=0.02)


def test_where_there_is_nothing_to_compare_there_is_no_alpha() -> None:
    assert alpha([], "nominal") == Alpha(value=None, units=0, values=0)
    assert alpha([("u", "x", 1.0), ("v", "y", 2.0)], "nominal").value is None
    assert alpha([("u", "x", 1.0), ("u", "y", 1.0)], "ordinal") == Alpha(value=None, units=1, values=2)


def test_winners_and_scores_of_votes() -> None:
    votes = [
        replace(vote(item, "x", "y", winner, who), scores={"help": (score, 3.0)})
        for item, winner, score in (("i1", Winner.A, 1.0), ("i2", Winner.TIE, 5.0))
        for who in ("ann", "bob")
    ]
    assert of_winners(votes) == Alpha(value=1.0, units=2, values=4)
    assert of_scores(votes, "help") == Alpha(value=1.0, units=4, values=8)
    assert of_scores(votes, "other").value is None
