"""Tests can fail: each asserts something, and none is switched off."""

from __future__ import annotations

import ast
from collections.abc import Mapping

import pytest

from .tree import Function, Module, assert_none, modules, planted

#: functions that a test may lean on without an `assert` of its own
ASSERTING_PREFIXES = ("assert_", "_assert_", "expect_", "_expect_", "verify")
#: calls that raise when an expectation does not hold
EXPECTATIONS = frozenset({"raises", "warns", "fail", "deprecated_call"})


def without_assertion(module: Module) -> list[str]:
    """Test functions that hold no assertion, also not through a function of the same module."""
    local = {node.name: node for node in ast.walk(module.tree) if isinstance(node, Function)}
    return [
        f"{module.path}:{name}"
        for name, node in local.items()
        if name.startswith("test_") and not _asserts(node, local, frozenset())
    ]


def _asserts(function: Function, local: Mapping[str, Function], seen: frozenset[str]) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            if called in EXPECTATIONS or called.startswith(ASSERTING_PREFIXES):
                return True
            if called in local and called not in seen and _asserts(local[called], local, seen | {called}):
                return True
    return False


def skipped_for_good(module: Module) -> list[str]:
    """Marks that switch a test off wherever it runs, and skips that no condition guards."""
    return [
        f"{module.path}:{node.lineno} {node.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, Function) and (_is_marked_off(node) or _skips_at_once(node))
    ]


def _is_marked_off(function: Function) -> bool:
    marks = [ast.unparse(one.func if isinstance(one, ast.Call) else one) for one in function.decorator_list]
    return any(mark in ("pytest.mark.skip", "pytest.mark.xfail") for mark in marks)


def _skips_at_once(function: Function) -> bool:
    calls = [line.value for line in function.body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)]
    return any(ast.unparse(call.func) in ("pytest.skip", "pytest.xfail") for call in calls)


def test_every_test_asserts_something() -> None:
    assert_none([line for module in modules("tests") for line in without_assertion(module)])


def test_no_test_is_switched_off() -> None:
    assert_none([line for module in modules("tests") for line in skipped_for_good(module)])


def test_every_file_of_tests_is_collected() -> None:
    stray = [
        module.path
        for module in modules("tests")
        if not module.name.startswith("test_")
        and any(isinstance(node, Function) and node.name.startswith("test_") for node in module.tree.body)
    ]
    assert stray == []


@pytest.mark.parametrize(
    ("body", "empty"),
    [
        ("    f()\n", True),
        ("    assert f()\n", False),
        ("    with pytest.raises(ValueError):\n        f()\n", False),
        ("    check()\ndef check():\n    inner()\ndef inner():\n    assert True\n", False),
        ("    check()\ndef check():\n    check()\n", True),
    ],
)
def test_a_test_without_assertion_is_found(body: str, empty: bool) -> None:
    assert bool(without_assertion(planted("def test_it():\n" + body))) is empty


def test_a_skip_is_found() -> None:
    assert skipped_for_good(planted("@pytest.mark.skip(reason='later')\ndef test_it(): ...")) != []
    assert skipped_for_good(planted("def test_it():\n  pytest.skip('later')")) != []
    assert skipped_for_good(planted("@pytest.mark.skipif(no_gpu())\ndef test_it(): ...")) == []
    assert skipped_for_good(planted("def test_it():\n  if no_gpu():\n    pytest.skip('no GPU')")) == []
