"""`method: auto`: LoRA, the last layers or all weights, chosen by four factors and explained.

The factors are the seed article's: intended use, resource availability, model accessibility, testing. Owns the rule and
its words, and the limit above which full tuning is refused. Pure; the client asks before a plan and puts the answer
into the job, so that it is frozen there; the coordinator asks only for a job that still says `auto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..jobs.spec import StageSpec
from .base import StageFacts

#: full tuning of more parameters is refused by default: at 7B a shard sends 21 GB up in int8, and a worker needs some
#: 112 GB for weights, gradients and moments
FULL_LIMIT = 1_500_000_000
#: data tokens a learning parameter should have before more than an adapter is worth its price: a rule of thumb, as
#: cautious as a tuning set is small beside what the base has read
FULL_TOKENS, PARTIAL_TOKENS = 0.1, 0.01
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (1000, "kB"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodChoice:
    method: str
    #: (factor, what it says here): use, resources, accessibility, testing
    factors: tuple[tuple[str, str], ...]
    #: method -> why it can't be chosen
    closed: Mapping[str, str]


def choose_method(params: Mapping[str, Any], facts: StageFacts, adapters_own: tuple[str, ...] = ()) -> MethodChoice:
    """The method for a stage with these (validated) params. `adapters_own`: params set that only an adapter has."""
    closed = _closed(params, facts, adapters_own)
    method, use = _by_use(params.get("purpose"), facts)
    if method in closed:
        method, use = "lora", f"{use} But: {closed[method]}"
    factors = (
        ("use", use),
        ("resources", _resources(facts)),
        ("accessibility", _accessibility(params, adapters_own)),
        ("testing", _testing(params.get("purpose"))),
    )
    return MethodChoice(method=method, factors=factors, closed=closed)


def check_full(stage: StageSpec, params: Mapping[str, Any], facts: StageFacts) -> None:
    """Raises InvalidInput "full.too_large" for more than FULL_LIMIT parameters, unless the job asks for it by name."""
    learns = facts.run_params if params.get("method", "full") == "full" else facts.trained_params
    if learns <= FULL_LIMIT or params.get("allow_large"):
        return
    raise InvalidInput(
        "full.too_large",
        f"Stage {stage.name!r} would train {learns / 1e9:.1f}B parameters, and above {FULL_LIMIT / 1e9:g}B that is "
        "refused by default.",
        next_step="Use method: lora. If every worker has the memory and the line for it, set params.allow_large: true.",
        stage=stage.name,
        key="params.method" if "method" in params else "params.allow_large",
        upload_bytes_per_shard=3 * learns,
        worker_memory_bytes=16 * learns,
    )


def _closed(params: Mapping[str, Any], facts: StageFacts, adapters_own: tuple[str, ...]) -> dict[str, str]:
    if adapters_own:
        why = f"{', '.join(adapters_own)} {'is' if len(adapters_own) == 1 else 'are'} an adapter's."
        return {"full": why, "partial": why}
    if facts.run_params > FULL_LIMIT and not params.get("allow_large"):
        size = f"{facts.run_params / 1e9:.1f}B"
        return {"full": f"full tuning of {size} parameters is refused by default (limit {FULL_LIMIT / 1e9:g}B)."}
    return {}


def _by_use(purpose: str | None, facts: StageFacts) -> tuple[str, str]:
    if purpose == "style":
        return "lora", "A style is a small change of what the base knows: an adapter holds it."
    if purpose == "test":
        return "lora", "A trial should be cheap and undone by leaving a file out: an adapter is."
    if purpose is None:
        return "lora", "No purpose was given: an adapter is enough for most tuning, at the least cost."
    share = facts.tokens / max(facts.run_params, 1)
    told = f"New knowledge needs more than an adapter; the rows hold {share:.3g} tokens for each parameter of the base"
    if share >= FULL_TOKENS:
        return "full", f"{told}, which is enough to move them all ({FULL_TOKENS:g})."
    if share >= PARTIAL_TOKENS:
        return "partial", f"{told}: enough for the last layers ({PARTIAL_TOKENS:g}), not for all ({FULL_TOKENS:g})."
    return "lora", f"{told}, too few for more than an adapter ({PARTIAL_TOKENS:g})."


def _resources(facts: StageFacts) -> str:
    whole = facts.run_params
    return (
        f"Full tuning would need about {_size(20 * whole)} on each worker and send {_size(3 * whole)} up a shard; an "
        f"adapter about {_size(4 * whole)} and a few hundredths of that."
    )


def _size(num_bytes: int) -> str:
    unit, name = next((unit, name) for unit, name in _UNITS if num_bytes >= unit or unit == 1000)
    return f"{num_bytes / unit:.3g} {name}"


def _accessibility(params: Mapping[str, Any], adapters_own: tuple[str, ...]) -> str:
    if params.get("base_bits"):
        return f"The base is read in {params['base_bits']} bits a weight, which cannot learn: only an adapter can."
    if adapters_own:
        return f"The job asks for what only an adapter has: {', '.join(adapters_own)}."
    return "The base's own weights are at hand, unquantised, so all three methods are open."


def _testing(purpose: str | None) -> str:
    if purpose == "test":
        return "Testing: LoRA first. If held-out loss improves, a stage with run_if goes on to full tuning by itself."
    return "Not sure yet? Test with LoRA and put full tuning behind run_if: it runs only if LoRA improved."
