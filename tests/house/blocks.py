"""Shell blocks of the written pages, and what is to happen to each: it is run, or a reason says why not.

The convention, for every page under docs/ and the README:

    ```console            a block that the tests run, in the order of its page. `$ ` begins a command, a `\\` at its end
    $ shardwork …         goes on in the next line, every other line is what was printed, for the reader only.
    ```

    <!-- not run: REASON -->   right above a block: it can't be run here (a cluster, a GPU, root), and why
    <!-- exit: 3 -->           right above a block: its last command leaves with this
    <!-- as: provider -->      from here on the page is somebody else's: requester, provider, operator
    ```yaml title="job.yaml"   a file that later commands read

Any other block that looks like a shell's is refused by `test_blocks`. The README's indented blocks are commands without
prompts. Owns reading only; `tests/docs` runs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .tree import ROOT

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)(?P<rest>[^`]*)$")
MARK = re.compile(r"^\s*<!-- (?P<what>not run|exit|as): (?P<value>.+?) -->\s*$")
TITLE = re.compile(r'title="([^"]+)"')
SHELLS = frozenset({"console", "sh", "bash", "shell", "zsh"})
#: a block without a language is a shell's when it begins with one of these
PROGRAMS = re.compile(
    r"^(\$ |(sudo |[A-Z_]+=\S+ )*(shardwork(-worker|-coordinator)?|make|pip|python3?|docker|podman|kubectl|helm|"
    r"systemctl|apt(-get)?|createdb|curl|git|openssl|rsync|export) )"
)
#: blocks of these pages are indented, and their commands have no prompts; their YAML is the job file
PROMPTLESS = frozenset({"README.md"})
GENERATED = "docs/reference/"


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    #: of its first line
    line: int
    language: str
    text: str
    #: file name of a block that later commands read
    title: str = ""
    #: why it is not run; empty: it is
    reason: str = ""
    #: what its last command leaves with
    exit_code: int = 0
    #: whose machine it is run on
    role: str = "requester"

    @property
    def is_shell(self) -> bool:
        return self.language in SHELLS or (self.language in ("", "text") and bool(PROGRAMS.match(self.text)))

    @property
    def is_run(self) -> bool:
        console = self.language == "console" or (self.page in PROMPTLESS and self.is_shell)
        return console and not self.reason and bool(self.commands)

    @property
    def commands(self) -> list[str]:
        """Without prompts and comments; a continued one is one."""
        lines = self.text.splitlines()
        if self.language == "console":
            lines = _prompted(lines)
        return [line for line in _joined(lines) if line and not line.startswith("#")]


def _prompted(lines: list[str]) -> list[str]:
    """Commands with their continuation lines; what was printed is left out."""
    kept: list[str] = []
    continued = False
    for line in lines:
        if continued or line.startswith("$ "):
            kept.append(line if continued else line.removeprefix("$ "))
            continued = line.endswith("\\")
    return kept


def _joined(lines: list[str]) -> list[str]:
    made: list[str] = [""]
    for line in lines:
        made[-1] += line.removesuffix("\\")
        if not line.endswith("\\"):
            made[-1] = _without_remark(made[-1]).strip()
            made.append("")
    return [line for line in made if line]


def _without_remark(line: str) -> str:
    return re.sub(r"\s{2,}# .*$", "", line)


def blocks(page: str, text: str) -> list[Block]:
    """Fenced blocks, and indented ones that look like a shell's, in order."""
    found: list[Block] = []
    role, marks = "requester", dict[str, str]()
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        if mark := MARK.match(line):
            if mark["what"] == "as":
                role = mark["value"]
            else:
                marks[mark["what"]] = mark["value"]
        elif fence := FENCE.match(line):
            end = _end_of(lines, number, fence["ticks"])
            body = [one.removeprefix(fence["indent"]) for one in lines[number + 1 : end]]
            title = TITLE.search(fence["rest"])
            unnamed = "job.yaml" if page in PROMPTLESS and fence["language"] == "yaml" else ""
            marks |= {"as": role, "language": fence["language"], "title": title[1] if title else unnamed}
            found.append(_block(page, number, body, marks))
            marks, number = {}, end
        elif _begins_indented(lines, number):
            end = _end_of_indented(lines, number)
            body = [one.strip() for one in lines[number:end]]
            if PROGRAMS.match(body[0]):
                found.append(_block(page, number, body, marks | {"as": role}))
            marks, number = {}, end - 1
        elif line.strip():
            marks = {}
        number += 1
    return found


def _block(page: str, number: int, body: list[str], marks: dict[str, str]) -> Block:
    return Block(
        page=page,
        line=number + 1,
        language=marks.get("language", ""),
        text="\n".join(body),
        title=marks.get("title", ""),
        reason=marks.get("not run", ""),
        exit_code=int(marks.get("exit", 0)),
        role=marks["as"],
    )


def _end_of(lines: list[str], start: int, ticks: str) -> int:
    return next((i for i in range(start + 1, len(lines)) if lines[i].strip() == ticks), len(lines))


def _begins_indented(lines: list[str], number: int) -> bool:
    above = lines[number - 1].strip() if number else ""
    return lines[number].startswith("    ") and bool(lines[number].strip()) and (not above or bool(MARK.match(above)))


def _end_of_indented(lines: list[str], start: int) -> int:
    """Blank lines stay inside; the last of them don't."""
    end = start
    for number in range(start, len(lines)):
        if lines[number].strip() and not lines[number].startswith("    "):
            break
        if lines[number].strip():
            end = number + 1
    return end


def pages() -> Iterator[tuple[str, list[Block]]]:
    """Every written page with its blocks; generated ones hold no commands to run."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(GENERATED):
            yield name, blocks(name, Path(path).read_text(encoding="utf-8"))


def unclear(found: list[Block]) -> list[str]:
    """Shell blocks that are neither run nor say why not."""
    return [
        f"{block.page}:{block.line} is a shell block that is neither run (```console, commands after '$ ') "
        "nor marked right above it (<!-- not run: REASON -->); see tests/house/blocks.py"
        for block in found
        if block.is_shell and not block.is_run and len(block.reason) < 10
    ]
