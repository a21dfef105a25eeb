# pyright: standard
"""Answers: the same tokens however rows lie together, wherever they are drawn, and none but the model's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from shardwork.errors import Corrupt, InvalidInput, LimitExceeded
from shardwork.recipes.alignment.answers import read_prompts
from shardwork.recipes.orders import Precision
from shardwork_worker.training.context import Interrupted, ShardContext
from shardwork_worker.training.generation import passes
from shardwork_worker.training.trainer import TorchTrainer

from .. import tiny
from .stand import ENDS, Stand, change_index, order, sharp_base, some_prompts

SAMPLINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hot and cut": {"temperature": 1.5, "top_p": 0.8},
    "greedy": {"temperature": 0.0},
}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "opt", "mamba", "mpt"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_rows_answer_does_not_depend_on_the_rows_beside_it(
    kind: str, sampling: str, stand: Stand, tmp_path: Path
) -> None:
    one = Stand(trainer=stand.trainer, root=stand.root, base=sharp_base(tmp_path / kind, kind), prompts=stand.prompts)
    of = order(sampling=SAMPLINGS[sampling])
    whole, metrics = one.generate(of)
    read = one.read(of, whole)
    for size in (1, 5):
        other = one.read(of, one.generate(of.model_copy(update={"batch_size": size}))[0])
        assert other.tokens.tolist() == read.tokens.tolist()
        assert other.offsets.tolist() == read.offsets.tolist()
        np.testing.assert_allclose(other.logprobs, read.logprobs, atol=1e-4)
    assert metrics["rows"] == 18 and metrics["tokens"] == len(read.tokens) and metrics["ended"] == read.ended.sum()


def test_a_prompts_answers_differ_and_a_shard_goes_on_where_another_ended(stand: Stand) -> None:
    """Rows are numbered within a shard, prompts over all of them."""
    of = order(answers=4)
    read = stand.read(of, stand.generate(of)[0])
    assert len({tuple(read.answer(row).tolist()) for row in range(4)}) == 4
    first = of.model_copy(update={"prompts": 2})
    begun = stand.read(first, stand.generate(first)[0])
    assert [begun.answer(row).tolist() for row in range(8)] == [read.answer(row).tolist() for row in range(8)]


def test_another_process_draws_the_same_bytes(stand: Stand) -> None:
    of = order()
    here, _ = stand.generate(of)
    into = stand.folder()
    code = (
        "import sys; from pathlib import Path; from tests.worker.training import tiny\n"
        "from shardwork.recipes.alignment.orders import GenerateOrder\n"
        "from shardwork_worker.training.trainer import TorchTrainer\n"
        "order, base, prompts, into = sys.argv[1:]\n"
        "context = tiny.context(Path(into), base=Path(base), prompts=Path(prompts))\n"
        "TorchTrainer('cpu').generate(GenerateOrder.model_validate_json(order), context)\n"
    )
    args = [of.canonical_json(), str(stand.base), str(stand.prompts), str(into)]
    root = Path(__file__).parents[4]
    subprocess.run([sys.executable, "-c", code, *args], check=True, cwd=root, timeout=300)
    assert tiny.same_files(here, into / "answers")


def test_greedy_answers_are_those_of_transformers(stand: Stand) -> None:
    of = order(answers=1, sampling={"temperature": 0.0})
    read, asked = stand.read(of, stand.generate(of)[0]), stand.asked()
    model: Any = AutoModelForCausalLM.from_pretrained(stand.base)
    for row in range(of.rows):
        prompt = torch.from_numpy(asked.of_row(of, row).astype(np.int64)).unsqueeze(0)
        whole = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=list(ENDS),
            pad_token_id=0,
        )
        assert read.answer(row).tolist() == whole[0, prompt.shape[1] :].tolist()


def test_log_probabilities_are_the_models_own(stand: Stand) -> None:
    of = order(sampling={"temperature": 0.7, "top_p": 0.9})
    answers, metrics = stand.generate(of)
    read, asked = stand.read(of, answers), stand.asked()
    model = AutoModelForCausalLM.from_pretrained(stand.base)
    for row in range(of.rows):
        prompt, answer = asked.of_row(of, row), read.answer(row)
        ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64)).unsqueeze(0)
        with torch.no_grad():
            logs = (model(input_ids=ids).logits[0].double() / 0.7).log_softmax(-1)
        expected = [float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(answer)]
        np.testing.assert_allclose(read.logprobs_of(row), expected, atol=1e-4)
        assert metrics[f"sum.{row}"] == pytest.approx(sum(expected), abs=1e-4)


def test_each_of_several_end_tokens_ends_an_answer(stand: Stand) -> None:
    """Reading refuses an answer that goes on after its end or stops before it; here both ends came."""
    of = order(answers=16)
    read = stand.read(of, stand.generate(of)[0])
    lasts = {int(read.answer(row)[-1]) for row in range(of.rows) if read.ended[row]}
    assert lasts == set(ENDS)
    assert 0 < read.ended.sum() < of.rows


def test_without_an_end_token_answers_are_full(stand: Stand, tmp_path: Path) -> None:
    prompts = some_prompts(tmp_path / "endless", end_tokens=())
    of = order()
    answers, metrics = stand.generate(of, prompts=prompts)
    assert metrics["ended"] == 0 and metrics["tokens"] == 18 * 24
    assert metrics.keys() == {
        "rows",
        "tokens",
        "ended",
        *(f"{name}.{row}" for row in range(18) for name in ("sum", "peak")),
    }
    assert answers.name == "answers"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_checkpoint_answers_with_its_own_weights(method: str, stand: Stand, tmp_path: Path) -> None:
    first = tiny.first_checkpoint(stand.trainer, stand.base, tmp_path / "init", method)
    changes: dict[str, Any] = {"tuning": tiny.tuning(method)}
    learned = learned_from(stand, first, method, tmp_path)
    plain, _ = stand.generate(order())
    at_first, _ = stand.generate(order(**changes), checkpoint=first)
    later, metrics = stand.generate(order(**changes), checkpoint=learned)
    tokens = [stand.read(order(), answers).tokens.tolist() for answers in (plain, at_first, later)]
    assert tokens[0] == tokens[1]  # an adapter's first B is 0
    assert tokens[0] != tokens[2]
    again, _ = stand.generate(order())
    assert tiny.same_files(plain, again)  # the base as it lies, whatever was loaded since
    rows = range(18)
    assert stand.verdict(order(**changes), metrics, rows, checkpoint=learned, answers=later) == ""
    assert stand.verdict(order(**changes), metrics, rows, checkpoint=first, answers=later) != ""


def learned_from(stand: Stand, checkpoint: Path, method: str, folder: Path) -> Path:
    """The checkpoint with every weight a little larger."""
    from shardwork.tensors.checkpoint import write_checkpoint
    from shardwork.tensors.file import read_tensors

    weights = {
        name: array + np.float32(0.02) for name, array in read_tensors(checkpoint / "weights.safetensors").items()
    }
    (folder / "learned").mkdir()
    write_checkpoint(folder / "learned", weights, m=None, v=None, method=method, adam_step=0, round=1)
    return folder / "learned"


def test_a_batch_that_runs_out_of_memory_is_drawn_again_in_halves(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = order(batch_size=18)
    whole = stand.read(of, stand.generate(of)[0])
    sizes: list[int] = []
    begin = passes.Asker.begin

    def with_room_for_five(asker: passes.Asker, rows: passes.Lefts, repeats: torch.Tensor) -> passes.Decoding:
        sizes.append(len(repeats))
        if len(repeats) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return begin(asker, rows, repeats)

    monkeypatch.setattr(passes.Asker, "begin", with_room_for_five)
    halved = stand.read(of, stand.generate(of)[0])
    assert sizes == [18, 9, 4, 4, 4, 4, 2]
    assert halved.tokens.tolist() == whole.tokens.tolist()
    sizes.clear()
    stand.generate(of)
    assert sizes[0] == 4  # what fitted is remembered

    def with_no_room(asker: passes.Asker, rows: passes.Lefts, repeats: torch.Tensor) -> passes.Decoding:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(passes.Asker, "begin", with_no_room)
    with pytest.raises(LimitExceeded, match="one row at a time"):
        stand.generate(of)


def test_a_revoked_lease_stops_it_between_two_tokens(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    from shardwork_worker.training.generation import generate

    monkeypatch.setattr(generate, "TELL_S", 0.0)
    told: list[float] = []

    def tell(fraction: float, _loss: float | None) -> None:
        told.append(fraction)
        if len(told) == 5:
            raise Interrupted()

    inputs = {"base": stand.base, "prompts": stand.prompts}
    context = ShardContext(
        inputs=inputs, seed=tiny.SEED, output_dir=stand.folder(), trainer_of=lambda: stand.trainer, tell=tell
    )
    with pytest.raises(Interrupted):
        stand.trainer.generate(order(), context)
    assert told == sorted(told) and 0 < told[0] < told[-1] < 1
    assert stand.generate(order())[1]["rows"] == 18  # and the trainer is none the worse


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_bf16_answers_pass_their_audit(kind: str, stand: Stand, tmp_path: Path) -> None:
    one = Stand(trainer=stand.trainer, root=stand.root, base=sharp_base(tmp_path / kind, kind), prompts=stand.prompts)
    of = order(prompts=2, sampling={"max_new_tokens": 12}, precision=Precision.BF16)
    answers, metrics = one.generate(of)
    assert one.verdict(of, metrics, range(6), answers=answers) == ""


def test_hostile_prompts_are_refused(stand: Stand, tmp_path: Path) -> None:
    hostilities: tuple[dict[str, Any], ...] = ({"eos_token_ids": [[1]]}, {"prompts": 99})
    for number, changes in enumerate(hostilities):
        hostile = some_prompts(tmp_path / str(number))
        change_index(hostile, **changes)
        with pytest.raises(Corrupt, match="prompts"):
            stand.generate(order(), prompts=hostile)
    foreign = some_prompts(tmp_path / "foreign")
    (foreign / "prompts.safetensors").write_bytes(b"{}")
    with pytest.raises(Corrupt, match="prompts"):
        stand.generate(order(), prompts=foreign)
    with pytest.raises(Corrupt, match="longer"):
        stand.generate(order(max_length=2))


def test_answers_beyond_the_models_positions_are_refused(stand: Stand) -> None:
    longest = max(len(read_prompts(stand.prompts, max_length=64).prompt(number)) for number in range(6))
    with pytest.raises(InvalidInput, match="positions"):
        stand.generate(order(sampling={"max_new_tokens": 128 - longest + 1}))


def test_a_model_that_diverged_is_told_from_one_that_answers(stand: Stand, tmp_path: Path) -> None:
    base = tiny.write_base(tmp_path / "diverged", "llama")
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    model.save_pretrained(base)
    with pytest.raises(InvalidInput, match="finite"):
        TorchTrainer("cpu").generate(order(), tiny.context(stand.folder(), base=base, prompts=stand.prompts))
