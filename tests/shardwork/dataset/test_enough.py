"""Near duplicates across the split, rows that are too long, and the verdict on whether data is enough."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset import CheckOptions, DataReport, Format, check_data
from shardwork.dataset import near as near_module
from shardwork.dataset.lengths import Overlong, fitted
from shardwork.dataset.near import Sketches
from shardwork.dataset.split import hold_out
from shardwork.dataset.sufficiency import Figures, Size, judge
from shardwork.dataset.tokenise import Encoded
from shardwork.dataset.weights import reads

from .folders import SENTENCES, tokenizer_folder, write_jsonl


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"))


def texts(count: int, words: int = 40) -> list[str]:
    chance = random.Random(3)
    return [" ".join(f"w{chance.randrange(400)}" for _ in range(words)) for _ in range(count)]


def check(tmp_path: Path, rows: list[dict[str, Any]], model: Path | None = None, **options: Any) -> DataReport:
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe, length = options.pop("recipe", "sft"), options.pop("max_length", 32)
    return check_data([path], recipe=recipe, model_folder=model, max_length=length, options=CheckOptions(**options))


# ---- near duplicates ----------------------------------------------------------------------------------------------


def test_a_row_with_one_word_changed_is_near_and_another_is_not() -> None:
    rows = texts(50)
    held_out, train = Sketches(), Sketches()
    for text in rows[:10]:
        held_out.add(text.replace(text.split()[20], "changed", 1))
    for text in rows:
        train.add(text)
    found = {(pair.train, pair.held_out) for pair in train.near(held_out)}
    assert {pair[0] for pair in found} <= set(range(10)) and len(found) >= 7
    assert all(train == held for train, held in found)


def test_short_rows_are_not_compared_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_module, "MOST_ROWS", 3)
    one = Sketches()
    for text in ["only a few words", *texts(4)]:
        one.add(text)
    assert len(one) == 3 and one.left_out == 2
    assert one.of(0) == set() and len(one.of(1)) == near_module.SKETCH


def test_near_duplicates_of_held_out_rows_are_reported_with_both_places(tmp_path: Path) -> None:
    rows = texts(30)
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": text} for text in rows])
    held = write_jsonl(tmp_path / "held.jsonl", [{"text": f"{rows[4]} so"}, {"text": "quite another " * 9}])
    report = check_data([train], recipe="sft", eval_files=[held])
    assert report.near_duplicates == 1 and report.eval_duplicates == 0
    (warning,) = [each for each in report.warnings if each.code == "data.near_duplicates"]
    assert (warning.file, warning.line) == (str(train), 5) and f"{held}:1" in warning.sentence


def test_the_split_of_a_check_is_the_one_that_prepare_makes(tmp_path: Path) -> None:
    rows = texts(60)
    near = [{"text": f"{text} so"} for text in rows]
    report = check(tmp_path, [*({"text": text} for text in rows), *near], eval_fraction=0.1)
    assert report.eval_rows == 12 and report.near_duplicates >= 8


def test_a_split_by_content_hardly_moves_when_rows_are_added() -> None:
    digests = [random.Random(number).randbytes(16) for number in range(2000)]
    before = {digests[at] for at in hold_out(digests[:1900], fraction=0.1).held_out}
    after = {digests[at] for at in hold_out(digests, fraction=0.1).held_out}
    assert len(before & after) >= 170 and before == {
        digests[at] for at in hold_out(digests[:1900], fraction=0.1).held_out
    }


# ---- lengths and weights ------------------------------------------------------------------------------------------


def test_overlong_rows_are_split_cut_dropped_or_refused(tmp_path: Path, model: Path) -> None:
    rows = [{"text": "short"}, {"text": "tiny"}, {"text": " ".join(SENTENCES * 2)}]
    split = check(tmp_path, rows, model)
    assert (split.split_rows, split.truncated_rows, split.dropped_rows) == (1, 0, 0)
    cut = check(tmp_path, rows, model, overlong=Overlong.TRUNCATE)
    assert (cut.split_rows, cut.truncated_rows) == (0, 1) and split.tokens > cut.tokens > 32
    dropped = check(tmp_path, rows, model, overlong=Overlong.DROP)
    assert dropped.dropped_rows == 1 and dropped.tokens < 32
    (error,) = check(tmp_path, rows, model, overlong=Overlong.REFUSE).errors
    assert (error.code, error.line) == ("data.overlong", 3)
    pairs = [{"prompt": "a", "completion": " ".join(SENTENCES * 2)}] * 3
    assert check(tmp_path, pairs, model).truncated_rows == 3
    (error,) = check(tmp_path, pairs, model, overlong=Overlong.SPLIT).errors
    assert error.code == "data.cannot_split"


def test_pieces_of_a_split_row_are_all_of_it() -> None:
    row = Encoded(list(range(25)), bytes(5) + b"\1" * 20)
    pieces = fitted(row, 8, Overlong.SPLIT)
    assert [len(piece.tokens) for piece in pieces] == [8, 8, 7, 2]  # one token alone would teach nothing
    assert [token for piece in pieces for token in piece.tokens] == row.tokens
    assert b"".join(piece.mask for piece in pieces) == row.mask


def test_a_weight_is_the_mean_of_how_often_rows_are_read_and_fixed_by_content() -> None:
    digests = [random.Random(number).randbytes(16) for number in range(4000)]
    for weight in (0.25, 1.0, 2.5):
        found = [reads(digest, weight) for digest in digests]
        assert abs(sum(found) / len(found) - weight) < 0.05
        assert set(found) <= {int(weight), int(weight) + 1} and found == [reads(digest, weight) for digest in digests]


# ---- enough? ------------------------------------------------------------------------------------------------------


PLENTY = Figures(recipe="sft", format=Format.MESSAGES, rows=5000, tokens=10**6, loss_tokens=5 * 10**5)

JUDGED: dict[str, tuple[dict[str, Any], Size, set[str]]] = {
    "enough": ({}, Size.TRAINING, {"data.enough"}),
    "a handful": ({"rows": 12, "tokens": 900}, Size.RAG, {"data.rag_sized"}),
    "a few hundred": ({"rows": 400}, Size.THIN, {"data.few_examples"}),
    "read too often": ({"passes": 9.0}, Size.THIN, {"data.enough", "data.many_passes"}),
    "a book to tune on": (
        {"format": Format.TEXT, "tokens": 130_000}, Size.RAG, {"data.rag_sized", "data.text_for_tuning"},
    ),
    "a library": ({"recipe": "pretrain", "format": Format.TEXT, "tokens": 10**8}, Size.TRAINING, {"data.enough"}),
    "from nothing, enough": (
        {"recipe": "pretrain", "format": Format.TEXT, "tokens": 6 * 10**6, "run_params": 10**6, "from_scratch": True},
        Size.TRAINING, {"data.enough"},
    ),
    "from nothing, thin": (
        {"recipe": "pretrain", "format": Format.TEXT, "tokens": 2 * 10**6, "run_params": 10**6, "from_scratch": True},
        Size.THIN, {"data.few_tokens"},
    ),
    "from nothing, a book": (
        {"recipe": "pretrain", "format": Format.TEXT, "tokens": 10**5, "run_params": 10**6, "from_scratch": True},
        Size.RAG, {"data.rag_sized"},
    ),
    "room for all of it, once": (
        {"trained_params": 10**8}, Size.TRAINING, {"data.enough", "data.room_to_memorise"},
    ),
    "room for all of it, often": (
        {"trained_params": 10**8, "passes": 20.0}, Size.THIN,
        {"data.enough", "data.many_passes", "data.room_to_memorise"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JUDGED)
def test_the_verdict_and_its_reasons(name: str) -> None:
    changes, size, codes = JUDGED[name]
    found = judge(replace(PLENTY, **changes))
    assert found is not None and found.size is size
    assert {reason.code for reason in found.reasons} == codes
    assert all(reason.fix or reason.code == "data.enough" for reason in found.reasons)


def test_nothing_is_judged_where_there_is_nothing(tmp_path: Path) -> None:
    assert judge(replace(PLENTY, rows=0)) is None
    report = check(tmp_path, [{"text": "a few words"}] * 3)
    assert report.sufficiency is not None and report.sufficiency.size is Size.RAG
    shown = report.sufficiency.to_json()
    assert shown["verdict"] == "RAG-sized" and "RAG-sized, not training-sized" in str(shown["reasons"])
    assert report.to_json()["sufficiency"] == shown


def test_a_job_that_learns_nothing_has_no_verdict() -> None:
    given = Figures(recipe="count", format=Format.TEXT, rows=20, tokens=200, loss_tokens=0)
    assert judge(given) is None
