"""Choice: which candidate a round takes, and whether it is rolled back. Pure; called by `phases` after `evaluate`.

Candidates are compared on selection rows; the round is judged, and its loss reported, on other held-out rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardwork.why import Why

#: a rise up to this share of the loss, or this many standard errors, is noise
TOLERATED_RISE = 0.01
TOLERATED_ERRORS = 3.0
#: so many rollbacks one after the other stop the job
STOP_AFTER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    #: best candidate; empty when none has finite losses
    candidate: str
    #: its loss on test rows, nats a token
    test_loss: float | None
    #: the round's step is not taken
    rolled_back: bool
    #: the job should stop
    stop: bool
    why: Why


def choose(
    metrics: Mapping[str, float], candidates: Sequence[str], before: float | None, rollbacks_in_a_row: int
) -> Choice:
    """The candidate with the lowest finite selection loss; the first of equals.

    Rolled back when its test loss exceeds `before` (the checkpoint's own; None skips the comparison) by more than
    max(1 %, 3 standard errors), or when no candidate is finite. `rollbacks_in_a_row` counts the rounds before this one.
    """
    usable = [
        name for name in candidates if _finite(metrics, name, "selection_loss") and _finite(metrics, name, "test_loss")
    ]
    if not usable:
        why = _why(
            "round.not_finite", "No candidate step has a finite held-out loss.", candidates=", ".join(candidates)
        )
        return _rolled_back("", None, rollbacks_in_a_row, why)
    best = min(usable, key=lambda name: metrics[f"{name}.selection_loss"])
    loss = metrics[f"{best}.test_loss"]
    if before is None or not math.isfinite(before):
        return _taken(best, loss, _why("round.taken", f"Step {best!r} did best on selection rows.", test_loss=loss))
    error = metrics[f"{best}.test_se"] if _finite(metrics, best, "test_se") else 0.0
    limit = before + max(TOLERATED_RISE * abs(before), TOLERATED_ERRORS * error)
    evidence: dict[str, str | float] = {
        "candidate": best,
        "test_loss": loss,
        "before": before,
        "limit": limit,
        "standard_error": error,
    }
    if loss > limit:
        why = _why("round.loss_rose", "Held-out loss rose by more than chance explains.", **evidence)
        return _rolled_back(best, loss, rollbacks_in_a_row, why)
    return _taken(best, loss, _why("round.taken", f"Step {best!r} did best on selection rows.", **evidence))


def no_candidate(why: Why, rollbacks_in_a_row: int) -> Choice:
    """A round that has nothing to choose from."""
    return _rolled_back("", None, rollbacks_in_a_row, why)


def _finite(metrics: Mapping[str, float], candidate: str, name: str) -> bool:
    return math.isfinite(metrics.get(f"{candidate}.{name}", math.nan))


def _taken(candidate: str, loss: float, why: Why) -> Choice:
    return Choice(candidate=candidate, test_loss=loss, rolled_back=False, stop=False, why=why)


def _rolled_back(candidate: str, loss: float | None, before: int, why: Why) -> Choice:
    stop = before + 1 >= STOP_AFTER
    if stop:
        why = Why(
            code="round.rolled_back_twice",
            sentence=f"{before + 1} rounds in a row did not improve the model. {why.sentence}",
            evidence=why.evidence,
            next_step="Lower the learning rate or take fewer inner steps, then resume.",
        )
    return Choice(candidate=candidate, test_loss=loss, rolled_back=True, stop=stop, why=why)


def _why(code: str, sentence: str, **evidence: str | float) -> Why:
    shown = {key: value if isinstance(value, str) else f"{value:.4f}" for key, value in evidence.items()}
    return Why(code=code, sentence=sentence, evidence=shown)
