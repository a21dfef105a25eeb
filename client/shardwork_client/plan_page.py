"""The plan as a person reads it before paying: data, the rows as the model sees them, price with its cap, time, bytes.

Pure: a plan in, a renderable out. Used by `job plan` (stdout) and `job submit` (stderr, before it asks).
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.facts import StageMeasure
from shardwork.client.plan import Plan

from .data_page import packing_text, preview_of, sources_table, tokens_text
from .methods_page import methods
from .price_page import Phases, Price
from .render import clean, pairs, why_block

ROWS_SHOWN = 2


def page(plan: Plan) -> RenderableType:
    """The whole plan."""
    stages = plan.measured.stages
    parts: list[RenderableType] = [_head(plan)]
    for stage in stages:
        parts += [Text(""), _stage(stage, named=len(stages) > 1)]
        if stage.choice is not None:
            parts += [Text(""), methods(stage.choice, plan.options_of(stage.stage.name))]
        preview = preview_of(stage.report, limit=ROWS_SHOWN) if stage.report else None
        if preview is not None:
            parts += [Text(""), preview]
    parts += [Text(""), Text("price", style="bold"), Price(plan)]
    if plan.quote.phases:
        parts += [Text(""), Phases(plan.quote)]
    parts += [Text(""), _effort(plan)]
    for warning in plan.warnings:
        parts += [Text(""), why_block(warning, mark="!", style="bold yellow")]
    return Group(*parts)


def _head(plan: Plan) -> Text:
    spec, quote = plan.measured.loaded.spec, plan.quote
    counts = [(len(spec.stages), "stage"), (quote.rounds, "round"), (quote.shards, "shard")]
    texts = [f"{figures.count(number)} {word}{'s' if number != 1 else ''}" for number, word in counts]
    if len(spec.stages) == 1:
        texts[0] = spec.stages[0].recipe
    return Text.assemble((clean(spec.name), "bold"), f"  {' · '.join(texts)}")


def _stage(stage: StageMeasure, *, named: bool) -> RenderableType:
    rows: list[tuple[str, RenderableType]] = [("data", _data(stage))]
    if stage.report is not None and (len(stage.report.sources) > 1 or stage.stage.weights):
        rows.append(("sources", sources_table(stage.report)))
    if stage.report is not None and stage.report.eval_rows:
        rows.append(("held out", f"{figures.count(stage.report.eval_rows)} rows; no worker that learns gets them"))
    if stage.report is not None and stage.report.packing is not None and stage.stage.recipe == "sft":
        rows.append(("packing", packing_text(stage.report.packing)))
    model = _model(stage)
    if model:
        rows.append(("model", model))
    if stage.stage.continue_from is not None:
        rows.append(("continues", continues(stage)))
    rows += [(key, f"{value}: {why}") for key, value, why in stage.chosen]
    if stage.stage.run_if is not None:
        gate = stage.stage.run_if
        share = f" by {100 * gate.improved_by:g} %" if gate.improved_by else ""
        told = f"{gate.stage} did better on what is held out{share}; else skipped, and its share returns"
        rows.append(("runs if", told))
    facts = pairs(rows)
    if not named:
        return facts
    head = Text.assemble((stage.stage.name, "bold"), (f"  {stage.stage.recipe}", "dim"))
    return Group(head, facts)


def _data(stage: StageMeasure) -> str:
    facts, report = stage.facts, stage.report
    if report is None:
        sources = ", ".join(stage.stage.data_paths)
        return f"{sources}: {figures.count(facts.rows)} rows, {figures.count(facts.tokens)} tokens"
    return f"{figures.count(facts.rows)} rows of {stage.format}; tokens: {tokens_text(report)}"


def _model(stage: StageMeasure) -> str:
    if stage.model is None:
        return ""
    learned = figures.parameters(stage.facts.trained_params)
    size = figures.parameters(stage.facts.run_params)
    source = stage.stage.base_model or f"from scratch, preset {stage.stage.params.get('preset')}"
    if not stage.method:
        return f"{source}: {stage.model.model_type}, {size} parameters"
    return f"{source}: {stage.model.model_type}, {size} parameters, of which {learned} learn ({stage.method})"


def continues(stage: StageMeasure) -> str:
    """From which checkpoint, and what of it goes on as far as that is known before it begins."""
    parent = stage.parent
    if parent is None:
        return f"{stage.stage.continue_from}: weights, and Adam's moments where the method is the same"
    kept = f"weights and Adam's moments after {parent.adam_step:,} steps" if stage.keeps_moments else "weights only"
    return f"{stage.stage.continue_from}: {kept}"


def _effort(plan: Plan) -> RenderableType:
    quote = plan.quote
    time = figures.span(figures.duration(quote.seconds_low), figures.duration(quote.seconds_high))
    if any(stage.stage.recipe == "people" for stage in plan.measured.stages):
        time += "; and the time that people take"
    upload = sum(stage.facts.input_bytes for stage in plan.measured.stages)
    per_shard = f"{figures.size(quote.upload_bytes_per_shard)} up, {figures.size(quote.download_bytes_per_shard)} down"
    return pairs([("time", time), ("per shard", per_shard), ("your upload", figures.size(upload))])
