"""Whether the models of a stage go together: one tokenizer, a reward model where one is meant, room for the answers.

What a policy wrote is read by others as tokens, so a model that gives the same words other numbers would answer, or
score, something nobody wrote. Owns these refusals; what a folder holds is `models.folder`'s. Called by the client
before a plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import InvalidInput
from ..models.folder import inspect_model
from ..recipes.alignment.policy_params import REWARD
from .paths import StageFiles
from .spec import STAGE_OUTPUT, JobSpec, StageSpec

#: of a tokenizer.json, how a program set it up last and no part of the language
_SETTINGS = ("truncation", "padding")


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A model as the job file names it, and what is equal for the same tokenizer."""

    written: str
    language: str


def check_together(spec: JobSpec, files: Mapping[str, StageFiles]) -> None:
    """Raises InvalidInput "model.other_tokenizer" and "model.no_reward_model"."""
    known: dict[str, _Spoken | None] = {}
    for stage in spec.stages:
        own = files.get(stage.name, StageFiles())
        base = _spoken(stage.base_model, own.base_model, known) or _made_by(stage)
        for role, named in sorted(stage.models.items()):
            folder = own.models.get(role)
            if role == REWARD and folder is not None and not inspect_model(folder, reward=True).scores:
                raise _no_reward_model(stage, named)
            other = _spoken(named, folder, known)
            if base and other and base.language != other.language:
                raise _other_tokenizer(stage, role, base, other)
        known |= dict.fromkeys(spec.names_of(stage.name), base)


def check_answers_fit(stage: StageSpec, params: Mapping[str, Any], limit: int | None) -> None:
    """`params`: frozen ones. Raises InvalidInput "model.answers_too_long"; a worker would, when sats are spent."""
    most = params.get("max_new_tokens")
    if limit is None or most is None or params["max_length"] + most <= limit:
        return
    raise InvalidInput(
        "model.answers_too_long",
        f"Prompts of {params['max_length']} tokens and answers of {most} do not fit the model of stage {stage.name!r}: "
        f"it has {limit} positions.",
        next_step=f"Let params.max_length and params.max_new_tokens be {limit} together, or less.",
        stage=stage.name,
        key="params.max_new_tokens",
    )


def _spoken(written: str | None, folder: Path | None, known: Mapping[str, _Spoken | None]) -> _Spoken | None:
    """None: it is not known here."""
    if written is None:
        return None
    if folder is not None:
        return _Spoken(written, _digest(folder / "tokenizer.json"))
    source = known.get(written.partition(".")[0]) if STAGE_OUTPUT.match(written) else None
    return _Spoken(written, source.language) if source else None


def _made_by(stage: StageSpec) -> _Spoken | None:
    """A model from nothing learns its words from its stage's rows: nobody else has them."""
    return _Spoken(f"{stage.name}.model", f"stage {stage.name}") if stage.base_model is None else None


def _digest(path: Path) -> str:
    """Of what the file says, however it is written; of its bytes where it says nothing (the folder's check tells)."""
    data = path.read_bytes() if path.is_file() else b""
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        told = {key: value for key, value in cast("dict[str, object]", found).items() if key not in _SETTINGS}
        data = json.dumps(told, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _other_tokenizer(stage: StageSpec, role: str, base: _Spoken, other: _Spoken) -> InvalidInput:
    mend = "Train the reward model on the policy's own base" if role == REWARD else "Answer with each in its own stage"
    return InvalidInput(
        "model.other_tokenizer",
        f"Stage {stage.name!r} gives the tokens of {base.written} to {other.written}, which has another tokenizer.",
        next_step=f"{mend}, or use a model whose tokenizer.json is the same as that of {base.written}.",
        stage=stage.name,
        key=f"models.{role}",
    )


def _no_reward_model(stage: StageSpec, named: str) -> InvalidInput:
    return InvalidInput(
        "model.no_reward_model",
        f"{named} is to score the answers of stage {stage.name!r}, and is a language model: it has no score.",
        next_step="Name the model of a reward stage: models: {reward: STAGE.model}, or a folder that one published.",
        stage=stage.name,
        key=f"models.{REWARD}",
    )
