# pyright: standard
"""Claims: what the figures of cells must show, over seeds. Pure; called by `alignment` and its nightly test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

Runs = Mapping[str, Sequence[Mapping[str, float]]]

ACCURACY, WIN_RATE, GAIN, APART = 0.90, 0.70, 0.3, 0.05


@dataclass(frozen=True, slots=True)
class Claim:
    says: str
    cells: tuple[str, ...]
    holds: Callable[[Runs], bool]


def mean(runs: Runs, cell: str, figure: str) -> float:
    return fmean(run[figure] for run in runs[cell])


def least(runs: Runs, cell: str, figure: str) -> float:
    return min(run[figure] for run in runs[cell])


def _accurate(cell: str) -> Claim:
    return Claim(
        f"{cell}: accuracy on clean held-out pairs >= {ACCURACY:.0%}, of {NOISE_SAID}",
        (cell,),
        lambda runs: mean(runs, cell, "accuracy") >= ACCURACY,
    )


NOISE_SAID = "labels of which one in ten is wrong"


def _wins(cell: str) -> Claim:
    return Claim(
        f"{cell}: wins >= {WIN_RATE:.0%} against its start, every seed's interval above 50 %",
        (cell,),
        lambda runs: mean(runs, cell, "win_rate") >= WIN_RATE and least(runs, cell, "low") > 0.5,
    )


def _gains(cell: str) -> Claim:
    return Claim(
        f"{cell}: reward on held-out prompts rises by >= {GAIN:.1f} of 1, with every seed",
        (cell,),
        lambda runs: least(runs, cell, "gain") >= GAIN,
    )


def _as_good(many: str, one: str) -> Claim:
    return Claim(
        f"{many}: final reward within {APART:.0%} of {one}",
        (many, one),
        lambda runs: abs(mean(runs, many, "after") / mean(runs, one, "after") - 1) <= APART,
    )


def _caught(cell: str) -> Claim:
    return Claim(
        f"{cell}: audits refuse every lie and no honest shard",
        (cell,),
        lambda runs: all(run["caught"] == run["lies"] and run["accused"] == 0 for run in runs[cell]),
    )


CLAIMS: Sequence[Claim] = (
    *(_accurate(f"reward {method} {shards}") for method in ("full", "lora") for shards in (1, 4)),
    *(_wins(f"dpo {name}") for name in ("sigmoid full 1", "sigmoid lora 1", "ipo full 1", "orpo full 1", "kto full 1")),
    *(
        _gains(name)
        for name in ("grpo full 1", "grpo full 4", "rloo full 1", "ppo full 1", "grpo lora 1", "ppo lora 1")
    ),
    Claim(
        "ppo reward model 4: the utility that nobody told it rises, with every seed",
        ("ppo reward model 4",),
        lambda runs: all(run["utility_after"] > run["utility_before"] for run in runs["ppo reward model 4"]),
    ),
    _as_good("grpo full 4", "grpo full as one"),
    _as_good("ppo full 4", "ppo full as one"),
    Claim(
        "loop: three times around, the utility is never below its start, with every seed",
        ("loop",),
        lambda runs: least(runs, "loop", "least_rise") >= 0 and least(runs, "loop", "rise") > 0,
    ),
    *(_caught(f"lies {lie}") for lie in ("forged", "fitted", "scores")),
    Claim(
        "lies forged: answers that were not drawn from the checkpoint are left out when shards learn",
        ("lies forged",),
        lambda runs: all(run["left_out_rows"] >= 0.95 * run["made_up_rows"] for run in runs["lies forged"]),
    ),
)


def told(runs: Runs) -> list[tuple[str, bool]]:
    """Every claim whose cells were run, of how many seeds, and whether it holds."""
    return [
        (f"{claim.says} (seeds: {min(len(runs[cell]) for cell in claim.cells)})", bool(claim.holds(runs)))
        for claim in CLAIMS
        if all(runs.get(cell) for cell in claim.cells)
    ]


def table(runs: Runs) -> dict[str, dict[str, dict[str, float]]]:
    """{cell: {figure: mean, least, most, deviation, seeds}}."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for cell, those in runs.items():
        for figure in those[0]:
            values = [run[figure] for run in those]
            found.setdefault(cell, {})[figure] = {
                "mean": round(fmean(values), 4),
                "least": round(min(values), 4),
                "most": round(max(values), 4),
                "deviation": round(stdev(values), 4) if len(values) > 1 else 0.0,
                "seeds": len(values),
            }
    return found
