# pyright: standard
"""The token that a draw gives: as the rule says it, in the right proportions, and provable afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shardwork.recipes.alignment.draws import draws
from shardwork.recipes.alignment.orders import Sampling
from shardwork.recipes.orders import Precision
from shardwork_worker.training.generation.sampling import check, choose

SEED = bytes(range(32))


def by_the_rule(logits: np.ndarray[Any, Any], draw: float, temperature: float, top_p: float) -> int:
    """Word for word, one row, no short cut."""
    scaled = logits.astype(np.float64) / temperature
    shares = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    if top_p < 1:
        ranked = np.sort(shares)[::-1]
        least = ranked[np.searchsorted(np.cumsum(ranked), top_p)]
        shares = np.where(shares >= least, shares, 0)
        shares /= shares.sum()
    return int(np.argmax(np.cumsum(shares) > draw))


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 64, 300, 4099])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.9), (3.0, 0.5), (1.0, 0.999)])
def test_a_draw_gives_the_token_that_the_rule_gives(vocabulary: int, temperature: float, top_p: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(200, vocabulary, generator=generator) * 3
    numbers = draws(SEED, 1, 200)
    sampling = Sampling(temperature=temperature, top_p=top_p)
    tokens, logprobs, _ = choose(logits, torch.from_numpy(numbers), sampling)
    expected = [by_the_rule(row, draw, temperature, top_p) for row, draw in zip(logits.numpy(), numbers, strict=True)]
    assert tokens.tolist() == expected
    whole = torch.log_softmax(logits.double() / temperature, dim=-1)
    torch.testing.assert_close(logprobs, whole.gather(1, tokens.unsqueeze(1)).squeeze(1))
    right, again, _ = check(logits, tokens, torch.from_numpy(numbers), sampling, Precision.FP32)
    assert right.all() and torch.equal(again, logprobs)


def test_tokens_come_in_the_proportions_of_their_probabilities() -> None:
    """Chi-square over five tokens: with 4 degrees of freedom 18.5 is passed by one seed in a thousand."""
    shares = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03], dtype=torch.float64)
    numbers = torch.from_numpy(np.concatenate([draws(SEED, row, 100) for row in range(100)]))
    tokens, *_ = choose(shares.log().expand(len(numbers), -1), numbers, Sampling())
    counts = torch.bincount(tokens, minlength=5).double()
    expected = shares * len(numbers)
    assert float(((counts - expected) ** 2 / expected).sum()) < 18.5


def test_top_p_keeps_the_smallest_set_and_those_as_likely_as_its_last() -> None:
    shares = torch.tensor([[0.1, 0.4, 0.1, 0.3, 0.1]], dtype=torch.float64)
    numbers = torch.linspace(0, 0.999, 500, dtype=torch.float64)

    def given(top_p: float) -> set[int]:
        tokens, *_ = choose(shares.log().expand(500, -1), numbers, Sampling(top_p=top_p))
        return set(tokens.tolist())

    assert given(0.3) == {1}
    assert given(0.65) == {1, 3}
    assert given(0.75) == {0, 1, 2, 3, 4}  # one of three equal ones is needed: which, nothing says


def test_no_draw_gives_a_token_of_no_probability() -> None:
    logits = torch.full((2, 300), -torch.inf)
    logits[:, 100], logits[:, 101] = 0.0, -60.0
    tokens, *_ = choose(logits, torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64), Sampling())
    assert tokens.tolist() == [100, 101] or tokens.tolist() == [100, 100]
    tokens, *_ = choose(logits, torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64), Sampling(top_p=0.5))
    assert tokens.tolist() == [100, 100]


def test_temperature_0_takes_the_first_of_the_likeliest_whatever_the_draw() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0]])
    tokens, logprobs, _ = choose(logits, torch.zeros(1, 0, dtype=torch.float64), Sampling(temperature=0.0, top_p=0.1))
    assert tokens.tolist() == [1]
    assert logprobs.item() == pytest.approx(float(logits[0].log_softmax(-1)[1]))
    both = torch.tensor([1, 3])
    right, *_ = check(
        logits.expand(2, -1), both, torch.zeros(2, dtype=torch.float64), Sampling(temperature=0.0), Precision.FP32
    )
    assert right.tolist() == [True, False]


def test_a_check_forgives_a_draw_on_the_border_and_no_other() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(4, -1)
    numbers = torch.tensor([0.5 - 1e-5, 0.5 + 1e-5, 0.48, 0.82], dtype=torch.float64)
    tokens = torch.tensor([1, 0, 1, 1])
    right, *_ = check(logits, tokens, numbers, Sampling(), Precision.FP32)
    assert right.tolist() == [True, True, False, False]
