"""Auditing: which rows of a shard another worker does again, and whether its numbers bear out what was claimed.

Rows are drawn after the shard's worker was bound to its result. What is repeated is a forward pass over the given
tokens: it gives the summed log-probability of an answer, which must be the one that was claimed, and with the draws
that the shard's seed fixes it says which token each position had to become (`draws`). So an answer of another model, a
cut or a replaced one, or one drawn some other way does not pass.

An auditor is believed only when it computes: what it must find is told to the coordinator alone. Scores and verdicts
are not shown to it (the claimed numbers fix the file's digest, so that the file holds nothing else); answers are, and
beside them the model's largest logits are asked for. Pure; used by the recipes whose shards are audited.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from ...tensors.columns import columns_id
from ...why import Why
from ..base import Finding, Reported, ShardPlan
from ..orders import Precision
from .orders import MOST_ROWS, AuditOrder, GenerateOrder, JudgeOrder, ScoreOrder

Audited = GenerateOrder | ScoreOrder | JudgeOrder
#: one row of so many is done again, and at least these
ONE_OF, LEAST_ROWS = 8, 2
#: what an honest auditor on another kind of machine may differ by: absolutely, and relatively; sums of
#: log-probabilities over an answer in nats, scores in the reward model's units, probabilities
TOLERANCE: Mapping[Precision, tuple[float, float]] = {Precision.FP32: (0.02, 2e-3), Precision.BF16: (0.5, 0.03)}
#: mean share of an answer's tokens that its draws must give. An auditor forgives a draw beside its token's border as
#: much as machines differ, so honest work has 1.0 and one replaced token is one too many; bf16: measured on CPUs only
LEAST_DRAWN: Mapping[Precision, float] = {Precision.FP32: 1.0, Precision.BF16: 0.9}
#: share of rows in which two copies of a shard must have the same numbers
LEAST_ALIKE = 0.75
#: an auditor's word that the answers cannot be read
UNREADABLE = "unreadable"
#: outputs that an auditor would only have to copy
HIDDEN = frozenset({"scores", "verdicts"})
#: of all answers, that an auditor counts in the file
COUNTED = ("tokens", "ended")


def plan_audit(of: Audited, done: ShardPlan, seed: bytes, draw: bytes) -> ShardPlan:
    """The shard that checks a sample of the rows of `done`."""
    rows = rows_of(of)
    few = min(rows, max(LEAST_ROWS, math.ceil(rows / ONE_OF)), MOST_ROWS)
    chosen = tuple(sorted(random.Random(draw).sample(range(rows), few)))
    order = AuditOrder(of=of, seed=seed.hex(), rows=chosen)
    return ShardPlan(
        index=done.index,
        order_json=order.canonical_json(),
        inputs={name: artifact for name, artifact in done.inputs.items() if name not in HIDDEN},
        work_units=math.ceil(done.work_units * few / rows),
        memory_bytes=done.memory_bytes,
        tokens=math.ceil(done.tokens * few / rows),
    )


def rows_of(of: Audited) -> int:
    """Rows whose numbers a result names."""
    match of:
        case GenerateOrder():
            return of.rows
        case ScoreOrder():
            return of.of.rows
        case JudgeOrder():
            return of.pairs


def names_of(of: Audited, row: int) -> tuple[str, ...]:
    """The metrics that a result names for a row, and an audit as well."""
    match of:
        case GenerateOrder():
            return (f"sum.{row}", f"peak.{row}")
        case ScoreOrder():
            return (f"score.{row}",)
        case JudgeOrder():
            return (f"first.{row}", f"second.{row}")


def check_audit(order: AuditOrder, reported: Reported) -> Finding:
    """The light check of an audit: the numbers that were asked for and no others."""
    if reported.outputs:
        return _refused("check.outputs", "An audit makes no output.", got=", ".join(sorted(reported.outputs)))
    if set(reported.metrics) == {UNREADABLE}:
        return Finding()
    finding = _check_names(reported.metrics, set(_wanted(order)))
    if finding.accepted and isinstance(order.of, GenerateOrder):
        return _check_counts(order.of, {**reported.metrics, "rows": order.of.rows})
    return finding


def check_claimed(of: Audited, reported: Reported, output: str, extra: frozenset[str]) -> Finding:
    """The light check of a result that will be audited: one output of one file, and its rows' numbers."""
    if set(reported.outputs) != {output} or set(reported.output_files[output]) != {f"{output}.safetensors"}:
        return _refused("check.outputs", f"This phase makes one output: {output}/{output}.safetensors.")
    wanted = {name for row in range(rows_of(of)) for name in names_of(of, row)} | extra
    finding = _check_names(reported.metrics, wanted)
    if not finding.accepted:
        return finding
    if isinstance(of, GenerateOrder):
        return _check_counts(of, reported.metrics)
    if reported.outputs[output] != _file_of(of, reported.metrics):
        return _refused("check.other_numbers", "The file holds other numbers than were reported with it.")
    if isinstance(of, JudgeOrder) and "tokens" in extra:
        return _check_read(of, reported.metrics["tokens"])
    return finding


def judge_audit(order: AuditOrder, claimed: Mapping[str, float], found: Mapping[str, float]) -> Finding:
    """Whether what an auditor found bears out what was claimed."""
    if UNREADABLE in found:
        return _refused("audit.unreadable", "Another worker could not read the result.")
    absolute, relative = TOLERANCE[order.of.precision]
    for row in order.rows:
        for name in names_of(order.of, row):
            there, here = claimed.get(name, math.inf), found.get(name, math.nan)
            if not abs(there - here) <= absolute + relative * abs(here):
                return _differ(name, there, here)
    return _judge_file(order, claimed, found) if isinstance(order.of, GenerateOrder) else Finding()


def alike(of: Audited, first: Mapping[str, float], late: Mapping[str, float]) -> bool:
    """Whether two workers' numbers are those of the same rows; a draw that falls to either side changes a whole row, so
    some may differ."""
    absolute, relative = TOLERANCE[of.precision]
    rows = rows_of(of)
    same = sum(
        all(abs(first[name] - late[name]) <= absolute + relative * abs(first[name]) for name in names_of(of, row))
        for row in range(rows)
    )
    return same >= LEAST_ALIKE * rows


def _wanted(order: AuditOrder) -> Iterator[str]:
    for row in order.rows:
        yield from names_of(order.of, row)
        if isinstance(order.of, GenerateOrder):
            yield from (f"drawn.{row}", f"told.{row}")
    if isinstance(order.of, GenerateOrder):
        yield from COUNTED


def _judge_file(order: AuditOrder, claimed: Mapping[str, float], found: Mapping[str, float]) -> Finding:
    """What only answers are asked: whether the seed drew them, and whether the file says of them what was reported."""
    for name in COUNTED:
        if claimed.get(name) != found.get(name):
            return _differ(name, claimed.get(name, math.nan), found.get(name, math.nan))
    for name in (f"told.{row}" for row in order.rows):
        if found.get(name) != 1:
            return _differ(name, 1.0, found.get(name, 0.0))
    drawn = sum(found.get(f"drawn.{row}", 0.0) for row in order.rows) / len(order.rows)
    if not drawn >= LEAST_DRAWN[order.of.precision]:
        sentence = "The answers are not the ones that the shard's seed draws from this model."
        return _refused("audit.not_drawn", sentence, drawn=f"{drawn:.3f}", rows=str(len(order.rows)))
    return Finding()


def _file_of(of: ScoreOrder | JudgeOrder, metrics: Mapping[str, float]) -> str:
    """The artifact that these numbers are."""
    output, told = ("scores", {"scores": "score"})
    if isinstance(of, JudgeOrder):
        output, told = ("verdicts", {"first": "first", "second": "second"})
    rows = range(rows_of(of))
    columns = {name: [metrics[f"{metric}.{row}"] for row in rows] for name, metric in told.items()}
    return columns_id(f"{output}.safetensors", columns)


def _check_counts(of: GenerateOrder, metrics: Mapping[str, float]) -> Finding:
    """An answer has at least one token, be it the one that ends it."""
    rows, tokens, ended = metrics["rows"], metrics["tokens"], metrics["ended"]
    if rows == of.rows and rows <= tokens <= rows * of.sampling.max_new_tokens and 0 <= ended <= rows:
        return Finding()
    told = {"rows": f"{rows:g}", "tokens": f"{tokens:g}", "ended": f"{ended:g}"}
    return _refused("check.metrics", "The counts of answers cannot be.", **told)


def _check_names(metrics: Mapping[str, float], wanted: set[str]) -> Finding:
    if missing := wanted - set(metrics):
        return _refused("check.metrics", "A metric of the phase is missing.", metric=min(missing))
    if extra := set(metrics) - wanted:
        return _refused("check.metrics", "A metric was not asked for.", metric=PurePosixPath(min(extra)).name[:80])
    odd = [name for name, value in metrics.items() if not math.isfinite(value)]
    odd += [
        name
        for name, value in metrics.items()
        if name.startswith(("drawn.", "told.", "first.", "second.")) and not 0 <= value <= 1
    ]
    odd += [name for name, value in metrics.items() if name.startswith("sum.") and value > 0]
    if odd:
        return _refused("check.metrics", "A metric cannot be.", metric=min(odd))
    return Finding()


def _check_read(of: JudgeOrder, tokens: float) -> Finding:
    """Each pair was read twice, and none is longer than it may be."""
    if not tokens.is_integer() or not 0 <= tokens <= 2 * of.pairs * of.max_length:
        return _refused("check.metrics", "A metric cannot be.", metric="tokens")
    return Finding()


def _differ(metric: str, claimed: float, found: float) -> Finding:
    sentence = "Another worker got other numbers for the same rows."
    return _refused("audit.numbers_differ", sentence, metric=metric, claimed=f"{claimed:.6g}", found=f"{found:.6g}")


def _refused(code: str, sentence: str, **evidence: str) -> Finding:
    return Finding(Why(code=code, sentence=sentence, evidence=evidence))
