"""Rows of training data: read, recognised, rendered, tokenised, checked.

    source       files -> lines with their place          containers   JSON lists, CSV, Parquet -> the same lines
    rows         lines -> rows of a recognised format     formats      what each format asks of its values
    row          formats, keys, who reads which           mapping      a file's own names -> ours
    template     chat templates, in a jailed child        render_child the jailed side of it
    tokenise     rows -> token ids and a loss mask        lengths      rows that are too long; packing
    pairing      the same of judged answers               exchange     judged pairs of other programs
    check        what a person reads before paying        count        its counters
    report       its shape                                sufficiency  enough to train on, or a case for retrieval
    split        which rows are held out                  near         rows that are nearly the same
    weights      how often a source's rows are read       staged       what is uploaded
    vocabulary   a tokenizer trained on the data

Without torch, transformers or numpy: the client uses it as it is; pyarrow only where Parquet is read.
`shardwork.recipes.prepare` writes what it yields.
"""

from __future__ import annotations

from .check import CheckOptions, check_data, raise_errors
from .line import Source
from .report import DataReport, Verdict
from .row import Format

__all__ = ["CheckOptions", "DataReport", "Format", "Source", "Verdict", "check_data", "raise_errors"]
