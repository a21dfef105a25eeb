"""Loads what an alignment job made with plain datasets and transformers, and says in JSON what it found.

usage: load_aligned.py ALIGNED PREFERRED. Run by `test_alignment`.
"""

# pyright: basic, reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

QUESTION = "Which is longer, Lena or Po?\n"


def main(aligned: str, preferred: str) -> None:
    torch.set_num_threads(1)
    made, other = Path(aligned), Path(preferred)
    found: dict[str, Any] = {
        "answers": rows(made / "answer.rows"),
        "preferences": rows(made / "judge.rows"),
        "votes": rows(made / "judge.votes"),
        "reward": reward(made / "score.model"),
        "policy": policy(made / "improve.model"),
        "preferred": policy(next(other.glob("*.model"))),
    }
    print(json.dumps(found))


def rows(folder: Path) -> list[dict[str, Any]]:
    # beside votes lies what they are about
    [path] = (folder / name for name in ("rows.jsonl", "preferences.jsonl", "votes.jsonl") if (folder / name).exists())
    loaded: Any = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder.parent / "cache"))
    return [dict(row) for row in loaded]


def reward(folder: Path) -> dict[str, Any]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer(QUESTION, return_tensors="pt")).logits
    return {"labels": int(logits.shape[1]), "finite": bool(torch.isfinite(logits).all())}


def policy(folder: Path) -> dict[str, Any]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer(QUESTION, return_tensors="pt")).logits
    return {"finite": bool(torch.isfinite(logits).all()), "is_adapter": (folder / "adapter_config.json").is_file()}


if __name__ == "__main__":
    main(*sys.argv[1:])
