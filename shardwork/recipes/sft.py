"""Recipe `sft`: tune a base model on rows of text, messages or prompt and completion; loss only on the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from ..errors import InvalidInput
from ..jobs.spec import StageSpec
from .base import Content, StageFacts
from .learning import LearningRecipe
from .method import MethodChoice, choose_method
from .orders import Method, Tuning
from .params import LearningParams, validate_params

Layers = Annotated[str, Field(pattern=r"^(all|top:[1-9][0-9]{0,3})$")]
Index = Annotated[int, Field(ge=0, le=9999)]
#: what only an adapter has, with the value that asks for nothing
LORA_ONLY: Mapping[str, object] = {
    "layers": "all",
    "dropout": 0.0,
    "dora": False,
    "rslora": False,
    "base_bits": None,
}
#: the same of tuning the last layers
PARTIAL_ONLY: Mapping[str, object] = {"last_layers": 1, "train_final_norm": True, "train_head": False}


class TuningParams(LearningParams):
    """What tuning a model may set, whatever it learns from."""

    rank: Annotated[int, Field(ge=1, le=1024, description="lora: rank of the adapter")] = 8
    alpha: Annotated[int, Field(ge=1, le=4096, description="lora: scale; the update counts alpha : rank")] = 16
    target_modules: Annotated[
        str | Annotated[list[str], Field(min_length=1)],
        Field(description="lora: 'all-linear' (of a model of experts: the rest), or names of modules to adapt"),
    ] = "all-linear"
    layers: Annotated[
        Layers | list[Index],
        Field(description="lora: blocks that get an adapter: 'all', 'top:N' for the last N, or numbers from 0"),
    ] = "all"
    dropout: Annotated[
        float, Field(ge=0, le=0.9, description="lora: share of the adapter's inputs zeroed while learning")
    ] = 0.0
    dora: Annotated[bool, Field(description="lora: DoRA, magnitude and direction learn apart")] = False
    rslora: Annotated[bool, Field(description="lora: rsLoRA, the update counts alpha : sqrt(rank)")] = False
    base_bits: Annotated[
        Literal[4, 8] | None,
        Field(description="lora: the frozen base in 4 or 8 bits a weight; needs workers with CUDA and bitsandbytes"),
    ] = None
    last_layers: Annotated[int, Field(ge=1, le=1024, description="partial: how many of the last layers learn")] = 1
    train_final_norm: Annotated[bool, Field(description="partial: the final norm learns too")] = True
    train_head: Annotated[bool, Field(description="partial: the output head learns too, where it is not tied")] = False
    chat_template: Annotated[
        Literal["model", "chatml"],
        Field(description="'model': the base model's own; 'chatml': for a base that has none"),
    ] = "model"


class SftParams(TuningParams):
    """Parameters of `sft`."""

    method: Annotated[
        Literal["auto", "lora", "full", "partial"],
        Field(description="what learns: an adapter, all weights, or the last layers; the plan explains 'auto'"),
    ] = "lora"
    purpose: Annotated[
        Literal["test", "style", "knowledge"] | None, Field(description="method auto: what the tuning is for")
    ] = None
    train_on_prompt: Annotated[bool, Field(description="count the prompt's tokens in the loss as well")] = False


class Sft(LearningRecipe):
    kind: ClassVar[str] = "sft"
    Params: ClassVar[type[BaseModel]] = SftParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        if stage.base_model is None:
            raise InvalidInput(
                "sft.no_base_model",
                f"Stage {stage.name!r} tunes a model but names none.",
                next_step="Set base_model to a model folder, or to an earlier stage's `stage.model`.",
                stage=stage.name,
                key="base_model",
            )
        frozen = super().freeze(with_method(stage, facts), facts)
        if frozen.params["method"] != "lora":
            refuse(frozen, LORA_ONLY, "sft.lora_only", "an adapter's", "lora")
        if frozen.params["method"] != "partial":
            refuse(frozen, PARTIAL_ONLY, "sft.partial_only", "of tuning the last layers", "partial")
        return frozen

    def tuning(self, params: Mapping[str, Any], seed: str = "") -> Tuning:
        modules, layers = params["target_modules"], params["layers"]
        return Tuning(
            method=Method(params["method"]),
            rank=params["rank"],
            alpha=params["alpha"],
            target_modules=modules if isinstance(modules, str) else tuple(modules),
            last_layers=params["last_layers"],
            train_final_norm=params["train_final_norm"],
            train_head=params["train_head"],
            layers=layers if isinstance(layers, str) else tuple(layers),
            dropout=params["dropout"],
            dora=params["dora"],
            rslora=params["rslora"],
            base_bits=params["base_bits"],
            frozen_a_seed=seed or "0" * 64 if params["merge"] == "ffa" else "",
        )

    def published(self, params: Mapping[str, Any]) -> Content:
        return Content.ADAPTER if params.get("method", "lora") in ("lora", "auto") else Content.MODEL

    def auto_batch(self, stage: StageSpec, length: int, facts: StageFacts) -> int:
        """8 rows, or fewer where a round would read the rows more than once. Packed: full sequences of them."""
        steps = stage.plan.shards_per_round * stage.plan.inner_steps
        rows = facts.tokens // length if stage.params.get("packing") is True else facts.rows
        return min(8, max(rows // steps, 1)) if facts.rows else 8

    def auto_rate(self, params: Mapping[str, Any], facts: StageFacts) -> float:
        """LoRA takes eight times the rate of full tuning, and full tuning a quarter of pre-training's."""
        pretrain_rate = super().auto_rate(params, facts)
        return 2 * pretrain_rate if params["method"] == "lora" else pretrain_rate / 4


def method_choice(stage: StageSpec, facts: StageFacts) -> MethodChoice | None:
    """What `method: auto` means for this stage, and why; None where the job names its method."""
    params = validate_params(SftParams, stage).model_dump(mode="json")
    if params["method"] != "auto":
        return None
    own = tuple(key for key, nothing in {**LORA_ONLY, "merge": "mean"}.items() if params[key] != nothing)
    return choose_method(params, facts, own)


def with_method(stage: StageSpec, facts: StageFacts, method: str = "") -> StageSpec:
    """The stage with its method named: this one, or what `auto` chooses; as it is where the job named one."""
    choice = method_choice(stage, facts)
    if choice is None and not method:
        return stage
    named = method or (choice.method if choice else "")
    # keys for the case that the last layers are chosen have no meaning where they were not
    is_idle = choice is not None and named != "partial"
    kept = {key: value for key, value in stage.params.items() if not (is_idle and key in PARTIAL_ONLY)}
    return stage.model_copy(update={"params": {**kept, "method": named}})


def refuse(stage: StageSpec, own: Mapping[str, object], code: str, whose: str, method: str) -> None:
    """What would be without effect is refused, never ignored."""
    for key, nothing in own.items():
        if stage.params[key] != nothing:
            raise InvalidInput(
                code,
                f"Parameter {key!r} of stage {stage.name!r} is {whose}, but its method is {stage.params['method']!r}.",
                next_step=f"Use method: {method}, or leave {key} out.",
                stage=stage.name,
                key=f"params.{key}",
            )
