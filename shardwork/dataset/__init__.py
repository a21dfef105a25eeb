"""Rows of training data: read, recognised, rendered, tokenised, checked.

    source    files -> lines with their place           rows       lines -> rows of a known format
    template  chat templates, rendered in a jailed child  tokenise   rows -> token ids and a loss mask
    check     what a person reads before paying          report     its shape
    split     which rows are held out
    vocabulary  a tokenizer trained on the data          render_child  the jailed side of template

Without torch, transformers or numpy: the client uses it as it is. `shardwork.recipes.prepare` writes what it yields.
"""

from __future__ import annotations

from .check import CheckOptions, check_data, raise_errors
from .report import DataReport, Verdict
from .rows import Format

__all__ = ["CheckOptions", "DataReport", "Format", "Verdict", "check_data", "raise_errors"]
