"""The page of codes: every stable code with its sentence, read from where the source raises, refuses or explains.

A code counts when it is the first argument or `code=` of a call, and the next argument or `sentence=` is its sentence.
Parts that are filled in as the program runs show as `…`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tables import code, page, table

from shardwork.errors import ERRORS

ROOT = Path(__file__).parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef
SOURCES = ("shardwork", "coordinator", "worker", "client")
CODE = re.compile(r"([a-z][a-z0-9_]*|…)(\.[a-z0-9_]+)+")
#: calls whose first two texts look alike but are no code and sentence
OTHER_CALLS = frozenset(
    {"Note", "Move", "Hold", "setattr", "getattr", "replace", "removeprefix", "import_module", "_fit"}
)


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    sentence: str
    next_step: str
    #: error class, or "" for a reason that is told and not raised
    error: str
    path: str


def codes() -> str:
    by_code: dict[str, list[Reason]] = defaultdict(list)
    for reason in reasons():
        by_code[reason.code].append(reason)
    raised = [_line(name, found) for name, found in sorted(by_code.items()) if any(one.error for one in found)]
    told = [_line(name, found) for name, found in sorted(by_code.items()) if not any(one.error for one in found)]
    classes = [
        (code(name), str(cls.exit_code), code(cls.grpc_status), (cls.__doc__ or "").splitlines()[0])
        for name, cls in ERRORS.items()
    ]
    head = ("Code", "Class", "Sentence", "Next step", "Source")
    return page(
        "Codes",
        "Codes are stable: scripts may match on them. Sentences may be improved.",
        "## Classes\n\n" + table(("Class", "Exit", "gRPC status", "Meaning"), classes),
        "## Errors\n\n" + table(head, raised),
        "## Reasons\n\nTold as the reason for a state, or raised through a function of the module.\n\n"
        + table(head, told),
    )


def reasons() -> Iterator[Reason]:
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT).as_posix()
            if "/v1/" not in relative:
                yield from reasons_in(relative, path.read_text(encoding="utf-8"))


def reasons_in(path: str, text: str) -> Iterator[Reason]:
    for function, node in _calls(ast.parse(text, filename=path), None):
        name = ast.unparse(node.func).rpartition(".")[2]
        given = {word.arg: word.value for word in node.keywords}
        first = given.get("code") or (node.args[0] if node.args else None)
        known = _code(first)
        if name in OTHER_CALLS or not CODE.fullmatch(known):
            continue
        second = given.get("sentence") or (node.args[1] if len(node.args) > 1 else None)
        third = given.get("next_step") or (node.args[2] if len(node.args) > 2 and name not in ERRORS else None)
        step = " / ".join(_texts(_named(third, function, node.lineno)))
        for sentence in _texts(_named(second, function, node.lineno)):
            if " " in sentence or sentence == "…":
                yield Reason(known, sentence, step, name if name in ERRORS else "", path)


def _calls(node: ast.AST, function: Function | None) -> Iterator[tuple[Function | None, ast.Call]]:
    """Every call with the function that it stands in."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Call):
            yield function, inner
        yield from _calls(inner, inner if isinstance(inner, Function) else function)


def _named(node: ast.expr | None, function: Function | None, line: int) -> ast.expr | None:
    """What a name was given last before this line of its function; anything else as it is."""
    if not isinstance(node, ast.Name) or function is None:
        return node
    given = [
        (one.lineno, one.value)
        for one in ast.walk(function)
        if isinstance(one, ast.Assign) and one.lineno < line and ast.unparse(one.targets[0]) == node.id
    ]
    return max(given, key=lambda one: one[0])[1] if given else node


def _code(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return _filled_in(node) if isinstance(node, ast.JoinedStr) else ""


def _filled_in(node: ast.JoinedStr) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def _texts(node: ast.expr | None) -> list[str]:
    """A text as written; both, where a condition chooses; `…` for what only a running program knows."""
    match node:
        case None | ast.Constant(value="" | None):
            return []
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr():
            return [_filled_in(node)]
        case ast.IfExp():
            return _texts(node.body) + _texts(node.orelse)
        case ast.Name() | ast.Attribute() | ast.Subscript() | ast.Call() | ast.BinOp():
            return ["…"]
        case _:
            return []


def _line(name: str, found: list[Reason]) -> tuple[str, ...]:
    classes = sorted({one.error for one in found if one.error})
    sentences = list(dict.fromkeys(one.sentence for one in found if one.sentence))
    steps = list(dict.fromkeys(one.next_step for one in found if one.next_step))
    places = sorted({one.path for one in found})
    return (
        code(name),
        ", ".join(map(code, classes)),
        " / ".join(sentences),
        " / ".join(steps),
        ", ".join(map(code, places)),
    )
