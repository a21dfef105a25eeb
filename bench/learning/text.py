"""Text to learn from: this Python's own standard library, so nothing is fetched. Packed rows, and folders of them."""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shardwork.dataset.vocabulary import train_vocabulary, write_tokenizer
from shardwork.models.presets import preset_config
from shardwork.tensors.file import write_tensors

#: packages of the standard library, about as much text in each
TOPICS = ("asyncio", "email", "multiprocessing", "unittest", "xml", "importlib", "http", "idlelib")
VOCABULARY, LENGTH, PRESET = 512, 64, "tiny-1m"
#: tuning counts only what follows so many tokens
PROMPT = 16
PAD = 1

Row = tuple[Sequence[int], Sequence[int]]


def sources(package: str) -> list[str]:
    """The package's files, or with "" those of the library's top level, in a fixed order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = sorted((root / package).rglob("*.py")) if package else sorted(root.glob("*.py"))
    return [path.read_text("utf-8", errors="replace") for path in found if "test" not in path.parts]


def docstrings() -> list[str]:
    """English prose to warm a base up on; it shares words but no form with the code that is tuned on."""
    trees = [ast.parse(text) for text in sources("")]
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) for tree in trees for node in ast.walk(tree) if isinstance(node, holders)]
    return [text for text in texts if text and len(text) > 80]


@dataclass(slots=True)
class Corpus:
    """Packed rows by topic, and the tokenizer's folder that made them."""

    tokenizer: Path
    prose: list[list[int]]
    topics: list[list[list[int]]]


def read_corpus(root: Path) -> Corpus:
    code, prose = {topic: sources(topic) for topic in TOPICS}, docstrings()
    everything = [*prose, *(text for texts in code.values() for text in texts)]
    tokenizer = train_vocabulary(everything, VOCABULARY, total_bytes=sum(map(len, everything)))
    folder = root / "tokenizer"
    folder.mkdir(parents=True)
    write_tokenizer(tokenizer, folder, context=LENGTH)

    def packed(texts: Sequence[str]) -> list[list[int]]:
        flat = [token for text in texts for token in [*tokenizer.encode(text).ids, 0]]
        return [flat[at : at + LENGTH] for at in range(0, len(flat) - LENGTH + 1, LENGTH)]

    return Corpus(folder, packed(prose), [packed(code[topic]) for topic in TOPICS])


def skeleton(corpus: Corpus, shape: Mapping[str, float], folder: Path) -> Path:
    """A model folder with tokenizer and config and no weights: the preset, made smaller or larger by `shape`."""
    folder.mkdir()
    for path in corpus.tokenizer.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = preset_config(PRESET, vocab_size=VOCABULARY, context=LENGTH, eos_token_id=0, pad_token_id=PAD)
    (folder / "config.json").write_text(json.dumps(config | dict(shape)))
    return folder


def masked(tokens: Sequence[int], prompt: int) -> Row:
    return tokens, [0] * prompt + [1] * (len(tokens) - prompt)


def write_rows(folder: Path, parts: Mapping[str, Sequence[Row]]) -> Path:
    """A folder of prepared rows, as phase `prepare` writes it."""
    folder.mkdir(parents=True)
    for name, rows in parts.items():
        tensors: dict[str, np.ndarray[Any, Any]] = {
            "tokens": np.array([token for tokens, _ in rows for token in tokens], np.int32),
            "mask": np.array([bit for _, mask in rows for bit in mask], np.uint8),
            "offsets": np.cumsum([0, *(len(tokens) for tokens, _ in rows)], dtype=np.int64),
        }
        write_tensors(folder / f"{name}.safetensors", tensors)
    files = [{"name": f"{name}.safetensors", "rows": len(rows)} for name, rows in parts.items()]
    (folder / "index.json").write_text(json.dumps({"files": files, "pad_token_id": PAD}))
    return folder
