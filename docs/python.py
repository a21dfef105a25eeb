"""The reference of the Python API: every public name of `shardwork` with its signature and what its docstring says."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from tables import code, page, table

import shardwork

#: a docstring may link a page, whose address is relative to the source
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
#: in the order in which one meets them
FIRST = ("Client", "Job", "Wallet", "show_progress", "Plan", "Measured", "Progress")
ASYNCHRONOUS = ("AsyncClient", "AsyncJob", "AsyncWallet")
ASYNC_WORDS = """## AsyncClient, AsyncJob, AsyncWallet

The same with `await`: names and arguments are equal, iterators are asynchronous. `AsyncClient.session()` gives the
session for calls that have no method."""
ERRORS = "Errors, all below ShardworkError; each has `why` (code, sentence, evidence, next step) and `exit_code`"


def api() -> str:
    """The page."""
    named = {name: getattr(shardwork, name) for name in shardwork.__all__}
    errors = [name for name, value in named.items() if isinstance(value, type) and issubclass(value, Exception)]
    special = {*FIRST, *ASYNCHRONOUS, *errors}
    others = [name for name in named if name not in special]
    parts = [
        "What `import shardwork` gives. How to use it: [the guide](../api/README.md). Money is integer millisatoshi.",
        *(_section(name, named[name]) for name in FIRST),
        ASYNC_WORDS,
        *(_section(name, named[name]) for name in others),
        f"## {ERRORS}\n\n" + table(("Name", "Exit", "Meaning"), [_error(named[name], name) for name in errors]),
    ]
    return page("Python API", *parts)


def _section(name: str, value: Any) -> str:
    lines = [f"## {name}", _words(value)]
    if not isinstance(value, type):
        if callable(value) and inspect.isfunction(value):
            lines.insert(1, code(f"{name}{_signature(value)}"))
        return "\n\n".join(line for line in lines if line)
    if dataclasses.is_dataclass(value):
        rows = [(code(each.name), code(str(each.type))) for each in dataclasses.fields(value)]
        lines.append(table(("Field", "Type"), rows))
    elif _has_own_signature(value):
        lines.insert(1, code(f"{name}{_signature(value)}"))
    rows = [(code(f"{one}{_signature(member)}"), _words(member)) for one, member in _members(value)]
    lines.append(table(("Member", "Meaning"), rows))
    return "\n\n".join(line for line in lines if line)


def _members(value: type) -> list[tuple[str, Any]]:
    """Methods and properties that are the class's own."""
    own = [(name, member) for name, member in vars(value).items() if not name.startswith("_")]
    return [(name, member) for name, member in own if inspect.isfunction(member) or isinstance(member, property)]


def _has_own_signature(value: type) -> bool:
    return value.__name__ == "Client"


def _signature(member: Any) -> str:
    if isinstance(member, property):
        return ""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(member)))
    return text.replace("(self, ", "(").replace("(self)", "()").removesuffix(" -> None")


def _words(value: Any) -> str:
    """The docstring's first paragraph, on one line; types that are only unions have none."""
    if getattr(value, "__module__", "") in ("types", "typing", "collections.abc"):
        return code(str(value))
    return LINK.sub(r"\1", " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split()))


def _error(value: type[Exception], name: str) -> tuple[str, str, str]:
    return code(name), str(getattr(value, "exit_code", 1)), _words(value)
