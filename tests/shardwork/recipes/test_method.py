"""`method: auto` is explained by four factors, frozen in the plan, and never trains more than is sensible by itself."""

from __future__ import annotations

from typing import Any

import pytest

from shardwork.errors import InvalidInput
from shardwork.jobs.spec import PlanSection, StageSpec
from shardwork.models.presets import PRESETS, preset_params
from shardwork.recipes import recipe
from shardwork.recipes.base import StageFacts
from shardwork.recipes.learning import LearningRecipe
from shardwork.recipes.method import FULL_LIMIT, choose_method
from shardwork.recipes.sft import method_choice, with_method


def facts(params: int = 1_000_000, tokens: int = 50_000, rows: int = 500) -> StageFacts:
    return StageFacts(rows=rows, tokens=tokens, run_params=params, trained_params=params)


def stage(kind: str = "sft", shards: int = 4, **params: Any) -> StageSpec:
    base = None if kind == "pretrain" and "preset" in params else "./base"
    plan = PlanSection(rounds=2, shards_per_round=shards, inner_steps=10)
    return StageSpec(name="one", recipe=kind, base_model=base, data=["a.jsonl"], params=params, plan=plan)


@pytest.mark.parametrize(
    ("purpose", "measured", "method"),
    [
        (None, facts(tokens=10**9), "lora"),
        ("test", facts(tokens=10**9), "lora"),
        ("style", facts(tokens=10**9), "lora"),
        ("knowledge", facts(tokens=100_000), "full"),
        ("knowledge", facts(tokens=10_000), "partial"),
        ("knowledge", facts(tokens=9_000), "lora"),
        ("knowledge", facts(params=FULL_LIMIT + 1, tokens=10**12), "lora"),
    ],
)
def test_a_method_follows_from_use_and_resources(purpose: str | None, measured: StageFacts, method: str) -> None:
    choice = choose_method({"purpose": purpose}, measured)
    assert choice.method == method
    assert [name for name, _ in choice.factors] == ["use", "resources", "accessibility", "testing"]
    assert all(text.endswith(".") for _, text in choice.factors)


def test_what_only_an_adapter_has_settles_the_method() -> None:
    choice = method_choice(stage(method="auto", purpose="knowledge", dora=True), facts(tokens=10**9))
    assert choice is not None and choice.method == "lora"
    assert "dora" in choice.closed["full"] and "dora" in dict(choice.factors)["accessibility"]


def test_a_job_that_names_its_method_is_asked_nothing() -> None:
    assert method_choice(stage(method="full"), facts()) is None


def test_auto_is_frozen_to_a_method_with_that_method_s_rate() -> None:
    auto = recipe("sft").freeze(stage(method="auto", purpose="knowledge"), facts(tokens=10**6))
    assert auto.params["method"] == "full"
    full = recipe("sft").freeze(stage(method="full", purpose="knowledge"), facts(tokens=10**6))
    assert auto.params == full.params


@pytest.mark.parametrize("kind", ["sft", "pretrain"])
def test_full_tuning_of_a_large_model_is_refused_unless_asked_for_by_name(kind: str) -> None:
    params: dict[str, Any] = {"method": "full"} if kind == "sft" else {}
    large = facts(params=7_000_000_000)
    with pytest.raises(InvalidInput) as caught:
        recipe(kind).freeze(stage(kind, **params), large)
    assert caught.value.code == "full.too_large"
    assert "lora" in caught.value.why.next_step
    assert caught.value.why.evidence["upload_bytes_per_shard"] == "21000000000"
    assert caught.value.why.evidence["worker_memory_bytes"] == "112000000000"
    assert recipe(kind).freeze(stage(kind, **params, allow_large=True), large).params["allow_large"]


@pytest.mark.parametrize("key", ["dora", "rslora"])
@pytest.mark.parametrize("method", ["full", "partial"])
def test_an_adapter_s_own_keys_are_refused_elsewhere(key: str, method: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        recipe("sft").freeze(stage("sft", 4, method=method, **{key: True}), facts())
    assert (caught.value.code, caught.value.why.evidence["key"]) == ("sft.lora_only", f"params.{key}")


@pytest.mark.parametrize(("key", "value"), [("train_head", True), ("last_layers", 3), ("train_final_norm", False)])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_keys_of_the_last_layers_are_refused_elsewhere_and_left_to_auto(key: str, value: Any, method: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        recipe("sft").freeze(stage("sft", 4, method=method, **{key: value}), facts())
    assert (caught.value.code, caught.value.why.evidence["key"]) == ("sft.partial_only", f"params.{key}")
    automatic = stage("sft", 4, method="auto", **{key: value})
    assert recipe("sft").freeze(automatic, facts()).params["method"] == "lora"
    assert with_method(automatic, facts(), "partial").params[key] == value


def test_a_warm_up_that_would_never_end_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        recipe("sft").freeze(stage("sft", 4, warmup_steps=1000), facts())
    assert (caught.value.code, caught.value.why.evidence["key"]) == ("warmup.too_long", "params.warmup_steps")


def test_sizes_are_told_in_a_unit_that_fits_them() -> None:
    choice = method_choice(stage("sft", 4, method="auto"), facts(44_000))
    assert choice is not None and "about 880 kB on each worker and send 132 kB up" in dict(choice.factors)["resources"]


def test_freezing_a_needs_an_adapter() -> None:
    with pytest.raises(InvalidInput) as caught:
        recipe("pretrain").freeze(stage("pretrain", merge="ffa", preset="tiny-1m"), facts())
    assert caught.value.code == "merge.needs_lora"


def test_patience_needs_held_out_rows() -> None:
    with pytest.raises(InvalidInput) as caught:
        recipe("sft").freeze(stage(patience=2), facts())
    assert caught.value.code == "patience.needs_eval"


def test_batches_left_to_us_grow_with_the_model_and_shrink_with_shards_and_rows() -> None:
    def rows_of(kind: str, measured: StageFacts, **changes: Any) -> int:
        frozen = recipe(kind).freeze(stage(kind, batch_size="auto", **changes), measured)
        assert frozen.params["micro_batch_size"] == frozen.params["batch_size"]
        return int(frozen.params["batch_size"])

    assert rows_of("pretrain", facts(), preset="tiny-1m") == 32
    assert rows_of("pretrain", facts(), preset="tiny-1m", shards=8) == 16
    assert rows_of("pretrain", facts(4_000_000), preset="small-3m") == 64
    assert rows_of("sft", facts()) == 8
    assert rows_of("sft", facts(rows=120)) == 3
    assert rows_of("sft", facts(rows=3)) == 1


def test_what_was_left_to_us_is_told_with_its_reason() -> None:
    kind = recipe("sft")
    assert isinstance(kind, LearningRecipe)
    told = {key: (value, why) for key, value, why in kind.chosen(stage(batch_size="auto", max_length=64), facts())}
    assert set(told) == {"learning_rate", "final_rate", "warmup_steps", "batch_size", "weight_decay", "beta2"}
    assert told["learning_rate"][0] == "0.0202" and "lora" in told["learning_rate"][1]
    assert told["learning_rate"][1].endswith("times 2.52 as 4 shards are averaged") and told["final_rate"][0] == "0.5"
    assert told["warmup_steps"] == ("2", "10 % of 20 steps")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_size_that_it_is_named_for(name: str) -> None:
    named = name.rsplit("-", 1)[-1]
    size = float(named[:-1]) * {"m": 1e6, "b": 1e9}[named[-1]]
    assert abs(preset_params(name, PRESETS[name].vocab) / size - 1) <= 0.10
