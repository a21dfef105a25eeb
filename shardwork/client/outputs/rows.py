"""Rows of what a job made, a page at a time: answers and preferences side by side, as the dashboard has them.

Only the pieces of the file that a page needs are fetched, each checked; no file is kept. What a row says is strangers':
`shardwork.feedback` bounds it, and who shows it cleans it. Used by `job`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ... import transfer
from ...artifact import LEAF_BYTES, Manifest
from ...errors import Conflict, InvalidInput, NotFound
from ...feedback.paging import Found, Paging, file_of_rows, leaves_of_page
from ...feedback.samples import LONGEST_SEARCH, Row, first_of_each, is_about, prompt_id, sample
from ...problem import nearest
from ...transfer import ArtifactSession
from ..results import JobStatus, Output, SamplesPage
from .download import kept

ENDING = ".rows"
MOST_ROWS = 100
#: a page does not wait longer for a coordinator that went away
GIVE_UP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A page of rows. Raises InvalidInput "samples.bad_count", "samples.bad_start" or "samples.long_words"."""

    output: str
    #: another output, whose answers to the same prompts stand beside
    beside: str = ""
    #: only prompts with these words
    search: str = ""
    rows: int = 10
    #: byte of the file at which the page begins, as the page before told
    at: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= MOST_ROWS:
            raise InvalidInput(
                "samples.bad_count",
                f"A page has 1 to {MOST_ROWS} rows, not {self.rows:,}.",
                next_step="Ask for fewer, and go on where the page ends.",
                rows=self.rows,
            )
        if self.at < 0:
            raise InvalidInput(
                "samples.bad_start",
                "No page begins before the first row.",
                next_step="Begin at 0, or where another page ended.",
                at=self.at,
            )
        if len(self.search) > LONGEST_SEARCH:
            raise InvalidInput(
                "samples.long_words",
                f"A search has at most {LONGEST_SEARCH} letters.",
                next_step="Search for fewer words.",
                letters=len(self.search),
            )


def with_rows(job: JobStatus) -> list[Output]:
    """The outputs of a job that can be read row by row."""
    return [output for output in job.outputs if output.name.endswith(ENDING)]


async def page(session: ArtifactSession, job: JobStatus, asked: Asked) -> SamplesPage:
    """Raises NotFound "samples.no_output", Conflict "samples.not_made", InvalidInput "samples.past_end", and what
    `transfer.fetch_leaf` raises."""
    output = choose(job, asked.output)
    other = choose(job, asked.beside) if asked.beside else None
    search = " ".join(asked.search.split())
    file = await _File.of(session, output)
    if asked.at and asked.at >= file.size:
        raise InvalidInput(
            "samples.past_end",
            f"The rows end at byte {file.size:,}, and none begins at {asked.at:,}.",
            next_step="Begin at 0, or where another page ended.",
            file=file.path,
        )
    found = await file.page(asked.at, asked.rows, lambda row: is_about(row, search))
    beside, is_whole = await _beside(session, other, found.rows)
    names = (output.name, other.name if other else "")
    return SamplesPage(
        output=output,
        beside=other,
        samples=tuple(sample(row, beside.get(prompt_id(row)), names) for row in found.rows),
        at=asked.at,
        next_at=found.more,
        file_bytes=file.size,
        problems=tuple(found.problems),
        beside_unread=not is_whole,
    )


def choose(job: JobStatus, name: str) -> Output:
    """The output with rows of this name; its stage's name is enough."""
    known = {output.name: output for output in with_rows(job)}
    found = known.get(name) or known.get(name + ENDING)
    if found is not None:
        return kept(found)
    if any(stage.name == name.removesuffix(ENDING) for stage in job.stages):
        raise _not_made(job, name.removesuffix(ENDING))
    # the ending that all have is no likeness
    near = nearest(name.removesuffix(ENDING), [one.removesuffix(ENDING) for one in known])
    has = f"It has: {', '.join(known)}." if known else "None of its stages has made rows."
    is_other = any(output.name == name for output in job.outputs)
    raise NotFound(
        "samples.no_output",
        f"{name} holds no rows of prompts." if is_other else f"The job has no rows called {name!r}.",
        next_step=f"Did you mean {near}{ENDING}?" if near and not is_other else has,
        job=job.id,
    )


def _not_made(job: JobStatus, stage: str) -> Conflict:
    state = next(one.state for one in job.stages if one.name == stage)
    is_over = job.is_final or state in ("done", "skipped", "failed", "cancelled")
    made = ", ".join(output.name for output in with_rows(job))
    over = f"Rows are in: {made}." if made else f"See what it did with:  shardwork job show {job.id}"
    return Conflict(
        "samples.not_made",
        f"Stage {stage} made no rows." if is_over else f"Stage {stage} has made no rows yet.",
        next_step=over if is_over else f"Follow it with:  shardwork job watch {job.id}",
        job=job.id,
        job_state=job.state,
        stage_state=state,
    )


async def _beside(session: ArtifactSession, other: Output | None, rows: list[Row]) -> tuple[dict[str, Row], bool]:
    """Rows of the other output about the same prompts, as far as one page may read; whether that was far enough."""
    wanted = {prompt_id(row) for row in rows} - {""}
    if other is None or not wanted:
        return {}, True
    found = await (await _File.of(session, other)).page(0, len(wanted), first_of_each(wanted))
    return {prompt_id(row): row for row in found.rows}, found.more is None or len(found.rows) == len(wanted)


class _File:
    """The file of rows of an output, read from afar."""

    def __init__(self, session: ArtifactSession, manifest: Manifest) -> None:
        self._session, self._manifest = session, manifest
        entry = file_of_rows(manifest)
        self.path, self.size = entry.path, entry.size
        self._first = manifest.leaf_span(entry.path)[0]

    @classmethod
    async def of(cls, session: ArtifactSession, output: Output) -> _File:
        return cls(session, await transfer.manifest_of(session, output.artifact_id, give_up_s=GIVE_UP_S))

    async def page(self, start: int, count: int, wanted: Callable[[Row], bool]) -> Found:
        paging = Paging(file=self.path, size=self.size, start=start, count=count, wanted=wanted)
        for number in leaves_of_page(start, paging.end):
            leaf = await transfer.fetch_leaf(self._session, self._manifest, self._first + number, give_up_s=GIVE_UP_S)
            offset = number * LEAF_BYTES
            if not paging.add(leaf[max(start - offset, 0) : paging.end - offset]):
                break
        return paging.found()
