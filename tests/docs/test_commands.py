"""Every command that a page names, in a block or in a sentence, is one that its program has, with its options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from shardwork_client import cli as client
from shardwork_coordinator import cli as coordinator
from shardwork_worker import cli as worker

from ..house.blocks import blocks
from ..house.tree import ROOT, assert_none, files

PROGRAMS: dict[str, Any] = {
    "shardwork": typer.main.get_command(client.app),
    "shardwork-worker": typer.main.get_command(worker.app),
    "shardwork-coordinator": typer.main.get_command(coordinator.app),
}
#: every program's own, made by typer
GIVEN = frozenset({"--help", "-h", "--install-completion", "--show-completion"})
SPAN = re.compile(r"(?<!`)`((?:[A-Z_]+=\S+ )*shardwork(?:-worker|-coordinator)? [^`]+)`(?!`)")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
#: a shell goes on with something else behind these, and a sentence with a remark in brackets
ENDS = frozenset({"|", "&&", ";", "&", ">", "2>", "#", "$("})


def unknown(command: str) -> str:
    """What of the command its program does not have; empty when it has all of it."""
    words = _words(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if not words or words[0] not in PROGRAMS:
        return ""
    at = PROGRAMS[words.pop(0)]
    while words and words[0] not in ENDS and not words[0].startswith(("2>", ">", "(")):
        word = words.pop(0)
        inner = getattr(at, "commands", {})
        if re.match(r"--?[a-z]", word):
            known = _options(at)
            if word.partition("=")[0] not in known:
                return word
            if known[word.partition("=")[0]] and "=" not in word:
                del words[:1]
        elif inner and not word.isupper():
            if word not in inner:
                return word
            at = inner[word]
    return ""


def _options(command: Any) -> dict[str, bool]:
    """Name -> whether a value follows it."""
    found = {name: not one.is_flag for one in command.params if _is_option(one) for name in _names(one)}
    return found | dict.fromkeys(GIVEN, False)


def _is_option(one: Any) -> bool:
    return str(one.param_type_name) == "option"


def _names(one: Any) -> list[str]:
    return [*one.opts, *one.secondary_opts]


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command.replace("…", " "), comments=True)
    except ValueError:
        return command.split()


def _named(page: str, text: str) -> Iterator[str]:
    for block in blocks(page, text):
        if block.is_shell:
            yield from block.commands or [line.strip() for line in block.text.splitlines()]
    for found in SPAN.finditer(FENCED.sub("", text)):
        # `pause | resume ID` is a choice of commands, said short
        if " | " not in found[1]:
            yield " ".join(found[1].split())


def test_every_command_that_a_page_names_exists_with_its_options() -> None:
    wrong: list[str] = []
    count = 0
    for path in files():
        page = path.relative_to(ROOT).as_posix()
        if path.suffix == ".md" and page != "CHANGELOG.md":
            for command in _named(page, path.read_text(encoding="utf-8")):
                count += 1
                if part := unknown(command):
                    wrong.append(f"{page}: `{command}` has no {part}")
    assert count > 100
    assert_none(wrong)


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("shardwork job submitt job.yaml", "submitt"),
        ("shardwork job submit job.yaml --max-sat 5", "--max-sat"),
        ("SHARDWORK_HOME=x shardwork-worker begin JOIN", "begin"),
        ("shardwork job submit job.yaml --yes --watch", ""),
        ("shardwork --join LINE job list", ""),
        ("shardwork-worker start JOIN --name one &", ""),
        ("shardwork job list | grep x --nothing", ""),
        ("ls --color", ""),
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str, part: str) -> None:
    assert unknown(command) == part
