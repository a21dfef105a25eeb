"""DataReport: what was found in data files, as a record and as JSON.

Owns the shape only (a contract with scripts, see docs); `check` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..problem import Problem
from .lengths import Packing
from .row import Format
from .sufficiency import Sufficiency

#: upper ends of the token histogram
BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 1 << 30)


class Verdict(StrEnum):
    OK = "ok"
    WARNINGS = "warnings"
    ERRORS = "errors"
    TOO_SMALL = "too small"


@dataclass(frozen=True, slots=True)
class Sample:
    """A row as the model will read it."""

    file: str
    line: int
    #: (text, whether it counts in the loss), in order
    pieces: tuple[tuple[str, bool], ...]


@dataclass(slots=True)
class SourceCount:
    """One source as counted: an entry of the job's `data`."""

    name: str
    weight: float = 1.0
    files: int = 0
    #: how its rows stand in the file: a format, for conversations with that word
    shape: str = ""
    #: rows that can be learnt from
    rows: int = 0
    #: how many rows one pass over the data reads, by the weight
    reads: int = 0
    tokens: int = 0
    #: of what is uploaded for files that are converted
    converted_bytes: int = 0

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "files": self.files,
            "format": self.shape or None,
            "rows": self.rows,
            "weight": self.weight,
            "reads": self.reads,
            "tokens": self.tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    #: None when no row could be read
    format: Format | None
    #: the format as the files have it: alpaca, sharegpt, or `format` itself
    written: str = ""
    rows: int
    #: tokens that training reads: after cutting, without dropped rows
    tokens: int
    loss_tokens: int
    #: no tokenizer yet: tokens were estimated from bytes
    is_estimated: bool
    max_length: int
    errors: tuple[Problem, ...]
    #: all errors; `errors` lists the first ones
    num_errors: int
    warnings: tuple[Problem, ...]
    verdict: Verdict
    reasons: tuple[str, ...]
    truncated_rows: int
    split_rows: int = 0
    #: for being too long
    dropped_rows: int = 0
    all_masked_rows: int
    duplicate_rows: int
    eval_rows: int
    #: training rows that equal a held-out one
    eval_duplicates: int
    #: training rows that are nearly a held-out one
    near_duplicates: int = 0
    #: (upper end, rows) of the buckets that hold any, before cutting
    histogram: tuple[tuple[int, int], ...]
    preview: tuple[Sample, ...]
    sources: tuple[SourceCount, ...] = ()
    eval_sources: tuple[SourceCount, ...] = ()
    #: None where there are errors, or nothing to judge
    sufficiency: Sufficiency | None = None
    #: what padding wastes and packing saves; None where documents are joined, or nothing can be counted
    packing: Packing | None = None

    def to_json(self) -> dict[str, object]:
        """The keys of `data check --json`."""
        return {
            "format": self.written or (str(self.format) if self.format else None),
            "rows": self.rows,
            "tokens": self.tokens,
            "loss_tokens": self.loss_tokens,
            "tokens_estimated": self.is_estimated,
            "max_length": self.max_length,
            "errors": [problem.to_json() for problem in self.errors],
            "error_count": self.num_errors,
            "warnings": [problem.to_json() for problem in self.warnings],
            "verdict": str(self.verdict),
            "reasons": list(self.reasons),
            "truncated_rows": self.truncated_rows,
            "split_rows": self.split_rows,
            "dropped_rows": self.dropped_rows,
            "all_masked_rows": self.all_masked_rows,
            "duplicate_rows": self.duplicate_rows,
            "eval_rows": self.eval_rows,
            "eval_duplicates": self.eval_duplicates,
            "near_duplicates": self.near_duplicates,
            "sources": [source.to_json() for source in self.sources],
            "sufficiency": self.sufficiency.to_json() if self.sufficiency else None,
            "packing": self.packing.to_json() if self.packing else None,
            "histogram": [{"up_to": top, "rows": rows} for top, rows in self.histogram],
            "preview": [
                {
                    "file": sample.file,
                    "line": sample.line,
                    "pieces": [{"text": text, "loss": counts} for text, counts in sample.pieces],
                }
                for sample in self.preview
            ],
        }
