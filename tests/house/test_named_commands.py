"""What a sentence tells people to run is there: every command and option that a code's sentence or next step names.

Read from the generated reference, whose own test keeps it what the code says; and from the dashboard's pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .tree import ROOT, assert_none

REFERENCE = ROOT / "docs" / "reference"
PAGES = ROOT / "coordinator" / "shardwork_coordinator" / "web" / "templates"
PROGRAMS = ("shardwork", "shardwork-worker", "shardwork-coordinator")
COMMAND = re.compile(r"(?<![\w/.-])(shardwork(?:-worker|-coordinator)?) ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
#: options of pip and systemctl that a sentence names
OTHERS = frozenset({"--force-reinstall", "--user"})


def known() -> tuple[dict[str, set[str]], set[str]]:
    """(program -> its commands as "job submit", with their groups as "job"), and every option of any program."""
    commands: dict[str, set[str]] = {}
    options: set[str] = set()
    for program in PROGRAMS:
        page = (REFERENCE / f"{program}.md").read_text(encoding="utf-8")
        found = set(re.findall(rf"^## {program} (.+)$", page, re.MULTILINE))
        commands[program] = found | {name.split()[0] for name in found}
        options |= set(OPTION.findall(page))
    return commands, options


def misnamed(text: str, commands: dict[str, set[str]], options: set[str]) -> Iterator[str]:
    for program, verb, word in COMMAND.findall(text):
        names = commands[program]
        if verb not in names:
            yield f"{program} {verb}"
        elif any(name.startswith(f"{verb} ") for name in names) and word and f"{verb} {word}" not in names:
            yield f"{program} {verb} {word}"
    yield from (one for one in OPTION.findall(text) if one not in options | OTHERS)


def test_every_command_and_option_that_is_named_is_there() -> None:
    commands, options = known()
    codes = (REFERENCE / "codes.md").read_text(encoding="utf-8").splitlines()
    texts = {f"codes.md:{number}": line for number, line in enumerate(codes, 1)}
    texts |= {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(PAGES.rglob("*.html"))}
    assert len(texts) > 500
    assert_none(f"{at}: {name}" for at, text in texts.items() for name in misnamed(text, commands, options))


def test_a_command_or_option_that_is_not_there_is_found() -> None:
    commands, options = known()
    text = "Run `shardwork job sbumit x`, `shardwork wallte`, or `shardwork-worker start --payout-adress A`."
    assert list(misnamed(text, commands, options)) == ["shardwork job sbumit", "shardwork wallte", "--payout-adress"]
    assert list(misnamed("`shardwork job submit job.yaml --yes`", commands, options)) == []
