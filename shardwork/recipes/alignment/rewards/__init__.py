"""Rewards that code can verify, weighed: read from a job's parameters and given to answers.

    verifiable   the closed set, each 0 to 1     pattern   regular expressions in linear time
    schema       our part of JSON Schema

`Rewards` is made when a job is planned, so that settings are refused before anybody is paid, and again when answers are
graded (`alignment.phases.grading`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

from pydantic import ValidationError

from ....errors import InvalidInput
from .verifiable import MOST_GRADED, REWARDS, Graded, Reward

__all__ = ["MOST_GRADED", "REWARDS", "Graded", "Rewards"]


@dataclass(frozen=True, slots=True)
class Rewards:
    """Rewards with their weights: an answer's is the weighed sum."""

    weighed: Sequence[tuple[Reward, float]]

    @classmethod
    def read(cls, weights: Iterable[tuple[str, float]], settings: str = "") -> Self:
        """`settings`: JSON, the settings of each reward by its name.

        Raises InvalidInput "rewards.unknown", "rewards.bad_settings", "rewards.bad_pattern" and "rewards.bad_schema".
        """
        given, weighed = _settings(settings), list(weights)
        for name in [*(name for name, _ in weighed), *given]:
            if name not in REWARDS:
                raise _bad("rewards.unknown", f"There is no reward {name!r}; there are {', '.join(sorted(REWARDS))}.")
        idle = sorted(set(given) - {name for name, _ in weighed})
        if idle:
            raise _bad(
                "rewards.bad_settings", f"There are settings of {idle[0]!r}, which params.rewards does not have."
            )
        return cls([(_made(name, given.get(name, {})), weight) for name, weight in weighed])

    def needs(self) -> tuple[str, ...]:
        """Keys that every row must have."""
        return tuple(dict.fromkeys(key for reward, _ in self.weighed for key in reward.needs()))

    def grade(self, row: Mapping[str, Any], text: str, tokens: int) -> float:
        given = Graded(row, text[-MOST_GRADED:], tokens)
        return sum(weight * reward.grade(given) for reward, weight in self.weighed)


def _settings(text: str) -> dict[str, Any]:
    try:
        value: object = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _bad("rewards.bad_settings", f"params.reward_settings is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise _bad("rewards.bad_settings", "params.reward_settings is no JSON object.")
    return cast("dict[str, Any]", value)


def _made(name: str, settings: object) -> Reward:
    try:
        return REWARDS[name].model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (name, *first["loc"]))
        raise InvalidInput(
            "rewards.bad_settings",
            f"Setting {place} of the rewards is wrong: {first['msg']}.",
            next_step=f"Write params.reward_settings as {{{name}: {{…}}}}; it may set {', '.join(_names(name))}.",
            key="params.reward_settings",
        ) from error


def _names(reward: str) -> list[str]:
    """What may be set, as a job file writes it."""
    return [field.alias or name for name, field in REWARDS[reward].model_fields.items()]


def _bad(code: str, sentence: str) -> InvalidInput:
    fix = "Correct params.reward_settings: the settings of each reward by its name."
    return InvalidInput(code, sentence, next_step=fix, key="params.reward_settings")
