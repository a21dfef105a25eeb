# pyright: standard
"""TRL's update and ours, number by number, on the same rollouts of the same little model.

Cases say what is compared; `apart` how far the two are. Called by `ppo_peer` and by its nightly test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from shardwork.recipes.objectives import PolicyObjective
from tests.worker.training import tiny
from tests.worker.training.objectives import made

from . import ours, rollouts, theirs
from .theirs import Overheard

ROWS, MINIBATCHES, PASSES = 16, 4, 3
#: between numbers of the same meaning
SAME = 1e-5
WANTED = PolicyObjective(
    advantage="ppo",
    group=1,
    kl_coefficient=0.05,
    temperature=0.7,
    gamma=0.99,
    lam=0.9,
    clip_low=0.1,
    clip_high=0.1,
    value_clip=0.05,
    value_coefficient=0.3,
    max_new_tokens=rollouts.MOST_NEW,
)


@dataclass(frozen=True, slots=True)
class Case:
    says: str
    #: every answer is as long as it may be
    cut_off: bool
    wanted: PolicyObjective = WANTED
    #: ours with TRL's idea of an answer's end
    later: bool = False
    #: whether both mean the same
    same: bool = True


CASES: Mapping[str, Case] = {
    "cut off": Case("answers that are all cut off: every formula", cut_off=True),
    "no value loss": Case(
        "answers that end, gamma = lambda = 1, without the value loss: the end's place does not matter",
        cut_off=False,
        wanted=WANTED.model_copy(update={"gamma": 1.0, "lam": 1.0, "value_coefficient": 0.0}),
    ),
    "ended": Case("answers that end, our arithmetic with TRL's end: every formula", cut_off=False, later=True),
    "as they are": Case("answers that end, each with its own end", cut_off=False, same=False),
}


def compared(case: Case, folder: Path) -> dict[str, float]:
    """How far apart the two are."""
    base = tiny.write_base(folder / "base", "llama")
    order = made.order("full", case.wanted, head="value", batch_size=ROWS // MINIBATCHES, steps=PASSES * MINIBATCHES)
    checkpoint = made.moved(made.started(order, base, folder), folder / "moved")
    built = made.model_at(order, base, checkpoint)
    assert built.value is not None
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    heard = theirs.update(
        theirs.Start(built.model, built.value, reference),
        rollouts.rows(ROWS, cut_off=case.cut_off),
        case.wanted,
        theirs.Passes(PASSES, MINIBATCHES),
        folder / "trl",
    )
    update = ours.Update(built, base, order, heard.rows)
    return apart(update.ending_later() if case.later else update.as_it_is(), heard)


def apart(one: Overheard, other: Overheard) -> dict[str, float]:
    steps = list(zip(one.steps, other.steps, strict=True))
    return {
        "steps": len(steps),
        "advantages": relative(one.advantages, other.advantages),
        "whitened": relative(one.whitened, other.whitened),
        "loss": max(abs(mine.loss - yours.loss) / max(1.0, abs(yours.loss)) for mine, yours in steps),
        "gradients": max(
            relative(list(mine.gradients.values()), [yours.gradients[name] for name in mine.gradients])
            for mine, yours in steps
        ),
        "first_loss": abs(one.steps[0].loss - other.steps[0].loss),
    }


def relative(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """L2 of the difference over L2 of the whole."""
    far = sum(float((mine.double() - yours.double()).square().sum()) for mine, yours in zip(one, other, strict=True))
    whole = sum(float(yours.double().square().sum()) for yours in other)
    return (far / whole) ** 0.5
