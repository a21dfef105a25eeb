"""Ratings: how strong each model is by the votes, after Bradley and Terry (1952), and who beats whom how often.

P(i beats j) = 1 / (1 + exp(strength j - strength i)). A tie, and two bad answers, are half a win for each (the usual
choice, as in Chatbot Arena, arXiv 2403.04132): a model of ties (Davidson 1970) would add a parameter that no figure
here uses. Each model also has a half win and a half loss against an opponent of strength 0, so that undefeated models
stay finite and models that never met are comparable, though barely. The posterior is then strictly concave and Newton's
method finds its one maximum in a few steps.

Intervals are sandwich estimates clustered by annotator and by prompt at once (Cameron, Gelbach and Miller 2011),
because votes of one person, and votes on one prompt, are alike; never narrower than those of independent votes. Unlike
a bootstrap they need no seed. `tests/shardwork/feedback/test_ratings.py` and `bench/ratings.py` measure that they
cover. Called by consensus, reports and dashboards.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul

from .intervals import Share, clustered, quantile
from .votes import Vote, Winner

#: games against an opponent of strength 0, half of them won
PRIOR_GAMES = 1.0
#: a rating of 1000 is the mean model; 400 more win ten games of eleven, as Elo's
ELO_MEAN, ELO_SCALE = 1000.0, 400 / math.log(10)
STEPS, CLOSE = 100, 1e-10
#: strengths beyond this are certainty, and exp would overflow far beyond
MOST_STEP = 3.0

Matrix = list[list[float]]
#: (one, other) -> wins of one over other; a tie is half a win for each
Wins = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    model: str
    #: log-odds against the mean model
    strength: float
    elo: float
    #: of the Elo rating
    low: float
    high: float
    votes: int
    #: wins and half of the ties, of its votes
    won: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often one model is better than another in their own comparisons."""

    model: str
    against: str
    wins: int
    losses: int
    ties: int
    #: wins and half of the ties
    rate: Share


def ratings(votes: Iterable[Vote]) -> list[Rating]:
    """Best first. Votes between answers of one model say nothing about it."""
    known = _sorted(votes)
    models = sorted({name for vote in known for name in (vote.model_a, vote.model_b)})
    if not models:
        return []
    strength = fit(models, wins_of(known))
    spread = _Spread(models, strength, known).deviations()
    return sorted(
        (_rating(model, strength[model], spread[model], known) for model in models),
        key=lambda one: (-one.strength, one.model),
    )


def win_rate(votes: Iterable[Vote], model: str, against: str) -> WinRate:
    """Of comparisons of these two, with an interval that knows that votes on one prompt are alike."""
    found = [
        (vote.prompt_id, vote.share_a if vote.model_a == model else 1 - vote.share_a)
        for vote in _sorted(votes)
        if {vote.model_a, vote.model_b} == {model, against} and model != against
    ]
    shares = [share for _, share in found]
    return WinRate(
        model=model,
        against=against,
        wins=shares.count(1.0),
        losses=shares.count(0.0),
        ties=shares.count(0.5),
        rate=clustered(found),
    )


def wins_of(votes: Iterable[Vote]) -> dict[tuple[str, str], float]:
    wins: defaultdict[tuple[str, str], float] = defaultdict(float)
    for vote in votes:
        wins[vote.model_a, vote.model_b] += vote.share_a
        wins[vote.model_b, vote.model_a] += 1 - vote.share_a
    return dict(wins)


def fit(models: Sequence[str], wins: Wins, prior_games: float = PRIOR_GAMES) -> dict[str, float]:
    """Strengths, their mean 0. Newton's method; a step is cut where it leaves what the quadratic describes."""
    place = {model: at for at, model in enumerate(models)}
    games = [(place[one], place[other], share) for (one, other), share in sorted(wins.items()) if one != other]
    strength = [0.0] * len(models)
    for _ in range(STEPS):
        slope, curve = _slope(strength, games, prior_games)
        step = _solved(curve, [[value] for value in slope])
        largest = max(abs(row[0]) for row in step)
        cut = min(1.0, MOST_STEP / largest) if largest else 1.0
        strength = [at + cut * row[0] for at, row in zip(strength, step, strict=True)]
        if largest < CLOSE:
            break
    mean = math.fsum(strength) / len(strength)
    return {model: strength[place[model]] - mean for model in models}


def chance(difference: float) -> float:
    """That who is stronger by this wins."""
    if difference < 0:
        return 1 - chance(-difference)
    return 1 / (1 + math.exp(-difference))


def _slope(
    strength: Sequence[float], games: Iterable[tuple[int, int, float]], prior: float
) -> tuple[list[float], Matrix]:
    """Of the log-posterior: its gradient, and minus its Hessian."""
    slope = [prior * (0.5 - chance(at)) for at in strength]
    curve = [[0.0] * len(strength) for _ in strength]
    for at, value in enumerate(strength):
        curve[at][at] = prior * chance(value) * chance(-value)
    for one, other, wins in games:
        win = chance(strength[one] - strength[other])
        slope[one] += wins * (1 - win)
        slope[other] -= wins * (1 - win)
        bend = wins * win * (1 - win)
        curve[one][one] += bend
        curve[other][other] += bend
        curve[one][other] -= bend
        curve[other][one] -= bend
    return slope, curve


def _solved(matrix: Matrix, right: Matrix) -> Matrix:
    """matrix^-1 right of a positive definite matrix, by elimination; its pivots never vanish."""
    rows = [[*row, *values] for row, values in zip(matrix, right, strict=True)]
    size = len(rows)
    for at in range(size):
        pivot = max(rows[at][at], 1e-300)
        rows[at] = [value / pivot for value in rows[at]]
        for other in range(size):
            factor = rows[other][at]
            if other != at and factor:
                rows[other] = [value - factor * mine for value, mine in zip(rows[other], rows[at], strict=True)]
    return [row[size:] for row in rows]


class _Spread:
    """How far each strength may lie off."""

    def __init__(self, models: Sequence[str], strength: Mapping[str, float], votes: Sequence[Vote]) -> None:
        self.models, self.votes = models, votes
        self.place = {model: at for at, model in enumerate(models)}
        games = [(self.place[one], self.place[other], share) for (one, other), share in wins_of(votes).items()]
        games = [(one, other, share) for one, other, share in sorted(games) if one != other]
        _, curve = _slope([strength[model] for model in models], games, PRIOR_GAMES)
        size = len(models)
        unit = [[float(row == column) for column in range(size)] for row in range(size)]
        self.inverse = self._centred(_solved(curve, unit))
        self.residual = [vote.share_a - chance(strength[vote.model_a] - strength[vote.model_b]) for vote in votes]

    def deviations(self) -> dict[str, float]:
        """Half of each interval's width, in log-odds."""
        people = self._within(lambda vote: vote.annotator)
        prompts = self._within(lambda vote: vote.prompt_id)
        both = self._within(lambda vote: (vote.annotator, vote.prompt_id))
        groups = min((count for count in (people[1], prompts[1]) if count > 1), default=2)
        found: dict[str, float] = {}
        for model, at in self.place.items():
            together = people[0][at] + prompts[0][at] - both[0][at]
            variance = max(together, people[0][at], prompts[0][at], self._alone(at))
            found[model] = quantile(groups) * math.sqrt(variance)
        return found

    def _alone(self, at: int) -> float:
        """The variance if all votes were independent."""
        return max(self.inverse[at][at] - math.fsum(row[at] for row in self.inverse) / len(self.models), 0.0)

    def _centred(self, inverse: Matrix) -> Matrix:
        """Strengths are measured against their mean: the rows of C inverse."""
        size = len(inverse)
        means = [math.fsum(row[column] for row in inverse) / size for column in range(size)]
        return [[value - mean for value, mean in zip(row, means, strict=True)] for row in inverse]

    def _within(self, cluster: Callable[[Vote], object]) -> tuple[list[float], int]:
        """Variances by the sums of scores in each cluster, and how many clusters there are; of one alone nothing is
        known."""
        sums: dict[object, list[float]] = {}
        for vote, residual in zip(self.votes, self.residual, strict=True):
            if vote.model_a != vote.model_b:
                score = sums.setdefault(cluster(vote), [0.0] * len(self.models))
                score[self.place[vote.model_a]] += residual
                score[self.place[vote.model_b]] -= residual
        groups = len(sums)
        if groups < 2:
            return [0.0] * len(self.models), groups
        factor = groups / (groups - 1)
        spread = [factor * math.fsum(sum(map(mul, row, score)) ** 2 for score in sums.values()) for row in self.inverse]
        return spread, groups


def _rating(model: str, strength: float, half: float, votes: Sequence[Vote]) -> Rating:
    mine = [vote for vote in votes if vote.model_a != vote.model_b and model in (vote.model_a, vote.model_b)]
    elo = ELO_MEAN + ELO_SCALE * strength
    return Rating(
        model=model,
        strength=strength,
        elo=elo,
        low=elo - ELO_SCALE * half,
        high=elo + ELO_SCALE * half,
        votes=len(mine),
        won=math.fsum(vote.share_a if vote.model_a == model else 1 - vote.share_a for vote in mine),
    )


def _sorted(votes: Iterable[Vote]) -> list[Vote]:
    """So that sums of floats, too, are the same in whatever order the rows come."""
    return sorted(votes, key=_key)


def _key(vote: Vote) -> tuple[str, str, str, str, str, Winner]:
    return vote.prompt_id, vote.item, vote.annotator, vote.model_a, vote.model_b, vote.winner
