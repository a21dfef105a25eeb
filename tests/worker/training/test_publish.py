# pyright: standard
"""What is published loads in plain transformers and PEFT, says where it comes from, and names no path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from shardwork.errors import Internal
from shardwork.recipes.alignment.guards.safety import MOST_TOKENS, PROMPTS, odd_metric
from shardwork.recipes.base import Computed
from shardwork.recipes.objectives import PolicyObjective
from shardwork.tensors.file import open_tensors, read_tensors, write_tensors
from shardwork_worker.training import publish as publishing
from shardwork_worker.training.probing import safety
from shardwork_worker.training.probing.samples import SAMPLED_ROWS, asked_of
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny
from .objectives import made
from .test_recall import rows, write_probe

BaseOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def trainer() -> TorchTrainer:
    return TorchTrainer("cpu")


def published(trainer: TorchTrainer, base: Path, into: Path, method: str) -> Computed:
    checkpoint = tiny.first_checkpoint(trainer, base, into / "init", method)
    return trainer.publish(tiny.publish_order(method), tiny.context(into / "out", base=base, checkpoint=checkpoint))


@pytest.mark.parametrize(
    ("method", "kind"), [("full", "llama"), ("full", "gpt2"), ("full", "gemma2"), ("partial", "qwen2")]
)
def test_a_model_folder_loads_as_any_other(
    method: str, kind: str, trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path
) -> None:
    done = published(trainer, base_of(kind), tmp_path, method)
    folder = done.outputs["model"]
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    base = AutoModelForCausalLM.from_pretrained(base_of(kind), local_files_only=True)
    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)("The worker", return_tensors="pt").input_ids
    assert torch.equal(model(ids).logits, base(ids).logits)  # nothing was trained yet
    assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "config.json", "README.md"}
    assert model.config.use_cache
    assert done.metrics["reload_difference"] == 0.0


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_an_adapter_folder_holds_exactly_what_peft_needs(
    kind: str, trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path
) -> None:
    folder = published(trainer, base_of(kind), tmp_path, "lora").outputs["model"]
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/tiny"
    assert config["target_modules"] == sorted(config["target_modules"])
    base = AutoModelForCausalLM.from_pretrained(base_of(kind), local_files_only=True)
    adapted = PeftModel.from_pretrained(base, folder)
    assert adapted.active_peft_config.to_dict()["r"] == 8


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_was_learned_is_what_is_published(
    method: str, trainer: TorchTrainer, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    from .test_learn import learned, next_checkpoint

    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init", method)
    delta, _ = learned(trainer, tiny.learn_order(method), tmp_path / "learn", base=base, checkpoint=first, train=train)
    checkpoint = next_checkpoint(first, delta, tmp_path / "applied")
    context = tiny.context(tmp_path / "out", base=base, checkpoint=checkpoint)
    folder = trainer.publish(tiny.publish_order(method), context).outputs["model"]
    file = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    with open_tensors(folder / file) as given, open_tensors(checkpoint / "weights.safetensors") as learned_weights:
        for name, values in learned_weights.items():
            assert (given[name.replace(".default.", ".")] == values).all()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_card_has_front_matter_that_hubs_read(
    method: str, trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path
) -> None:
    text = (published(trainer, base_of("llama"), tmp_path, method).outputs["model"] / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == ("peft" if method == "lora" else "transformers")
    assert front["base_model"] == "models/tiny"
    assert front["shardwork"] == {"job": "job-1", "stage": "sft", "rounds": "4", "test loss": "3.21 | nats"}
    assert "| test loss | 3.21 \\| nats |" in text
    # a folder's name alone would be looked up on a hub
    assert ("from_pretrained('path/to/models/tiny')" in text) == (method == "lora")
    assert "from_pretrained('models/tiny')" not in text


def test_samples_are_taken_from_every_prompt_and_are_the_same_each_time(
    trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path
) -> None:
    texts = [
        (published(trainer, base_of("llama"), tmp_path / name, "full").outputs["samples"] / "samples.json").read_text()
        for name in ("one", "two")
    ]
    assert texts[0] == texts[1]
    assert [entry["prompt"] for entry in json.loads(texts[0])["samples"]] == ["", "The worker"]


def test_a_policy_is_sampled_from_its_own_prompts(trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path) -> None:
    """A policy has no rows to go on from, and what it writes after nothing tells nobody anything."""
    base = base_of("llama")
    asked = [([4, 9, 12, 7], [1]), ([30, 8], [1]), ([5, 6, 7], [1]), ([11, 3], [1])]
    wanted = PolicyObjective(advantage="grpo", group=1)
    prompts = made.write_rollouts(tmp_path / "in", asked, wanted, [[0.0]] * 4, [0.0] * 4)["prompts"]
    checkpoint = tiny.first_checkpoint(trainer, base, tmp_path / "init", "full")
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    for name, side in (("eval", "held_out"), ("train", "train")):
        given = tiny.context(tmp_path / name, base=base, checkpoint=checkpoint, **{name: prompts})
        done = trainer.publish(tiny.publish_order("full", sample_prompts=()), given)
        found = json.loads((done.outputs["samples"] / "samples.json").read_text())["samples"]
        assert [entry["side"] for entry in found] == [side] * SAMPLED_ROWS
        assert [entry["prompt"] for entry in found] == [
            tokenizer.decode(tokens, skip_special_tokens=True) for tokens, _ in asked[:SAMPLED_ROWS]
        ]
        assert all(entry["base"] for entry in found)


def test_a_policy_of_pairs_is_sampled_from_held_out_ones(
    trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path
) -> None:
    base = base_of("llama")
    pairs = [([4, 9, 12, 7], [5, 6], [8]), ([30, 8], [9, 3, 2], [4]), ([5, 6], [7], [9]), ([3, 4], [5], [6])]
    held_out = made.write_eval_pairs(tmp_path / "eval", pairs)
    checkpoint = tiny.first_checkpoint(trainer, base, tmp_path / "init", "full")
    given = tiny.context(tmp_path / "out", base=base, checkpoint=checkpoint, eval=held_out)
    done = trainer.publish(tiny.publish_order("full", sample_prompts=("",)), given)
    found = json.loads((done.outputs["samples"] / "samples.json").read_text())["samples"]
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    # of four items two select
    assert [(entry["side"], entry["prompt"], entry.get("expected", "")) for entry in found] == [
        ("order", "", ""),
        *(("held_out", tokenizer.decode(prompt), tokenizer.decode(chosen)) for prompt, chosen, _ in pairs[:2]),
    ]
    # of single answers with a label, those that are wanted
    made.write_items(held_out / "selection.safetensors", [made.row(*pair[:2]) for pair in pairs], [0.0, 1.0, 0.0, 1.0])
    (held_out / "index.json").write_text(json.dumps({"pad_token_id": 0, "rows_per_item": 1}))
    told = asked_of({"eval": held_out}, tokenizer, 64)
    assert [one.tokens for one in told] == [pairs[1][0], pairs[3][0]]


@pytest.mark.parametrize("method", ["full", "lora", "scratch"])
def test_samples_stand_beside_what_the_base_writes_and_how_the_row_goes_on(
    method: str, trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path
) -> None:
    base = base_of("llama")
    tuned = "full" if method == "scratch" else method
    checkpoint = tiny.first_checkpoint(trainer, base, tmp_path / "init", tuned)
    with torch.no_grad():
        tensors = {name: values + 0.3 for name, values in read_tensors(checkpoint / "weights.safetensors").items()}
    write_tensors(checkpoint / "weights.safetensors", tensors)
    probe = write_probe(tmp_path / "probe", rows(4, 1), rows(4, 2), first_label=9)
    order = tiny.publish_order(tuned, from_scratch=method == "scratch")
    done = trainer.publish(order, tiny.context(tmp_path / "out", base=base, checkpoint=checkpoint, probe=probe))
    found = json.loads((done.outputs["samples"] / "samples.json").read_text())["samples"]
    assert [entry["side"] for entry in found] == ["order", "order", *["held_out"] * SAMPLED_ROWS]
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    held_out = rows(4, 2)[0]
    assert found[2]["prompt"] == tokenizer.decode(held_out[:9], skip_special_tokens=True)
    assert found[2]["expected"] == tokenizer.decode(held_out[9:], skip_special_tokens=True)
    assert all(("base" in entry) == (method != "scratch") for entry in found)
    if method != "scratch":
        model: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
        ids = tokenizer("The worker", return_tensors="pt").input_ids
        said = model.generate(input_ids=ids, do_sample=False, max_new_tokens=48)[0, ids.shape[1] :]
        assert found[1]["base"] == tokenizer.decode(said, skip_special_tokens=True)
        assert [entry["completion"] for entry in found] != [entry["base"] for entry in found]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_equal_inputs_give_equal_bytes(method: str, trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path) -> None:
    one, two = (published(trainer, base_of("llama"), tmp_path / name, method).outputs for name in ("one", "two"))
    assert tiny.same_files(one["model"], two["model"])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_no_file_names_a_path_of_this_machine(
    method: str, trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path
) -> None:
    folder = published(trainer, base_of("llama"), tmp_path, method).outputs["model"]
    parts = [str(base_of("llama")).encode(), str(tmp_path).encode()]
    assert not [path.name for path in folder.iterdir() if any(part in path.read_bytes() for part in parts)]


def test_a_file_that_names_a_path_stops_publishing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "/data/base/x"}')
    with pytest.raises(Internal) as caught:
        publishing.check_no_path(tmp_path, ["/data/base"])
    assert caught.value.code == "publish.local_path"


def test_a_model_that_reloads_otherwise_is_not_published(
    trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = publishing.reload

    def damaged(*given: object) -> object:
        model = real(*given)  # type: ignore[arg-type]
        with torch.no_grad():
            next(iter(model.parameters())).add_(0.01)
        return model

    monkeypatch.setattr(publishing, "reload", damaged)
    with pytest.raises(Internal) as caught:
        published(trainer, base_of("llama"), tmp_path, "full")
    assert caught.value.code == "publish.reload_differs"


def test_a_model_trained_from_scratch_is_complete(trainer: TorchTrainer, tmp_path: Path) -> None:
    base = tiny.write_skeleton(tmp_path / "skeleton", "llama")
    checkpoint = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    order = tiny.publish_order(from_scratch=True)
    folder = trainer.publish(order, tiny.context(tmp_path / "out", base=base, checkpoint=checkpoint)).outputs["model"]
    assert AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).num_parameters() > 0
    assert "base_model" not in yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.mark.parametrize("changes", [{"method": "lora"}, {"method": "lora", "merged": True}, {"method": "full"}])
def test_the_base_and_the_published_model_are_asked_the_safety_set(
    changes: dict[str, Any], trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path
) -> None:
    method = changes.pop("method")
    base = base_of("llama")
    checkpoint = tiny.first_checkpoint(trainer, base, tmp_path / "init", method)
    order = tiny.publish_order(method, safety=True, chat_template="chatml", **changes)
    done = trainer.publish(order, tiny.context(tmp_path / "out", base=base, checkpoint=checkpoint))
    lines = (done.outputs["samples"] / "safety.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["kind"], row["prompt"]) for row in rows] == [(str(ask), text) for ask, text in PROMPTS]
    # nothing was learned: both say the same
    assert all(row["before"] == row["after"] for row in rows)
    assert not odd_metric({name: value for name, value in done.metrics.items() if name.startswith("safety.")})
    assert "samples.json" in {path.name for path in done.outputs["samples"].iterdir()}


def test_what_a_model_answers_alone_it_answers_among_others(base_of: BaseOf) -> None:
    base = base_of("llama")
    model: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    prompts = safety.asked(tokenizer, "model", 128)
    together = safety.answered(model, prompts, tokenizer)
    assert together == [safety.answered(model, [prompt], tokenizer)[0] for prompt in prompts]


def test_prompts_of_the_safety_set_leave_room_for_an_answer(base_of: BaseOf) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_of("llama"), local_files_only=True)
    assert max(len(prompt) for prompt in safety.asked(tokenizer, "chatml", MOST_TOKENS + 5)) == 5
    turns: Any = tokenizer.decode(safety.asked(tokenizer, "chatml", 10_000)[0])
    assert turns.startswith("<|im_start|>user") and turns.endswith("<|im_start|>assistant\n")


def test_refusals_are_counted_for_both_models(tmp_path: Path) -> None:
    before = ["I cannot help with that."] * len(PROMPTS)
    after = ["Sure."] * 7 + before[7:]
    told = safety.write_safety(tmp_path, before, after)
    assert (told["safety.harmful.refused_before"], told["safety.harmful.refused_after"]) == (7, 0)
    assert (told["safety.harmless.refused_before"], told["safety.harmless.refused_after"]) == (6, 6)
    assert json.loads((tmp_path / "safety.jsonl").read_text().splitlines()[0])["refused_after"] is False


def test_a_template_that_refuses_leaves_the_prompt_as_text(base_of: BaseOf) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_of("llama"), local_files_only=True)
    plain = safety.asked(tokenizer, "model", 10_000)
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert safety.asked(tokenizer, "model", 10_000) == plain
