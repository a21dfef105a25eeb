"""Exchanging: votes to and from other programs' files, and preference rows of votes.

What the files look like is `shardwork.dataset.exchange`'s. A file that is there is never written over.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ...dataset.exchange import Ballot, Comparison, Shape, Winner, read, write
from ...errors import Conflict, InvalidInput, NotFound
from ...feedback.report import Judged
from ...feedback.votes import Vote
from ...recipes.alignment.phases.agreeing import preferences
from ...recipes.alignment.phases.items import item_row
from .sources import ITEMS, NAME_VOTES, VOTES

PREFERENCES = "preferences.jsonl"


class Program(StrEnum):
    """As the command line spells them."""

    ARGILLA = "argilla"
    LABEL_STUDIO = "label-studio"
    PREFERENCES = "preferences"

    @property
    def shape(self) -> Shape:
        return {"label-studio": Shape.LABEL_STUDIO}.get(self.value) or Shape(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    #: comparisons, votes on them and preference rows
    rows: int
    votes: int
    preferences: int


def export(found: Judged, program: Program, out: Path) -> Exchanged:
    """Raises NotFound "feedback.no_votes", InvalidInput "feedback.no_texts" and "feedback.no_preferences", Conflict
    "feedback.exists"."""
    if not found.pool.votes and not found.pool.unknown:
        raise NotFound(
            "feedback.no_votes",
            "There is not one vote in what you named.",
            next_step=NAME_VOTES,
        )
    if not found.pool.votes:
        raise InvalidInput(
            "feedback.no_texts",
            "Nobody knows what these votes are about: no items.jsonl lies beside them.",
            next_step="Name the folder that a job's votes were downloaded to, or the job itself.",
        )
    rows = list(comparisons(found))
    liked = list(preferences(found))
    if program is Program.PREFERENCES and not liked:
        raise InvalidInput(
            "feedback.no_preferences",
            "These votes prefer nothing: there is no row to learn from.",
            next_step="See who contradicts whom, and who themselves, with:  shardwork feedback report VOTES",
            comparisons=len(rows),
        )
    if program is Program.PREFERENCES:
        _write(out, (json.dumps(row, ensure_ascii=False) + "\n" for row in liked))
    else:
        _write(out, write(rows, program.shape))
    return Exchanged(rows=len(rows), votes=sum(len(row.ballots) for row in rows), preferences=len(liked))


def comparisons(found: Judged) -> Iterator[Comparison]:
    on: defaultdict[tuple[str, int, int], list[Vote]] = defaultdict(list)
    for vote in found.pool.votes:
        on[vote.pair].append(vote)
    verdicts = {one.pair: one for one in found.verdicts}
    for pair, votes in on.items():
        item, verdict = found.pool.items[pair[0]], verdicts.get(pair)
        winner = verdict.winner if verdict is not None else None
        yield Comparison(
            prompt_id=item.prompt_id,
            prompt=item.prompt,
            a=item.texts[pair[1]],
            b=item.texts[pair[2]],
            model_a=votes[0].model_a,
            model_b=votes[0].model_b,
            ballots=tuple(_ballots(votes)),
            winner=None if winner is None else Winner(winner.value),
            confidence=verdict.confidence if verdict is not None and winner is not None else 1.0,
        )


def _ballots(votes: Iterable[Vote]) -> Iterator[Ballot]:
    """One of each annotator: other programs know no judge that was asked twice; who flips has none."""
    said: dict[str, set[str]] = {}
    times: dict[str, int] = {}
    for vote in votes:
        said.setdefault(vote.annotator, set()).add(vote.winner.value)
        times.setdefault(vote.annotator, vote.ms)
    for name, winners in said.items():
        if len(winners) == 1:
            yield Ballot(annotator=name, winner=Winner(next(iter(winners))), ms=times[name])


def take_in(file: Path, program: Program, folder: Path) -> Exchanged:
    """Votes, what they are about, and preference rows, in a folder: all three files, or none.

    Raises InvalidInput "exchange.*" and "data.*", Conflict "feedback.exists".
    """
    for place in (folder, *(folder / name for name in (VOTES, ITEMS, PREFERENCES))):
        if place.exists() and not (place is folder and folder.is_dir()):
            raise _exists(place)
    rows = list(read(file, program.shape))
    votes = [{**vote, "prompt_id": vote["prompt_id"] or vote["item"]} for row in rows for vote in row.votes()]
    liked = [row for row in (one.preference() for one in rows) if row is not None]
    kept = [_item(row) for row in {row.item: row for row in rows}.values()]
    _write_all(folder, {VOTES: votes, ITEMS: kept, PREFERENCES: liked})
    return Exchanged(rows=len(rows), votes=len(votes), preferences=len(liked))


def _item(row: Comparison) -> Mapping[str, object]:
    return item_row(row.item, row.prompt_id or row.item, row.prompt, [(row.model_a, row.a), (row.model_b, row.b)])


def _write_all(folder: Path, files: Mapping[str, Iterable[Mapping[str, object]]]) -> None:
    """New files in a folder. Where one can't be written none stays, nor a folder that was made for them."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    try:
        for name, rows in files.items():
            _write(folder / name, _lines(rows))
            made.append(folder / name)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _lines(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(path: Path, pieces: Iterable[str]) -> None:
    """Whole or not at all: half a file would be taken for all of it."""
    try:
        sink = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise _exists(path) from None
    try:
        with sink:
            sink.writelines(pieces)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _exists(path: Path) -> Conflict:
    return Conflict(
        "feedback.exists",
        f"There is a file {path} already; nothing was changed.",
        next_step="Name another place.",
        path=path,
    )
