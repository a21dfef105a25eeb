"""What a check of a folder found: how it loaded, what each server would make of it, and what was merged.

Owns the shapes only. Filled by `shardwork.serving.check`, shown by the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Fit(StrEnum):
    """How likely a server takes the folder. Nothing was tried: only loading in transformers is."""

    LIKELY = "likely"
    UNKNOWN = "unknown"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    #: what was looked at, e.g. "architecture", "adapter rank"
    about: str
    fit: Fit
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFit:
    """One server's outlook: the worst of its findings, and how to start it."""

    #: "vllm", "llama.cpp" or "ollama"
    engine: str
    fit: Fit
    findings: tuple[Finding, ...]
    #: commands and lines of a file, in order; empty where it does not fit
    how: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What plain transformers (and PEFT) made of the folder, on the CPU."""

    seconds: float
    #: of the model as it answers; a tied head counts once
    parameters: int
    #: of the adapter alone; 0 for a model
    adapter_parameters: int
    #: as stored, e.g. "bfloat16"
    dtype: str
    #: class and number of tokens of the tokenizer
    tokenizer: str
    tokens: int
    has_chat_template: bool
    #: why the chat template could not be used; empty when it could, or when there is none
    template_error: str
    prompt: str
    answer: str
    answer_tokens: int
    answer_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """An adapter written into its base: a model folder of its own."""

    folder: Path
    bytes: int
    #: largest difference of a logit between base with adapter and the merged folder loaded again
    difference: float
    #: what was allowed: relative to the largest logit, by the dtype's rounding
    tolerance: float
    #: share of positions at which both choose the same token
    agreement: float
    engines: tuple[EngineFit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeCheck:
    """A folder that loads and answers, and where it may be served."""

    folder: Path
    #: "model" or "adapter"
    kind: str
    #: the folder of the adapter's base; None for a model
    base: Path | None
    model_type: str
    architecture: str
    loaded: Loaded
    engines: tuple[EngineFit, ...]
    merged: Merged | None
