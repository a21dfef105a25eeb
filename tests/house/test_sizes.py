"""Sizes: files, functions, parameters and packages stay small enough to read in one go.

Parameters and packages are ratchets: today's offenders are listed with their size and may only shrink.
"""

from __future__ import annotations

import ast
from collections import Counter

from .tree import EVERYTHING, SOURCES, Function, Module, assert_none, functions, modules, planted

MOST_LINES_A_FILE = 600
MOST_LINES_A_FUNCTION = 70
MOST_PARAMETERS = 6
MOST_MODULES = 20

#: functions with more parameters than we want, and how many they have
MANY_PARAMETERS: dict[str, int] = {
    "coordinator/shardwork_coordinator/app.py:_add_services": 7,
    "coordinator/shardwork_coordinator/rpc/jobs.py:_draft": 8,
    "coordinator/shardwork_coordinator/machine/judging.py:offer_again": 7,
    "coordinator/shardwork_coordinator/machine/judging.py:rejected": 7,
    "coordinator/shardwork_coordinator/machine/verdicts.py:decide": 7,
    "coordinator/shardwork_coordinator/machine/verdicts.py:history": 7,
    "shardwork/tensors/checkpoint.py:write_checkpoint": 7,
    "shardwork/tensors/checkpoint.py:write_delta": 8,
    "shardwork/tensors/checkpoint.py:write_step": 8,
    "tests/coordinator/aggregate/rounds.py:run": 7,
}
#: packages with more modules than we want, and how many they hold
LARGE_PACKAGES: dict[str, int] = {}


def long_files(module: Module) -> list[str]:
    lines = module.text.count("\n")
    return [f"{module.path} has {lines} lines"] if lines > MOST_LINES_A_FILE else []


def long_functions(module: Module) -> list[str]:
    return [
        f"{module.path}:{name} has {_lines(function)} lines"
        for name, function in functions(module.tree)
        if _lines(function) > MOST_LINES_A_FUNCTION
    ]


def many_parameters(module: Module) -> dict[str, int]:
    """Functions above the limit. A command's parameters are its flags, so commands don't count."""
    return {
        f"{module.path}:{name}": _parameters(function)
        for name, function in functions(module.tree)
        if _parameters(function) > MOST_PARAMETERS and not _is_command(function)
    }


def modules_per_package(found: list[Module]) -> dict[str, int]:
    counts = Counter(
        module.path.rpartition("/")[0] for module in found if module.name not in ("__init__.py", "__main__.py")
    )
    return {package: number for package, number in counts.items() if number > MOST_MODULES}


def outgrown(now: dict[str, int], listed: dict[str, int]) -> list[str]:
    """What grew beyond its listed size, and what shrank so that the list is out of date."""
    grown = [f"{name} has {size}, listed {listed.get(name, 'as none')}" for name, size in now.items()]
    grown = [line for line, (name, size) in zip(grown, now.items(), strict=True) if size > listed.get(name, 0)]
    shrunk = [
        f"{name} shrank to {now.get(name, 'the limit')}: lower or drop its entry"
        for name, size in listed.items()
        if now.get(name, 0) < size
    ]
    return grown + shrunk


def _lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _parameters(function: Function) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return sum(1 for name in names if name not in ("self", "cls"))


def _is_command(function: Function) -> bool:
    called = [one.func for one in function.decorator_list if isinstance(one, ast.Call)]
    return any(isinstance(one, ast.Attribute) and one.attr in ("command", "callback") for one in called)


def test_no_file_is_longer_than_600_lines() -> None:
    assert_none([line for module in modules(*EVERYTHING) for line in long_files(module)])


def test_no_function_is_longer_than_70_lines() -> None:
    assert_none([line for module in modules(*EVERYTHING) for line in long_functions(module)])


def test_functions_with_more_than_six_parameters_do_not_grow() -> None:
    now: dict[str, int] = {}
    for module in modules(*EVERYTHING):
        now |= many_parameters(module)
    assert_none(outgrown(now, MANY_PARAMETERS))


def test_packages_with_more_than_twenty_modules_do_not_grow() -> None:
    assert_none(outgrown(modules_per_package(modules(*SOURCES)), LARGE_PACKAGES))


def test_a_long_file_and_a_long_function_are_found() -> None:
    body = "def f() -> None:\n" + "    print(1)\n" * 650
    assert long_files(planted(body)) == ["shardwork/planted.py has 651 lines"]
    assert long_functions(planted("class A:\n  def f(self):\n" + "    print(1)\n" * 70)) == [
        "shardwork/planted.py:A.f has 71 lines"
    ]
    assert long_functions(planted("def f():\n" + "    print(1)\n" * 69)) == []


def test_a_seventh_parameter_is_found_but_not_in_a_command() -> None:
    many = "def f(self, a, b, c, d, *, e, g, h): ..."
    assert many_parameters(planted(many)) == {"shardwork/planted.py:f": 7}
    assert many_parameters(planted("@app.command('x')\n" + many)) == {}


def test_a_crowded_package_is_found() -> None:
    crowd = [planted("", f"shardwork/m{number}.py") for number in range(21)]
    assert modules_per_package([*crowd, planted("", "shardwork/__init__.py")]) == {"shardwork": 21}


def test_a_ratchet_refuses_growth_and_stale_entries() -> None:
    assert outgrown({"f": 8}, {"f": 8}) == []
    assert outgrown({"f": 9}, {"f": 8}) == ["f has 9, listed 8"]
    assert outgrown({"g": 7}, {}) == ["g has 7, listed as none"]
    assert outgrown({}, {"f": 8}) == ["f shrank to the limit: lower or drop its entry"]
