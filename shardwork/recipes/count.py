"""Recipe `count`: word statistics of text, as a map stage. Needs no torch: proof that a shard need not train.

split (executor) cuts the lines into parts, map counts each part, join adds the parts up. A word is a run of letters,
digits or apostrophes, lower-cased.

A part's counts come from a worker that nobody vouches for. What `check` can't see, `join` meets: it reads nothing but
what an honest worker would have written about such a part, and counts the part itself where it finds anything else.
"""

from __future__ import annotations

import itertools
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
from .base import (
    Computed,
    Content,
    Context,
    Finding,
    PlanInput,
    Reported,
    RoundKind,
    ShardPlan,
    StageFacts,
    StageType,
    Unaudited,
)
from .orders import CountOrder, JoinOrder, SplitOrder
from .params import validate_params

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
MOST_DISTINCT = 2_000_000
MOST_WORDS = 1 << 50
#: of one part's counts.json, which the join reads whole
MOST_BYTES = 256 << 20
#: `"a": 1, ` is the shortest entry; the last has no comma, the braces take its place
LEAST_ENTRY_BYTES = 8
#: no part's counts take more than this many bytes for each of its own, and these
MOST_BYTES_A_BYTE, SPARE_BYTES = 8, 64
#: of one line of text: a file without line ends must not be read at once
MOST_LETTERS = 16 << 20
#: one entry as json.dumps writes it, and what follows
ENTRY = re.compile(rf'"({WORD.pattern})": ([1-9][0-9]{{0,14}})(, |}}\Z)')


class CountParams(BaseModel):
    """Parameters of `count`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top: Annotated[int, Field(ge=1, le=10_000, description="how many of the commonest words the report lists")] = 100


class Count(Unaudited):
    kind: ClassVar[str] = "count"
    stage_type: ClassVar[StageType] = StageType.MAP
    Params: ClassVar[type[BaseModel]] = CountParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        if (
            stage.base_model is not None
            or stage.continue_from is not None
            or stage.eval_data
            or stage.eval_fraction is not None
        ):
            raise InvalidInput(
                "count.not_learning",
                f"Stage {stage.name!r} counts words: base_model, continue_from, eval_data and eval_fraction mean "
                "nothing to it.",
                next_step="Remove them.",
                stage=stage.name,
            )
        if stage.weights:
            raise InvalidInput(
                "count.no_weights",
                f"Stage {stage.name!r} counts every word once: its data has no weights.",
                next_step="Remove the weights.",
                stage=stage.name,
                key="data",
            )
        return stage.model_copy(update={"params": validate_params(CountParams, stage).model_dump(mode="json")})

    def makes(self, stage: StageSpec) -> Mapping[str, Content]:
        return {"report": Content.TEXT}

    def learn_rounds(self, stage: StageSpec) -> int:
        return 1

    def phases(self, kind: RoundKind, artifacts: Mapping[str, str]) -> tuple[str, ...]:
        return ("split",) if kind is RoundKind.SETUP else ("map", "join")

    def plan(self, given: PlanInput) -> Sequence[ShardPlan]:
        if given.phase == "split":
            split = SplitOrder(parts=given.stage.plan.shards_per_round)
            return [_single(split.canonical_json(), {"data": given.artifacts["data"]})]
        if given.phase == "join":
            read = {name: value for name, value in given.artifacts.items() if name.startswith(("output-", "part-"))}
            return [_single(JoinOrder(recipe=self.kind).canonical_json(), read)]
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
        size = sum(reported.output_bytes.values())
        if size > MOST_BYTES:
            return Finding(Why(code="check.too_large", sentence="The counts are larger than any text's could be."))
        words, distinct = reported.metrics.get("words", -1.0), reported.metrics.get("distinct", -1.0)
        whole = set(reported.metrics) == {"words", "distinct"} and words.is_integer() and distinct.is_integer()
        # an empty file of counts is "{}", and there is a word exactly when there is a distinct one
        fits = (size, words) == (2, 0) if distinct == 0 else size >= LEAST_ENTRY_BYTES * distinct
        if not (whole and fits and 0 <= distinct <= min(words, MOST_DISTINCT) and words <= MOST_WORDS):
            return Finding(
                Why(
                    code="check.metrics",
                    sentence="The counts contradict each other.",
                    evidence={"words": str(words), "distinct": str(distinct), "bytes": str(size)},
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
            for number in itertools.count(1):
                line = lines.readline(MOST_LETTERS)
                if not line:
                    break
                if len(line) == MOST_LETTERS:
                    raise _bad_row("count.long_line", f"A line has {MOST_LETTERS:,} letters or more.", path, number)
                yield _row(line, path, number) if path.suffix == ".jsonl" and line.strip() else line.rstrip("\n")


def _row(line: str, path: Path, number: int) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, TypeError, LookupError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise _bad_row("count.bad_row", 'A row is not a JSON object with a "text".', path, number)
    return text


def _bad_row(code: str, sentence: str, path: Path, number: int) -> InvalidInput:
    return InvalidInput(code, sentence, next_step="Mend the file and submit it again.", file=path.name, line=number)


def _split(order: SplitOrder, context: Context) -> Computed:
    """Contiguous parts of nearly equal numbers of lines: line i goes to part i x parts : lines."""
    total = sum(1 for _ in _text_lines(context.inputs["data"]))
    if total == 0:
        raise InvalidInput("count.no_lines", "The data holds no line of text.", next_step="Check the files.")
    outputs = {f"part-{index}": context.output(f"part-{index}") for index in range(order.parts)}
    lines = _text_lines(context.inputs["data"])
    starts = [-(-index * total // order.parts) for index in range(order.parts + 1)]
    # one file at a time: a thousand parts are more than most systems let a process open
    for folder, (start, end) in zip(outputs.values(), itertools.pairwise(starts), strict=True):
        with (folder / "lines.txt").open("w", encoding="utf-8") as sink:
            sink.writelines(line.replace("\n", " ") + "\n" for line in itertools.islice(lines, end - start))
    size = sum(path.stat().st_size for path in context.inputs["data"].rglob("*") if path.is_file())
    return Computed(outputs=outputs, metrics={"rows": float(total), "input_bytes": float(size)})


def _count(context: Context) -> Computed:
    counts = _counted(context.inputs["part"], context)
    if len(counts) > MOST_DISTINCT:
        raise InvalidInput("count.too_many_words", "The part has too many distinct words.", distinct=len(counts))
    folder = context.output("counts")
    (folder / "counts.json").write_text(json.dumps(counts, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    return Computed(
        outputs={"counts": folder}, metrics={"words": float(counts.total()), "distinct": float(len(counts))}
    )


def _counted(part: Path, context: Context) -> Counter[str]:
    counts: Counter[str] = Counter()
    path = part / "lines.txt"
    size, seen = max(path.stat().st_size, 1), 0
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            counts.update(WORD.findall(line.lower()))
            seen += len(line)
            if number % 5_000 == 0:
                context.progress(min(seen / size, 1.0))
    return counts


def _join(context: Context) -> Computed:
    total: Counter[str] = Counter()
    recounted: list[int] = []
    for index in sorted(int(name.rpartition("-")[2]) for name in context.inputs if name.startswith("output-")):
        part = context.inputs[f"part-{index}"]
        counts = _believable(context.inputs[f"output-{index}"] / "counts.json", (part / "lines.txt").stat().st_size)
        if counts is None:
            recounted.append(index)
            counts = _counted(part, context)
        total.update(counts)
    ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    folder = context.output("report")
    report: dict[str, object] = {"words": total.total(), "distinct": len(total), "counts": dict(ranked)}
    if recounted:
        report["parts_recounted"] = recounted
    (folder / "counts.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    metrics = {"words": float(total.total()), "distinct": float(len(total)), "recounted": float(len(recounted))}
    return Computed(outputs={"report": folder}, metrics=metrics)


def _believable(path: Path, part_bytes: int) -> dict[str, int] | None:
    """A worker's counts, if some text of this size has them; None for anything else. Never given to a JSON parser: what
    a few bytes of it can become in memory has no bound."""
    try:
        if path.stat().st_size > min(MOST_BYTES, part_bytes * MOST_BYTES_A_BYTE + SPARE_BYTES):
            return None
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    counts: dict[str, int] = {}
    words, before, at = 0, "", 1
    while text != "{}":
        entry = ENTRY.match(text, at) if text.startswith("{") else None
        # in order, so that none comes twice
        if entry is None or entry[1] <= before or len(counts) == MOST_DISTINCT:
            return None
        counts[before := entry[1]] = int(entry[2])
        words, at = words + counts[before], entry.end()
        if words > part_bytes:
            return None
        if entry[3] != ", ":
            break
    return counts
