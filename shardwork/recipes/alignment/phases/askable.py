"""Askable: whether a row of the requester's can be put to people, said before anything is paid for.

What makes items of rows (`people_files`) refuses the same again. Pure. Called by whoever measures a job's files.
"""

from __future__ import annotations

from ....dataset.row import Format, Row
from ....problem import Problem
from .golds import WANTED, known


def wrong_row(row: Row, kind: str, shown: int) -> Problem | None:
    """`shown`: answers that a person compares or ranks; 1 where single ones are looked at."""
    answers = {Format.ANSWERS: len(row.answers), Format.PREFERENCE: 2}.get(row.format, 1)
    if answers < shown:
        some = f"{answers} answer{'' if answers == 1 else 's'}"
        return _problem(
            row,
            "answers",
            "people.few_answers",
            f"The row has {some}, and kind {kind!r} shows {shown}.",
            "Add answers, remove the row, or set params.kind: score or review to ask about single answers.",
        )
    gold = row.extra.get("gold")
    if gold is not None and known(gold, kind, shown) is None:
        return _problem(
            row,
            "gold",
            "people.bad_gold",
            f"The row's gold is no answer that people could give: kind {kind!r} takes {WANTED[kind]}.",
            "Correct it, or leave it out: nobody who answers honestly would pass such a test.",
        )
    return None


def _problem(row: Row, key: str, code: str, sentence: str, fix: str) -> Problem:
    return Problem(file=row.file, line=row.line, key=key, code=code, sentence=sentence, fix=fix)
