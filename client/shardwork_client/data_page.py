"""What a data check found, as a page: format, counts, lengths, rows with their loss mask visible, and every problem.

Bright text is learned (in «» without colour), dim text is only read. Used by `data check`, and by `plan_page` for the
preview. The JSON form is the report's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.dataset import DataReport
from shardwork.dataset.lengths import Layout, Packing
from shardwork.dataset.report import Sample
from shardwork.dataset.sufficiency import Size, Sufficiency
from shardwork.problem import Problem

from .render import PROBLEMS_SHOWN, clean, pairs, problem_block

#: a row longer than this is cut in the preview
PREVIEW_LETTERS = 600
SHOWN_PER_KIND = 3
BAR_WIDTH = 30
LEARNED_STYLE = "bold green"
SIZE_STYLES = {Size.TRAINING: "bold green", Size.THIN: "bold yellow", Size.RAG: "bold red"}
VERDICT_STYLES = {"ok": "bold green", "warnings": "bold yellow"}


def page(report: DataReport) -> RenderableType:
    """The report: counts, first rows, problems, and the verdict at the end. Of files that hold no row, the problems."""
    parts: list[RenderableType] = [_counts(report)] if report.rows else []
    preview = preview_of(report, limit=3)
    if preview is not None:
        parts += [Text(""), preview]
    for problem in report.warnings[:PROBLEMS_SHOWN]:
        parts += [Text(""), problem_block(problem, failed=False)]
    parts += _errors(report)
    if report.sufficiency is not None:
        parts += [Text(""), enough(report.sufficiency)]
    verdict = str(report.verdict)
    if not report.rows:
        parts = parts[1:]  # the blank line above the first problem
    return Group(*parts, Text(""), Text.assemble("verdict  ", (verdict, VERDICT_STYLES.get(verdict, "bold red"))))


def enough(found: Sufficiency) -> RenderableType:
    """ "thin" with its reasons, each with what to do."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("enough?", Text(str(found.size), style=SIZE_STYLES[found.size]))
    for reason in found.reasons:
        grid.add_row("", Text.assemble(reason.sentence, (f" {reason.fix}" if reason.fix else "", "dim")))
    return grid


def sources_table(report: DataReport) -> Table:
    """Each source with its rows and how many of them a pass reads."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    for source in report.sources:
        times = "" if source.weight == 1 else f" x {source.weight:g} = {figures.count(source.reads)}"
        grid.add_row(clean(source.name), f"{figures.count(source.rows)} rows{times}", Text(source.shape, style="dim"))
    return grid


def _errors(report: DataReport) -> list[RenderableType]:
    """The first errors of each kind: one slip of a converter often spoils every row in the same way."""
    kinds: dict[str, list[Problem]] = {}
    for problem in report.errors:
        kinds.setdefault(problem.code, []).append(problem)
    parts: list[RenderableType] = []
    for problems in kinds.values():
        for problem in problems[:SHOWN_PER_KIND]:
            parts += [Text(""), problem_block(problem, failed=True)]
        more = problems[SHOWN_PER_KIND:]
        if more:
            where = ", ".join(f"{clean(problem.file)}:{problem.line}" for problem in more[:3] if problem.line)
            parts.append(Text(f"  … and {len(more)} more like it: {where}{' …' if len(more) > 3 else ''}", style="dim"))
    unlisted = report.num_errors - len(report.errors)
    if unlisted > 0:
        parts += [Text(""), Text(f"… and {figures.count(unlisted)} errors beyond these.", style="dim")]
    return parts


def _counts(report: DataReport) -> Table:
    rows: list[tuple[str, RenderableType]] = [
        ("format", report.written or "none recognised"),
        ("rows", figures.count(report.rows)),
        ("tokens", tokens_text(report)),
    ]
    if len(report.sources) > 1:
        rows.append(("sources", sources_table(report)))
    if report.eval_rows:
        rows.append(("held out", f"{figures.count(report.eval_rows)} rows"))
    if report.histogram:
        rows.append(("row length", _histogram(report)))
    if report.packing is not None:
        rows.append(("packing", packing_text(report.packing)))
    return pairs(rows)


def packing_text(found: Packing) -> str:
    """What padding wastes of these rows, and what packing makes of them: what the job does first, then the other."""
    padded = f"in batches of {found.batch_size} about {figures.percent(found.padding)} is padding"
    sequences = f"{figures.count(found.sequences)} sequences of {figures.count(found.max_length)}"
    gap = f"of which {figures.percent(found.gap)} stays empty"
    if found.layout is Layout.PACKED:
        return f"{figures.count(found.rows)} rows in {sequences}, {gap}; padded, {padded}"
    times = f"{found.rows_a_sequence:.1f} times the rows for the same price"
    return f"none: {padded}; packing: true would lay the rows into {sequences}, {gap}: {times}"


def tokens_text(report: DataReport) -> str:
    """ "10,240, of which 61 % are learned", or that it is an estimate."""
    if not report.rows:
        return "0"
    if report.is_estimated:
        return f"about {figures.count(report.tokens)}, estimated from the size; no tokenizer was given"
    share = report.loss_tokens / report.tokens if report.tokens else 0.0
    return f"{figures.count(report.tokens)}, of which {figures.percent(share)} are learned"


def _histogram(report: DataReport) -> Table:
    most = max(rows for _, rows in report.histogram)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    for top, rows in report.histogram:
        full, _ = figures.bar(rows / most, BAR_WIDTH)
        label = f"≤ {figures.count(top)}" if top < 1 << 30 else "longer"
        grid.add_row(label, Text(full, style="cyan"), figures.count(rows))
    return grid


def preview_of(report: DataReport, *, limit: int) -> Preview | None:
    """The first rows to show; None when no tokenizer could render them."""
    samples = tuple(sample for sample in report.preview if any(text for text, _ in sample.pieces))[:limit]
    return Preview(samples) if samples else None


@dataclass(frozen=True, slots=True)
class Preview:
    """Rows as the model reads them, one bar a row. Where there is no colour, «» enclose what is learned."""

    samples: tuple[Sample, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_plain = console.no_color or console.color_system is None
        yield self._head(is_plain=is_plain)
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for sample in self.samples:
            grid.add_row("", Text(f"{clean(sample.file)}:{sample.line}", style="dim italic"))
            for line in row_text(sample.pieces, is_plain=is_plain).split("\n", allow_blank=True):
                grid.add_row(Text("│", style="cyan"), line)
        yield grid

    def _head(self, *, is_plain: bool) -> Text:
        """Nothing is learned of what people or a judge compare, nor of a prompt."""
        if not any(is_learned for sample in self.samples for _, is_learned in sample.pieces):
            return Text("first rows as they are read:")
        learned = ("between « and » is learned", "") if is_plain else ("bright is learned", LEARNED_STYLE)
        return Text.assemble("first rows as the model reads them: ", learned, ", ", ("the rest is only read", "dim"))


def row_text(pieces: Sequence[tuple[str, bool]], *, is_plain: bool = False) -> Text:
    """One row: line breaks kept, control characters made visible, long rows cut with an ellipsis."""
    text, left = Text(), PREVIEW_LETTERS
    for piece, is_learned in pieces:
        shown = "\n".join(clean(line) for line in piece.split("\n"))[: max(left, 0)]
        if is_learned and is_plain:
            shown = f"«{shown}»"
        text.append(shown, style=LEARNED_STYLE if is_learned else "dim")
        left -= len(piece)
        if left < 0:
            text.append(" …", style="dim")
            break
    return text
