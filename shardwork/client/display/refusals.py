"""What a stage's model refuses, and what its base refused, as a sentence. Used by `job show` and by both reports."""

from __future__ import annotations

from ..results import Stage

_ASKS = (("harmful", "harmful requests"), ("harmless", "harmless ones that sound harmful"), ("plain", "plain ones"))


def refusals(stage: Stage) -> str:
    """Of the few prompts of the safety set; empty where nobody asked them."""
    known = stage.safety
    parts = [
        f"{known[f'{ask}.refused_after']:.0f} of {known[f'{ask}.asked']:.0f} {name} "
        f"(its base {known[f'{ask}.refused_before']:.0f})"
        for ask, name in _ASKS
        if {f"{ask}.{each}" for each in ("asked", "refused_before", "refused_after")} <= set(known)
    ]
    return f"{stage.name} refuses {', '.join(parts)}" if parts else ""
