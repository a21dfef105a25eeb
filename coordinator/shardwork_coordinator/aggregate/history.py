"""History: how large the deltas of a stage's last rounds were, kept beside the outer momentum.

Of one delta or two no median tells which is out of proportion; the rounds before do. Owns `history.json` in the output
`outer`, which a round that is rolled back does not replace. Called by `merge`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from shardwork.errors import Corrupt

FILE = "history.json"
ROUNDS = 5
#: of the usual norm. A cosine's last round of four is a fifth of it, the second round of a long warm-up three times
RANGE = (0.05, 10.0)


def norms_before(outer: Path | None) -> tuple[float, ...]:
    """Median norms of the last merged rounds, oldest first; none before the first."""
    if outer is None:
        return ()
    try:
        return tuple(float(norm) for norm in json.loads((outer / FILE).read_text())["norms"])
    except FileNotFoundError:
        return ()  # written by a coordinator that kept no history
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Corrupt("aggregate.history", "The history of a stage's rounds cannot be read.") from error


def keep(outer: Path, before: Sequence[float], norms: Iterable[float]) -> None:
    """Adds a round whose kept deltas had these norms."""
    known = [*before, median(norms)][-ROUNDS:]
    (outer / FILE).write_text(json.dumps({"norms": known}))


def gate(norms: Mapping[int, float], before: Sequence[float]) -> dict[int, str]:
    """Delta number -> why it is refused. An exact zero is let through: honest work may find nothing to learn."""
    usual = median(before) if before else 0.0
    if usual == 0:
        return {}
    least, most = RANGE[0] * usual, RANGE[1] * usual
    return {index: "norm_history" for index, norm in norms.items() if norm != 0 and not least <= norm <= most}
