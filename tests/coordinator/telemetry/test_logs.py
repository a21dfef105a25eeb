"""Lines of the log: stable names and facts, and nothing of anybody's data, whatever an exception or a library says."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardwork.errors import Unreachable
from shardwork_coordinator.artifacts.reach import _answer  # pyright: ignore[reportPrivateUsage]
from shardwork_coordinator.telemetry import logs
from shardwork_coordinator.telemetry.logs import Log, adopt, configure, loop_failed, request_id

SECRET = "row text of a requester"
COORDINATOR = Path(logs.__file__).parents[1]
#: names of facts; a new one is looked at for what it may hold
FACTS = frozenset(
    {"about", "at", "attempts", "call", "code", "coordinator", "deposit", "effect", "error", "kept", "letters"}
    | {
        "method",
        "most",
        "note",
        "part",
        "payout",
        "pid",
        "request",
        "said",
        "seconds",
        "service",
        "status",
        "version",
        "wanted",
        "worker",
    }
)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What would stand on standard error, as JSON; logging is as it was afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    found = io.StringIO()
    configure("json", "debug", found)
    yield found
    root.handlers[:], root.level = before[0], before[1]
    logging.getLogger(logs.NAME).setLevel(logging.NOTSET)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_a_time_a_level_a_component_an_event_and_its_facts(stream: io.StringIO) -> None:
    Log("outbox").warning("effect.waits", effect="job/stage/r1/merge", attempts=2)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("timestamp"))
    assert line == {
        "level": "warning",
        "component": "outbox",
        "event": "effect.waits",
        "effect": "job/stage/r1/merge",
        "attempts": 2,
    }


def test_an_error_is_told_by_its_kind_its_causes_and_its_places(stream: io.StringIO) -> None:
    try:
        try:
            raise OSError(28, "No space left on device", f"/data/{SECRET}.jsonl")
        except OSError as full:
            raise Unreachable("store.unreachable", f"It says {SECRET}.", row=SECRET) from full
    except Unreachable:
        Log("store").error("store.failed")
    (line,) = lines(stream)
    assert (line["error"], line["cause"]) == ("Unreachable store.unreachable", ["OSError ENOSPC"])
    assert line["trace"][-1].startswith("test_logs:")
    assert SECRET not in stream.getvalue()


def test_a_warning_names_the_error_and_no_places(stream: io.StringIO) -> None:
    Log("store").warning("store.away", error=ValueError(SECRET))
    (line,) = lines(stream)
    assert line["error"] == "ValueError" and "trace" not in line


def test_what_a_library_says_loses_what_was_filled_in(stream: io.StringIO) -> None:
    library = logging.getLogger("httpx")
    library.warning("request to %s failed", f"https://host/?signature={SECRET}")
    library.warning(f"request for {SECRET} failed")
    library.info("not at this level")
    first, second = lines(stream)
    assert (first["component"], first["message"]) == ("httpx", "request to %s failed")
    assert "message" not in second and second["at"].startswith("test_logs:")
    assert SECRET not in stream.getvalue()


async def test_a_failed_task_is_told_without_its_text(stream: io.StringIO) -> None:
    loop = asyncio.get_running_loop()
    loop_failed(loop, {"message": SECRET, "exception": ValueError(SECRET), "future": SECRET})
    (line,) = lines(stream)
    assert (line["event"], line["error"]) == ("loop.exception", "ValueError")
    assert SECRET not in stream.getvalue()


def test_a_line_belongs_to_its_call(stream: io.StringIO) -> None:
    token = request_id.set("0123456789ab")
    Log("rpc").error("rpc.unexpected")
    request_id.reset(token)
    Log("rpc").info("rpc.ended")
    first, second = lines(stream)
    assert first["request"] == "0123456789ab" and "request" not in second


def test_facts_are_short_and_stay_on_their_line(stream: io.StringIO) -> None:
    Log("x").info("x.y", effect="a\nb\x1b[31m" + "c" * 1_000)
    (line,) = lines(stream)
    assert line["effect"].startswith("a b [31mcc") and len(line["effect"]) == 200


def test_people_get_columns() -> None:
    root = logging.getLogger()
    before, found = root.handlers[:], io.StringIO()
    configure("console", "info", found)
    Log("outbox").info("effect.waits", attempts=2)
    Log("outbox").debug("not.seen")
    root.handlers[:] = before
    logging.getLogger(logs.NAME).setLevel(logging.NOTSET)
    (line,) = found.getvalue().splitlines()
    assert re.search(r"\[info +\] effect\.waits +component=outbox attempts=2", line)


def test_a_librarys_own_handlers_are_taken_away() -> None:
    logger = logging.getLogger("a.library")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.propagate = False
    adopt("a.library")
    assert (logger.handlers, logger.propagate) == ([], True)


def test_of_an_object_stores_answer_status_and_code_are_told() -> None:
    said = "403 Forbidden: <Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>"
    assert _answer(said) == {"status": "403", "said": "InvalidAccessKeyId"}
    assert _answer("connection refused") == {}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a method of a Log, with its module."""
    for path in sorted(COORDINATOR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id in ("_log", "log") and node.func.attr in LEVELS:
                    yield path.name, node


LEVELS = ("debug", "info", "warning", "error")


def test_every_event_has_a_stable_name_and_known_facts() -> None:
    found = list(calls())
    assert len(found) > 20
    for place, call in found:
        assert len(call.args) == 1 and isinstance(call.args[0], ast.Constant), place
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", str(call.args[0].value)), place
        assert {word.arg for word in call.keywords if word.arg} <= FACTS, place


def test_nothing_logs_around_it() -> None:
    text = {path: path.read_text(encoding="utf-8") for path in COORDINATOR.rglob("*.py")}
    others = [path.name for path, found in text.items() if "logging.getLogger" in found]
    assert others == ["logs.py"]
