"""Alignment jobs that can't go well, as their owner meets them: refused with a place and a way out before a sat moves,
or waiting with the reason said. What the client alone finds is in tests/client/test_bad_alignment.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import models
from .world import World

TAIL = "trust: {class: public}\nbudget: {max_sats: 500}\n"
ANSWER = (
    "  - {name: answer, recipe: generate, base_model: models/aligned, data: prompts.jsonl, "
    "params: {max_length: 48, max_new_tokens: 8%s}}\n"
)
PREFER = (
    "  - {name: prefer, recipe: dpo, base_model: models/aligned, data: preferences.jsonl, params: {max_length: 64}}\n"
)
ASK = "  - {name: ask, recipe: people, data: rows.jsonl, params: {title: Which is better, pay_sats: 1, overlap: 1}}\n"

#: name -> stages, code, what else must be said: the line and the key, and the way out
REFUSED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a judge of single answers": (
        ANSWER % ", answers: 1" + "  - {name: judge, recipe: judge, base_model: models/judge, data: answer.rows}\n",
        "job.few_answers",
        ('"line": "3"', "stages.0.params.answers", "Raise its params.answers"),
    ),
    "a judge of its own answers": (
        ANSWER % "" + "  - {name: judge, recipe: judge, base_model: models/aligned, data: answer.rows}\n",
        "judge.judges_itself",
        ('"line": "4"', "stages.1.base_model", "judges_itself: true"),
    ),
    "a reward model that begins with an adapter": (
        PREFER + "  - {name: score, recipe: reward, base_model: prefer.model, data: preferences.jsonl}\n",
        "job.unusable_reference",
        ('"line": "4"', "stages.1.base_model", "adapter", "publish: merged"),
    ),
    "votes of the blend's other side": (
        ASK + "  - {name: agree, recipe: consensus, data: ask.votes, params: {weights: {people: 0, judge: 1}, "
        "conflict: drop}}\n",
        "blend.nobody_counts",
        ('"line": "4"', "stages.1.params.weights", "above 0"),
    ),
    "learning from what nobody judged": (
        ANSWER % "" + "  - {name: prefer, recipe: dpo, base_model: models/aligned, data: answer.rows}\n",
        "job.unusable_reference",
        ('"line": "4"', "stages.1.data", "preferences"),
    ),
}


@pytest.fixture(scope="module")
def place(quiet: World) -> Iterator[Path]:
    models.write_gpt2(quiet.folder / "models" / "aligned", positions=640)
    models.write_gpt2(quiet.folder / "models" / "judge", seed=9, positions=1100)
    models.write_prompts(quiet.folder / "prompts.jsonl")
    models.write_preferences(quiet.folder / "preferences.jsonl", rows=60)
    rows = [{"prompt": f"Say {n}.", "answers": [f"one {n}", f"two {n}"]} for n in range(3)]
    (quiet.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield quiet.folder


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_go_well_is_refused_before_a_sat_moves(name: str, quiet: World, place: Path) -> None:
    stages, code, words = REFUSED[name]
    (place / "bad.yaml").write_text(f"name: bad\nstages:\n{stages}{TAIL}")
    before = quiet.balance()
    said = quiet.run("job", "submit", "bad.yaml", "--yes", "--json")
    assert (said.exit_code, said.error["code"]) == (3, code), said.stderr
    told = json.dumps(said.error)
    assert [word for word in ("bad.yaml", *words) if word not in told] == [], told
    assert quiet.balance() == before


def test_an_empty_pool_of_people_says_that_nobody_came_and_how_they_may(quiet: World, place: Path) -> None:
    (place / "ask.yaml").write_text(f"name: ask\nstages:\n{ASK}{TAIL}")
    before = quiet.balance()
    job = quiet.submit("ask.yaml")
    quiet.until(lambda: quiet.ask("job", "why", job)["code"] == "people.nobody", "the job to wait for people")
    shown = quiet.ask("job", "show", job)
    assert shown["why"]["evidence"] | {"annotators": "0", "items_left": "3"} == shown["why"]["evidence"]
    assert f"/people#{job}/ask" in shown["why"]["next_step"]
    page = quiet.succeed("job", "show", job).stdout
    assert "Nobody has come to answer yet; 3 items wait for people" in " ".join(page.split())
    quiet.succeed("job", "cancel", job)
    assert quiet.balance() == before
