"""Votes of people and of a judge, which number their items each in their own way, become one set of preferences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork.jobs.spec import StageSpec
from shardwork.recipes import recipe
from shardwork.recipes.alignment.consensus_orders import ConsensusOrder
from shardwork.recipes.base import Computed, StageFacts
from tests.shardwork.dataset.folders import write_jsonl

from .contexts import Folders, json_lines

GOOD, BAD = "good", "bad"


def items(count: int, *, numbered: bool, flipped: bool = False) -> list[dict[str, Any]]:
    """The same answers; a judge's items have other names and another A."""
    texts = [BAD, GOOD] if flipped else [GOOD, BAD]
    return [
        {
            "item": number if numbered else f"judge-{number}",
            "prompt_id": f"p{number}",
            "prompt": f"{number}?",
            "answers": [{"model": f"of {text}", "text": f"{text} {number}"} for text in texts],
        }
        for number in range(count)
    ]


def vote(item: dict[str, Any], better: str, who: str, **more: Any) -> dict[str, Any]:
    at = [answer["model"] for answer in item["answers"]].index(f"of {better}")
    row = {
        "prompt_id": item["prompt_id"],
        "item": item["item"],
        "model_a": item["answers"][0]["model"],
        "model_b": item["answers"][1]["model"],
        "winner": "ab"[at],
        "order": "ab",
        "annotator": who,
        "ms": 2000,
        "job": "j",
        "source": "people",
    }
    return row | more


def by_judge(
    item: dict[str, Any], better: str, confidence: float = 0.9, *, flips: bool = False
) -> list[dict[str, Any]]:
    other = {GOOD: BAD, BAD: GOOD}[better] if flips else better
    said = {"source": "judge", "ms": 0, "confidence": confidence}
    return [vote(item, better, "judge", **said), vote(item, other, "judge", **said, order="ba")]


def agreed(folder: Path, *sources: tuple[list[dict[str, Any]], list[dict[str, Any]]], **order: Any) -> Computed:
    inputs: dict[str, Path] = {}
    for place, (votes, about) in enumerate(sources):
        name = f"data-{place}" if place else "data"
        inputs[name] = folder / name
        write_jsonl(folder / name / "votes.jsonl", votes)
        write_jsonl(folder / name / "items.jsonl", about)
    given: dict[str, Any] = {
        "rule": "majority", "people": 1.0, "judge": 0.5, "conflict": "people_first", "least_confidence": 0.5,
        "sources": len(sources), "spent_msat": tuple(1000 * (place + 1) for place in range(len(sources))),
        "took_ms": tuple(60 * (place + 1) for place in range(len(sources))), **order,
    }  # fmt: skip
    return recipe("consensus").compute(
        "join", ConsensusOrder(**given).canonical_json(), Folders(inputs, folder / "out")
    )


def chosen(done: Computed) -> dict[str, str]:
    rows = json_lines(done.outputs["rows"] / "preferences.jsonl")
    assert all({row["chosen"].split()[0], row["rejected"].split()[0]} == {GOOD, BAD} for row in rows)
    return {row["prompt"]: row["chosen"].split()[0] for row in rows}


def told(done: Computed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((done.outputs["report"] / "report.json").read_text("utf-8"))
    return found


def two_sources(folder: Path, **order: Any) -> Computed:
    """People judge items 0 to 3 and the judge all 8, the other way round: it agrees on 0 to 2 and not on 3; it flips
    on 7."""
    people, judge = items(4, numbered=True), items(8, numbered=False, flipped=True)
    mine = [vote(item, GOOD, who) for item in people for who in ("ann", "bob", "cyd")]
    theirs = [row for at, item in enumerate(judge) for row in by_judge(item, BAD if at == 3 else GOOD, flips=at == 7)]
    return agreed(folder, (mine, people), (theirs, judge), **order)


def test_people_and_judge_meet_at_the_same_answers(tmp_path: Path) -> None:
    done = two_sources(tmp_path)
    assert chosen(done) == {f"{number}?": GOOD for number in range(7)}
    report = told(done)
    assert report["agreement"]["judge_with_people"]["value"] == 0.75
    assert report["agreement"]["judge_with_people"]["low"] < 0.75 < report["agreement"]["judge_with_people"]["high"]
    assert report["agreement"]["flips"]["value"] == 0.125
    assert [(one["name"], one["pairs"], one["cost_msat"], one["took_ms"]) for one in report["sides"]] == [
        ("people", 4, 1000, 60), ("judge", 7, 2000, 120), ("blend", 7, 3000, 180),
    ]  # fmt: skip
    assert [one["model"] for one in report["ratings"]] == ["of good", "of bad"]
    assert done.metrics["judge_agrees"] == 0.75 and done.metrics["rows"] == 7.0


def test_an_order_that_was_planned_before_times_were_told_is_carried_out(tmp_path: Path) -> None:
    mine = [vote(item, GOOD, who) for item in items(3, numbered=True) for who in ("ann", "bob")]
    done = agreed(tmp_path, (mine, items(3, numbered=True)), took_ms=())
    assert done.metrics["rows"] == 3.0 and told(done)["sides"][0]["took_ms"] == 0


def test_a_judge_that_always_contradicts_itself_stays_in_sight(tmp_path: Path) -> None:
    about = items(3, numbered=True)
    mine = [vote(item, GOOD, who) for item in about for who in ("ann", "bob")]
    theirs = [row for item in about for row in by_judge(item, GOOD, flips=True)]
    report = told(agreed(tmp_path, (mine, about), (theirs, about)))
    judge = next(one for one in report["sides"] if one["name"] == "judge")
    assert (judge["pairs"], judge["cost_msat"], judge["msat_per_pair"], judge["quality"]) == (0, 2000, None, None)
    assert report["agreement"]["flips"]["value"] == 1.0 and report["costs"]["judge_msat"] == 2000


@pytest.mark.parametrize(
    ("order", "third"),
    [
        ({"conflict": "people_first"}, GOOD),
        ({"conflict": "drop"}, None),
        ({"conflict": "weighted"}, GOOD),
        ({"conflict": "weighted", "judge": 5.0}, BAD),
        ({"conflict": "weighted", "people": 0.0, "judge": 1.0}, BAD),
        ({"judge": 0.0}, GOOD),
    ],
)
def test_a_conflict_is_decided_as_the_job_says(tmp_path: Path, order: dict[str, Any], third: str | None) -> None:
    found = chosen(two_sources(tmp_path, **order))
    assert found.get("3?") == third
    assert ("5?" in found) == (order.get("judge") != 0.0)


def test_its_votes_can_be_read_again(tmp_path: Path) -> None:
    first = two_sources(tmp_path / "1")
    again = json_lines(first.outputs["votes"] / "votes.jsonl"), json_lines(first.outputs["votes"] / "items.jsonl")
    assert chosen(agreed(tmp_path / "2", again)) == chosen(first)


def test_no_row_is_less_sure_than_it_must_be(tmp_path: Path) -> None:
    judge = items(4, numbered=False)
    votes = [row for at, item in enumerate(judge) for row in by_judge(item, GOOD, 0.6 + 0.1 * at)]
    assert set(chosen(agreed(tmp_path, (votes, judge), least_confidence=0.75))) == {"2?", "3?"}


def test_votes_on_equal_or_unknown_answers_make_no_row_and_are_counted(tmp_path: Path) -> None:
    about = items(3, numbered=True)
    about[1]["answers"][1]["text"] = about[1]["answers"][0]["text"]
    votes = [vote(item, GOOD, "ann") for item in about]
    done = agreed(tmp_path / "1", (votes, about[:2]))
    assert set(chosen(done)) == {"0?"} and done.metrics["unknown"] == 2.0
    with pytest.raises(InvalidInput) as caught:
        agreed(tmp_path / "2", (votes, []))
    assert caught.value.code == "consensus.no_pairs"


def test_a_broken_row_of_items_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        agreed(tmp_path, ([], [{"item": 1, "prompt": 3, "answers": []}]))
    assert caught.value.code == "votes.bad_item"
    assert caught.value.why.evidence == {"file": "items.jsonl", "line": "1"}


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"weights": {"people": 0, "judge": 0}}, "blend.no_weight"),
        ({"weights": {"people": 0, "judge": 1}}, "blend.people_without_weight"),
    ],
)
def test_contradictory_weights_are_refused_with_the_key(params: dict[str, Any], code: str) -> None:
    stage = StageSpec(name="agreed", recipe="consensus", data=["a.votes"], params=params)
    with pytest.raises(InvalidInput) as caught:
        recipe("consensus").freeze(stage, StageFacts())
    assert caught.value.code == code and caught.value.why.next_step
    assert caught.value.why.evidence["key"] == "params.weights" and caught.value.why.evidence["stage"] == "agreed"


@pytest.mark.parametrize("weight", [-1, float("inf"), "many", None])
def test_a_weight_that_is_none_is_refused(weight: object) -> None:
    stage = StageSpec(name="agreed", recipe="consensus", data=["a.votes"], params={"weights": {"people": weight}})
    with pytest.raises(InvalidInput, match="weights"):
        recipe("consensus").freeze(stage, StageFacts())


@pytest.mark.parametrize("given", [{"data": ["votes.jsonl"]}, {"base_model": "./m"}, {"eval_fraction": 0.1}])
def test_what_is_no_vote_is_refused(given: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"name": "agreed", "recipe": "consensus", "data": ["a.votes"], **given}
    stage = StageSpec(**whole)
    with pytest.raises(InvalidInput) as caught:
        recipe("consensus").freeze(stage, StageFacts())
    assert caught.value.code.startswith("consensus.") and caught.value.why.next_step
