"""What a stage's model knows by heart, as a sentence. Used by the report in a terminal and as a document."""

from __future__ import annotations

from ..results import Stage

_SIDES = (("train", "training rows"), ("held_out", "held-out rows"))


def memorised(stage: Stage) -> str:
    """What it gives back word for word, beside what it could only guess; empty where nobody asked."""
    known = stage.memorised
    parts = [
        f"{known[f'{side}.reproduced']:.0f} of {known[f'{side}.rows']:.0f} {name} (longest run "
        f"{known[f'{side}.longest_run']:.0f} tokens)"
        for side, name in _SIDES
        if {f"{side}.{each}" for each in ("rows", "reproduced", "longest_run")} <= set(known)
    ]
    return f"{stage.name} knows by heart: {', '.join(parts)}" if parts else ""
