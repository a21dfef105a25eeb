"""What a client asks for when it creates a fine-tuning job: read strictly, so that nothing is ignored.

What this coordinator can't honour is refused by name. What the words become is `tuning`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shardwork.errors import InvalidInput

Auto = Literal["auto"]
_SUFFIX = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,39})")
#: of metadata: how the published clients limit it
MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
#: the one key of metadata that means something here
MAX_SATS = "max_sats"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Hyperparameters(_Strict):
    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: (
        Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | Annotated[int, Field(gt=0, le=100)] | Auto
    ) = "auto"


class _Supervised(_Strict):
    hyperparameters: Hyperparameters | None = None


class _Method(_Strict):
    type: str
    supervised: _Supervised | None = None
    dpo: Any = None
    reinforcement: Any = None


class _Create(_Strict):
    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: _Method | None = None
    integrations: list[Any] | None = None
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that may be honoured."""

    model: str
    training_file: str
    validation_file: str | None
    suffix: str
    #: None: one is drawn
    seed: int | None
    hyperparameters: Hyperparameters
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Asked:
        """Raises InvalidInput "tuning.bad_field" and "tuning.not_built", whose evidence names the `param`."""
        try:
            found = _Create.model_validate(dict(body))
        except ValidationError as error:
            first = error.errors()[0]
            raise wrong(_param(first["loc"]), f"{first['msg']}.") from None
        _check(found)
        return cls(
            model=found.model,
            training_file=found.training_file,
            validation_file=found.validation_file,
            suffix=found.suffix or "",
            seed=found.seed,
            hyperparameters=_hyperparameters(found),
            metadata=found.metadata or {},
        )

    @property
    def max_sats(self) -> int | None:
        text = self.metadata.get(MAX_SATS)
        return int(text) if text is not None else None

    def digest(self, seed: int | None) -> str:
        """The same for the same wishes and seed, in whichever words they were said; None: no seed was said."""
        said = {
            "model": self.model,
            "files": [self.training_file, self.validation_file],
            "suffix": self.suffix,
            "seed": seed,
            "hyperparameters": self.hyperparameters.model_dump(mode="json"),
            "metadata": dict(self.metadata),
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def wrong(param: str, sentence: str, next_step: str = "") -> InvalidInput:
    return InvalidInput("tuning.bad_field", f"{param}: {sentence}", next_step=next_step, param=param)


def not_built(param: str, sentence: str, next_step: str = "Leave it out.") -> InvalidInput:
    return InvalidInput("tuning.not_built", sentence, next_step=next_step, param=param)


def _param(place: tuple[int | str, ...]) -> str:
    """Without the branches of unions, which pydantic adds."""
    names = [str(part) for part in place if not str(part).startswith(("constrained-", "literal[", "function-"))]
    while len(names) > 1 and names[-1] in ("int", "float", "str"):
        names.pop()
    return ".".join(names)[:100] or "body"


def _check(found: _Create) -> None:
    if found.integrations:
        raise not_built("integrations", "Metrics are sent nowhere; events and result files hold them.")
    if found.suffix is not None and not _SUFFIX.fullmatch(found.suffix):
        raise wrong("suffix", "it has 1 to 40 letters, digits, '-' and '_'.")
    if found.method is not None:
        if found.method.type != "supervised":
            raise not_built(
                "method.type", f"Method {found.method.type[:40]!r} is not built.", "Use the method supervised."
            )
        for other in ("dpo", "reinforcement"):
            if getattr(found.method, other) is not None:
                raise not_built(f"method.{other}", "It does not belong to the method supervised.")
        if found.hyperparameters is not None and found.method.supervised is not None:
            raise wrong("hyperparameters", "they stand in `method` already.", "Say them once.")
    _check_metadata(found.metadata or {})


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > MOST_PAIRS:
        raise wrong("metadata", f"it has at most {MOST_PAIRS} pairs.")
    for key, value in metadata.items():
        if not 0 < len(key) <= LONGEST_KEY or len(value) > LONGEST_VALUE:
            raise wrong("metadata", f"a key has 1 to {LONGEST_KEY} letters and a value at most {LONGEST_VALUE}.")
    sats = metadata.get(MAX_SATS)
    if sats is not None and not (sats.isascii() and sats.isdecimal() and len(sats) <= 15 and int(sats)):
        raise wrong(f"metadata.{MAX_SATS}", "it is the most that the job may cost, in whole sats.")


def _hyperparameters(found: _Create) -> Hyperparameters:
    of_method = found.method.supervised if found.method is not None else None
    return (of_method.hyperparameters if of_method else None) or found.hyperparameters or Hyperparameters()
