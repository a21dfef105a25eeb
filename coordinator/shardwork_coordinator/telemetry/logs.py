"""Logs: one line an event, JSON for machines or in columns for people, without anybody's data.

A line has a stable event name, its component, the id of the call it belongs to, and facts: ids, codes, counts, seconds.
It never has job data, names of files, secrets, tokens, keys or addresses of parties. Therefore the text of an exception
is left out, which may quote any of them; its kind, its code and the places that it passed are enough to find it. What
libraries say keeps its template and loses what was filled in. Called at start by `cli`; `Log` by everything that logs.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import structlog

from shardwork.errors import ShardworkError

#: the call that is being answered, for its lines and for what its caller may quote; set by `calls`
request_id: ContextVar[str] = ContextVar("request_id", default="")

NAME = "shardwork_coordinator"
#: letters of a fact, and frames of an error, that are kept
LONGEST_FACT, MOST_FRAMES = 200, 12
#: what a database says beside its text
SQLSTATE = re.compile(r"[0-9A-Z]{5}")

Fields = dict[str, Any]


class Log:
    """What one component says; `event` is a literal, `facts` are ids, codes and numbers."""

    def __init__(self, component: str) -> None:
        self._log = logging.getLogger(f"{NAME}.{component}")

    def debug(self, event: str, **facts: object) -> None:
        self._say(logging.DEBUG, event, None, facts)

    def info(self, event: str, **facts: object) -> None:
        self._say(logging.INFO, event, None, facts)

    def warning(self, event: str, *, error: BaseException | None = None, **facts: object) -> None:
        """`error`: told by its kind and code."""
        self._say(logging.WARNING, event, error, facts)

    def error(self, event: str, *, error: BaseException | None = None, **facts: object) -> None:
        """With where the error came from; the one that is being handled when none is given."""
        self._say(logging.ERROR, event, error or sys.exception(), facts)

    def _say(self, level: int, event: str, error: BaseException | None, facts: dict[str, object]) -> None:
        self._log.log(level, event, exc_info=error, extra={"facts": facts}, stacklevel=3)


def configure(form: str, level: str, stream: TextIO | None = None) -> None:
    """Sends everything that is logged in this process to `stream`. `form`: json, console, or auto: console where a
    person looks on."""
    out: TextIO = stream or sys.stderr
    people = form == "console" or (form == "auto" and out.isatty())
    render: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if people:
        render = structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False, pad_event_to=28)
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=[_fields],
            pass_foreign_args=True,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # libraries tell at lower levels what they do with whose data
    root.setLevel(logging.WARNING)
    logging.getLogger(NAME).setLevel(level.upper())
    logging.captureWarnings(False)


def adopt(*names: str) -> None:
    """Takes away the handlers that a library gave its own loggers."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def loop_failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's handler: its own would print the failed task with its exception's text."""
    Log("loop").error("loop.exception", error=context.get("exception"))


def kind_of(error: BaseException) -> str:
    """An error in a word: its class, with its code, its errno or its SQL state."""
    name = type(error).__name__
    if isinstance(error, ShardworkError):
        return f"{name} {error.code}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} {errno.errorcode.get(error.errno, error.errno)}"
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return f"{name} {state}" if isinstance(state, str) and SQLSTATE.fullmatch(state) else name


def _fields(_: Any, method: str, event: Any) -> Fields:
    """The record's fields in the order of a line."""
    record: logging.LogRecord = event["_record"]
    ours = record.name == NAME or record.name.startswith(f"{NAME}.")
    found: Fields = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "component": record.name.removeprefix(f"{NAME}.") if ours else record.name,
        "event": record.msg if ours else "library.message",
    }
    if request := request_id.get():
        found["request"] = request
    if ours:
        found |= {key: _fact(value) for key, value in getattr(record, "facts", {}).items()}
    else:
        found |= _foreign(record, filled_in=bool(event["positional_args"]))
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        found["error"] = kind_of(error)
        if record.levelno >= logging.ERROR:
            found["cause"] = [kind_of(one) for one in _causes(error)]
            found["trace"] = _places(error)
    return {"_record": record, "_from_structlog": False, **found}


def _foreign(record: logging.LogRecord, *, filled_in: bool) -> Fields:
    """What a library says: the text that its authors wrote, where that can be told from what was filled in."""
    found: Fields = {"at": f"{record.module}:{record.lineno}"}
    if filled_in and isinstance(record.msg, str):
        found["message"] = record.msg[:LONGEST_FACT]
    return found


def _fact(value: object) -> object:
    """Short and printable: an id may be of a party's own making."""
    if isinstance(value, bool | int | float):
        return value
    return "".join(letter if letter.isprintable() else " " for letter in str(value)[:LONGEST_FACT])


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    while (cause := error.__cause__ or error.__context__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        error = cause


def _places(error: BaseException) -> list[str]:
    """Where it passed, innermost last, by module and line; no text and no value of a variable."""
    frames = traceback.extract_tb(error.__traceback__)[-MOST_FRAMES:]
    return [f"{Path(one.filename).stem}:{one.lineno} {one.name}" for one in frames]
