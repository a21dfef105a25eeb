"""Length control: verdicts less what the lengths of the two answers explain.

The method of length-controlled AlpacaEval (Dubois, Galambosi, Liang and Hashimoto, arXiv 2404.04475, section 3): a
logistic regression of the judge's preference on who answered and on tanh of the standardised difference of lengths;
then the second term is set to zero. Their third term, how hard a prompt is, is left out: a stage asks each once or
twice. Owns the fit; pure and without chance. Called by `verdicts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
#: keeps the fit finite where a term decides every verdict (ridge, in units of verdicts)
RIDGE = 1.0
MOST_STEPS = 50
#: fewer verdicts tell nothing about length
LEAST_PAIRS = 20
#: probabilities are held this far from 0 and 1, where their log-odds have no end
EDGE = 1e-4


def length_terms(first: Sequence[int], second: Sequence[int]) -> Values:
    """tanh of each difference of lengths over their deviation; zeros where none differ."""
    difference = np.array(first, np.float64) - np.array(second, np.float64)
    deviation = float(difference.std())
    return np.tanh(difference / deviation) if deviation > 0 else np.zeros_like(difference)


def fitted_length(preferred: Values, terms: Values, models: Sequence[tuple[str, str]]) -> float:
    """How much the log-odds of the first answer rise by its length term, beside who gave the two answers.

    `preferred`: probability that the first is better. 0 where there are too few verdicts.
    """
    if len(preferred) < LEAST_PAIRS or not terms.any():
        return 0.0
    names = sorted({name for pair in models for name in pair})
    place = {name: at for at, name in enumerate(names)}
    given = np.zeros((len(preferred), len(names) + 1))
    for row, (one, other) in enumerate(models):
        given[row, place[one]] += 1
        given[row, place[other]] -= 1
    given[:, -1] = terms
    return float(_logistic(given, np.clip(preferred, EDGE, 1 - EDGE))[-1])


def _logistic(given: Values, wanted: Values) -> Values:
    """Newton's method on the penalised likelihood, which is convex: the same numbers each time."""
    found = np.zeros(given.shape[1])
    penalty = RIDGE * np.eye(given.shape[1])
    for _ in range(MOST_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(given @ found, -30, 30)))
        slope = given.T @ (wanted - chance) - RIDGE * found
        bend = (given * (chance * (1 - chance))[:, None]).T @ given + penalty
        step = np.linalg.solve(bend, slope)
        found += step
        if float(np.abs(step).max()) < 1e-9:
            break
    return found


def controlled(preferred: Values, terms: Values, weight: float) -> Values:
    """The probabilities with answers of one length."""
    held = np.clip(preferred, EDGE, 1 - EDGE)
    odds = np.log(held / (1 - held)) - weight * terms
    return 1 / (1 + np.exp(-odds))
