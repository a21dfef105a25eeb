# pyright: standard
"""Which token a draw gives, for many rows at once; and whether a token that is there is the one that its draw gives.

Owns the arithmetic that worker and auditor share: softmax(logits / temperature) in float64, cut to the smallest set
that holds top_p of it (tokens as likely as its last one are in it too), cumulated in the order of the vocabulary; the
first token whose cumulated share exceeds the draw. Whoever draws adds up block by block, which finds the same token in
a fraction of the time. Called by `generate` and `audit`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from shardwork.recipes.alignment.orders import Sampling
from shardwork.recipes.orders import Precision

#: tokens that are looked at before a whole vocabulary is sorted for its top_p
LIKELIEST = 128
#: an honest worker's other machine adds up other numbers: how far a draw may lie beyond its token's borders, and how
#: far below the likeliest token, in nats, one may lie that counts as the likeliest (temperature 0)
SLACK = {Precision.FP32: 1e-3, Precision.BF16: 0.05}
NATS = {Precision.FP32: 1e-3, Precision.BF16: 0.25}


@dataclass(frozen=True, slots=True)
class Spread:
    """Probabilities of the next token of each row, not yet divided by their sum."""

    #: float64 [rows, blocks, tokens of a block]; beyond the vocabulary 0
    weights: Tensor
    #: as `weights`, 0 outside of top_p
    kept: Tensor
    #: float64 [rows]: the largest of logits / temperature, and the sum of all weights
    peak: Tensor
    total: Tensor
    #: what logits were divided by
    temperature: float

    @classmethod
    def of(cls, logits: Tensor, sampling: Sampling) -> Spread:
        """logits [rows, vocabulary], of any type."""
        rows, vocabulary = logits.shape
        temperature = sampling.temperature or 1.0
        width = _block(vocabulary)
        values = logits.to(torch.float64)
        if temperature != 1.0:
            values = values / temperature
        peak = values.amax(dim=-1)
        weights = pad((values - peak.unsqueeze(1)).exp_(), (0, -vocabulary % width)).view(rows, -1, width)
        total = weights.sum(dim=-1).sum(dim=-1)
        kept = weights
        if sampling.temperature and sampling.top_p < 1:
            least = _least_kept(weights.view(rows, -1), sampling.top_p * total)
            kept = weights.where(weights >= least.view(-1, 1, 1), 0.0)
        return cls(weights, kept, peak, total, temperature)

    def logprobs(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """log softmax of logits / temperature at `tokens`: float64 [rows]."""
        at = logits.gather(1, tokens.unsqueeze(1)).squeeze(1).to(torch.float64) / self.temperature
        return at - self.peak - self.total.log()

    def drawn(self, draws: Tensor) -> Tensor:
        """The token of each row that its draw (float64 [rows]) gives: int64 [rows]."""
        sums = self.kept.sum(dim=-1)
        upto = _running(sums)
        target = (draws * upto[:, -1]).unsqueeze(1)
        block = _first_beyond(upto, sums, target)
        inside = self.kept.gather(1, block.view(-1, 1, 1).expand(-1, 1, self.kept.shape[2])).squeeze(1)
        before = (upto - sums).gather(1, block.unsqueeze(1))
        place = _first_beyond(before + _running(inside), inside, target)
        return block * self.kept.shape[2] + place

    def fits(self, tokens: Tensor, draws: Tensor, slack: float) -> Tensor:
        """Whether each row's draw gives its token, or lies within `slack` of doing so: bool [rows]."""
        width = self.kept.shape[2]
        block, place = tokens // width, tokens % width
        sums = self.kept.sum(dim=-1)
        inside = self.kept.gather(1, block.view(-1, 1, 1).expand(-1, 1, width)).squeeze(1)
        order = torch.arange(max(width, sums.shape[1]), device=tokens.device)
        before = sums.where(order[: sums.shape[1]] < block.unsqueeze(1), 0.0).sum(dim=1)
        before = before + inside.where(order[:width] < place.unsqueeze(1), 0.0).sum(dim=1)
        after = before + inside.gather(1, place.unsqueeze(1)).squeeze(1)
        total = sums.sum(dim=1)
        return (draws >= before / total - slack) & (draws < after / total + slack)


def choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """(tokens int64 [rows], their log-probabilities and the peaks float64 [rows]) for logits [rows, vocabulary]."""
    logits = countable(logits)
    spread = Spread.of(logits, sampling)
    tokens = spread.drawn(draws) if sampling.temperature else logits.argmax(dim=-1)
    return tokens, spread.logprobs(logits, tokens), spread.peak


def check(
    logits: Tensor, tokens: Tensor, draws: Tensor, sampling: Sampling, precision: Precision
) -> tuple[Tensor, Tensor, Tensor]:
    """(whether each token is the one that its draw gives: bool [rows], log-probabilities and peaks float64 [rows])."""
    logits = countable(logits)
    spread = Spread.of(logits, sampling)
    if sampling.temperature:
        right = spread.fits(tokens, draws, SLACK[precision])
    else:
        at = logits.gather(1, tokens.unsqueeze(1)).squeeze(1).to(torch.float64)
        right = at >= spread.peak - NATS[precision]
    return right, spread.logprobs(logits, tokens), spread.peak


def countable(values: Tensor) -> Tensor:
    """Where float64 can be had: Apple's GPUs have none."""
    return values.cpu() if values.device.type == "mps" else values


def _block(vocabulary: int) -> int:
    """A power of two near the root: as many sums of blocks are looked at as tokens of one."""
    return 1 << max(3, (vocabulary.bit_length() + 1) // 2)


def _running(values: Tensor) -> Tensor:
    """Cumulated along the last of two dimensions. torch's own has no fixed order of adding on CUDA."""
    if values.is_cuda:
        width = values.shape[1]
        return values @ torch.ones(width, width, dtype=values.dtype, device=values.device).triu_()
    return values.cumsum(dim=1)


def _first_beyond(upto: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """The first place whose cumulated weight exceeds the target; never one of weight 0, whatever rounding does."""
    places = torch.arange(weights.shape[1], device=weights.device)
    last = places.where(weights > 0, 0).amax(dim=1)
    return torch.minimum((upto <= target).sum(dim=1), last)


def _least_kept(weights: Tensor, wanted: Tensor) -> Tensor:
    """The least weight in each row's smallest set that holds `wanted`: [rows]."""
    some = weights.topk(min(LIKELIEST, weights.shape[1]), dim=1).values
    if bool((some.sum(dim=1) < wanted).any()):
        some = weights.sort(dim=1, descending=True).values
    reached = (_running(some) < wanted.unsqueeze(1)).sum(dim=1).clamp(max=some.shape[1] - 1)
    return some.gather(1, reached.unsqueeze(1)).squeeze(1)
