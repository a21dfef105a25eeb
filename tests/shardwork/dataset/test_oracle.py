"""Our rows against TRL's: the same tokens and the same labels, from the same files."""

# pyright: standard

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset.rows import Row, read_rows
from shardwork.dataset.source import read_lines, source_files
from shardwork.dataset.template import ChatTemplate, RenderRequest
from shardwork.dataset.tokenise import Encoded, RowTokenizer

from .folders import CHAT, SENTENCES, THINKING, tokenizer_folder, turn, write_jsonl

MAX_LENGTH = 90

PAIRS: list[dict[str, Any]] = [
    {"prompt": "What is a river?", "completion": " Water that flows."},
    {"prompt": "Say", "completion": "ing things"},  # tokens merge across the boundary
    {"prompt": "", "completion": "An answer to nothing."},
    {"prompt": "Ends with a space ", "completion": " and begins with one"},
    {"prompt": "Has its end", "completion": " already<|endoftext|>"},
    {"prompt": "Long " + SENTENCES[0] * 2, "completion": SENTENCES[2]},
    {"prompt": SENTENCES[0] * 20, "completion": "never seen"},  # the prompt fills the row: dropped
    {"prompt": "Grüße\n\n", "completion": "ß 漢字 🙂"},
]
CHATS: list[dict[str, Any]] = [
    {"prompt": [turn("user", "Hello there")], "completion": [turn("assistant", "General answer.")]},
    {
        "prompt": [
            turn("system", "Be brief."),
            turn("user", "Why?"),
            turn("assistant", "Because."),
            turn("user", "Oh"),
        ],
        "completion": [turn("assistant", SENTENCES[2])],
    },
    {"prompt": [turn("user", SENTENCES[0] * 20)], "completion": [turn("assistant", "never seen")]},
]
TEXTS: list[dict[str, Any]] = [{"text": text} for text in (*SENTENCES, "ended<|endoftext|>", SENTENCES[0] * 9)]


def ours(folder: Path, data: Path) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels as `prepare` keeps them."""
    rows = [row for row in read_rows(read_lines(source_files([data]))) if isinstance(row, Row)]
    with RowTokenizer.load(folder) as tokenizer:
        encoded = [item for item in tokenizer.encode(rows) if isinstance(item, Encoded)]
    kept = [item.cut(MAX_LENGTH) for item in encoded]
    return [
        (item.tokens, [token if bit else -100 for token, bit in zip(item.tokens, item.mask, strict=True)])
        for item in kept
        if item.loss_tokens
    ]


def _library(name: str) -> Any:
    """An untyped library, imported only by the tests that need it: TRL takes ten seconds."""
    return importlib.import_module(name)


def theirs(folder: Path, data: Path, tmp_path: Path) -> list[tuple[list[int], list[int]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets, transformers, trl = (_library(name) for name in ("datasets", "transformers", "trl"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        config = transformers.LlamaConfig(
            vocab_size=400, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
        arguments = trl.SFTConfig(
            output_dir=str(tmp_path / "trl"),
            max_length=MAX_LENGTH,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
        )
        rows = datasets.Dataset.from_json(str(data), cache_dir=str(tmp_path / "cache"))
        model = transformers.LlamaForCausalLM(config)
        trainer = trl.SFTTrainer(model, args=arguments, train_dataset=rows, processing_class=tokenizer)
        return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


CASES = {
    "pairs": (PAIRS, None, False),
    "pairs with a start token": (PAIRS, None, True),
    "chats": (CHATS, CHAT, False),
    "chats with a start token": (CHATS, CHAT, True),
    "chats of a reasoning template": (CHATS, THINKING, False),
    "texts": (TEXTS, None, False),
    "texts with a start token": (TEXTS, None, True),
}


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_labels_are_those_that_trl_prepares(case: str, tmp_path: Path) -> None:
    rows, template, bos = CASES[case]
    folder = tokenizer_folder(tmp_path / "model", template=template, bos=bos)
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    expected = theirs(folder, data, tmp_path)
    assert ours(folder, data) == expected
    assert len(expected) >= 2


@pytest.mark.parametrize("template", [CHAT, THINKING])
def test_rendering_equals_transformers(template: str, tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path, template=template)
    tokenizer = _library("transformers").AutoTokenizer.from_pretrained(folder)
    messages = [turn("user", "a <b> & 'c'"), turn("assistant", "d"), turn("user", "e\n"), turn("assistant", "ü")]
    with ChatTemplate(template, {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}) as ours_too:
        answer = ours_too.render([RenderRequest(messages=messages, renders=[(4, False), (3, True), (2, False)])])[0]
    assert answer == [
        tokenizer.apply_chat_template(messages, tokenize=False),
        tokenizer.apply_chat_template(messages[:3], tokenize=False, add_generation_prompt=True),
        tokenizer.apply_chat_template(messages[:2], tokenize=False),
    ]
