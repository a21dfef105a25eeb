"""How a command ends: its exit code, and what a person or a script reads when it goes wrong.

Every command body runs inside `guard`. Errors go to stderr as what happened, evidence and next step, or as one JSON
object with --json; a traceback only under SHARDWORK_DEBUG=1. Exit codes are `ShardworkError.exit_code`; 2 is usage, 130
is Ctrl-C. Nothing here knows a particular command.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from shardwork.errors import ShardworkError
from shardwork.why import Why

if TYPE_CHECKING:
    from shardwork.problem import Problem

INTERRUPTED = 130
USAGE = 2

#: what to do about an error of the file system, where more can be said than its own words
_DISK_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space, then run the same command again."),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Name a place that you may read and write, or mend its permissions."),
    errno.EROFS: "Name a folder on a disk that can be written.",
    errno.ENOENT: "Check the path; a folder must be there before a file is written into it.",
}
_DISK_FIX = "Check the path."
#: what else to do where the path is none that a person named
_HOME_FIX = "Or give Shardwork another place for its own files:  export SHARDWORK_HOME=DIR"


@contextmanager
def guard(json_output: bool = False, *, interrupted: str = "Nothing was sent or spent.") -> Generator[None, None, None]:
    """Turns every failure of a command body into its documented message and exit code.

    `interrupted` tells who presses Ctrl-C what became of it and how to go on.
    """
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except (KeyboardInterrupt, typer.Abort):
        interrupt(interrupted, json_output)
    except ShardworkError as error:
        fail(error.why, error.exit_code, json_output, problems=getattr(error, "problems", ()))
    except BrokenPipeError:
        # the reader of our output went away (`| head`): not our failure, and nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except OSError as error:
        if os.environ.get("SHARDWORK_DEBUG") == "1":
            raise
        fail(disk(error) if _is_disk(error) else unexpected(error), 1, json_output)
    except Exception as error:
        if os.environ.get("SHARDWORK_DEBUG") == "1":
            raise
        fail(unexpected(error), 1, json_output)


def interrupt(sentence: str, json_output: bool = False) -> NoReturn:
    """Leaves with exit 130, on a line of its own: the terminal has just written ^C."""
    if json_output:
        fail(Why(code="client.interrupted", sentence=sentence), INTERRUPTED, json_output)
    say(f"{chr(10) if sys.stderr.isatty() else ''}Interrupted. {sentence}")
    raise typer.Exit(INTERRUPTED) from None


def fail(why: Why, exit_code: int, json_output: bool, *, problems: Sequence[Problem] = ()) -> NoReturn:
    """Prints why on stderr, with every problem of a file where there are some, and leaves with `exit_code`."""
    if json_output:
        error: dict[str, object] = {
            "code": why.code,
            "sentence": why.sentence,
            "evidence": dict(why.evidence),
            "next_step": why.next_step,
            "exit_code": exit_code,
        }
        if problems:
            error["errors"] = [problem.to_json() for problem in problems]
        print(_shown({"error": error}), file=sys.stderr)
    else:
        from .render import show_problems, show_why

        if problems:
            show_problems(problems, failed=True)
        else:
            show_why(why, failed=True)
    raise typer.Exit(exit_code) from None


def usage(sentence: str, next_step: str, json_output: bool) -> NoReturn:
    """Leaves with exit 2: the command line itself is incomplete or contradictory."""
    fail(Why(code="usage", sentence=sentence, next_step=next_step), USAGE, json_output)


def unexpected(error: Exception) -> Why:
    """The story of an error that Shardwork did not foresee."""
    return Why(
        code="client.unexpected",
        sentence=f"Something broke inside the client: {type(error).__name__}: {error}",
        next_step="Run it again with SHARDWORK_DEBUG=1 to see where, and report that text.",
    )


def _is_disk(error: OSError) -> bool:
    """Errors of files name one, or say that the disk is full."""
    return error.filename is not None or error.errno in _DISK_FIXES


def disk(error: OSError) -> Why:
    """A file that cannot be read or written."""
    # of a copy, the second is the one that is written
    named: object = error.filename2 or error.filename
    path = os.fsdecode(named) if isinstance(named, bytes) else str(named or "")
    fix = _DISK_FIXES.get(error.errno or 0, _DISK_FIX)
    return Why(
        code="client.file",
        sentence=f"A file or folder cannot be used: {error.strerror or error}.",
        evidence={"path": path} if path else {},
        next_step=f"{fix} {_HOME_FIX}" if path and _is_ours(path) else fix,
    )


def _is_ours(path: str) -> bool:
    """Whether a path lies in one of Shardwork's own folders."""
    from shardwork.config import Home

    home = Home.find()
    folders = (home.config_dir, home.state_dir, home.cache_dir, home.data_dir)
    return any(Path(path).is_relative_to(folder) for folder in folders)


def say(text: str) -> None:
    """A note for the person, never data: stderr."""
    print(text, file=sys.stderr, flush=True)


def emit(value: object) -> None:
    """One JSON value on one line of stdout, flushed so that a follower sees it at once."""
    text = _shown(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # another locale, or a file name that is no text: escapes say it all
        text = json.dumps(value)
    print(text, flush=True)


def _shown(value: object) -> str:
    """As JSON in which strangers' words can't drive a terminal: what no letter shows is written as its escape."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def is_terminal() -> bool:
    """Whether a person can answer a prompt: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()
