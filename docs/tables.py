"""Markdown as the generated pages use it: tables and cells that don't break them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; an empty one is an empty string."""
    lines = [_row([_cell(one) for one in row]) for row in rows]
    if not lines:
        return ""
    return "\n".join([_row(head), _row(["---"] * len(head)), *lines]) + "\n"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part.strip("\n") for part in parts if part.strip())]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
