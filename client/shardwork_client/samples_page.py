"""`job samples` in a terminal: a prompt, and under it its answers side by side, as many to a line as fit.

Texts are strangers': all of them pass `render.prose` or `clean`. What is cut and what is said of a text is
`shardwork.feedback.samples`'; JSON forms are `views`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.outputs.rows import ENDING, with_rows
from shardwork.client.results import JobStatus, SamplesPage
from shardwork.feedback.samples import SampleRow, SampleText

from .outcome import say
from .render import clean, one_line, prose, show, show_problems, table

#: columns of a text, below which there is one less to a line
LEAST_WIDTH = 34
GAP = 2
MARKS = {"chosen": ("✓ ", "bold green"), "rejected": ("✗ ", "bold red")}


def show_outputs(job: JobStatus) -> None:
    """The outputs with rows, and what made each."""
    outputs = with_rows(job)
    if not outputs:
        word, verb = ("made no rows", "show") if job.is_final else ("has made no rows yet", "watch")
        say(f"The job {word}.\n→ shardwork job {verb} {job.id}")
        return
    recipes = {stage.name: stage.recipe for stage in job.stages}
    grid = table("output", "recipe", "size", right=("size",))
    for output in outputs:
        recipe = recipes.get(output.name.removesuffix(ENDING), "")
        size = Text("deleted", style="dim") if output.deleted else figures.size(output.bytes)
        grid.add_row(clean(output.name), Text(clean(recipe), style="dim"), size)
    show(grid)
    readable = [output.name for output in outputs if not output.deleted]
    if readable:
        say(clean(f"→ shardwork job samples {job.id} {readable[-1]}"))


def show_page(page: SamplesPage, job_id: str, search: str, rows: int) -> None:
    """The rows on stdout; on stderr what is wrong with the file, and the command that shows what follows."""
    if page.samples:
        show(Samples(page.samples, outputs=2 if page.beside else 1))
    show_problems(page.problems, failed=False)
    if not page.samples:
        say(_nothing(page, search))
    if page.beside and page.beside_unread:
        say(f"Not every prompt was found in {clean(page.beside.name)}, as far as one page may read it.")
    if page.next_at is not None:
        say(f"→ next:  {_next_page(page, job_id, search, rows)}")


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows, with a line between them."""

    rows: Sequence[SampleRow]
    #: whose answers stand by turns
    outputs: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, row in enumerate(self.rows):
            if number:
                yield Rule(style="dim")
            yield from self._row(row, columns(len(row.texts), options.max_width, self.outputs))

    def _row(self, row: SampleRow, each: int) -> Iterator[RenderableType]:
        known = "  ".join(part for part in (clean(row.prompt_id), row.note) if part)
        if known:
            yield one_line(Text(known, style="dim"))
        yield _prompt(row.prompt)
        for start in range(0, len(row.texts), each):
            yield Text("")
            yield _beside(row.texts[start : start + each], each)
        if row.more:
            yield Text(f"and {figures.count(row.more)} more answer{'' if row.more == 1 else 's'}", style="dim")


def columns(texts: int, width: int, outputs: int) -> int:
    """How many texts stand on a line: as many as fit, and about as many on each; of two outputs, pairs."""
    fit = max((width + GAP) // (LEAST_WIDTH + GAP), 1)
    fit -= fit % outputs if fit >= outputs else 0
    each = -(-texts // max(-(-texts // fit), 1))
    return max(min(each + each % outputs, fit), 1)


def _next_page(page: SamplesPage, job_id: str, search: str, rows: int) -> str:
    words = ["shardwork", "job", "samples", job_id, page.output.name]
    words += ["--beside", page.beside.name] if page.beside else []
    words += ["--search", search] if search else []
    return clean(shlex.join([*words, "--rows", str(rows), "--at", str(page.next_at)]))


def _nothing(page: SamplesPage, search: str) -> str:
    if not search:
        return "There are no rows here."
    stopped = " The search stopped where one page may read no further, and goes on with the next one."
    return f"No prompt here has these words.{stopped if page.next_at is not None else ''}"


def _prompt(prompt: SampleText) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in _body(prompt).split("\n", allow_blank=True):
        grid.add_row(Text("│", style="cyan"), line)
    return grid


def _beside(texts: Sequence[SampleText], columns: int) -> Table:
    grid = Table.grid(padding=(0, GAP, 0, 0), expand=True)
    for _ in range(columns):
        grid.add_column(ratio=1, overflow="fold")
    grid.add_row(*(_head(text) for text in texts))
    grid.add_row(*(_body(text) for text in texts))
    return grid


def _head(text: SampleText) -> Text:
    mark, style = MARKS.get(text.mark, ("", "bold"))
    return Text.assemble((f"{mark}{clean(text.label)}", style), (f"\n{text.note}" if text.note else "", "dim"))


def _body(text: SampleText) -> Text:
    shown = Text(prose(text.text.rstrip()))
    if not shown:
        shown = Text("(nothing)", style="dim")
    if text.more:
        shown.append(f"\nand {figures.count(text.more)} more letters", style="dim")
    return shown
