"""What a tokenizer.json may make a machine do, read from its structure before any library runs it.

Owns limits on a file that comes with somebody's model: its regular expressions, texts that grow, tables without end. A
pattern could take years on a short text, and a few replacements could make gigabytes of it. What passes is still run
only by the executor's limited process and by the worker's sandboxed child. Called by `shardwork.models.folder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from ..errors import InvalidInput
from .pattern import can_explode

#: Gemma has 262,144 tokens and 514,906 merges; Llama 4's added tokens are some 1,100
MAX_VOCAB, MAX_MERGES, MAX_ADDED = 2_000_000, 4_000_000, 100_000
MAX_TOKEN_CHARS = 4096
#: the longest pattern in use (GPT-4o's) has some 400 characters
MAX_PATTERN_CHARS = 4096
MAX_STEPS = 64
#: how much longer a text may become by all replacements together; SentencePiece's "▁" for a space is 1
MAX_GROWTH = 16
#: special tokens around a row
MAX_TEMPLATE = 64
MAX_DEPTH = 32


def check_tokenizer(path: Path, tokenizer: Mapping[str, Any]) -> None:
    """Raises InvalidInput "tokenizer.hostile" that says what is too much."""
    model = tokenizer.get("model")
    if isinstance(model, dict):
        _check_tables(path, cast("dict[str, Any]", model))
    _check_added(path, tokenizer.get("added_tokens"))
    growth = 1.0
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        steps = list(_steps(path, tokenizer.get(name)))
        if len(steps) > MAX_STEPS:
            _refuse(path, f"its {name} has {len(steps)} steps")
        for step in steps:
            growth *= _growth(path, step)
            if growth > MAX_GROWTH:
                _refuse(path, "its replacements make texts grow without measure")
    _check_template(path, tokenizer.get("post_processor"))


def _check_tables(path: Path, model: Mapping[str, Any]) -> None:
    for name, most in (("vocab", MAX_VOCAB), ("merges", MAX_MERGES)):
        table: object = model.get(name)
        if isinstance(table, dict | list) and len(cast("list[object]", table)) > most:
            _refuse(path, f"its {name} has more than {most:,} entries")
    vocab: object = model.get("vocab")
    if isinstance(vocab, dict):
        longest = max((len(token) for token in cast("dict[str, object]", vocab)), default=0)
        if longest > MAX_TOKEN_CHARS:
            _refuse(path, f"a token of its vocabulary has {longest:,} characters")


def _check_added(path: Path, added: object) -> None:
    tokens = cast("list[object]", added) if isinstance(added, list) else []
    if len(tokens) > MAX_ADDED:
        _refuse(path, f"it adds {len(tokens):,} tokens")
    for token in tokens:
        content = cast("dict[str, object]", token).get("content") if isinstance(token, dict) else None
        if isinstance(content, str) and len(content) > MAX_TOKEN_CHARS:
            _refuse(path, f"an added token has {len(content):,} characters")


def _check_template(path: Path, processor: object) -> None:
    for step in _steps(path, processor):
        for name in ("single", "pair", "special_tokens"):
            parts: object = step.get(name)
            if isinstance(parts, list | dict) and len(cast("list[object]", parts)) > MAX_TEMPLATE:
                _refuse(path, "it puts a crowd of tokens around every row")


def _steps(path: Path, node: object, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every object below `node` that names a type, outer ones first."""
    if depth > MAX_DEPTH:
        _refuse(path, "its steps are nested too deeply")
    if isinstance(node, dict):
        step = cast("dict[str, Any]", node)
        if "type" in step:
            yield step
        for value in step.values():
            yield from _steps(path, value, depth + 1)
    elif isinstance(node, list):
        for value in cast("list[object]", node):
            yield from _steps(path, value, depth + 1)


def _growth(path: Path, step: Mapping[str, Any]) -> float:
    """How much longer a text can become by this step; its pattern is checked on the way."""
    pattern: object = step.get("pattern")
    expression = cast("dict[str, object]", pattern).get("Regex") if isinstance(pattern, dict) else None
    if isinstance(expression, str):
        _check_pattern(path, expression)
    content: object = step.get("content") or step.get("prepend") or ""
    if step.get("type") not in ("Replace", "Prepend") or not isinstance(content, str):
        return 1.0
    literal = cast("dict[str, object]", pattern).get("String") if isinstance(pattern, dict) else None
    matched = len(literal) if isinstance(literal, str) and literal else 1
    # prepended once to a text, not to each of its characters, but a text may be one character
    return max(1.0, len(content) / matched)


def _check_pattern(path: Path, expression: str) -> None:
    if len(expression) > MAX_PATTERN_CHARS:
        _refuse(path, f"a pattern has {len(expression):,} characters")
    if can_explode(expression):
        _refuse(path, f"its pattern {expression[:60]!r} repeats what repeats, which can take for ever")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InvalidInput(
        "tokenizer.hostile",
        f"tokenizer.json is not run: {reason}.",
        next_step="Take the tokenizer from where the model came from, saved with save_pretrained.",
        file=path,
    )
