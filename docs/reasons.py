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
SOURCES = ("shardwork", "coordinator", "worker", "client")
CODE = re.compile(r"([a-z][a-z0-9_]*|…)(\.[a-z0-9_]+)+")
#: calls whose first two texts look alike but are no code and sentence
OTHER_CALLS = frozenset({"Note", "Move", "Hold", "setattr", "getattr", "replace", "removeprefix", "import_module"})


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    sentence: str
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
    head = ("Code", "Class", "Sentence", "Source")
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
    for node in ast.walk(ast.parse(text, filename=path)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        given = {word.arg: word.value for word in node.keywords}
        first = given.get("code") or (node.args[0] if node.args else None)
        known = _code(first)
        if name in OTHER_CALLS or not CODE.fullmatch(known):
            continue
        second = given.get("sentence") or (node.args[1] if len(node.args) > 1 else None)
        for sentence in _sentences(second):
            yield Reason(known, sentence, name if name in ERRORS else "", path)


def _code(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return _filled_in(node) if isinstance(node, ast.JoinedStr) else ""


def _filled_in(node: ast.JoinedStr) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def _sentences(node: ast.expr | None) -> list[str]:
    """The sentence as written; both, where a condition chooses."""
    match node:
        case ast.Constant(value=str(text)) if " " in text:
            return [text]
        case ast.JoinedStr():
            return [_filled_in(node)]
        case ast.IfExp():
            return _sentences(node.body) + _sentences(node.orelse)
        case ast.Name():
            return [""]
        case _:
            return []


def _line(name: str, found: list[Reason]) -> tuple[str, ...]:
    classes = sorted({one.error for one in found if one.error})
    sentences = list(dict.fromkeys(one.sentence for one in found if one.sentence))
    places = sorted({one.path for one in found})
    return code(name), ", ".join(map(code, classes)), " / ".join(sentences), ", ".join(map(code, places))
