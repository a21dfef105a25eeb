"""Orders: the frozen parameters of one shard, per phase. What the planner writes and `compute` reads.

An order holds everything a shard needs beside its inputs: nothing is `auto` here any more. They travel as canonical
JSON in the signed lease. Pure data, no torch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from .objectives import LearnObjective
from .order import Count, Decay, Finite, Length, Order, Rows, Size, Steps, Threads, Weight, added


class Method(StrEnum):
    LORA = "lora"
    FULL = "full"
    PARTIAL = "partial"


#: "all", "top:N", or the numbers of the blocks counted from 0
Layers = Annotated[str, Field(pattern=r"^(all|top:[1-9][0-9]{0,3})$")] | tuple[Count, ...]


class Tuning(Order):
    """Which parameters learn. For LoRA the base stays frozen and an adapter learns."""

    method: Method
    rank: Size = 8
    alpha: Size = 16
    #: "all-linear" or module names, as PEFT takes them
    target_modules: str | tuple[str, ...] = "all-linear"
    #: partial: the last N transformer blocks learn
    last_layers: Count = 1
    train_final_norm: bool = True
    #: partial: the output head learns too; refused by the worker when it is tied to the embedding
    train_head: bool = False
    #: lora: the transformer blocks that get an adapter
    layers: Layers = added("all")
    #: lora: share of an adapter's inputs that is zeroed while learning, drawn from the shard's seed
    dropout: Annotated[float, Field(ge=0, le=0.9)] = added(0.0)
    #: lora: magnitude and direction apart (Liu et al., arXiv 2402.09353)
    dora: bool = added(False)
    #: lora: the update counts alpha : sqrt(rank) (Kalajdzievski, arXiv 2312.03732)
    rslora: bool = added(False)
    #: lora, merge "ffa": hex; A is drawn from it and stays frozen, so that the mean of BA is exact (Sun et al., arXiv
    #: 2403.12313). Empty: A learns too
    frozen_a_seed: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = added("")
    #: lora, merge "ffa": A is the checkpoint's, whatever the seed draws, because the stage continues from another
    carried_a: bool = added(False)
    #: lora: the frozen base in so many bits a weight, where the device can; None: as it is
    base_bits: Literal[4, 8] | None = added(None)
    #: what stands on the last hidden state beside or in place of the output layer: "score", one number a row (a reward
    #: model, transformers' sequence classification with one label); "value", one number a token beside the logits
    head: Literal["", "score", "value"] = added("")


class Schedule(Order):
    """Learning rate by global step: linear warm-up, then the named shape down to min_ratio x learning_rate.

    "wsd" stays at the peak and falls in a line over the last fifth (Hägele et al., arXiv 2405.18392).
    """

    kind: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    learning_rate: Finite
    warmup_steps: Count = 0
    total_steps: Count
    min_ratio: Finite = 0.1


class Optimizer(Order):
    """AdamW."""

    beta1: Decay = 0.9
    beta2: Decay = 0.95
    eps: Finite = 1e-8
    weight_decay: Finite = 0.1
    clip_norm: Finite = 1.0


class Precision(StrEnum):
    FP32 = "fp32"
    #: bf16 autocast over fp32 master weights
    BF16 = "bf16"


class InitOrder(Order):
    """phase "init": inputs base, parent? -> outputs checkpoint; metrics trained_params, and with a parent
    continued_moments (0 or 1) and continued_step, Adam's step count that goes on.

    `from_scratch`: the base holds config and tokenizer, no weights.
    """

    tuning: Tuning
    from_scratch: bool
    #: the first checkpoint is the one that comes as input `parent`
    continues: bool = added(False)
    #: the checkpoint also has what never learns: a frozen A, the tokenizer of a model from scratch
    carries: bool = added(False)


class LearnOrder(Order):
    """phase "learn": inputs base, checkpoint, train -> output delta; metrics loss_first, loss_last, train_loss, tokens.

    Rows [first_row, first_row + steps x batch_size) modulo the number of rows, in stored order.
    """

    tuning: Tuning
    from_scratch: bool
    schedule: Schedule
    optimizer: Optimizer
    #: inner steps of the rounds before, also of those that were rolled back; the schedule is read at start_step + i
    start_step: Count
    steps: Steps
    first_row: Count
    batch_size: Rows
    micro_batch_size: Rows
    max_length: Length
    #: name in the encoding registry: "int8" | "bf16" | "fp32" (shardwork.tensors.encoding)
    encoding: str
    precision: Precision = Precision.FP32
    threads: Threads = 1
    #: each transformer block is computed twice instead of kept: less memory, a third more arithmetic, the same numbers
    gradient_checkpointing: bool = added(False)
    #: a row of `train` is a sequence of rows that do not see each other
    packed: bool = added(False)
    #: what is minimised; None: the next token. Of pairs a row here is a pair, of rollouts an answer; a policy reads the
    #: inputs prompts, answers and scores in the place of train, in an order drawn from the seed
    objective: LearnObjective | None = added(None)


class EvaluateOrder(Order):
    """phase "evaluate": inputs base, checkpoint, eval, step-<candidate>… -> metrics only.

    Metrics: "before.test_loss", and per candidate "<candidate>.selection_loss", "<candidate>.test_loss",
    "<candidate>.test_se" (standard error, over rows, of the rise from "before"); losses are nats a token.
    """

    tuning: Tuning
    from_scratch: bool
    candidates: tuple[str, ...]
    max_length: Length
    #: rows on the device at once; no more than learning took, or what was learned could not be measured
    batch_size: Rows = 16
    precision: Precision = Precision.FP32
    threads: Threads = 1
    #: what is measured; None: the next token. Pairs add "<candidate>.accuracy" and "<candidate>.calibration_error"
    objective: LearnObjective | None = added(None)


class PublishOrder(Order):
    """phase "publish": inputs base, checkpoint -> output model (HF folder, or PEFT adapter folder), and samples."""

    tuning: Tuning
    from_scratch: bool
    job_id: str
    job_name: str
    stage: str
    recipe: str
    #: what an adapter's base_model_name_or_path becomes: the job's own name for the base
    base_id: str
    #: facts for the model card, shown in order: [["rounds", "4"], …]
    card: tuple[tuple[str, str], ...]
    #: "model": the base's own chat template; a name: the template of ours that the rows were rendered with
    chat_template: str = "model"
    #: short prompts to sample from after reloading
    sample_prompts: tuple[str, ...] = ("",)
    threads: Threads = 1
    #: an adapter goes into its base's weights, so that the model stands alone
    merged: bool = added(False)
    #: the base and what is published are asked the prompts of `alignment.guards.safety`: metrics safety.*, and in
    #: samples safety.jsonl
    safety: bool = added(False)


class PrepareOrder(Order):
    """phase "prepare" (executor): inputs data, eval_data?, base?, parent? -> outputs train, eval?, skeleton?; metrics
    counts. `parent`: the checkpoint whose tokenizer a model from scratch keeps."""

    #: "pretrain": text packed to max_length; "sft": rows with a loss mask; "reward", "dpo": judged answers; "ppo",
    #: "grpo": prompts of at most max_length tokens (`alignment.phases`)
    recipe: str
    max_length: int
    eval_fraction: float | None
    eval_rows_max: int = 512
    seed: str  # hex; shuffles rows once
    #: pretrain from a preset: train a BPE tokenizer of this size and write config.json of the preset
    preset: str | None = None
    vocab_size: int | None = None
    #: sft on text rows, or completion-only loss
    train_on_prompt: bool = False
    #: "model", or the name of a template of ours for a base that has none
    chat_template: str = "model"
    #: `shardwork.dataset.lengths.layout`: what it means for the recipe
    packing: bool | Literal["auto"] = "auto"
    #: what happens to longer rows: `shardwork.dataset.lengths.Overlong`
    overlong: Literal["auto", "split", "truncate", "drop", "refuse"] = "auto"
    #: how often a pass reads each row of source 0, 1 …; sources beyond are read once
    weights: tuple[Weight, ...] = ()
    #: what will learn, so that the parameters that were declared can be counted again
    tuning: Tuning | None = None
    #: what a row is for a recipe of `alignment`: two answers to compare, one with a score or a label, or a prompt. Of
    #: pairs "labelled" makes two rows each. Empty: as the rows come
    rows_are: Literal["", "pairs", "scored", "labelled", "prompts"] = added("")
    #: prompts: keys that every row must have, because answers are graded by them
    row_keys: tuple[str, ...] = added(())


class SplitOrder(Order):
    """phase "split" (executor, map stages): inputs data -> outputs part-0 … part-(n-1), lines in order, none twice."""

    parts: int


class MergeOrder(Order):
    """phase "merge" (executor): inputs checkpoint, outer?, delta-0 … -> outputs step-<candidate>…, moments, outer."""

    rule: str  # a name in the coordinator's RULES
    #: inner steps each delta was ordered to take; one that says otherwise is refused
    steps: int
    #: planned tokens of each delta, the weights of the mean
    weights: tuple[int, ...]
    #: outer steps to offer to evaluation: names in the coordinator's CANDIDATES
    candidates: tuple[str, ...]
    encoding: str


class ApplyOrder(Order):
    """phase "apply" (executor): inputs checkpoint, step, moments -> output checkpoint (exactly as decoded)."""

    steps: int
    encoding: str


class JoinOrder(Order):
    """phase "join" (executor, map stages): inputs output-0 … -> output report or rows."""

    recipe: str


class CountOrder(Order):
    """phase "map" of recipe "count": input part -> output counts."""

    top: int
