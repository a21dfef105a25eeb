"""Purity: money is exact, and the core decides without clocks, chance or files."""

from __future__ import annotations

import ast

import pytest

from .tree import ROOT, Module, assert_none, imported, module, modules, planted

_COORDINATOR = "coordinator/shardwork_coordinator"
#: integers only: no float(), no division, no round()
EXACT = (
    "shardwork/money.py",
    f"{_COORDINATOR}/rpc/wallet.py",
    *(f"{_COORDINATOR}/money/{name}.py" for name in ("ledger", "movements", "pricing", "deposits", "payouts")),
)
PURE = tuple(
    f"{_COORDINATOR}/{name}.py"
    for name in ("scheduler", "queueing/fairness", "events", "money/pricing", "money/ledger", "money/movements")
)
#: what a decision must not depend on
IMPURE = frozenset(
    {"time", "datetime", "random", "secrets", "uuid", "asyncio", "threading", "os", "socket", "subprocess", "tempfile"}
)
IMPURE_CALLS = frozenset({"open", "input", "print", "exec", "eval"})


def inexact(module: Module) -> list[str]:
    found: list[str] = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            found.append(f"{module.path}:{node.lineno} divides")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("float", "round"):
            found.append(f"{module.path}:{node.lineno} calls {node.func.id}()")
    return found


def impure(module: Module) -> list[str]:
    found: list[str] = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [f"{module.path}:{node.lineno} imports {name}" for name in imported(node) if _is_impure(name)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            found.append(f"{module.path}:{node.lineno} calls {node.func.id}()")
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
            found.append(f"{module.path}:{node.lineno} waits")
    return found


def _is_impure(name: str) -> bool:
    return name.split(".")[0] in IMPURE


@pytest.mark.parametrize("path", EXACT)
def test_money_is_never_divided_rounded_or_made_a_float(path: str) -> None:
    assert inexact(module(path)) == []


@pytest.mark.parametrize("path", PURE)
def test_a_pure_module_uses_no_clock_chance_or_file(path: str) -> None:
    assert impure(module(path)) == []


def test_the_state_machine_uses_no_clock_chance_or_file() -> None:
    found = modules(f"{_COORDINATOR}/machine")
    assert len(found) >= 5, "the machine moved: mend this rule"
    assert_none([line for one in found for line in impure(one)])


def test_every_listed_module_is_there() -> None:
    assert [path for path in (*EXACT, *PURE) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [("x = a / b", "divides"), ("x /= 2", "divides"), ("f(float(x))", "calls float()"), ("round(x)", "calls round()")],
)
def test_inexact_money_is_found(text: str, finding: str) -> None:
    assert inexact(planted(text)) == [f"shardwork/planted.py:1 {finding}"]


def test_whole_division_is_exact() -> None:
    assert inexact(planted("x = -(-a // b)")) == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("import time", "imports time"),
        ("from random import choice", "imports random"),
        ("import os.path", "imports os.path"),
        ("def f():\n  return open('x')", "calls open()"),
        ("async def f(): ...", "waits"),
    ],
)
def test_an_impure_line_is_found(text: str, finding: str) -> None:
    assert any(line.endswith(finding) for line in impure(planted(text)))


def test_a_relative_import_of_ours_is_pure() -> None:
    assert impure(planted("from .time_rules import x\nfrom ..events import Change\n")) == []
