"""Agreeing: phase `join` of consensus: votes of several stages become verdicts, preference rows and a report.

Reads what stages wrote of people's and a judge's votes; every figure is `shardwork.feedback`'s. Runs in the operator's
executor, without numpy. Called by the recipe consensus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import InvalidInput
from ....feedback.blending import Blend
from ....feedback.consensus import Verdict
from ....feedback.pooling import Item, Pool, pooled, read_items
from ....feedback.report import Costs, Judged, judged, report
from ....feedback.votes import Origin, Vote, read, write
from ...base import Computed, Context
from ..consensus_orders import ConsensusOrder
from ..guards.wins import win_metrics
from .items import FILE as ITEMS
from .items import write_items
from .preference import preference_row

VOTES = "votes.jsonl"


def join(order: ConsensusOrder, context: Context) -> Computed:
    """Raises InvalidInput "votes.*" and "consensus.no_pairs"."""
    sources = [_source(context.inputs[f"data-{place}" if place else "data"]) for place in range(order.sources)]
    pool = pooled(sources)
    if not pool.votes:
        raise InvalidInput(
            "consensus.no_pairs",
            "No vote is about two different answers that are known.",
            next_step="Name the votes of stages that compare answers.",
            key="data",
        )
    context.progress(0.3)
    found = judged(pool, order.rule, Blend(people=order.people, judge=order.judge, conflict=order.conflict))
    context.progress(0.6)
    told = report(found, _costs(order, [votes for votes, _ in sources]))
    rows, votes, figures = (context.output(name) for name in ("rows", "votes", "report"))
    kept = _write_lines(rows / "preferences.jsonl", preferences(found, order.least_confidence))
    with (votes / VOTES).open("w", encoding="utf-8") as sink:
        sink.writelines(write(pool.votes))
    write_items(votes, _items(pool))
    text = json.dumps({**told, "rows": kept}, ensure_ascii=False, indent=1, sort_keys=True)
    (figures / "report.json").write_text(text, encoding="utf-8")
    context.progress(1.0)
    return Computed(
        outputs={"rows": rows, "votes": votes, "report": figures},
        metrics=_metrics(told, kept) | win_metrics(pool.votes),
    )


def preferences(found: Judged, least_confidence: float = 0.5) -> Iterator[dict[str, Any]]:
    """Rows to learn from, of every verdict that prefers an answer with words."""
    for one in found.verdicts:
        if one.is_preference and one.confidence >= least_confidence:
            row = _preferred(one, found.pool.items[one.item])
            if row is not None:
                yield row


# ---- inside -------------------------------------------------------------------------------------------------------


def _source(folder: Path) -> tuple[list[Vote], dict[str, Item]]:
    with (folder / VOTES).open(encoding="utf-8") as lines:
        votes = list(read(lines, VOTES))
    with (folder / ITEMS).open(encoding="utf-8") as lines:
        return votes, dict(read_items(lines, ITEMS))


def _preferred(one: Verdict, item: Item) -> dict[str, Any] | None:
    chosen, rejected = (item.texts[place] for place in one.positions)
    if not chosen.strip():
        return None
    named = {"prompt_id": one.prompt_id, "confidence": round(one.confidence, 6), "votes": one.votes}
    return preference_row(item.prompt, chosen, rejected, **named)


def _items(pool: Pool) -> Iterator[dict[str, Any]]:
    """Models are said by votes: the same words may be several models'."""
    for name, item in pool.items.items():
        answers = [{"model": "", "text": text} for text in item.texts]
        yield {"item": name, "prompt_id": item.prompt_id, "prompt": item.prompt, "answers": answers}


def _costs(order: ConsensusOrder, sources: list[list[Vote]]) -> Costs:
    """What a stage cost is that side's whose votes it has."""
    spent, took_ms = Costs(), order.took_ms or (0,) * len(sources)
    for votes, msat, ms in zip(sources, order.spent_msat, took_ms, strict=True):
        is_judge = bool(votes) and votes[0].source is Origin.JUDGE
        spent += Costs(judge_msat=msat, judge_ms=ms) if is_judge else Costs(people_msat=msat, people_ms=ms)
    return spent


def _metrics(told: dict[str, Any], kept: int) -> dict[str, float]:
    found = {name: float(told[name]) for name in ("votes", "unknown", "pairs")} | {"rows": float(kept)}
    agrees, alpha = told["agreement"]["judge_with_people"], told["agreement"]["people_alpha"]
    if agrees is not None:
        found["judge_agrees"] = agrees["value"]
    if alpha is not None and alpha["value"] is not None:
        found["alpha"] = alpha["value"]
    return found


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as sink:
        for row in rows:
            sink.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count
