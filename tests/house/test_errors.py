"""Errors: the tree, the status table, the drawing and the documented exit codes say the same.

`shardwork.errors.ERRORS` is what the wire maps by; a class that is not in it would arrive as Internal.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

import grpc
import pytest

from shardwork import errors
from shardwork.errors import ERRORS, ShardworkError

from .tree import SOURCES, Module, assert_none, functions, module, modules, planted

#: the documented contract with scripts
EXIT_CODES = {
    "InvalidInput": 3,
    "NotFound": 4,
    "NotAllowed": 5,
    "NotAuthenticated": 5,
    "NotEnoughFunds": 6,
    "Unreachable": 7,
    "JobFailed": 8,
}
#: raised and caught inside one process, so never looked up by name; they add a list of problems to their parent
LOCAL = {"JobFileInvalid": "InvalidInput", "DataInvalid": "InvalidInput", "Unfit": "InvalidInput"}

DRAWN = re.compile(r"[├└]── (\w+) +exit (\d+) +([A-Z_]+)")
CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")


def error_classes(found: Iterable[Module]) -> dict[str, str]:
    """Every class below ShardworkError in the source, by name, with the base it names."""
    bases = {
        node.name: [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        for one in found
        for node in ast.walk(one.tree)
        if isinstance(node, ast.ClassDef)
    }
    known: dict[str, str] = {}
    reached = {"ShardworkError"}
    while fresh := {name for name, above in bases.items() if name not in reached and reached & set(above)}:
        known |= {name: next(base for base in bases[name] if base in reached) for name in fresh}
        reached |= fresh
    return known


def absent_from_the_table(found: Iterable[Module]) -> list[str]:
    classes = error_classes(found)
    return sorted(name for name, base in classes.items() if name not in ERRORS and LOCAL.get(name) != base)


def bad_codes(one: Module) -> list[str]:
    """Raise sites whose code is not lower-case and dotted, or is made up as the program runs."""
    found: list[str] = []
    for node in ast.walk(one.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            code = node.args[0]
            if isinstance(code, ast.Constant) and not CODE.fullmatch(str(code.value)):
                found.append(f"{one.path}:{node.lineno} {code.value!r}")
    return found


def raise_sites(one: Module) -> list[tuple[str, str, str]]:
    """(code, error class, last character of the sentence) where both are written out; "…" for a part filled in."""
    found: list[tuple[str, str, str]] = []
    for node in ast.walk(one.tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(code)), sentence, *_]) if name in ERRORS:
                found.append((code, name, _ending(sentence)))
            case _:
                pass
    return found


def _ending(sentence: ast.expr) -> str:
    last = sentence.values[-1] if isinstance(sentence, ast.JoinedStr) else sentence
    return str(last.value)[-1:] if isinstance(last, ast.Constant) else "…"


def two_classes_for_a_code(sites: Iterable[tuple[str, str, str]]) -> list[str]:
    """A script that matches a code relies on its exit status."""
    classes: dict[str, set[str]] = {}
    for code, name, _ in sites:
        classes.setdefault(code, set()).add(name)
    return [f"{code}: {', '.join(sorted(names))}" for code, names in classes.items() if len(names) > 1]


def unended(sites: Iterable[tuple[str, str, str]]) -> list[str]:
    return [code for code, _, ending in sites if ending not in (".", "?", "!", "…")]


def swallowed(one: Module) -> list[str]:
    """Handlers that catch everything and say nothing to anybody."""
    return [
        f"{one.path}:{node.lineno}"
        for node in ast.walk(one.tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) == "BaseException")
        and all(isinstance(line, ast.Pass) for line in node.body)
    ]


def test_every_error_class_is_in_the_status_table() -> None:
    assert_none(absent_from_the_table(modules(*SOURCES)))


def test_the_table_holds_nothing_that_is_not_an_error_class() -> None:
    assert set(ERRORS) <= set(error_classes([module("shardwork/errors.py")]))
    assert all(name == cls.__name__ and issubclass(cls, ShardworkError) for name, cls in ERRORS.items())


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_an_error_has_a_grpc_status_and_its_documented_exit_code(name: str) -> None:
    assert ERRORS[name].grpc_status in grpc.StatusCode.__members__
    assert ERRORS[name].grpc_status not in ("OK", "UNKNOWN")
    assert ERRORS[name].exit_code == EXIT_CODES.get(name, 1)


def test_the_drawing_in_the_docstring_is_the_table() -> None:
    drawn = {name: (int(code), status) for name, code, status in DRAWN.findall(errors.__doc__ or "")}
    assert drawn == {name: (cls.exit_code, cls.grpc_status) for name, cls in ERRORS.items()}


def test_every_code_is_lower_case_and_dotted() -> None:
    assert_none([line for one in modules(*SOURCES) for line in bad_codes(one)])


def test_a_code_has_one_class_and_its_sentence_an_end() -> None:
    sites = [site for one in modules(*SOURCES) for site in raise_sites(one)]
    assert len(sites) > 100
    assert_none(two_classes_for_a_code(sites))
    assert_none(unended(sites))


def test_nothing_swallows_every_error() -> None:
    assert_none([line for one in modules(*SOURCES) for line in swallowed(one)])


def test_an_error_class_off_the_table_is_found() -> None:
    new = planted("class Worse(Broken): ...\nclass Broken(errors.ShardworkError): ...\nclass Other(Exception): ...")
    assert absent_from_the_table([new]) == ["Broken", "Worse"]
    moved = planted("class JobFileInvalid(ShardworkError): ...")
    assert absent_from_the_table([moved]) == ["JobFileInvalid"]


def test_a_bad_code_and_a_swallowed_error_are_found() -> None:
    assert bad_codes(planted("raise NotFound('JobMissing', 'There is none.')")) == [
        "shardwork/planted.py:1 'JobMissing'"
    ]
    assert swallowed(planted("try:\n  f()\nexcept:\n  pass\n")) == ["shardwork/planted.py:3"]
    assert swallowed(planted("try:\n  f()\nexcept OSError:\n  pass\n")) == []


def test_a_code_with_two_classes_and_a_sentence_without_end_are_found() -> None:
    sites = raise_sites(planted("raise NotFound('a.b', f'No {x}')\nraise Conflict('a.b', 'There is one')\n"))
    assert two_classes_for_a_code(sites) == ["a.b: Conflict, NotFound"]
    assert unended(sites) == ["a.b"]
    assert unended(raise_sites(planted("raise NotFound('a.b', 'There is ' + 'none.')"))) == []


def test_the_planted_modules_are_read_as_the_real_ones_are() -> None:
    assert [name for name, _ in functions(planted("class A:\n  async def f(self):\n    def g(): ...").tree)] == [
        "A.f",
        "A.f.<locals>.g",
    ]
