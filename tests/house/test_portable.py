"""Portable text: no file names a folder of somebody's machine or the host that packages came from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .tree import ROOT, assert_none, files

#: written in pieces, so that this file is not its own first finding
MACHINE = re.compile(r"(?<![\w.~$}*<>-])/(?:" + "work|root|home|Users|mnt|workspace" + r")/[\w.]+")
HOSTS = re.compile(
    "|".join(
        re.escape(host)
        for host in (
            "pypi" + ".org",
            "pythonhosted" + ".org",
            "npmjs" + ".org",
            "registry.yarn" + "pkg",
            "download.py" + "torch.org",
            "crates" + ".io",
            "conda" + ".anaconda.org",
        )
    )
    + "|"
    + "|".join(("index" + "-url", "trusted" + "-host", "find" + "-links"))
)


def unportable(name: str, text: str) -> list[str]:
    return [
        f"{name}:{number} {found[0]}"
        for number, line in enumerate(text.splitlines(), start=1)
        for pattern in (MACHINE, HOSTS)
        if (found := pattern.search(line))
    ]


def _text(path: Path) -> str:
    """The file's text; a binary file has none."""
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")


def test_no_file_names_a_machine_or_a_package_host() -> None:
    found = [line for path in files() for line in unportable(path.relative_to(ROOT).as_posix(), _text(path))]
    assert_none(found)


@pytest.mark.parametrize("text", ["see /" + "root/x.txt", "pip install --index" + "-url x", "https://pypi" + ".org/y"])
def test_an_unportable_line_is_found(text: str) -> None:
    assert unportable("x.md", "first\n" + text) != []


def test_relative_paths_and_addresses_are_portable() -> None:
    assert unportable("x.md", "./work/a ~/work/b https://example.org/work/c $HOME/root/d") == []
