"""Aggregation: many shards' deltas become one step, offered in a few sizes, and the step becomes the next checkpoint.

    gates.py          opens each delta and refuses what is malformed, not finite or out of all proportion
    history.py        refuses a delta that is far from what the rounds before gave
    products.py       inner products of all pairs, for the rules that ask for them
    rule.py           the interface of a rule and the evidence that it judges by
    mean.py           the weighted mean
    screened_mean.py  drops outliers, then the weighted mean (the default from 4 shards on)
    norm_clip.py      shortens what is longer than the median
    centred_clip.py   shortens what is far from the centre
    multi_krum.py     leaves out what is far from its nearest others
    ordered.py        median.py, trimmed_mean.py: by coordinate, in order
    outer.py          the candidate outer steps
    merge.py          phase "merge": streams all of it over mapped files
    apply.py          phase "apply"

Runs in the operator's executor processes (`shardwork_coordinator.executor`), numpy only. A rule is one file and one
line in RULES. Which candidate wins is `machine.choice`.
"""

from __future__ import annotations

import difflib

from shardwork.errors import InvalidInput

from .centred_clip import CentredClip
from .mean import WeightedMean
from .median import Median
from .multi_krum import MultiKrum
from .norm_clip import NormClip
from .rule import Rule
from .screened_mean import ScreenedMean
from .trimmed_mean import TrimmedMean

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        WeightedMean(),
        ScreenedMean(),
        NormClip(),
        TrimmedMean(),
        Median(),
        MultiKrum(),
        CentredClip(),
    )
}


def rule_named(name: str) -> Rule:
    """Raises InvalidInput "aggregate.unknown_rule" naming the nearest one."""
    if name in RULES:
        return RULES[name]
    nearest = difflib.get_close_matches(name, RULES, n=1)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Known rules: {', '.join(sorted(RULES))}."
    raise InvalidInput("aggregate.unknown_rule", f"There is no aggregation rule called {name!r}.", next_step=hint)
