# pyright: standard
"""Audits: honest work passes with exact numbers; each way to be paid without the work is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from shardwork.recipes.alignment.answers import Answers, flat, write_answers
from shardwork.recipes.alignment.orders import GenerateOrder
from shardwork.tensors.file import write_tensors
from shardwork_worker.training.generation import audit

from .stand import ENDS, Stand, order, sharp_base

ROWS = tuple(range(18))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "opt", "mamba", "mpt"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_p": 0.9}, {"temperature": 0.0}], ids=str)
def test_honest_answers_are_what_an_auditor_finds(
    kind: str, sampling: dict[str, Any], stand: Stand, tmp_path: Path
) -> None:
    one = Stand(trainer=stand.trainer, root=stand.root, base=sharp_base(tmp_path / kind, kind), prompts=stand.prompts)
    of = order(sampling=sampling)
    answers, claimed = one.generate(of)
    found = one.audit(of, (0, 7, 17), answers=answers)
    names = {f"{name}.{row}" for name in ("sum", "peak", "drawn", "told") for row in (0, 7, 17)}
    assert found.keys() == names | {"tokens", "ended"}
    for row in (0, 7, 17):
        assert found[f"drawn.{row}"] == found[f"told.{row}"] == 1.0
        assert found[f"peak.{row}"] == pytest.approx(claimed[f"peak.{row}"], abs=1e-4)
        assert found[f"sum.{row}"] == pytest.approx(claimed[f"sum.{row}"], abs=1e-4)
    assert one.verdict(of, claimed, ROWS, answers=answers) == ""


def rows_of(answers: Answers) -> list[list[int]]:
    return [answers.answer(row).tolist() for row in range(len(answers))]


def written(stand: Stand, of: GenerateOrder, rows: list[list[int]]) -> tuple[Path, dict[str, float]]:
    """Answers that a cheat made up, with the numbers that the model really gives them: a forward pass is cheap."""
    model, asked = AutoModelForCausalLM.from_pretrained(stand.base), stand.asked()
    temperature = of.sampling.temperature or 1.0
    logprobs: list[float] = []
    claimed: dict[str, float] = {}
    for number, row in enumerate(rows):
        prompt = asked.of_row(of, number).tolist()
        with torch.no_grad():
            raw = model(torch.tensor([prompt + row])).logits[0].double() / temperature
            logs = raw.log_softmax(-1)
        mine = [float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(row)]
        logprobs += mine
        claimed[f"sum.{number}"] = sum(mine)
        claimed[f"peak.{number}"] = float(raw[len(prompt) - 1 : -1].max(dim=-1).values.mean())
    claimed |= {"tokens": float(sum(map(len, rows))), "ended": float(sum(row[-1] in ENDS for row in rows))}
    tokens, offsets = flat(rows)
    made = Answers(
        tokens=tokens,
        offsets=offsets,
        logprobs=np.array(logprobs, np.float32),
        ended=np.array([row[-1] in ENDS for row in rows], np.uint8),
    )
    folder = stand.folder()
    folder.mkdir()
    write_answers(folder, made)
    return folder, claimed


def test_answers_made_up_honestly_measured_are_read_as_answers(stand: Stand) -> None:
    """What the cheats below hand in is refused for what it is, not for its form."""
    of = order()
    honest, _ = stand.generate(of)
    again, claimed = written(stand, of, rows_of(stand.read(of, honest)))
    assert stand.verdict(of, claimed, ROWS, answers=again) == ""


def replaced(rows: list[list[int]]) -> list[list[int]]:
    """One token of each answer is another one."""
    return [[*row[:-2], 30 if row[-2] != 30 else 31, row[-1]] if len(row) > 1 else row for row in rows]


def copied(rows: list[list[int]]) -> list[list[int]]:
    """Each answer stands for its neighbour too."""
    return [rows[number - number % 2] for number in range(len(rows))]


def ended_early(rows: list[list[int]]) -> list[list[int]]:
    return [[*row[:3], ENDS[0]] for row in rows]


def ends_removed(rows: list[list[int]]) -> list[list[int]]:
    """Longer answers, for jobs that pay by the token."""
    return [([token if token not in ENDS else 30 for token in row] * 24)[:24] for row in rows]


@pytest.mark.parametrize("cheat", [replaced, copied, ended_early, ends_removed])
def test_answers_that_the_seed_did_not_draw_are_caught(
    cheat: Callable[[list[list[int]]], list[list[int]]], stand: Stand
) -> None:
    of = order()
    rows = cheat(rows_of(stand.read(of, stand.generate(of)[0])))
    made, claimed = written(stand, of, rows)
    assert stand.verdict(of, claimed, ROWS, answers=made) == "audit.not_drawn"


def test_one_replaced_token_of_one_answer_is_caught_where_it_is_looked_at(stand: Stand) -> None:
    of = order(sampling={"max_new_tokens": 64})
    rows = rows_of(stand.read(of, stand.generate(of)[0]))
    longest = max(range(18), key=lambda row: len(rows[row]))
    rows[longest][40] = 30 if rows[longest][40] != 30 else 31
    made, claimed = written(stand, of, rows)
    others = [row for row in ROWS if row != longest]
    assert stand.verdict(of, claimed, ROWS, answers=made) == "audit.not_drawn"
    assert stand.verdict(of, claimed, others, answers=made) == ""


def test_greedy_answers_in_place_of_drawn_ones_are_caught(stand: Stand) -> None:
    greedy, _ = stand.generate(order(sampling={"temperature": 0.0}))
    made, claimed = written(stand, order(), rows_of(stand.read(order(), greedy)))
    assert stand.verdict(order(), claimed, ROWS, answers=made) == "audit.not_drawn"


def test_answers_of_another_model_are_caught_by_either_number(stand: Stand, tmp_path: Path) -> None:
    cheap = sharp_base(tmp_path / "cheap", "llama", num_hidden_layers=1)
    other = replace(stand, base=cheap)
    of = order()
    answers, claimed = other.generate(of)
    assert stand.verdict(of, claimed, ROWS, answers=answers) == "audit.numbers_differ"
    made, claimed = written(stand, of, rows_of(stand.read(of, answers)))
    assert stand.verdict(of, claimed, ROWS, answers=made) == "audit.not_drawn"


def test_answers_of_another_seed_are_caught(stand: Stand) -> None:
    of = order(first_prompt=0)
    shifted = order(first_prompt=0, prompts=6)
    rows = rows_of(stand.read(of, stand.generate(shifted)[0]))
    made, claimed = written(stand, of, rows[3:] + rows[:3])
    assert stand.verdict(of, claimed, ROWS, answers=made) == "audit.not_drawn"


@pytest.mark.parametrize("place", ["one number", "all", "the sum alone"])
def test_forged_log_probabilities_are_caught(place: str, stand: Stand) -> None:
    of = order()
    answers, claimed = stand.generate(of)
    read = stand.read(of, answers)
    forged = read.logprobs.copy()
    if place == "one number":
        forged[int(read.offsets[4])] -= 0.5
    elif place == "all":
        forged *= 0.5
    else:
        claimed["sum.4"] *= 0.5
    folder = stand.folder()
    folder.mkdir()
    write_answers(folder, replace(read, logprobs=forged))
    assert stand.verdict(of, claimed, ROWS, answers=folder) == "audit.numbers_differ"


@pytest.mark.parametrize("cut", ["the end", "half", "a row", "bytes"])
def test_truncated_answers_are_unreadable(cut: str, stand: Stand) -> None:
    of = order()
    answers, claimed = stand.generate(of)
    read = stand.read(of, answers)
    rows, ended = rows_of(read), read.ended.copy()
    if cut == "the end":
        rows = [row[:-1] if row[-1] in ENDS and len(row) > 1 else row for row in rows]
        ended[:] = 0
    elif cut == "half":
        rows = [row[:12] for row in rows]
        ended = np.array([row[-1] in ENDS for row in rows], np.uint8)
    elif cut == "a row":
        rows, ended = rows[:-1], ended[:-1]
    tokens, offsets = flat(rows)
    folder = stand.folder()
    folder.mkdir()
    arrays: dict[str, Any] = {
        "tokens": tokens,
        "offsets": offsets,
        "logprobs": read.logprobs[: len(tokens)].copy(),
        "ended": ended,
    }
    write_tensors(folder / "answers.safetensors", arrays)
    if cut == "bytes":
        path = answers / "answers.safetensors"
        (folder / "answers.safetensors").write_bytes(path.read_bytes()[:-7])
    assert stand.audit(of, ROWS, answers=folder) == {"unreadable": 1.0}
    assert stand.verdict(of, claimed, ROWS, answers=folder) == "audit.unreadable"


def test_an_audit_of_long_answers_in_a_large_vocabulary_is_done_row_by_row(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = order()
    answers, _ = stand.generate(of)
    whole = stand.audit(of, ROWS, answers=answers)
    monkeypatch.setattr(audit, "MOST_LOGITS", 1)
    monkeypatch.setattr(audit, "POSITIONS", 5)
    by_row = stand.audit(of, ROWS, answers=answers)
    assert by_row == pytest.approx(whole, abs=1e-4)
