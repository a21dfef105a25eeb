"""Model folders and data files made for the dataset tests; small enough to be made anew each time."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import processors

from shardwork.dataset.vocabulary import EOS, train_vocabulary, write_tokenizer

SENTENCES = (
    "The lighthouse keeper counted ships until the fog came in.",
    "Write a short answer about rivers, mountains and weather.",
    "Ein Fluss fließt langsam durch die grüne Ebene.",
    "She said: 'bring bread, salt and 12 apples', then left.",
    "def add(a, b):\n    return a + b",
)

#: marks turns with plain text, ends answers with the end token
CHAT = (
    "{%- for message in messages %}"
    "{%- if message.role == 'tool_error' %}{{ raise_exception('no such role') }}{% endif %}"
    "{{ '[' + message['role'] + ']\\n' + message['content'] }}"
    "{%- if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '[assistant]\\n' }}{% endif %}"
)

#: like reasoning models': a think block opens the last answer, and is dropped from earlier ones
THINKING = (
    "{%- for message in messages %}"
    "{{ '<' + message['role'] + '>' }}"
    "{%- if message['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
    "{{ message['content'] + '<end>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tokenizer_folder(folder: Path, *, template: str | None = None, bos: bool = False) -> Path:
    """A folder with tokenizer.json and tokenizer_config.json; `bos`: plain text begins with a start token."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_vocabulary(SENTENCES * 4, 320, total_bytes=1000)
    if bos:
        tokenizer.add_special_tokens(["<s>"])  # pyright: ignore[reportUnknownMemberType]
        start = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", start)]
        )
    write_tokenizer(tokenizer, folder, context=512)
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["bos_token"] = "<s>" if bos else EOS
    if template is not None:
        config["chat_template"] = template
    path.write_text(json.dumps(config))
    return folder


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def write_parquet(path: Path, columns: Mapping[str, list[Any]]) -> Path:
    library: Any = importlib.import_module("pyarrow")
    importlib.import_module("pyarrow.parquet").write_table(library.table(dict(columns)), str(path))
    return path


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
