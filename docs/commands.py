"""The pages of commands: every command of a program with its arguments and options, from the typer tree that runs.

A command, argument or option that says nothing about itself has an empty Meaning, which a house test refuses.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from tables import code, page, table

from shardwork_client import cli as client
from shardwork_coordinator import cli as coordinator
from shardwork_worker import cli as worker

#: in a docstring, what typer needs and a page doesn't
FORM_FEED = re.compile(r"\f.*", re.DOTALL)
EXAMPLE = re.compile(r"^Examples?:\s*(.+)$")
#: made by typer for every program alike
SHELL = frozenset({"--install-completion", "--show-completion"})
#: types as a person reads them
NAMES: dict[Any, str] = {str: "text", int: "integer", float: "number", Path: "path"}

Found = tuple[str, Any]


def requester() -> str:
    return _program("shardwork", client.app)


def provider() -> str:
    return _program("shardwork-worker", worker.app)


def operator() -> str:
    return _program("shardwork-coordinator", coordinator.app)


def _program(name: str, app: typer.Typer) -> str:
    root = typer.main.get_command(app)
    found = list(leaves(name, root))
    overview = [(f"[`{path}`](#{path.replace(' ', '-')})", _first(command)) for path, command in found]
    parts = [_words(root), table(("Command", "Meaning"), overview)]
    if general := _rows(root):
        parts.append("## Options of every command\n\n" + table(("Option", "Value", "Default", "Meaning"), general))
    parts += [_section(path, command) for path, command in found]
    return page(f"Commands of {name}", *parts)


def leaves(path: str, command: Any) -> Iterator[Found]:
    """(`program group verb`, command) of every command that does something, in the order of --help."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, one in inner.items():
        if not one.hidden:
            yield from leaves(f"{path} {name}", one)


def _section(path: str, command: Any) -> str:
    usage = " ".join([path, *(_usage(one) for one in command.params if _is_argument(one))])
    arguments = [(code(_name(one)), getattr(one, "help", None) or "") for one in command.params if _is_argument(one)]
    parts = [
        f"## {path}",
        _words(command),
        # `text`: a form, not a command to run
        f"```text\n{usage}{' [OPTIONS]' if _rows(command) else ''}\n```",
        table(("Argument", "Meaning"), arguments),
        table(("Option", "Value", "Default", "Meaning"), _rows(command)),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part)


def _rows(command: Any) -> list[tuple[str, ...]]:
    """Options with a name of their own; `--help` is every command's, and typer's own completion every program's."""
    return [
        (", ".join(map(code, [*one.opts, *one.secondary_opts])), _value(one), _default(one), one.help or "")
        for one in command.params
        if not _is_argument(one) and not one.hidden and not SHELL & set(one.opts) and "--help" not in one.opts
    ]


def _is_argument(one: Any) -> bool:
    return str(one.param_type_name) == "argument"


def _name(one: Any) -> str:
    return str(one.metavar or one.name.upper()).strip("[]")


def _usage(one: Any) -> str:
    name = _name(one)
    return (name if one.required else f"[{name}]") + ("…" if one.nargs == -1 else "")


def _value(one: Any) -> str:
    """What follows the option; nothing follows a flag."""
    if one.is_flag:
        return ""
    annotation = one.type_descriptor.annotation
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(code(str(each.value)) for each in annotation)
    bounds = [f"≥ {one.min}"] if one.min is not None else []
    bounds += [f"≤ {one.max}"] if one.max is not None else []
    return ", ".join([one.metavar or NAMES.get(annotation, getattr(annotation, "__name__", "text")), *bounds])


def _default(one: Any) -> str:
    value = getattr(one.default, "value", one.default)
    return "" if value is None or callable(value) or one.is_flag or value in ("", ()) else code(str(value))


def _words(command: Any) -> str:
    """The help text as paragraphs; an example becomes code."""
    text = FORM_FEED.sub("", inspect.cleandoc(command.help or ""))
    paragraphs = [" ".join(each.split("\n")) for each in text.split("\n\n") if each.strip()]
    return "\n\n".join(f"Example: `{found[1]}`" if (found := EXAMPLE.match(each)) else each for each in paragraphs)


def _first(command: Any) -> str:
    return _words(command).partition("\n\n")[0]
