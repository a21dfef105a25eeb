"""Commented job files to begin from, one `<kind>.yaml` in this folder each: a new file here is a new template.

The first line of a template, a comment, says in one sentence what it is for. Called by `job init` and by programs.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TextIO

from ...errors import Conflict, InvalidInput
from ...problem import suggest

_ENDING = ".yaml"


def template_kinds() -> dict[str, str]:
    """kind -> what it is for, in alphabetical order."""
    found = {
        entry.name.removesuffix(_ENDING): entry.read_text("utf-8").partition("\n")[0].lstrip("# ")
        for entry in files(__name__).iterdir()
        if entry.name.endswith(_ENDING)
    }
    return dict(sorted(found.items()))


def job_template(kind: str) -> str:
    """The text of a commented, valid job file. Raises InvalidInput "jobfile.no_template"."""
    kinds = template_kinds()
    if kind not in kinds:
        sentence = f"There is no template {kind!r}."
        raise InvalidInput("jobfile.no_template", sentence, next_step=suggest(kind, kinds, what="templates"))
    return files(__name__).joinpath(kind + _ENDING).read_text("utf-8")


def write_template(kind: str, path: Path) -> None:
    """Writes a template where no file is yet. Raises like `job_template`, and Conflict "jobfile.exists"."""
    text = job_template(kind)
    try:
        with path.open("x", encoding="utf-8") as file:
            _fill(file, text, path)
    except FileExistsError:
        raise Conflict(
            "jobfile.exists",
            "There is a file of this name already; nothing was changed.",
            next_step=f"Name another:  shardwork job init {kind} other.yaml",
            file=path,
        ) from None


def _fill(file: TextIO, text: str, path: Path) -> None:
    """Half a template would be in the way of the next try."""
    try:
        file.write(text)
        file.flush()
    except OSError:
        path.unlink(missing_ok=True)
        raise
