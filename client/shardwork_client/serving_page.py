"""What `job serve-check` found: as a page, and as JSON.

What the model says comes from a stranger's weights, so it passes `render.clean`. The check is `shardwork.serving`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.serving.results import EngineFit, Fit, Merged, ServeCheck

from .render import clean, pairs
from .views import Json

_MARKS = {Fit.LIKELY: ("✓", "green"), Fit.UNKNOWN: ("?", "yellow"), Fit.NO: ("✗", "red")}


def page(found: ServeCheck) -> RenderableType:
    """Facts, the answer, and one block a server; then the same of what was merged."""
    loaded = found.loaded
    size = f"{loaded.parameters:,} parameters in {loaded.dtype}"
    if loaded.adapter_parameters:
        size += f", {loaded.adapter_parameters:,} of them the adapter's"
    template = "yes" if loaded.has_chat_template else "none"
    if loaded.template_error:
        template = f"cannot be used: {clean(loaded.template_error)}"
    rows: list[tuple[str, RenderableType]] = [
        ("loads", Text(f"yes, in {loaded.seconds:.1f} s", style="green")),
        (found.kind, f"{found.architecture}, {size}"),
        *([("base", str(found.base))] if found.base else []),
        ("tokenizer", f"{loaded.tokenizer}, {loaded.tokens:,} tokens"),
        ("chat template", template),
        ("asked", repr(clean(loaded.prompt))),
        ("answered", f"{clean(loaded.answer)!r}  ({loaded.answer_tokens} tokens in {loaded.answer_seconds:.1f} s)"),
    ]
    parts: list[RenderableType] = [pairs(rows), Text(""), engines_table(found.engines)]
    if found.merged:
        parts += [Text(""), *_merged(found.merged)]
    return Group(*parts)


def _merged(merged: Merged) -> list[RenderableType]:
    logits = (
        f"differ by at most {merged.difference:.2g} ({merged.tolerance:.2g} allowed); "
        f"{merged.agreement:.0%} of choices are the same"
    )
    rows = [("merged", f"{merged.folder}  {figures.size(merged.bytes)}"), ("logits", logits)]
    return [pairs(rows), Text(""), engines_table(merged.engines)]


def engines_table(engines: Sequence[EngineFit]) -> Table:
    """Verdict, reasons and how to start it, a server. Where something is in doubt, what is not is only named."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for engine in engines:
        mark, style = _MARKS[engine.fit]
        grid.add_row(Text(engine.engine, style="bold"), Text(f"{mark} {engine.fit}", style=style), "")
        doubts = [finding for finding in engine.findings if finding.fit is not Fit.LIKELY]
        for finding in doubts or engine.findings:
            mark, style = _MARKS[finding.fit]
            words = Text.assemble((f"{mark} ", style), clean(finding.sentence))
            grid.add_row("", Text(finding.about, style="dim"), words)
        if doubts:
            fine = ", ".join(finding.about for finding in engine.findings if finding.fit is Fit.LIKELY)
            grid.add_row("", Text("fine", style="dim"), Text(f"✓ {fine}", style="dim"))
        for line in engine.how:
            grid.add_row("", "", Text(f"→ {clean(line)}", style="cyan"))
    return grid


def check_json(found: ServeCheck) -> Json:
    """The fields of `ServeCheck`, with paths as text."""
    plain = dataclasses.asdict(found, dict_factory=_plain)
    return {"loads": True, **plain}


def _plain(fields: list[tuple[str, object]]) -> dict[str, object]:
    return {name: str(value) if isinstance(value, Path | Fit) else value for name, value in fields}
