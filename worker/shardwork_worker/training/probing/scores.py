# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""What a published reward model thinks of a few rows, for its owner: in the place of samples, which it can't write.

Called by `publish`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .recall import read_rows
from .samples import SAMPLED_ROWS, text_of


def scored(model: Any, rows: Path | None, tokenizer: Any, done: Callable[[float], None]) -> list[dict[str, str]]:
    """Entries as `samples.write_entries` takes them: some held-out rows, or learnt ones where there are no others, each
    with its score. None where no rows came with the shard."""
    known = read_rows(rows) if rows is not None else []
    side = [row for row in known if not row.is_learnt] or known
    entries: list[dict[str, str]] = []
    for row in side[: 2 * SAMPLED_ROWS]:
        ids = torch.tensor([row.tokens], device=model.device)
        with torch.inference_mode():
            score = float(model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, 0])
        where = "train" if row.is_learnt else "held_out"
        entries.append({"prompt": text_of(tokenizer, row.tokens), "completion": f"score {score:.4f}", "side": where})
        done(len(entries) / (2 * SAMPLED_ROWS))
    return entries
