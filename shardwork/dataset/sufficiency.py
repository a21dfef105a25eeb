"""Whether data is enough to train on, or of a size for retrieval: a verdict with its reasons and their sources.

Owns the thresholds. Each is taken from a published measurement or said to be a judgement; docs/data.md lists them.
Pure: figures in, sentences out. Called by `data check` and `job plan`; the check after training, which measures instead
of predicting, is publishing's (`memorised` in the job's report).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..problem import Problem
from .row import Format

#: tokens a parameter at which compute is spent best (Hoffmann et al. 2022, arXiv 2203.15556, table 3)
BEST_TOKENS_A_PARAMETER = 20
#: passes up to which repeated data is worth about as much as new (Muennighoff et al. 2023, arXiv 2305.16264)
GOOD_PASSES = 4
#: passes at which a repetition is worth little more than nothing (the same: its value decays with a constant of 15)
MOST_PASSES = 16
#: examples at which supervised tuning begins to show (OpenAI's fine-tuning guide: "50 to 100")
LEAST_EXAMPLES = 50
#: examples that set the style of a large model (Zhou et al. 2023, "LIMA", arXiv 2305.11206)
GOOD_EXAMPLES = 1_000
#: text that a base model goes on learning from: a judgement. Ten books hold about a million tokens; corpora with which
#: adapting to a domain was shown to help begin above a hundred million (Gururangan et al. 2020, arXiv 2004.10964)
LEAST_TEXT, GOOD_TEXT = 1_000_000, 10_000_000
#: bits of knowledge that a trained parameter holds (Allen-Zhu & Li 2024, arXiv 2404.05405)
BITS_A_PARAMETER = 2
#: the most that a token can hold, of a vocabulary of 64k
BITS_A_TOKEN = 16


class Size(StrEnum):
    TRAINING = "training-sized"
    THIN = "thin"
    RAG = "RAG-sized"


#: recipes for which no amount of data is too little
_LEARN_NOTHING = frozenset({"count", "generate", "judge", "people", "ppo", "grpo"})
#: from good to bad
_ORDER = (Size.TRAINING, Size.THIN, Size.RAG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is judged. Zero means unknown."""

    recipe: str
    format: Format | None
    #: of the files, before weights
    rows: int
    #: that one pass over the data reads, and those of them that are labels
    tokens: int
    loss_tokens: int
    #: how often the plan's rounds read the data
    passes: float = 0
    run_params: int = 0
    trained_params: int = 0
    from_scratch: bool = False


@dataclass(frozen=True, slots=True)
class Sufficiency:
    size: Size
    #: why, the weightiest first; of a good verdict too
    reasons: tuple[Problem, ...]

    def to_json(self) -> dict[str, object]:
        """The key `sufficiency` of `data check --json` and `job plan --json`."""
        told = [{"code": each.code, "sentence": each.sentence, "fix": each.fix} for each in self.reasons]
        return {"verdict": str(self.size), "reasons": told}


def judge(given: Figures) -> Sufficiency | None:
    """The verdict; None where there is nothing to judge, as for a job that learns nothing."""
    if not given.rows or not given.tokens or given.recipe in _LEARN_NOTHING:
        return None
    found = sorted(_found(given), key=lambda pair: -_ORDER.index(pair[0]))
    return Sufficiency(found[0][0], tuple(reason for _, reason in found)) if found else None


def _found(given: Figures) -> Iterator[tuple[Size, Problem]]:
    if given.from_scratch:
        yield from _from_scratch(given)
    elif given.format is Format.TEXT:
        yield _text(given)
    else:
        yield _examples(given)
    if given.recipe == "sft" and given.format is Format.TEXT:
        yield (
            Size.THIN,
            _reason(
                "data.text_for_tuning",
                "The rows are plain text: tuning on them teaches to go on in their style, not to answer questions.",
                "To get answers, turn the text into questions and answers (prompt and completion, or messages).",
            ),
        )
    yield from _passes(given)
    yield from _room(given)


def _from_scratch(given: Figures) -> Iterator[tuple[Size, Problem]]:
    if not given.run_params:
        return
    ratio = given.tokens / given.run_params
    figures = f"{given.tokens:,} tokens for {given.run_params:,} parameters are {ratio:.2g} a parameter"
    if ratio >= BEST_TOKENS_A_PARAMETER / GOOD_PASSES:
        yield Size.TRAINING, _reason("data.enough", f"{figures}; {BEST_TOKENS_A_PARAMETER} are best.", "")
    elif ratio >= BEST_TOKENS_A_PARAMETER / MOST_PASSES:
        sentence = (
            f"{figures}; {BEST_TOKENS_A_PARAMETER} are best, and passes beyond {GOOD_PASSES} add less and less to it."
        )
        yield Size.THIN, _reason("data.few_tokens", sentence, "Add text, or choose a smaller preset.")
    else:
        sentence = f"{figures}; {BEST_TOKENS_A_PARAMETER} are best. This text cannot teach a language from nothing."
        fix = "Tune a trained base model, or leave the model as it is and retrieve from the text (RAG)."
        yield Size.RAG, _reason("data.rag_sized", sentence, fix)


def _text(given: Figures) -> tuple[Size, Problem]:
    figures = f"{given.tokens:,} token{'' if given.tokens == 1 else 's'} of text"
    if given.tokens >= GOOD_TEXT:
        return Size.TRAINING, _reason("data.enough", f"{figures}; from {GOOD_TEXT:,} on a domain can be learned.", "")
    if given.tokens >= LEAST_TEXT:
        sentence = f"{figures} change a model's style more than its knowledge; {GOOD_TEXT:,} would be a good start."
        return Size.THIN, _reason("data.few_tokens", sentence, "Add text of the same domain.")
    sentence = f"{figures}, fewer than some ten books: this is RAG-sized, not training-sized."
    fix = "To answer from these texts, retrieve from them (RAG); to train, turn them into many questions and answers."
    return Size.RAG, _reason("data.rag_sized", sentence, fix)


def _examples(given: Figures) -> tuple[Size, Problem]:
    figures = f"{given.rows:,} example{'s' if given.rows != 1 else ''}"
    if given.rows >= GOOD_EXAMPLES:
        return Size.TRAINING, _reason("data.enough", f"{figures}; {GOOD_EXAMPLES:,} good ones set a style.", "")
    if given.rows >= LEAST_EXAMPLES:
        sentence = f"{figures} teach a form of answer, hardly facts; {GOOD_EXAMPLES:,} good ones set a style."
        return Size.THIN, _reason("data.few_examples", sentence, "Add examples that differ from each other.")
    sentence = f"{figures} {'is' if given.rows == 1 else 'are'} RAG-sized, not training-sized: tuning shows from "
    sentence += f"{LEAST_EXAMPLES} to 100 on."
    fix = "Show them in the prompt, or retrieve from them (RAG); to train, add examples."
    return Size.RAG, _reason("data.rag_sized", sentence, fix)


def _passes(given: Figures) -> Iterator[tuple[Size, Problem]]:
    if given.passes <= GOOD_PASSES:
        return
    sentence = (
        f"The plan reads the data {given.passes:,.1f} times; after {GOOD_PASSES} passes a repetition adds less and less"
    )
    sentence += ", and this many teach the rows by heart." if given.passes > MOST_PASSES else "."
    fix = "Plan fewer rounds, shards or inner steps, or add data; held-out rows show when to stop."
    yield Size.THIN, _reason("data.many_passes", sentence, fix)


def _room(given: Figures) -> Iterator[tuple[Size, Problem]]:
    """What learns could hold every label of the data, were each as surprising as a token can be."""
    if not given.trained_params or not given.loss_tokens:
        return
    room, held = given.trained_params * BITS_A_PARAMETER, given.loss_tokens * BITS_A_TOKEN
    if room < held:
        return
    a_row = given.trained_params / given.rows
    sentence = (
        f"{a_row:,.0f} parameters learn for each row: {room / held:,.1f} times what it takes to know the rows by heart."
    )
    size = Size.THIN if given.passes > GOOD_PASSES else Size.TRAINING
    fix = "Let less learn (a smaller rank, fewer layers) or add rows; the report says what was memorised."
    yield size, _reason("data.room_to_memorise", sentence, fix)


def _reason(code: str, sentence: str, fix: str) -> Problem:
    return Problem(file="", line=None, key="data", code=code, sentence=sentence, fix=fix)
