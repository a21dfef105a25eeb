"""Recipe `count`: word statistics of text, as a map stage. Needs no torch: proof that a shard need not train.

split (executor) cuts the lines into parts, map counts each part, join adds the parts up. A word is a run of letters,
digits or apostrophes, lower-cased.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InvalidInput
from ..jobs.spec import StageSpec
from ..why import Why
from .base import Computed, Context, Finding, PlanInput, Reported, RoundKind, ShardPlan, StageFacts, StageType
from .learning import validate_params
from .orders import CountOrder, JoinOrder, SplitOrder

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
MOST_DISTINCT = 2_000_000
#: of one part's counts.json, which the join reads whole
MOST_BYTES = 256 << 20


class CountParams(BaseModel):
    """Parameters of `count`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top: Annotated[int, Field(ge=1, le=10_000, description="how many of the commonest words the report lists")] = 100


class Count:
    kind: ClassVar[str] = "count"
    stage_type: ClassVar[StageType] = StageType.MAP
    Params: ClassVar[type[BaseModel]] = CountParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        if stage.base_model is not None or stage.eval_data or stage.eval_fraction is not None:
            raise InvalidInput(
                "count.not_learning",
                f"Stage {stage.name!r} counts words: base_model, eval_data and eval_fraction mean nothing to it.",
                next_step="Remove them.",
                stage=stage.name,
            )
        return stage.model_copy(update={"params": validate_params(CountParams, stage).model_dump(mode="json")})

    def learn_rounds(self, stage: StageSpec) -> int:
        return 1

    def phases(self, kind: RoundKind, artifacts: Mapping[str, str]) -> tuple[str, ...]:
        return ("split",) if kind is RoundKind.SETUP else ("map", "join")

    def plan(self, given: PlanInput) -> Sequence[ShardPlan]:
        if given.phase == "split":
            split = SplitOrder(parts=given.stage.plan.shards_per_round)
            return [_single(split.canonical_json(), {"data": given.artifacts["data"]})]
        if given.phase == "join":
            outputs = {name: value for name, value in given.artifacts.items() if name.startswith("output-")}
            return [_single(JoinOrder(recipe=self.kind).canonical_json(), outputs)]
        order = CountOrder(top=given.stage.params["top"]).canonical_json()
        parts = given.stage.plan.shards_per_round
        units = given.facts.input_bytes // parts
        return [
            ShardPlan(
                index=index,
                order_json=order,
                inputs={"part": given.artifacts[f"part-{index}"]},
                work_units=units,
                memory_bytes=256 << 20,
            )
            for index in range(parts)
        ]

    def check(self, phase: str, order_json: str, reported: Reported) -> Finding:
        if set(reported.outputs) != {"counts"} or set(reported.output_files["counts"]) != {"counts.json"}:
            return Finding(Why(code="check.outputs", sentence="A count shard makes one output: counts/counts.json."))
        words, distinct = reported.metrics.get("words", -1.0), reported.metrics.get("distinct", -1.0)
        if sum(reported.output_bytes.values()) > MOST_BYTES:
            return Finding(Why(code="check.too_large", sentence="The counts are larger than any text's could be."))
        if not 0 <= distinct <= min(words, MOST_DISTINCT) or words > MOST_BYTES:
            return Finding(
                Why(
                    code="check.metrics",
                    sentence="The counts contradict each other.",
                    evidence={"words": str(words), "distinct": str(distinct)},
                )
            )
        return Finding()

    def compute(self, phase: str, order_json: str, context: Context) -> Computed:
        match phase:
            case "split":
                return _split(SplitOrder.model_validate_json(order_json), context)
            case "map":
                return _count(context)
            case "join":
                return _join(context)
            case _:
                raise InvalidInput("recipe.unknown_phase", f"Recipe 'count' has no phase {phase!r}.")


def _single(order_json: str, inputs: Mapping[str, str]) -> ShardPlan:
    return ShardPlan(index=0, order_json=order_json, inputs=inputs, work_units=0)


def _text_lines(folder: Path) -> Iterator[str]:
    """Every line of every file in name order; JSONL rows give their "text"."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                yield json.loads(line)["text"] if path.suffix == ".jsonl" and line.strip() else line.rstrip("\n")


def _split(order: SplitOrder, context: Context) -> Computed:
    """Contiguous parts of nearly equal numbers of lines: line i goes to part i x parts : lines."""
    total = sum(1 for _ in _text_lines(context.inputs["data"]))
    if total == 0:
        raise InvalidInput("count.no_lines", "The data holds no line of text.", next_step="Check the files.")
    outputs = {f"part-{index}": context.output(f"part-{index}") for index in range(order.parts)}
    sinks = [(folder / "lines.txt").open("w", encoding="utf-8") for folder in outputs.values()]
    try:
        for number, line in enumerate(_text_lines(context.inputs["data"])):
            sinks[number * order.parts // total].write(line.replace("\n", " ") + "\n")
    finally:
        for sink in sinks:
            sink.close()
    return Computed(outputs=outputs, metrics={"rows": float(total)})


def _count(context: Context) -> Computed:
    counts: Counter[str] = Counter()
    path = context.inputs["part"] / "lines.txt"
    size, seen = max(path.stat().st_size, 1), 0
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            counts.update(WORD.findall(line.lower()))
            seen += len(line)
            if number % 5_000 == 0:
                context.progress(min(seen / size, 1.0))
    if len(counts) > MOST_DISTINCT:
        raise InvalidInput("count.too_many_words", "The part has too many distinct words.", distinct=len(counts))
    folder = context.output("counts")
    (folder / "counts.json").write_text(json.dumps(counts, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    return Computed(
        outputs={"counts": folder}, metrics={"words": float(counts.total()), "distinct": float(len(counts))}
    )


def _join(context: Context) -> Computed:
    total: Counter[str] = Counter()
    for name in sorted(context.inputs, key=lambda text: int(text.rsplit("-", 1)[-1])):
        total.update(json.loads((context.inputs[name] / "counts.json").read_text(encoding="utf-8")))
    ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    folder = context.output("report")
    report = {"words": total.total(), "distinct": len(total), "counts": dict(ranked)}
    (folder / "counts.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    return Computed(outputs={"report": folder}, metrics={"words": float(total.total()), "distinct": float(len(total))})
