"""What `--json` prints of job files and plans: what was read and measured on this machine, beside the quote.

The key names are a contract, as in `views`. Pure.
"""

from __future__ import annotations

from shardwork.client.facts import StageMeasure
from shardwork.client.plan import MethodOption, Plan
from shardwork.jobs.file import LoadedJob
from shardwork.jobs.spec import JobSpec, StageSpec
from shardwork.recipes import recipe
from shardwork.recipes.method import MethodChoice

from .views import Json, quote_json, why_json


def summary(spec: JobSpec) -> str:
    """ "tutor: sft, 4 rounds of 4 shards" or "tutor: 2 stages (pretrain, sft)"."""
    if len(spec.stages) > 1:
        return f"{spec.name}: {len(spec.stages)} stages ({', '.join(stage.name for stage in spec.stages)})"
    stage = spec.stages[0]
    rounds, shards = recipe(stage.recipe).learn_rounds(stage), stage.plan.shards_per_round
    many = f"{rounds} round{'s' if rounds != 1 else ''} of {shards} shard{'s' if shards != 1 else ''}"
    return f"{spec.name}: {stage.recipe}, {many}"


def validation_json(loaded: LoadedJob) -> Json:
    spec = loaded.spec
    return {
        "valid": True,
        "name": spec.name,
        "stages": [_valid_stage(stage) for stage in spec.stages],
        "budget_msat": spec.budget.max_sats * 1000,
        "errors": [],
        "warnings": [problem.to_json() for problem in loaded.warnings],
    }


def _valid_stage(stage: StageSpec) -> Json:
    continues = {"continue_from": stage.continue_from} if stage.continue_from else {}
    return {"name": stage.name, "recipe": stage.recipe, **continues}


def plan_json(plan: Plan) -> Json:
    """`job plan --json`."""
    stages = plan.measured.stages
    return {
        "name": plan.measured.loaded.spec.name,
        **quote_json(plan.quote),
        "detected_format": ", ".join(dict.fromkeys(stage.format for stage in stages if stage.format)),
        "rows": sum(stage.facts.rows for stage in stages if stage.is_local),
        "tokens": sum(stage.facts.tokens for stage in stages if stage.is_local),
        "budget_msat": plan.measured.budget_msat,
        "available_msat": plan.available_msat,
        "warnings": [why_json(warning) for warning in plan.warnings],
        "stages": [_stage_json(stage, plan.options_of(stage.stage.name)) for stage in stages],
    }


def _stage_json(measured: StageMeasure, options: list[MethodOption]) -> Json:
    facts, report = measured.facts, measured.report
    enough = report.sufficiency if report else None
    gate = measured.stage.run_if
    return {
        "name": measured.stage.name,
        "recipe": measured.stage.recipe,
        "rows": facts.rows,
        "tokens": facts.tokens,
        "eval_rows": report.eval_rows if report else None,
        "run_params": facts.run_params,
        "trained_params": facts.trained_params,
        "input_bytes": facts.input_bytes,
        "format": measured.format or None,
        "sources": [source.to_json() for source in report.sources] if report else [],
        "sufficiency": enough.to_json() if enough else None,
        "packing": report.packing.to_json() if report and report.packing else None,
        "run_if": gate.model_dump() if gate else None,
        "continue_from": measured.stage.continue_from,
        "auto": [{"key": key, "value": value, "why": why} for key, value, why in measured.chosen],
        "method": _method_json(measured.choice, options) if measured.choice else None,
    }


def _method_json(choice: MethodChoice, options: list[MethodOption]) -> Json:
    """Why `method: auto` became what it is, and what each method would take."""
    return {
        "chosen": choice.method,
        "factors": dict(choice.factors),
        "options": [
            {
                "method": each.method,
                "closed": each.closed or None,
                "trained_params": each.trained_params,
                "trainable_share": each.share,
                "memory_bytes": each.memory_bytes,
                "upload_bytes_per_shard": each.up_bytes,
                "download_bytes_per_shard": each.down_bytes,
                "estimate_msat": each.cost_msat,
                "reserve_msat": each.reserve_msat,
            }
            for each in options
        ],
    }
