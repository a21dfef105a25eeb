"""Items: what the votes of a folder are about, in `items.jsonl` beside `votes.jsonl`.

A line for each item that was judged: {"item", "prompt_id", "prompt", "answers": [{"model", "text"}]}, answers by the
positions that votes name. So votes can be read where their stage's data is not: by the recipe consensus, by exports and
reports. Called by whoever writes votes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ....dataset.row import Part

FILE = "items.jsonl"


def item_row(item: object, prompt_id: str, prompt: Part, answers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """`answers`: (model, text)."""
    said = [{"model": model, "text": text} for model, text in answers]
    return {"item": item, "prompt_id": prompt_id, "prompt": prompt, "answers": said}


def write_items(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with (folder / FILE).open("w", encoding="utf-8") as sink:
        for row in rows:
            sink.write(json.dumps(row, ensure_ascii=False) + "\n")
