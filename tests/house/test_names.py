"""Names and first lines: every module says what it owns, is named after a noun, and leaves nothing "for later"."""

from __future__ import annotations

import ast
import re

import pytest

from .tree import EVERYTHING, Module, assert_none, modules, planted

#: words that say nothing about what a file or class owns
EMPTY_WORDS = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"})
#: written apart, so that this file is not its own first finding
LATER = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")


def missing_docstring(module: Module) -> list[str]:
    """An empty __init__ needs none."""
    if not module.text.strip() or ast.get_docstring(module.tree):
        return []
    return [f"{module.path} has no docstring"]


def empty_names(module: Module) -> list[str]:
    parts = [module.path.removesuffix(".py"), *(n.name for n in ast.walk(module.tree) if isinstance(n, ast.ClassDef))]
    return [f"{module.path}: {part}" for part in parts if EMPTY_WORDS & _words(part)]


def left_for_later(module: Module) -> list[str]:
    return [
        f"{module.path}:{number} {found[0]}"
        for number, line in enumerate(module.text.splitlines(), start=1)
        if (found := LATER.search(line))
    ]


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)}


def test_every_module_says_what_it_owns() -> None:
    assert_none([line for module in modules(*EVERYTHING) for line in missing_docstring(module)])


def test_no_file_or_class_has_a_name_that_says_nothing() -> None:
    assert_none([line for module in modules(*EVERYTHING) for line in empty_names(module)])


def test_nothing_is_left_for_later() -> None:
    assert_none([line for module in modules(*EVERYTHING) for line in left_for_later(module)])


def test_a_module_without_docstring_is_found() -> None:
    assert missing_docstring(planted("import os\n")) == ["shardwork/planted.py has no docstring"]
    assert missing_docstring(planted('"""What it owns."""\n')) == []


@pytest.mark.parametrize(
    ("path", "text", "finding"),
    [
        ("shardwork/path_utils.py", "", "shardwork/path_utils"),
        ("client/common/x.py", "", "client/common/x"),
        ("worker/x.py", "class LeaseManager: ...", "LeaseManager"),
    ],
)
def test_a_name_that_says_nothing_is_found(path: str, text: str, finding: str) -> None:
    assert empty_names(planted(text, path)) == [f"{path}: {finding}"]


def test_a_mark_for_later_is_found() -> None:
    assert left_for_later(planted("x = 1  # " + "TO" + "DO: mend\n")) == ["shardwork/planted.py:1 " + "TO" + "DO"]
    assert left_for_later(planted("todo = 'XXXL'\n")) == []


def test_every_finding_is_shown() -> None:
    with pytest.raises(AssertionError, match=r"a\.py\nb\.py"):
        assert_none(["a.py", "b.py"])
    assert_none([])
