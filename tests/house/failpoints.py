"""Failpoint names read from the source: every commit of the coordinator and every effect that names itself.

`shardwork_coordinator.failpoints` makes a name from the frame that calls `store.write`; this module makes the same
names from the syntax tree. Used by `tests/chaos`, which kills the coordinator at each, and by the house test.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .tree import Module, modules

PACKAGE = "coordinator/shardwork_coordinator/"
#: what a store is called where it is written to; the last part of the expression before `.write(`
STORES = frozenset({"store", "_store", "rows"})
#: things with a `write` that are no store: files, streams, RPC contexts, tensor writers
OTHERS = frozenset(
    {"parser", "context", "outer[which]", "steps[candidate]", "stderr", "stdout", "os", "file", "_file", "sink", "out"}
)
#: the wrapper itself
WRAPPER = PACKAGE + "failpoints.py"
#: commands that open the database by themselves, without the wrapper
UNWRAPPED = (
    PACKAGE + "cli.py",
    PACKAGE + "user_commands.py",
    PACKAGE + "model_commands.py",
    PACKAGE + "existing_store.py",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One `.write(` or `hit(` in the source."""

    module: str
    #: as Python qualifies it; "" at module level
    function: str
    #: `.write`: what it is called on; `hit`: the literal, or "" when it is none
    subject: str
    line: int

    @property
    def place(self) -> str:
        return f"{self.module}:{self.function}"


def failpoint_names() -> list[str]:
    """Every failpoint of the coordinator, sorted. Arm one as `SHARDWORK_FAILPOINT=<name>:before` or `:after`."""
    found = modules(PACKAGE.rstrip("/"))
    commits = {call.place for one in found for call in store_writes(one)}
    effects = {call.subject for one in found if one.path != WRAPPER for call in hits(one)}
    return sorted(commits | effects)


def store_writes(module: Module) -> list[Call]:
    """Commits that go through the wrapper."""
    if module.path in (WRAPPER, *UNWRAPPED):
        return []
    return [call for call in writes(module) if _last(call.subject) in STORES]


def writes(module: Module) -> list[Call]:
    """Every call of a method named `write`."""
    return [
        Call(_name(module), function, ast.unparse(node.func.value), node.lineno)
        for function, node in _calls(module.tree, "")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "write"
    ]


def unknown_writes(found: Iterable[Module]) -> list[str]:
    """Calls of `write` on something that neither list names: is it a store?"""
    return [
        f"{one.path}:{call.line} {call.subject}.write"
        for one in found
        if one.path != WRAPPER
        for call in writes(one)
        if _last(call.subject) not in STORES | OTHERS
    ]


def nameless(found: Iterable[Module]) -> list[str]:
    """Commits and effects that a test could not aim at: at module level, in a lambda, or named as the program runs."""
    return [
        f"{one.path}:{call.line} {call.place}"
        for one in found
        if one.path != WRAPPER
        for call in (*store_writes(one), *hits(one))
        if not call.function or "<lambda>" in call.function or "comp>" in call.function or not call.subject
    ]


def hits(module: Module) -> list[Call]:
    return [
        Call(_name(module), function, _literal(node), node.lineno)
        for function, node in _calls(module.tree, "")
        if isinstance(node.func, ast.Name) and node.func.id == "hit"
    ]


def _calls(tree: ast.AST, inside: str) -> Iterator[tuple[str, ast.Call]]:
    """(qualified name of the code object that makes the call, call)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield inside.removesuffix(".<locals>"), node
        yield from _calls(node, _scope(node, inside))


def _scope(node: ast.AST, inside: str) -> str:
    """What the names below `node` start with, as `co_qualname` has it in Python 3.11."""
    prefix = f"{inside}." if inside else ""
    match node:
        case ast.ClassDef():
            return prefix + node.name
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return f"{prefix}{node.name}.<locals>"
        case ast.Lambda():
            return f"{prefix}<lambda>.<locals>"
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return f"{prefix}<comp>.<locals>"
        case _:
            return inside


def _literal(call: ast.Call) -> str:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _last(subject: str) -> str:
    return subject.rpartition(".")[2]


def _name(module: Module) -> str:
    """Dotted, below the package, as `__name__` has it: "payments.simulated"; a package's own is the package."""
    inner = module.path.removeprefix(PACKAGE).removesuffix(".py").removesuffix("/__init__")
    return inner.replace("/", ".")


if __name__ == "__main__":
    print("\n".join(failpoint_names()))
