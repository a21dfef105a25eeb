# pyright: standard
"""Cells: what is measured with one seed. Each runs whole stages with the product's own `auto` rates and says numbers.

What a number must be is `claims`'. Called by `alignment`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shardwork.recipes.base import StageFacts

from . import first, task
from .lies import Liar, Lie
from .measures import Said, answers_of, good, opinions, win_rate, worth
from .stage import Meddler, Place, Ran, Stage, spec

#: of labels
NOISE = 0.1
#: pairs to learn from, held out with noise (the job's own), and held out without (for the figures). A logistic
#: regression that is told the words is right in 0.96 to 0.99 of clean pairs after 960, and in 0.98 to 0.998 after 1,920
#: (seeds 10 to 13); the reward model, which has to find the words, in 0.91 to 0.96 after 960
PAIRS, REWARD_PAIRS, HELD_OUT, CLEAN = 960, 1920, 64, 400
#: answers to each held-out prompt that figures are counted from
EACH = 16
#: rollouts of a round, of all its shards
ROLLOUTS = 128
ROUNDS, INNER, BATCH = 6, 8, 16
#: the loop's votes a pair, each wrong so often
VOTES, WRONG = 3, 0.2
ITERATIONS = 3
#: of preferences, to learn from them
LEAST_ROWS = 16

Figures = dict[str, float]


@dataclass(slots=True)
class Seed:
    """What the cells of one seed share."""

    place: Place
    base: Path
    seed: int
    params: int
    taste: task.Taste = field(init=False)
    start: list[Said] = field(init=False)
    _reward: Path | None = None

    def __post_init__(self) -> None:
        self.taste = task.Taste.planted(self.seed)
        self.start = self.said(self.base)

    def said(self, model: Path) -> list[Said]:
        return answers_of(self.place, model, task.prompts(held_out=True), EACH, f"held out {self.seed}")

    def data(self, rows: list[dict[str, Any]]) -> Path:
        return task.write(self.place.folder("data"), rows)

    def stage(
        self, kind: str, params: Mapping[str, Any], plan: Mapping[str, int], inputs: Mapping[str, Path], **more: Any
    ) -> Stage:
        """`more`: name, rows, meddler."""
        merged = {"publish": "merged"} if params["method"] == "lora" else {}
        rows = more.pop("rows")
        roles = {"models": {"reward": "reward.model"}} if "model-reward" in inputs else {}
        facts = StageFacts(rows=rows, tokens=rows * 24, run_params=self.params, trained_params=self.params)
        made = spec(kind, kind, {**params, **merged}, plan, data=["data"], eval_data=["held-out"], **roles)
        return Stage(self.place, made, {"base": self.base, **inputs}, facts, self.seed, **more)

    # ---- reward models and preferences ----------------------------------------------------------------------------

    def pairs(self, *, held_out: bool, learned: int = PAIRS) -> list[dict[str, Any]]:
        count = HELD_OUT if held_out else learned
        return task.pairs(self.taste, count, NOISE, f"pairs {self.seed} {held_out}", held_out=held_out)

    def learned(self, kind: str, shards: int, plan: Mapping[str, int], **params: Any) -> Ran:
        """From the planted pairs; a step of all shards together takes the same rows however many they are."""
        rows = params.pop("pairs", PAIRS)
        learned, held_out = self.pairs(held_out=False, learned=rows), self.pairs(held_out=True)
        inputs = {"data": self.data(learned), "eval_data": self.data(held_out)}
        asked = {"max_length": first.CONTEXT, **params}
        return self.stage(kind, asked, {"shards_per_round": shards, **plan}, inputs, rows=rows).run()

    def reward(self) -> Path:
        """A reward model for those who need one."""
        if self._reward is None:
            how = {"method": "full", "batch_size": 8, "pairs": REWARD_PAIRS}
            self._reward = self.learned("reward", 4, PLANS["full", 4], **how).model
        return self._reward

    # ---- policies -------------------------------------------------------------------------------------------------

    def policy(self, kind: str, shards: int, **more: Any) -> Ran:
        return self.policy_stage(kind, shards, **more).run()

    def policy_stage(
        self,
        kind: str,
        shards: int,
        *,
        base: Path | None = None,
        reward: Path | None = None,
        meddler: Meddler | None = None,
        **params: Any,
    ) -> Stage:
        """From `ROLLOUTS` answers a round, whatever the number of shards. Verifiable rewards, or a model."""
        answers, rounds = params.pop("answers", 8), params.pop("rounds", ROUNDS)
        rows = [
            [{"prompt": asked, "answer": self.taste.good_answers(asked)} for asked in task.prompts(held_out=held_out)]
            for held_out in (False, True)
        ]
        inputs = {"base": base or self.base, "data": self.data(rows[0]), "eval_data": self.data(rows[1])}
        inputs |= {"model-reward": reward} if reward is not None else {}
        asked = {
            "method": "full",
            "max_length": 24,
            "max_new_tokens": 24,
            "answers": answers,
            "prompts_per_shard": ROLLOUTS // answers // shards,
            "rollout_batch_size": ROLLOUTS,
            "batch_size": BATCH // shards,
            **({} if reward is not None else {"rewards": {"exact": 1.0}}),
            **params,
        }
        plan = {"rounds": rounds, "shards_per_round": shards, "inner_steps": INNER}
        return self.stage(kind, asked, plan, inputs, rows=len(rows[0]), meddler=meddler)


#: rounds of reward models, of 2,560 pairs in all; four adapters take longer
PLANS: Mapping[tuple[str, int], Mapping[str, int]] = {
    ("full", 1): {"rounds": 8, "inner_steps": 20},
    ("lora", 1): {"rounds": 8, "inner_steps": 20},
    ("full", 4): {"rounds": 8, "inner_steps": 10},
    ("lora", 4): {"rounds": 8, "inner_steps": 10},
}


def reward(method: str, shards: int, pairs: int, run: Seed) -> Figures:
    batch = 16 if shards == 1 else 8
    ran = run.learned("reward", shards, PLANS[method, shards], method=method, batch_size=batch, pairs=pairs)
    if (method, shards, pairs) == ("full", 4, REWARD_PAIRS):
        run._reward = ran.model
    clean = task.pairs(run.taste, CLEAN, 0.0, f"clean {run.seed}", held_out=True)
    return opinions(run.place, ran.model, clean)


def preference(loss: str, method: str, shards: int, run: Seed) -> Figures:
    plan = {"rounds": 4, "inner_steps": 10 if shards > 1 else 20}
    ran = run.learned("dpo", shards, plan, method=method, loss=loss, batch_size=8)
    said = run.said(ran.model)
    before, after = worth(run.taste, run.start), worth(run.taste, said)
    won = win_rate(after, before)
    return {"win_rate": won.share, "low": won.low, "high": won.high, **_utilities(before, after)}


def policy(kind: str, shards: int, params: Mapping[str, Any], run: Seed) -> Figures:
    return _policy(run, run.policy(kind, shards, **params))


def as_one(kind: str, shards: int, params: Mapping[str, Any], run: Seed) -> Figures:
    """What `shards` do together, by one: as many answers and steps, whole batches, and their rate. One shard's own rate
    is lower, as nothing averages its noise out."""
    rate = run.policy_stage(kind, shards, **params).spec.params["learning_rate"]
    return _policy(run, run.policy(kind, 1, learning_rate=rate, **params))


def from_model(shards: int, run: Seed) -> Figures:
    return _policy(run, run.policy("ppo", shards, reward=run.reward(), answers=2))


def _policy(run: Seed, ran: Ran) -> Figures:
    """Reward: share of answers to held-out prompts that the verifiable reward likes."""
    said = run.said(ran.model)
    before, after = good(run.taste, run.start), good(run.taste, said)
    kl = [told["kl"] for told in ran.rounds if "kl" in told]
    told = {"before": before, "after": after, "gain": after - before, "kl": kl[-1]}
    return told | _utilities(worth(run.taste, run.start), worth(run.taste, said))


def _utilities(before: list[float], after: list[float]) -> Figures:
    return {"utility_before": sum(before) / len(before), "utility_after": sum(after) / len(after)}


def loop(run: Seed) -> Figures:
    """Answers, votes, a reward model, PPO; and again from what it made."""
    chosen, model = random.Random(f"votes {run.seed}"), run.base
    told = {"utility_0": _mean(worth(run.taste, run.start))}
    for number in range(1, ITERATIONS + 1):
        rows = _voted(run, model, number, chosen)
        # where answers are all worth the same, nobody has anything to say
        model = _improved(run, model, rows) if len(rows) >= LEAST_ROWS else model
        told[f"utility_{number}"] = _mean(worth(run.taste, run.said(model)))
    return {
        **told,
        "least_rise": min(told.values()) - told["utility_0"],
        "rise": told[f"utility_{ITERATIONS}"] - told["utility_0"],
    }


def _improved(run: Seed, model: Path, rows: list[dict[str, Any]]) -> Path:
    held_out = len(rows) // 8
    inputs = {"base": model, "data": run.data(rows[held_out:]), "eval_data": run.data(rows[:held_out])}
    asked = {"method": "full", "max_length": first.CONTEXT, "batch_size": 8}
    plan = {"rounds": 3, "shards_per_round": 2, "inner_steps": 10}
    scorer = run.stage("reward", asked, plan, inputs, rows=len(rows)).run().model
    return run.policy("ppo", 2, base=model, reward=scorer, answers=2, rounds=4).model


def _voted(run: Seed, model: Path, number: int, chosen: random.Random) -> list[dict[str, Any]]:
    """Two pairs of answers to each prompt, as most of the votes have it."""
    said = answers_of(run.place, model, task.prompts(held_out=False), 8, f"loop {run.seed} {number}")
    wrong = sum(
        math.comb(VOTES, votes) * WRONG**votes * (1 - WRONG) ** (VOTES - votes)
        for votes in range(VOTES // 2 + 1, VOTES + 1)
    )
    firsts, seconds = said[::2], said[1::2]
    answers = [(one.text, other.text) for one, other in zip(firsts, seconds, strict=True)]
    rows = task.judged(run.taste, [one.prompt for one in firsts], answers, wrong, chosen)
    chosen.shuffle(rows)
    return rows


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


# ---- attacks --------------------------------------------------------------------------------------------------------


def attack(lie: Lie, run: Seed, *, believed: bool = False, leaves_out: bool = True) -> Figures:
    """One shard of four lies in every round; `believed`: what an audit refuses is done again."""
    scored = lie == "scores"
    kind = "ppo" if scored else "grpo"
    liar = Liar(run.place, kind, lie, partial(_worst, run, _tokens(run)), believed=believed, leaves_out=leaves_out)
    ran = (
        run.policy("ppo", 4, reward=run.reward(), answers=2, meddler=liar)
        if scored
        else run.policy("grpo", 4, meddler=liar)
    )
    found = _policy(run, ran)
    found |= {"lies": liar.lies, "caught": liar.caught, "honest": liar.honest, "accused": liar.accused}
    rows = liar.lies * ROLLOUTS // 4
    return found | {"made_up_rows": 0 if scored else rows, "left_out_rows": liar.left_out}


def _tokens(run: Seed) -> dict[tuple[int, ...], list[list[int]]]:
    """For each prompt's tokens, answers in the words that are liked least."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(run.base / "tokenizer.json"))
    worst = [min(slot, key=run.taste.weights.__getitem__) for slot in (task.OPENINGS, task.CLOSINGS)]
    return {
        tuple(tokenizer.encode(asked).ids): [
            tokenizer.encode(task.answer(worst[0], manner, task.THINGS[task.asked_of(asked)], worst[1])).ids
            for manner in task.MANNERS
        ]
        for held_out in (False, True)
        for asked in task.prompts(held_out=held_out)
    }


def _worst(run: Seed, known: Mapping[tuple[int, ...], list[list[int]]], asked: list[int], row: int) -> list[int]:
    answers = known[tuple(asked)]
    return answers[row % len(answers)]


Cell = Callable[[Seed], Figures]
CELLS: Mapping[str, Cell] = {
    "reward full 4": partial(reward, "full", 4, REWARD_PAIRS),
    "reward lora 1": partial(reward, "lora", 1, REWARD_PAIRS),
    "dpo sigmoid full 1": partial(preference, "sigmoid", "full", 1),
    "grpo full 1": partial(policy, "grpo", 1, {}),
    "grpo full 4": partial(policy, "grpo", 4, {}),
    "grpo full as one": partial(as_one, "grpo", 4, {}),
    "ppo full 1": partial(policy, "ppo", 1, {"answers": 2}),
    "ppo reward model 4": partial(from_model, 4),
    "loop": loop,
    "lies forged": partial(attack, "forged"),
    "lies scores": partial(attack, "scores"),
    "rloo full 1": partial(policy, "grpo", 1, {"advantage": "rloo"}),
    "grpo lora 1": partial(policy, "grpo", 1, {"method": "lora"}),
    "ppo lora 1": partial(policy, "ppo", 1, {"method": "lora", "answers": 2}),
    "reward full 1": partial(reward, "full", 1, REWARD_PAIRS),
    "reward full 4 from 960 pairs": partial(reward, "full", 4, PAIRS),
    "ppo full 4": partial(policy, "ppo", 4, {"answers": 2}),
    "ppo full as one": partial(as_one, "ppo", 4, {"answers": 2}),
    "lies fitted": partial(attack, "fitted"),
    "lies forged, nothing left out": partial(attack, "forged", leaves_out=False),
    "lies forged, audits believed": partial(attack, "forged", believed=True),
    "dpo sigmoid lora 1": partial(preference, "sigmoid", "lora", 1),
    **{f"dpo {loss} full 1": partial(preference, loss, "full", 1) for loss in ("ipo", "orpo", "kto")},
    "reward lora 4": partial(reward, "lora", 4, REWARD_PAIRS),
}
#: what the first pass over the seeds takes: a claim of each kind
CORE = tuple(CELLS)[:11]
QUICK = (
    "reward full 4", "dpo sigmoid full 1", "grpo full 1", "grpo full 4", "ppo full 1", "lies forged", "lies scores",
)  # fmt: skip
